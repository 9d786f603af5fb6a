//! What files hold, as plain values: objects, and tensors whose elements are still on disk.

use std::ops::Range;
use std::sync::Arc;

/// Largest tensor, in bytes, that may be longer than its storage: a stride of 0 repeats elements,
/// and a file of 300 bytes must not ask for gigabytes of memory.
pub(super) const MAX_EXPANDED_BYTES: usize = 256 << 20;

/// Element types that a checkpoint's tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum ElementType {
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

impl ElementType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            ElementType::F64 | ElementType::I64 => 8,
            ElementType::F32 | ElementType::I32 => 4,
            ElementType::F16 | ElementType::BF16 | ElementType::I16 => 2,
            ElementType::I8 | ElementType::U8 | ElementType::Bool => 1,
        }
    }
}

/// One object of a pickle, or of a safetensors header. Containers that the file shares are shared
/// here too.
///
/// A tree of values is at most 512 levels deep and has at most 2^24 values with the shared ones
/// counted as often as they are met: walking it recursively is safe.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    Str(Arc<str>),
    /// Byte strings.
    Bytes(Arc<[u8]>),
    /// Lists, tuples and sets.
    List(Arc<Vec<Value>>),
    /// Dictionaries and `OrderedDict`s, in order; no text of up to 512 bytes is a key twice.
    Dict(Arc<Vec<(Value, Value)>>),
    /// A tensor (parameters included).
    Tensor(Arc<TensorRef>),
    /// Anything else: the name of its class or of the function that would have made it, with its
    /// state (e.g. `argparse.Namespace`'s attributes, or the items of a subclass of `dict` or
    /// `list`) where the file has one. A tensor of an unsupported kind names what stands in the way.
    Opaque {
        /// `module.name`.
        global: Arc<str>,
        /// What the file says about the instance.
        state: Option<Arc<Value>>,
    },
}

/// Where a tensor's elements lie in the file. Strides and offset are in elements.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub struct TensorRef {
    pub dtype: ElementType,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
    pub offset: usize,
    pub storage: usize,
}

impl TensorRef {
    /// Number of elements, and the distance in elements from the first one to the end of the last
    /// one in the storage; `None` when they overflow.
    pub(super) fn extent(&self) -> Option<(usize, usize)> {
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
    pub(super) fn locate(&self, len: u64) -> Result<(usize, Range<u64>), String> {
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
