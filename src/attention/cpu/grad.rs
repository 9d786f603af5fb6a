//! The gradient of neighborhood attention in f32 on all cores. Nothing of size H·W·K² is kept from the forward
//! pass: scores are recomputed.
//!
//! The work is cut into bands: some rows of queries of one image, head and dilation class, which go through
//! the tiles of [`super`] one after the other. With p = softmax(q·k / √dim + rpb) and g the gradient of a
//! query's output, a batch of pairs takes these steps:
//!
//! - p as in the forward pass, and the gradient of p, g·v, as another product with lanes of keys;
//! - the gradient of the scores, p ⊙ (g·v − Σ p g·v), which is also that of the biases;
//! - the gradient of q: the sum of keys with these weights, as outputs are sums of values;
//! - the gradients of k and v, where each load and store of a key's serves both queries.
//!
//! Keys near the border of a band are seen from its neighbours too: what a band has for them is kept beside
//! and added when all bands are done, in their order, so that results do not depend on chance.

use rayon::prelude::*;

use super::*;

/// Gradients of biases that are kept at once, of all bands together: 64 megabytes of them.
const MOST_BIASES: usize = 1 << 24;

/// The gradients of a loss with respect to `qkv` [B, H, W, 3·heads·dim] and, if `rpb_too`, to `rpb`
/// [heads, 2K−1, 2K−1], from that with respect to the output, `grad` [B, H, W, heads·dim]. `pad` is a constant, as in
/// the forward pass.
pub(in crate::attention) fn backward(
    problem: &Problem,
    isa: Isa,
    qkv: &[f32],
    rpb: &[f32],
    pad: &[f32],
    grad: &[f32],
    rpb_too: bool,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let &Problem { batch, height, width, heads, dim, bias_side, .. } = problem;
    assert_eq!(grad.len(), batch * height * width * heads * dim);
    assert_eq!(qkv.len(), 3 * grad.len());
    assert!(!problem.is_padded() || pad.len() == 3 * heads * dim);
    let bias = padded(problem, rpb);
    let bands = bands(problem, rayon::current_num_threads());
    let mut grad_qkv = vec![0.0; qkv.len()];
    let out = Output(grad_qkv.as_mut_ptr());
    let differentiate = |job: usize| {
        thread_local!(static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
        let (job, head) = (job / heads, job % heads);
        let (image, band) = (job / bands.len(), &bands[job % bands.len()]);
        SCRATCH.with_borrow_mut(|scratch| {
            let out = &out;
            isa.run(Differentiate {
                problem,
                qkv,
                bias: &bias,
                pad,
                grad,
                out,
                rpb_too,
                image,
                head,
                band,
                scratch,
            })
        })
    };
    let jobs = batch * bands.len() * heads;
    // A large dilation makes many bands, each with gradients of all biases: they are added up now and then.
    let table = bias_side * bias_side;
    let at_once = if rpb_too { (MOST_BIASES / table).max(rayon::current_num_threads()) } else { jobs.max(1) };
    let mut grad_rpb = rpb_too.then(|| vec![0.0; rpb.len()]);
    let mut keys_beside = Vec::with_capacity(jobs);
    for first in (0..jobs).step_by(at_once) {
        let some = first..jobs.min(first + at_once);
        let beside: Vec<Beside> = some.clone().into_par_iter().with_max_len(1).map(differentiate).collect();
        for (job, Beside { keys, biases }) in some.zip(beside) {
            if let Some(sums) = &mut grad_rpb {
                sums[job % heads * table..].iter_mut().zip(biases).for_each(|(sum, x)| *sum += x);
            }
            keys_beside.push(keys);
        }
    }

    (0..batch * heads).into_par_iter().for_each(|map| {
        let (image, head) = (map / heads, map % heads);
        for (i, band) in bands.iter().enumerate() {
            let beside = &keys_beside[(image * bands.len() + i) * heads + head];
            // SAFETY: the bands are done, and an image's head is this task's alone.
            unsafe { band.add_beside(problem, image, head, beside, &out) };
        }
    });
    (grad_qkv, grad_rpb)
}

/// Rows of queries of one dilation class.
struct Band {
    rows: Class,
    columns: Class,
    y: Range<usize>,
}

/// What a band has for others.
struct Beside {
    /// Gradients of the keys and values of the rows that it reaches and that are not its own,
    /// [row, column, 2, dim].
    keys: Vec<f32>,
    /// Gradients of its head's biases, where they are wanted.
    biases: Vec<f32>,
}

/// Cuts a map into bands, every query in one of them: enough for all threads, and with more rows than a band
/// shares with its neighbours.
fn bands(problem: &Problem, threads: usize) -> Vec<Band> {
    let &Problem { batch, height, width, heads, kernel_size, dilation, .. } = problem;
    let wanted = if threads == 1 { 1 } else { threads * TILES_PER_THREAD };
    let classes = dilation.min(height) * dilation.min(width);
    let wanted = wanted.div_ceil((batch * heads * classes).max(1));
    let mut bands = Vec::new();
    for rows in Class::all(height, kernel_size, dilation) {
        for columns in Class::all(width, kernel_size, dilation) {
            let most = rows.size().div_ceil(2 * kernel_size);
            let parts = even_parts(rows.size(), wanted.min(most).max(rows.size().div_ceil(ROWS)));
            bands.extend(parts.map(|y| Band { rows, columns, y }));
        }
    }
    bands
}

impl Band {
    /// The rows of pixels that are reached and not the band's own, in the order in which they lie beside.
    fn others(&self, kernel_size: usize) -> impl Iterator<Item = usize> + use<> {
        let (reach, own, size) = (reach(self.rows, &self.y, kernel_size), self.y.clone(), self.rows.size());
        reach.take_while(move |&row| row < size).filter(move |row| !own.contains(row))
    }

    /// Adds what a band has of the keys and values of others.
    ///
    /// # Safety
    /// Nothing else reads or writes that head of that image in `out`, a gradient of qkv.
    unsafe fn add_beside(&self, problem: &Problem, image: usize, head: usize, beside: &[f32], out: &Output) {
        let &Problem { heads, dim, kernel_size, .. } = problem;
        let tile =
            Tile { rows: self.rows, columns: self.columns, y: self.y.clone(), x: 0..self.columns.size() };
        let pixels = Pixels::new(problem, image, head, &tile, 3 * heads * dim);
        let mut vectors = beside.chunks_exact(dim);
        for y in self.others(kernel_size) {
            for x in 0..self.columns.size() {
                for (part, from) in (1..=2).zip(&mut vectors) {
                    let to = out.0.wrapping_add(pixels.at(y, x) + part * heads * dim);
                    for (c, x) in from.iter().enumerate() {
                        // SAFETY: channel c of that head of a pixel; the rest is the caller's promise.
                        unsafe { *to.add(c) += x };
                    }
                }
            }
        }
    }
}

/// The gradients of one band.
struct Differentiate<'a> {
    problem: &'a Problem,
    qkv: &'a [f32],
    /// The bias table, as [`padded`] makes it.
    bias: &'a [f32],
    pad: &'a [f32],
    grad: &'a [f32],
    /// The gradient of qkv.
    out: &'a Output,
    rpb_too: bool,
    image: usize,
    head: usize,
    band: &'a Band,
    scratch: &'a mut Vec<f32>,
}

impl Kernel for Differentiate<'_> {
    type Output = Beside;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Beside {
        match self.problem.kernel_size {
            7 => self.differentiate(s, 7),
            kernel_size => self.differentiate(s, kernel_size),
        }
    }
}

impl Differentiate<'_> {
    #[inline(always)]
    fn differentiate<S: Simd>(self, s: S, kernel_size: usize) -> Beside {
        let Self { problem, qkv, bias, pad, grad, out, rpb_too, image, head, band, scratch } = self;
        let &Problem { heads, dim, bias_side, .. } = problem;
        let rows = reach_rows(band.rows, &band.y, kernel_size);
        let others = band.others(kernel_size).count();
        let mut beside = Beside {
            keys: vec![0.0; others * band.columns.size() * 2 * dim],
            biases: vec![0.0; if rpb_too { bias_side * bias_side + BIAS_PAD } else { 0 }],
        };
        for x in strips(band.columns, kernel_size) {
            let tile = &Tile { rows: band.rows, columns: band.columns, y: band.y.clone(), x };
            let columns = reach(tile.columns, &tile.x, kernel_size);
            let layout = Layout::new::<S>(dim, kernel_size, tile, &columns);
            let (transposed, plain) = (rows.len() * layout.key_row, rows.len() * layout.value_row);
            let scores = BATCH * layout.pair_lanes();
            let sizes = [transposed, transposed, plain, plain, plain, scores, scores, 2 * layout.row_lanes];
            let [keys, values, key_rows, grad_keys, grad_values, p, grad_p, masks] = slices(scratch, sizes);
            layout.mask(masks);
            grad_keys.fill(0.0);
            grad_values.fill(0.0);
            let mut work = Work {
                s,
                problem,
                tile,
                source: Source::new(problem, qkv, pad, image, head, tile),
                grad,
                grad_pixels: Pixels::new(problem, image, head, tile, heads * dim),
                out,
                rows: rows.clone(),
                columns,
                keys,
                values,
                key_rows,
                grad_keys,
                grad_values,
                p,
                grad_p,
                softmax: Softmax { problem, tile, head, bias, masks },
                layout,
            };
            work.run(&mut beside);
        }
        beside.biases.truncate(bias_side * bias_side);
        beside
    }
}

/// A tile of a band and its scratch.
struct Work<'a, S> {
    s: S,
    problem: &'a Problem,
    layout: Layout,
    tile: &'a Tile,
    source: Source<'a>,
    grad: &'a [f32],
    grad_pixels: Pixels,
    out: &'a Output,
    /// Places of the keys and values; one row stands for all that are padded.
    rows: Range<usize>,
    columns: Range<usize>,
    /// Keys and values with keys as lanes, [row][channel][column].
    keys: &'a mut [f32],
    values: &'a mut [f32],
    /// [row][column][channel], as are the gradients.
    key_rows: &'a mut [f32],
    grad_keys: &'a mut [f32],
    grad_values: &'a mut [f32],
    /// Of each pair of a batch, [query][row][lane]: the probabilities, and the gradients of these and then of
    /// the scores.
    p: &'a mut [f32],
    grad_p: &'a mut [f32],
    softmax: Softmax<'a>,
}

impl<S: Simd> Work<'_, S> {
    #[inline(always)]
    fn run(&mut self, beside: &mut Beside) {
        let (s, tile) = (self.s, self.tile);
        let mut pairs = [[Query::default(); 2]; BATCH];
        let mut factors = [[0.0; 2]; BATCH];
        let mut packed = self.rows.start;
        let mut next = Some(tile.query(tile.y.start, tile.x.start));
        while let Some(Query { window_y, .. }) = next {
            let count = tile.batch(&mut next, self.layout.slack(), &mut pairs);
            while packed < window_y + self.layout.rows {
                self.pack(packed);
                packed += 1;
            }
            let (pairs, factors) = (&pairs[..count], &mut factors[..count]);
            self.dots(pairs);
            self.softmax.run(s.narrow(), &self.layout, pairs, self.p, factors);
            self.scores(pairs, factors, &mut beside.biases);
            self.queries(pairs);
            self.keys_and_values(pairs);
        }
        self.flush(&mut beside.keys);
    }

    /// Copies row `y` of the keys and values.
    #[inline(always)]
    fn pack(&mut self, y: usize) {
        let (s, layout, row) = (self.s, &self.layout, y - self.rows.start);
        let [k, v] = [1, 2].map(|part| self.source.line(layout, self.tile, part, y, self.columns.start));
        transpose_row(s, layout, &k, &mut self.keys[row * layout.key_row..]);
        transpose_row(s, layout, &v, &mut self.values[row * layout.key_row..]);
        copy_row(s, layout, &k, &mut self.key_rows[row * layout.value_row..]);
    }

    /// The row and the column of the scratch in which a pair's windows begin.
    #[inline(always)]
    fn start(&self, pair: &[Query; 2]) -> (usize, usize) {
        (pair[0].window_y - self.rows.start, pair[0].window_x - self.columns.start)
    }

    /// The channels of a pair's queries in a tensor.
    #[inline(always)]
    fn vectors<'a>(&self, from: &'a [f32], pixels: Pixels, pair: &[Query; 2]) -> [&'a [f32]; 2] {
        let [first, second] = [pixels.at(pair[0].y, pair[0].x), pixels.at(pair[1].y, pair[1].x)];
        [&from[first..first + self.layout.dim], &from[second..second + self.layout.dim]]
    }

    /// q·k of a batch into `p`, and the gradients of the outputs times v into `grad_p`.
    #[inline(always)]
    fn dots(&mut self, pairs: &[[Query; 2]]) {
        let (n, layout) = (self.s.narrow(), &self.layout);
        let (lanes, size) = (layout.pair_lanes(), layout.rows * layout.key_row);
        for block in blocks::<S>(layout) {
            for (i, pair) in pairs.iter().enumerate() {
                let (row, column) = self.start(pair);
                let q = self.vectors(self.source.qkv, self.source.pixels, pair);
                let keys = &self.keys[row * layout.key_row..][..size];
                dots_of(n, layout, block.clone(), q, keys, column, &mut self.p[i * lanes..][..lanes]);
            }
        }
        for block in blocks::<S>(layout) {
            for (i, pair) in pairs.iter().enumerate() {
                let (row, column) = self.start(pair);
                let grad = self.vectors(self.grad, self.grad_pixels, pair);
                let values = &self.values[row * layout.key_row..][..size];
                dots_of(
                    n,
                    layout,
                    block.clone(),
                    grad,
                    values,
                    column,
                    &mut self.grad_p[i * lanes..][..lanes],
                );
            }
        }
    }

    /// Makes probabilities of `p`, with `factors`, and of `grad_p` the gradients of the scores; adds these to
    /// those of the `biases`, if there are any.
    #[inline(always)]
    fn scores(&mut self, pairs: &[[Query; 2]], factors: &[[f32; 2]], biases: &mut [f32]) {
        let (n, layout, side) = (self.s.narrow(), &self.layout, self.problem.bias_side);
        let lanes = layout.pair_lanes() / 2;
        for (i, &factor) in factors.as_flattened().iter().enumerate() {
            let (pair, query) = (&pairs[i / 2], &pairs[i / 2][i % 2]);
            let first_x = pair[0].window_x;
            let (p, grad) = (&mut self.p[i * lanes..][..lanes], &mut self.grad_p[i * lanes..][..lanes]);
            score_gradients(n, layout, self.softmax.mask(layout, query, first_x), factor, p, grad);
            if !biases.is_empty() && (i % 2 == 0 || pair[0] != pair[1]) {
                let (y, x) = (self.tile.rows.bias(query.y), self.tile.columns.bias(query.x));
                let shift = query.window_x - first_x;
                add_rows(n, layout, &grad[shift..], &mut biases[y * side + x..], side);
            }
        }
    }

    /// Writes the gradients of q.
    #[inline(always)]
    fn queries(&mut self, pairs: &[[Query; 2]]) {
        let (s, layout) = (self.s, &self.layout);
        let &Layout { dim, value, value_row, .. } = layout;
        let scale = self.problem.scale() as f32;
        for (i, pair) in pairs.iter().enumerate() {
            let shift = pair[1].window_x - pair[0].window_x;
            let (row, column) = self.start(pair);
            let weights = &self.grad_p[i * layout.pair_lanes()..][..layout.pair_lanes()];
            let keys = &self.key_rows[row * value_row + column * value..];
            let out = [0, 1].map(|i| self.out.0.wrapping_add(self.source.pixels.at(pair[i].y, pair[i].x)));
            // SAFETY: the head's q of these pixels is this job's alone to write, and has `dim` channels.
            unsafe { mix_all(s, layout, shift, weights, keys, &[scale; 2], out, dim) };
        }
    }

    /// Adds to the gradients of the keys and values.
    #[inline(always)]
    fn keys_and_values(&mut self, pairs: &[[Query; 2]]) {
        let (s, scale) = (self.s, self.problem.scale() as f32);
        let &Layout { dim, value, value_row, .. } = &self.layout;
        let lanes = self.layout.pair_lanes();
        for (i, pair) in pairs.iter().enumerate() {
            let (row, column) = self.start(pair);
            let start = row * value_row + column * value;
            let q = self.vectors(self.source.qkv, self.source.pixels, pair);
            let grad = self.vectors(self.grad, self.grad_pixels, pair);
            let layout = &self.layout;
            let (p, grad_p) = (&self.p[i * lanes..][..lanes], &self.grad_p[i * lanes..][..lanes]);
            // A query that stands for both counts once.
            let shift = (pair[0] != pair[1]).then(|| pair[1].window_x - pair[0].window_x);
            for c in (0..dim).step_by(2 * S::LANES) {
                let [q, grad] = [q, grad].map(|x| [&x[0][c..], &x[1][c..]]);
                let (keys, values) = (&mut self.grad_keys[start + c..], &mut self.grad_values[start + c..]);
                if dim - c > S::LANES {
                    spread::<S, 2>(s, layout, shift, grad_p, q, scale, keys);
                    spread::<S, 2>(s, layout, shift, p, grad, 1.0, values);
                } else {
                    spread::<S, 1>(s, layout, shift, grad_p, q, scale, keys);
                    spread::<S, 1>(s, layout, shift, p, grad, 1.0, values);
                }
            }
        }
    }

    /// Adds the gradients of the keys and values to those of the band's other tiles: its own rows into the
    /// output, other rows beside.
    #[inline(always)]
    fn flush(&mut self, beside: &mut [f32]) {
        let (s, channels) = (self.s, self.source.channels);
        let &Layout { dim, value, value_row, real, .. } = &self.layout;
        let mut other = 0;
        // Padded keys have no gradient.
        for (i, y) in self.rows.clone().enumerate().take_while(|(_, y)| *y < self.tile.rows.size()) {
            let own = self.tile.y.contains(&y);
            for column in 0..real {
                let x = self.columns.start + column;
                for (part, from) in [&self.grad_keys, &self.grad_values].into_iter().enumerate() {
                    let from = &from[i * value_row + column * value..][..value];
                    let to = if own {
                        self.out.0.wrapping_add(self.source.pixels.at(y, x) + (part + 1) * channels)
                    } else {
                        let at = ((other * self.tile.columns.size() + x) * 2 + part) * dim;
                        beside[at..at + dim].as_mut_ptr()
                    };
                    for c in (0..dim).step_by(S::LANES) {
                        // SAFETY: `from` has whole vectors. `to` has `dim` channels: the head's k or v of a
                        // pixel of the band, which is this job's alone, or a part of `beside`.
                        unsafe {
                            let (to, n) = (to.add(c), S::LANES.min(dim - c));
                            let sum = s.add(s.load_first(to, n), s.load(from.as_ptr().add(c)));
                            s.store_first(to, sum, n);
                        }
                    }
                }
            }
            other += usize::from(!own);
        }
    }
}

/// Makes probabilities of the e^(score − largest) of a query, times `factor`, and of the gradients of these
/// that of the scores. Lanes where `mask` is −∞ keep nothing of use.
#[inline(always)]
fn score_gradients<N: Simd>(
    n: N,
    layout: &Layout,
    mask: &[f32],
    factor: f32,
    p: &mut [f32],
    grad: &mut [f32],
) {
    let &Layout { kernel_size, row_lanes, .. } = layout;
    assert!(p.len() == kernel_size * row_lanes && grad.len() == p.len() && mask.len() == row_lanes);
    let (zero, factor) = (n.splat(0.0), n.splat(factor));
    let mut sum = zero;
    for at in (0..p.len()).step_by(N::LANES) {
        // SAFETY: vectors of `p` and `grad`, which are as long, and of `mask`.
        unsafe {
            // ∞ in the lanes of the window, and 0 in others, where e^x is so small that its multiples may be
            // denormal, and the gradient may be NaN. By the order of operands p keeps the window's NaN, and the
            // gradient makes infinities of it.
            let mask = n.max(n.load(mask.as_ptr().add(at % row_lanes)), zero);
            let (p_at, grad_at) = (p.as_mut_ptr().add(at), grad.as_mut_ptr().add(at));
            let p = n.mul(n.min(mask, n.load(p_at)), factor);
            let grad = n.min(n.max(n.load(grad_at), n.sub(zero, mask)), mask);
            sum = n.fma(p, grad, sum);
            n.store(p_at, p);
            n.store(grad_at, grad);
        }
    }
    let mean = n.splat(n.reduce_sum(sum));
    for at in (0..p.len()).step_by(N::LANES) {
        // SAFETY: as above.
        unsafe {
            let (p_at, grad_at) = (p.as_ptr().add(at), grad.as_mut_ptr().add(at));
            n.store(grad_at, n.mul(n.load(p_at), n.sub(n.load(grad_at), mean)));
        }
    }
}

/// Adds the K×K values of a window, of which `from` begins with the first, to rows of `to` that are `side`
/// apart.
#[inline(always)]
fn add_rows<N: Simd>(n: N, layout: &Layout, from: &[f32], to: &mut [f32], side: usize) {
    let &Layout { kernel_size, row_lanes, .. } = layout;
    assert!(from.len() >= (kernel_size - 1) * row_lanes + kernel_size);
    assert!(to.len() >= (kernel_size - 1) * side + kernel_size.next_multiple_of(8));
    for row in 0..kernel_size {
        for lane in (0..kernel_size).step_by(N::LANES) {
            // SAFETY: the window's values by the first assertion, whole vectors of `to` by the second.
            unsafe {
                let x =
                    n.load_first(from.as_ptr().add(row * row_lanes + lane), N::LANES.min(kernel_size - lane));
                let to = to.as_mut_ptr().add(row * side + lane);
                n.store(to, n.add(n.load(to), x));
            }
        }
    }
}

/// Adds `scale`·weight·x of two queries to the rows of their windows, V vectors of channels from the first of
/// each `x` and of `rows` on: the transpose of [`mix`]. The second window begins `shift` keys behind the
/// first; without a shift there is no second query.
#[inline(always)]
fn spread<S: Simd, const V: usize>(
    s: S,
    layout: &Layout,
    shift: Option<usize>,
    weights: &[f32],
    x: [&[f32]; 2],
    scale: f32,
    rows: &mut [f32],
) {
    let &Layout { kernel_size, rows: count, row_lanes, value, value_row, .. } = layout;
    let (second, shift) = (shift.is_some(), shift.unwrap_or(0));
    assert!(shift <= 1 && kernel_size + shift <= row_lanes && weights.len() == 2 * kernel_size * row_lanes);
    assert!(count > 0);
    assert!(rows.len() >= (count - 1) * value_row + (kernel_size + shift - 1) * value + V * S::LANES);
    let mut vectors = [[s.splat(0.0); V]; 2];
    for i in 0..1 + usize::from(second) {
        for j in 0..V {
            let left = x[i].len().saturating_sub(j * S::LANES).min(S::LANES);
            // SAFETY: so many channels are left.
            let x = unsafe { s.load_first(x[i].as_ptr().wrapping_add(j * S::LANES), left) };
            vectors[i][j] = s.mul(x, s.splat(scale));
        }
    }
    for row in 0..kernel_size {
        // SAFETY: the window, of K + shift keys in each of K rows, lies in `weights` and, with `count` of them, in
        // `rows` by the assertions.
        unsafe {
            let weights = weights.as_ptr().add(row * row_lanes);
            let weights = [weights, weights.add(kernel_size * row_lanes)];
            let rows = rows.as_mut_ptr().add(row.min(count - 1) * value_row);
            // Both queries have the keys from `shift` to K - 1; the first has key 0 too, the second key K.
            if shift == 1 {
                for (i, key) in [(0, 0), (1, kernel_size)] {
                    let weight = s.splat(*weights[i].add(key));
                    for j in 0..V {
                        let to = rows.add(key * value + j * S::LANES);
                        s.store(to, s.fma(weight, vectors[i][j], s.load(to)));
                    }
                }
            }
            for key in shift..kernel_size {
                let (first, second) = (s.splat(*weights[0].add(key)), s.splat(*weights[1].add(key)));
                for j in 0..V {
                    let to = rows.add(key * value + j * S::LANES);
                    let sum = s.fma(first, vectors[0][j], s.load(to));
                    s.store(to, s.fma(second, vectors[1][j], sum));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_hold_every_query_once() {
        for (height, width, kernel_size, dilation) in [
            (7, 7, 7, 1),
            (56, 56, 7, 1),
            (150, 61, 7, 1),
            (57, 61, 7, 8),
            (26, 40, 13, 2),
            (14, 14, 14, 1),
            (5, 40, 7, 2),
            (3, 9, 7, 4096),
            (100, 30, 201, 1),
        ] {
            for (batch, heads, threads) in [(1, 1, 1), (1, 2, 2), (1, 16, 2), (1, 1, 64), (3, 4, 16)] {
                let (dim, bias_side) = (8, 2 * kernel_size - 1);
                let problem = Problem { batch, height, width, heads, dim, kernel_size, dilation, bias_side };
                let mut seen = vec![0; height * width];
                for band in bands(&problem, threads) {
                    assert!(band.y.len() <= ROWS);
                    for y in band.y.clone() {
                        for x in 0..band.columns.size() {
                            seen[band.rows.position(y) * width + band.columns.position(x)] += 1;
                        }
                    }
                }
                assert!(seen.iter().all(|&n| n == 1), "{problem:?}, {threads} threads");
            }
        }
    }
}
