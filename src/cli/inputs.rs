//! From `INPUT...` to single images.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use glob::MatchOptions;
use walkdir::WalkDir;

/// Where one image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

impl Input {
    /// As records and messages call it.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "-".to_owned(),
        }
    }

    /// What files made of it are called.
    pub fn stem(&self) -> &OsStr {
        match self {
            Self::File(path) => path.file_stem().unwrap_or(path.as_os_str()),
            Self::Stdin => OsStr::new("stdin"),
        }
    }
}

/// Why an argument gives no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// There is neither a file nor a folder of that name.
    #[error("{0}: no such file or folder")]
    Missing(String),
    /// A folder without images.
    #[error("{0}: no image in this folder ({extensions}; folders in it are not searched)", extensions = EXTENSIONS.join(", "))]
    Empty(String),
    /// A folder or glob that can't be read.
    #[error("{name}: {reason}")]
    Unreadable {
        /// The argument.
        name: String,
        /// What the system said.
        reason: String,
    },
    /// A glob that no file matches.
    #[error("{0}: no file matches")]
    NoMatch(String),
    /// Standard input can be read once.
    #[error("-: standard input can be given once")]
    StdinTwice,
}

/// Names that are images in a folder; a file that is named itself may be called anything.
const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// Every image of `arguments` in their order, folders sorted by name; and the arguments that give
/// none. A file is not opened here.
pub fn expand(arguments: &[PathBuf]) -> (Vec<Input>, Vec<InputError>) {
    let (mut inputs, mut errors) = (Vec::new(), Vec::new());
    for argument in arguments {
        let expanded = match argument {
            path if path == Path::new("-") && inputs.contains(&Input::Stdin) => Err(InputError::StdinTwice),
            path if path == Path::new("-") => Ok(vec![Input::Stdin]),
            path if path.is_dir() => folder(path),
            path if path.exists() => Ok(vec![Input::File(path.clone())]),
            path => matches(path),
        };
        match expanded {
            Ok(expanded) => inputs.extend(expanded),
            Err(error) => errors.push(error),
        }
    }
    (inputs, errors)
}

fn folder(path: &Path) -> Result<Vec<Input>, InputError> {
    let name = || path.display().to_string();
    let is_image = |path: &Path| {
        let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
        extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
    };
    // Hidden files are not images: macOS leaves `._photo.jpg` beside photo.jpg.
    let hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
    let mut images = Vec::new();
    for entry in WalkDir::new(path).min_depth(1).max_depth(1).sort_by_file_name() {
        let entry = entry.map_err(|e| InputError::Unreadable { name: name(), reason: e.to_string() })?;
        if is_image(entry.path()) && !hidden(entry.file_name()) && entry.path().is_file() {
            images.push(Input::File(entry.into_path()));
        }
    }
    if images.is_empty() { Err(InputError::Empty(name())) } else { Ok(images) }
}

/// Files that match a glob. Shells do it too, where there is one.
fn matches(path: &Path) -> Result<Vec<Input>, InputError> {
    let name = path.display().to_string();
    let Some(pattern) = path.to_str().filter(|text| text.contains(['*', '?', '['])) else {
        return Err(InputError::Missing(name));
    };
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let paths = glob::glob_with(pattern, options)
        .map_err(|e| InputError::Unreadable { name: name.clone(), reason: e.to_string() })?;
    let files: Vec<_> = paths.flatten().filter(|path| path.is_file()).map(Input::File).collect();
    if files.is_empty() { Err(InputError::NoMatch(name)) } else { Ok(files) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_images_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["b.PNG", "a.jpg", "notes.txt", "._a.jpg", "x[1].png", "sub/deep.png", "empty/readme"] {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::fs::create_dir(root.join("folder.png")).unwrap();
        let path = |name: &str| root.join(name);
        let file = |name: &str| Input::File(path(name));
        for (arguments, inputs, errors) in [
            (vec![path("")], vec![file("a.jpg"), file("b.PNG"), file("x[1].png")], 0),
            (vec![path("notes.txt"), path("a.jpg")], vec![file("notes.txt"), file("a.jpg")], 0),
            (vec![path("*.jpg"), path("?.*")], vec![file("a.jpg"), file("a.jpg"), file("b.PNG")], 0),
            (vec![path("*")], vec![file("a.jpg"), file("b.PNG"), file("notes.txt"), file("x[1].png")], 0),
            (vec![path("x[1].png")], vec![file("x[1].png")], 0), // a file before it is a glob
            (vec!["-".into(), path("a.jpg"), "-".into()], vec![Input::Stdin, file("a.jpg")], 1),
            (vec![path("empty"), path("none.png"), path("*.tiff"), path("[")], vec![], 4),
        ] {
            let (found, failed) = expand(&arguments);
            assert_eq!(found, inputs, "{arguments:?}");
            assert_eq!(failed.len(), errors, "{arguments:?}: {failed:?}");
        }
        assert_eq!(file("a.b.jpg").stem(), "a.b");
    }
}
