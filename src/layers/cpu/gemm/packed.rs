//! The right operand of a product: a weight, packed once in the order in which tiles read it.

use std::any::Any;

use candle_core::{Result, Tensor};
use half::bf16;

use super::geometry::PanelCut;
use super::panels::{CacheLine, LINE_WORDS, PanelLines, Panels};
use crate::simd::{Isa, Pair, Word};
use crate::tensors::vector;

/// A weight matrix [n, depth] in the order in which tiles read it: panels of two or three vectors of output
/// columns, each [words of depth, columns], the last one filled up with zeros.
pub(crate) struct Packed {
    isa: Isa,
    n: usize,
    words: usize,
    /// A `Vec` of [`CacheLine`]s: of the words that the instruction set multiplies, or of pairs where those are f32.
    panels: Box<dyn Any + Send + Sync>,
    halved: bool,
}

impl Packed {
    /// Packs `weight` [n, depth], as PyTorch's linear layers store it.
    pub(crate) fn new(isa: Isa, n: usize, depth: usize, weight: &[f32]) -> Self {
        let cut = PanelCut::new(isa, n);
        let panels: Box<dyn Any + Send + Sync> = match isa {
            Isa::Avx512Bf16 => Box::new(panels::<Pair>(cut, depth, weight)),
            _ => Box::new(panels::<f32>(cut, depth, weight)),
        };
        Self::of(isa, n, depth, weight, panels, false)
    }

    /// Packs `weight` [n, depth] rounded to bf16, for an instruction set that multiplies f32: half the memory, and half
    /// of what has to come from it.
    pub(crate) fn halved(isa: Isa, n: usize, depth: usize, weight: &[f32]) -> Self {
        Self::of(isa, n, depth, weight, Box::new(halved_panels(PanelCut::new(isa, n), depth, weight)), true)
    }

    fn of(
        isa: Isa,
        n: usize,
        depth: usize,
        weight: &[f32],
        panels: Box<dyn Any + Send + Sync>,
        halved: bool,
    ) -> Self {
        assert_eq!(weight.len(), n * depth);
        Self { isa, n, words: isa.words(depth), panels, halved }
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

    /// Panels of columns.
    pub(crate) fn panels(&self) -> usize {
        self.cut().count()
    }

    fn cut(&self) -> PanelCut {
        PanelCut::new(self.isa, self.n)
    }

    /// Bytes that its panels take.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        let lines = |found: Option<usize>| size_of::<CacheLine<f32>>() * found.unwrap_or_default();
        lines(self.panels.downcast_ref().map(Vec::<CacheLine<f32>>::len))
            + lines(self.panels.downcast_ref().map(Vec::<CacheLine<Pair>>::len))
    }

    /// What tiles read.
    ///
    /// # Panics
    /// When it was packed for an instruction set of other words.
    pub(super) fn data<W: Word>(&self) -> Panels<'_, W> {
        let halved = self.panels.downcast_ref::<Vec<_>>().filter(|_| self.halved);
        let whole = self.panels.downcast_ref::<Vec<_>>().filter(|_| !self.halved);
        let lines = match (halved, whole) {
            (Some(lines), _) => PanelLines::Halved(lines),
            (_, Some(lines)) => PanelLines::Whole(lines),
            _ => panic!("a weight is packed for {:?} alone", self.isa),
        };
        Panels::new(self.cut(), self.words, lines)
    }
}

/// The panels of a weight [n, depth].
fn panels<W: Word>(cut: PanelCut, depth: usize, weight: &[f32]) -> Vec<CacheLine<W>> {
    let words = depth.div_ceil(W::VALUES);
    let mut lines = lines(words * cut.columns());
    for (row, values) in weight.chunks_exact(depth.max(1)).enumerate() {
        let panel = cut.panel(cut.panel_of(row));
        for (k, values) in values.chunks(W::VALUES).enumerate() {
            let at = panel.start * words + k * panel.len() + row - panel.start;
            lines[at / LINE_WORDS].0[at % LINE_WORDS] = W::of(values);
        }
    }
    lines
}

/// The panels of a weight [n, depth] in bf16, two values in a word.
fn halved_panels(cut: PanelCut, depth: usize, weight: &[f32]) -> Vec<CacheLine<Pair>> {
    let mut lines: Vec<CacheLine<Pair>> = lines((depth * cut.columns()).div_ceil(2));
    for (row, values) in weight.chunks_exact(depth.max(1)).enumerate() {
        let panel = cut.panel(cut.panel_of(row));
        for (k, &value) in values.iter().enumerate() {
            let at = panel.start * depth + k * panel.len() + row - panel.start;
            lines[at / 2 / LINE_WORDS].0[at / 2 % LINE_WORDS].0[at % 2] = bf16::from_f32(value);
        }
    }
    lines
}

/// Lines of so many words, which are zero.
fn lines<W: Word>(words: usize) -> Vec<CacheLine<W>> {
    vec![CacheLine([W::default(); LINE_WORDS]); words.div_ceil(LINE_WORDS)]
}

/// A layer's weight and bias, packed, and what takes gradients back through it.
pub(crate) struct PackedLayer {
    pub(crate) weight: Packed,
    pub(crate) bias: Option<Vec<f32>>,
    transposed: Option<Packed>,
}

impl PackedLayer {
    /// Packs `weight` [n, depth] as `pack` does, transposed too where it is to be `differentiable`.
    pub(crate) fn new(
        pack: impl Fn(usize, usize, &[f32]) -> Packed,
        differentiable: bool,
        [n, depth]: [usize; 2],
        weight: &[f32],
        bias: Option<&Tensor>,
    ) -> Self {
        let transposed = differentiable.then(|| {
            let columns: Vec<f32> = (0..n * depth).map(|i| weight[i % n * depth + i / n]).collect();
            pack(depth, n, &columns)
        });
        Self { weight: pack(n, depth, weight), bias: bias.map(vector), transposed }
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
