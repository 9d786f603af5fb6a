//! The layers on the CPU: weights packed for its kernels, everything around a product fused into it.
//!
//! They take tensors of any float type and give f32: activations and sums are f32 whatever the type of the weights.
//! That type says how far the weights are rounded, and with bf16 on a processor that multiplies it, that the operands
//! of matrix products are bf16. Layers whose weights are
//! [differentiable](crate::weights::Weights::differentiable) have gradients of their input.

mod conv;
mod gemm;
mod linear;
mod mlp;
mod norm;
mod operator;
mod packing;
mod pyramid;

use candle_core::{Result, Tensor};

use self::linear::PackedLinear;
use self::mlp::PackedMlp;
use self::norm::Norm;
use self::packing::Packing;
use self::pyramid::PackedPyramid;
use super::candle::Operators;
use super::form::{Backend, BatchForm, ConvForm, LinearForm, MapForm, MlpForm, NormForm, PyramidForm, Roi};
use super::parts::{ConvParts, LinearParts, MlpParts, NormParts, PyramidParts};
use super::resample;
use crate::weights::Weights;

/// The processor, with the instruction set that suits its weights.
pub(super) struct Cpu;

impl Backend for Cpu {
    fn linear(&self, parts: LinearParts, weights: &Weights) -> Box<dyn LinearForm> {
        Box::new(PackedLinear::new(&parts, Packing::of(&weights.placement())))
    }

    fn mlp(&self, parts: MlpParts, weights: &Weights) -> Box<dyn MlpForm> {
        Box::new(PackedMlp::new(&parts, Packing::of(&weights.placement())))
    }

    fn conv(&self, parts: ConvParts, weights: &Weights) -> Box<dyn ConvForm> {
        conv::form(&parts, Packing::of(&weights.placement()))
    }

    fn norm(&self, parts: NormParts, _: &Weights) -> Box<dyn NormForm> {
        Box::new(Norm::new(&parts))
    }

    fn pyramid(&self, parts: PyramidParts, weights: &Weights) -> Box<dyn PyramidForm> {
        Box::new(PackedPyramid::new(parts, Packing::of(&weights.placement()), weights))
    }

    fn batches(&self) -> Box<dyn BatchForm> {
        Box::new(SomePerThread)
    }

    fn maps(&self) -> &'static dyn MapForm {
        &Cpu
    }
}

impl MapForm for Cpu {
    fn mean(&self, x: &Tensor) -> Result<Tensor> {
        x.mean((1, 2))
    }

    fn resized(&self, x: &Tensor, size: [usize; 2], align_corners: bool) -> Result<Tensor> {
        resample::resized(x, size, align_corners)
    }

    fn regions(&self, maps: &[Tensor], strides: &[usize], regions: &[Roi], side: usize) -> Result<Tensor> {
        Operators.regions(maps, strides, regions, side)
    }

    fn kept(&self, _: &[[f32; 4]], _: f32, _: &Tensor) -> Result<Option<Vec<bool>>> {
        Ok(None)
    }
}

/// Some images a thread: each layer's weights are read once for all of them, and from far away where the network is
/// larger than the caches.
struct SomePerThread;

impl BatchForm for SomePerThread {
    fn together(&self, _: usize, values: usize, most: Option<usize>) -> usize {
        /// What is gained by more is little, beside the memory that their maps take.
        const A_THREAD: usize = 4;
        /// Values of a thread's images: larger ones are fewer.
        const VALUES: usize = A_THREAD * 3 * 256 * 256;
        /// Of many threads each has one.
        const MANY: usize = 16;
        let threads = rayon::current_num_threads();
        match most {
            Some(most) => threads.min(most),
            None => ((VALUES / values.max(1)).clamp(1, A_THREAD) * threads).min(MANY).max(threads),
        }
    }
}
