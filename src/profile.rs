//! Where the time of a forward pass goes, by kind of layer.
//!
//! Layers open a span for their whole call. It costs one look at a thread's own flag until
//! [`record`] asks for figures; the layers of one pass all run on the thread that calls them.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// What layers do for a network. A fused layer counts as what it is around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Convolutions, with the norm behind them.
    Convolution,
    /// Linear layers with a norm before them: qkv, and DiNAT_s's patch merging.
    Qkv,
    /// The neighborhood attention operator.
    Attention,
    /// Linear layers with a residual behind them.
    Proj,
    /// Both linear layers of a block, their norm, GELU and residual.
    Mlp,
    /// Layer norms that stand alone.
    Norm,
    /// Linear layers that stand alone.
    Linear,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Convolution, Self::Qkv, Self::Attention, Self::Proj, Self::Mlp, Self::Norm, Self::Linear];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Convolution => "convolution",
            Self::Qkv => "qkv",
            Self::Attention => "attention",
            Self::Proj => "proj",
            Self::Mlp => "mlp",
            Self::Norm => "norm",
            Self::Linear => "linear",
        }
    }
}

/// Time and arithmetic of one kind of layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Calls.
    pub calls: usize,
    /// Wall time.
    pub time: Duration,
    /// Multiply-accumulates.
    pub macs: u64,
}

/// The totals of a recording, by [`Kind`].
pub type Totals = [Total; Kind::ALL.len()];

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Recording {
    totals: Totals,
    /// A layer inside another is a part of that one.
    depth: usize,
}

/// Runs `f` and gives what the layers took that it called on this thread.
pub fn record<T>(f: impl FnOnce() -> T) -> (T, Totals) {
    RECORDING.set(Some(Recording::default()));
    let result = f();
    (result, RECORDING.take().unwrap_or_default().totals)
}

/// Measures until it is dropped.
pub(crate) struct Span(Option<(Kind, u64, Instant)>);

/// Begins a layer of `kind` that does `macs` multiply-accumulates.
pub(crate) fn span(kind: Kind, macs: usize) -> Span {
    RECORDING.with_borrow_mut(|recording| {
        Span(recording.as_mut().map(|recording| {
            recording.depth += 1;
            (kind, macs as u64, Instant::now())
        }))
    })
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some((kind, macs, start)) = self.0 else { return };
        RECORDING.with_borrow_mut(|recording| {
            let Some(recording) = recording else { return };
            recording.depth -= 1;
            if recording.depth == 0 {
                let total = &mut recording.totals[kind as usize];
                *total = Total {
                    calls: total.calls + 1,
                    time: total.time + start.elapsed(),
                    macs: total.macs + macs,
                };
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_layers_are_counted_inner_ones_are_not() {
        drop(span(Kind::Norm, 1));
        let ((), totals) = record(|| {
            for _ in 0..2 {
                let _mlp = span(Kind::Mlp, 10);
                drop(span(Kind::Norm, 3));
            }
            drop(span(Kind::Norm, 4));
        });
        let counted = Kind::ALL.map(|kind| (totals[kind as usize].calls, totals[kind as usize].macs));
        assert_eq!(counted, [(0, 0), (0, 0), (0, 0), (0, 0), (2, 20), (1, 4), (0, 0)]);
        assert!(totals[Kind::Mlp as usize].time > Duration::ZERO);
        assert_eq!(record(|| ()).1, Totals::default());
    }
}
