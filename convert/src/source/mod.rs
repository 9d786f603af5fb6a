//! Files as they come: containers opened, their contents as plain values, tensors still on disk.
//!
//! Nothing here knows a network. [`Source::open`] detects the container by its bytes, never by its
//! name, and gives a tree of [`Value`]s in which tensors are [`TensorRef`]s; [`Source::read`]
//! fetches one tensor's elements.

use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Element types that a checkpoint's tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DType { F64, F32, F16, BF16, I64, I32, I16, I8, U8, Bool }

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
    Opaque { global: Rc<str>, state: Option<Rc<Value>> },
}

/// Where a tensor's elements lie in the file. Strides and offset are in elements.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct TensorRef { pub dtype: DType, pub shape: Vec<usize>, pub strides: Vec<usize>, pub offset: usize, pub storage: usize }

/// The container a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Container { TorchZip, TorchLegacy, Safetensors }

/// An opened checkpoint file.
pub struct Source { /* path, container, root, storages, metadata of a safetensors file, ... */ }

// The shape of the interface that the rest of the crate uses:
//
// impl Source {
//     pub fn open(path: &Path) -> Result<Source, SourceError>;
//     pub fn container(&self) -> Container;
//     pub fn root(&self) -> &Value;                       // safetensors: a Dict of name -> Tensor, in the file's order
//     pub fn metadata(&self) -> &BTreeMap<String,String>; // safetensors' __metadata__, else empty
//     pub fn read(&self, tensor: &TensorRef, out: &mut Vec<u8>) -> Result<(), SourceError>;
//         // replaces `out` by the elements, contiguous, row-major, little-endian, in the stored dtype
// }
