//! A weight's panels as tiles read them: in place, or widened first.

use std::ops::Range;

use half::bf16;

use super::geometry::{PanelCut, part};
use crate::simd::{Pair, Simd, Word, second_cache};

/// Words of a cache line.
pub(super) const LINE_WORDS: usize = 16;

/// Its bytes.
pub(super) const LINE_BYTES: usize = 4 * LINE_WORDS;

/// A cache line, for alignment.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct CacheLine<W>(pub(super) [W; LINE_WORDS]);

/// A weight's panels, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a, W> {
    cut: PanelCut,
    /// Words of depth.
    words: usize,
    lines: PanelLines<'a, W>,
    /// Whether memory is asked for panels ahead of time.
    asked: bool,
}

/// What they lie in memory as, [words of depth, columns] of each panel.
#[derive(Clone, Copy)]
pub(super) enum PanelLines<'a, W> {
    /// Words as they are multiplied.
    Whole(&'a [CacheLine<W>]),
    /// Values in bf16, two in a word, where f32 is multiplied.
    Halved(&'a [CacheLine<Pair>]),
}

impl<'a, W: Word> Panels<'a, W> {
    /// Those of a weight that is cut so, of so many words of depth.
    pub(super) fn new(cut: PanelCut, words: usize, lines: PanelLines<'a, W>) -> Self {
        let all = words * cut.columns();
        match lines {
            PanelLines::Whole(lines) => assert!(lines.len() * LINE_WORDS >= all),
            PanelLines::Halved(lines) => assert!(lines.len() * LINE_WORDS * 2 >= all && W::VALUES == 1),
        }
        // What stays in the second cache is there without asking, which costs where outputs are written as fast.
        Self { cut, words, lines, asked: is_large(all) }
    }

    /// The columns of a panel.
    #[inline(always)]
    pub(super) fn columns(&self, panel: usize) -> Range<usize> {
        self.cut.panel(panel)
    }

    /// The words of a panel's `depth`, for vectors of `S`; in `room` where they have to be made.
    #[inline(always)]
    pub(super) fn words<S: Simd<Word = W>>(
        &self,
        s: S,
        panel: usize,
        depth: &Range<usize>,
        room: &mut Vec<CacheLine<f32>>,
    ) -> *const W {
        let (first, count) = self.place(panel, depth);
        assert!(panel < self.cut.count() && depth.end <= self.words);
        match self.lines {
            PanelLines::Whole(lines) => lines.as_ptr().cast::<W>().wrapping_add(first),
            PanelLines::Halved(lines) => {
                assert!(count.is_multiple_of(S::LANES));
                let values = lines.as_ptr().cast::<bf16>().wrapping_add(first);
                room.resize(count.div_ceil(LINE_WORDS), CacheLine::default());
                let to = room.as_mut_ptr().cast::<f32>();
                for i in (0..count).step_by(S::LANES) {
                    // SAFETY: the panel and its depth are there (asserted here and when made), and so is the room.
                    unsafe { s.store(to.add(i), s.load_bf16(values.add(i))) };
                }
                // A word is an f32 (asserted when made).
                to.cast_const().cast()
            }
        }
    }

    /// The `i`-th of `shares` of what is asked of memory before a panel's `depth` is read.
    #[inline(always)]
    pub(super) fn upcoming(&self, panel: usize, depth: &Range<usize>, shares: usize, i: usize) -> Upcoming {
        if !self.asked {
            return Upcoming::NOTHING;
        }
        let (first, count) = self.place(panel, depth);
        let (lines, first, count) = match self.lines {
            PanelLines::Whole(lines) => (lines.as_ptr().cast::<f32>(), first, count),
            PanelLines::Halved(lines) => (lines.as_ptr().cast(), first / 2, count / 2),
        };
        let share = part(count / LINE_WORDS, shares, i);
        Upcoming { first: lines.wrapping_add(first + share.start * LINE_WORDS), lines: share.len() }
    }

    /// Where the words of a panel's `depth` begin, and how many they are.
    #[inline(always)]
    fn place(&self, panel: usize, depth: &Range<usize>) -> (usize, usize) {
        let columns = self.cut.panel(panel);
        (columns.start * self.words + depth.start * columns.len(), depth.len() * columns.len())
    }
}

/// Cache lines that a later tile reads. A panel lies in pages of its own, of which the processor does not guess the next
/// one: without asking, a tile waits for memory as long as it computes.
#[derive(Clone, Copy)]
pub(super) struct Upcoming {
    /// The first one; need not be valid.
    pub(super) first: *const f32,
    pub(super) lines: usize,
}

impl Upcoming {
    /// Nothing is asked for.
    pub(super) const NOTHING: Self = Self { first: std::ptr::null(), lines: 0 };
}

/// Whether so many words of a weight do not stay in the second cache beside rows and outputs.
pub(crate) fn is_large(words: usize) -> bool {
    4 * words > second_cache() / 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    /// What the tiles of a block ask for together is the panel that is read next: every line once, and no other.
    #[test]
    fn shares_of_what_is_asked_are_the_panel() {
        let (words, n) = (700, 1000);
        let cut = PanelCut::new(Isa::Portable, n);
        let lines = vec![CacheLine([0f32; LINE_WORDS]); (words * cut.columns()).div_ceil(LINE_WORDS)];
        // Asked for whatever the cache of this machine keeps.
        let panels = Panels { asked: true, ..Panels::new(cut, words, PanelLines::Whole(&lines)) };
        let line_of = |p: *const f32| (p as usize - lines.as_ptr() as usize) / LINE_BYTES;
        for (panel, shares) in [(0, 1), (3, 4), (cut.count() - 1, 7)] {
            let asked = (0..shares).flat_map(|i| {
                let Upcoming { first, lines } = panels.upcoming(panel, &(0..words), shares, i);
                line_of(first)..line_of(first) + lines
            });
            let first = cut.panel(panel).start * words / LINE_WORDS;
            let count = cut.panel(panel).len() * words / LINE_WORDS;
            let want: Vec<usize> = (first..first + count).collect();
            assert_eq!(asked.collect::<Vec<_>>(), want, "panel {panel} in {shares} shares");
        }
    }
}
