//! A dataset in one file, while it grows: a line for each image in `FILE.partial`, of which the file is made at the end.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::ExportError;
use super::labelled::ExportClass;
use crate::pipeline::name_of;
use crate::pipeline::partial::{Partial, partial_path};
use crate::tasks::files::NewFile;

/// What a dataset's file has of an image.
pub(super) trait JournalEntry: Serialize + DeserializeOwned {
    /// The image's file: an image is in a dataset once.
    fn key(&self) -> &str;

    /// The images of a file that a run ended with, of a dataset of these classes.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where something in it is not of this program: it would be lost.
    fn of_file(file: File, classes: &[ExportClass]) -> io::Result<Vec<Self>>;
}

/// The first line, always of the same length: whether (1) the images of the file that is there stay, and those of the lines come
/// after them, or (0) nothing of it stays.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalHead {
    continues: u8,
}

/// The lines of a dataset that grows.
pub(super) struct Journal<E> {
    target: PathBuf,
    file: Partial,
    head: JournalHead,
    classes: Vec<ExportClass>,
    /// The images that it has.
    keys: HashSet<String>,
    entry: PhantomData<E>,
}

impl<E: JournalEntry> Journal<E> {
    /// Begins anew.
    ///
    /// # Errors
    /// When the file can't be made, or another process is writing it.
    pub(super) fn begin(target: &Path, classes: &[ExportClass]) -> Result<Self, ExportError> {
        let file = Partial::begin(target, "").map_err(ExportError::write(&partial_path(target)))?;
        let (target, head, classes) = (target.to_owned(), JournalHead { continues: 0 }, classes.to_vec());
        Self { target, file, head, classes, keys: HashSet::new(), entry: PhantomData }.headed()
    }

    /// Goes on with what an earlier run left: its lines, or where it ended the file that it made.
    ///
    /// # Errors
    /// When that can't be read or is none of ours, or another process is writing it.
    pub(super) fn resume(target: &Path, classes: &[ExportClass]) -> Result<Self, ExportError> {
        let partial = partial_path(target);
        let file = Partial::claim(target, "").map_err(ExportError::write(&partial))?;
        let head = JournalHead { continues: target.exists().into() };
        let (target, classes, keys) = (target.to_owned(), classes.to_vec(), HashSet::new());
        let mut journal = Self { target, file, head, classes, keys, entry: PhantomData };
        let is_newer = journal.target_is_newer();
        let mut whole = 0;
        if journal.file.length() > 0 {
            // A line that was cut is of an image that is done again.
            let mut lines = BufReader::new(File::open(&partial).map_err(ExportError::read(&partial))?);
            let mut text = Vec::new();
            while lines.read_until(b'\n', &mut text).map_err(ExportError::read(&partial))? > 0 {
                if text.last() == Some(&b'\n') {
                    let foreign = |_| ExportError::Foreign { file: name_of(&partial) };
                    match whole {
                        0 => journal.head = serde_json::from_slice(&text).map_err(foreign)?,
                        _ => {
                            let entry: E = serde_json::from_slice(&text).map_err(foreign)?;
                            journal.keys.insert(entry.key().to_owned());
                        }
                    }
                    whole += text.len() as u64;
                }
                text.clear();
            }
            journal.file.cut(whole).map_err(ExportError::write(&partial))?;
            // That run ended in the moment in which its file got its name, and what it has may have been corrected since.
            if whole > 0 && journal.head.continues == 0 && is_newer {
                journal.head.continues = 1;
                let head = line(&journal.head);
                journal.file.rewrite_start(head.as_bytes()).map_err(ExportError::write(&partial))?;
            }
        }
        let base = journal.base()?;
        journal.keys.extend(base.iter().map(|entry| entry.key().to_owned()));
        if whole == 0 { journal.headed() } else { Ok(journal) }
    }

    /// Whether the file was made after the last line.
    fn target_is_newer(&self) -> bool {
        let changed = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
        changed(&self.target).zip(changed(&self.path())).is_some_and(|(target, lines)| target >= lines)
    }

    fn headed(mut self) -> Result<Self, ExportError> {
        let head = line(&self.head);
        self.file.append(head).map_err(ExportError::write(&self.path()))?;
        Ok(self)
    }

    /// The images of the file that an earlier run ended with.
    fn base(&self) -> Result<Vec<E>, ExportError> {
        if self.head.continues == 0 {
            return Ok(Vec::new());
        }
        let read = File::open(&self.target).and_then(|file| E::of_file(file, &self.classes));
        read.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                ExportError::Foreign { file: name_of(&self.target) }
            }
            _ => ExportError::read(&self.target)(error),
        })
    }

    /// The file that is made of it.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Where the lines are.
    fn path(&self) -> PathBuf {
        partial_path(&self.target)
    }

    /// Whether it has an image.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    /// Adds an image, unless it is there already: what is there may have been corrected since.
    ///
    /// # Errors
    /// When it can't be written; what was added before is there.
    pub(super) fn add(&mut self, entry: &E) -> io::Result<()> {
        if self.has(entry.key()) {
            return Ok(());
        }
        self.file.append(line(entry))?;
        self.keys.insert(entry.key().to_owned());
        Ok(())
    }

    /// Tells each image, in the order in which they were done.
    ///
    /// # Errors
    /// When what is there can't be read, or those of `tell`.
    pub(super) fn each(&self, mut tell: impl FnMut(E) -> io::Result<()>) -> Result<(), ExportError> {
        let mut told = HashSet::new();
        let mut tell = |entry: E| match told.insert(entry.key().to_owned()) {
            true => tell(entry).map_err(ExportError::write(&self.target)),
            // A run that ended in the moment in which its file got its name left its lines as well.
            false => Ok(()),
        };
        self.base()?.into_iter().try_for_each(&mut tell)?;
        let path = self.path();
        let lines = BufReader::new(File::open(&path).map_err(ExportError::read(&path))?).lines();
        for line in lines.skip(1) {
            let line = line.map_err(ExportError::read(&path))?;
            let entry =
                serde_json::from_str(&line).map_err(|_| ExportError::Foreign { file: name_of(&path) })?;
            tell(entry)?;
        }
        Ok(())
    }

    /// Ends, and says where it all is, if there is an image: in the file that `write` writes, or where the run `goes_on` later, in
    /// the lines.
    ///
    /// # Errors
    /// When the file can't be written: then the lines stay.
    pub(super) fn end(
        self,
        goes_on: bool,
        write: impl FnOnce(&Self, &mut NewFile) -> Result<(), ExportError>,
    ) -> Result<Option<PathBuf>, ExportError> {
        let has_lines = self.file.length() > line(&self.head).len() as u64;
        if goes_on && has_lines {
            return Ok(Some(self.path()));
        }
        if has_lines {
            let failed = ExportError::write(&self.target);
            let mut file = NewFile::create(&self.target).map_err(&failed)?;
            write(&self, &mut file)?;
            file.flush().and_then(|()| file.keep()).map_err(&failed)?;
            // After a power cut too, one of the two is there.
            File::open(&self.target).and_then(|file| file.sync_all()).map_err(&failed)?;
        }
        let place = (!self.keys.is_empty()).then(|| self.target.clone());
        self.file.discard();
        Ok(place)
    }
}

fn line(content: &impl Serialize) -> String {
    // Of texts and numbers there is always a line.
    serde_json::to_string(content).unwrap_or_default() + "\n"
}
