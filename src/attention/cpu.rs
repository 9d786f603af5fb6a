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

/// Scratch of a tile in f32 values: half of a common L2 cache.
const SCRATCH: usize = 128 * 1024;
/// Columns of a tile's queries, at most.
const COLUMNS: usize = 64;
/// Tiles a thread, so that all end together.
const TILES_PER_THREAD: usize = 4;
/// Values before and after the bias table that lanes outside a window may read.
const BIAS_PAD: usize = 16;
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
    (0..batch * tiles.len() * heads).into_par_iter().for_each(|job| {
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

/// Cuts the map into tiles: small enough for their scratch, enough of them for all threads.
fn tiles(problem: &Problem, threads: usize) -> Vec<Tile> {
    let &Problem { batch, height, width, heads, dim, kernel_size, dilation, .. } = problem;
    let wanted = if threads == 1 { 1 } else { threads * TILES_PER_THREAD };
    let maps = batch * heads * dilation * dilation;
    let mut tiles = Vec::new();
    for rows in Class::all(height, kernel_size, dilation) {
        for columns in Class::all(width, kernel_size, dilation) {
            let across = columns.len().div_ceil(COLUMNS);
            let key_columns = (columns.len().div_ceil(across) + kernel_size).min(columns.len());
            let fitting = (SCRATCH / (2 * dim * key_columns)).saturating_sub(kernel_size).max(kernel_size);
            let down = rows.len().div_ceil(fitting).max(wanted.div_ceil(maps * across));
            // Below half a window a tile copies more than it computes.
            let down = down.min(rows.len().div_ceil(kernel_size.div_ceil(2)));
            for y in even_parts(rows.len(), down) {
                tiles.extend(even_parts(columns.len(), across).map(|x| Tile {
                    rows,
                    columns,
                    y: y.clone(),
                    x,
                }));
            }
        }
    }
    tiles
}

/// 0..n in `parts` ranges whose lengths differ by at most one.
fn even_parts(n: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |i| i * n / parts..(i + 1) * n / parts)
}

/// One query: its place in the tile's class, and where its window starts.
#[derive(Clone, Copy)]
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
}

/// The keys that the windows of the queries at `places` of `class` reach.
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
        // The lanes that hold a row of a window with the least waste, the wider of equals.
        let k = self.problem.kernel_size;
        if k.next_multiple_of(S::LANES) <= k.next_multiple_of(8) {
            self.attend(s, s);
        } else {
            self.attend(s, s.narrow());
        }
    }
}

impl Attend<'_> {
    /// With channels in the lanes of `s` and keys in those of `n`.
    #[inline(always)]
    fn attend<S: Simd, N: Simd>(self, s: S, n: N) {
        let &Problem { height, width, heads, dim, kernel_size, bias_side, .. } = self.problem;
        let tile = self.tile;
        // Vectors that a row of a window takes, and by how much two windows in them may differ.
        let chunks = kernel_size.div_ceil(N::LANES);
        let row_lanes = chunks * N::LANES;
        let slack = (row_lanes - kernel_size).min(1);

        let key_rows = reach(tile.rows, &tile.y, kernel_size);
        let key_columns = reach(tile.columns, &tile.x, kernel_size);
        // Keys lie as [row][channel][column], columns padded to whole loads, and to an odd number of
        // half lines, lest the channels of a key fall into few sets of the cache.
        let pitch = (key_columns.len() + row_lanes - kernel_size).div_ceil(8) | 1;
        let pitch = 8 * pitch;
        let key_row = dim * pitch;
        // Values lie as [row][column][channel], channels padded to whole vectors.
        let value = dim.next_multiple_of(S::LANES);
        let value_row = key_columns.len() * value;

        let scratch = aligned(
            self.scratch,
            key_rows.len() * (key_row + value_row) + 2 * row_lanes + 2 * kernel_size * row_lanes,
        );
        let (values, scratch) = scratch.split_at_mut(key_rows.len() * value_row);
        let (inits, scratch) = scratch.split_at_mut(2 * row_lanes);
        let (scores, keys) = scratch.split_at_mut(2 * kernel_size * row_lanes);

        let pixel = |y: usize, x: usize| {
            (self.image * height + tile.rows.position(y)) * width + tile.columns.position(x)
        };
        let part = |part: usize, y: usize, x: usize| {
            let start = ((pixel(y, x) * 3 + part) * heads + self.head) * dim;
            &self.qkv[start..start + dim]
        };
        for (row, y) in key_rows.clone().enumerate() {
            let keys = &mut keys[row * key_row..][..key_row];
            for channel in keys.chunks_exact_mut(pitch) {
                channel[key_columns.len()..].fill(0.0);
            }
            for (column, x) in key_columns.clone().enumerate() {
                for (channel, &k) in part(1, y, x).iter().enumerate() {
                    keys[channel * pitch + column] = k;
                }
                let target = &mut values[row * value_row + column * value..][..value];
                target[..dim].copy_from_slice(part(2, y, x));
                target[dim..].fill(0.0);
            }
        }
        for (shift, inits) in inits.chunks_exact_mut(row_lanes).enumerate() {
            for (lane, init) in inits.iter_mut().enumerate() {
                *init = if (shift..shift + kernel_size).contains(&lane) { 0.0 } else { OUTSIDE };
            }
        }

        let scale = n.splat((dim as f32).sqrt().recip());
        let mut next = Some(tile.query(tile.y.start, tile.x.start));
        while let Some(first) = next {
            // Two queries whose windows lie in the same lanes, else one query twice.
            let mut pair = [first; 2];
            next = tile.after(first);
            if let Some(second) = next
                && first.window_y == second.window_y
                && first.window_x.abs_diff(second.window_x) <= slack
            {
                pair[1] = second;
                next = tile.after(second);
                if second.window_x < first.window_x {
                    pair.swap(0, 1);
                }
            }
            let shift = pair[1].window_x - pair[0].window_x;
            let row = pair[0].window_y - key_rows.start;
            let column = pair[0].window_x - key_columns.start;

            let q = pair.map(|query| part(0, query.y, query.x).as_ptr());
            let bias = [0, 1].map(|i| {
                let (y, x) = (tile.rows.bias(pair[i].y), tile.columns.bias(pair[i].x));
                let at = (self.head * bias_side + y) * bias_side + x;
                &self.bias[BIAS_PAD + at - i * shift..]
            });
            let mut max = [n.splat(f32::MIN); 2];
            let total = kernel_size * chunks;
            let most = ((S::REGISTERS - 3) / 2).min(7);
            let mut blocks = even_parts(total, total.div_ceil(most));
            let (mut window_row, mut chunk) = (0, 0);
            for block in blocks.by_ref() {
                macro_rules! block {
                    ($($r:literal)*) => { match block.len() {
                        $($r => {
                            let mut k = [std::ptr::null(); $r];
                            let mut b = [[std::ptr::null(); $r]; 2];
                            let mut init = [[n.splat(0.0); $r]; 2];
                            for j in 0..$r {
                                let at = chunk * N::LANES;
                                k[j] = keys[(row + window_row) * key_row + column + at..].as_ptr();
                                for i in 0..2 {
                                    b[i][j] = bias[i][window_row * bias_side + at..].as_ptr();
                                    // SAFETY: a row of `inits` has row_lanes values.
                                    init[i][j] = unsafe { n.load(inits.as_ptr().add(i * shift * row_lanes + at)) };
                                }
                                chunk += 1;
                                if chunk == chunks {
                                    (window_row, chunk) = (window_row + 1, 0);
                                }
                            }
                            // SAFETY: todo
                            let acc = unsafe { dots(n, q, k, dim, pitch, init) };
                            for i in 0..2 {
                                for j in 0..$r {
                                    // SAFETY: todo
                                    unsafe {
                                        let x = n.fma(acc[i][j], scale, n.load(b[i][j]));
                                        max[i] = n.max(max[i], x);
                                        let at = (i * total + block.start + j) * N::LANES;
                                        n.store(scores.as_mut_ptr().add(at), x);
                                    }
                                }
                            }
                        })*
                        _ => unreachable!("blocks have at most seven rows"),
                    }};
                }
                block!(1 2 3 4 5 6 7);
            }

            let max = max.map(|max| n.splat(n.reduce_max(max)));
            let mut sum = [n.splat(0.0); 2];
            for j in 0..total {
                for i in 0..2 {
                    // SAFETY: todo
                    unsafe {
                        let at = scores.as_mut_ptr().add((i * total + j) * N::LANES);
                        let p = n.exp(n.sub(n.load(at), max[i]));
                        sum[i] = n.add(sum[i], p);
                        n.store(at, p);
                    }
                }
            }
            let norm = sum.map(|sum| s.splat(n.reduce_sum(sum).recip()));

            let out = pair.map(|query| {
                // SAFETY: todo
                unsafe { self.out.0.add((pixel(query.y, query.x) * heads + self.head) * dim) }
            });
            let v = values[row * value_row + column * value..].as_ptr();
            let p = [scores.as_ptr(), scores[total * N::LANES..].as_ptr()];
            let window = Window { kernel_size, shift, row_lanes, value, value_row };
            let mut c = 0;
            while c < dim {
                macro_rules! channels {
                    ($vectors:literal) => {{
                        // SAFETY: todo
                        let acc = unsafe { mix::<S, $vectors>(s, &window, v.add(c), p) };
                        for j in 0..$vectors {
                            for i in 0..2 {
                                let left = dim - c;
                                // SAFETY: todo
                                unsafe {
                                    let x = s.mul(acc[i][j], norm[i]);
                                    if left >= S::LANES {
                                        s.store(out[i].add(c), x);
                                    } else {
                                        s.store_first(out[i].add(c), x, left);
                                    }
                                }
                            }
                            c += S::LANES;
                        }
                    }};
                }
                match (dim - c).div_ceil(S::LANES) {
                    1 => channels!(1),
                    2 | 3 => channels!(2),
                    _ => channels!(4),
                }
            }
        }
    }
}

struct Window {
    kernel_size: usize,
    shift: usize,
    row_lanes: usize,
    value: usize,
    value_row: usize,
}

#[inline(always)]
unsafe fn dots<N: Simd, const R: usize>(
    n: N,
    q: [*const f32; 2],
    k: [*const f32; R],
    dim: usize,
    pitch: usize,
    mut acc: [[N::V; R]; 2],
) -> [[N::V; R]; 2] {
    for c in 0..dim {
        // SAFETY: the caller's promise.
        unsafe {
            let q = [n.splat(*q[0].add(c)), n.splat(*q[1].add(c))];
            for j in 0..R {
                let k = n.load(k[j].add(c * pitch));
                acc[0][j] = n.fma(k, q[0], acc[0][j]);
                acc[1][j] = n.fma(k, q[1], acc[1][j]);
            }
        }
    }
    acc
}

#[inline(always)]
unsafe fn mix<S: Simd, const V: usize>(
    s: S,
    window: &Window,
    v: *const f32,
    p: [*const f32; 2],
) -> [[S::V; V]; 2] {
    let &Window { kernel_size, shift, row_lanes, value, value_row } = window;
    let mut acc = [[s.splat(0.0); V]; 2];
    for row in 0..kernel_size {
        // SAFETY: the caller's promise.
        unsafe {
            let v = v.add(row * value_row);
            let p = [p[0].add(row * row_lanes), p[1].add(row * row_lanes)];
            if shift == 1 {
                let p = [s.splat(*p[0]), s.splat(*p[1].add(kernel_size))];
                for j in 0..V {
                    acc[0][j] = s.fma(s.load(v.add(j * S::LANES)), p[0], acc[0][j]);
                    acc[1][j] = s.fma(s.load(v.add(kernel_size * value + j * S::LANES)), p[1], acc[1][j]);
                }
            }
            for t in shift..kernel_size {
                let p = [s.splat(*p[0].add(t)), s.splat(*p[1].add(t))];
                for j in 0..V {
                    let v = s.load(v.add(t * value + j * S::LANES));
                    acc[0][j] = s.fma(v, p[0], acc[0][j]);
                    acc[1][j] = s.fma(v, p[1], acc[1][j]);
                }
            }
        }
    }
    acc
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
