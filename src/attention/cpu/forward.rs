//! The forward pass: tiles in parallel, each row by row.

use rayon::prelude::*;

use super::*;

/// The output [B, H, W, heads·dim] for `qkv` [B, H, W, 3·heads·dim], `rpb` [heads, 2K−1, 2K−1] and, where an axis is
/// shorter than K·d, `pad` [3·heads·dim]: of a padded position what qkv has of a pixel.
pub(in crate::attention) fn forward(
    problem: &Problem,
    isa: Isa,
    qkv: &[f32],
    rpb: &[f32],
    pad: &[f32],
) -> Vec<f32> {
    let &Problem { batch, height, width, heads, dim, .. } = problem;
    let values = batch * height * width * heads * dim;
    assert_eq!(qkv.len(), 3 * values);
    assert!(!problem.is_padded() || pad.len() == 3 * heads * dim);
    let bias = padded(problem, rpb);
    let tiles = tiles(problem, rayon::current_num_threads());
    let mut out = Vec::with_capacity(values);
    let shared = Output(out.as_mut_ptr());
    (0..batch * tiles.len() * heads).into_par_iter().with_max_len(1).for_each(|job| {
        thread_local!(static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
        // Heads last: those of a pixel share pages.
        let (job, head) = (job / heads, job % heads);
        let (image, tile) = (job / tiles.len(), &tiles[job % tiles.len()]);
        SCRATCH.with_borrow_mut(|scratch| {
            isa.run(Attend { problem, qkv, bias: &bias, pad, out: &shared, image, head, tile, scratch });
        });
    });
    // SAFETY: the capacity is `values`, and the jobs wrote every channel of every query of every head.
    unsafe { out.set_len(values) };
    out
}

/// Cuts a map into tiles, every query in one of them: enough for all threads.
fn tiles(problem: &Problem, threads: usize) -> Vec<Tile> {
    let &Problem { batch, height, width, heads, kernel_size, dilation, .. } = problem;
    let strips: Vec<(Class, Range<usize>)> = Class::all(width, kernel_size, dilation)
        .flat_map(|class| strips(class, kernel_size).map(move |x| (class, x)))
        .collect();
    let wanted = if threads == 1 { 1 } else { threads * TILES_PER_THREAD };
    let wanted = wanted.div_ceil((batch * heads * dilation.min(height) * strips.len()).max(1));
    let mut tiles = Vec::new();
    for rows in Class::all(height, kernel_size, dilation) {
        // With fewer rows than half a window a tile would copy more than it computes.
        let most = rows.size().div_ceil(kernel_size.div_ceil(2));
        for y in even_parts(rows.size(), wanted.min(most).max(rows.size().div_ceil(ROWS))) {
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

/// Attention of the queries of one tile.
struct Attend<'a> {
    problem: &'a Problem,
    qkv: &'a [f32],
    /// The bias table between [`BIAS_PAD`] values on either side.
    bias: &'a [f32],
    pad: &'a [f32],
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
            // That of every published model, known when compiling.
            7 => self.attend(s, 7),
            kernel_size => self.attend(s, kernel_size),
        }
    }
}

impl Attend<'_> {
    #[inline(always)]
    fn attend<S: Simd>(self, s: S, kernel_size: usize) {
        let Self { problem, qkv, bias, pad, out, image, head, tile, scratch } = self;
        let &Problem { heads, dim, .. } = problem;
        let rows = reach_rows(tile.rows, &tile.y, kernel_size);
        let columns = reach(tile.columns, &tile.x, kernel_size);
        let layout = Layout::new::<S>(dim, kernel_size, tile, &columns);
        let sizes = [
            rows.len() * layout.key_row,
            rows.len() * layout.value_row,
            BATCH * layout.pair_lanes(),
            2 * layout.row_lanes,
        ];
        let [keys, values, scores, masks] = slices(scratch, sizes);
        layout.mask(masks);
        let source = Source::new(problem, qkv, pad, image, head, tile);
        let out_pixels = Pixels::new(problem, image, head, tile, heads * dim);
        let softmax = Softmax { problem, tile, head, bias, masks };
        let mut work =
            Work { s, tile, layout, source, out, out_pixels, rows, columns, keys, values, scores, softmax };

        let mut pairs = [[Query::default(); 2]; BATCH];
        let mut factors = [[0.0; 2]; BATCH];
        let mut packed = work.rows.start;
        let mut next = Some(tile.query(tile.y.start, tile.x.start));
        while let Some(Query { window_y, .. }) = next {
            let count = tile.batch(&mut next, work.layout.slack(), &mut pairs);
            let window_end = window_y + work.layout.rows;
            for y in packed + 1..window_end {
                work.ask_for(y, 0..work.layout.real);
            }
            while packed < window_end {
                work.pack(packed);
                packed += 1;
            }
            let (pairs, factors) = (&pairs[..count], &mut factors[..count]);
            work.dots(pairs, (packed < work.rows.end).then_some(packed));
            work.softmax.run(s.narrow(), &work.layout, pairs, work.scores, factors);
            work.mix(pairs, factors);
        }
    }
}

/// A tile and its scratch. The methods are the steps that a batch of pairs takes, all with windows in the
/// same rows.
struct Work<'a, S> {
    s: S,
    tile: &'a Tile,
    layout: Layout,
    source: Source<'a>,
    out: &'a Output,
    out_pixels: Pixels,
    /// Places of the keys and values; one row stands for all that are padded.
    rows: Range<usize>,
    columns: Range<usize>,
    keys: &'a mut [f32],
    values: &'a mut [f32],
    /// Of each pair of a batch, [query][row][lane]. Lanes count from the pair's first window.
    scores: &'a mut [f32],
    softmax: Softmax<'a>,
}

impl<S: Simd> Work<'_, S> {
    /// Asks the memory for row `y` of q, k and v. It is far, and many requests at once would stall: they
    /// go out a few columns at a time, between the queries of the row before.
    #[inline(always)]
    fn ask_for(&self, y: usize, columns: Range<usize>) {
        let Source { qkv, pixels, channels, .. } = self.source;
        if y >= self.tile.rows.size() {
            return;
        }
        for column in columns {
            let q = qkv.as_ptr().wrapping_add(pixels.at(y, self.columns.start + column));
            for c in (0..self.layout.dim).step_by(LINE) {
                for part in 0..3 {
                    self.s.prefetch(q.wrapping_add(part * channels + c));
                }
            }
        }
    }

    /// Copies row `y` of the keys, transposed, and of the values.
    #[inline(always)]
    fn pack(&mut self, y: usize) {
        let (s, layout, row) = (self.s, &self.layout, y - self.rows.start);
        let [k, v] = [1, 2].map(|part| self.source.line(layout, self.tile, part, y, self.columns.start));
        transpose_row(s, layout, &k, &mut self.keys[row * layout.key_row..]);
        copy_row(s, layout, &v, &mut self.values[row * layout.value_row..]);
    }

    /// The first column of a pair's windows, from the tile's first.
    #[inline(always)]
    fn column(&self, pair: &[Query; 2]) -> usize {
        pair[0].window_x - self.columns.start
    }

    /// The scores q·k of a batch; asks for row `upcoming` meanwhile.
    #[inline(always)]
    fn dots(&mut self, pairs: &[[Query; 2]], upcoming: Option<usize>) {
        let &Layout { dim, rows, real, key_row, .. } = &self.layout;
        let Source { qkv, pixels, .. } = self.source;
        let row = pairs[0][0].window_y - self.rows.start;
        // The keys of one block after the other stay in the L1 cache, where those of a wide window would not.
        for block in blocks::<S>(&self.layout) {
            for (i, pair) in pairs.iter().enumerate() {
                if let Some(y) = upcoming
                    && block.start == 0
                {
                    self.ask_for(y, i * real / pairs.len()..(i + 1) * real / pairs.len());
                }
                let column = self.column(pair);
                let [q0, q1] = [pixels.at(pair[0].y, pair[0].x), pixels.at(pair[1].y, pair[1].x)];
                let q = [&qkv[q0..q0 + dim], &qkv[q1..q1 + dim]];
                let keys = &self.keys[row * key_row..][..rows * key_row];
                let scores = &mut self.scores[i * self.layout.pair_lanes()..][..self.layout.pair_lanes()];
                dots_of(self.s.narrow(), &self.layout, block.clone(), q, keys, column, scores);
            }
        }
    }

    /// Writes the outputs of a batch.
    #[inline(always)]
    fn mix(&mut self, pairs: &[[Query; 2]], factors: &[[f32; 2]]) {
        let (s, layout) = (self.s, &self.layout);
        let &Layout { dim, value, value_row, .. } = layout;
        let row = pairs[0][0].window_y - self.rows.start;
        for (i, (pair, factors)) in pairs.iter().zip(factors).enumerate() {
            let shift = pair[1].window_x - pair[0].window_x;
            let p = &self.scores[i * layout.pair_lanes()..][..layout.pair_lanes()];
            let v = &self.values[row * value_row + self.column(pair) * value..];
            let [out0, out1] =
                [self.out_pixels.at(pair[0].y, pair[0].x), self.out_pixels.at(pair[1].y, pair[1].x)];
            let out = [self.out.0.wrapping_add(out0), self.out.0.wrapping_add(out1)];
            // SAFETY: the head's `dim` channels of these pixels are this job's alone.
            unsafe { mix_all(s, layout, shift, p, v, factors, out, dim) };
        }
    }
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
            (5, 40, 7, 2),
            (3, 9, 7, 4096),
            (100, 30, 201, 1),
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
