//! `install.sh`, against a server of its own with releases of nothing but scripts.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nat_testing::hub::{Reply, Server, sha256};
use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/install.sh");
const TARGETS: [&str; 4] = [
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
];

/// What a release has, by name.
type Files = BTreeMap<String, Vec<u8>>;

/// An archive as the release packs it, whose program prints `text`.
fn archive(program: &str, variant: &str, target: &str, text: &str) -> (String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{program}{variant}-v0.1.0-{target}");
    fs::create_dir(folder.path().join(&name)).unwrap();
    fs::write(folder.path().join(&name).join(program), format!("#!/bin/sh\necho '{text}'\n")).unwrap();
    fs::write(folder.path().join(&name).join("README.md"), "how").unwrap();
    let packed = format!("{name}.tar.gz");
    let tar = Command::new("tar").args(["-czf", &packed, &name]).current_dir(folder.path()).status().unwrap();
    assert!(tar.success());
    let bytes = fs::read(folder.path().join(&packed)).unwrap();
    (packed, bytes)
}

fn release() -> Files {
    let mut files = Files::new();
    for target in TARGETS {
        for program in ["nat-infer", "nat-convert"] {
            files.extend([archive(program, "", target, &format!("{program} for {target}"))]);
        }
    }
    files.extend([archive("nat-infer", "-cuda", "x86_64-unknown-linux-gnu", "nat-infer with cuda")]);
    let sums: String = files.iter().map(|(name, bytes)| format!("{}  {name}\n", sha256(bytes))).collect();
    files.insert("SHA256SUMS".to_owned(), sums.into_bytes());
    files
}

/// The newest release, which is 0.1.0.
fn serve(files: Files) -> Server {
    Server::start(move |request| {
        let name =
            ["/latest/download/", "/download/v0.1.0/"].iter().find_map(|at| request.path.strip_prefix(at));
        match name.and_then(|name| files.get(name)) {
            Some(body) => Reply { status: 200, body: body.clone(), ..Reply::default() },
            None => Reply::status(404),
        }
    })
}

struct Home {
    folder: TempDir,
    releases: String,
}

impl Home {
    fn at(releases: String) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), releases }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the script as `curl ... | sh` does, on a machine that `uname` calls so.
    fn install_on(&self, system: &str, machine: &str, arguments: &[&str]) -> Output {
        let tools = self.path("tools");
        fs::create_dir_all(&tools).unwrap();
        let uname = format!("#!/bin/sh\nif [ \"$1\" = -s ]; then echo {system}; else echo {machine}; fi\n");
        program(&tools.join("uname"), &uname);
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let mut child = Command::new("sh")
            .args(["-s", "--"])
            .args(arguments)
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("NAT_INFER_RELEASES", &self.releases)
            .env("TMPDIR", self.folder.path())
            .env("no_proxy", "127.0.0.1")
            .env_remove("NAT_INFER_INSTALL_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&fs::read(SCRIPT).unwrap()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn install(&self, arguments: &[&str]) -> Output {
        self.install_on("Linux", "x86_64", arguments)
    }

    /// The one line that a failure has, without the script's name; nothing may be left behind.
    fn failure(&self, system: &str, machine: &str, arguments: &[&str]) -> String {
        let output = self.install_on(system, machine, arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(output.stdout.is_empty());
        assert!(!self.path(".local/bin/nat-infer").exists());
        let left: Vec<_> =
            fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name == "tools" || name == "file"), "{left:?}");
        text.trim().strip_prefix("install.sh: ").unwrap().to_owned()
    }
}

fn program(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn says(path: &Path) -> String {
    let output = Command::new(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_platform_gets_its_programs() {
    let server = serve(release());
    for (system, machine, target) in [
        ("Linux", "x86_64", "x86_64-unknown-linux-musl"),
        ("Linux", "aarch64", "aarch64-unknown-linux-musl"),
        ("Darwin", "arm64", "aarch64-apple-darwin"),
        ("Darwin", "x86_64", "x86_64-apple-darwin"),
    ] {
        let home = Home::at(server.url());
        let folder = home.path(".local/bin");
        let told = text(&home.install_on(system, machine, &[]));
        let (at, of) = (folder.display(), |name: &str| format!("{name} for {target}"));
        assert_eq!(
            told,
            format!(
                "installed {at}/nat-infer\ninstalled {at}/nat-convert\n{at} is not on your PATH: add it there\n"
            )
        );
        assert_eq!(says(&folder.join("nat-infer")), of("nat-infer"));
        assert_eq!(says(&folder.join("nat-convert")), of("nat-convert"));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    }
}

#[test]
fn folder_version_and_variant_are_chosen() {
    let server = serve(release());
    let home = Home::at(server.url());
    let chosen = home.path("a folder");
    program_before(&chosen);
    text(&home.install(&["--to", chosen.to_str().unwrap(), "--version", "v0.1.0", "--cuda"]));
    assert_eq!(says(&chosen.join("nat-infer")), "nat-infer with cuda");
    assert!(!chosen.join("nat-convert").exists());
    let asked: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(
        asked,
        [
            "/download/v0.1.0/SHA256SUMS",
            "/download/v0.1.0/nat-infer-cuda-v0.1.0-x86_64-unknown-linux-gnu.tar.gz"
        ]
    );
}

/// An earlier version, which is replaced.
fn program_before(folder: &Path) {
    fs::create_dir(folder).unwrap();
    program(&folder.join("nat-infer"), "#!/bin/sh\necho earlier\n");
}

#[test]
fn failures_are_one_line_and_leave_nothing() {
    let server = serve(release());
    let home = Home::at(server.url());
    let url = server.url();
    fs::write(home.path("file"), "").unwrap();
    let file = home.path("file/bin");
    for (system, machine, arguments, expected) in [
        (
            "Linux",
            "x86_64",
            ["--version", "9.9.9"],
            format!(
                "can't download {url}/download/v9.9.9/SHA256SUMS: is there such a release, and a network?"
            ),
        ),
        ("Linux", "x86_64", ["--to", ""], "--to needs a value".to_owned()),
        (
            "Linux",
            "x86_64",
            ["--frobnicate", ""],
            "there is no option '--frobnicate'; --help lists them".to_owned(),
        ),
        (
            "Linux",
            "riscv64",
            ["--version", "0.1.0"],
            "there is no release for riscv64: build it with cargo install".to_owned(),
        ),
        (
            "FreeBSD",
            "amd64",
            ["--version", "0.1.0"],
            "there is no release for FreeBSD: build it with cargo install".to_owned(),
        ),
        (
            "MINGW64_NT-10.0",
            "x86_64",
            ["--version", "0.1.0"],
            "on Windows use cargo binstall nat-infer, or the zip of the release".to_owned(),
        ),
        (
            "Darwin",
            "arm64",
            ["--cuda", "--cuda"],
            "--cuda is for x86-64 Linux, this is aarch64-apple-darwin".to_owned(),
        ),
    ] {
        assert_eq!(home.failure(system, machine, &arguments), expected);
    }
    let told = home.failure("Linux", "x86_64", &["--to", file.to_str().unwrap()]);
    assert!(told.starts_with(&format!("can't make {}: ", file.display())), "{told}");
}

#[test]
fn what_is_not_the_release_is_not_installed() {
    let name = "nat-convert-v0.1.0-x86_64-unknown-linux-musl.tar.gz";
    let mut files = release();
    files.get_mut(name).unwrap().push(0);
    let told = Home::at(serve(files).url()).failure("Linux", "x86_64", &[]);
    assert!(told.starts_with(&format!("{name} is not what the release says (SHA-256 ")), "{told}");
    assert!(told.ends_with(": nothing was installed"), "{told}");

    let mut files = release();
    files.remove(name);
    let server = serve(files);
    let told = Home::at(server.url()).failure("Linux", "x86_64", &[]);
    assert_eq!(told, format!("can't download {}/latest/download/{name}: try again later", server.url()));

    let mut files = release();
    let sums = String::from_utf8(files["SHA256SUMS"].clone()).unwrap();
    let fewer: String =
        sums.lines().filter(|line| !line.ends_with(name)).map(|line| format!("{line}\n")).collect();
    files.insert("SHA256SUMS".to_owned(), fewer.into_bytes());
    let told = Home::at(serve(files).url()).failure("Linux", "x86_64", &[]);
    assert_eq!(
        told,
        "this release has no nat-convert for x86_64-unknown-linux-musl: build it with cargo install"
    );
}

#[test]
fn half_a_script_does_nothing() {
    let whole = fs::read_to_string(SCRIPT).unwrap();
    let half = &whole[..whole.len() - "main \"$@\"\n".len()];
    let home = tempfile::tempdir().unwrap();
    let output = Command::new("sh").args(["-c", half]).env("HOME", home.path()).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}
