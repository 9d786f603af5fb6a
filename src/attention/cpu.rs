//! Neighborhood attention in f32 on all cores, written against [`Simd`].
//!
//! The work is cut into tiles: some queries of one image, head and dilation class. A class is a map of
//! its own without dilation ([`Class`]), so the kernel knows none. A tile copies the keys and values that
//! its windows reach into a scratch that the L2 cache holds, keys transposed, and then takes its
//! queries in pairs of neighbours:
//!
//! - scores with keys as lanes: the windows of two neighbouring queries start at most one key apart, so
//!   at K = 7 one row of both lies in the same eight lanes, borders included, and each load of keys
//!   serves both queries;
//! - softmax over the K² scores, which the L1 cache holds;
//! - outputs with channels as lanes, each load of values serving both queries.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::Problem;
use super::window::Class;
use crate::layers::simd::{Isa, Kernel, Simd};

/// Tiles a thread, at least, so that all end together.
const TILES_PER_THREAD: usize = 4;
/// Values before and after the bias table that lanes outside a window may read.
const BIAS_PAD: usize = 16;
/// Pairs of queries that go through scores, softmax and outputs together.
const BATCH: usize = 8;
/// The score of a lane outside the window: adding any score to it leaves it far below all others.
const OUTSIDE: f32 = f32::MIN / 4.0;

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
        SCRATCH.with_borrow_mut(|scratch| {
            let (job, head) = (job / heads, job % heads);
            let (image, tile) = (job / tiles.len(), &tiles[job % tiles.len()]);
            isa.run(Attend { problem, qkv, bias: &bias, out: &shared, image, head, tile, scratch });
        });
    });
    // SAFETY: the capacity is `values`, and the jobs wrote every channel of every head of every query.
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

/// Cuts the map into tiles: as wide as the keys of a row of windows fit, enough for all threads.
fn tiles(problem: &Problem, threads: usize) -> Vec<Tile> {
    let &Problem { batch, height, width, heads, kernel_size, dilation, .. } = problem;
    let wanted = if threads == 1 { 1 } else { threads * TILES_PER_THREAD };
    let columns: Vec<_> = Class::all(width, kernel_size, dilation)
        .flat_map(|class| strips(class, kernel_size).map(move |x| (class, x)))
        .collect();
    let down = wanted.div_ceil(batch * heads * dilation * columns.len());
    let mut tiles = Vec::with_capacity(dilation * columns.len() * down);
    for rows in Class::all(height, kernel_size, dilation) {
        // With fewer rows than half a window, a tile copies more than it computes.
        let down = down.min(rows.len().div_ceil(kernel_size.div_ceil(2)));
        for y in even_parts(rows.len(), down) {
            let tile = |(columns, x): &(Class, Range<usize>)| Tile { rows, columns: *columns, y: y.clone(), x: x.clone() };
            tiles.extend(columns.iter().map(tile));
        }
    }
    tiles
}

/// Lanes for one row of a window, in whole vectors of eight.
fn row_lanes(kernel_size: usize) -> usize {
    kernel_size.next_multiple_of(8)
}

/// Columns of keys that a tile holds, in whole cache lines. One line at K = 7: no load straddles two.
fn key_columns(kernel_size: usize) -> usize {
    (row_lanes(kernel_size) + 8).next_multiple_of(16)
}

/// Cuts the columns of a class into ranges of an even length whose keys fit into `key_columns`.
fn strips(class: Class, kernel_size: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = start;
        let last = class.start(first.min(class.len() - 1)) + key_columns(kernel_size) - row_lanes(kernel_size);
        while start < class.len() && class.start(start) <= last {
            start = (start + 2).min(class.len());
        }
        (first < start).then_some(first..start)
    })
}

/// 0..n in `parts` ranges whose lengths differ by at most one.
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

    /// The next queries from `next` on whose windows lie in the same rows and lanes, or one twice.
    #[inline(always)]
    fn take_pair(&self, next: &mut Option<Query>, slack: usize) -> Option<[Query; 2]> {
        let first = (*next)?;
        *next = self.after(first);
        if let Some(second) = *next
            && second.window_y == first.window_y
            && second.window_x.abs_diff(first.window_x) <= slack
        {
            *next = self.after(second);
            return Some(if first.window_x <= second.window_x { [first, second] } else { [second, first] });
        }
        Some([first; 2])
    }
}

/// The places that the windows of the queries at `places` of `class` reach.
fn reach(class: Class, places: &Range<usize>, kernel_size: usize) -> Range<usize> {
    class.start(places.start)..class.start(places.end - 1) + kernel_size
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
        match self.problem.kernel_size {
            7 => self.attend::<S, 7>(s),
            _ => self.attend::<S, 0>(s),
        }
    }
}

/// How a tile lies in its scratch.
struct Layout {
    kernel_size: usize,
    dim: usize,
    /// Columns of keys and values.
    columns: usize,
    /// Lanes that a row of a window takes.
    row_lanes: usize,
    /// Keys are [row][channel][column]: columns padded to `pitch`, and the size of a row.
    pitch: usize,
    key_row: usize,
    /// Values are [row][column][channel]: channels padded to `value`, and the size of a row.
    value: usize,
    value_row: usize,
}

/// Where a head's channels of a class's pixels lie in a tensor [B, H, W, channels].
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

impl Attend<'_> {
    /// The pixels of the tile's class in a tensor of `channels`, from `channel` on.
    #[inline(always)]
    fn pixels(&self, channels: usize, channel: usize) -> Pixels {
        let &Problem { height, width, dilation, .. } = self.problem;
        let (y, x) = (self.tile.rows.position(0), self.tile.columns.position(0));
        let first = ((self.image * height + y) * width + x) * channels + channel;
        Pixels { first, row: dilation * width * channels, column: dilation * channels }
    }

    /// KERNEL is the kernel size where it is known when compiling, or 0.
    #[inline(always)]
    fn attend<S: Simd, const KERNEL: usize>(self, s: S) {
        let n = s.narrow();
        let &Problem { heads, dim, bias_side, .. } = self.problem;
        let kernel_size = if KERNEL == 0 { self.problem.kernel_size } else { KERNEL };
        let tile = self.tile;
        let row_lanes = row_lanes(kernel_size);
        let slack = (row_lanes - kernel_size).min(1);
        let rows = reach(tile.rows, &tile.y, kernel_size);
        let columns = reach(tile.columns, &tile.x, kernel_size);
        let pitch = key_columns(kernel_size);
        let value = dim.next_multiple_of(S::LANES);
        let layout = Layout {
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
        let q = self.pixels(3 * channels, self.head * dim);
        let out = self.pixels(channels, self.head * dim);
        let scratch = aligned(
            self.scratch,
            rows.len() * (layout.key_row + layout.value_row) + (BATCH * kernel_size + 1) * 2 * row_lanes,
        );
        let (values, scratch) = scratch.split_at_mut(rows.len() * layout.value_row);
        let (keys, scratch) = scratch.split_at_mut(rows.len() * layout.key_row);
        let (scores, masks) = scratch.split_at_mut(BATCH * 2 * window_lanes);
        for (shift, mask) in masks.chunks_exact_mut(row_lanes).enumerate() {
            for (lane, mask) in mask.iter_mut().enumerate() {
                *mask = if (shift..shift + kernel_size).contains(&lane) { 0.0 } else { OUTSIDE };
            }
        }

        let scale = (dim as f32).sqrt().recip();
        let mut next = Some(tile.query(tile.y.start, tile.x.start));
        let mut pairs = [[Query::default(); 2]; BATCH];
        let mut norms = [[0.0; 2]; BATCH];
        let mut packed = 0;
        loop {
            let mut count = 0;
            while count < BATCH
                && let Some(pair) = tile.take_pair(&mut next, slack)
            {
                pairs[count] = pair;
                count += 1;
            }
            if count == 0 {
                break;
            }
            let pairs = &pairs[..count];
            while packed < pairs[count - 1][0].window_y + kernel_size - rows.start {
                let y = rows.start + packed;
                let keys = &mut keys[packed * layout.key_row..][..layout.key_row];
                let values = &mut values[packed * layout.value_row..][..layout.value_row];
                // SAFETY: todo
                unsafe {
                    let k = self.qkv.as_ptr().add(q.at(y, columns.start) + channels);
                    pack(s, &layout, k, k.add(channels), q.column, keys, values);
                }
                packed += 1;
                if packed < rows.len() {
                    let mut q0 = self.qkv.as_ptr().wrapping_add(q.at(y + 1, columns.start));
                    for _ in 0..columns.len() {
                        for c in (0..dim).step_by(16) {
                            for part in 0..3 {
                                s.prefetch(q0.wrapping_add(part * channels + c));
                            }
                        }
                        q0 = q0.wrapping_add(q.column);
                    }
                }
            }
            for i in 0..count {
                let pair = &pairs[i];
                let (row, column) = (pair[0].window_y - rows.start, pair[0].window_x - columns.start);
                let shift = pair[1].window_x - pair[0].window_x;
                // SAFETY: todo
                unsafe {
                    let q = [
                        self.qkv.as_ptr().add(q.at(pair[0].y, pair[0].x)),
                        self.qkv.as_ptr().add(q.at(pair[1].y, pair[1].x)),
                    ];
                    let k = keys.as_ptr().add(row * layout.key_row + column);
                    let mask = [masks.as_ptr(), masks.as_ptr().add(shift * row_lanes)];
                    dots::<S, _>(n, &layout, q, k, mask, scores.as_mut_ptr().add(2 * i * window_lanes))
                };
            }
            for i in 0..2 * count {
                let (pair, query) = (&pairs[i / 2], &pairs[i / 2][i % 2]);
                let (y, x) = (tile.rows.bias(query.y), tile.columns.bias(query.x));
                let lanes_before = query.window_x - pair[0].window_x;
                let at = BIAS_PAD + (self.head * bias_side + y) * bias_side + x - lanes_before;
                // SAFETY: todo
                norms[i / 2][i % 2] = unsafe {
                    let scores = scores.as_mut_ptr().add(i * window_lanes);
                    bias_and_max(n, &layout, scores, scale, self.bias.as_ptr().add(at), bias_side)
                };
            }
            for i in 0..2 * count {
                // SAFETY: todo
                norms[i / 2][i % 2] = unsafe {
                    exp_and_norm(n, scores.as_mut_ptr().add(i * window_lanes), window_lanes, norms[i / 2][i % 2])
                };
            }
            for i in 0..count {
                let (pair, norms) = (&pairs[i], &norms[i]);
                let (row, column) = (pair[0].window_y - rows.start, pair[0].window_x - columns.start);
                let shift = pair[1].window_x - pair[0].window_x;
                // SAFETY: todo
                unsafe {
                    let v = values.as_ptr().add(row * layout.value_row + column * value);
                    let p = scores.as_ptr().add(2 * i * window_lanes);
                    let p = [p, p.add(window_lanes)];
                    let out = [
                        self.out.0.add(out.at(pair[0].y, pair[0].x)),
                        self.out.0.add(out.at(pair[1].y, pair[1].x)),
                    ];
                    let mut c = 0;
                    while c < dim {
                        let v = v.add(c);
                        let out = [out[0].add(c), out[1].add(c)];
                        c += match (dim - c).div_ceil(S::LANES) {
                            1 => mix::<S, 1>(s, &layout, shift, p, v, norms, out, dim - c),
                            2 | 3 => mix::<S, 2>(s, &layout, shift, p, v, norms, out, dim - c),
                            _ => mix::<S, 4>(s, &layout, shift, p, v, norms, out, dim - c),
                        };
                    }
                }
            }
        }
    }
}

/// Copies a row of keys, transposed, and of values.
#[inline(always)]
unsafe fn pack<S: Simd>(
    s: S,
    layout: &Layout,
    k: *const f32,
    v: *const f32,
    column_stride: usize,
    keys: &mut [f32],
    values: &mut [f32],
) {
    let &Layout { kernel_size, dim, columns, row_lanes, pitch, value, .. } = layout;
    for column in (0..(columns + row_lanes - kernel_size).min(pitch)).step_by(8) {
        // Past the last column, the last key again.
        let mut from = [k; 8];
        for (lane, from) in from.iter_mut().enumerate() {
            // SAFETY: todo
            *from = unsafe { k.add((column + lane).min(columns - 1) * column_stride) };
        }
        // SAFETY: todo
        unsafe { s.transpose(from, dim, keys.as_mut_ptr().add(column), pitch) };
    }
    for column in 0..columns {
        // SAFETY: todo
        unsafe {
            let from = v.add(column * column_stride);
            let to = values.as_mut_ptr().add(column * value);
            let mut c = 0;
            while c + S::LANES <= dim {
                s.store(to.add(c), s.load(from.add(c)));
                c += S::LANES;
            }
            if c < dim {
                s.store(to.add(c), s.load_first(from.add(c), dim - c));
            }
        }
    }
}

/// q · k of two queries with the keys of their windows.
///
/// # Safety
#[inline(always)]
unsafe fn dots<S: Simd, N: Simd>(
    n: N,
    layout: &Layout,
    q: [*const f32; 2],
    k: *const f32,
    mask: [*const f32; 2],
    scores: *mut f32,
) {
    let &Layout { kernel_size, dim, row_lanes, pitch, key_row, .. } = layout;
    let chunks = row_lanes / N::LANES;
    // Two sums for each vector of keys, those keys, and the two queries.
    let most = ((S::REGISTERS - 3) / 2).min(7);
    let total = kernel_size * chunks;
    let (mut row, mut chunk) = (0, 0);
    for block in even_parts(total, total.div_ceil(most)) {
        macro_rules! block {
            ($($vectors:literal)*) => { match block.len() {
                $($vectors => {
                    let mut keys = [k; $vectors];
                    let mut sums = [[n.splat(0.0); $vectors]; 2];
                    for j in 0..$vectors {
                        // SAFETY: todo
                        unsafe {
                            keys[j] = k.add(row * key_row + chunk * N::LANES);
                            sums[0][j] = n.load(mask[0].add(chunk * N::LANES));
                            sums[1][j] = n.load(mask[1].add(chunk * N::LANES));
                        }
                        chunk += 1;
                        if chunk == chunks {
                            (row, chunk) = (row + 1, 0);
                        }
                    }
                    for c in 0..dim {
                        // SAFETY: the caller's promise.
                        unsafe {
                            let q = [n.splat(*q[0].add(c)), n.splat(*q[1].add(c))];
                            for j in 0..$vectors {
                                let k = n.load(keys[j].add(c * pitch));
                                sums[0][j] = n.fma(k, q[0], sums[0][j]);
                                sums[1][j] = n.fma(k, q[1], sums[1][j]);
                            }
                        }
                    }
                    for i in 0..2 {
                        for j in 0..$vectors {
                            // SAFETY: todo
                            unsafe { n.store(scores.add((i * total + block.start + j) * N::LANES), sums[i][j]) };
                        }
                    }
                })*
                _ => unreachable!("a block is at most seven vectors"),
            }};
        }
        block!(1 2 3 4 5 6 7);
    }
}

/// Makes `scores`·`scale` + bias of `scores` and returns the largest.
#[inline(always)]
unsafe fn bias_and_max<N: Simd>(
    n: N,
    layout: &Layout,
    scores: *mut f32,
    scale: f32,
    bias: *const f32,
    bias_side: usize,
) -> f32 {
    let &Layout { kernel_size, row_lanes, .. } = layout;
    let scale = n.splat(scale);
    let mut max = n.splat(f32::MIN);
    for row in 0..kernel_size {
        for lane in (0..row_lanes).step_by(N::LANES) {
            // SAFETY: todo
            unsafe {
                let at = scores.add(row * row_lanes + lane);
                let x = n.fma(n.load(at), scale, n.load(bias.add(row * bias_side + lane)));
                max = n.max(max, x);
                n.store(at, x);
            }
        }
    }
    n.reduce_max(max)
}

/// Makes e^(x − max) of every x of `scores` and returns the reciprocal of their sum.
#[inline(always)]
unsafe fn exp_and_norm<N: Simd>(n: N, scores: *mut f32, lanes: usize, max: f32) -> f32 {
    let max = n.splat(max);
    let mut sum = n.splat(0.0);
    for lane in (0..lanes).step_by(N::LANES) {
        // SAFETY: todo
        unsafe {
            let p = n.exp(n.sub(n.load(scores.add(lane)), max));
            sum = n.add(sum, p);
            n.store(scores.add(lane), p);
        }
    }
    n.reduce_sum(sum).recip()
}

/// Σ p·v of two queries, of V vectors of channels.
#[inline(always)]
unsafe fn mix<S: Simd, const V: usize>(
    s: S,
    layout: &Layout,
    shift: usize,
    p: [*const f32; 2],
    v: *const f32,
    norms: &[f32; 2],
    out: [*mut f32; 2],
    channels: usize,
) -> usize {
    let &Layout { kernel_size, row_lanes, value, value_row, .. } = layout;
    let mut sums = [[s.splat(0.0); V]; 2];
    for row in 0..kernel_size {
        // SAFETY: the caller's promise.
        unsafe {
            let v = v.add(row * value_row);
            let p = [p[0].add(row * row_lanes), p[1].add(row * row_lanes)];
            if shift == 1 {
                let p = [s.splat(*p[0]), s.splat(*p[1].add(kernel_size))];
                for j in 0..V {
                    sums[0][j] = s.fma(s.load(v.add(j * S::LANES)), p[0], sums[0][j]);
                    sums[1][j] = s.fma(s.load(v.add(kernel_size * value + j * S::LANES)), p[1], sums[1][j]);
                }
            }
            for t in shift..kernel_size {
                let p = [s.splat(*p[0].add(t)), s.splat(*p[1].add(t))];
                for j in 0..V {
                    let v = s.load(v.add(t * value + j * S::LANES));
                    sums[0][j] = s.fma(v, p[0], sums[0][j]);
                    sums[1][j] = s.fma(v, p[1], sums[1][j]);
                }
            }
        }
    }
    for i in 0..2 {
        let norm = s.splat(norms[i]);
        for j in 0..V {
            let c = j * S::LANES;
            let sum = s.mul(sums[i][j], norm);
            // SAFETY: todo
            unsafe {
                if channels >= c + S::LANES {
                    s.store(out[i].add(c), sum);
                } else {
                    s.store_first(out[i].add(c), sum, channels.saturating_sub(c));
                }
            }
        }
    }
    V * S::LANES
}

/// `n` values of `scratch` that start at a cache line.
fn aligned(scratch: &mut Vec<f32>, n: usize) -> &mut [f32] {
    const LINE: usize = 64;
    if scratch.len() < n + LINE / 4 {
        scratch.resize(n + LINE / 4, 0.0);
    }
    let start = scratch.as_ptr().align_offset(LINE);
    &mut scratch[start..start + n]
}
