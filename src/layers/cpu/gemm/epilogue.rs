//! What happens to a tile of sums on its way from the L1 cache to the output.

use std::ops::Range;

use super::cells::Cells;
use super::packed::PackedLayer;
use crate::layers::parts::Activation;
use crate::simd::Simd;

/// out[r, c] = residual[r, c] + gamma[c] · activation(sum[r, c] + bias[c]) · times[r, c]
#[derive(Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    /// [n], or nothing to add.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) activation: Activation,
    /// Takes the derivative of GELU in its place.
    pub(crate) slope: bool,
    /// [rows, n], like the output.
    pub(crate) times: Option<&'a [f32]>,
    /// [rows, n], like the output.
    pub(crate) residual: Option<&'a [f32]>,
    /// [n]; only beside a residual.
    pub(crate) gamma: Option<&'a [f32]>,
}

impl<'a> Epilogue<'a> {
    /// A layer's bias, and `activation` behind it.
    pub(crate) fn of(layer: &'a PackedLayer, activation: Activation) -> Self {
        Self { bias: layer.bias.as_deref(), activation, ..Self::default() }
    }

    /// That its slices are those of an output of so many rows and columns.
    #[inline(always)]
    pub(super) fn check(&self, rows: usize, columns: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == columns));
        assert!(self.gamma.is_none_or(|gamma| gamma.len() == columns));
        assert!(self.residual.is_none_or(|residual| residual.len() == rows * columns));
        assert!(self.times.is_none_or(|times| times.len() == rows * columns));
    }
}

/// Where a tile belongs in the output.
pub(super) struct TilePlace {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// Vectors of the tile's rows, of which some columns may lie outside.
    pub(super) vectors: usize,
}

/// Applies the epilogue to a tile of sums and stores it.
///
/// # Safety
/// `sums` holds the tile, `place` lies inside `cells` and the epilogue's slices, and no other task writes there.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd>(
    s: S,
    sums: *const f32,
    place: &TilePlace,
    epilogue: &Epilogue,
    cells: impl Cells<S>,
) {
    let width = cells.columns();
    // Copies: what lies behind a reference might change with every value that is stored.
    let &Epilogue { bias, activation, slope, times, residual, gamma } = epilogue;
    for vector in 0..place.vectors {
        let first = place.columns.start + vector * S::LANES;
        let n = S::LANES.min(place.columns.end.saturating_sub(first));
        if n == 0 {
            continue;
        }
        // SAFETY: `n` columns from `first` on, inside everything that is indexed by column.
        unsafe {
            let bias = bias.map(|bias| bias.as_ptr().add(first));
            let gamma = gamma.map(|gamma| gamma.as_ptr().add(first));
            // Looked at once a tile: vectors, and a 1 where nothing scales.
            let bias = if let Some(bias) = bias { s.load_first(bias, n) } else { s.splat(0.0) };
            let gamma = if let Some(gamma) = gamma { s.load_first(gamma, n) } else { s.splat(1.0) };
            for (r, row) in place.rows.clone().enumerate() {
                let mut v = s.add(s.load(sums.add((place.vectors * r + vector) * S::LANES)), bias);
                v = match activation {
                    Activation::None => v,
                    Activation::Gelu if slope => s.gelu_derivative(v),
                    Activation::Gelu => s.gelu(v),
                    // The zero second: NaN stays NaN.
                    Activation::Relu => s.max(s.splat(0.0), v),
                };
                if let Some(times) = times {
                    v = s.mul(v, s.load_first(times.as_ptr().add(row * width + first), n));
                }
                if let Some(residual) = residual {
                    let x = residual.as_ptr().add(row * width + first);
                    v = s.fma(v, gamma, s.load_first(x, n));
                }
                cells.put(s, row, first, v, n);
            }
        }
    }
}
