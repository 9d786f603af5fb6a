//! How the CPU's layers pack their weights.

use candle_core::{DType, Tensor};

use super::gemm::PackedLayer;
use crate::simd::Isa;
use crate::weights::Placement;

/// For which instruction set, and what for.
#[derive(Clone, Copy)]
pub(super) struct Packing {
    isa: Isa,
    pub(super) differentiable: bool,
}

impl Packing {
    /// That of weights placed so: for the best instruction set, which multiplies bf16 where weights are bf16 and that is
    /// faster here.
    pub(super) fn of(placement: &Placement) -> Self {
        let isa = match placement.dtype {
            DType::BF16 => Isa::for_bf16(),
            _ => Isa::best(),
        };
        Self { isa, differentiable: placement.is_differentiable() }
    }

    /// A weight of [n, depth] with a bias `[n]`.
    pub(super) fn layer(self, size: [usize; 2], weight: &[f32], bias: Option<&Tensor>) -> PackedLayer {
        PackedLayer::new(self.isa, self.differentiable, size, weight, bias)
    }
}
