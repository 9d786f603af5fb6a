//! Elements of a checkpoint as a tensor of candle.

use candle_core::{DType, Device, Result, Tensor};
use nat_convert::source::ElementType;

/// A tensor on the CPU of row-major, little-endian elements; bytes and truth values as candle's U8, signed bytes as I16.
pub(super) fn tensor(bytes: &[u8], elements: ElementType, shape: &[usize]) -> Result<Tensor> {
    let dtype = match elements {
        ElementType::F64 => DType::F64,
        ElementType::F32 => DType::F32,
        ElementType::F16 => DType::F16,
        ElementType::BF16 => DType::BF16,
        ElementType::I64 => DType::I64,
        ElementType::I32 => DType::I32,
        ElementType::I16 => DType::I16,
        ElementType::U8 | ElementType::Bool => DType::U8,
        ElementType::I8 => {
            let values = bytes.iter().map(|&byte| i16::from(byte as i8)).collect();
            return Tensor::from_vec(values, shape, &Device::Cpu);
        }
        other => candle_core::bail!("candle has no elements of type {other:?}"),
    };
    Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu)
}
