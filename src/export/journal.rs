//! A dataset in one file, while it grows: a line for each image in `FILE.partial`, of which the file is made at the end.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ExportError;
use crate::pipeline::name_of;
use crate::pipeline::partial::{Partial, partial_path};
use crate::tasks::files::NewFile;

/// What a dataset's file has of an image.
pub(super) trait Entry: Serialize + DeserializeOwned {
    /// The image's file: of two entries with the same one the last counts.
    fn key(&self) -> &str;
}

/// The lines of a dataset that grows. Of an image that has several the last one counts: it was done again.
pub(super) struct Journal<E> {
    target: PathBuf,
    file: Partial,
    entry: PhantomData<E>,
}

impl<E: Entry> Journal<E> {
    /// Begins anew.
    ///
    /// # Errors
    /// When the file can't be made, or another process is writing it.
    pub(super) fn begin(target: &Path) -> Result<Self, ExportError> {
        let file = Partial::begin(target, "").map_err(ExportError::write(&partial_path(target)))?;
        Ok(Self { target: target.to_owned(), file, entry: PhantomData })
    }

    /// Goes on with what an earlier run left: its lines, or where it ended the file that it made, which `entries` reads.
    ///
    /// # Errors
    /// When that can't be read or is none of ours, or another process is writing it.
    pub(super) fn resume(
        target: &Path,
        entries: impl FnOnce(File) -> Option<Vec<E>>,
    ) -> Result<Self, ExportError> {
        let partial = partial_path(target);
        let mut file = Partial::claim(target, "").map_err(ExportError::write(&partial))?;
        if file.length() > 0 {
            // A line that was cut is of an image that is done again.
            let (mut whole, mut line) = (0, Vec::new());
            let mut lines = BufReader::new(File::open(&partial).map_err(ExportError::read(&partial))?);
            while lines.read_until(b'\n', &mut line).map_err(ExportError::read(&partial))? > 0 {
                if line.last() == Some(&b'\n') {
                    serde_json::from_slice::<E>(&line)
                        .map_err(|_| ExportError::Foreign { file: name_of(&partial) })?;
                    whole += line.len() as u64;
                }
                line.clear();
            }
            file.cut(whole).map_err(ExportError::write(&partial))?;
        } else if target.exists() {
            let read = File::open(target).map_err(ExportError::read(target))?;
            let entries = entries(read).ok_or_else(|| ExportError::Foreign { file: name_of(target) })?;
            let lines: String = entries.iter().map(|entry| line(entry)).collect();
            file.append(lines).map_err(ExportError::write(&partial))?;
        }
        Ok(Self { target: target.to_owned(), file, entry: PhantomData })
    }

    /// The file that is made of it.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Where the lines are.
    pub(super) fn path(&self) -> PathBuf {
        partial_path(&self.target)
    }

    /// Adds an image.
    ///
    /// # Errors
    /// When it can't be written; what was added before is there.
    pub(super) fn add(&mut self, entry: &E) -> std::io::Result<()> {
        self.file.append(line(entry))
    }

    /// The keys of its images.
    ///
    /// # Errors
    /// When they can't be read.
    pub(super) fn keys(&self) -> Result<HashSet<String>, ExportError> {
        let mut keys = HashSet::new();
        self.lines(|_, entry| {
            keys.insert(entry.key().to_owned());
            Ok(())
        })?;
        Ok(keys)
    }

    /// Tells each image, in the order in which they were done.
    ///
    /// # Errors
    /// When the lines can't be read, or those of `tell`.
    pub(super) fn each(&self, mut tell: impl FnMut(E) -> std::io::Result<()>) -> Result<(), ExportError> {
        let mut last = HashMap::new();
        self.lines(|number, entry| {
            last.insert(entry.key().to_owned(), number);
            Ok(())
        })?;
        self.lines(|number, entry| if last.get(entry.key()) == Some(&number) { tell(entry) } else { Ok(()) })
    }

    fn lines(&self, mut tell: impl FnMut(usize, E) -> std::io::Result<()>) -> Result<(), ExportError> {
        let path = self.path();
        let file = BufReader::new(File::open(&path).map_err(ExportError::read(&path))?);
        for (number, line) in file.lines().enumerate() {
            let line = line.map_err(ExportError::read(&path))?;
            let read =
                serde_json::from_str(&line).map_err(|_| ExportError::Foreign { file: name_of(&path) })?;
            tell(number, read).map_err(ExportError::write(&self.target))?;
        }
        Ok(())
    }

    /// Puts the file in place that `write` writes, and ends the lines.
    ///
    /// # Errors
    /// When it can't be written: then the lines stay.
    pub(super) fn finish(
        self,
        write: impl FnOnce(&Self, &mut NewFile) -> Result<(), ExportError>,
    ) -> Result<PathBuf, ExportError> {
        let mut file = NewFile::create(&self.target).map_err(ExportError::write(&self.target))?;
        write(&self, &mut file)?;
        file.flush().and_then(|()| file.keep()).map_err(ExportError::write(&self.target))?;
        self.file.discard();
        Ok(self.target)
    }

    /// Leaves nothing, of a dataset without an image.
    pub(super) fn discard(self) {
        self.file.discard();
    }
}

fn line<E: Entry>(entry: &E) -> String {
    // Of texts and numbers there is always a line.
    serde_json::to_string(entry).unwrap_or_default() + "\n"
}
