//! Why the operator refuses its inputs.

use candle_core::DType;

use super::window::MOST_PADDED;

/// Why neighborhood attention refused its inputs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttentionError {
    /// qkv is not [B, H, W, channels].
    #[error("neighborhood attention takes qkv as [batch, height, width, 3 x channels], got {shape:?}")]
    Rank {
        /// The shape of qkv.
        shape: Vec<usize>,
    },
    /// A parameter that has to be positive is zero.
    #[error(
        "neighborhood attention needs positive parameters, got {heads} heads, kernel size {kernel_size}, \
         dilation {dilation}"
    )]
    Zero {
        /// Heads asked for.
        heads: usize,
        /// K.
        kernel_size: usize,
        /// d.
        dilation: usize,
    },
    /// The channels of qkv are not q, k and v of every head.
    #[error("{channels} channels of qkv cannot be divided into q, k and v of {heads} heads")]
    Channels {
        /// The last dimension of qkv.
        channels: usize,
        /// Heads asked for.
        heads: usize,
    },
    /// An even window has no middle: only the window that is the whole map may be even.
    #[error(
        "kernel size {kernel_size} is even: on a map of {height}x{width} with dilation {dilation} it has to \
         be odd"
    )]
    EvenKernel {
        /// K.
        kernel_size: usize,
        /// d.
        dilation: usize,
        /// H.
        height: usize,
        /// W.
        width: usize,
    },
    /// A window does not fit into the map.
    #[error(
        "a map of {height}x{width} is too small for kernel size {kernel_size} with dilation {dilation}: it \
         needs kernel size x dilation on both axes"
    )]
    SmallMap {
        /// H.
        height: usize,
        /// W.
        width: usize,
        /// K.
        kernel_size: usize,
        /// d.
        dilation: usize,
    },
    /// A window is so much larger than the map that padding would take absurd memory.
    #[error(
        "kernel size {kernel_size} is too large for a map of {height}x{width}: maps are padded for kernel sizes up to \
         {MOST_PADDED}"
    )]
    LargeKernel {
        /// H.
        height: usize,
        /// W.
        width: usize,
        /// K.
        kernel_size: usize,
    },
    /// What stands for padded positions is not q, k and v of every head.
    #[error("the padding has shape {got:?}, expected [{channels}]")]
    Pad {
        /// The shape of pad.
        got: Vec<usize>,
        /// 3·heads·dim.
        channels: usize,
    },
    /// The bias table is not [heads, 2K−1, 2K−1].
    #[error("the relative position bias has shape {got:?}, expected [{heads}, {side}, {side}]")]
    Bias {
        /// The shape of rpb.
        got: Vec<usize>,
        /// Heads asked for.
        heads: usize,
        /// 2K−1.
        side: usize,
    },
    /// Types that the operator does not compute with.
    #[error(
        "neighborhood attention takes f16, bf16, f32 or f64 of one type, got qkv {qkv:?} and bias {rpb:?}"
    )]
    Types {
        /// Type of qkv.
        qkv: DType,
        /// Type of rpb.
        rpb: DType,
    },
    /// A slice does not have the values that its tensor's shape says.
    #[error("{tensor} has {got} values, expected {expected}")]
    Length {
        /// Which tensor.
        tensor: &'static str,
        /// Values of the slice.
        got: usize,
        /// Values of the tensor.
        expected: usize,
    },
    /// candle could not prepare the tensors.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<AttentionError> for candle_core::Error {
    fn from(error: AttentionError) -> Self {
        match error {
            AttentionError::Candle(error) => error,
            shape => Self::wrap(shape),
        }
    }
}
