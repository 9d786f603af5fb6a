//! What is in a file, in eight letters: so that two checkpoints of one name can be told apart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::weights::LoadError;
use crate::zoo::record::digest_while;

/// Digits of the hash that a name has.
const SHOWN: usize = 8;

/// The SHA-256 of a file, which is computed beside other work. Dropped before it is asked for, it ends early.
pub(super) struct Fingerprint {
    path: PathBuf,
    thread: Option<JoinHandle<io::Result<String>>>,
    stop: Arc<AtomicBool>,
}

impl Fingerprint {
    /// Begins to read the file.
    pub(super) fn of(path: &Path) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (file, stopped) = (path.to_owned(), Arc::clone(&stop));
        let thread = thread::Builder::new().name("fingerprint".to_owned());
        // Without another thread it is computed when it is asked for.
        let thread = thread.spawn(move || hash(&file, &stopped)).ok();
        Self { path: path.to_owned(), thread, stop }
    }

    /// The first eight digits of the hash, in hexadecimal.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn beginning(mut self) -> Result<String, LoadError> {
        let hash = match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(|_| Err(io::Error::other("it could not be hashed"))),
            None => hash(&self.path, &self.stop),
        };
        hash.map_err(|error| LoadError::File {
            path: self.path.display().to_string(),
            why: error.to_string(),
        })
    }
}

impl Drop for Fingerprint {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn hash(path: &Path, stop: &AtomicBool) -> io::Result<String> {
    let mut hash = digest_while(path, || !stop.load(Ordering::Relaxed))?;
    hash.truncate(SHOWN);
    Ok(hash)
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
            assert_eq!(Fingerprint::of(&path).beginning().unwrap(), hash, "{} bytes", bytes.len());
        }
        let error = Fingerprint::of(&folder.path().join("none")).beginning().unwrap_err().to_string();
        assert!(error.contains("none: No such file"), "{error}");
    }
}
