//! A checkpoint's container, wherever it is: a file, a folder of Transformers, the parts that one was split into,
//! or bytes in memory.

use std::path::{Path, PathBuf};

use crate::error::ConvertError;
use crate::source::{StoreError, TensorStore};

/// An opened container.
pub(crate) struct OpenedSource {
    /// What messages call it: the file with the weights or the index of several, or the name of bytes.
    pub name: PathBuf,
    pub store: TensorStore,
}

impl OpenedSource {
    /// Opens a file of any container, or what a folder has of weights.
    pub fn open(path: &Path) -> Result<Self, ConvertError> {
        let name = if path.is_dir() { weights_in(path)? } else { path.to_owned() };
        let store =
            if is_index(&name) { TensorStore::open_sharded(&name)? } else { TensorStore::open(&name)? };
        Ok(Self { name, store })
    }

    /// Opens a container that is in memory.
    pub fn from_bytes(
        name: &str,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        Ok(Self { name: name.into(), store: TensorStore::from_bytes(name, bytes)? })
    }

    /// The file that was opened; none of bytes.
    pub fn path(&self) -> Option<&Path> {
        self.store.bytes().is_none().then_some(self.name.as_path())
    }
}

/// The file with the weights in a folder of Transformers, or the index of those that have them.
fn weights_in(folder: &Path) -> Result<PathBuf, ConvertError> {
    const NAMES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
    let names = || NAMES.into_iter().flat_map(|name| [name.to_owned(), format!("{name}{INDEX}")]);
    let found = names().map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let reason = format!("a folder without {}; name the checkpoint file", NAMES.join(" or "));
        ConvertError::NoStateDict { path: folder.to_owned(), reason, keys: Vec::new() }
    })
}

/// What the name of an index of several files ends with.
const INDEX: &str = ".index.json";

fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(INDEX))
}
