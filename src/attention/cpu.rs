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

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::Problem;
use super::window::Class;
use crate::layers::simd::{Isa, Kernel, Simd};

/// Tiles a thread, at least, so that all threads end together.
const TILES_PER_THREAD: usize = 4;
/// Rows of queries in a tile, at most: the scratch of 32 channels then takes a quarter of a megabyte.
const ROWS: usize = 64;
/// Pairs of queries that go through scores, softmax and outputs together.
const BATCH: usize = 8;
/// f32 values of a cache line.
const LINE: usize = 16;
/// Values before and after the bias table: lanes outside a window read up to so many.
const BIAS_PAD: usize = 8;

/// The output [B, H, W, heads·dim] for `qkv` [B, H, W, 3·heads·dim] and `rpb` [heads, 2K−1, 2K−1].
pub(super) fn forward(problem: &Problem, isa: Isa, qkv: &[f32], rpb: &[f32]) -> Vec<f32> {
    let &Problem { batch, height, width, heads, dim, bias_side, .. } = problem;
    let values = batch * height * width * heads * dim;
    assert_eq!(qkv.len(), 3 * values);
    assert_eq!(rpb.len(), heads * bias_side * bias_side);
    let mut bias = vec![0.0; BIAS_PAD + rpb.len() + BIAS_PAD];
    bias[BIAS_PAD..][..rpb.len()].copy_from_slice(rpb);

    let tiles = tiles(problem, rayon::current_num_threads());
    let mut out = Vec::with_capacity(values);
    let shared = Output(out.as_mut_ptr());
    (0..batch * tiles.len() * heads).into_par_iter().with_max_len(1).for_each(|job| {
        thread_local!(static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
        // Heads last: those of a pixel share pages.
        let (job, head) = (job / heads, job % heads);
        let (image, tile) = (job / tiles.len(), &tiles[job % tiles.len()]);
        SCRATCH.with_borrow_mut(|scratch| {
            isa.run(Attend { problem, qkv, bias: &bias, out: &shared, image, head, tile, scratch });
        });
    });
    // SAFETY: the capacity is `values`, and the jobs wrote every channel of every query of every head.
    unsafe { out.set_len(values) };
    out
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

/// Cuts a map into tiles, every query in one of them: enough for all threads.
fn tiles(problem: &Problem, threads: usize) -> Vec<Tile> {
    let &Problem { batch, height, width, heads, kernel_size, dilation, .. } = problem;
    let strips: Vec<(Class, Range<usize>)> = Class::all(width, kernel_size, dilation)
        .flat_map(|class| strips(class, kernel_size).map(move |x| (class, x)))
        .collect();
    let wanted = if threads == 1 { 1 } else { threads * TILES_PER_THREAD };
    let wanted = wanted.div_ceil(batch * heads * dilation * strips.len());
    let mut tiles = Vec::new();
    for rows in Class::all(height, kernel_size, dilation) {
        // With fewer rows than half a window a tile would copy more than it computes.
        let most = rows.len().div_ceil(kernel_size.div_ceil(2));
        for y in even_parts(rows.len(), wanted.min(most).max(rows.len().div_ceil(ROWS))) {
            let tile = |&(columns, ref x): &(Class, Range<usize>)| Tile {
                rows,
                columns,
                y: y.clone(),
                x: x.clone(),
            };
            tiles.extend(strips.iter().map(tile));
        }
    }
    tiles
}

/// Cuts the columns of a class into ranges, even but for the last, whose keys fit into [`pitch`].
fn strips(class: Class, kernel_size: usize) -> impl Iterator<Item = Range<usize>> {
    let reach = pitch(kernel_size) - row_lanes(kernel_size);
    let mut end = 0;
    std::iter::from_fn(move || {
        let start = end;
        while end < class.len() && class.start(end) <= class.start(start) + reach {
            end = (end + 2).min(class.len());
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
#[derive(Clone, Copy, Default)]
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
}

/// The places that the windows of the queries at `places` of `class` reach.
fn reach(class: Class, places: &Range<usize>, kernel_size: usize) -> Range<usize> {
    class.start(places.start)..class.start(places.end - 1) + kernel_size
}

/// Where a head's channels lie in a tensor [B, H, W, channels], by the places of a class's pixels.
#[derive(Clone, Copy)]
struct Pixels {
    first: usize,
    row: usize,
    column: usize,
}

impl Pixels {
    #[inline(always)]
    fn at(&self, y: usize, x: usize) -> usize {
        self.first + y * self.row + x * self.column
    }
}

/// Attention of the queries of one tile.
struct Attend<'a> {
    problem: &'a Problem,
    qkv: &'a [f32],
    /// The bias table between [`BIAS_PAD`] values on either side.
    bias: &'a [f32],
    out: &'a Output,
    image: usize,
    head: usize,
    tile: &'a Tile,
    scratch: &'a mut Vec<f32>,
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // The size of every published model, known when compiling.
        match self.problem.kernel_size {
            7 => self.attend(s, 7),
            kernel_size => self.attend(s, kernel_size),
        }
    }
}

/// The sizes of a tile's scratch.
struct Layout {
    kernel_size: usize,
    dim: usize,
    /// Columns of keys and of values.
    columns: usize,
    /// Lanes that a row of a window takes. The scores of a query are [row][lane].
    row_lanes: usize,
    /// Keys are [row][channel][column], columns padded to `pitch`.
    pitch: usize,
    key_row: usize,
    /// Values are [row][column][channel], channels padded to `value`.
    value: usize,
    value_row: usize,
}

impl Attend<'_> {
    /// The pixels of the tile's class in a tensor of `channels`, at the first channel of the head.
    #[inline(always)]
    fn pixels(&self, channels: usize) -> Pixels {
        let &Problem { height, width, dim, dilation, .. } = self.problem;
        let (y, x) = (self.tile.rows.position(0), self.tile.columns.position(0));
        Pixels {
            first: ((self.image * height + y) * width + x) * channels + self.head * dim,
            row: dilation * width * channels,
            column: dilation * channels,
        }
    }

    #[inline(always)]
    fn attend<S: Simd>(self, s: S, kernel_size: usize) {
        let n = s.narrow();
        let &Problem { heads, dim, bias_side, .. } = self.problem;
        let tile = self.tile;
        let rows = reach(tile.rows, &tile.y, kernel_size);
        let columns = reach(tile.columns, &tile.x, kernel_size);
        let (row_lanes, pitch) = (row_lanes(kernel_size), pitch(kernel_size));
        let slack = (row_lanes - kernel_size).min(1);
        let value = dim.next_multiple_of(S::LANES);
        let layout = &Layout {
            kernel_size,
            dim,
            columns: columns.len(),
            row_lanes,
            pitch,
            key_row: dim * pitch,
            value,
            value_row: columns.len() * value,
        };
        let window_lanes = kernel_size * row_lanes;

        let channels = heads * dim;
        let pixels = self.pixels(3 * channels);
        let out_pixels = self.pixels(channels);
        // The q of a query; k and v follow `channels` values apart.
        let qkv = |y: usize, x: usize| self.qkv.as_ptr().wrapping_add(pixels.at(y, x));
        let out = |query: Query| self.out.0.wrapping_add(out_pixels.at(query.y, query.x));
        let bias = |query: Query| {
            let (y, x) = (tile.rows.bias(query.y), tile.columns.bias(query.x));
            self.bias.as_ptr().wrapping_add(BIAS_PAD + (self.head * bias_side + y) * bias_side + x)
        };

        let sizes = [
            rows.len() * layout.key_row,
            rows.len() * layout.value_row,
            BATCH * 2 * window_lanes,
            2 * row_lanes,
        ];
        let [keys, values, scores, masks] = scratch(self.scratch, sizes);
        for shift in 0..2 {
            for lane in 0..row_lanes {
                let inside = (shift..shift + kernel_size).contains(&lane);
                masks[shift * row_lanes + lane] = if inside { f32::INFINITY } else { f32::NEG_INFINITY };
            }
        }
        // The memory is far, and a burst of requests would stall: they go out between the queries.
        let ask_for = |y: usize, x: Range<usize>| {
            for x in x {
                let q = qkv(y, x);
                for c in (0..dim).step_by(LINE) {
                    s.prefetch(q.wrapping_add(c));
                    s.prefetch(q.wrapping_add(channels + c));
                    s.prefetch(q.wrapping_add(2 * channels + c));
                }
            }
        };

        let scale = (dim as f32).sqrt().recip();
        // Of the K·chunks vectors of a window, as many at a time as have both queries' sums, the vector
        // and both queries in registers.
        let vectors = window_lanes / 8;
        let blocks = vectors.div_ceil(((S::REGISTERS - 3) / 2).min(7));
        let mut pairs = [[Query::default(); 2]; BATCH];
        let mut factors = [[0.0; 2]; BATCH];
        let mut packed = rows.start;
        let mut next = Some(tile.query(tile.y.start, tile.x.start));
        while let Some(Query { window_y, .. }) = next {
            let mut count = 0;
            while let Some(first) = next
                && first.window_y == window_y
                && count < BATCH
            {
                (pairs[count], next) = tile.pair(first, slack);
                count += 1;
            }
            let place = |pair: &[Query; 2]| {
                let (column, shift) = (pair[0].window_x - columns.start, pair[1].window_x - pair[0].window_x);
                assert!(shift <= slack && column + row_lanes <= pitch);
                (column, shift)
            };

            for y in packed + 1..window_y + kernel_size {
                ask_for(y, columns.clone());
            }
            while packed < window_y + kernel_size {
                let row = packed - rows.start;
                let keys = &mut keys[row * layout.key_row..][..layout.key_row];
                let values = &mut values[row * layout.value_row..][..layout.value_row];
                let k = qkv(packed, columns.start).wrapping_add(channels);
                // SAFETY: the row's keys and values lie in qkv, the pixels of a class evenly.
                unsafe { pack(s, layout, k, k.wrapping_add(channels), pixels.column, keys, values) };
                packed += 1;
            }
            let row = window_y - rows.start;

            for block in even_parts(vectors, blocks) {
                for (i, pair) in pairs[..count].iter().enumerate() {
                    if block.start == 0 {
                        if packed < rows.end {
                            let part = |i| columns.start + i * columns.len() / count;
                            ask_for(packed, part(i)..part(i + 1));
                        }
                    }
                    let (column, _) = place(pair);
                    let q = [qkv(pair[0].y, pair[0].x), qkv(pair[1].y, pair[1].x)];
                    let keys = keys[row * layout.key_row + column..].as_ptr();
                    let scores = &mut scores[2 * i * window_lanes..][..2 * window_lanes];
                    macro_rules! block_of {
                        ($($n:literal)*) => { match block.len() {
                            // SAFETY: both queries have `dim` channels in qkv, and the window's rows are
                            // packed, with room for its lanes (`place`).
                            $($n => unsafe { dots::<_, $n>(n, layout, block.start, q, keys, scores) },)*
                            _ => unreachable!("blocks have up to seven vectors"),
                        }};
                    }
                    block_of!(1 2 3 4 5 6 7);
                }
            }
            for (i, factor) in factors.as_flattened_mut()[..2 * count].iter_mut().enumerate() {
                let (pair, query) = (&pairs[i / 2], pairs[i / 2][i % 2]);
                // Lanes count from the first window of the pair.
                let shift = query.window_x - pair[0].window_x;
                let bias = bias(query).wrapping_sub(shift);
                let mask = &masks[shift * row_lanes..][..row_lanes];
                let scores = &mut scores[i * window_lanes..][..window_lanes];
                // SAFETY: the window's biases lie in the table, those of other lanes at most in its padding.
                *factor = unsafe { add_bias(n, mask, scores, scale, bias, bias_side) };
            }
            for (i, factor) in factors.as_flattened_mut()[..2 * count].iter_mut().enumerate() {
                *factor = exponentials(n, &mut scores[i * window_lanes..][..window_lanes], *factor).recip();
            }
            for (i, pair) in pairs[..count].iter().enumerate() {
                let (column, shift) = place(pair);
                let p = &scores[2 * i * window_lanes..][..2 * window_lanes];
                let v = &values[row * layout.value_row + column * value..];
                let mut c = 0;
                while c < dim {
                    let out = [out(pair[0]).wrapping_add(c), out(pair[1]).wrapping_add(c)];
                    // SAFETY: the queries are this job's alone, with `dim - c` channels from `c` on.
                    c += S::LANES
                        * unsafe {
                            match (dim - c).div_ceil(S::LANES) {
                                1 => mix::<S, 1>(s, layout, shift, p, &v[c..], factors[i], out, dim - c),
                                2 | 3 => mix::<S, 2>(s, layout, shift, p, &v[c..], factors[i], out, dim - c),
                                _ => mix::<S, 4>(s, layout, shift, p, &v[c..], factors[i], out, dim - c),
                            }
                        };
                }
            }
        }
    }
}

/// Copies a row of keys, transposed, and of values.
///
/// # Safety
/// `k` and `v` are valid for reads of `dim` values at each multiple of `stride` below `columns`·`stride`.
#[inline(always)]
unsafe fn pack<S: Simd>(
    s: S,
    layout: &Layout,
    k: *const f32,
    v: *const f32,
    stride: usize,
    keys: &mut [f32],
    values: &mut [f32],
) {
    let &Layout { kernel_size, dim, columns, row_lanes, pitch, key_row, value, value_row } = layout;
    assert!(keys.len() == key_row && values.len() == value_row);
    // Up to the last lane of the last window, with the last key again after the last column.
    for column in (0..(columns + row_lanes - kernel_size).min(pitch)).step_by(8) {
        let mut from = [k; 8];
        for (lane, from) in from.iter_mut().enumerate() {
            *from = k.wrapping_add((column + lane).min(columns - 1) * stride);
        }
        // SAFETY: the caller's promise on `k`; pitch is a multiple of eight, and a row has dim·pitch values.
        unsafe { s.transpose(from, dim, keys.as_mut_ptr().add(column), pitch) };
    }
    for (column, to) in values.chunks_exact_mut(value).enumerate() {
        let from = v.wrapping_add(column * stride);
        for c in (0..dim).step_by(S::LANES) {
            let to = to[c..c + S::LANES].as_mut_ptr();
            // SAFETY: the caller's promise on `v`; `to` is a vector.
            unsafe {
                if c + S::LANES <= dim {
                    s.store(to, s.load(from.add(c)));
                } else {
                    s.store(to, s.load_first(from.add(c), dim - c));
                }
            }
        }
    }
}

/// q·k of two queries with V vectors of the keys of their windows, from vector `first` on.
///
/// # Safety
/// Each `q` is valid for reads of `dim` values, and `keys`, which starts at the window's first column,
/// for reads of `row_lanes` values in every channel of K rows.
#[inline(always)]
unsafe fn dots<N: Simd, const V: usize>(
    n: N,
    layout: &Layout,
    first: usize,
    q: [*const f32; 2],
    keys: *const f32,
    scores: &mut [f32],
) {
    let &Layout { kernel_size, dim, row_lanes, pitch, key_row, .. } = layout;
    let chunks = row_lanes / N::LANES;
    assert!(first + V <= kernel_size * chunks && scores.len() == 2 * kernel_size * row_lanes);
    let (mut row, mut chunk) = (first / chunks, first % chunks);
    let mut k = [keys; V];
    let mut sums = [[n.splat(0.0); V]; 2];
    for j in 0..V {
        k[j] = keys.wrapping_add(row * key_row + chunk * N::LANES);
        chunk += 1;
        if chunk == chunks {
            (row, chunk) = (row + 1, 0);
        }
    }
    for c in 0..dim {
        // SAFETY: the caller's promises; vector first + V - 1 is one of the window's.
        unsafe {
            let q = [n.splat(*q[0].add(c)), n.splat(*q[1].add(c))];
            for j in 0..V {
                let k = n.load(k[j].add(c * pitch));
                sums[0][j] = n.fma(k, q[0], sums[0][j]);
                sums[1][j] = n.fma(k, q[1], sums[1][j]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, &sum) in sums.iter().enumerate() {
            let at = i * kernel_size * row_lanes + (first + j) * N::LANES;
            // SAFETY: inside `scores` by the assertion.
            unsafe { n.store(scores.as_mut_ptr().add(at), sum) };
        }
    }
}

/// Makes q·k·`scale` + bias of a window's q·k and returns the largest. `mask` is ∞ in the lanes of the
/// window and −∞ in others, whose scores become −∞, NaN included.
///
/// # Safety
/// `bias` is valid for reads of a row of lanes in each row of the window, `bias_side` apart.
#[inline(always)]
unsafe fn add_bias<N: Simd>(
    n: N,
    mask: &[f32],
    scores: &mut [f32],
    scale: f32,
    bias: *const f32,
    bias_side: usize,
) -> f32 {
    let scale = n.splat(scale);
    let mut max = n.splat(f32::NEG_INFINITY);
    for (row, scores) in scores.chunks_exact_mut(mask.len()).enumerate() {
        for (chunk, x) in scores.chunks_exact_mut(N::LANES).enumerate() {
            let lane = chunk * N::LANES;
            // SAFETY: `x` is a vector of a row of lanes, as many as `mask` has; the caller's promise on `bias`.
            unsafe {
                let bias = n.load(bias.add(row * bias_side + lane));
                let score = n.fma(n.load(x.as_ptr()), scale, bias);
                let score = n.min(score, n.load(mask.as_ptr().add(lane)));
                max = n.max(max, score);
                n.store(x.as_mut_ptr(), score);
            }
        }
    }
    n.reduce_max(max)
}

/// Makes e^(x − `max`) of every x and returns their sum.
#[inline(always)]
fn exponentials<N: Simd>(n: N, x: &mut [f32], max: f32) -> f32 {
    let max = n.splat(max);
    let mut sum = n.splat(0.0);
    for x in x.chunks_exact_mut(N::LANES) {
        // SAFETY: `x` is a vector.
        unsafe {
            let p = n.exp(n.sub(n.load(x.as_ptr()), max));
            sum = n.add(sum, p);
            n.store(x.as_mut_ptr(), p);
        }
    }
    n.reduce_sum(sum)
}

/// factor·Σ p·v of two queries, V vectors of channels of the `channels` that are left. Returns V.
///
/// # Safety
/// Each `out` is valid for writes of `channels` values.
#[inline(always)]
#[expect(clippy::too_many_arguments)]
unsafe fn mix<S: Simd, const V: usize>(
    s: S,
    layout: &Layout,
    shift: usize,
    p: &[f32],
    v: &[f32],
    factors: [f32; 2],
    out: [*mut f32; 2],
    channels: usize,
) -> usize {
    let &Layout { kernel_size, row_lanes, value, value_row, .. } = layout;
    assert!(shift <= 1 && kernel_size + shift <= row_lanes && p.len() == 2 * kernel_size * row_lanes);
    assert!(v.len() >= (kernel_size - 1) * value_row + (kernel_size + shift - 1) * value + V * S::LANES);
    let mut sums = [[s.splat(0.0); V]; 2];
    for row in 0..kernel_size {
        // SAFETY: the window, of K + shift keys in each of K rows, lies in `p` and `v` by the assertions.
        unsafe {
            let p = p.as_ptr().add(row * row_lanes);
            let p = [p, p.add(kernel_size * row_lanes)];
            let v = v.as_ptr().add(row * value_row);
            // Both queries have the keys 1 to K - 1; the first has key 0 too, the second key 0 or K.
            let (p0, p1) = (s.splat(*p[0]), s.splat(*p[1].add(shift * kernel_size)));
            for j in 0..V {
                let v = v.add(j * S::LANES);
                sums[0][j] = s.fma(s.load(v), p0, sums[0][j]);
                sums[1][j] = s.fma(s.load(v.add(shift * kernel_size * value)), p1, sums[1][j]);
            }
            for key in 1..kernel_size {
                let (p0, p1) = (s.splat(*p[0].add(key)), s.splat(*p[1].add(key)));
                for j in 0..V {
                    let v = s.load(v.add(key * value + j * S::LANES));
                    sums[0][j] = s.fma(v, p0, sums[0][j]);
                    sums[1][j] = s.fma(v, p1, sums[1][j]);
                }
            }
        }
    }
    for i in 0..2 {
        let factor = s.splat(factors[i]);
        for j in 0..V {
            let left = channels.saturating_sub(j * S::LANES);
            let x = s.mul(sums[i][j], factor);
            let to = out[i].wrapping_add(j * S::LANES);
            // SAFETY: the caller's promise.
            unsafe {
                if left >= S::LANES {
                    s.store(to, x);
                } else {
                    s.store_first(to, x, left);
                }
            }
        }
    }
    V
}

/// Slices of these sizes, each from a cache line on.
fn scratch(buffer: &mut Vec<f32>, sizes: [usize; 4]) -> [&mut [f32]; 4] {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_hold_every_query_once() {
        for (height, width, kernel_size, dilation) in [
            (7, 7, 7, 1),
            (56, 56, 7, 1),
            (150, 61, 7, 1),
            (57, 61, 7, 8),
            (26, 40, 13, 2),
            (14, 14, 14, 1),
            (8, 9, 1, 3),
        ] {
            for (batch, heads, threads) in [(1, 1, 1), (1, 2, 2), (1, 16, 2), (1, 1, 64), (3, 4, 16)] {
                let (dim, bias_side) = (8, 2 * kernel_size - 1);
                let problem = Problem { batch, height, width, heads, dim, kernel_size, dilation, bias_side };
                let mut seen = vec![0; height * width];
                for tile in tiles(&problem, threads) {
                    assert!(tile.y.len() <= ROWS);
                    for y in tile.y.clone() {
                        for x in tile.x.clone() {
                            seen[tile.rows.position(y) * width + tile.columns.position(x)] += 1;
                        }
                    }
                }
                assert!(seen.iter().all(|&n| n == 1), "{problem:?}, {threads} threads");
            }
        }
    }
}
