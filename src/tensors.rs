//! What every room needs of candle's tensors: their values on the CPU, errors in one line, the threads' pool.

use candle_core::{CpuStorage, DType, Device, Error, Result, Shape, Storage, Tensor};

/// What an error of candle says, in one line: its own form has a line for each context, and with
/// `RUST_BACKTRACE` the backtrace.
pub fn in_words(error: &Error) -> String {
    match error {
        Error::WithBacktrace { inner, .. } => in_words(inner),
        Error::WithPath { inner, path } => format!("{}: {}", path.display(), in_words(inner)),
        Error::Context { inner, context } => format!("{context}: {}", in_words(inner)),
        Error::WrappedContext { wrapped, context } => match wrapped.downcast_ref::<Error>() {
            Some(inner) => format!("{context}: {}", in_words(inner)),
            None => format!("{context}: {wrapped}"),
        },
        plain => plain.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" "),
    }
}

/// Runs `f`, which computes on `device`: for the CPU on a thread of the pool, as from any other thread every parallel layer
/// would wake the pool and wait to be woken by it. For a GPU here: a device that candle opened by itself may have a stream for
/// each thread, and what one thread asks for is done in no order with what another does.
pub fn on_pool<T: Send>(device: &Device, f: impl FnOnce() -> T + Send) -> T {
    if device.is_cpu() { rayon::scope(|_| f()) } else { f() }
}

/// `x` in the type that statistics and sums of it are taken in: f32, and f64 of f64.
pub(crate) fn widened(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 })
}

/// Calls `f` with the values of a CPU tensor, as f32, in row-major order.
pub(crate) fn with_f32<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let x = x.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(f(&values[start..end])),
        _ => candle_core::bail!("the fused CPU layers got a tensor on {:?}", x.device().location()),
    }
}

/// Calls `f` with the values of several tensors, as [`with_f32`], wherever they are.
pub(crate) fn with_all_f32<T>(tensors: &[Tensor], f: impl FnOnce(&[&[f32]]) -> T) -> Result<T> {
    let here: Vec<Tensor> = tensors
        .iter()
        .map(|x| x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous())
        .collect::<Result<_>>()?;
    let guards: Vec<_> = here.iter().map(Tensor::storage_and_layout).collect();
    let values = guards.iter().map(|(storage, layout)| match (&**storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("a tensor that was copied to the CPU is not there"),
    });
    Ok(f(&values.collect::<Result<Vec<_>>>()?))
}

/// The values of a tensor of any float type, wherever it is, in f64 and row-major order.
pub(crate) fn wide_values(x: &Tensor) -> Result<Vec<f64>> {
    x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// A CPU tensor of `shape`, f32, from what `f` makes of `x`'s values, which no gradient goes back through.
///
/// # Errors
/// When `x` is not on the CPU, or a gradient is asked of it.
pub(crate) fn map_f32(x: &Tensor, shape: &Shape, f: impl FnOnce(&[f32]) -> Vec<f32>) -> Result<Tensor> {
    if x.track_op() {
        candle_core::bail!("this layer has no gradient: only classifiers are differentiable");
    }
    Tensor::from_vec(with_f32(x, f)?, shape, &Device::Cpu)
}

/// The values of a weight that `Weights` gave: on the CPU by then.
pub(crate) fn vector(x: &Tensor) -> Vec<f32> {
    with_f32(x, <[f32]>::to_vec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use candle_core::Context;

    use super::*;

    #[test]
    fn errors_are_one_line_without_their_backtrace() {
        let plain = || Error::Msg("no such shape".to_owned());
        // As candle makes it where RUST_BACKTRACE is set, which is read once in a process.
        let traced = |inner| Error::WithBacktrace {
            inner: Box::new(inner),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        };
        assert!(traced(plain()).to_string().lines().count() > 1);
        for (error, says) in [
            (plain(), "no such shape"),
            (traced(plain()), "no such shape"),
            (traced(traced(plain()).context("layer 3")), "layer 3: no such shape"),
            (traced(plain()).with_path("a.bin"), "a.bin: no such shape"),
            (Err::<(), _>(traced(plain())).context("layer 3").unwrap_err(), "layer 3: no such shape"),
            (Error::Msg("first\n  second".to_owned()), "first second"),
        ] {
            assert_eq!(in_words(&error), says, "{error}");
        }
    }
}
