//! A block's MLP on the CPU: the hidden values of a block of rows never leave the cache.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::gemm::{
    Buffers, Epilogue, GemmBlocks, OperandCells, Operands, Packed, PackedLayer, RowBlock, Rows, ScaledRows,
    StoredRows, ValueCells, filled, room_for,
};
use super::norm::{Norm, NormedRows};
use super::operator::{Layer, apply};
use super::packing::Packing;
use crate::layers::form::MlpForm;
use crate::layers::parts::{Activation, LinearParts, MlpParts};
use crate::simd::{Kernel, Simd};
use crate::tensors::vector;

/// x + gamma · fc2(gelu(fc1(norm(x)))), on rows of `dim` values.
pub(super) struct PackedMlp {
    norm: Arc<Norm>,
    fc1: PackedLayer,
    fc2: PackedLayer,
    dim: usize,
    gamma: Option<Vec<f32>>,
}

impl MlpForm for Arc<PackedMlp> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        apply(self.clone(), x, None, x.shape())
    }
}

impl PackedMlp {
    pub(super) fn new(parts: &MlpParts, packing: Packing) -> Arc<Self> {
        let pack = |parts: &LinearParts| {
            packing.layer([parts.outputs(), parts.inputs()], &vector(&parts.weight), parts.bias.as_ref())
        };
        Arc::new(Self {
            norm: Norm::new(&parts.norm),
            fc1: pack(&parts.fc1),
            fc2: pack(&parts.fc2),
            dim: parts.fc1.inputs(),
            gamma: parts.gamma.as_ref().map(vector),
        })
    }

    /// Makes rows of `dim` values like `x`, of blocks for which `words` a row have to be in cache.
    fn by_blocks<K: Kernel<Output = ()>>(
        &self,
        x: &[f32],
        words: usize,
        kernel: impl Fn(Range<usize>, ValueCells) -> K + Sync,
    ) -> Vec<f32> {
        let rows = x.len() / self.dim;
        let isa = self.fc1.weight.isa();
        let blocks = GemmBlocks::new(rows, words, isa);
        filled(rows, self.dim, |out| {
            let tasks = (0..blocks.count()).into_par_iter().with_max_len(1);
            tasks.for_each(|i| isa.run(kernel(blocks.range(i), out)));
        })
    }
}

impl Layer for Arc<PackedMlp> {
    const NAME: &'static str = "mlp";

    fn forward(&self, x: &[f32], _: Option<&[f32]>) -> Vec<f32> {
        let words = self.fc1.weight.words() + self.fc2.weight.words();
        self.by_blocks(x, words, |range, out| Forward { mlp: self, x, range, out })
    }

    fn backward(&self, x: &[f32], grad: &[f32]) -> Result<Vec<f32>> {
        let PackedMlp { fc1, fc2, .. } = &**self;
        let transposed = [fc1.transposed()?, fc2.transposed()?];
        let words = fc1.weight.words() + 2 * fc2.weight.words();
        Ok(self.by_blocks(x, words, |range, out| Backward { mlp: self, transposed, x, grad, range, out }))
    }
}

/// One block of rows through both layers of an MLP.
struct Forward<'a> {
    mlp: &'a PackedMlp,
    x: &'a [f32],
    range: Range<usize>,
    out: ValueCells,
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let PackedMlp { norm, fc1, fc2, gamma, .. } = self.mlp;
        let count = self.range.len();
        let first = Epilogue::of(fc1, Activation::Gelu);
        let residual = Some(self.x);
        let second = Epilogue { residual, gamma: gamma.as_deref(), ..Epilogue::of(fc2, Activation::None) };
        let mut scratch = Buffers::take();
        let Buffers { room, panel, hidden, .. } = &mut *scratch;
        let source = NormedRows { rows: self.x, norm };
        let normed = source.get(s, self.range.clone(), room);
        let stride = room_for::<S>(hidden, count, fc1.weight.n());
        let view = OperandCells::of(hidden, fc1.weight.n(), stride);
        // SAFETY: `hidden` is this thread's own; the tasks' rows of `out` are disjoint.
        unsafe {
            RowBlock::of(normed, &fc1.weight, &first, 0..count, panel).run(s, view);
            let hidden = Operands { words: hidden, stride };
            RowBlock::of(hidden, &fc2.weight, &second, self.range, panel).run(s, self.out);
        }
        scratch.put_back();
    }
}

/// The gradient of one block of rows: the hidden values are computed again, and none of them leaves the
/// cache.
struct Backward<'a> {
    mlp: &'a PackedMlp,
    transposed: [&'a Packed; 2],
    x: &'a [f32],
    grad: &'a [f32],
    range: Range<usize>,
    out: ValueCells,
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let PackedMlp { norm, fc1, dim, gamma, .. } = self.mlp;
        let [back1, back2] = self.transposed;
        let (count, width) = (self.range.len(), fc1.weight.n());
        let values_of_rows = self.range.start * dim..self.range.end * dim;
        let mut scratch = Buffers::take();
        let Buffers { room, panel, hidden, slopes } = &mut *scratch;
        slopes.resize(count * width, 0.0);
        let stride = room_for::<S>(hidden, count, width);
        let derivative = Epilogue { slope: true, ..Epilogue::of(fc1, Activation::Gelu) };
        // SAFETY: the buffers are this thread's own; the tasks' rows of `out` are disjoint.
        unsafe {
            let source = NormedRows { rows: self.x, norm };
            let normed = source.get(s, self.range.clone(), room);
            let view = ValueCells::of(slopes, width);
            RowBlock::of(normed, &fc1.weight, &derivative, 0..count, panel).run(s, view);

            let times = Epilogue { times: Some(slopes), ..Epilogue::default() };
            let view = OperandCells::of(hidden, width, stride);
            let (plain, scaled);
            let grad = match gamma {
                Some(factors) => {
                    scaled = ScaledRows { rows: self.grad, factors };
                    scaled.get(s, self.range.clone(), room)
                }
                None => {
                    plain = StoredRows { rows: self.grad, depth: *dim };
                    plain.get(s, self.range.clone(), room)
                }
            };
            RowBlock::of(grad, back2, &times, 0..count, panel).run(s, view);

            let hidden = Operands { words: hidden, stride };
            let range = self.range.clone();
            RowBlock::of(hidden, back1, &Epilogue::default(), range, panel).run(s, self.out);
            let (x, grad) = (&self.x[values_of_rows.clone()], &self.grad[values_of_rows]);
            norm.differentiate(s, x, self.out.rows_mut(self.range), Some(grad));
        }
        scratch.put_back();
    }
}
