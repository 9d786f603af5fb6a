//! Files as they come: containers opened, their contents as plain values, tensors still on disk.
//!
//! Nothing here knows a network. [`Source::open`] detects the container by its bytes, never by its
//! name, and gives a tree of [`Value`]s in which tensors are [`TensorRef`]s; [`Source::read`]
//! fetches one tensor's elements.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Element types that a checkpoint's tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

/// One object of a pickle, or of a safetensors header. Containers that the file shares are shared
/// here too.
#[derive(Clone, Debug)]
pub enum Value {
    /// Python's `None`.
    None,
    /// `True`, `False`.
    Bool(bool),
    /// Integers that fit; larger ones are [`Value::Opaque`].
    Int(i64),
    /// Floats.
    Float(f64),
    /// Text.
    Str(Rc<str>),
    /// Byte strings.
    Bytes(Rc<[u8]>),
    /// Lists, tuples and sets.
    List(Rc<Vec<Value>>),
    /// Dictionaries and `OrderedDict`s, in order.
    Dict(Rc<Vec<(Value, Value)>>),
    /// A tensor (parameters included).
    Tensor(Rc<TensorRef>),
    /// An instance of anything else: the global's name, with its state (e.g. `argparse.Namespace`'s attributes) where the file has one.
    Opaque {
        /// `module.name`.
        global: Rc<str>,
        /// What the file says about the instance.
        state: Option<Rc<Value>>,
    },
}

/// Where a tensor's elements lie in the file. Strides and offset are in elements.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct TensorRef {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
    pub offset: usize,
    pub storage: usize,
}

/// The container a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Container {
    TorchZip,
    TorchLegacy,
    Safetensors,
}

/// An opened checkpoint file.
pub struct Source {
    path: PathBuf,
    container: Container,
    root: Value,
    metadata: BTreeMap<String, String>,
}

/// Why a file could not be opened or read: one line that says what, where and which file.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
}

impl Source {
    /// Opens a checkpoint, whatever its name, and reads everything but the tensors' elements.
    ///
    /// # Errors
    /// When the file can't be read, is no checkpoint, or is damaged.
    pub fn open(path: &Path) -> Result<Source, SourceError> {
        let error = std::io::ErrorKind::Unsupported.into();
        Err(SourceError::Io { path: path.to_owned(), error })
    }

    /// What the file turned out to be.
    pub fn container(&self) -> Container {
        self.container
    }

    /// The object that was saved; of a safetensors file a `Dict` of name to tensor, in the order of
    /// the data.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// The `__metadata__` of a safetensors file; empty for the other containers.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Replaces `out` by a tensor's elements: contiguous, row-major, little-endian, in the stored
    /// dtype.
    ///
    /// # Errors
    /// When the file can't be read or has changed since it was opened.
    pub fn read(&self, _tensor: &TensorRef, out: &mut Vec<u8>) -> Result<(), SourceError> {
        out.clear();
        let error = std::io::ErrorKind::Unsupported.into();
        Err(SourceError::Io { path: self.path.clone(), error })
    }
}
