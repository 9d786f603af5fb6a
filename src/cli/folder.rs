//! `--save DIR`: a file an image.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::exit::OrFailed;
use super::inputs::Input;

/// A folder for files that are called as their images.
pub struct Folder {
    path: PathBuf,
    extension: &'static str,
}

impl Folder {
    /// Plans a file of `extension` for each of `inputs`; nothing is made yet.
    ///
    /// # Errors
    /// When two files would have one name, or a file would replace an image.
    pub fn new(path: &Path, extension: &'static str, inputs: &[Input]) -> Result<Self> {
        let folder = Self { path: path.to_owned(), extension };
        let mut taken = HashMap::new();
        let images: HashMap<_, _> = inputs
            .iter()
            .filter_map(|input| match input {
                Input::File(path) => Some((path.canonicalize().ok()?, input)),
                Input::Stdin => None,
            })
            .collect();
        for input in inputs {
            let file = folder.file(input);
            if let Some(image) = file.canonicalize().ok().and_then(|file| images.get(&file)) {
                bail!("{} would be replaced by its result; use another --save folder", image.name());
            }
            if let Some(first) = taken.insert(file.clone(), input) {
                let (first, second, file) = (first.name(), input.name(), file.display());
                bail!("{first} and {second} would both be saved as {file}; use two --save folders");
            }
        }
        Ok(folder)
    }

    /// Makes the folder if need be.
    ///
    /// # Errors
    /// When that can't be.
    pub fn make(&self) -> Result<()> {
        std::fs::create_dir_all(&self.path)
            .with_context(|| format!("--save {}: no such folder can be made", self.path.display()))
            .or_failed()
    }

    /// Where the file of an image goes.
    pub fn file(&self, input: &Input) -> PathBuf {
        let mut name = input.stem().to_owned();
        name.push(".");
        name.push(self.extension);
        self.path.join(name)
    }
}
