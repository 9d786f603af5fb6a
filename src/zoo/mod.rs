//! From a model's name to its weights on this machine: what `weights.toml` says of it, whether a
//! cache has it, and fetching it when none does.
//!
//! [`cache`] knows where files lie and touches no network; [`hub`] has all the network code.
//! Reading what [`locate`] finds is the converter's business.

use std::path::PathBuf;

use indicatif::ProgressBar;

pub use hf_hub::api::Progress;
pub use nat_convert::zoo::{Entry, Reported, Task, UnknownModel, by_file_name, by_hub, entries, find};

pub use cache::Env;
pub use hub::FetchError;

pub mod cache;
pub mod hub;

/// What the caller decides about fetching.
#[derive(Clone)]
pub struct Settings {
    /// Make no request at all (`--offline`).
    pub offline: bool,
    /// The environment variables that count.
    pub env: Env,
}

/// Where the weights of a model are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// In the program itself.
    Embedded,
    /// A checkpoint file, or a folder in Transformers layout.
    At(PathBuf),
}

/// Why a model's weights can't be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ZooError {
    /// Not cached, and requests are forbidden.
    #[error(
        "`{model}` is not in the cache ({}) and {forbidden_by} forbids fetching it; fetch it once without, or pass a file with --weights",
        cache.display()
    )]
    Offline { model: String, forbidden_by: &'static str, cache: PathBuf },
    /// Nothing says where caches are.
    #[error("no cache folder for `{model}`: neither HOME nor {variable} is set; set one of them")]
    NoCacheFolder { model: String, variable: &'static str },
    /// The fetch failed.
    #[error("can't fetch `{model}`: {source}; or download {origin} yourself and pass it with --weights")]
    Fetch { model: String, origin: String, source: FetchError },
}

/// The weights of `entry`: from a cache without any request, or fetched into it.
///
/// A model with a Hub repository is kept in the Hub's own cache, shared with other Hub clients, and
/// comes as a snapshot folder; what is cached is taken as it is, newer commits are not looked for.
/// The others come from the authors' web address into [`Env::own_cache`].
///
/// # Errors
/// [`ZooError`]; a download that broke off is resumed by the next call.
pub fn locate(entry: &Entry, settings: &Settings, progress: &mut dyn Progress) -> Result<Located, ZooError> {
    let env = &settings.env;
    let Some(origin) = origin(entry) else { return Ok(Located::Embedded) };
    if let Some(path) = is_cached(entry, env) {
        return Ok(Located::At(path));
    }
    let model = || entry.name.clone();
    let (folder, variable) = match entry.hub {
        Some(_) => (env.hub_cache(), "HF_HOME"),
        None => (env.own_cache(), cache::OWN_CACHE),
    };
    let folder = folder.ok_or_else(|| ZooError::NoCacheFolder { model: model(), variable })?;
    let forbidden_by = if settings.offline { Some("--offline") } else { env.offline() };
    if let Some(forbidden_by) = forbidden_by {
        return Err(ZooError::Offline { model: model(), forbidden_by, cache: folder });
    }
    let fetched = hub::Client::new(env).and_then(|client| match &entry.hub {
        Some(repo) => client.fetch_repository(repo, &folder, progress),
        None => {
            let locks = folder.join(".locks").join(&entry.name);
            client.fetch_file(&origin, &folder.join(&entry.name), &locks, progress)
        }
    });
    fetched.map(Located::At).map_err(|source| ZooError::Fetch { model: model(), origin, source })
}

/// Where a cache has the weights of `entry`, if one does; no network. Embedded models are in none.
pub fn is_cached(entry: &Entry, env: &Env) -> Option<PathBuf> {
    match &entry.hub {
        Some(repo) => cache::snapshot(&env.hub_cache()?, repo),
        None => {
            Some(env.own_cache()?.join(&entry.name).join(entry.file_name()?)).filter(|path| path.is_file())
        }
    }
}

/// The web address that a person would open for the weights of `entry`; `None` if it is embedded.
pub fn origin(entry: &Entry) -> Option<String> {
    let page = |repo: &String| format!("{}/{repo}", cache::ENDPOINT);
    entry.hub.as_ref().map(page).or_else(|| entry.url.clone())
}

/// A bar on stderr for each file that is fetched, gone when the file is there. Nothing is drawn where
/// stderr is no terminal, or when `HF_HUB_DISABLE_PROGRESS_BARS` or the caller asks for quiet.
pub struct Bars {
    bar: ProgressBar,
    quiet: bool,
}

impl Bars {
    /// Bars that keep quiet if `quiet` or `env` says so.
    pub fn new(env: &Env, quiet: bool) -> Self {
        Self { bar: ProgressBar::hidden(), quiet: quiet || env.hides_progress() }
    }
}

impl Progress for Bars {
    fn init(&mut self, size: usize, filename: &str) {
        if !self.quiet {
            self.bar = ProgressBar::new(0);
            Progress::init(&mut self.bar, size, filename);
        }
    }

    fn update(&mut self, size: usize) {
        Progress::update(&mut self.bar, size);
    }

    fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}
