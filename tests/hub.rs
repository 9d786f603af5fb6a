//! Fetching, against a local server that speaks the Hub's protocol and can misbehave.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nat_infer::zoo::{self, Access, Entry, Env, FetchError, Located, Reference, Watch, ZooError};
use nat_testing::hub::{COMMIT, Hub, REPO, Reply, Server, bytes, repository_of, sha256, weights};
use nat_testing::place::{DIGIT, names};

const TOKEN: &str = "hf_secret";

/// The Hub as nat-infer sees it.
trait Client {
    fn settings(&self, more: &[(&str, &str)]) -> Access;
    fn locate(&self) -> Result<PathBuf, ZooError>;
    /// No weights in place, whole or partial, and none found.
    fn assert_nothing_in_place(&self);
}

impl Client for Hub {
    fn settings(&self, more: &[(&str, &str)]) -> Access {
        settings(&self.api.url(), self.home.path(), more)
    }

    fn locate(&self) -> Result<PathBuf, ZooError> {
        locate(&on_hub(), &self.settings(&[]))
    }

    #[track_caller]
    fn assert_nothing_in_place(&self) {
        let names = names(&self.repository().join("blobs"));
        assert!(names.iter().all(|name| name.starts_with("etag-of-")), "{names:?}");
        assert_eq!(zoo::is_cached(&on_hub(), &self.settings(&[]).env), None);
    }
}

fn settings(endpoint: &str, home: &Path, more: &[(&str, &str)]) -> Access {
    let vars = [("HF_ENDPOINT", endpoint), ("HF_HOME", home.to_str().unwrap()), ("HOME", "/nonexistent")];
    Access::new(false, Env::from_vars(vars.iter().chain(more).copied()))
}

fn on_hub() -> Entry {
    let mut entry = zoo::find("nat-mini").unwrap().clone();
    entry.hub = Some(REPO.to_owned());
    entry
}

/// A model whose file is elsewhere than on the Hub.
fn elsewhere(url: String) -> Entry {
    let mut entry = zoo::find("nat-mini").unwrap().clone();
    (entry.url, entry.hub) = (Some(url), None);
    entry
}

/// A model whose file has this hash.
fn hashed(mut entry: Entry, sha256: Option<String>) -> Entry {
    entry.sha256 = sha256;
    entry
}

fn locate(entry: &Entry, settings: &Access) -> Result<PathBuf, ZooError> {
    match zoo::locate(entry, settings, &mut ())? {
        Located::At(path) => Ok(path),
        Located::Embedded => panic!("{} is embedded", entry.name),
    }
}

fn fetch_error(result: Result<PathBuf, ZooError>) -> FetchError {
    match result {
        Err(ZooError::Fetch { source, .. }) => *source,
        other => panic!("{other:?}"),
    }
}

/// What a download says of itself.
#[derive(Default, Debug, PartialEq)]
struct Seen {
    begun: Vec<(String, Option<u64>, String)>,
    bytes: u64,
    finished: usize,
    waited: Vec<String>,
}

impl Watch for Seen {
    fn begin(&mut self, name: &str, size: Option<u64>, url: &str) {
        self.begun.push((name.to_owned(), size, url.to_owned()));
    }

    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    fn finish(&mut self) {
        self.finished += 1;
    }

    fn waiting(&mut self, name: &str) {
        self.waited.push(name.to_owned());
    }
}

/// Locates a name as `--model` takes it.
fn by_name(name: &str, settings: &Access) -> Result<PathBuf, ZooError> {
    match name.parse::<Reference>().unwrap().locate(settings, &mut ())? {
        Located::At(path) => Ok(path),
        Located::Embedded => panic!("{name} is embedded"),
    }
}

/// The program on a digit, with these variables and no others but `HOME`.
fn classify(arguments: &[&str], home: &Path, vars: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nat-infer"))
        .args(["classify", DIGIT, "--threads", "1"])
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .envs(vars.iter().copied())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn digits() -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-digits.safetensors")).unwrap()
}

#[test]
fn a_repository_is_fetched_once_into_the_layout_of_the_hub() {
    let hub = Hub::new();
    let snapshot = hub.locate().unwrap();
    assert_eq!(snapshot, hub.repository().join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(hub.repository().join("refs/main")).unwrap(), COMMIT);
    for (file, etag, content) in [
        ("config.json", "etag-of-config.json", b"config.json".to_vec()),
        (
            "preprocessor_config.json",
            "etag-of-preprocessor_config.json",
            b"preprocessor_config.json".to_vec(),
        ),
        ("model.safetensors", &sha256(&weights()), weights()),
    ] {
        assert!(fs::read(snapshot.join(file)).unwrap() == content, "{file}");
        #[cfg(unix)]
        assert_eq!(fs::read_link(snapshot.join(file)).unwrap(), Path::new("../../blobs").join(etag));
        assert!(cfg!(not(unix)) || hub.repository().join("blobs").join(etag).is_file(), "{file}");
    }
    assert!(!hub.partial().exists());
    assert_eq!((hub.api.requests().len(), hub.large.requests().len()), (7, 1));

    assert_eq!(zoo::is_cached(&on_hub(), &hub.settings(&[]).env), Some(snapshot.clone()));
    assert_eq!(hub.locate().unwrap(), snapshot);
    assert_eq!((hub.api.requests().len(), hub.large.requests().len()), (0, 0));
}

#[test]
fn pickled_weights_serve_where_there_are_no_safetensors() {
    let hub = Hub::with("pytorch_model.bin", Box::new(|request, _, content| bytes(request, content)));
    assert!(fs::read(hub.locate().unwrap().join("pytorch_model.bin")).unwrap() == weights());

    let bare = Hub::with("README.txt", Box::new(|request, _, content| bytes(request, content)));
    let error = bare.locate().unwrap_err().to_string();
    assert!(
        error.contains("org/net has no config.json with model.safetensors or pytorch_model.bin"),
        "{error}"
    );
}

#[test]
fn a_dropped_connection_resumes_where_it_broke() {
    let hub = Hub::with(
        "model.safetensors",
        Box::new(|request, number, content| Reply {
            cut: (number == 0).then_some(500_000),
            ..bytes(request, content)
        }),
    );
    assert!(fs::read(hub.locate().unwrap().join("model.safetensors")).unwrap() == weights());
    let ranges: Vec<_> = hub.large.requests().iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=500000-".to_owned())]);
}

#[test]
fn the_next_run_resumes_and_a_server_without_ranges_starts_over() {
    for ignores_range in [false, true] {
        let hub = Hub::with(
            "model.safetensors",
            Box::new(move |request, number, content| match number {
                0 => Reply { cut: Some(700_000), ..bytes(request, content) },
                1..=3 => Reply::status(503),
                _ if ignores_range => Reply { status: 200, body: content.to_vec(), ..Reply::default() },
                _ => bytes(request, content),
            }),
        );
        let error = fetch_error(hub.locate());
        assert!(matches!(error, FetchError::Status { status: 503, .. }), "{error}");
        assert_eq!(fs::metadata(hub.partial()).unwrap().len(), 700_000);
        assert_eq!(zoo::is_cached(&on_hub(), &hub.settings(&[]).env), None);
        assert_eq!(hub.large.requests().len(), 4);

        assert!(fs::read(hub.locate().unwrap().join("model.safetensors")).unwrap() == weights());
        assert!(!hub.partial().exists());
        let requests = hub.large.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].header("range"), Some("bytes=700000-"));
    }
}

#[test]
fn damaged_files_are_thrown_away() {
    type Damage = fn(&mut Vec<u8>);
    for (damage, says) in [
        ((|content| content.truncate(1_000)) as Damage, "1000 bytes arrived, 1200000 were announced"),
        (|content| content.push(0), "it goes on after the announced 1200000 bytes"),
        (|content| content[600_000] ^= 1, "its SHA-256 is "),
    ] {
        let hub = Hub::with(
            "model.safetensors",
            Box::new(move |_, _, content| {
                let mut body = content.to_vec();
                damage(&mut body);
                Reply { status: 200, body, ..Reply::default() }
            }),
        );
        let error = fetch_error(hub.locate());
        assert!(matches!(error, FetchError::Damaged { .. }) && error.to_string().contains(says), "{error}");
        hub.assert_nothing_in_place();
    }
}

#[test]
fn a_wrong_part_is_never_joined() {
    // What lies there has the right length but not the right bytes; and a server that sends another range.
    let hub = Hub::with(
        "model.safetensors",
        Box::new(|_, number, content| match number {
            0 => Reply { status: 206, body: content[10..].to_vec(), ..Reply::default() }
                .with("Content-Range", "bytes 10-1199999/1200000"),
            _ => Reply { status: 200, body: content.to_vec(), ..Reply::default() },
        }),
    );
    fs::create_dir_all(hub.partial().parent().unwrap()).unwrap();
    fs::write(hub.partial(), vec![0; 1_200_000]).unwrap();
    assert!(matches!(fetch_error(hub.locate()), FetchError::Damaged { .. }));
    hub.assert_nothing_in_place();

    fs::write(hub.partial(), &weights()[..1_000]).unwrap();
    assert!(matches!(fetch_error(hub.locate()), FetchError::Protocol { .. }));
    assert_eq!(fs::metadata(hub.partial()).unwrap().len(), 1_000);
    hub.locate().unwrap();
}

#[test]
fn the_token_goes_to_the_endpoint_only() {
    let hub = Hub::new();
    locate(&on_hub(), &hub.settings(&[("HF_TOKEN", TOKEN)])).unwrap();
    let bearer = format!("Bearer {TOKEN}");
    let api = hub.api.requests();
    assert!(api.iter().all(|r| r.header("authorization") == Some(&bearer)), "{api:?}");
    let large = hub.large.requests();
    assert_eq!(large.len(), 1);
    assert_eq!(large[0].header("authorization"), None);

    // Over plain http to another machine, here behind a proxy, it does not go at all.
    let proxy = Server::start(|_| Reply::status(401));
    let home = tempfile::tempdir().unwrap();
    let vars = [("HF_TOKEN", TOKEN), ("HTTP_PROXY", &proxy.url())];
    let error = fetch_error(locate(&on_hub(), &settings("http://hub.invalid", home.path(), &vars)));
    assert!(matches!(error, FetchError::Denied { status: 401, .. }), "{error}");
    assert!(error.to_string().contains("not over plain http"), "{error}");
    let requests = proxy.requests();
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("CONNECT", "hub.invalid:80"));
    assert!(
        requests.len() == 2 && requests.iter().all(|r| !format!("{r:?}").contains(TOKEN)),
        "{requests:?}"
    );
}

#[test]
fn offline_makes_no_request_and_names_what_forbids_it() {
    let hub = Hub::new();
    let offline = Access::new(true, hub.settings(&[]).env);
    for (settings, name) in [
        (&offline, zoo::OFFLINE),
        (&hub.settings(&[("HF_HUB_OFFLINE", "1")]), "HF_HUB_OFFLINE"),
        (&hub.settings(&[("TRANSFORMERS_OFFLINE", "yes")]), "TRANSFORMERS_OFFLINE"),
    ] {
        let error = locate(&on_hub(), settings).unwrap_err();
        assert!(matches!(&error, ZooError::Offline { forbidden_by, .. } if *forbidden_by == name), "{error}");
        assert!(error.to_string().contains(name) && !error.to_string().contains("--"), "{error}");
    }
    assert!(hub.api.requests().is_empty());
    let snapshot = hub.locate().unwrap();
    assert_eq!(locate(&on_hub(), &offline).unwrap(), snapshot);
}

#[test]
fn statuses_say_what_to_do() {
    for (status, vars, says, requests) in [
        (
            404,
            &[][..],
            "answers 404: it is not there; or download https://huggingface.co/org/net yourself",
            1,
        ),
        (401, &[], "set HF_TOKEN", 1),
        (403, &[("HF_TOKEN", TOKEN)], "the token in use may not read it", 1),
        (500, &[], "answers 500; try again later", 4),
        (418, &[], "answers 418", 1),
    ] {
        let server = Server::start(move |_| Reply::status(status));
        let home = tempfile::tempdir().unwrap();
        let error = locate(&on_hub(), &settings(&server.url(), home.path(), vars)).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("--") && !error.contains(TOKEN), "{error}");
        assert_eq!(server.requests().len(), requests, "{status}");
    }
}

#[test]
fn no_network_says_what_was_tried() {
    let closed = Server::start(|_| Reply::status(500)).url();
    let home = tempfile::tempdir().unwrap();
    let error = locate(&on_hub(), &settings(&closed, home.path(), &[])).unwrap_err().to_string();
    for part in [&format!("no answer from {closed}/api/models/org/net"), "HF_ENDPOINT"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains('\n'), "{error}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);

    let error = locate(&on_hub(), &settings("huggingface.co", home.path(), &[])).unwrap_err().to_string();
    assert!(error.contains("`huggingface.co` in HF_ENDPOINT is not a web address"), "{error}");
}

#[test]
fn a_server_can_not_choose_where_files_go() {
    for (sha, etag) in [("../../../evil", "e"), (COMMIT, "../../../evil"), (COMMIT, "")] {
        let server = Server::start(move |request| match request.path.starts_with("/api") {
            true => {
                let siblings = "{\"rfilename\":\"config.json\"},{\"rfilename\":\"model.safetensors\"}";
                bytes(request, format!("{{\"sha\":\"{sha}\",\"siblings\":[{siblings}]}}").as_bytes())
            }
            false => bytes(request, b"x").with("ETag", format!("\"{etag}\"")),
        });
        let home = tempfile::tempdir().unwrap();
        let error = fetch_error(locate(&on_hub(), &settings(&server.url(), home.path(), &[])));
        assert!(matches!(error, FetchError::Protocol { .. }), "{error}");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}

#[test]
fn two_at_once_fetch_a_file_once() {
    let hub = Hub::with(
        "model.safetensors",
        Box::new(|request, _, content| {
            thread::sleep(Duration::from_millis(200));
            bytes(request, content)
        }),
    );
    thread::scope(|scope| {
        let runs = [(); 2].map(|()| scope.spawn(|| hub.locate().unwrap()));
        for run in runs {
            assert!(fs::read(run.join().unwrap().join("model.safetensors")).unwrap() == weights());
        }
    });
    assert_eq!(hub.large.requests().len(), 1);
}

#[test]
fn the_authors_files_come_the_same_way_into_our_cache() {
    let cut = AtomicBool::new(true);
    let server = Server::start(move |request| match request.path.as_str() {
        "/old/nat_mini.pth" => Reply::status(301).with("Location", "/new/nat_mini.pth"),
        "/round" => Reply::status(302).with("Location", "/round"),
        "/new/nat_mini.pth" => {
            let whole = bytes(request, &weights()).with("ETag", "W/\"v1\"");
            Reply {
                cut: (request.method == "GET" && cut.swap(false, Ordering::SeqCst)).then_some(9_000),
                ..whole
            }
        }
        _ => Reply::status(404),
    });
    let home = tempfile::tempdir().unwrap();
    let own = home.path().join("own");
    let settings = settings(&server.url(), home.path(), &[("NAT_INFER_CACHE", own.to_str().unwrap())]);
    let entry = |path: &str| elsewhere(format!("{}{path}", server.url()));
    let found = entry("/old/nat_mini.pth");
    assert_eq!(zoo::is_cached(&found, &settings.env), None);
    let path = locate(&found, &settings).unwrap();
    assert_eq!(path, own.join("nat-mini/nat_mini.pth"));
    assert!(fs::read(&path).unwrap() == weights());
    assert_eq!(names(path.parent().unwrap()), ["nat_mini.pth", "nat_mini.pth.sha256"]);
    let gets = server.requests().into_iter().filter(|r| r.method == "GET" && r.path.starts_with("/new"));
    let ranges: Vec<_> = gets.map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=9000-".to_owned())]);

    assert_eq!(zoo::is_cached(&found, &settings.env), Some(path.clone()));
    assert_eq!(locate(&found, &settings).unwrap(), path);
    assert!(server.requests().is_empty());

    let missing = fetch_error(locate(&entry("/gone.pth"), &settings));
    assert!(matches!(missing, FetchError::Missing { .. }), "{missing}");
    let endless = fetch_error(locate(&entry("/round"), &settings));
    assert!(endless.to_string().contains("redirects without end"), "{endless}");
}

#[test]
fn an_embedded_model_needs_no_cache() {
    let settings = Access::new(true, Env::from_vars::<String, String>([]));
    let digits = zoo::find("demo-digits").unwrap();
    assert_eq!(zoo::locate(digits, &settings, &mut ()).unwrap(), Located::Embedded);
    let error = locate(zoo::find("nat-iso-small").unwrap(), &settings).unwrap_err();
    assert!(error.to_string().contains("NAT_INFER_CACHE"), "{error}");
}

#[test]
fn a_revision_has_its_own_reference_and_a_commit_needs_none() {
    let hub = Hub::new();
    let snapshot = hub.repository().join("snapshots").join(COMMIT);
    for (name, reference) in [("org/net@v2", "v2"), ("org/net@refs/pr/1", "refs/pr/1"), ("org/net", "main")] {
        assert!(!hub.repository().join("refs").join(reference).exists());
        assert_eq!(by_name(name, &hub.settings(&[])).unwrap(), snapshot);
        assert_eq!(fs::read_to_string(hub.repository().join("refs").join(reference)).unwrap(), COMMIT);
        assert!(!hub.api.requests().is_empty());
        assert_eq!(by_name(name, &hub.settings(&[("HF_HUB_OFFLINE", "1")])).unwrap(), snapshot);
        assert_eq!(by_name(name, &hub.settings(&[])).unwrap(), snapshot);
        assert!(hub.api.requests().is_empty(), "{name}");
    }
    assert_eq!(hub.large.requests().len(), 1);
    let commit = format!("org/net@{COMMIT}");
    assert_eq!(by_name(&commit, &hub.settings(&[])).unwrap(), snapshot);
    assert!(hub.api.requests().is_empty());

    let other = Hub::new();
    let path = by_name(&commit, &other.settings(&[])).unwrap();
    assert!(path.ends_with(COMMIT) && !other.repository().join("refs").exists());
    assert!(other.api.requests()[0].path.ends_with(COMMIT));

    for (error, says) in [
        (by_name("org/net@nope", &hub.settings(&[])).unwrap_err(), "can't fetch `org/net@nope`"),
        (
            by_name("org/net@nope", &hub.settings(&[])).unwrap_err(),
            "huggingface.co/org/net/tree/nope yourself",
        ),
        (
            by_name("org/net@x", &hub.settings(&[("HF_HUB_OFFLINE", "1")])).unwrap_err(),
            "`org/net@x` is not in",
        ),
    ] {
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_repository_with_a_converted_file_alone_is_that_file() {
    let server = repository_of(vec![("README.md", b"x".to_vec()), ("digits.safetensors", digits())]);
    let home = tempfile::tempdir().unwrap();
    let settings = settings(&server.url(), home.path(), &[]);
    let path = by_name("org/net", &settings).unwrap();
    assert!(path.ends_with(format!("snapshots/{COMMIT}/digits.safetensors")), "{}", path.display());
    assert!(fs::read(&path).unwrap() == digits());
    server.requests();
    assert_eq!(by_name("org/net", &settings).unwrap(), path);
    assert!(server.requests().is_empty());

    // What another client left there is no file of ours.
    fs::remove_file(&path).unwrap();
    fs::write(path.with_file_name("model.safetensors"), weights()).unwrap();
    let offline = Access::new(true, settings.env);
    assert!(matches!(by_name("org/net", &offline), Err(ZooError::Offline { .. })));

    let vars = [("HF_ENDPOINT", &*server.url())];
    for more in [&[][..], &["--dilations", "1/1/1/1"]] {
        let done = classify(&[&["--model", "org/net@v2"], more].concat(), home.path(), &vars);
        assert!(done.status.success(), "{}", stderr(&done));
        assert!(String::from_utf8(done.stdout).unwrap().contains("\"label\":\"9\""));
    }
    let done = classify(&["--model", "org/net", "--arch", "nat-mini"], home.path(), &vars);
    let text = stderr(&done);
    assert!(done.status.code() == Some(2) && text.contains("the repository org/net can't be used"), "{text}");

    let two = repository_of(vec![("a.safetensors", digits()), ("b.safetensors", digits())]);
    let error = classify(&["--model", "org/other"], home.path(), &[("HF_ENDPOINT", &*two.url())]);
    assert!(stderr(&error).contains("the repository org/other has no config.json"), "{}", stderr(&error));
    assert!(stderr(&error).contains("--weights (--model demo-digits is part of"), "{}", stderr(&error));
}

#[test]
fn weights_of_an_address_are_fetched_once_and_never_mixed_up() {
    let server = Server::start(|request| match request.path.split('?').next() {
        Some("/x/net.pth") => bytes(request, request.path.as_bytes()),
        Some("/get-only/net.pth") if request.method == "HEAD" => Reply::status(405),
        Some("/get-only/net.pth") => bytes(request, &weights()),
        _ => Reply::status(404),
    });
    let home = tempfile::tempdir().unwrap();
    let own = home.path().join("own");
    let settings = settings(&server.url(), home.path(), &[("NAT_INFER_CACHE", own.to_str().unwrap())]);
    let fetch = |path: &str| zoo::locate_file(&format!("{}{path}", server.url()), &settings, &mut ());
    let paths = ["/x/net.pth?v=1", "/x/net.pth?v=2"].map(|path| fetch(path).unwrap());
    for (path, content) in paths.iter().zip(["/x/net.pth?v=1", "/x/net.pth?v=2"]) {
        assert_eq!(fs::read_to_string(path).unwrap(), content);
        assert!(path.starts_with(own.join("web")) && path.ends_with("net.pth"), "{}", path.display());
        assert_eq!(names(path.parent().unwrap()), ["net.pth", "net.pth.sha256"]);
    }
    server.requests();
    assert_eq!(fetch("/x/net.pth?v=1").unwrap(), paths[0]);
    assert!(fs::read(fetch("/get-only/net.pth").unwrap()).unwrap() == weights());
    assert_eq!(server.requests().len(), 2);

    let offline = Access::new(true, settings.env.clone());
    let url = format!("{}/x/net.pth", server.url());
    assert_eq!(zoo::locate_file(&format!("{url}?v=2"), &offline, &mut ()).unwrap(), paths[1]);
    let error = zoo::locate_file(&format!("{url}?key=private"), &offline, &mut ()).unwrap_err();
    assert!(matches!(&error, ZooError::Offline { model, .. } if *model == url), "{error}");
    let error = fetch("/gone.pth?key=private").unwrap_err().to_string();
    assert!(error.contains("/gone.pth answers 404") && !error.contains("private"), "{error}");
    let error = zoo::locate_file("http:///x", &settings, &mut ()).unwrap_err().to_string();
    assert_eq!(error, "http:///x can't be fetched: it is no address of the web");
    assert!(server.requests().iter().all(|r| r.path.contains("gone")));
}

#[test]
fn the_program_takes_weights_from_an_address_and_says_so_in_a_line() {
    let server = Server::start(|request| match &*request.path {
        "/digits.safetensors?key=private" => bytes(request, &digits()),
        "/large.pth" => bytes(request, &weights()),
        _ => Reply::status(404),
    });
    let home = tempfile::tempdir().unwrap();
    let url = format!("{}/digits.safetensors?key=private", server.url());
    let done = classify(&["--weights", &url], home.path(), &[]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(String::from_utf8(done.stdout.clone()).unwrap().contains("\"label\":\"9\""));
    assert!(!stderr(&done).contains("fetching"), "it is small: {}", stderr(&done));
    server.requests();
    assert!(classify(&["-w", &url], home.path(), &[("HF_HUB_OFFLINE", "1")]).status.success());
    assert!(server.requests().is_empty());

    // No checkpoint at all, but large.
    let url = format!("{}/large.pth", server.url());
    let large = || {
        let done = classify(&["-w", &url], home.path(), &[]);
        (done.status.code(), stderr(&done))
    };
    let (status, text) = large();
    assert_eq!(status, Some(2), "{text}");
    let line = format!("nat-infer: fetching large.pth (1 MB) from {url}");
    assert_eq!(text.lines().filter(|l| l.contains("fetching")).collect::<Vec<_>>(), [line], "{text}");
    assert!(!large().1.contains("fetching"));
    fs::remove_dir_all(home.path().join(".cache")).unwrap();
    let quiet = classify(&["-q", "-w", &url], home.path(), &[]);
    assert!(!stderr(&quiet).contains("fetching"), "{}", stderr(&quiet));

    let offline = stderr(&classify(&["--offline", "-w", &format!("{url}?2")], home.path(), &[]));
    assert!(offline.contains("run once without --offline, or pass a file with --weights"), "{offline}");
}

#[test]
fn a_file_that_changes_after_its_download_is_refused() {
    let (served, home) = (Arc::new(Mutex::new(b"first".to_vec())), tempfile::tempdir().unwrap());
    let content = Arc::clone(&served);
    let server = Server::start(move |request| bytes(request, &content.lock().unwrap()));
    let own = home.path().join("own");
    let settings = settings(&server.url(), home.path(), &[("NAT_INFER_CACHE", own.to_str().unwrap())]);
    let entry = |sha256| hashed(elsewhere(format!("{}/nat_mini.pth", server.url())), sha256);
    let path = locate(&entry(None), &settings).unwrap();
    let record = own.join("nat-mini/nat_mini.pth.sha256");
    let line = format!("{}  nat_mini.pth", sha256(b"first"));
    assert_eq!(fs::read_to_string(&record).unwrap().lines().next(), Some(&*line));

    // Changed here.
    fs::write(&path, "other").unwrap();
    let error = locate(&entry(None), &settings).unwrap_err();
    assert!(matches!(error, ZooError::Altered { .. }), "{error}");
    let text = error.to_string();
    for part in [path.to_str().unwrap(), &sha256(b"first"), &sha256(b"other"), "remove it to fetch it again"]
    {
        assert!(text.contains(part), "{text}");
    }

    // Changed there.
    fs::remove_file(&path).unwrap();
    *served.lock().unwrap() = b"second".to_vec();
    let error = fetch_error(locate(&entry(None), &settings));
    assert!(matches!(error, FetchError::Replaced { .. }), "{error}");
    let text = error.to_string();
    for part in [&*sha256(b"first"), &sha256(b"second"), &format!("delete {} to accept", record.display())] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(names(path.parent().unwrap()), ["nat_mini.pth.sha256"]);
    fs::remove_file(&record).unwrap();
    assert_eq!(fs::read(locate(&entry(None), &settings).unwrap()).unwrap(), b"second");

    // The same again is no change, and what is known stands above what came.
    fs::remove_file(&path).unwrap();
    locate(&entry(None), &settings).unwrap();
    let known = Some(sha256(b"third"));
    assert!(matches!(locate(&entry(known.clone()), &settings), Err(ZooError::Altered { .. })));
    fs::remove_file(&path).unwrap();
    let error = fetch_error(locate(&entry(known.clone()), &settings));
    assert!(matches!(error, FetchError::Damaged { .. }), "{error}");
    assert_eq!(names(path.parent().unwrap()), ["nat_mini.pth.sha256"]);
    *served.lock().unwrap() = b"third".to_vec();
    locate(&entry(known), &settings).unwrap();
    locate(&entry(None), &settings).unwrap();

    // One that came before there were records is recorded.
    fs::remove_file(&record).unwrap();
    locate(&entry(None), &settings).unwrap();
    assert!(fs::read_to_string(&record).unwrap().starts_with(&sha256(b"third")));
}

#[test]
fn a_known_hash_holds_for_the_hub_too() {
    let hub = Hub::new();
    let entry = |sha256| hashed(on_hub(), Some(sha256));
    let wrong = || entry(sha256(b"another"));
    let error = fetch_error(locate(&wrong(), &hub.settings(&[])));
    assert!(matches!(error, FetchError::Damaged { .. }), "{error}");
    hub.assert_nothing_in_place();
    assert!(hub.large.requests().is_empty(), "the Hub says the hash before it sends the file");
    let snapshot = locate(&entry(sha256(&weights())), &hub.settings(&[])).unwrap();
    #[cfg(unix)]
    assert!(matches!(locate(&wrong(), &hub.settings(&[])), Err(ZooError::Altered { .. })));
    fs::remove_dir_all(snapshot).unwrap();
    let error = fetch_error(locate(&wrong(), &hub.settings(&[])));
    assert!(matches!(error, FetchError::Damaged { .. }), "{error}");
}

#[test]
fn a_mirror_serves_what_only_the_authors_have() {
    let server = Server::start(|request| match &*request.path {
        "/nat/projects/nat/checkpoints/CLS/x.pth" => bytes(request, b"mirrored"),
        _ => Reply::status(404),
    });
    let home = tempfile::tempdir().unwrap();
    let url = |file: &str| format!("https://shi-labs.invalid/projects/nat/checkpoints/CLS/{file}");
    let entry = |file| elsewhere(url(file));
    let own = home.path().join("own");
    let settings = |mirror: &str| {
        let vars = [("NAT_INFER_CACHE", own.to_str().unwrap()), ("NAT_INFER_MIRROR", mirror)];
        settings("http://127.0.0.1:9", home.path(), &vars)
    };
    let mirror = settings(&format!("{}/nat/", server.url()));
    assert_eq!(fs::read(locate(&entry("x.pth"), &mirror).unwrap()).unwrap(), b"mirrored");
    let error = locate(&entry("y.pth"), &mirror).unwrap_err().to_string();
    assert!(error.contains(&format!("{}/nat/projects", server.url())), "{error}");
    assert!(error.contains(&format!("or download {} yourself", url("y.pth"))), "{error}");
    let error = locate(&entry("y.pth"), &settings("shi-labs")).unwrap_err().to_string();
    assert!(error.contains("`shi-labs` in NAT_INFER_MIRROR is not a web address"), "{error}");
}

#[test]
fn a_download_is_watched_once_however_often_it_breaks_off() {
    let hub = Hub::with(
        "model.safetensors",
        Box::new(|request, number, content| Reply {
            cut: (number < 2).then_some(300_000),
            ..bytes(request, content)
        }),
    );
    let mut seen = Seen::default();
    zoo::locate(&on_hub(), &hub.settings(&[]), &mut seen).unwrap();
    let names: Vec<_> = seen.begun.iter().map(|(name, size, _)| (name.as_str(), *size)).collect();
    let sizes = ["config.json", "preprocessor_config.json"].map(|name| (name, Some(name.len() as u64)));
    assert_eq!(names, [sizes[0], sizes[1], ("model.safetensors", Some(1_200_000))]);
    assert_eq!(seen.begun[2].2, format!("{}/{REPO}/resolve/{COMMIT}/model.safetensors", hub.api.url()));
    assert_eq!(seen.bytes, 1_200_000 + 11 + 24);
    assert_eq!((seen.finished, seen.waited.len()), (3, 0));
}

#[test]
fn who_waits_for_another_process_says_so() {
    let server = Server::start(|request| {
        if request.method == "GET" {
            thread::sleep(Duration::from_millis(500));
        }
        bytes(request, &weights())
    });
    let home = tempfile::tempdir().unwrap();
    let settings =
        settings(&server.url(), home.path(), &[("NAT_INFER_CACHE", home.path().to_str().unwrap())]);
    let fetch = || {
        let mut seen = Seen::default();
        zoo::locate_file(&format!("{}/net.pth?x", server.url()), &settings, &mut seen).unwrap();
        seen
    };
    let seen = thread::scope(|scope| [(); 2].map(|()| scope.spawn(fetch)).map(|run| run.join().unwrap()));
    let begun: Vec<_> = seen.iter().flat_map(|s| &s.begun).map(|(name, size, _)| (&**name, *size)).collect();
    assert_eq!(begun, [("net.pth", Some(1_200_000))]);
    assert_eq!(seen.iter().flat_map(|s| &s.waited).collect::<Vec<_>>(), ["net.pth"]);
}

#[test]
fn an_image_is_fetched_within_its_limit() {
    let count = Mutex::new(0);
    let other = Server::start(|request| bytes(request, b"image"));
    let elsewhere = format!("{}/b.png", other.url().replace("127.0.0.1", "localhost"));
    let server = Server::start(move |request| match &*request.path {
        "/a%20b.png" => bytes(request, &[7; 1000]),
        "/moved.png" => Reply::status(302).with("Location", elsewhere.clone()),
        "/round.png" => Reply::status(302).with("Location", "/round.png"),
        "/cut.png?key=private" => Reply { cut: Some(10), ..bytes(request, &[7; 1000]) },
        "/later.png" => {
            *count.lock().unwrap() += 1;
            if *count.lock().unwrap() < 3 { Reply::status(503) } else { bytes(request, b"there") }
        }
        "/endless.png" => Reply { status: 200, body: vec![0; 100_000], ..Reply::default() }
            .with("Content-Length", "99999999999"),
        _ => Reply::status(404),
    });
    let home = tempfile::tempdir().unwrap();
    let settings = settings(&server.url(), home.path(), &[("HF_TOKEN", TOKEN)]);
    let get = |path: &str, limit| zoo::fetch_image(&format!("{}{path}", server.url()), &settings, limit);
    assert_eq!(get("/a b.png", 1000).unwrap(), [7; 1000]);
    assert!(matches!(get("/a b.png", 999), Err(FetchError::TooLarge { limit: 999, .. })));
    assert_eq!(get("/later.png", 10).unwrap(), b"there");
    assert_eq!(get("/moved.png", 10).unwrap(), b"image");
    assert!(other.requests().iter().all(|r| r.header("authorization").is_none()));
    assert!(matches!(get("/endless.png", 1 << 20), Err(FetchError::TooLarge { .. })));
    assert!(matches!(get("/cut.png?key=private", 1000), Err(FetchError::BrokeOff { .. })));
    for (path, says) in
        [("/gone.png?key=private", "/gone.png answers 404"), ("/round.png", "it redirects without end")]
    {
        let error = get(path, 10).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("private"), "{error}");
    }
    server.requests();
    let offline = Access::new(true, settings.env.clone());
    let error = zoo::fetch_image(&format!("{}/x?key=private", server.url()), &offline, 10).unwrap_err();
    assert!(matches!(error, FetchError::Offline { forbidden_by: zoo::OFFLINE, .. }), "{error}");
    assert!(!error.to_string().contains("private") && server.requests().is_empty());
    let error = zoo::fetch_image("file:///etc/passwd", &settings, 10).unwrap_err();
    assert!(matches!(error, FetchError::BadAddress { .. }), "{error}");

    // Many threads share one connection.
    let client = zoo::hub::Client::new(&settings.env).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_eq!(client.image(&format!("{}/a b.png", server.url()), 1000).unwrap().len(), 1000)
            });
        }
    });
}
