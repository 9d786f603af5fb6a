//! Where files lie: the environment variables of the Hub's clients and ours, and what the caches
//! have. No network here.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf, is_separator},
};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use nat_convert::{metadata::Metadata, source::TensorStore};

use super::{record, reference::Repository};

/// The Hub, unless `HF_ENDPOINT` names a mirror.
pub const ENDPOINT: &str = "https://huggingface.co";

/// The variable that moves the cache of what is not on the Hub.
pub const OWN_CACHE: &str = "NAT_INFER_CACHE";

/// The variable that names another place for the authors' files.
pub const MIRROR: &str = "NAT_INFER_MIRROR";

/// The file that makes a folder one of Transformers' layout.
pub(super) const CONFIG: &str = "config.json";

/// Files of weights in the order of preference.
pub(super) const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The extension of files that may be our own.
pub(super) const CONVERTED: &str = ".safetensors";

/// Environment variables, read once at the edge of the program. An empty variable counts as unset. In
/// those that name a path, `~` at the beginning, `$NAME` and `${NAME}` are expanded as by
/// `huggingface_hub`; a name that is not set stays as it is written.
///
/// There is no `Debug` on purpose: a token may be among them.
#[derive(Clone)]
pub struct Env(BTreeMap<String, OsString>);

impl Env {
    /// The variables of this process, with `HOME` where the system knows it otherwise.
    pub fn from_process() -> Self {
        let vars = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let home = std::env::home_dir().map(|home| ("HOME".to_owned(), home.into_os_string()));
        Self(vars.chain(home).collect())
    }

    /// These variables and no others.
    pub fn from_vars<N: Into<String>, V: Into<OsString>>(vars: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The Hub's cache: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` or `hub` under `HF_HOME`, which is
    /// `huggingface` in the user's cache folder unless set.
    pub fn hub_cache(&self) -> Option<PathBuf> {
        let named = self.path("HF_HUB_CACHE").or_else(|| self.path("HUGGINGFACE_HUB_CACHE"));
        named.or_else(|| Some(self.hub_home()?.join("hub")))
    }

    /// Our cache, for what is not on the Hub: `NAT_INFER_CACHE`, or `nat-infer` in the user's cache
    /// folder (`XDG_CACHE_HOME` or `~/.cache`). A file lies there as `<model>/<file>`, or as
    /// `web/<host>-<hash of the address>/<file>` if no model of ours names it.
    pub fn own_cache(&self) -> Option<PathBuf> {
        self.path(OWN_CACHE).or_else(|| Some(self.user_cache()?.join("nat-infer")))
    }

    /// The variable that forbids every request, if one does.
    pub fn offline(&self) -> Option<&'static str> {
        ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(|name| self.is_true(name))
    }

    /// Whether `HF_HUB_DISABLE_PROGRESS_BARS` asks for silence.
    pub fn hides_progress(&self) -> bool {
        self.is_true("HF_HUB_DISABLE_PROGRESS_BARS")
    }

    /// `HF_ENDPOINT` without slashes at its end, or [`ENDPOINT`].
    pub(super) fn endpoint(&self) -> &str {
        self.text("HF_ENDPOINT").map_or(ENDPOINT, |e| e.trim_end_matches('/'))
    }

    /// `NAT_INFER_MIRROR` without slashes at its end, if it is set.
    pub(super) fn mirror(&self) -> Option<&str> {
        self.text(MIRROR).map(|mirror| mirror.trim_end_matches('/'))
    }

    /// The Hub token: `HF_TOKEN`, or what the file at `HF_TOKEN_PATH` or `$HF_HOME/token` has; none
    /// when `HF_HUB_DISABLE_IMPLICIT_TOKEN` is true.
    pub(super) fn token(&self) -> Option<String> {
        if self.is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return None;
        }
        let clean = |token: &str| Some(token.trim().to_owned()).filter(|t| !t.is_empty());
        self.text("HF_TOKEN").and_then(clean).or_else(|| {
            let file = self.path("HF_TOKEN_PATH").or_else(|| Some(self.hub_home()?.join("token")))?;
            clean(&std::fs::read_to_string(file).ok()?)
        })
    }

    /// The first of these variables that is set and is text, with its name.
    pub(super) fn first<'a>(&self, names: &[&'a str]) -> Option<(&'a str, &str)> {
        names.iter().find_map(|name| Some((*name, self.text(name)?)))
    }

    fn hub_home(&self) -> Option<PathBuf> {
        self.path("HF_HOME").or_else(|| Some(self.user_cache()?.join("huggingface")))
    }

    fn user_cache(&self) -> Option<PathBuf> {
        self.path("XDG_CACHE_HOME").or_else(|| Some(self.path("HOME")?.join(".cache")))
    }

    fn is_true(&self, name: &str) -> bool {
        let yes = |value: &str| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str());
        self.text(name).is_some_and(yes)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.0.get(name).filter(|value| !value.is_empty())?;
        Some(value.to_str().map_or_else(|| PathBuf::from(value), |text| self.expanded(text)))
    }

    /// A path as a shell reads it, without `~user`.
    fn expanded(&self, text: &str) -> PathBuf {
        let mut path = OsString::new();
        let below_home =
            text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with(is_separator));
        let mut rest = match (below_home, self.0.get("HOME")) {
            (Some(rest), Some(home)) => {
                path.push(home);
                rest
            }
            _ => text,
        };
        while let Some((before, after)) = rest.split_once('$') {
            path.push(before);
            let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let ends = |c: char| !c.is_ascii_alphanumeric() && c != '_';
            let (name, left) =
                braced.unwrap_or_else(|| after.split_at(after.find(ends).unwrap_or(after.len())));
            match self.0.get(name) {
                Some(value) => path.push(value),
                None => path.push(&rest[before.len()..rest.len() - left.len()]),
            }
            rest = left;
        }
        path.push(rest);
        path.into()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }
}

/// The Hub's client library's word for a repository.
pub(super) fn repo(repository: &Repository) -> Repo {
    Repo::with_revision(repository.name().to_owned(), RepoType::Model, repository.revision().to_owned())
}

/// The place of a Hub repository in the cache at `folder`.
pub(super) fn place(folder: &Path, repository: &Repository) -> CacheRepo {
    Cache::new(folder.to_owned()).repo(repo(repository))
}

/// What the cache at `folder` has of a repository at its revision, if that is enough to load.
pub(super) fn cached(folder: &Path, repository: &Repository) -> Option<PathBuf> {
    let commit = match repository.commit() {
        Some(commit) => commit.to_owned(),
        None => {
            let refs = folder.join(repo(repository).folder_name()).join("refs");
            std::fs::read_to_string(refs.join(repository.revision())).ok()?.trim().to_owned()
        }
    };
    loadable(&place(folder, repository).pointer_path(file_name(&commit)?))
}

/// What can be loaded of a snapshot: itself, if it has a configuration and weights, or the one file in
/// it that carries our metadata.
pub(super) fn loadable(snapshot: &Path) -> Option<PathBuf> {
    let has = |file: &str| snapshot.join(file).is_file();
    if has(CONFIG) && WEIGHTS.into_iter().any(has) {
        return Some(snapshot.to_owned());
    }
    let names =
        std::fs::read_dir(snapshot).ok()?.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let file = snapshot.join(converted(&names.collect::<Vec<_>>())?);
    let source = TensorStore::open(&file).ok()?;
    matches!(Metadata::from_map(source.metadata()), Ok(Some(_))).then_some(file)
}

/// The file among these that may be our own, if there is no doubt which.
pub(super) fn converted<S: AsRef<str>>(names: &[S]) -> Option<&str> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if let Some(preferred) = names.iter().find(|name| **name == WEIGHTS[0]) {
        return Some(preferred);
    }
    let mut files = names.into_iter().filter(|name| name.ends_with(CONVERTED) && file_name(name).is_some());
    files.next().filter(|_| files.next().is_none())
}

/// The SHA-256 of the weights in a snapshot, where the name of what they link to says it.
pub(super) fn linked_sha256(snapshot: &Path) -> Option<String> {
    let weights = WEIGHTS.iter().map(|file| snapshot.join(file)).find(|file| file.is_file())?;
    let blob = std::fs::read_link(weights).ok()?;
    blob.file_name()?.to_str().filter(|name| record::is_sha256(name)).map(str::to_owned)
}

/// `name`, if it can name a file in a folder and nothing outside of it.
pub(super) fn file_name(name: &str) -> Option<&str> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    Some(name).filter(|name| plain && !name.is_empty() && !name.starts_with('.') && name.len() <= 200)
}

/// Puts `blob` into a snapshot as `pointer`: a relative symlink, or the file itself where the system
/// has no symlinks for us, as the Hub's other clients do. Whoever looks at the same time sees a whole
/// file or none, and two that do it at the same time both succeed.
pub(super) fn link(blob: &Path, pointer: &Path) -> io::Result<()> {
    let folder = pointer.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    #[cfg(unix)]
    {
        let target = Path::new("../../blobs").join(blob.file_name().unwrap_or_default());
        let made = |path: &Path| std::os::unix::fs::symlink(&target, path);
        let link = tempfile::Builder::new().prefix(".link").make_in(folder, made)?;
        Ok(link.into_temp_path().persist(pointer)?)
    }
    #[cfg(not(unix))]
    match std::fs::rename(blob, pointer) {
        Err(_) if pointer.is_file() => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Env {
        Env::from_vars(vars.iter().copied())
    }

    #[test]
    fn caches_are_where_the_variables_say() {
        for (vars, hub, own) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub", "/h/.cache/nat-infer"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub", "/x/nat-infer"),
            (&[("HOME", "/h"), ("HF_HOME", "/f")], "/f/hub", "/h/.cache/nat-infer"),
            (&[("HOME", "/h"), ("HF_HOME", "")], "/h/.cache/huggingface/hub", "/h/.cache/nat-infer"),
            (
                &[("HOME", "/h"), ("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/old"), (OWN_CACHE, "/own")],
                "/old",
                "/own",
            ),
            (
                &[("HF_HUB_CACHE", "/new"), ("HUGGINGFACE_HUB_CACHE", "/old"), (OWN_CACHE, "/own")],
                "/new",
                "/own",
            ),
        ] {
            let env = env(vars);
            assert_eq!(env.hub_cache().unwrap(), Path::new(hub), "{vars:?}");
            assert_eq!(env.own_cache().unwrap(), Path::new(own), "{vars:?}");
        }
        assert!(env(&[]).hub_cache().is_none() && env(&[]).own_cache().is_none());
    }

    #[test]
    fn paths_are_expanded_as_by_the_hubs_own_client() {
        for (value, path) in [
            ("~/hf", "/h/hf"),
            ("~", "/h"),
            ("~other/hf", "~other/hf"),
            ("/a/~/b", "/a/~/b"),
            ("$HOME/hf", "/h/hf"),
            ("${HOME}x/hf", "/hx/hf"),
            ("$HOMEx/hf", "$HOMEx/hf"),
            ("/$A$B/${NOPE}/$", "/1two/${NOPE}/$"),
            ("/${A", "/${A"),
            ("/x/$1/${}/$-", "/x/$1/${}/$-"),
        ] {
            for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
                let env = env(&[("HOME", "/h"), ("A", "1"), ("B", "two"), (name, value)]);
                assert_eq!(env.hub_cache().unwrap(), Path::new(path), "{value}");
            }
            let env = env(&[("HOME", "/h"), ("A", "1"), ("B", "two"), (OWN_CACHE, value)]);
            assert_eq!(env.own_cache().unwrap(), Path::new(path), "{value}");
        }
        for (name, hub) in [
            ("HF_HOME", "/h/x/hub"),
            ("XDG_CACHE_HOME", "/h/x/huggingface/hub"),
            (OWN_CACHE, "/h/.cache/huggingface/hub"),
        ] {
            assert_eq!(env(&[("HOME", "/h"), (name, "~/x")]).hub_cache().unwrap(), Path::new(hub), "{name}");
        }
        assert_eq!(env(&[(OWN_CACHE, "~/x")]).own_cache().unwrap(), Path::new("~/x"));
    }

    #[cfg(unix)]
    #[test]
    fn a_home_need_not_be_text() {
        use std::os::unix::ffi::OsStrExt;
        let home = std::ffi::OsStr::from_bytes(b"/h\xff");
        let env = Env::from_vars([("HOME", home), ("HF_HOME", "~/x".as_ref())]);
        assert_eq!(env.hub_cache().unwrap(), Path::new(home).join("x/hub"));
    }

    #[test]
    fn variables_are_true_as_for_other_hub_clients() {
        for (value, offline) in [
            ("1", true),
            ("on", true),
            ("YES", true),
            ("True", true),
            ("0", false),
            ("", false),
            ("2", false),
        ] {
            assert_eq!(env(&[("HF_HUB_OFFLINE", value)]).offline().is_some(), offline, "{value}");
        }
        assert_eq!(env(&[("TRANSFORMERS_OFFLINE", "1")]).offline(), Some("TRANSFORMERS_OFFLINE"));
        assert!(env(&[("HF_HUB_DISABLE_PROGRESS_BARS", "1")]).hides_progress());
    }

    #[test]
    fn the_token_is_the_first_that_is_set() {
        let home = tempfile::tempdir().unwrap();
        let other = home.path().join("other");
        std::fs::write(home.path().join("token"), "of-home\n").unwrap();
        std::fs::write(&other, " of-file ").unwrap();
        let (home, other) = (home.path().to_str().unwrap(), other.to_str().unwrap());
        for (vars, token) in [
            (&[][..], None),
            (&[("HF_HOME", home)], Some("of-home")),
            (&[("HF_HOME", home), ("HF_TOKEN_PATH", other)], Some("of-file")),
            (&[("HF_HOME", home), ("HF_TOKEN_PATH", other), ("HF_TOKEN", "of-env")], Some("of-env")),
            (&[("HOME", home), ("HF_TOKEN_PATH", "~/other")], Some("of-file")),
            (&[("HF_HOME", home), ("HF_TOKEN", "x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], None),
        ] {
            assert_eq!(env(vars).token().as_deref(), token, "{vars:?}");
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

    #[test]
    fn the_file_of_ours_is_taken_without_doubt_only() {
        for (names, file) in [
            (&["README.md", "net.safetensors"][..], Some("net.safetensors")),
            (&["a.safetensors", "model.safetensors"], Some("model.safetensors")),
            (&["a.safetensors", "b.safetensors"], None),
            (&["x/a.safetensors", ".safetensors", "a.pth"], None),
        ] {
            assert_eq!(converted(names), file, "{names:?}");
        }
    }
}
