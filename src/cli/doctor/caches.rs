//! The folders where files of models are kept.

use std::path::Path;

use nat_infer::results::CacheFolder;
use nat_infer::zoo::Env;

use super::variables;

/// The Hub's and the program's own.
pub fn folders(env: &Env) -> Vec<CacheFolder> {
    let folders = [("hub", env.hub_cache()), ("nat-infer", env.own_cache())];
    folders.into_iter().map(|(name, path)| folder(name, path.as_deref())).collect()
}

fn folder(name: &str, path: Option<&Path>) -> CacheFolder {
    // Where it is not there it will be made, in the nearest folder that is.
    let there = path.and_then(|path| path.ancestors().find(|path| path.exists()));
    CacheFolder {
        name: name.to_owned(),
        path: path.map(|path| variables::without_secrets(&path.display().to_string())),
        exists: path.is_some_and(Path::is_dir),
        writable: there.is_some_and(|path| path.is_dir() && is_writable(path)),
        free: there.and_then(free),
    }
}

#[cfg(unix)]
fn is_writable(folder: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
fn is_writable(folder: &Path) -> bool {
    folder.metadata().is_ok_and(|data| !data.permissions().readonly())
}

/// Bytes that are left to this user.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_looked_at_and_not_made() {
        let place = tempfile::tempdir().unwrap();
        let (below, file) = (place.path().join("a/b"), place.path().join("file"));
        std::fs::write(&file, "").unwrap();
        let found = folder("hub", Some(place.path()));
        assert!(found.exists && found.writable && (cfg!(not(unix)) || found.free.is_some()), "{found:?}");
        let found = folder("hub", Some(&below));
        assert!(!found.exists && found.writable && !below.exists(), "{found:?}");
        let found = folder("hub", Some(&file));
        assert!(!found.exists && !found.writable, "{found:?}");
        let found = folder("hub", None);
        assert!(
            found.path.is_none() && !found.exists && !found.writable && found.free.is_none(),
            "{found:?}"
        );
    }
}
