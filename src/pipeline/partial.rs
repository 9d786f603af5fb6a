//! A file of results that is never lost: it grows as `PATH.partial` and becomes `PATH` when the run ends.
//!
//! What is appended is in the file at once, whole or not at all, so that a run that is killed, or finds the disk full,
//! leaves everything that it finished. What was at `PATH` before is there until then.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A file of results that grows.
#[derive(Debug)]
pub struct Partial {
    file: File,
    form: Staging,
    /// Length of what was appended, without the closing.
    length: u64,
    /// What follows the last append, so that the file is well formed at any time, such as the end of a JSON array.
    closing: &'static str,
}

#[derive(Debug)]
enum Staging {
    Staged {
        partial: PathBuf,
        target: PathBuf,
    },
    /// A pipe or a device, which is written as it is.
    Direct,
}

/// `PATH.partial`, beside the file that a link leads to.
pub fn partial_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(target(path));
    name.push(".partial");
    name.into()
}

/// The file that `path` means: through links, so that they stay links, also one to a file that is not there yet.
fn target(path: &Path) -> PathBuf {
    let ahead = |link: PathBuf| path.parent().unwrap_or(Path::new("")).join(link);
    path.canonicalize().or_else(|_| path.read_link().map(ahead)).unwrap_or_else(|_| path.to_owned())
}

impl Partial {
    /// Begins the file of results for `path`, which ends with `closing` whenever it is looked at. What an earlier run
    /// left is gone.
    ///
    /// # Errors
    /// As [`Partial::claim`].
    pub fn begin(path: &Path, closing: &'static str) -> io::Result<Self> {
        let mut partial = Self::claim(path, closing)?;
        partial.cut(0)?;
        Ok(partial)
    }

    /// Takes the file of results for `path` as an earlier run left it, or makes it, and keeps every other process from
    /// writing it. An empty one goes when it is dropped.
    ///
    /// # Errors
    /// When the file can't be made, `path` is a folder, or another process has it ([`io::ErrorKind::WouldBlock`]).
    pub fn claim(path: &Path, closing: &'static str) -> io::Result<Self> {
        let target = target(path);
        match fs::metadata(&target) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(&target)?;
                return Ok(Self { file, form: Staging::Direct, length: 0, closing });
            }
            _ => {}
        }
        let partial = partial_path(path);
        let file = File::options().create(true).truncate(false).write(true).open(&partial)?;
        // Where a file system has no locks nobody else has one. Whoever had this one may have moved the file since.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || !is_at(&file, &partial) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = file.metadata()?.len();
        Ok(Self { file, form: Staging::Staged { partial, target }, length, closing })
    }

    /// Leaves the first `length` bytes; the next append follows them.
    ///
    /// # Errors
    /// When the file can't be cut.
    pub fn cut(&mut self, length: u64) -> io::Result<()> {
        if let Staging::Direct = self.form {
            return Ok(());
        }
        self.file.set_len(length)?;
        self.length = length;
        self.put(self.closing.as_bytes())
    }

    /// Makes it a copy of a file.
    ///
    /// # Errors
    /// When that can't be read, or this one not be written.
    pub fn copy(&mut self, path: &Path) -> io::Result<()> {
        self.cut(0)?;
        self.length = io::copy(&mut File::open(path)?, &mut self.file)?;
        Ok(())
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends text or bytes, whole or not at all.
    ///
    /// # Errors
    /// When they can't be written, as on a full disk. What was appended before is there.
    pub fn append(&mut self, content: impl AsRef<[u8]>) -> io::Result<()> {
        let content = content.as_ref();
        if let Staging::Direct = self.form {
            return self.file.write_all(content);
        }
        let all = [content, self.closing.as_bytes()].concat();
        self.put(&all).inspect_err(|_| {
            // Nothing more can be done where this fails too.
            let _ = self.file.set_len(self.length).and_then(|()| self.put(self.closing.as_bytes()));
        })?;
        self.length += content.len() as u64;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(bytes)
    }

    /// Writes `bytes` over those that the file begins with.
    ///
    /// # Errors
    /// When that fails, or it has not as many bytes.
    pub fn rewrite_start(&mut self, bytes: &[u8]) -> io::Result<()> {
        if matches!(self.form, Staging::Direct) || self.length < bytes.len() as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(bytes)
    }

    /// Waits until what was appended would be there after a power cut too.
    ///
    /// # Errors
    /// When the system could not write it after all.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// When it can't be moved; it is then where [`Partial::path`] says.
    pub fn finish(mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.form, Staging::Direct) {
            Staging::Direct => self.file.write_all(self.closing.as_bytes()),
            Staging::Staged { partial, target } => {
                // What the system says after this line is true after a power cut too.
                self.file.sync_all()?;
                fs::rename(partial, target)
            }
        }
    }

    /// Takes the file away, and what was appended with it.
    pub fn discard(mut self) {
        self.length = 0;
    }

    /// Where the results are until they are finished; `None` of a pipe or a device.
    pub fn path(&self) -> Option<&Path> {
        match &self.form {
            Staging::Staged { partial, .. } => Some(partial),
            Staging::Direct => None,
        }
    }
}

impl Drop for Partial {
    /// What has nothing in it is no use to anybody.
    fn drop(&mut self) {
        if let (Staging::Staged { partial, .. }, 0) = (&self.form, self.length) {
            // An empty file that stays is no harm.
            let _ = fs::remove_file(partial);
        }
    }
}

/// Whether `file` is what lies at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |found: &fs::Metadata| (found.dev(), found.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if identity(&a) == identity(&b))
}

/// A file that is open can't be moved here.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_there_at_any_time_and_in_place_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.json");
        let partial = folder.path().join("out.json.partial");
        fs::write(&path, "earlier").unwrap();
        let mut file = Partial::begin(&path, "]\n").unwrap();
        for (text, whole) in [("[1", "[1]\n"), (",\n22", "[1,\n22]\n"), (",\n3", "[1,\n22,\n3]\n")] {
            file.append(text).unwrap();
            assert_eq!(fs::read_to_string(&partial).unwrap(), whole);
            assert_eq!(fs::read_to_string(&path).unwrap(), "earlier");
        }
        assert_eq!(file.path(), Some(&*partial));
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[1,\n22,\n3]\n");
        assert!(!partial.exists());
    }

    #[test]
    fn a_partial_file_goes_on_where_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(partial_path(&path), "one\ntwo\nthr").unwrap();
        let mut file = Partial::claim(&path, "").unwrap();
        assert_eq!(file.length(), 11);
        // Two processes never write one file, and who comes second changes nothing.
        for _ in 0..2 {
            assert_eq!(Partial::begin(&path, "").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        assert_eq!(fs::read_to_string(partial_path(&path)).unwrap(), "one\ntwo\nthr");
        file.cut(8).unwrap();
        file.append("three\n").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");

        let mut file = Partial::claim(&path, "").unwrap();
        file.copy(&path).unwrap();
        file.append("four\n").unwrap();
        assert_eq!(fs::read_to_string(partial_path(&path)).unwrap(), "one\ntwo\nthree\nfour\n");
        file.discard();
        assert!(!partial_path(&path).exists() && path.exists());
        // What was only claimed leaves nothing, and what was there.
        drop(Partial::claim(&path, "").unwrap());
        assert!(!partial_path(&path).exists());
        fs::write(partial_path(&path), "one\n").unwrap();
        drop(Partial::claim(&path, "").unwrap());
        assert_eq!(fs::read_to_string(partial_path(&path)).unwrap(), "one\n");
        assert!(Partial::begin(folder.path(), "").is_err());
    }

    #[test]
    fn the_beginning_can_be_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut file = Partial::begin(&path, "").unwrap();
        file.append([0, 0, 7]).unwrap();
        file.rewrite_start(&[1, 2]).unwrap();
        file.append([8]).unwrap();
        assert!(file.rewrite_start(&[0; 5]).is_err());
        file.sync().unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), [1, 2, 7, 8]);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_what_they_are() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("out"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = Partial::begin(&link, "").unwrap();
        file.append("new").unwrap();
        file.finish().unwrap();
        assert!(link.is_symlink() && fs::read(&path).unwrap() == b"new");
        // Also where the link leads to nothing yet.
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("out", folder.path().join("near")).unwrap();
        let mut file = Partial::begin(&folder.path().join("near"), "").unwrap();
        file.append("new").unwrap();
        file.finish().unwrap();
        assert!(folder.path().join("near").is_symlink() && fs::read(&path).unwrap() == b"new");
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));

        let mut file = Partial::begin(Path::new("/dev/null"), "]").unwrap();
        assert_eq!(file.path(), None);
        file.append("x").unwrap();
        file.finish().unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        // What a full disk refuses leaves what was there.
        #[cfg(target_os = "linux")]
        {
            let mut full = Partial::begin(Path::new("/dev/full"), "").unwrap();
            assert_eq!(full.append("x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }
}
