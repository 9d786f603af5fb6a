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
    form: Form,
    /// Length of what was appended, without the closing.
    length: u64,
    /// What follows the last append, so that the file is well formed at any time, such as the end of a JSON array.
    closing: &'static str,
}

#[derive(Debug)]
enum Form {
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

/// The file that `path` means: through links, so that they stay links.
fn target(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

impl Partial {
    /// Begins the file of results for `path`, which ends with `closing` whenever it is looked at. With `kept` the
    /// first so many bytes of a partial file that is there already are kept, and appending goes on behind them.
    ///
    /// # Errors
    /// When the file can't be made, `path` is a folder, or another process is writing the same results
    /// ([`io::ErrorKind::WouldBlock`]).
    pub fn begin(path: &Path, closing: &'static str, kept: u64) -> io::Result<Self> {
        let target = target(path);
        match fs::metadata(&target) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(&target)?;
                return Ok(Self { file, form: Form::Direct, length: 0, closing });
            }
            _ => {}
        }
        let partial = partial_path(path);
        let file = File::options().create(true).truncate(false).write(true).open(&partial)?;
        // Where a file system has no locks nobody else has one.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut begun = Self { file, form: Form::Staged { partial, target }, length: kept, closing };
        begun.file.set_len(kept)?;
        begun.put(closing)?;
        Ok(begun)
    }

    /// Appends `text`, whole or not at all.
    ///
    /// # Errors
    /// When it can't be written, as on a full disk. What was appended before is there.
    pub fn append(&mut self, text: &str) -> io::Result<()> {
        if let Form::Direct = self.form {
            return self.file.write_all(text.as_bytes());
        }
        let all = text.to_owned() + self.closing;
        self.put(&all).inspect_err(|_| {
            // Nothing more can be done where this fails too.
            let _ = self.file.set_len(self.length).and_then(|()| self.put(self.closing));
        })?;
        self.length += text.len() as u64;
        Ok(())
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(text.as_bytes())
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// When it can't be moved; it is then where [`Partial::path`] says.
    pub fn finish(mut self) -> io::Result<()> {
        match &self.form {
            Form::Direct => self.file.write_all(self.closing.as_bytes()),
            Form::Staged { partial, target } => {
                // What the system says after this line is true after a power cut too.
                self.file.sync_all()?;
                fs::rename(partial, target)
            }
        }
    }

    /// Takes the file away, and what was appended with it.
    pub fn discard(self) {
        if let Form::Staged { partial, .. } = &self.form {
            // An empty file that stays is no harm.
            let _ = fs::remove_file(partial);
        }
    }

    /// Where the results are until they are finished; `None` of a pipe or a device.
    pub fn path(&self) -> Option<&Path> {
        match &self.form {
            Form::Staged { partial, .. } => Some(partial),
            Form::Direct => None,
        }
    }
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
        let mut file = Partial::begin(&path, "]\n", 0).unwrap();
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
        let mut file = Partial::begin(&path, "", 8).unwrap();
        // Two processes never write one file.
        let second = Partial::begin(&path, "", 8).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        file.append("three\n").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");

        fs::write(partial_path(&path), "one\n").unwrap();
        Partial::begin(&path, "", 0).unwrap().discard();
        assert!(!partial_path(&path).exists() && path.exists());
        assert!(Partial::begin(folder.path(), "", 0).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_what_they_are() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("out"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = Partial::begin(&link, "", 0).unwrap();
        file.append("new").unwrap();
        file.finish().unwrap();
        assert!(link.is_symlink() && fs::read(&path).unwrap() == b"new");
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));

        let mut file = Partial::begin(Path::new("/dev/null"), "]", 0).unwrap();
        assert_eq!(file.path(), None);
        file.append("x").unwrap();
        file.finish().unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        // What a full disk refuses leaves what was there.
        let mut full = Partial::begin(Path::new("/dev/full"), "", 0).unwrap();
        assert_eq!(full.append("x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
