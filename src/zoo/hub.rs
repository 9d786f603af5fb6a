//! All network code: repositories of the Hub and plain files, through one download function.
//!
//! The `hf-hub` crate gives the cache's layout, the names in it and the repository's listing. Its
//! download is not used: version 0.5 sends the token to whatever host a redirect names, joins a whole
//! file to a partial one where a server ignores `Range`, and compares neither size nor hash.
//!
//! A token goes to the endpoint's own scheme, host and port and nowhere else, and only over https,
//! or over http to this machine itself. Redirects are followed by hand, never from https to http.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use hf_hub::{
    Repo,
    api::{Progress, RepoInfo},
};
use sha2::{Digest, Sha256};
use ureq::{
    Agent, Body, Proxy,
    http::{Response, StatusCode, Uri},
};

use super::cache::{self, CONFIG, Env, WEIGHTS};

/// How often something that may pass is tried.
const ATTEMPTS: u32 = 4;
/// The wait before the second attempt; it doubles from one to the next.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How many redirects one request may take.
const REDIRECTS: u32 = 10;
/// How long a connection, the head of an answer or the next bytes of it may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes read at once.
const CHUNK: usize = 1 << 16;

/// Why something could not be fetched. No message carries a token or the query of a redirect.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FetchError {
    /// No connection.
    #[error(
        "no answer from {url} ({why}); check the network and the proxy variables, or, of the Hub, set HF_ENDPOINT to a mirror"
    )]
    Unreachable { url: String, why: String },
    /// The connection was lost.
    #[error("the connection to {url} broke off ({why}); run again to resume")]
    BrokeOff { url: String, why: String },
    /// 401 or 403.
    #[error("{url} answers {status}: {advice}")]
    Denied { url: String, status: u16, advice: &'static str },
    /// 404.
    #[error("{url} answers 404: it is not there")]
    Missing { url: String },
    /// Any other status.
    #[error("{url} answers {status}; try again later")]
    Status { url: String, status: u16 },
    /// The server does not keep to the protocol.
    #[error("{url} does not answer as expected: {what}")]
    Protocol { url: String, what: String },
    /// What arrived is not what was announced; it was thrown away.
    #[error("what {url} sent is damaged: {what}; run again")]
    Damaged { url: String, what: String },
    /// A repository without weights.
    #[error("the repository {repo} has no {CONFIG} with {} or {}", WEIGHTS[0], WEIGHTS[1])]
    NoWeights { repo: String },
    /// A proxy variable that can't be used.
    #[error("the variable {variable} has no proxy's address (like http://host:port)")]
    BadProxy { variable: String },
    /// `HF_ENDPOINT` is not a web address.
    #[error("`{endpoint}` in HF_ENDPOINT is not a web address (like https://host)")]
    BadEndpoint { endpoint: String },
    /// The disk.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl FetchError {
    /// Whether the same request may work a moment later.
    fn may_pass(&self) -> bool {
        match self {
            Self::BrokeOff { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// Names the file in an I/O error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    move |source| FetchError::Io { path: path.to_owned(), source }
}

/// What a server says of a file before it sends it.
struct Announced {
    etag: Option<String>,
    size: Option<u64>,
}

/// Where a download goes. All three lie on one file system.
struct Target<'a> {
    /// The finished file.
    file: &'a Path,
    /// What has arrived so far.
    partial: &'a Path,
    /// Locked while one process writes.
    lock: &'a Path,
}

/// A connection to the Hub and to the web.
pub struct Client<'a> {
    agent: Agent,
    env: &'a Env,
    endpoint: &'a str,
    /// Where the token may go.
    home: Origin,
    token: Option<String>,
}

/// Scheme, host and port: what a token's permission is bound to.
#[derive(Clone, PartialEq, Eq)]
struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        Some(Self { https, host: uri.host()?.to_ascii_lowercase(), port })
    }

    fn is_this_machine(&self) -> bool {
        let ip = self.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        self.host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

impl<'a> Client<'a> {
    /// A client with the endpoint, the token and the proxies that `env` names. No request is made.
    ///
    /// # Errors
    /// When `HF_ENDPOINT` is not a web address.
    pub fn new(env: &'a Env) -> Result<Self, FetchError> {
        let endpoint = env.endpoint();
        let home = endpoint.parse().ok().as_ref().and_then(Origin::of);
        let home = home.ok_or_else(|| FetchError::BadEndpoint { endpoint: endpoint.to_owned() })?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .accept_encoding("identity")
            .user_agent(concat!("nat-infer/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(PATIENCE))
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE));
        Ok(Self { agent: config.build().into(), env, endpoint, home, token: env.token() })
    }

    /// Fetches what is needed of a Hub repository into the Hub cache at `folder` and returns the
    /// snapshot: `config.json`, `preprocessor_config.json` where there is one, and the weights, as
    /// safetensors where the repository has them. Files that the cache has are not fetched again.
    ///
    /// # Errors
    /// [`FetchError`]; files that are whole stay in the cache, and the snapshot becomes the current
    /// one when all are.
    pub fn fetch_repository(
        &self,
        repo: &str,
        folder: &Path,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, FetchError> {
        let id = Repo::model(repo.to_owned());
        let place = cache::repository(folder, repo);
        let url = format!("{}/api/{}", self.endpoint, id.api_url());
        let protocol = |what: String| FetchError::Protocol { url: url.clone(), what };
        let listing = retried(|| self.text(&url))?;
        let listing: RepoInfo = serde_json::from_str(&listing).map_err(|e| protocol(e.to_string()))?;
        let commit =
            file_name(&listing.sha).ok_or_else(|| protocol("its commit has no proper name".into()))?;

        let has = |file: &&str| listing.siblings.iter().any(|s| s.rfilename == **file);
        let weights = WEIGHTS.iter().copied().find(has).filter(|_| has(&CONFIG));
        let weights = weights.ok_or_else(|| FetchError::NoWeights { repo: repo.to_owned() })?;
        let files = [CONFIG, "preprocessor_config.json", weights];
        let snapshot = place.pointer_path(commit);
        for file in files.into_iter().filter(has) {
            let pointer = snapshot.join(file);
            if pointer.is_file() {
                continue;
            }
            let url = format!("{}/{}/resolve/{commit}/{file}", self.endpoint, id.url());
            let announced = retried(|| self.announced(&url))?;
            let etag = announced.etag.as_deref().and_then(file_name).ok_or_else(|| FetchError::Protocol {
                url: url.clone(),
                what: "its ETag can't name a file".into(),
            })?;
            let blob = place.blob_path(etag);
            let target = Target {
                file: &blob,
                partial: &blob.with_file_name(format!("{etag}.incomplete")),
                lock: &folder.join(".locks").join(id.folder_name()).join(format!("{etag}.lock")),
            };
            self.download(&url, &announced, &target, progress)?;
            cache::link(&blob, &pointer).map_err(at(&pointer))?;
        }
        place.create_ref(commit).map_err(at(folder))?;
        Ok(snapshot)
    }

    /// Fetches one file by its address into `folder` under the address's own file name; nothing is
    /// requested when it is there.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn fetch_file(
        &self,
        url: &str,
        folder: &Path,
        locks: &Path,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, FetchError> {
        let name = url.rsplit('/').next().and_then(file_name).ok_or_else(|| FetchError::Protocol {
            url: url.to_owned(),
            what: "its address does not end with a file's name".into(),
        })?;
        let file = folder.join(name);
        if !file.is_file() {
            let announced = retried(|| self.announced(url))?;
            // The version is in the partial file's name: the rest of another one is never joined to it.
            let version = announced.etag.as_deref().and_then(file_name).unwrap_or("unknown");
            let target = Target {
                file: &file,
                partial: &folder.join(format!("{name}.{version}.incomplete")),
                lock: &locks.join(format!("{name}.lock")),
            };
            self.download(url, &announced, &target, progress)?;
        }
        Ok(file)
    }

    /// The download: into the partial file, resumed where one is there, checked, then renamed.
    fn download(
        &self,
        url: &str,
        announced: &Announced,
        target: &Target,
        progress: &mut dyn Progress,
    ) -> Result<(), FetchError> {
        for path in [target.file, target.lock] {
            let folder = path.parent().unwrap_or(path);
            std::fs::create_dir_all(folder).map_err(at(folder))?;
        }
        let _lock = locked(target.lock)?;
        if target.file.is_file() {
            return Ok(());
        }
        let name = url.rsplit('/').next().unwrap_or(url);
        progress.init(announced.size.unwrap_or(0) as usize, name);
        let mut shown = 0;
        let mut show = |have: u64| {
            progress.update(have.saturating_sub(shown) as usize);
            shown = shown.max(have);
        };
        let received = retried(|| self.receive(url, announced, target.partial, &mut show));
        progress.finish();
        let whole = received.and_then(|()| verify(url, announced, target.partial));
        if matches!(whole, Err(FetchError::Damaged { .. })) {
            std::fs::remove_file(target.partial).map_err(at(target.partial))?;
        }
        whole?;
        std::fs::rename(target.partial, target.file).map_err(at(target.file))
    }

    /// One attempt to receive what `partial` lacks.
    fn receive(
        &self,
        url: &str,
        announced: &Announced,
        partial: &Path,
        show: &mut dyn FnMut(u64),
    ) -> Result<(), FetchError> {
        let protocol = |what: String| FetchError::Protocol { url: url.to_owned(), what };
        let mut file = OpenOptions::new().create(true).append(true).open(partial).map_err(at(partial))?;
        let mut have = file.metadata().map_err(at(partial))?.len();
        if have > 0 && announced.size == Some(have) {
            return Ok(());
        }
        let range = Some(have).filter(|&have| have > 0 && announced.size.is_none_or(|size| have < size));
        let mut response = self.follow(url, range)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let start = header(&response, "content-range").and_then(range_start);
                if range.is_none() || start != range {
                    return Err(protocol("it sends another range than was asked for".into()));
                }
            }
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE => {
                if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                    response = self.follow(url, None)?;
                }
                file.set_len(0).map_err(at(partial))?;
                have = 0;
            }
            status => return Err(protocol(format!("status {status}"))),
        }
        show(have);
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) => return Err(FetchError::BrokeOff { url: url.to_owned(), why: e.to_string() }),
            };
            have += read as u64;
            if let Some(size) = announced.size.filter(|&size| have > size) {
                return Err(damaged(url, format!("it goes on after the announced {size} bytes")));
            }
            file.write_all(&buffer[..read]).map_err(at(partial))?;
            show(have);
        }
        file.sync_all().map_err(at(partial))
    }

    /// Asks what a file is. A redirect to where the Hub keeps large files is not followed: the answer
    /// that carries it has the hash and the size already.
    fn announced(&self, url: &str) -> Result<Announced, FetchError> {
        let linked = |r: &Response<Body>| header(r, "x-linked-etag").is_some();
        let response = self.walk(url, &|agent, url| agent.head(url), &linked)?;
        let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
        let size = match response.status().is_redirection() {
            true => header(&response, "x-linked-size"),
            false => header(&response, "x-linked-size").or_else(|| header(&response, "content-length")),
        };
        Ok(Announced {
            etag: etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned()),
            size: size.and_then(|size| size.parse().ok()),
        })
    }

    fn text(&self, url: &str) -> Result<String, FetchError> {
        let mut response = self.follow(url, None)?;
        let broke_off = |e: ureq::Error| FetchError::BrokeOff { url: url.to_owned(), why: e.to_string() };
        response.body_mut().read_to_string().map_err(broke_off)
    }

    /// GET, from byte `start` where one is given, redirects followed.
    fn follow(&self, url: &str, start: Option<u64>) -> Result<Response<Body>, FetchError> {
        let get = |agent: &Agent, url: &str| match start {
            Some(start) => agent.get(url).header("range", format!("bytes={start}-")),
            None => agent.get(url),
        };
        self.walk(url, &get, &|_| false)
    }

    /// Sends a request and follows redirects until one satisfies `stop`; the answer is a success, a
    /// redirect at which to stop, or status 416.
    fn walk(
        &self,
        url: &str,
        request: &dyn Fn(&Agent, &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody>,
        stop: &dyn Fn(&Response<Body>) -> bool,
    ) -> Result<Response<Body>, FetchError> {
        let protocol = |what: &str| FetchError::Protocol { url: url.to_owned(), what: what.to_owned() };
        let mut uri: Uri = url.parse().map_err(|_| protocol("its address can't be read"))?;
        for _ in 0..=REDIRECTS {
            let origin = Origin::of(&uri).ok_or_else(|| protocol("its address is not one of the web"))?;
            let mut request = request(&self.agent, &uri.to_string());
            if let Some(token) = self.token_for(&origin) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = request.config().proxy(self.proxy(&origin)?).build().call();
            let response = response.map_err(|e| unanswered(url, e))?;
            let status = response.status();
            if !status.is_redirection() || stop(&response) {
                return self.judged(url, &origin, response);
            }
            let location = header(&response, "location").and_then(|to| resolve(&uri, to));
            let next = location.ok_or_else(|| protocol("its redirect leads nowhere"))?;
            if origin.https && Origin::of(&next).is_some_and(|next| !next.https) {
                return Err(protocol("its redirect leaves https"));
            }
            uri = next;
        }
        Err(protocol("it redirects without end"))
    }

    /// The answer, or the error that its status is.
    fn judged(
        &self,
        url: &str,
        origin: &Origin,
        response: Response<Body>,
    ) -> Result<Response<Body>, FetchError> {
        let url = url.to_owned();
        match response.status().as_u16() {
            200..=399 | 416 => Ok(response),
            status @ (401 | 403) => {
                let advice = match (&self.token, self.token_for(origin)) {
                    (None, _) => "it is private or not there; set HF_TOKEN to a token that may read it",
                    (Some(_), Some(_)) => "the token in use may not read it, or it is not there",
                    (Some(_), None) => {
                        "the token was not sent, for it goes to HF_ENDPOINT alone and not over plain http"
                    }
                };
                Err(FetchError::Denied { url, status, advice })
            }
            404 => Err(FetchError::Missing { url }),
            status => Err(FetchError::Status { url, status }),
        }
    }

    /// The token, if `origin` may see it.
    fn token_for(&self, origin: &Origin) -> Option<&str> {
        let may = *origin == self.home && (origin.https || origin.is_this_machine());
        self.token.as_deref().filter(|_| may)
    }

    /// The proxy for `origin`, as curl chooses it: by scheme, and none for a host that `NO_PROXY`
    /// names or that is this machine.
    fn proxy(&self, origin: &Origin) -> Result<Option<Proxy>, FetchError> {
        let names: &[_] = match origin.https {
            true => &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
            false => &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        };
        let excluded = self.env.first(&["NO_PROXY", "no_proxy"]).map_or("", |(_, list)| list);
        let covers = |entry: &str| {
            let domain = entry.trim().trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
            let below =
                origin.host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            domain == "*" || (!domain.is_empty() && below)
        };
        match self.env.first(names) {
            Some((variable, address)) if !origin.is_this_machine() && !excluded.split(',').any(covers) => {
                let proxy = Proxy::new(address);
                proxy.map(Some).map_err(|_| FetchError::BadProxy { variable: variable.to_owned() })
            }
            _ => Ok(None),
        }
    }
}

/// Tries what may pass up to [`ATTEMPTS`] times.
fn retried<T>(mut attempt: impl FnMut() -> Result<T, FetchError>) -> Result<T, FetchError> {
    let mut wait = FIRST_WAIT;
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.may_pass() => thread::sleep(wait),
            done => return done,
        }
        wait *= 2;
    }
    attempt()
}

/// An exclusive lock, held until the file is dropped; none where the file system has no locks. The
/// Hub's Python client takes the same ones.
fn locked(path: &Path) -> Result<File, FetchError> {
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(at(path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => file.lock().map_err(at(path))?,
        Err(TryLockError::Error(e)) if e.kind() != io::ErrorKind::Unsupported => return Err(at(path)(e)),
        _ => {}
    }
    Ok(file)
}

/// Compares what arrived with what was announced: the size, and the content where the ETag is a
/// SHA-256, as it is for the Hub's large files.
fn verify(url: &str, announced: &Announced, partial: &Path) -> Result<(), FetchError> {
    let size = partial.metadata().map_err(at(partial))?.len();
    if let Some(expected) = announced.size.filter(|&expected| expected != size) {
        return Err(damaged(url, format!("{size} bytes arrived, {expected} were announced")));
    }
    let is_sha256 = |etag: &&String| etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(expected) = announced.etag.as_ref().filter(is_sha256) {
        let mut hash = Sha256::new();
        let mut file = File::open(partial).map_err(at(partial))?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match file.read(&mut buffer).map_err(at(partial))? {
                0 => break,
                read => hash.update(&buffer[..read]),
            }
        }
        let got: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if !got.eq_ignore_ascii_case(expected) {
            return Err(damaged(url, format!("its SHA-256 is {got}, not {expected}")));
        }
    }
    Ok(())
}

fn damaged(url: &str, what: String) -> FetchError {
    FetchError::Damaged { url: url.to_owned(), what }
}

/// What a failed call means: a connection that was never there, or one that was lost.
fn unanswered(url: &str, error: ureq::Error) -> FetchError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let (url, why) = (url.to_owned(), error.to_string());
    match error {
        ureq::Error::Io(e)
            if matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof) =>
        {
            FetchError::BrokeOff { url, why }
        }
        _ => FetchError::Unreachable { url, why },
    }
}

fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// The first byte of `Content-Range: bytes FIRST-LAST/SIZE`.
fn range_start(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Where a redirect from `base` leads: a whole address, or one that starts at a host or at the root.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let absolute = match location {
        l if l.starts_with("//") => format!("{scheme}:{l}"),
        l if l.starts_with('/') => format!("{scheme}://{authority}{l}"),
        l => l.to_owned(),
    };
    absolute.parse().ok().filter(|uri: &Uri| Origin::of(uri).is_some())
}

/// `name`, if it can name a file in a folder and nothing outside of it.
fn file_name(name: &str) -> Option<&str> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    Some(name).filter(|name| plain && !name.is_empty() && !name.starts_with('.') && name.len() <= 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::of(&url.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_token_stays_with_its_origin_and_off_plain_http() {
        for (endpoint, url, sent) in [
            ("https://huggingface.co", "https://huggingface.co/a/b", true),
            ("https://huggingface.co/", "https://HuggingFace.co:443/a", true),
            ("https://huggingface.co", "http://huggingface.co/a", false),
            ("https://huggingface.co", "https://huggingface.co:8443/a", false),
            ("https://huggingface.co", "https://cdn.huggingface.co/a", false),
            ("https://huggingface.co", "https://huggingface.co.evil.example/a", false),
            ("https://huggingface.co", "https://huggingface.co@evil.example/a", false),
            ("http://mirror.example", "http://mirror.example/a", false),
            ("http://localhost:8080", "http://localhost:8080/a", true),
            ("http://[::1]:8080", "http://[::1]:8080/a", true),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8081/a", false),
            ("http://127.0.0.1.evil.example", "http://127.0.0.1.evil.example/a", false),
        ] {
            let env = Env::from_vars([("HF_ENDPOINT", endpoint), ("HF_TOKEN", "secret")]);
            let client = Client::new(&env).unwrap();
            assert_eq!(client.token_for(&origin(url)).is_some(), sent, "{endpoint} {url}");
        }
    }

    #[test]
    fn proxies_follow_the_scheme_and_no_proxy() {
        for (vars, url, proxy) in [
            (
                &[("HTTPS_PROXY", "http://p:1"), ("HTTP_PROXY", "http://q:2")][..],
                "https://hub.example",
                Some("p"),
            ),
            (&[("HTTPS_PROXY", "http://p:1"), ("HTTP_PROXY", "http://q:2")], "http://hub.example", Some("q")),
            (&[("https_proxy", "http://p:1")], "http://hub.example", None),
            (&[("ALL_PROXY", "socks5://s:3")], "https://hub.example", Some("s")),
            (&[("ALL_PROXY", "http://p:1")], "http://127.0.0.1:8080", None),
            (
                &[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "a.example, hub.example")],
                "https://hub.example",
                None,
            ),
            (&[("ALL_PROXY", "http://p:1"), ("no_proxy", ".example")], "https://hub.example", None),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "ub.example")], "https://hub.example", Some("p")),
            (&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "*")], "https://hub.example", None),
        ] {
            let env = Env::from_vars(vars.iter().copied());
            let client = Client::new(&env).unwrap();
            let chosen = client.proxy(&origin(url)).unwrap();
            assert_eq!(chosen.as_ref().map(Proxy::host), proxy, "{vars:?} {url}");
        }
        let env = Env::from_vars([("HTTPS_PROXY", "ftp://p:1")]);
        let error = Client::new(&env).unwrap().proxy(&origin("https://hub.example")).unwrap_err();
        assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");
    }

    #[test]
    fn redirects_resolve_as_in_a_browser() {
        let base: Uri = "https://hub.example:8443/a/b".parse().unwrap();
        for (location, to) in [
            ("https://cdn.example/x?y", Some("https://cdn.example/x?y")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("/x/y", Some("https://hub.example:8443/x/y")),
            ("file:///etc/passwd", None),
            ("c", None),
        ] {
            assert_eq!(resolve(&base, location).map(|uri| uri.to_string()).as_deref(), to, "{location}");
        }
    }

    #[test]
    fn names_from_a_server_stay_in_their_folder() {
        for (name, fits) in [
            ("0a1b2c", true),
            ("nat_mini.pth", true),
            ("", false),
            ("..", false),
            (".hidden", false),
            ("../x", false),
            ("a/b", false),
            ("a\\b", false),
            ("c:x", false),
        ] {
            assert_eq!(file_name(name).is_some(), fits, "{name}");
        }
    }
}
