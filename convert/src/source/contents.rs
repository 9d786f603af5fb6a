//! What the reader of a container finds out.

use std::collections::BTreeMap;
use std::ops::Range;

use super::value::Value;

/// The container a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Container {
    TorchZip,
    TorchLegacy,
    Safetensors,
}

/// What a container's reader finds out: everything but the tensors' elements.
pub(super) struct Contents {
    pub container: Container,
    pub root: Value,
    /// Where each storage lies.
    pub storages: Vec<StorageSpan>,
    pub metadata: BTreeMap<String, String>,
}

/// The bytes that a storage takes.
#[derive(Clone, Debug, Default)]
pub(super) struct StorageSpan {
    /// Number of the file among the checkpoint's.
    pub file: usize,
    /// Its bytes in the file.
    pub stored: Range<u64>,
    /// Its length once it is unpacked, where it is deflated.
    pub unpacked: Option<u64>,
    pub big_endian: bool,
}

impl StorageSpan {
    /// Bytes as they lie in the only file, least significant first.
    pub fn plain(stored: Range<u64>) -> Self {
        Self { stored, ..Self::default() }
    }

    /// Bytes that tensors are laid over.
    pub fn len(&self) -> u64 {
        self.unpacked.unwrap_or(self.stored.end - self.stored.start)
    }
}
