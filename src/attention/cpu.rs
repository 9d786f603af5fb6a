//! Neighborhood attention in f32 on all cores, written against [`Simd`].
//!
//! The work is cut into tiles: some columns of queries of one image, head and dilation class. A class
//! is a map of its own without dilation ([`Class`]), so the kernel knows none. Row by row, a tile
//! copies the keys and values that its windows reach into a scratch of its thread, keys transposed, and
//! takes its queries in pairs of neighbours:
//!
//! - scores with keys as lanes: the windows of two neighbouring queries start at most one key apart, so
//!   at K = 7 a row of both lies in the same eight lanes, borders included, and each load of keys
//!   serves both queries;
//! - softmax over the K² scores, which the L1 cache holds;
//! - outputs with channels as lanes, where each load of values serves both queries.
//!
//! At K = 7 a tile is as wide as one cache line of keys: no load straddles two lines, and the keys and
//! values of a window stay in the L1 cache from one row of queries to the next.
//!
//! Where a class is padded, the scratch has the padded keys too: those of a row beside its pixels, and one row for all
//! rows that are padded, since these are alike.
//!
//! Here is what the forward pass (`forward.rs`) and the gradient (`grad.rs`) share: tiles and their scratch. The
//! steps through it, which are the inner loops, are in `steps.rs`.

// Vectors are indexed beside others of another array: zips of arrays of them leave the registers.
#![allow(clippy::needless_range_loop)]

mod forward;
mod grad;
mod steps;

use std::cell::RefCell;
use std::ops::Range;

use self::steps::{add_bias, blocks, dots_of, exponentials, mix_all};
use super::Problem;
use super::window::Class;
use crate::simd::{Isa, Kernel, Simd};

pub(super) use forward::forward;
pub(super) use grad::backward;

/// Tiles a thread, at least, so that all threads end together.
const TILES_PER_THREAD: usize = 4;
/// Rows of queries in a tile, at most: the scratch of 32 channels then takes a quarter of a megabyte.
const ROWS: usize = 64;
/// Pairs of queries that go through scores, softmax and outputs together.
const BATCH: usize = 8;
/// f32 values of a cache line.
const LINE: usize = 16;
/// Values before and after the bias table: the lanes outside a window read up to eight.
const BIAS_PAD: usize = 8;

/// The bias table between [`BIAS_PAD`] values on either side.
fn padded(problem: &Problem, rpb: &[f32]) -> Vec<f32> {
    assert_eq!(rpb.len(), problem.heads * problem.bias_side * problem.bias_side);
    let mut bias = vec![0.0; BIAS_PAD + rpb.len() + BIAS_PAD];
    bias[BIAS_PAD..][..rpb.len()].copy_from_slice(rpb);
    bias
}

/// The output, which jobs write at distinct places.
struct Output(*mut f32);

// SAFETY: each job writes the pixels of its tile and the channels of its head, which no other has.
unsafe impl Sync for Output {}

/// A rectangle of queries of one dilation class.
struct Tile {
    rows: Class,
    columns: Class,
    y: Range<usize>,
    x: Range<usize>,
}

/// Cuts the columns of a class into ranges, even but for the last, whose keys fit into [`pitch`].
fn strips(class: Class, kernel_size: usize) -> impl Iterator<Item = Range<usize>> {
    let reach = pitch(kernel_size) - row_lanes(kernel_size);
    let mut end = 0;
    std::iter::from_fn(move || {
        let start = end;
        while end < class.size() && class.start(end) <= class.start(start) + reach {
            end = (end + 2).min(class.size());
        }
        (start < end).then_some(start..end)
    })
}

/// Lanes that a row of a window takes, in vectors of eight.
#[inline(always)]
fn row_lanes(kernel_size: usize) -> usize {
    kernel_size.next_multiple_of(8)
}

/// Columns of keys that a tile holds, in whole cache lines.
#[inline(always)]
fn pitch(kernel_size: usize) -> usize {
    (row_lanes(kernel_size) + 8).next_multiple_of(LINE)
}

/// 0..n in `parts` ranges whose lengths differ by at most one.
#[inline(always)]
fn even_parts(n: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |i| i * n / parts..(i + 1) * n / parts)
}

/// One query: its place in the tile's class, and where its window starts.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Query {
    y: usize,
    x: usize,
    window_y: usize,
    window_x: usize,
}

impl Tile {
    #[inline(always)]
    fn query(&self, y: usize, x: usize) -> Query {
        Query { y, x, window_y: self.rows.start(y), window_x: self.columns.start(x) }
    }

    /// The query after `query`, row by row.
    #[inline(always)]
    fn after(&self, query: Query) -> Option<Query> {
        if query.x + 1 < self.x.end {
            Some(self.query(query.y, query.x + 1))
        } else if query.y + 1 < self.y.end {
            Some(self.query(query.y + 1, self.x.start))
        } else {
            None
        }
    }

    /// `first` and the query after it if their windows lie in the same rows and start at most `slack`
    /// apart, else `first` twice; the leftmost window first. And the query after them.
    #[inline(always)]
    fn pair(&self, first: Query, slack: usize) -> ([Query; 2], Option<Query>) {
        match self.after(first) {
            Some(second)
                if second.window_y == first.window_y && second.window_x.abs_diff(first.window_x) <= slack =>
            {
                let pair = if first.window_x <= second.window_x { [first, second] } else { [second, first] };
                (pair, self.after(second))
            }
            next => ([first; 2], next),
        }
    }

    /// Takes up to [`BATCH`] pairs with windows in the same rows, from `next` on, and returns how many.
    #[inline(always)]
    fn batch(&self, next: &mut Option<Query>, slack: usize, pairs: &mut [[Query; 2]; BATCH]) -> usize {
        let (mut count, mut window_y) = (0, None);
        while let Some(first) = *next
            && *window_y.get_or_insert(first.window_y) == first.window_y
            && count < BATCH
        {
            (pairs[count], *next) = self.pair(first, slack);
            count += 1;
        }
        count
    }
}

/// The places that the windows of the queries at `places` of `class` reach.
fn reach(class: Class, places: &Range<usize>, kernel_size: usize) -> Range<usize> {
    class.start(places.start)..class.start(places.end - 1) + kernel_size
}

/// The same of rows, of which one stands for all that are padded.
fn reach_rows(class: Class, places: &Range<usize>, kernel_size: usize) -> Range<usize> {
    let Range { start, end } = reach(class, places, kernel_size);
    start..end.min(class.size() + 1)
}

/// Where a head's channels lie in a tensor [B, H, W, channels], by the places of a class's pixels.
#[derive(Clone, Copy)]
struct Pixels {
    first: usize,
    row: usize,
    column: usize,
}

impl Pixels {
    /// Those of a tile's classes in an image of so many channels.
    #[inline(always)]
    fn new(problem: &Problem, image: usize, head: usize, tile: &Tile, channels: usize) -> Self {
        let &Problem { height, width, dim, .. } = problem;
        let first = (image * height + tile.rows.position(0)) * width + tile.columns.position(0);
        Self {
            first: first * channels + head * dim,
            row: tile.rows.dilation() * width * channels,
            column: tile.columns.dilation() * channels,
        }
    }

    #[inline(always)]
    fn at(&self, y: usize, x: usize) -> usize {
        self.first + y * self.row + x * self.column
    }
}

/// Where a tile's queries, keys and values come from.
#[derive(Clone, Copy)]
struct Source<'a> {
    /// [B, H, W, 3, heads, dim]
    qkv: &'a [f32],
    /// Those of the tile's head.
    pixels: Pixels,
    /// Of a padded position [3, heads, dim], from the tile's head on; empty where there is none.
    pad: &'a [f32],
    /// From q to k and from k to v.
    channels: usize,
}

/// A row of a tile's keys, or of its values.
struct Line<'a> {
    /// Begins with the first one, of which `real` are there, `stride` apart.
    from: &'a [f32],
    stride: usize,
    real: usize,
    /// All others.
    pad: &'a [f32],
}

impl<'a> Source<'a> {
    /// Those of a head of an image; `pad` [3, heads, dim] may be empty.
    #[inline(always)]
    fn new(
        problem: &Problem,
        qkv: &'a [f32],
        pad: &'a [f32],
        image: usize,
        head: usize,
        tile: &Tile,
    ) -> Self {
        let channels = problem.heads * problem.dim;
        Self {
            qkv,
            pixels: Pixels::new(problem, image, head, tile, 3 * channels),
            pad: pad.get(head * problem.dim..).unwrap_or_default(),
            channels,
        }
    }

    /// Row `y` of the keys (1) or values (2) of a tile, whose columns begin at place `x`.
    #[inline(always)]
    fn line(&self, layout: &Layout, tile: &Tile, part: usize, y: usize, x: usize) -> Line<'a> {
        let (skipped, stride) = (part * self.channels, self.pixels.column);
        let (from, real) = match y < tile.rows.size() {
            true => (&self.qkv[self.pixels.at(y, x) + skipped..], layout.real),
            false => (&[][..], 0),
        };
        Line { from, stride, real, pad: self.pad.get(skipped..).unwrap_or_default() }
    }
}

/// How a tile lies in its scratch.
struct Layout {
    kernel_size: usize,
    dim: usize,
    /// Rows of a window that are not alike: K, or fewer where some are padded.
    rows: usize,
    /// Columns of keys and of values.
    columns: usize,
    /// How many of these are not padded.
    real: usize,
    /// Lanes that a row of a window takes; the scores of a query are [row][lane].
    row_lanes: usize,
    /// Keys are [row][channel][column], columns padded to `pitch`.
    pitch: usize,
    key_row: usize,
    /// Values are [row][column][channel], channels padded to `value`.
    value: usize,
    value_row: usize,
}

impl Layout {
    /// That of a tile whose windows reach these columns.
    #[inline(always)]
    fn new<S: Simd>(dim: usize, kernel_size: usize, tile: &Tile, columns: &Range<usize>) -> Self {
        let (pitch, value) = (pitch(kernel_size), dim.next_multiple_of(S::LANES));
        let Range { start, end } = *columns;
        let columns = end - start;
        Self {
            kernel_size,
            dim,
            rows: kernel_size.min(tile.rows.size() + 1),
            columns,
            real: end.min(tile.columns.size()) - start,
            row_lanes: row_lanes(kernel_size),
            pitch,
            key_row: dim * pitch,
            value,
            value_row: columns * value,
        }
    }

    /// Scores of two queries.
    #[inline(always)]
    fn pair_lanes(&self) -> usize {
        2 * self.kernel_size * self.row_lanes
    }

    /// How far apart the windows of a pair may start.
    #[inline(always)]
    fn slack(&self) -> usize {
        (self.row_lanes - self.kernel_size).min(1)
    }

    /// Of the queries whose windows start at lanes 0 and 1: ∞ in the lanes of the window, −∞ in others.
    #[inline(always)]
    fn mask(&self, masks: &mut [f32]) {
        for (shift, mask) in masks.chunks_exact_mut(self.row_lanes).enumerate() {
            for (lane, mask) in mask.iter_mut().enumerate() {
                let inside = (shift..shift + self.kernel_size).contains(&lane);
                *mask = if inside { f32::INFINITY } else { f32::NEG_INFINITY };
            }
        }
    }
}

/// What makes probabilities of a tile's q·k.
struct Softmax<'a> {
    problem: &'a Problem,
    tile: &'a Tile,
    head: usize,
    /// The bias table between [`BIAS_PAD`] values on either side.
    bias: &'a [f32],
    /// Two, as [`Layout::mask`] makes them.
    masks: &'a [f32],
}

impl Softmax<'_> {
    /// Where the biases of a query's window begin in `bias`, whose lanes count from `first_x`.
    #[inline(always)]
    fn bias_at(&self, query: &Query, first_x: usize) -> usize {
        let (y, x) = (self.tile.rows.bias(query.y), self.tile.columns.bias(query.x));
        let (side, shift) = (self.problem.bias_side, query.window_x - first_x);
        BIAS_PAD + (self.head * side + y) * side + x - shift
    }

    /// The mask of a query whose lanes count from `first_x`.
    #[inline(always)]
    fn mask(&self, layout: &Layout, query: &Query, first_x: usize) -> &[f32] {
        &self.masks[(query.window_x - first_x) * layout.row_lanes..][..layout.row_lanes]
    }

    /// Makes e^(score − largest) of the q·k of a batch, and `factors` of their sums: p is the product.
    #[inline(always)]
    fn run<N: Simd>(
        &self,
        n: N,
        layout: &Layout,
        pairs: &[[Query; 2]],
        scores: &mut [f32],
        factors: &mut [[f32; 2]],
    ) {
        let &Problem { dim, bias_side, .. } = self.problem;
        let lanes = layout.pair_lanes() / 2;
        let scale = (dim as f32).sqrt().recip();
        for (i, factor) in factors.as_flattened_mut().iter_mut().enumerate() {
            let (first_x, query) = (pairs[i / 2][0].window_x, &pairs[i / 2][i % 2]);
            let bias = &self.bias[self.bias_at(query, first_x)..];
            let mask = self.mask(layout, query, first_x);
            *factor = add_bias(n, mask, &mut scores[i * lanes..][..lanes], scale, bias, bias_side);
        }
        // A loop of its own: the processor works on the exponentials of several queries at a time.
        for (i, factor) in factors.as_flattened_mut().iter_mut().enumerate() {
            *factor = exponentials(n, &mut scores[i * lanes..][..lanes], *factor).recip();
        }
    }
}

/// Copies a line of a tile, channels to rows: up to the last lane of the last window, with the last column again
/// after it, or what it is padded with.
#[inline(always)]
fn transpose_row<S: Simd>(s: S, layout: &Layout, line: &Line, to: &mut [f32]) {
    let &Layout { kernel_size, dim, columns, row_lanes, pitch, .. } = layout;
    let &Line { from, stride, real, pad } = line;
    assert!(real == 0 || from.len() >= (real - 1) * stride + dim);
    assert!(real <= columns && (real == columns || pad.len() >= dim) && to.len() >= dim * pitch);
    let others = if real == columns { from.as_ptr().wrapping_add((real - 1) * stride) } else { pad.as_ptr() };
    for column in (0..(columns + row_lanes - kernel_size).min(pitch)).step_by(8) {
        let mut pixels = [others; 8];
        for (lane, pixel) in pixels.iter_mut().enumerate() {
            if column + lane < real {
                *pixel = from.as_ptr().wrapping_add((column + lane) * stride);
            }
        }
        // SAFETY: `from` has `dim` values of each real column, and so has `pad`, or `from` for the last column, of
        // the others; `to` has pitch values of each channel, in eights.
        unsafe { s.transpose(pixels, dim, to.as_mut_ptr().add(column), pitch) };
    }
}

/// Copies a line of a tile.
#[inline(always)]
fn copy_row<S: Simd>(s: S, layout: &Layout, line: &Line, to: &mut [f32]) {
    let &Layout { dim, columns, value, .. } = layout;
    for (column, to) in to[..columns * value].chunks_exact_mut(value).enumerate() {
        let from = if column < line.real { &line.from[column * line.stride..] } else { line.pad };
        let from = &from[..dim];
        for c in (0..dim).step_by(S::LANES) {
            // SAFETY: `to` has whole vectors, `from` as many values as are read.
            unsafe {
                let (from, to) = (from.as_ptr().add(c), to.as_mut_ptr().add(c));
                if c + S::LANES <= dim {
                    s.store(to, s.load(from));
                } else {
                    s.store(to, s.load_first(from, dim - c));
                }
            }
        }
    }
}

/// Slices of `buffer` of these sizes, each from a cache line on.
fn slices<const N: usize>(buffer: &mut Vec<f32>, sizes: [usize; N]) -> [&mut [f32]; N] {
    let total: usize = sizes.iter().map(|n| n.next_multiple_of(LINE)).sum();
    if buffer.len() < total + LINE {
        buffer.resize(total + LINE, 0.0);
    }
    let start = buffer.as_ptr().align_offset(size_of::<f32>() * LINE);
    let mut rest = &mut buffer[start..];
    sizes.map(|n| {
        let (slice, tail) = std::mem::take(&mut rest).split_at_mut(n.next_multiple_of(LINE));
        rest = tail;
        &mut slice[..n]
    })
}
