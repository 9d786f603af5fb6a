//! The building blocks that the models share.
//!
//! A layer is made of its parts, the tensors that it took of its [`Weights`](crate::weights::Weights), and gets one
//! form when it takes them: packed for the fused CPU kernels (`cpu/`), a GPU's kernels (`cuda/`), or plain candle
//! operators (`candle/`), which run on any device and are what the others are tested against. The table of
//! `backend.rs` chooses; nothing above this folder knows which form a layer has.
//!
//! To add a backend: a folder with its `impl Backend` (`form.rs` says what that is), and a row in `backend.rs`.
//!
//! Plain layers have gradients, and so have packed ones whose weights are
//! [differentiable](crate::weights::Weights::differentiable).

mod backend;
mod batches;
mod blocks;
mod candle;
mod conv;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod form;
mod linear;
mod maps;
mod module;
mod norm;
mod parts;
mod pyramid;
mod regions;
pub(crate) mod resample;
pub(crate) mod softmax;
mod stepwise;

pub use batches::Batches;
pub use blocks::Blocks;
pub use conv::Conv2d;
pub(crate) use form::Roi;
pub use linear::{Linear, Mlp};
pub use maps::Maps;
pub use norm::LayerNorm;
pub use parts::{
    Activation, AttentionParts, BlockParts, ConvParts, LinearParts, MapLayout, MlpParts, NormParts,
    PyramidParts, Window,
};
pub use pyramid::PyramidConv2d;
pub use resample::{adaptive_mean, bilinear};

pub use crate::tensors::{in_words, on_pool};
