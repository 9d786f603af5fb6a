//! The right operand of a product: a weight, packed once in the order in which tiles read it.

use std::any::Any;

use candle_core::{Result, Tensor};

use super::geometry::columns;
use crate::simd::{Isa, Pair, Word};
use crate::tensors::vector;

/// Words of a cache line.
pub(super) const LINE_WORDS: usize = 16;

/// A cache line, for alignment.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct CacheLine<W>(pub(super) [W; LINE_WORDS]);

/// A weight matrix [n, depth] in the order in which tiles read it: panels of two vectors of output
/// columns, each [words of depth, columns], the last one filled up with zeros.
pub(crate) struct Packed {
    isa: Isa,
    n: usize,
    words: usize,
    /// A `Vec` of [`CacheLine`]s of the words that the instruction set multiplies.
    panels: Box<dyn Any + Send + Sync>,
}

impl Packed {
    /// Packs `weight` [n, depth], as PyTorch's linear layers store it.
    pub(crate) fn new(isa: Isa, n: usize, depth: usize, weight: &[f32]) -> Self {
        assert_eq!(weight.len(), n * depth);
        let panels: Box<dyn Any + Send + Sync> = match isa {
            Isa::Avx512Bf16 => Box::new(panels::<Pair>(columns(isa), n, depth, weight)),
            _ => Box::new(panels::<f32>(columns(isa), n, depth, weight)),
        };
        Self { isa, n, words: isa.words(depth), panels }
    }

    /// Output columns.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Words of a row of the left operand.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// The instruction set it is packed for.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Columns of a panel.
    pub(super) fn columns(&self) -> usize {
        columns(self.isa)
    }

    /// Panels of columns.
    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(self.columns())
    }

    /// Its words.
    ///
    /// # Panics
    /// When it was packed for an instruction set of other words.
    pub(super) fn lines<W: Word>(&self) -> &[CacheLine<W>] {
        let Some(lines) = self.panels.downcast_ref::<Vec<CacheLine<W>>>() else {
            panic!("a weight is packed for {:?} alone", self.isa)
        };
        lines
    }
}

/// The panels of `columns` columns of a weight [n, depth].
fn panels<W: Word>(columns: usize, n: usize, depth: usize, weight: &[f32]) -> Vec<CacheLine<W>> {
    let words = depth.div_ceil(W::VALUES);
    let count = (n.div_ceil(columns) * words * columns).div_ceil(LINE_WORDS);
    let mut lines = vec![CacheLine([W::default(); LINE_WORDS]); count];
    for (row, values) in weight.chunks_exact(depth.max(1)).enumerate() {
        let (panel, column) = (row / columns, row % columns);
        for (k, values) in values.chunks(W::VALUES).enumerate() {
            let at = (panel * words + k) * columns + column;
            lines[at / LINE_WORDS].0[at % LINE_WORDS] = W::of(values);
        }
    }
    lines
}

/// A layer's weight and bias, packed, and what takes gradients back through it.
pub(crate) struct PackedLayer {
    pub(crate) weight: Packed,
    pub(crate) bias: Option<Vec<f32>>,
    transposed: Option<Packed>,
}

impl PackedLayer {
    /// Packs `weight` [n, depth] for `isa`, transposed too where it is to be `differentiable`.
    pub(crate) fn new(
        isa: Isa,
        differentiable: bool,
        [n, depth]: [usize; 2],
        weight: &[f32],
        bias: Option<&Tensor>,
    ) -> Self {
        let transposed = differentiable.then(|| {
            let columns: Vec<f32> = (0..n * depth).map(|i| weight[i % n * depth + i / n]).collect();
            Packed::new(isa, depth, n, &columns)
        });
        Self { weight: Packed::new(isa, n, depth, weight), bias: bias.map(vector), transposed }
    }

    /// The transposed weight [depth, n].
    ///
    /// # Errors
    /// When the layer was built without.
    pub(crate) fn transposed(&self) -> Result<&Packed> {
        self.transposed.as_ref().ok_or_else(|| {
            let why =
                "this network was built for inference: `Weights::differentiable` builds one with gradients";
            candle_core::Error::Msg(why.to_owned()).bt()
        })
    }
}
