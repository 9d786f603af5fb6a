//! Where files lie: the environment variables of the Hub's clients and ours, and what the caches
//! have. No network here.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use hf_hub::{Cache, CacheRepo, Repo};

/// The Hub, unless `HF_ENDPOINT` names a mirror.
pub const ENDPOINT: &str = "https://huggingface.co";

/// The variable that moves the cache of what is not on the Hub.
pub const OWN_CACHE: &str = "NAT_INFER_CACHE";

/// The file that makes a folder one of Transformers' layout.
pub(super) const CONFIG: &str = "config.json";

/// Files of weights in the order of preference.
pub(super) const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Environment variables, read once at the edge of the program. An empty variable counts as unset.
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
    /// folder (`XDG_CACHE_HOME` or `~/.cache`). A file lies there as `<model>/<file>`.
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
        self.0.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }
}

/// The place of a Hub repository in the cache at `folder`.
pub(super) fn repository(folder: &Path, repo: &str) -> CacheRepo {
    Cache::new(folder.to_owned()).repo(Repo::model(repo.to_owned()))
}

/// The snapshot of `repo` that the cache's `main` points to, if it has a configuration and weights.
pub(super) fn snapshot(folder: &Path, repo: &str) -> Option<PathBuf> {
    let snapshot = repository(folder, repo).get(CONFIG)?.parent()?.to_owned();
    WEIGHTS.iter().any(|file| snapshot.join(file).is_file()).then_some(snapshot)
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
            (&[("HF_HOME", home), ("HF_TOKEN", "x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], None),
        ] {
            assert_eq!(env(vars).token().as_deref(), token, "{vars:?}");
        }
    }
}
