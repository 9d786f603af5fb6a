//! The copies and inner loops, each alone: what it makes of inputs that are exact, and what it should.

use super::inputs::{Inputs, dot, scores};
use crate::attention::cpu::geometry::{ANY, KernelSize, USUAL};
use crate::attention::cpu::microkernels::{
    add_bias, add_rows, blocks, dots_of, exponentials, fill_masks, mix_all, score_gradients, spread,
};
use crate::attention::cpu::packing::{Arrangement, copy_row, transpose_row};
use crate::attention::cpu::pixels::Qkv;
use crate::attention::cpu::scores::{WindowSoftmax, padded_biases};
use crate::simd::{Isa, Kernel, Simd};

/// A copy or an inner loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    TransposeRow,
    CopyRow,
    Dots,
    AddBias,
    Exponentials,
    Mix,
    ScoreGradients,
    AddRows,
    Spread,
}

/// What outputs are multiplied by.
const FACTORS: [f32; 2] = [0.75, 1.25];
/// What the vectors of [`Step::Spread`] are multiplied by.
const SCALE: f32 = 0.625;

/// What the step should make, in up to two parts.
pub(super) fn exact(step: Step, inputs: &Inputs) -> Vec<Vec<f64>> {
    let problem = &inputs.problem;
    let (k, dim, side) = (problem.kernel_size, problem.dim, problem.bias_side);
    let wide = |x: &[f32]| x.iter().copied().map(f64::from).collect::<Vec<_>>();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for walk in &inputs.walks {
        if step == Step::TransposeRow || step == Step::CopyRow {
            for (part, y) in [1, 2].into_iter().flat_map(|part| walk.rows.clone().map(move |y| (part, y))) {
                let vectors = walk.columns.clone().map(|x| inputs.vector(walk, part, y, x));
                let vectors: Vec<&[f32]> = vectors.collect();
                if step == Step::CopyRow {
                    first.extend(wide(&vectors.concat()));
                } else {
                    first.extend((0..dim).flat_map(|c| vectors.iter().map(move |v| f64::from(v[c]))));
                }
            }
            continue;
        }
        // Gradients of biases, and of the keys at all places of the scratch.
        let (mut biases, columns) = (vec![0.0; side * side], walk.columns.len());
        let mut keys = vec![0.0; walk.rows.len() * columns * dim];
        for (pair_at, pair) in walk.pairs.iter().enumerate() {
            for (i, query) in pair.iter().enumerate() {
                let stages = &walk.stages[pair_at][i];
                let places: Vec<(usize, usize)> =
                    (0..k * k).map(|t| (query.window_y + t / k, query.window_x + t % k)).collect();
                let alone = i == 1 && pair[0] == pair[1];
                let q = inputs.vector(walk, 0, query.y, query.x);
                match step {
                    Step::TransposeRow | Step::CopyRow => unreachable!("rows are done"),
                    Step::Dots => {
                        let key = |&(y, x): &(usize, usize)| dot(q, inputs.vector(walk, 1, y, x));
                        first.extend(places.iter().map(key));
                    }
                    Step::AddBias => {
                        let scores = scores(inputs, walk, query, &stages.products);
                        second.push(scores.iter().copied().fold(f64::NEG_INFINITY, f64::max));
                        first.extend(scores);
                    }
                    Step::Exponentials => {
                        let largest = f64::from(stages.largest);
                        let e: Vec<f64> = wide(&stages.scores).iter().map(|x| (x - largest).exp()).collect();
                        second.push(e.iter().sum());
                        first.extend(e);
                    }
                    Step::Mix => first.extend((0..dim).map(|c| {
                        let value = |(&(y, x), p): (&(usize, usize), &f32)| {
                            f64::from(*p) * f64::from(inputs.vector(walk, 2, y, x)[c])
                        };
                        let sum: f64 = places.iter().zip(&stages.probabilities).map(value).sum();
                        f64::from(FACTORS[i]) * sum
                    })),
                    Step::ScoreGradients => {
                        let factor = f64::from(stages.factor);
                        let p: Vec<f64> = wide(&stages.exponentials).iter().map(|e| e * factor).collect();
                        let noise = wide(&stages.noise);
                        let mean: f64 = p.iter().zip(&noise).map(|(p, g)| p * g).sum();
                        second.extend(p.iter().zip(&noise).map(|(p, g)| p * (g - mean)));
                        first.extend(p);
                    }
                    Step::AddRows => {
                        let reference = inputs.reference(walk, query);
                        let neighbours = reference.neighbours(problem);
                        for (n, x) in neighbours.zip(&stages.noise).filter(|_| !alone) {
                            biases[n.bias - inputs.head() * side * side] += f64::from(*x);
                        }
                    }
                    Step::Spread => {
                        for (&(y, x), p) in places.iter().zip(&stages.probabilities).filter(|_| !alone) {
                            // One row stands for all that are padded.
                            let row = y.min(walk.rows.end - 1) - walk.rows.start;
                            let at = (row * columns + x - walk.columns.start) * dim;
                            for (to, q) in keys[at..].iter_mut().zip(q) {
                                *to += f64::from(SCALE) * f64::from(*p) * f64::from(*q);
                            }
                        }
                    }
                }
            }
        }
        match step {
            Step::AddRows => first.extend(biases),
            Step::Spread => first.extend(keys),
            _ => {}
        }
    }
    vec![first, second]
}

/// What the step makes on an instruction set, in the order of [`exact`].
pub(super) fn made(step: Step, inputs: &Inputs, isa: Isa) -> Vec<Vec<f32>> {
    isa.run(Alone { step, inputs })
}

struct Alone<'a> {
    step: Step,
    inputs: &'a Inputs,
}

impl Kernel for Alone<'_> {
    type Output = Vec<Vec<f32>>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<Vec<f32>> {
        match self.inputs.problem.kernel_size {
            USUAL => self.made::<S, USUAL>(s),
            _ => self.made::<S, ANY>(s),
        }
    }
}

impl Alone<'_> {
    #[inline(always)]
    fn made<S: Simd, const K: usize>(self, s: S) -> Vec<Vec<f32>> {
        let Self { step, inputs } = self;
        let (n, problem) = (s.narrow(), &inputs.problem);
        let (dim, side) = (problem.dim, problem.bias_side);
        let size = KernelSize::<K>::new(problem.kernel_size);
        let (k, row_lanes, lanes, pitch) = (size.get(), size.row_lanes(), size.lanes(), size.pitch());
        let bias = padded_biases(problem, &inputs.rpb);
        let mut masks = vec![0.0; 2 * row_lanes];
        fill_masks(size, &mut masks);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for walk in &inputs.walks {
            let tile = &walk.tile;
            let arrangement = Arrangement::new(size, dim, tile, &walk.columns, S::LANES);
            let Arrangement { rows, columns, real, key_row, value, value_row, .. } = arrangement;
            let qkv = Qkv::new(problem, &inputs.qkv, &inputs.pad, inputs.image(), inputs.head(), tile);
            if step == Step::TransposeRow || step == Step::CopyRow {
                for part in [1, 2] {
                    for y in walk.rows.clone() {
                        let row = qkv.row(tile, part, y, walk.columns.start, real);
                        if step == Step::CopyRow {
                            let mut to = vec![f32::NAN; value_row];
                            copy_row(s, &arrangement, &row, &mut to);
                            for to in to.chunks_exact(value) {
                                first.extend_from_slice(&to[..dim]);
                                assert!(to[dim..].iter().all(|x| *x == 0.0), "padded channels");
                            }
                        } else {
                            let mut to = vec![f32::NAN; key_row];
                            transpose_row(s, &arrangement, &row, &mut to);
                            for to in to.chunks_exact(pitch) {
                                first.extend_from_slice(&to[..columns]);
                                // What a window's last vector reads beyond it.
                                assert!(
                                    to[..(columns + row_lanes - k).min(pitch)].iter().all(|x| !x.is_nan())
                                );
                            }
                        }
                    }
                }
                continue;
            }
            // The scratch as it should be; what no window holds is NaN.
            let mut keys = vec![f32::NAN; walk.rows.len() * key_row];
            let mut plain = vec![0.0; walk.rows.len() * value_row];
            for (row, y) in walk.rows.clone().enumerate() {
                for (column, x) in walk.columns.clone().enumerate() {
                    let at = row * value_row + column * value;
                    plain[at..][..dim].copy_from_slice(inputs.vector(walk, 2, y, x));
                    for (c, k) in inputs.vector(walk, 1, y, x).iter().enumerate() {
                        keys[row * key_row + c * pitch + column] = *k;
                    }
                }
            }
            let softmax = WindowSoftmax { problem, tile, head: inputs.head(), bias: &bias, masks: &masks };
            let mut biases = vec![0.0; side * side + 8];
            let mut sums = vec![0.0; walk.rows.len() * value_row];
            for (pair_at, pair) in walk.pairs.iter().enumerate() {
                let row = pair[0].window_y - walk.rows.start;
                let (column, first_x) = (pair[0].window_x - walk.columns.start, pair[0].window_x);
                let shift = pair[1].window_x - first_x;
                let stages = &walk.stages[pair_at];
                // A pair's [K, K] in lanes, with NaN in the others.
                let in_lanes = |what: [&[f32]; 2]| {
                    let mut to = vec![f32::NAN; 2 * lanes];
                    for (i, what) in what.into_iter().enumerate() {
                        for (row, what) in what.chunks_exact(k).enumerate() {
                            to[i * lanes + row * row_lanes + i * shift..][..k].copy_from_slice(what);
                        }
                    }
                    to
                };
                let from_lanes = |from: &[f32], i: usize, to: &mut Vec<f32>| {
                    for row in from[i * lanes..][..lanes].chunks_exact(row_lanes) {
                        to.extend_from_slice(&row[i * shift..][..k]);
                    }
                };
                let q = [0, 1].map(|i| inputs.vector(walk, 0, pair[i].y, pair[i].x));
                let p = in_lanes([&stages[0].probabilities, &stages[1].probabilities]);
                match step {
                    Step::TransposeRow | Step::CopyRow => unreachable!("rows are done"),
                    Step::Dots => {
                        let mut scores = vec![f32::NAN; 2 * lanes];
                        for block in blocks::<S, K>(size) {
                            let keys = &keys[row * key_row..][..rows * key_row];
                            dots_of(n, &arrangement, block, q, keys, column, &mut scores);
                        }
                        from_lanes(&scores, 0, &mut first);
                        from_lanes(&scores, 1, &mut first);
                    }
                    Step::AddBias => {
                        let mut scores = in_lanes([&stages[0].products, &stages[1].products]);
                        for i in 0..2 {
                            let bias = &bias[softmax.bias_at(&pair[i], first_x)..];
                            let mask = softmax.mask(size, &pair[i], first_x);
                            let scores = &mut scores[i * lanes..][..lanes];
                            let scale = problem.scale() as f32;
                            second.push(add_bias(n, mask, scores, scale, bias, side));
                            let outside = scores.iter().filter(|x| **x == f32::NEG_INFINITY).count();
                            assert_eq!(outside, lanes - k * k, "lanes outside the window");
                        }
                        from_lanes(&scores, 0, &mut first);
                        from_lanes(&scores, 1, &mut first);
                    }
                    Step::Exponentials => {
                        let mut x = in_lanes([&stages[0].scores, &stages[1].scores]);
                        for x in x.iter_mut().filter(|x| x.is_nan()) {
                            *x = f32::NEG_INFINITY;
                        }
                        for i in 0..2 {
                            let x = &mut x[i * lanes..][..lanes];
                            second.push(exponentials(n, x, stages[i].largest));
                        }
                        from_lanes(&x, 0, &mut first);
                        from_lanes(&x, 1, &mut first);
                    }
                    Step::Mix => {
                        let v = &plain[row * value_row + column * value..];
                        let mut out = [vec![f32::NAN; dim], vec![f32::NAN; dim]];
                        let to = [out[0].as_mut_ptr(), out[1].as_mut_ptr()];
                        // SAFETY: both have `dim` values.
                        unsafe { mix_all(s, &arrangement, shift, &p, v, &FACTORS, to) };
                        first.extend(out.concat());
                    }
                    Step::ScoreGradients => {
                        let mut p = in_lanes([&stages[0].exponentials, &stages[1].exponentials]);
                        let mut grad = in_lanes([&stages[0].noise, &stages[1].noise]);
                        for i in 0..2 {
                            let mask = softmax.mask(size, &pair[i], first_x);
                            let (p, grad) = (&mut p[i * lanes..][..lanes], &mut grad[i * lanes..][..lanes]);
                            for p in p.iter_mut().filter(|p| p.is_nan()) {
                                *p = f32::MIN_POSITIVE;
                            }
                            score_gradients(n, size, mask, stages[i].factor, p, grad);
                        }
                        for i in 0..2 {
                            from_lanes(&p, i, &mut first);
                            from_lanes(&grad, i, &mut second);
                        }
                    }
                    Step::AddRows => {
                        let x = in_lanes([&stages[0].noise, &stages[1].noise]);
                        for i in 0..if pair[0] == pair[1] { 1 } else { 2 } {
                            let at = tile.rows.bias(pair[i].y) * side + tile.columns.bias(pair[i].x);
                            let x = &x[i * lanes..][..lanes];
                            add_rows(n, size, &x[i * shift..], &mut biases[at..], side);
                        }
                    }
                    Step::Spread => {
                        let shift = (pair[0] != pair[1]).then_some(shift);
                        let at = row * value_row + column * value;
                        for c in (0..dim).step_by(2 * S::LANES) {
                            let (q, to) = ([&q[0][c..], &q[1][c..]], &mut sums[at + c..]);
                            if dim - c > S::LANES {
                                spread::<S, 2, K>(s, &arrangement, shift, &p, q, SCALE, to);
                            } else {
                                spread::<S, 1, K>(s, &arrangement, shift, &p, q, SCALE, to);
                            }
                        }
                    }
                }
            }
            match step {
                Step::AddRows => first.extend_from_slice(&biases[..side * side]),
                Step::Spread => sums.chunks_exact(value).for_each(|x| first.extend_from_slice(&x[..dim])),
                _ => {}
            }
        }
        vec![first, second]
    }
}
