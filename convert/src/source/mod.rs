//! Files as they come: containers opened, their contents as plain values, tensors still on disk.
//!
//! Nothing here knows a network. [`Source::open`] detects the container by its bytes, never by its
//! name, and gives a tree of [`Value`]s in which tensors are [`TensorRef`]s; [`Source::read`]
//! fetches one tensor's elements. Nothing that a file names is ever imported, called or run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

mod arena;
mod foreign;
mod legacy;
mod pickle;
mod rebuild;
mod safetensors;
mod shards;
#[cfg(test)]
mod tests;
mod zip;

/// Largest tensor, in bytes, that may be longer than its storage: a stride of 0 repeats elements,
/// and a file of 300 bytes must not ask for gigabytes of memory.
const MAX_EXPANDED_BYTES: usize = 256 << 20;

/// The most that compressed elements may grow by where that comes to more than [`MAX_EXPANDED_BYTES`]: of
/// trained weights little can be packed away.
const MAX_RATIO: u64 = 100;

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

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 | DType::I16 => 2,
            DType::I8 | DType::U8 | DType::Bool => 1,
        }
    }
}

/// One object of a pickle, or of a safetensors header. Containers that the file shares are shared
/// here too.
///
/// A tree of values is at most 512 levels deep and has at most 2^24 values with the shared ones
/// counted as often as they are met: walking it recursively is safe.
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
    /// Dictionaries and `OrderedDict`s, in order; no text of up to 512 bytes is a key twice.
    Dict(Rc<Vec<(Value, Value)>>),
    /// A tensor (parameters included).
    Tensor(Rc<TensorRef>),
    /// Anything else: the name of its class or of the function that would have made it, with its
    /// state (e.g. `argparse.Namespace`'s attributes, or the items of a subclass of `dict` or
    /// `list`) where the file has one. A tensor of an unsupported kind names what stands in the way.
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

impl TensorRef {
    /// Number of elements, and the distance in elements from the first one to the end of the last
    /// one in the storage; `None` when they overflow.
    fn extent(&self) -> Option<(usize, usize)> {
        let count = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        if count == 0 {
            return Some((0, 0));
        }
        let dims = self.shape.iter().zip(&self.strides);
        let last =
            dims.map(|(&d, &s)| (d - 1).checked_mul(s)).try_fold(0, |n: usize, x| n.checked_add(x?))?;
        Some((count, last.checked_add(1)?))
    }

    /// The number of elements and the bytes of a storage of `len` bytes that they lie in.
    ///
    /// # Errors
    /// What is wrong with the shape, when the elements are not all inside or are too many.
    fn locate(&self, len: u64) -> Result<(usize, Range<u64>), String> {
        let size = self.dtype.size();
        let wrong = |what: &str| {
            let Self { shape, strides, offset, .. } = self;
            format!("a tensor of shape {shape:?}, strides {strides:?} and offset {offset} {what}")
        };
        let (count, span) = self.extent().ok_or_else(|| wrong("overflows"))?;
        if count == 0 {
            return Ok((0, 0..0));
        }
        let bytes = count.checked_mul(size).ok_or_else(|| wrong("overflows"))?;
        let end = self.offset.checked_add(span).and_then(|end| end.checked_mul(size));
        let end = end.ok_or_else(|| wrong("overflows"))? as u64;
        if end > len {
            return Err(wrong(&format!("does not fit into its storage of {len} bytes")));
        }
        if bytes as u64 > len && bytes > MAX_EXPANDED_BYTES {
            return Err(wrong(&format!("repeats its storage of {len} bytes to {bytes} bytes")));
        }
        Ok((count, end - (span * size) as u64..end))
    }
}

/// The container a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Container {
    TorchZip,
    TorchLegacy,
    Safetensors,
}

/// Why a file could not be opened or read: one line that says which file, what, where in it, and
/// where possible what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct SourceError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The operating system refused.
    #[error("{0}")]
    Io(io::Error),
    /// The file is something else: what, and what to do.
    #[error("not a checkpoint but {0}")]
    NotACheckpoint(String),
    /// A part of the file contradicts itself or the file's length, or exceeds a limit.
    #[error("{place}: {what}")]
    Damaged {
        /// The entry of the archive and the byte in it.
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// A checkpoint, but written in a way that is not read here.
    #[error("{0}")]
    Unsupported(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Lengths are checked against the file's: it was cut since.
            io::ErrorKind::UnexpectedEof => Problem::Damaged {
                place: "file".into(),
                what: "it has become shorter while it was read: download or copy it again".into(),
            },
            // What the unpacker says of bytes that nobody packed.
            io::ErrorKind::InvalidData => Problem::Damaged {
                place: "file".into(),
                what: format!("what is compressed in it is damaged ({error}): download or copy it again"),
            },
            _ => Problem::Io(error),
        }
    }
}

/// What a container's reader finds out: everything but the tensors' elements.
struct Contents {
    container: Container,
    root: Value,
    /// Where each storage lies.
    storages: Vec<Place>,
    metadata: BTreeMap<String, String>,
}

/// The bytes that a storage takes.
#[derive(Clone, Debug, Default)]
struct Place {
    /// Number of the file among the checkpoint's.
    file: usize,
    /// Its bytes in the file.
    stored: Range<u64>,
    /// Its length once it is unpacked, where it is deflated.
    unpacked: Option<u64>,
    big_endian: bool,
}

impl Place {
    /// Bytes as they lie in the only file, least significant first.
    fn plain(stored: Range<u64>) -> Self {
        Self { stored, ..Self::default() }
    }

    /// Bytes that tensors are laid over.
    fn len(&self) -> u64 {
        self.unpacked.unwrap_or(self.stored.end - self.stored.start)
    }
}

/// An opened checkpoint: a file, or the files that one was split into.
pub struct Source {
    files: Vec<(PathBuf, File)>,
    contents: Contents,
}

impl Source {
    /// Opens a checkpoint, whatever its name, and reads everything but the tensors' elements.
    ///
    /// # Errors
    /// When the file can't be read, is no checkpoint, or is damaged.
    pub fn open(path: &Path) -> Result<Source, SourceError> {
        let open = || {
            let mut file = open_file(path)?;
            let contents = contents(&mut file)?;
            Ok(Source { files: vec![(path.to_owned(), file)], contents })
        };
        open().map_err(|problem| SourceError { path: path.to_owned(), problem })
    }

    /// Opens a checkpoint of several files by the index that Transformers writes beside them, as one
    /// `Dict` of name to tensor. A file that was split has no metadata.
    ///
    /// # Errors
    /// When the index or one of its files can't be read, a file lies elsewhere than beside the index, or a
    /// tensor is not where the index says.
    pub fn open_sharded(index: &Path) -> Result<Source, SourceError> {
        shards::open(index)
    }

    /// The files that the tensors are read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// What the file turned out to be.
    pub fn container(&self) -> Container {
        self.contents.container
    }

    /// The object that was saved; of a safetensors file a `Dict` of name to tensor, in the order of
    /// the data.
    pub fn root(&self) -> &Value {
        &self.contents.root
    }

    /// The `__metadata__` of a safetensors file; empty for the other containers.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.contents.metadata
    }

    /// Replaces `out` by a tensor's elements: contiguous, row-major, little-endian, in the stored
    /// dtype. A tensor that is not contiguous in the file takes the memory of the stretch of its
    /// storage that it lies in besides.
    ///
    /// # Errors
    /// When the file can't be read or has become shorter since it was opened, when there is not
    /// enough memory, or when `tensor` is not of this file.
    pub fn read(&self, tensor: &TensorRef, out: &mut Vec<u8>) -> Result<(), SourceError> {
        let place = self.contents.storages.get(tensor.storage);
        let file = place.map_or(0, |place| place.file);
        let path = || self.files.get(file).map(|(path, _)| path.clone()).unwrap_or_default();
        self.fetch(tensor, place, out).map_err(|problem| SourceError { path: path(), problem })
    }

    fn fetch(&self, tensor: &TensorRef, place: Option<&Place>, out: &mut Vec<u8>) -> Result<(), Problem> {
        let wrong = |what| Problem::Damaged { place: format!("storage {}", tensor.storage), what };
        let place = place.ok_or_else(|| wrong("there is no such storage".into()))?;
        let (count, stretch) = tensor.locate(place.len()).map_err(wrong)?;
        if count == 0 {
            out.clear();
            return Ok(());
        }
        let size = tensor.dtype.size();
        let run = contiguous_run(tensor);
        if run == count {
            self.read_at(place, stretch.start, count * size, out)?;
        } else {
            let mut stored = Vec::new();
            self.read_at(place, stretch.start, (stretch.end - stretch.start) as usize, &mut stored)?;
            resize(out, count * size)?;
            gather(tensor, &stored, run * size, out);
        }
        if place.big_endian {
            out.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(())
    }

    /// Replaces `out` by `len` bytes of a storage from its byte `start` on.
    fn read_at(&self, place: &Place, start: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
        resize(out, len)?;
        let mut file = &self.files[place.file].1;
        if place.unpacked.is_none() {
            file.seek(SeekFrom::Start(place.stored.start + start))?;
            return Ok(file.read_exact(out)?);
        }
        file.seek(SeekFrom::Start(place.stored.start))?;
        let mut bytes = zip::inflate(file.take(place.stored.end - place.stored.start), place.len());
        io::copy(&mut bytes.by_ref().take(start), &mut io::sink())?;
        Ok(bytes.read_exact(out)?)
    }
}

/// Opens a file that can be read from anywhere.
fn open_file(path: &Path) -> Result<File, Problem> {
    if path.is_dir() {
        return Err(Problem::NotACheckpoint("a folder: name a file in it".into()));
    }
    // Before it is opened: that would wait for a pipe's other end.
    if !path.metadata()?.is_file() {
        let what = "a checkpoint can't be read from a pipe or a device; save it to a file";
        return Err(Problem::Unsupported(what.into()));
    }
    Ok(File::open(path)?)
}

/// Gives `out` a length, and an error instead of an abort when memory is short.
fn resize(out: &mut Vec<u8>, len: usize) -> io::Result<()> {
    out.try_reserve_exact(len.saturating_sub(out.len()))?;
    out.resize(len, 0);
    Ok(())
}

/// How many elements, from any multiple of it on, lie in the file as they do in row-major order; all
/// of them in a contiguous tensor.
fn contiguous_run(tensor: &TensorRef) -> usize {
    let mut run = 1;
    for (&dim, &stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
        if dim != 1 && stride != run {
            return run;
        }
        run *= dim;
    }
    run
}

/// Copies a tensor's elements in row-major order, `run` bytes at a time, from the stretch of its
/// storage that begins with its first element.
fn gather(tensor: &TensorRef, stored: &[u8], run: usize, out: &mut [u8]) {
    let size = tensor.dtype.size();
    // The innermost dimensions that a run covers are stepped over as one, by counting in elements.
    let mut index = vec![0; tensor.shape.len()];
    for target in out.chunks_exact_mut(run) {
        let start = index.iter().zip(&tensor.strides).map(|(i, s)| i * s).sum::<usize>() * size;
        target.copy_from_slice(&stored[start..start + run]);
        let mut carry = run / size;
        for (i, &dim) in index.iter_mut().zip(&tensor.shape).rev() {
            let next = *i + carry;
            (*i, carry) = (next % dim, next / dim);
            if carry == 0 {
                break;
            }
        }
    }
}

/// Finds out what a file is and has the right reader read it.
fn contents(file: &mut File) -> Result<Contents, Problem> {
    let len = file.metadata()?.len();
    let mut head = Vec::new();
    file.by_ref().take(foreign::HEAD).read_to_end(&mut head)?;
    if zip::is_zip(&head) {
        zip::open(file, len)
    } else if legacy::is_legacy(&head) {
        legacy::open(file, len)
    } else if safetensors::is_safetensors(&head) {
        safetensors::open(file, len)
    } else {
        Err(Problem::NotACheckpoint(foreign::describe(&head)))
    }
}

/// A name out of a file as it may stand in a message: quoted, on one line, and short.
fn quoted(name: &str) -> String {
    const LONGEST: usize = 80;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", name[..end].escape_debug()),
        None => format!("`{}`", name.escape_debug()),
    }
}
