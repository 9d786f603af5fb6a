//! Fetching, against a local server that speaks the Hub's protocol and can misbehave.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nat_infer::zoo::{self, Entry, Env, FetchError, Located, Settings, ZooError};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const REPO: &str = "org/net";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

#[derive(Clone, Debug, PartialEq)]
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Clone, Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Close the connection after this many bytes of the body.
    cut: Option<usize>,
}

impl Reply {
    fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A server on a port of its own; stops when it is dropped.
struct Server {
    port: u16,
    log: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (log, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, stop, reply) = (Arc::clone(&log), Arc::clone(&stopped), Arc::new(reply));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (seen, reply) = (Arc::clone(&seen), Arc::clone(&reply));
                // A client that goes away is no failure of the server.
                thread::spawn(move || stream.map(|stream| serve(stream, &seen, &*reply)));
            }
        });
        Self { port, log, stopped }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests since the last call.
    fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    reply: &dyn Fn(&Request) -> Reply,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut words = lines[0].split(' ').map(str::to_owned);
        let headers = lines[1..].iter().filter_map(|l| l.split_once(": "));
        let request = Request {
            method: words.next().unwrap(),
            path: words.next().unwrap(),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
        };
        log.lock().unwrap().push(request.clone());
        if request.method == "CONNECT" {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            continue;
        }
        let reply = reply(&request);
        write!(stream, "HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status)?;
        for (name, value) in &reply.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        if !reply.headers.iter().any(|(name, _)| *name == "Content-Length") {
            write!(stream, "Content-Length: {}\r\n", reply.body.len())?;
        }
        stream.write_all(b"\r\n")?;
        if request.method != "HEAD" {
            stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])?;
        }
        return stream.flush();
    }
}

/// A file's bytes, all of them or from where `Range` says.
fn bytes(request: &Request, content: &[u8]) -> Reply {
    let start = request.header("range").map(|r| r.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap());
    match start.map(|start| start.parse::<usize>().unwrap()) {
        None => Reply { status: 200, body: content.to_vec(), ..Reply::default() },
        Some(start) if start < content.len() => {
            let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
            Reply { status: 206, body: content[start..].to_vec(), ..Reply::default() }
                .with("Content-Range", range)
        }
        Some(_) => Reply::status(416),
    }
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect()
}

/// Contents with no period that a wrong offset could hide in.
fn weights() -> Vec<u8> {
    (0..300_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// What the place for large files does to a GET: `(request, its number from 0, content)`.
type Large = dyn Fn(&Request, usize, &[u8]) -> Reply + Send + Sync;

/// The Hub and the host of its large files, each with a port of its own.
struct Hub {
    api: Server,
    large: Server,
    home: TempDir,
}

impl Hub {
    /// Serves `weights_file` beside the configurations; GETs of it are answered by `large`.
    fn with(weights_file: &'static str, large: Box<Large>) -> Self {
        let count = Mutex::new(0);
        let large = Server::start(move |request| {
            let mut count = count.lock().unwrap();
            *count += 1;
            large(request, *count - 1, &weights())
        });
        let large_url = format!("http://localhost:{}/blob?signature=private", large.port);
        let api = Server::start(move |request| {
            let resolve = format!("/{REPO}/resolve/{COMMIT}/");
            let file = request.path.strip_prefix(&resolve);
            match file {
                _ if request.path == format!("/api/models/{REPO}/revision/main") => {
                    let files = ["README.md", "config.json", "preprocessor_config.json", weights_file];
                    let siblings = files.map(|f| format!("{{\"rfilename\":\"{f}\"}}")).join(",");
                    let body =
                        format!("{{\"id\":\"{REPO}\",\"sha\":\"{COMMIT}\",\"siblings\":[{siblings}]}}");
                    bytes(request, body.as_bytes())
                }
                Some(file @ ("config.json" | "preprocessor_config.json")) => bytes(request, file.as_bytes())
                    .with("ETag", format!("\"etag-of-{file}\""))
                    .with("X-Repo-Commit", COMMIT),
                Some(file) if file == weights_file => Reply::status(302)
                    .with("Location", large_url.clone())
                    .with("ETag", "\"of-the-redirect\"")
                    .with("X-Linked-Etag", format!("\"{}\"", sha256(&weights())))
                    .with("X-Linked-Size", weights().len().to_string())
                    .with("X-Repo-Commit", COMMIT),
                _ => Reply::status(404),
            }
        });
        Self { api, large, home: tempfile::tempdir().unwrap() }
    }

    fn new() -> Self {
        Self::with("model.safetensors", Box::new(|request, _, content| bytes(request, content)))
    }

    fn settings(&self, more: &[(&str, &str)]) -> Settings {
        settings(&self.api.url(), self.home.path(), more)
    }

    fn locate(&self) -> Result<PathBuf, ZooError> {
        locate(&on_hub(), &self.settings(&[]))
    }

    fn repository(&self) -> PathBuf {
        self.home.path().join("hub/models--org--net")
    }

    fn partial(&self) -> PathBuf {
        self.repository().join("blobs").join(format!("{}.incomplete", sha256(&weights())))
    }

    /// No weights in place, whole or partial, and none found.
    fn assert_nothing_in_place(&self) {
        let blobs = fs::read_dir(self.repository().join("blobs")).unwrap();
        let names: Vec<_> = blobs.map(|b| b.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().all(|name| name.starts_with("etag-of-")), "{names:?}");
        assert_eq!(zoo::is_cached(&on_hub(), &self.settings(&[]).env), None);
    }
}

fn settings(endpoint: &str, home: &Path, more: &[(&str, &str)]) -> Settings {
    let vars = [("HF_ENDPOINT", endpoint), ("HF_HOME", home.to_str().unwrap()), ("HOME", "/nonexistent")];
    Settings { offline: false, env: Env::from_vars(vars.iter().chain(more).copied()) }
}

fn on_hub() -> Entry {
    Entry { hub: Some(REPO.to_owned()), ..zoo::find("nat-mini").unwrap().clone() }
}

fn locate(entry: &Entry, settings: &Settings) -> Result<PathBuf, ZooError> {
    match zoo::locate(entry, settings, &mut ())? {
        Located::At(path) => Ok(path),
        Located::Embedded => panic!("{} is embedded", entry.name),
    }
}

fn fetch_error(result: Result<PathBuf, ZooError>) -> FetchError {
    match result {
        Err(ZooError::Fetch { source, .. }) => source,
        other => panic!("{other:?}"),
    }
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
    let offline = Settings { offline: true, ..hub.settings(&[]) };
    for (settings, name) in [
        (&offline, "--offline"),
        (&hub.settings(&[("HF_HUB_OFFLINE", "1")]), "HF_HUB_OFFLINE"),
        (&hub.settings(&[("TRANSFORMERS_OFFLINE", "yes")]), "TRANSFORMERS_OFFLINE"),
    ] {
        let error = locate(&on_hub(), settings).unwrap_err();
        assert!(matches!(&error, ZooError::Offline { forbidden_by, .. } if *forbidden_by == name), "{error}");
        assert!(error.to_string().contains("--weights"), "{error}");
    }
    assert!(hub.api.requests().is_empty());
    let snapshot = hub.locate().unwrap();
    assert_eq!(locate(&on_hub(), &offline).unwrap(), snapshot);
}

#[test]
fn statuses_say_what_to_do() {
    for (status, vars, says, requests) in [
        (404, &[][..], "answers 404: it is not there; or download https://huggingface.co/org/net", 1),
        (401, &[], "set HF_TOKEN", 1),
        (403, &[("HF_TOKEN", TOKEN)], "the token in use may not read it", 1),
        (500, &[], "answers 500; try again later", 4),
        (418, &[], "answers 418", 1),
    ] {
        let server = Server::start(move |_| Reply::status(status));
        let home = tempfile::tempdir().unwrap();
        let error = locate(&on_hub(), &settings(&server.url(), home.path(), vars)).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("--weights") && !error.contains(TOKEN), "{error}");
        assert_eq!(server.requests().len(), requests, "{status}");
    }
}

#[test]
fn no_network_says_what_was_tried() {
    let closed = Server::start(|_| Reply::status(500)).url();
    let home = tempfile::tempdir().unwrap();
    let error = locate(&on_hub(), &settings(&closed, home.path(), &[])).unwrap_err().to_string();
    for part in [&format!("no answer from {closed}/api/models/org/net"), "HF_ENDPOINT", "--weights"] {
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
    let entry = |path: &str| Entry {
        url: Some(format!("{}{path}", server.url())),
        hub: None,
        ..zoo::find("nat-mini").unwrap().clone()
    };
    let found = entry("/old/nat_mini.pth");
    assert_eq!(zoo::is_cached(&found, &settings.env), None);
    let path = locate(&found, &settings).unwrap();
    assert_eq!(path, own.join("nat-mini/nat_mini.pth"));
    assert!(fs::read(&path).unwrap() == weights());
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
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
    let settings = Settings { offline: true, env: Env::from_vars::<String, String>([]) };
    let digits = zoo::find("demo-digits").unwrap();
    assert_eq!(zoo::locate(digits, &settings, &mut ()).unwrap(), Located::Embedded);
    let error = locate(zoo::find("nat-iso-small").unwrap(), &settings).unwrap_err();
    assert!(error.to_string().contains("NAT_INFER_CACHE"), "{error}");
}
