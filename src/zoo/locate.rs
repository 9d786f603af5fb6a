//! Where a model's weights are: in the program, in a cache, or there once they are fetched.

use std::{
    io,
    path::{Path, PathBuf},
};

use nat_convert::zoo::Entry;

use super::cache::{self, Env};
use super::http::{self, Client, FetchError};
use super::hub;
use super::located::Located;
use super::record;
use super::reference::{Reference, ReferenceError, Repository};
use super::watch::Watch;

/// What the caller decides about fetching.
#[derive(Clone)]
#[non_exhaustive]
pub struct Access {
    /// Make no request at all.
    pub offline: bool,
    /// The environment variables that count.
    pub env: Env,
}

/// What forbids requests where [`Access::offline`] does.
pub const OFFLINE: &str = "offline";

impl Access {
    /// What `env` says, and no request at all where `offline` is set.
    pub fn new(offline: bool, env: Env) -> Self {
        Self { offline, env }
    }

    /// What forbids every request, if anything does: [`OFFLINE`] or the name of a variable.
    pub fn forbidden_by(&self) -> Option<&'static str> {
        if self.offline { Some(OFFLINE) } else { self.env.offline() }
    }
}

/// Why a model's weights can't be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum ZooError {
    /// Not cached, and requests are forbidden.
    #[error("`{model}` is not in the cache ({}) and {forbidden_by} forbids fetching it", cache.display())]
    Offline { model: String, forbidden_by: &'static str, cache: PathBuf },
    /// Nothing says where caches are.
    #[error("no cache folder for `{model}`: neither HOME nor {variable} is set; set one of them")]
    NoCacheFolder { model: String, variable: &'static str },
    /// The fetch failed. `origin` is the page or file that a person would open.
    #[error("can't fetch `{model}`: {source}; or download {origin} yourself")]
    Fetch { model: String, origin: String, source: Box<FetchError> },
    /// A file of the web could not be fetched.
    #[error(transparent)]
    Web(Box<FetchError>),
    /// A cached file is another than was fetched, or than `weights.toml` says.
    #[error(
        "{} is not what it should be: its SHA-256 is {found} and should be {wanted}; \
         remove it to fetch it again",
        path.display()
    )]
    Altered { path: PathBuf, wanted: String, found: String },
    /// A cached file can't be read.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The repository of an entry has no proper name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl Reference {
    /// The weights of this model: [`locate`] or [`locate_repository`].
    ///
    /// # Errors
    /// [`ZooError`].
    pub fn locate(&self, settings: &Access, watch: &mut dyn Watch) -> Result<Located, ZooError> {
        match self {
            Self::Entry(entry) => locate(entry, settings, watch),
            Self::Repository(repository) => locate_repository(repository, settings, watch).map(Located::At),
        }
    }
}

/// The weights of `entry`: from a cache without any request, or fetched into it.
///
/// A model with a Hub repository is kept in the Hub's own cache, shared with other Hub clients, and
/// comes as a snapshot folder; what is cached is taken as it is, newer commits are not looked for.
/// The others come from the authors' web address, or from the same path below `NAT_INFER_MIRROR`, into
/// [`Env::own_cache`]. A file there that is not what it was when it came is refused.
///
/// # Errors
/// [`ZooError`]; a download that broke off is resumed by the next call.
pub fn locate(entry: &Entry, settings: &Access, watch: &mut dyn Watch) -> Result<Located, ZooError> {
    let sha256 = entry.sha256.as_deref();
    if let Some(repo) = &entry.hub {
        let repository = Repository::new(repo, None)?;
        return in_hub_cache(&repository, &entry.name, sha256, settings, watch).map(Located::At);
    }
    let Some(url) = &entry.url else { return Ok(Located::Embedded) };
    let folder = own_cache(&entry.name, settings)?;
    let name = entry.file_name().and_then(cache::file_name).unwrap_or("weights");
    let place = CachePlace { folder: &folder, below: Path::new(&entry.name), name };
    let fetch_error =
        |source| ZooError::Fetch { model: entry.name.clone(), origin: url.clone(), source: Box::new(source) };
    let address = || match settings.env.mirror() {
        Some(mirror) => hub::mirrored(url, mirror),
        None => Ok(url.clone()),
    };
    in_own_cache(&place, &entry.name, sha256, settings, watch, &address, &fetch_error).map(Located::At)
}

/// What can be loaded of a repository of the Hub, a folder in Transformers layout or a safetensors
/// file of the converter: from the Hub's cache without any request, or fetched into it.
///
/// # Errors
/// [`ZooError`]; a download that broke off is resumed by the next call.
pub fn locate_repository(
    repository: &Repository,
    settings: &Access,
    watch: &mut dyn Watch,
) -> Result<PathBuf, ZooError> {
    in_hub_cache(repository, &repository.to_string(), None, settings, watch)
}

/// A checkpoint of the web, fetched once into [`Env::own_cache`] whatever its address is; each address
/// has a file of its own there. A file that is not what it was when it came is refused.
///
/// # Errors
/// [`ZooError`]; a download that broke off is resumed by the next call.
pub fn locate_file(url: &str, settings: &Access, watch: &mut dyn Watch) -> Result<PathBuf, ZooError> {
    let web_error = |source| ZooError::Web(Box::new(source));
    let model = http::shown(url);
    let [folder, name] = hub::web_place(url).map_err(web_error)?;
    let below = Path::new("web").join(folder);
    let place = CachePlace { folder: &own_cache(&model, settings)?, below: &below, name: &name };
    in_own_cache(&place, &model, None, settings, watch, &|| Ok(url.to_owned()), &web_error)
}

/// An image of the web, at most `limit` bytes of it; nothing is cached. Who fetches many makes a
/// [`Client`] once.
///
/// # Errors
/// [`FetchError`], [`FetchError::Offline`] among them.
pub fn fetch_image(url: &str, settings: &Access, limit: u64) -> Result<Vec<u8>, FetchError> {
    match settings.forbidden_by() {
        Some(forbidden_by) => Err(FetchError::Offline { url: http::shown(url), forbidden_by }),
        None => Client::new(&settings.env)?.image(url, limit),
    }
}

/// Where a cache has the weights of `entry`, if one does; no network. Embedded models are in none.
pub fn is_cached(entry: &Entry, env: &Env) -> Option<PathBuf> {
    match &entry.hub {
        Some(repo) => cache::cached(&env.hub_cache()?, &Repository::new(repo, None).ok()?),
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

fn in_hub_cache(
    repository: &Repository,
    model: &str,
    sha256: Option<&str>,
    settings: &Access,
    watch: &mut dyn Watch,
) -> Result<PathBuf, ZooError> {
    let folder = settings.env.hub_cache();
    let folder = folder.ok_or(ZooError::NoCacheFolder { model: model.to_owned(), variable: "HF_HOME" })?;
    if let Some(path) = cache::cached(&folder, repository) {
        // Its name was held against its content when it came.
        let linked = sha256.zip(cache::linked_sha256(&path));
        return match linked.filter(|(wanted, found)| !found.eq_ignore_ascii_case(wanted)) {
            Some((wanted, found)) => Err(ZooError::Altered { path, wanted: wanted.to_owned(), found }),
            None => Ok(path),
        };
    }
    allowed(model, &folder, settings)?;
    let client = Client::new(&settings.env);
    client.and_then(|client| client.fetch_repository(repository, &folder, sha256, watch)).map_err(|source| {
        ZooError::Fetch {
            model: model.to_owned(),
            origin: repository.page(cache::ENDPOINT),
            source: Box::new(source),
        }
    })
}

/// A file in our cache.
struct CachePlace<'a> {
    /// The cache.
    folder: &'a Path,
    /// The file's folder below it; locks are in one of that name.
    below: &'a Path,
    name: &'a str,
}

fn in_own_cache(
    place: &CachePlace,
    model: &str,
    sha256: Option<&str>,
    settings: &Access,
    watch: &mut dyn Watch,
    address: &dyn Fn() -> Result<String, FetchError>,
    fetch_error: &dyn Fn(FetchError) -> ZooError,
) -> Result<PathBuf, ZooError> {
    let path = place.folder.join(place.below).join(place.name);
    if path.is_file() {
        return match record::check(&path, sha256) {
            Ok(Ok(())) => Ok(path),
            Ok(Err(record::Altered { wanted, found })) => Err(ZooError::Altered { path, wanted, found }),
            Err(source) => Err(ZooError::Io { path, source }),
        };
    }
    allowed(model, place.folder, settings)?;
    let locks = place.folder.join(".locks").join(place.below);
    let mut fetch = || {
        let client = Client::new(&settings.env)?;
        client.fetch_file(&address()?, &path, &locks, sha256, watch)
    };
    fetch().map_err(fetch_error)?;
    Ok(path)
}

fn own_cache(model: &str, settings: &Access) -> Result<PathBuf, ZooError> {
    let none = || ZooError::NoCacheFolder { model: model.to_owned(), variable: cache::OWN_CACHE };
    settings.env.own_cache().ok_or_else(none)
}

fn allowed(model: &str, cache: &Path, settings: &Access) -> Result<(), ZooError> {
    match settings.forbidden_by() {
        Some(forbidden_by) => {
            Err(ZooError::Offline { model: model.to_owned(), forbidden_by, cache: cache.to_owned() })
        }
        None => Ok(()),
    }
}
