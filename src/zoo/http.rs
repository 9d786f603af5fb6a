//! Requests: one connection for the Hub and the web, with redirects, proxies and the token.
//!
//! A token goes to the endpoint's own scheme, host and port and nowhere else, and only over https,
//! or over http to this machine itself. Redirects are followed by hand, never from https to http.

use std::{
    fmt::Display,
    io::{self, Read},
    net::IpAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use ureq::{
    Agent, Body, Proxy,
    http::{Response, StatusCode, Uri},
};

use super::cache::{CONFIG, CONVERTED, Env, MIRROR, WEIGHTS};

/// How often something that may pass is tried.
const ATTEMPTS: u32 = 4;
/// The wait before the second attempt; it doubles from one to the next.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How many redirects one request may take.
const REDIRECTS: u32 = 10;
/// How long a connection, the head of an answer or the next bytes of it may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an image may take from its first byte to its last.
const WHOLE_IMAGE: Duration = Duration::from_secs(300);
/// Bytes read at once.
pub(super) const CHUNK: usize = 1 << 16;

/// Why something could not be fetched. No message carries a token, nor the query or the login of an
/// address, which may be secret.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum FetchError {
    /// No connection.
    #[error(
        "no answer from {url} ({why}); check the network and the proxy variables, \
         or, of the Hub, set HF_ENDPOINT to a mirror"
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
    /// Nothing that a request can be made of.
    #[error("{url} can't be fetched: {what}")]
    BadAddress { url: String, what: &'static str },
    /// What arrived is not what was announced; it was thrown away.
    #[error("what {url} sent is damaged: {what}; run again")]
    Damaged { url: String, what: String },
    /// It is not what it was when it was fetched before; it was thrown away.
    #[error(
        "{url} sends another file than before: its SHA-256 is {found}, and it was {recorded}; \
         delete {} to accept it",
        record.display()
    )]
    Replaced { url: String, recorded: String, found: String, record: PathBuf },
    /// There is more of it than the caller takes.
    #[error("{url} is over the limit of {limit} bytes")]
    TooLarge { url: String, limit: u64 },
    /// It trickles in for ever.
    #[error("{url} took over {seconds} s")]
    TooSlow { url: String, seconds: u64 },
    /// Who waits for it does no more.
    #[error("{url} was not fetched to its end; the next attempt goes on there")]
    Stopped { url: String },
    /// Requests are forbidden.
    #[error("{forbidden_by} forbids fetching {url}")]
    Offline { url: String, forbidden_by: &'static str },
    /// A repository without weights.
    #[error(
        "the repository {repo} has no {CONFIG} with {} or {}, \
         and no single *{CONVERTED} of this program's converter",
        WEIGHTS[0],
        WEIGHTS[1]
    )]
    NoWeights { repo: String },
    /// A proxy variable that can't be used.
    #[error("the variable {variable} has no proxy's address (like http://host:port)")]
    BadProxy { variable: String },
    /// `HF_ENDPOINT` is not a web address.
    #[error("`{endpoint}` in HF_ENDPOINT is not a web address (like https://host)")]
    BadEndpoint { endpoint: String },
    /// `NAT_INFER_MIRROR` is not a web address.
    #[error("`{mirror}` in {MIRROR} is not a web address (like https://host/folder)")]
    BadMirror { mirror: String },
    /// The disk.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl FetchError {
    /// Whether the same request may work a moment later.
    fn may_pass(&self) -> bool {
        match self {
            Self::BrokeOff { .. } => true,
            Self::Status { status, .. } => *status == 429 || (*status >= 500 && *status != 501),
            _ => false,
        }
    }
}

/// A connection to the Hub and to the web.
pub struct Client<'a> {
    agent: Agent,
    pub(super) env: &'a Env,
    pub(super) endpoint: &'a str,
    /// Where the token may go.
    home: ServerOrigin,
    token: Option<String>,
}

/// Scheme, host and port: what a token's permission is bound to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ServerOrigin {
    https: bool,
    pub(super) host: String,
    port: u16,
}

impl ServerOrigin {
    pub(super) fn of(uri: &Uri) -> Option<Self> {
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
        let home = endpoint.parse().ok().as_ref().and_then(ServerOrigin::of);
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

    /// GET of `url`, of any web server: at most `limit` bytes of it, with redirects followed. The token
    /// goes along only where `url` or a redirect is of the endpoint's own origin.
    ///
    /// # Errors
    /// [`FetchError`], [`FetchError::TooLarge`] among them.
    pub fn image(&self, url: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let url = &encoded(url);
        retried(|| self.limited(url, limit))
    }

    fn limited(&self, url: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let started = Instant::now();
        let mut response = self.follow(url, None)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { url: shown(url), status: response.status().as_u16() });
        }
        let announced = header(&response, "content-length").and_then(|length| length.parse::<u64>().ok());
        let too_large = || FetchError::TooLarge { url: shown(url), limit };
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = response.body_mut().as_reader();
        let (mut content, mut buffer) = (Vec::new(), vec![0; CHUNK]);
        loop {
            let read = body.read(&mut buffer).map_err(|e| broke_off(url, &e))?;
            if read == 0 {
                break;
            }
            if content.len() as u64 + read as u64 > limit {
                return Err(too_large());
            }
            if started.elapsed() > WHOLE_IMAGE {
                return Err(FetchError::TooSlow { url: shown(url), seconds: WHOLE_IMAGE.as_secs() });
            }
            content.extend_from_slice(&buffer[..read]);
        }
        match announced {
            Some(length) if length != content.len() as u64 => Err(broke_off(url, &"it is not whole")),
            _ => Ok(content),
        }
    }

    /// An answer in words.
    pub(super) fn text(&self, url: &str) -> Result<String, FetchError> {
        let mut response = self.follow(url, None)?;
        response.body_mut().read_to_string().map_err(|e| broke_off(url, &e))
    }

    /// GET, from byte `start` where one is given, redirects followed.
    pub(super) fn follow(&self, url: &str, start: Option<u64>) -> Result<Response<Body>, FetchError> {
        let get = |agent: &Agent, url: &str| match start {
            Some(start) => agent.get(url).header("range", format!("bytes={start}-")),
            None => agent.get(url),
        };
        self.walk(url, &get, &|_| false)
    }

    /// Sends a request and follows redirects until one satisfies `stop`; the answer is a success, a
    /// redirect at which to stop, or status 416.
    pub(super) fn walk(
        &self,
        url: &str,
        request: &dyn Fn(&Agent, &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody>,
        stop: &dyn Fn(&Response<Body>) -> bool,
    ) -> Result<Response<Body>, FetchError> {
        let protocol = |what: &str| protocol(url, what);
        let mut uri: Uri = url.parse().map_err(|_| bad_address(url))?;
        for _ in 0..=REDIRECTS {
            let origin = ServerOrigin::of(&uri).ok_or_else(|| bad_address(url))?;
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
            if origin.https && ServerOrigin::of(&next).is_some_and(|next| !next.https) {
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
        origin: &ServerOrigin,
        response: Response<Body>,
    ) -> Result<Response<Body>, FetchError> {
        let asked_the_hub =
            url.parse().ok().as_ref().and_then(ServerOrigin::of).is_some_and(|asked| asked == self.home);
        let url = shown(url);
        match response.status().as_u16() {
            200..=399 | 416 => Ok(response),
            status @ (401 | 403) => {
                let advice = match (&self.token, self.token_for(origin)) {
                    _ if !asked_the_hub => "it is private or not there",
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
    fn token_for(&self, origin: &ServerOrigin) -> Option<&str> {
        let may = *origin == self.home && (origin.https || origin.is_this_machine());
        self.token.as_deref().filter(|_| may)
    }

    /// The proxy for `origin`, as curl chooses it: by scheme, and none for a host that `NO_PROXY`
    /// names or that is this machine.
    fn proxy(&self, origin: &ServerOrigin) -> Result<Option<Proxy>, FetchError> {
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
pub(super) fn retried<T>(mut attempt: impl FnMut() -> Result<T, FetchError>) -> Result<T, FetchError> {
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

/// A connection that was lost.
pub(super) fn broke_off(url: &str, why: &dyn Display) -> FetchError {
    FetchError::BrokeOff { url: shown(url), why: why.to_string() }
}

/// An address that none of the web has.
pub(super) fn bad_address(url: &str) -> FetchError {
    FetchError::BadAddress { url: shown(url), what: "it is no address of the web" }
}

/// A server that does not answer as it should.
pub(super) fn protocol(url: &str, what: impl Into<String>) -> FetchError {
    FetchError::Protocol { url: shown(url), what: what.into() }
}

/// What a failed call means: a connection that was never there, or one that was lost.
fn unanswered(url: &str, error: ureq::Error) -> FetchError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let (url, why) = (shown(url), error.to_string());
    match error {
        ureq::Error::Io(e)
            if matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof) =>
        {
            FetchError::BrokeOff { url, why }
        }
        _ => FetchError::Unreachable { url, why },
    }
}

/// A header's value, if it is text.
pub(super) fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// Where a redirect from `base` leads: a whole address, or one that starts at a host or at the root.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let absolute = match location {
        l if l.starts_with("//") => format!("{scheme}:{l}"),
        l if l.starts_with('/') => format!("{scheme}://{authority}{l}"),
        l => l.to_owned(),
    };
    absolute.parse().ok().filter(|uri: &Uri| ServerOrigin::of(uri).is_some())
}

/// An address as messages may show it: a login before the host and what follows `?` may be secret.
pub(super) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or(host);
    format!("{scheme}://{host}{path}")
}

/// An address as it is typed, with what can't stand in a request percent-encoded and without what a
/// server never sees, from `#` on.
pub(super) fn encoded(url: &str) -> String {
    let url = url.split('#').next().unwrap_or_default();
    let stands = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b);
    url.bytes().map(|b| if stands(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> ServerOrigin {
        ServerOrigin::of(&url.parse().unwrap()).unwrap()
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
    fn what_may_be_secret_is_not_shown() {
        for (url, text) in [
            ("https://a.example/b/c.pth?X-Signature=secret#x", "https://a.example/b/c.pth"),
            ("https://me:secret@a.example:8443/b", "https://a.example:8443/b"),
            ("https://a.example", "https://a.example"),
            ("https://a.example/@b", "https://a.example/@b"),
        ] {
            assert_eq!(shown(url), text);
        }
    }

    #[test]
    fn addresses_are_encoded_as_in_a_browser() {
        for (typed, sent) in [
            ("https://a.example/ü b.png?c=d&e=%20#f", "https://a.example/%C3%BC%20b.png?c=d&e=%20"),
            ("https://a.example/[x]|y", "https://a.example/[x]%7Cy"),
        ] {
            assert_eq!(encoded(typed), sent);
            assert!(encoded(typed).parse::<Uri>().is_ok());
        }
    }
}
