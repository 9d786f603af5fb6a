//! `--save DIR`: files an image.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::exit::OrFailed;
use super::inputs::Input;

/// A folder for files that are called as their images.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Plans a file of each of `extensions` for each of `inputs`; nothing is made yet.
    ///
    /// # Errors
    /// When two files would have one name, or a file would replace an image.
    pub fn new(path: &Path, extensions: &[&str], inputs: &[Input]) -> Result<Self> {
        let folder = Self { path: path.to_owned() };
        let mut taken = HashMap::new();
        let images: HashMap<_, _> = inputs
            .iter()
            .filter_map(|input| match input {
                Input::File(path) => Some((path.canonicalize().ok()?, input)),
                Input::Stdin => None,
            })
            .collect();
        let files =
            inputs.iter().flat_map(|input| extensions.iter().map(move |extension| (input, extension)));
        for (input, extension) in files {
            let file = folder.file(input, extension);
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

    /// Where the file of an image with this extension goes.
    pub fn file(&self, input: &Input, extension: &str) -> PathBuf {
        let mut name = input.stem().to_owned();
        name.push(".");
        name.push(extension);
        self.path.join(name)
    }
}
