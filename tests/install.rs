//! The installer, `install.sh`, against releases on 127.0.0.1: what it fetches, what it refuses, and what is there afterwards.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nat_testing::golden;
use nat_testing::hub::{Reply, Server, sha256};
use nat_testing::place::names;
use tempfile::TempDir;

const LINUX: &str = "x86_64-unknown-linux-musl";
const PROGRAMS: [&str; 2] = ["nat-convert", "nat-infer"];

/// The files of a release, by their paths below `/releases`.
type Files = BTreeMap<String, Vec<u8>>;

/// A program that says its name and `version`.
fn script(name: &str, version: &str) -> String {
    format!("#!/bin/sh\necho {name} {version}\n")
}

fn archive_name(version: &str, target: &str) -> String {
    format!("nat-infer-v{version}-{target}.tar.gz")
}

/// A file that may be run.
fn executable(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An archive as the releases have it, with these programs.
fn archive(version: &str, target: &str, programs: &[(&str, String)]) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let archive = archive_name(version, target);
    let folder = archive.strip_suffix(".tar.gz").unwrap();
    fs::create_dir(place.path().join(folder)).unwrap();
    fs::write(place.path().join(folder).join("README.md"), "read me").unwrap();
    for (name, content) in programs {
        executable(&place.path().join(folder).join(name), content);
    }
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(&archive).arg(folder).current_dir(place.path());
    assert!(tar.status().expect("the installer's tests need tar").success());
    fs::read(place.path().join(archive)).unwrap()
}

/// Adds a release to `files`, which is the latest from now on; its archives have these platforms.
fn publish(files: &mut Files, version: &str, targets: &[&str]) {
    let mut sums = format!("{}  install.sh\n", sha256(b"no archive"));
    for target in targets {
        let bytes = archive(version, target, &PROGRAMS.map(|name| (name, script(name, version))));
        let name = archive_name(version, target);
        sums += &format!("{}  {name}\n", sha256(&bytes));
        files.insert(format!("download/v{version}/{name}"), bytes);
    }
    files.insert(format!("download/v{version}/SHA256SUMS"), sums.clone().into());
    files.insert("latest/download/SHA256SUMS".to_owned(), sums.into());
}

/// Releases of all platforms, the older and the latest.
fn releases() -> Files {
    let mut files = Files::new();
    publish(&mut files, "0.1.0", &[LINUX]);
    // A variant's name says more than a version: it is not what `latest` means.
    publish(
        &mut files,
        "0.2.0",
        &["cuda-x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl", "aarch64-apple-darwin", LINUX],
    );
    files
}

/// A server with these files. As on GitHub, every file is somewhere else than its address says.
fn serve(files: Files) -> Server {
    Server::start(move |request| {
        if let Some(name) = request.path.strip_prefix("/releases/") {
            return match files.contains_key(name) {
                true => Reply::status(302).with("Location", format!("/store/{name}")),
                false => Reply::status(404),
            };
        }
        let name = request.path.strip_prefix("/store/").unwrap_or_default();
        match files.get(name) {
            Some(bytes) => Reply { status: 200, body: bytes.clone(), ..Reply::default() },
            None => Reply::status(404),
        }
    })
}

/// A home, and what stands first in `PATH`.
struct Machine {
    home: TempDir,
    releases: String,
    variables: Vec<(&'static str, String)>,
    path: String,
}

impl Machine {
    /// A machine whose `uname` says this, with the releases of `server`.
    fn new(server: &Server, [system, processor]: [&str; 2]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("tools");
        executable(
            &bin.join("uname"),
            &format!("#!/bin/sh\n[ \"$1\" = -s ] && echo {system} || echo {processor}\n"),
        );
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        Self { home, releases: format!("{}/releases", server.url()), variables: Vec::new(), path }
    }

    fn linux(server: &Server) -> Self {
        Self::new(server, ["Linux", "x86_64"])
    }

    /// The same with this variable.
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// The same with nothing but these programs, and those that every system has.
    fn only(mut self, programs: &[&str]) -> Self {
        const EVERYWHERE: [&str; 13] = [
            "cat", "chmod", "cp", "grep", "gzip", "mkdir", "mktemp", "mv", "rm", "sh", "sysctl", "tail", "tr",
        ];
        let tools = self.home.path().join("tools");
        for program in EVERYWHERE.iter().chain(programs) {
            if let Some(found) = found(program) {
                std::os::unix::fs::symlink(found, tools.join(program)).unwrap();
            }
        }
        self.path = tools.display().to_string();
        self
    }

    /// Runs the installer.
    fn install(&self, arguments: &[&str]) -> Output {
        self.run(&golden::repository().join("install.sh"), arguments)
    }

    /// Runs a script, which arrives as the one line has it: on standard input.
    fn run(&self, script: &Path, arguments: &[&str]) -> Output {
        let script = fs::File::open(script).unwrap();
        let mut command = Command::new(found("sh").unwrap());
        command.args(["-s", "--"]).args(arguments).current_dir(self.home.path()).stdin(Stdio::from(script));
        command.env_clear().env("HOME", self.home.path()).env("PATH", &self.path);
        command.env("NAT_INFER_RELEASES", &self.releases).envs(self.variables.iter().cloned());
        command.output().unwrap()
    }

    /// Runs it to a failure: its one line. Nothing is left of what it tried.
    fn refuse(&self, arguments: &[&str]) -> String {
        let output = self.install(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(
            !names_in(&self.home.path().join(".local/bin")).iter().any(|name| name.starts_with('.')),
            "{stderr}"
        );
        stderr.strip_prefix("install.sh: ").expect(&stderr).trim_end().replace(&self.releases, "RELEASES")
    }

    /// What the installed program says.
    fn says(&self, folder: &str, program: &str) -> String {
        let output = Command::new(self.home.path().join(folder).join(program)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What is in a folder; nothing where there is none.
fn names_in(folder: &Path) -> Vec<String> {
    if folder.is_dir() { names(folder) } else { Vec::new() }
}

/// Where a program is.
fn found(program: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|f| f.join(program)).find(|p| p.is_file())
}

/// The output of an installation that has to succeed.
fn success(output: Output) -> String {
    assert_eq!(
        (output.status.code(), &*output.stderr),
        (Some(0), &b""[..]),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_latest_release_is_installed_for_the_user_alone() {
    let server = serve(releases());
    let machine = Machine::linux(&server);
    let said = success(machine.install(&[]));
    let bin = machine.home.path().join(".local/bin");
    assert!(
        said.starts_with(&format!("nat-infer and nat-convert 0.2.0 are in {}\n", bin.display())),
        "{said}"
    );
    assert!(said.contains("export PATH="), "{said}");
    assert_eq!(names(&bin), PROGRAMS);
    assert_eq!(names(machine.home.path()), [".local", "tools"]);
    for program in PROGRAMS {
        assert_eq!(machine.says(".local/bin", program), format!("{program} 0.2.0\n"));
    }
    let asked: Vec<_> =
        server.requests().into_iter().map(|r| r.path).filter(|p| p.starts_with("/releases")).collect();
    let archive = format!("/releases/download/v0.2.0/{}", archive_name("0.2.0", LINUX));
    assert_eq!(asked, ["/releases/latest/download/SHA256SUMS".to_owned(), archive]);
}

#[test]
fn a_newer_release_takes_the_older_ones_place() {
    let server = serve(releases());
    let machine = Machine::linux(&server).with("NAT_INFER_VERSION", "0.1.0");
    success(machine.install(&[]));
    assert_eq!(machine.says(".local/bin", "nat-infer"), "nat-infer 0.1.0\n");
    // An argument counts more than a variable.
    success(machine.install(&["--version", "v0.2.0"]));
    assert_eq!(machine.says(".local/bin", "nat-infer"), "nat-infer 0.2.0\n");
    assert_eq!(names(&machine.home.path().join(".local/bin")), PROGRAMS);
}

#[test]
fn the_folder_may_be_chosen() {
    let server = serve(releases());
    let machine = Machine::linux(&server).with("NAT_INFER_INSTALL_DIR", "by variable");
    success(machine.install(&[]));
    success(machine.install(&["--to", "by argument/new"]));
    assert_eq!(machine.says("by variable", "nat-convert"), "nat-convert 0.2.0\n");
    assert_eq!(machine.says("by argument/new", "nat-convert"), "nat-convert 0.2.0\n");
    // Of a folder in PATH there is nothing more to say.
    let mut machine = Machine::linux(&server);
    machine.path += &format!(":{}", machine.home.path().canonicalize().unwrap().join("bin").display());
    assert_eq!(success(machine.install(&["--to=bin/"])).lines().count(), 1);
}

#[test]
fn each_platform_gets_its_own_archive() {
    let server = serve(releases());
    for (uname, target) in [
        (["Linux", "x86_64"], LINUX),
        (["Linux", "aarch64"], "aarch64-unknown-linux-musl"),
        (["Darwin", "arm64"], "aarch64-apple-darwin"),
    ] {
        success(Machine::new(&server, uname).install(&[]));
        let asked = server.requests().pop().unwrap().path;
        assert_eq!(asked, format!("/store/download/v0.2.0/{}", archive_name("0.2.0", target)));
    }
    // A shell that macOS translates does not know where it is.
    let machine = Machine::new(&server, ["Darwin", "x86_64"]);
    executable(&machine.home.path().join("tools/sysctl"), "#!/bin/sh\necho 1\n");
    success(machine.install(&[]));
    assert!(server.requests().pop().unwrap().path.ends_with("aarch64-apple-darwin.tar.gz"));
}

#[test]
fn a_platform_without_a_build_is_told_what_to_do() {
    let server = serve(releases());
    let cargo = "with Rust and a C compiler: cargo install nat-infer nat-convert";
    let intel = Machine::new(&server, ["Darwin", "x86_64"]);
    executable(&intel.home.path().join("tools/sysctl"), "#!/bin/sh\nexit 1\n");
    assert_eq!(intel.refuse(&[]), format!("no release is built for Darwin on x86_64; {cargo}"));
    let bsd = Machine::new(&server, ["FreeBSD", "amd64"]);
    assert_eq!(bsd.refuse(&[]), format!("no release is built for FreeBSD on amd64; {cargo}"));
    let windows = Machine::new(&server, ["MINGW64_NT-10.0-22631", "x86_64"]);
    assert_eq!(
        windows.refuse(&[]),
        "this is for Linux and macOS; on Windows unpack the .zip from RELEASES/latest"
    );
    assert!(server.requests().is_empty());
    // This release had one platform only.
    let arm = Machine::new(&server, ["Linux", "aarch64"]);
    assert_eq!(
        arm.refuse(&["--version=0.1.0"]),
        "RELEASES/download/v0.1.0/SHA256SUMS lists no archive for aarch64-unknown-linux-musl: see RELEASES for what there is"
    );
}

#[test]
fn what_differs_from_its_checksum_is_not_installed() {
    let mut files = releases();
    let name = format!("download/v0.2.0/{}", archive_name("0.2.0", LINUX));
    let (whole, damaged) = (files[&name].clone(), files.get_mut(&name).unwrap());
    damaged[40] ^= 1;
    let (expected, got) = (sha256(&whole), sha256(damaged));
    let server = serve(files);
    // The installed one stays.
    let machine = Machine::linux(&server);
    success(machine.install(&["--version", "0.1.0"]));
    assert_eq!(
        machine.refuse(&[]),
        format!("RELEASES/{name} is damaged: its SHA-256 is {got}, SHA256SUMS says {expected}; try again")
    );
    assert_eq!(machine.says(".local/bin", "nat-infer"), "nat-infer 0.1.0\n");
}

#[test]
fn an_archive_that_is_none_is_named() {
    let name = archive_name("0.2.0", LINUX);
    let publish_bytes = |bytes: Vec<u8>| {
        let sums = format!("{}  {name}\n", sha256(&bytes));
        let files = [
            ("latest/download/SHA256SUMS".to_owned(), sums.into()),
            (format!("download/v0.2.0/{name}"), bytes),
        ];
        serve(Files::from(files))
    };
    let folder = name.strip_suffix(".tar.gz").unwrap();

    let server = publish_bytes(b"no archive".to_vec());
    assert!(Machine::linux(&server).refuse(&[]).starts_with(&format!("can't unpack {name}: ")));

    let server = publish_bytes(archive("0.2.0", LINUX, &[("nat-infer", script("nat-infer", "0.2.0"))]));
    let machine = Machine::linux(&server);
    assert_eq!(machine.refuse(&[]), format!("{name} has no {folder}/nat-convert: please report it"));
    // Not one program without the other.
    assert!(names(&machine.home.path().join(".local/bin")).is_empty());

    let broken = "#!/bin/sh\necho wrong machine >&2\nexit 1\n".to_owned();
    let server = publish_bytes(archive("0.2.0", LINUX, &[("nat-infer", broken)]));
    let machine = Machine::linux(&server);
    let bin = machine.home.path().canonicalize().unwrap().join(".local/bin");
    assert_eq!(
        machine.refuse(&[]),
        format!("nat-infer of {name} does not run in {}: wrong machine", bin.display())
    );
}

#[test]
fn what_can_not_be_fetched_is_named() {
    let mut files = releases();
    files.remove(&format!("download/v0.2.0/{}", archive_name("0.2.0", LINUX))).unwrap();
    let server = serve(files);
    let machine = Machine::linux(&server);
    let archive = archive_name("0.2.0", LINUX);
    let missing = machine.refuse(&[]);
    assert!(missing.starts_with(&format!("can't fetch RELEASES/download/v0.2.0/{archive}: ")), "{missing}");
    let unknown = machine.refuse(&["--version", "9.9.9"]);
    assert!(unknown.starts_with("can't fetch RELEASES/download/v9.9.9/SHA256SUMS: "), "{unknown}");

    // A connection that ends in the middle.
    let server =
        Server::start(|_| Reply { status: 200, body: vec![b'x'; 1000], cut: Some(10), ..Reply::default() });
    let cut = Machine::linux(&server).refuse(&[]);
    assert!(cut.starts_with("can't fetch RELEASES/latest/download/SHA256SUMS: "), "{cut}");
}

#[test]
fn wrong_arguments_are_refused() {
    let server = serve(releases());
    let machine = Machine::linux(&server);
    assert_eq!(machine.refuse(&["--too", "x"]), "unknown argument --too; --help lists them");
    assert_eq!(machine.refuse(&["--to"]), "--to needs a value; --help says more");
    assert_eq!(machine.refuse(&["--version", "../x"]), "../x is no version; one looks like 0.1.0");
    let homeless = Machine::linux(&server).with("HOME", "");
    assert_eq!(homeless.refuse(&[]), "HOME is not set: say where to with --to DIR");
    let help = success(machine.install(&["--help"]));
    assert!(help.contains("--to DIR") && help.contains("NAT_INFER_RELEASES"), "{help}");
    assert!(server.requests().is_empty());
}

#[test]
fn a_place_that_is_taken_is_named() {
    let server = serve(releases());
    let machine = Machine::linux(&server);
    fs::write(machine.home.path().join("file"), "mine").unwrap();
    assert_eq!(
        machine.refuse(&["--to", "file/bin"]),
        "can't make the folder file/bin: choose another with --to DIR"
    );
    assert!(server.requests().is_empty());
    let home = machine.home.path().canonicalize().unwrap();
    fs::create_dir_all(home.join("bin/nat-convert")).unwrap();
    assert_eq!(
        machine.refuse(&["--to", "bin"]),
        format!("{}/bin/nat-convert is a folder: choose another place with --to DIR", home.display())
    );
    assert_eq!(names(&home.join("bin")), ["nat-convert"]);
}

#[test]
fn what_the_installer_needs_is_named() {
    let server = serve(releases());
    let checked = ["tar", "sha256sum", "shasum", "openssl"];
    let bare = |programs: &[&str]| Machine::linux(&server).only(programs);
    assert_eq!(bare(&checked).refuse(&[]), "neither curl nor wget is here: install one of them");
    assert_eq!(bare(&["curl"]).refuse(&[]), "tar is not here: install it");
    assert_eq!(
        bare(&["curl", "tar"]).refuse(&[]),
        "none of sha256sum, shasum and openssl is here: install one, the download has to be checked"
    );
    // One of each kind is enough.
    for fetching in ["curl", "wget"] {
        for checking in ["sha256sum", "shasum", "openssl"] {
            if [fetching, checking].iter().all(|p| found(p).is_some()) {
                let machine = bare(&[fetching, checking, "tar", "perl", "env"]);
                success(machine.install(&[]));
                assert_eq!(machine.says(".local/bin", "nat-infer"), "nat-infer 0.2.0\n");
                // Each says in its own words what the server did.
                let unknown = machine.refuse(&["--version", "9.9.9"]);
                assert!(
                    unknown.starts_with("can't fetch RELEASES/download/v9.9.9/SHA256SUMS: "),
                    "{unknown}"
                );
                assert!(unknown.contains("404"), "{unknown}");
            }
        }
    }
}

#[test]
fn a_script_that_arrives_in_part_does_nothing() {
    const CUTS: usize = 40;
    let server = serve(releases());
    let machine = Machine::linux(&server);
    let whole = fs::read_to_string(golden::repository().join("install.sh")).unwrap();
    let call = whole.rfind("install_programs").unwrap();
    let part = machine.home.path().join("part");
    for cut in (0..CUTS).map(|cut| call * cut / CUTS).chain([call]) {
        fs::write(&part, &whole[..cut]).unwrap();
        machine.run(&part, &[]);
    }
    assert_eq!(names(machine.home.path()), ["part", "tools"]);
    assert!(server.requests().is_empty());
}
