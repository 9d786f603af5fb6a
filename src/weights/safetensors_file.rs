//! A safetensors file, mapped or in memory.

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;

use super::problem::{LoadError, TensorProblem};
use crate::tensors::in_words;

/// A safetensors file whose header has been read.
pub(crate) struct SafetensorsFile {
    bytes: Bytes,
    header: Metadata,
    /// Where the data begins.
    data: usize,
}

enum Bytes {
    Mapped(Mmap),
    Here(Cow<'static, [u8]>),
}

impl SafetensorsFile {
    /// Maps a file.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let error = |why: String| LoadError::File { path: path.display().to_string(), why };
        let file = File::open(path).map_err(|e| error(e.to_string()))?;
        // SAFETY: a file that another process changes while it is mapped would change under us; that
        // is accepted for weights, as everywhere in this field, and never written through.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| error(e.to_string()))?;
        Self::new(Bytes::Mapped(map)).map_err(|e| error(format!("not a safetensors file ({e})")))
    }

    /// Takes a file's bytes.
    pub(super) fn from_bytes(bytes: Cow<'static, [u8]>) -> Result<Self, LoadError> {
        Self::new(Bytes::Here(bytes)).map_err(|e| LoadError::File {
            path: "bytes of weights".to_owned(),
            why: format!("not a safetensors file ({e})"),
        })
    }

    fn new(bytes: Bytes) -> Result<Self, safetensors::SafeTensorError> {
        let (length, header) = SafeTensors::read_metadata(bytes.all())?;
        Ok(Self { data: size_of::<u64>() + length, header, bytes })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The shape of a tensor that there is.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| info.shape.as_slice())
    }

    /// What a file says of itself by this key.
    #[cfg(feature = "eval")]
    pub(crate) fn says(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// A tensor's values as f32, row by row: as they lie in the file where they are f32; `None` of a tensor that is not
    /// there or has no floats.
    #[cfg(feature = "eval")]
    pub(crate) fn floats(&self, name: &str) -> Option<Cow<'_, [f32]>> {
        use half::{bf16, f16};
        use safetensors::Dtype;
        let info = self.header.info(name)?;
        let (start, end) = info.data_offsets;
        let bytes = &self.bytes.all()[self.data + start..self.data + end];
        Some(match info.dtype {
            Dtype::F32 => {
                // SAFETY: every four bytes are an f32.
                let (before, values, after) = unsafe { bytes.align_to::<f32>() };
                if cfg!(target_endian = "little") && before.is_empty() && after.is_empty() {
                    Cow::Borrowed(values)
                } else {
                    converted(bytes, f32::from_le_bytes)
                }
            }
            Dtype::F16 => converted(bytes, |value| f16::from_le_bytes(value).to_f32()),
            Dtype::BF16 => converted(bytes, |value| bf16::from_le_bytes(value).to_f32()),
            Dtype::F64 => converted(bytes, |value| f64::from_le_bytes(value) as f32),
            _ => return None,
        })
    }

    /// A tensor on the CPU, as it is stored.
    pub(super) fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor, TensorProblem> {
        let unreadable = |why: String| TensorProblem::Unreadable { name: name.to_owned(), why };
        let Some(info) = self.header.info(name) else {
            return Err(TensorProblem::Missing { name: name.to_owned(), nearest: None });
        };
        if info.shape != shape {
            let (got, expected) = (info.shape.clone(), shape.to_vec());
            return Err(TensorProblem::Shape { name: name.to_owned(), got, expected });
        }
        let (start, end) = info.data_offsets;
        let values = &self.bytes.all()[self.data + start..self.data + end];
        let dtype = DType::try_from(info.dtype).map_err(|e| unreadable(in_words(&e)))?;
        let tensor = Tensor::from_raw_buffer(values, dtype, shape, &Device::Cpu);
        self.bytes.release(values);
        tensor.map_err(|e| unreadable(in_words(&e)))
    }
}

#[cfg(feature = "eval")]
fn converted<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Cow<'static, [f32]> {
    let (values, _) = bytes.as_chunks();
    values.iter().map(|bytes| value(*bytes)).collect()
}

impl Bytes {
    fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Here(bytes) => bytes,
        }
    }

    /// Lets go of the pages that `part` lies in: packed layers keep their own copy, and a page that
    /// is read again comes back from the file.
    fn release(&self, part: &[u8]) {
        if let Self::Mapped(map) = self {
            let offset = part.as_ptr() as usize - map.as_ptr() as usize;
            // SAFETY: the mapping is shared and read-only, so dropping pages loses nothing. A refusal
            // costs memory, not correctness.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, part.len()) };
        }
    }
}
