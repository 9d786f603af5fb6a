//! An opened checkpoint, of which tensors are read.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::bytes::ByteSource;
use super::contents::{Container, Contents, StorageSpan};
use super::detect::{contents, open_file};
use super::problem::{Flaw, StoreError};
use super::value::{TensorRef, Value};
use super::{shards, zip};

/// An opened checkpoint: a file, the files that one was split into, or bytes in memory. Threads may share one and
/// read at the same time.
pub struct TensorStore {
    /// What messages call each, and its bytes.
    files: Vec<(PathBuf, ByteSource)>,
    contents: Contents,
}

impl TensorStore {
    /// Opens a checkpoint, whatever its name, and reads everything but the tensors' elements.
    ///
    /// # Errors
    /// When the file can't be read, is no checkpoint, or is damaged.
    pub fn open(path: &Path) -> Result<TensorStore, StoreError> {
        let file = open_file(path).map_err(|problem| StoreError { path: path.to_owned(), problem })?;
        Self::of(path.to_owned(), ByteSource::File(file))
    }

    /// Opens a checkpoint that is in memory, of any container: a `Vec<u8>`, an `Arc<[u8]>`, a mapped file, what a
    /// program includes. The bytes are kept as they are, not copied. Messages call it `name`.
    ///
    /// # Errors
    /// When the bytes are no checkpoint, or damaged.
    pub fn from_bytes(
        name: &str,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<TensorStore, StoreError> {
        Self::of(name.into(), ByteSource::Memory(Box::new(bytes)))
    }

    fn of(name: PathBuf, bytes: ByteSource) -> Result<TensorStore, StoreError> {
        match contents(&bytes) {
            Ok(contents) => Ok(TensorStore { files: vec![(name, bytes)], contents }),
            Err(problem) => Err(StoreError { path: name, problem }),
        }
    }

    /// Opens a checkpoint of several files by the index that Transformers writes beside them, as one
    /// `Dict` of name to tensor. A file that was split has no metadata.
    ///
    /// # Errors
    /// When the index or one of its files can't be read, a file lies elsewhere than beside the index, or a
    /// tensor is not where the index says.
    pub fn open_sharded(index: &Path) -> Result<TensorStore, StoreError> {
        let (files, contents) = shards::open(index)?;
        Ok(TensorStore { files, contents })
    }

    /// The files that the tensors are read from; none of a checkpoint in memory.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let on_disk = self.files.iter().filter(|(_, bytes)| matches!(bytes, ByteSource::File(_)));
        on_disk.map(|(path, _)| path.as_path())
    }

    /// All bytes of a checkpoint in memory; `None` of files.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self.files.as_slice() {
            [(_, ByteSource::Memory(bytes))] => Some((**bytes).as_ref()),
            _ => None,
        }
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
    pub fn read(&self, tensor: &TensorRef, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let place = self.contents.storages.get(tensor.storage);
        let file = place.map_or(0, |place| place.file);
        let path = || self.files.get(file).map(|(path, _)| path.clone()).unwrap_or_default();
        self.fetch(tensor, place, out).map_err(|problem| StoreError { path: path(), problem })
    }

    fn fetch(&self, tensor: &TensorRef, place: Option<&StorageSpan>, out: &mut Vec<u8>) -> Result<(), Flaw> {
        let wrong = |what| Flaw::Damaged { place: format!("storage {}", tensor.storage), what };
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
    fn read_at(&self, place: &StorageSpan, start: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Flaw> {
        resize(out, len)?;
        let bytes = &self.files[place.file].1;
        if place.unpacked.is_none() {
            return Ok(bytes.reader(place.stored.start + start).read_exact(out)?);
        }
        let packed = bytes.reader(place.stored.start);
        let mut bytes = zip::inflate(packed.take(place.stored.end - place.stored.start), place.len());
        io::copy(&mut bytes.by_ref().take(start), &mut io::sink())?;
        Ok(bytes.read_exact(out)?)
    }
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
