//! The SHA-256 of a checkpoint: so that two of one name can be told apart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use sha2::{Digest, Sha256};

use crate::digest::{digest_while, hex};
use crate::weights::LoadError;

/// The SHA-256 of a checkpoint's files, which is computed beside other work. Dropped before it is asked for, it
/// ends early.
pub(super) struct Fingerprint {
    paths: Vec<PathBuf>,
    thread: Option<JoinHandle<Result<String, LoadError>>>,
    stop: Arc<AtomicBool>,
}

impl Fingerprint {
    /// Begins to read the files.
    pub(super) fn of<'a>(paths: impl Iterator<Item = &'a Path>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let paths: Vec<_> = paths.map(Path::to_owned).collect();
        let (files, stopped) = (paths.clone(), Arc::clone(&stop));
        let thread = thread::Builder::new().name("fingerprint".to_owned());
        // Without another thread it is computed when it is asked for.
        let thread = thread.spawn(move || hash(&files, &stopped)).ok();
        Self { paths, thread, stop }
    }

    /// The hash in small hexadecimal digits: that of the only file, or that of the hashes of several one after the other.
    ///
    /// # Errors
    /// When a file can't be read.
    pub(super) fn whole(mut self) -> Result<String, LoadError> {
        match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(|_| {
                let path = self.paths.first().map(|path| path.display().to_string()).unwrap_or_default();
                Err(LoadError::File { path, why: "it could not be hashed".to_owned() })
            }),
            None => hash(&self.paths, &self.stop),
        }
    }
}

impl Drop for Fingerprint {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The hash of the only file, or that of the hashes of several.
fn hash(paths: &[PathBuf], stop: &AtomicBool) -> Result<String, LoadError> {
    let digest = |path: &PathBuf| {
        digest_while(path, || !stop.load(Ordering::Relaxed))
            .map_err(|error| LoadError::File { path: path.display().to_string(), why: error.to_string() })
    };
    let hashes = paths.iter().map(digest).collect::<Result<Vec<_>, _>>()?;
    Ok(match hashes.as_slice() {
        [hash] => hash.clone(),
        hashes => hex(&Sha256::digest(hashes.concat())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_bytes_have_other_fingerprints() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        // More than a buffer, of which the last byte counts too; hashes of sha256sum.
        for (bytes, hash) in
            [(b"abc".to_vec(), "ba7816bf"), (vec![0; (1 << 20) + 1], "2cb74edb"), (Vec::new(), "e3b0c442")]
        {
            std::fs::write(&path, &bytes).unwrap();
            let fingerprint = Fingerprint::of([path.as_path()].into_iter());
            let whole = fingerprint.whole().unwrap();
            assert!(whole.len() == 64 && whole.starts_with(hash), "{} bytes: {whole}", bytes.len());
        }
        // Of parts every one counts.
        let other = folder.path().join("b");
        let parts = |content: &str| {
            std::fs::write(&other, content).unwrap();
            Fingerprint::of([path.as_path(), other.as_path()].into_iter()).whole().unwrap()
        };
        assert_ne!(parts("x"), parts("y"));
        let none = folder.path().join("none");
        let error = Fingerprint::of([none.as_path()].into_iter()).whole().unwrap_err().to_string();
        assert!(error.contains("none: No such file"), "{error}");
    }
}
