//! A server that speaks the Hub's protocol and can misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::noise;

/// The repository that the Hub has.
pub const REPO: &str = "org/net";
/// The commit of all its revisions.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Revisions that the Hub knows, as they stand in a request; all are [`COMMIT`].
pub const REVISIONS: [&str; 4] = ["main", "v2", "refs%2Fpr%2F1", COMMIT];

/// What a client asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `GET`, `HEAD`, `CONNECT`.
    pub method: String,
    /// What stands behind the method.
    pub path: String,
    /// Names in lower case, to values.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What it is answered.
#[derive(Clone, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers beside those of the connection; `Content-Length` is the body's where none is given.
    pub headers: Vec<(&'static str, String)>,
    /// What follows them.
    pub body: Vec<u8>,
    /// Close the connection after this many bytes of the body.
    pub cut: Option<usize>,
}

impl Reply {
    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The same with this header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A server on a port of its own; stops when it is dropped.
pub struct Server {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    log: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// Starts one that answers each request with `reply`, each connection on a thread of its own.
    pub fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
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

    /// Its address, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
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
pub fn bytes(request: &Request, content: &[u8]) -> Reply {
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

/// The SHA-256 of bytes, as the Hub writes it.
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect()
}

/// The content of the Hub's large file: 1.2 MB.
pub fn weights() -> Vec<u8> {
    noise::bytes(300_000)
}

/// What the place for large files does to a GET: `(request, its number from 0, content)`.
pub type Large = dyn Fn(&Request, usize, &[u8]) -> Reply + Send + Sync;

/// The Hub and the host of its large files, each with a port of its own.
pub struct Hub {
    /// Says what a repository holds, and sends its small files.
    pub api: Server,
    /// Sends the large one.
    pub large: Server,
    /// `$HF_HOME` of its client.
    pub home: TempDir,
}

impl Hub {
    /// Serves `weights_file` beside the configurations; GETs of it are answered by `large`.
    pub fn with(weights_file: &'static str, large: Box<Large>) -> Self {
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
                _ if REVISIONS.iter().any(|r| request.path == format!("/api/models/{REPO}/revision/{r}")) => {
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

    /// Serves `model.safetensors` as the Hub does.
    #[allow(clippy::new_without_default)] // Nobody thinks of a server as a default.
    pub fn new() -> Self {
        Self::with("model.safetensors", Box::new(|request, _, content| bytes(request, content)))
    }

    /// Where the client keeps what it fetched of [`REPO`].
    pub fn repository(&self) -> PathBuf {
        self.home.path().join("hub/models--org--net")
    }

    /// Where it keeps what it has of the large file while that is not all.
    pub fn partial(&self) -> PathBuf {
        self.repository().join("blobs").join(format!("{}.incomplete", sha256(&weights())))
    }
}

/// A server of one repository with these files.
pub fn repository_of(files: Vec<(&'static str, Vec<u8>)>) -> Server {
    Server::start(move |request| {
        let resolve = format!("/{REPO}/resolve/{COMMIT}/");
        if request.path.starts_with("/api/") {
            let siblings: Vec<_> = files.iter().map(|(f, _)| format!("{{\"rfilename\":\"{f}\"}}")).collect();
            let body = format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}", siblings.join(","));
            return bytes(request, body.as_bytes());
        }
        let wanted = request.path.strip_prefix(&resolve);
        match files.iter().find(|(file, _)| wanted == Some(*file)) {
            Some((_, content)) => bytes(request, content).with("ETag", format!("\"{}\"", sha256(content))),
            None => Reply::status(404),
        }
    })
}
