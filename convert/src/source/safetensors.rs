//! safetensors: a length, a JSON header, the elements. The header is checked by the crate
//! `safetensors`; a tensor is its own storage here.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::sync::Arc;

use safetensors::{Dtype, tensor::Metadata};

use super::arena::opaque;
use super::bytes::ByteSource;
use super::contents::{Container, Contents, StorageSpan};
use super::problem::{Flaw, quoted};
use super::rebuild::MAX_DIMS;
use super::value::{ElementType, TensorRef, Value};

/// Bytes of the header's length, which precedes the header.
const LENGTH: usize = 8;
/// Longest header of the format's own implementation.
const MAX_FORMAT: u64 = 100_000_000;
/// Longest header that is read: names and shapes of [`MAX_TENSORS`] and ten times the labels of the largest
/// data set. What is made of it in memory is several times as large.
const MAX_HEADER: u64 = 25_000_000;
/// Most tensors of a file; a network with its optimizer's averages has some thousand.
const MAX_TENSORS: usize = 1 << 16;
/// Most keys, dimensions, offsets and commas in texts of a header: sixteen for each tensor.
const MAX_VALUES: usize = 16 * MAX_TENSORS;
/// What the entry of every tensor has in the header.
const ENTRY: &[u8] = b"\"data_offsets\"";

/// Whether a file starts with a plausible length and the brace of a JSON object.
pub(super) fn is_safetensors(head: &[u8]) -> bool {
    match head.split_first_chunk::<LENGTH>() {
        Some((len, rest)) => rest.starts_with(b"{") && u64::from_le_bytes(*len) <= MAX_FORMAT,
        None => false,
    }
}

/// Reads the header.
pub(super) fn open(bytes: &ByteSource, len: u64) -> Result<Contents, Flaw> {
    let damaged = |what: String| {
        // The parser quotes the header's text as it is.
        Flaw::Damaged { place: "safetensors header".into(), what: what.replace(char::is_control, " ") }
    };
    let cut = |needed: u64| {
        damaged(format!("the file has {len} bytes instead of {needed}: download or copy it again"))
    };
    let mut reader = BufReader::new(bytes.reader(0));
    let mut header = [0; LENGTH];
    reader.read_exact(&mut header)?;
    let header = u64::from_le_bytes(header);
    let data = LENGTH as u64 + header;
    if data > len {
        return Err(cut(data));
    }
    if header > MAX_HEADER {
        return Err(damaged(format!("it has {header} bytes, more than {MAX_HEADER}")));
    }
    let mut json = Vec::new();
    reader.take(header).read_to_end(&mut json)?;
    // Before memory is taken for them.
    let tensors = memchr::memmem::find_iter(&json, ENTRY).count();
    if tensors > MAX_TENSORS {
        return Err(damaged(format!("it names {tensors} tensors, more than {MAX_TENSORS}")));
    }
    // Each costs the parser some 50 bytes.
    let values = memchr::memchr_iter(b',', &json).count();
    if values > MAX_VALUES {
        return Err(damaged(format!("it lists {values} values, more than {MAX_VALUES}")));
    }
    let parsed: Metadata = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    drop(json);
    let needed = data.saturating_add(parsed.data_len() as u64);
    if needed != len {
        return Err(cut(needed));
    }

    let (mut root, mut storages) = (Vec::new(), Vec::new());
    for name in parsed.offset_keys() {
        let Some(info) = parsed.info(&name) else { continue };
        if info.shape.len() > MAX_DIMS {
            let (name, dims) = (quoted(&name), info.shape.len());
            return Err(damaged(format!("{name} has {dims} dimensions, more than {MAX_DIMS}")));
        }
        let value = match dtype(info.dtype) {
            Some(dtype) => {
                let mut strides = vec![1usize; info.shape.len()];
                for axis in (1..strides.len()).rev() {
                    strides[axis - 1] = strides[axis].saturating_mul(info.shape[axis]);
                }
                let (start, end) = info.data_offsets;
                storages.push(StorageSpan::plain(data + start as u64..data + end as u64));
                let (shape, storage) = (info.shape.clone(), storages.len() - 1);
                Value::Tensor(Arc::new(TensorRef { dtype, shape, strides, offset: 0, storage }))
            }
            None => opaque(&format!("a tensor of {}", info.dtype)),
        };
        root.push((Value::Str(name.into()), value));
    }
    let metadata: BTreeMap<_, _> =
        parsed.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let root = Value::Dict(Arc::new(root));
    Ok(Contents { container: Container::Safetensors, root, storages, metadata })
}

fn dtype(dtype: Dtype) -> Option<ElementType> {
    Some(match dtype {
        Dtype::F64 => ElementType::F64,
        Dtype::F32 => ElementType::F32,
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::BF16,
        Dtype::I64 => ElementType::I64,
        Dtype::I32 => ElementType::I32,
        Dtype::I16 => ElementType::I16,
        Dtype::I8 => ElementType::I8,
        Dtype::U8 => ElementType::U8,
        Dtype::BOOL => ElementType::Bool,
        _ => return None,
    })
}
