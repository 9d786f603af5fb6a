//! How the CPU's layers pack their weights.

use candle_core::{DType, Tensor};
use half::bf16;

use super::gemm::{Packed, PackedLayer, is_large};
use crate::simd::Isa;
use crate::weights::Placement;

/// For which instruction set, and what for.
#[derive(Clone, Copy)]
pub(super) struct Packing {
    isa: Isa,
    /// Whether large weights stay in bf16 though f32 is multiplied: panels are widened when they are read.
    halved: bool,
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
        let halved = placement.dtype == DType::BF16 && isa.words(2) == 2;
        Self { isa, halved, differentiable: placement.is_differentiable() }
    }

    /// A weight of [n, depth] with a bias `[n]`.
    pub(super) fn layer(self, size: [usize; 2], weight: &[f32], bias: Option<&Tensor>) -> PackedLayer {
        let pack = |n, depth, weight: &[f32]| {
            // Those that the second cache keeps would be widened again and again for nothing. What a norm or a factor was
            // multiplied into is no bf16, and stays what it is: results do not depend on how large a cache is.
            let halved = self.halved && is_large(n * depth) && weight.iter().all(is_bf16);
            (if halved { Packed::halved } else { Packed::new })(self.isa, n, depth, weight)
        };
        PackedLayer::new(pack, self.differentiable, size, weight, bias)
    }
}

/// Whether bf16 has this number.
fn is_bf16(value: &f32) -> bool {
    bf16::from_f32(*value).to_f32() == *value
}

#[cfg(test)]
mod tests {
    use super::super::gemm::{Epilogue, StoredRows, Then, product};
    use super::*;

    /// Large enough for a second cache of up to 4 MiB.
    #[test]
    fn layers_are_the_same_and_those_of_bf16_take_half_the_memory() {
        let (n, depth, rows) = (520, 528, 7);
        let mut rng = fastrand::Rng::with_seed(4);
        let mut noise = |len: usize| (0..len).map(|_| rng.f32() - 0.5).collect::<Vec<f32>>();
        let [folded, x, grad] = [n * depth, rows * depth, rows * n].map(&mut noise);
        let read: Vec<f32> = folded.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        for isa in Isa::available() {
            let layer = |halved, weight| {
                Packing { isa: *isa, halved, differentiable: true }.layer([n, depth], weight, None)
            };
            let results = |layer: &PackedLayer| {
                let forward = StoredRows { rows: &x, depth };
                let back = StoredRows { rows: &grad, depth: n };
                let transposed = layer.transposed().unwrap();
                [(&forward, &layer.weight), (&back, transposed)]
                    .map(|(source, weight)| product(rows, source, weight, Epilogue::default(), Then::Nothing))
            };
            // What was read from a file of bf16, and what a norm was folded into.
            for (weight, share) in [(&read, 2), (&folded, 1)] {
                let (halved, whole) = (layer(true, weight), layer(false, weight));
                assert_eq!(results(&halved), results(&whole), "{isa:?}");
                assert_eq!(share * halved.weight.memory(), whole.weight.memory(), "{isa:?}");
            }
        }
    }
}
