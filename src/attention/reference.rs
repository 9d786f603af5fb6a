//! Neighborhood attention and its gradient in f64, written to be read: what every kernel is compared with,
//! and what f64 tensors get.

use super::problem::Problem;
use super::window::Class;

/// The output [B, H, W, heads·dim] for `qkv` [B, H, W, 3·heads·dim], `rpb` [heads, 2K−1, 2K−1] and, where an axis is
/// shorter than K·d, `pad` [3·heads·dim]: of a padded position what qkv has of a pixel.
pub(super) fn forward(problem: &Problem, qkv: &[f64], rpb: &[f64], pad: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; qkv.len() / 3];
    for query in queries(problem) {
        let p = query.probabilities(problem, qkv, rpb, pad);
        let out = &mut out[query.output(problem)..][..problem.dim];
        for (neighbour, p) in query.neighbours(problem).zip(p) {
            let v = query.key(problem, 2, neighbour.pixel, qkv, pad);
            out.iter_mut().zip(v).for_each(|(out, v)| *out += p * v);
        }
    }
    out
}

/// The gradients of a loss with respect to `qkv` and `rpb`, of their shapes, from that with respect to the
/// output, `grad` [B, H, W, heads·dim]. `pad` is a constant.
pub(super) fn backward(
    problem: &Problem,
    qkv: &[f64],
    rpb: &[f64],
    pad: &[f64],
    grad: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let (dim, scale) = (problem.dim, problem.scale());
    let (mut grad_qkv, mut grad_rpb) = (vec![0.0; qkv.len()], vec![0.0; rpb.len()]);
    for query in queries(problem) {
        let p = query.probabilities(problem, qkv, rpb, pad);
        let grad = &grad[query.output(problem)..][..dim];
        let v = |n: Neighbour| query.key(problem, 2, n.pixel, qkv, pad);
        let grad_p: Vec<f64> = query.neighbours(problem).map(|n| dot(grad, v(n))).collect();
        let mean = dot(&p, &grad_p);
        let q = query.part(problem, 0, query.pixel);
        for (neighbour, (p, grad_p)) in query.neighbours(problem).zip(p.iter().zip(grad_p)) {
            let grad_score = p * (grad_p - mean);
            grad_rpb[neighbour.bias] += grad_score;
            let key = query.key(problem, 1, neighbour.pixel, qkv, pad);
            for c in 0..dim {
                grad_qkv[q + c] += grad_score * scale * key[c];
            }
            let Some(pixel) = neighbour.pixel else { continue };
            let [k, v] = [1, 2].map(|part| query.part(problem, part, pixel));
            for c in 0..dim {
                grad_qkv[k + c] += grad_score * scale * qkv[q + c];
                grad_qkv[v + c] += p * grad[c];
            }
        }
    }
    (grad_qkv, grad_rpb)
}

/// A query of one head: its class and place on each axis.
#[derive(Clone, Copy)]
pub(super) struct HeadQuery {
    pub(super) image: usize,
    /// Counted through all images.
    pub(super) pixel: usize,
    pub(super) rows: Class,
    pub(super) columns: Class,
    pub(super) y: usize,
    pub(super) x: usize,
    pub(super) head: usize,
}

/// A key that a query sees: its pixel, counted through all images, none if it is padded, and the bias that it takes
/// in rpb.
pub(super) struct Neighbour {
    pub(super) pixel: Option<usize>,
    pub(super) bias: usize,
}

/// Every query of every head.
fn queries(problem: &Problem) -> impl Iterator<Item = HeadQuery> {
    let &Problem { batch, height, width, heads, kernel_size, dilation, .. } = problem;
    let places = move |length| {
        Class::all(length, kernel_size, dilation)
            .flat_map(|class| (0..class.size()).map(move |place| (class, place)))
    };
    (0..batch).flat_map(move |image| {
        places(height).flat_map(move |(rows, y)| {
            places(width).flat_map(move |(columns, x)| {
                let pixel = (image * height + rows.position(y)) * width + columns.position(x);
                (0..heads).map(move |head| HeadQuery { image, pixel, rows, columns, y, x, head })
            })
        })
    })
}

impl HeadQuery {
    /// The pixel at a place of the query's classes, if there is one.
    fn at(&self, problem: &Problem, y: usize, x: usize) -> Option<usize> {
        let &Problem { height, width, .. } = problem;
        let there = y < self.rows.size() && x < self.columns.size();
        there.then(|| (self.image * height + self.rows.position(y)) * width + self.columns.position(x))
    }

    /// Where q (0), k (1) or v (2) of this head begins in a pixel of qkv.
    pub(super) fn part(&self, problem: &Problem, part: usize, pixel: usize) -> usize {
        ((pixel * 3 + part) * problem.heads + self.head) * problem.dim
    }

    /// k (1) or v (2) of this head of a pixel, or of `pad` where there is none.
    pub(super) fn key<'a>(
        &self,
        problem: &Problem,
        part: usize,
        pixel: Option<usize>,
        qkv: &'a [f64],
        pad: &'a [f64],
    ) -> &'a [f64] {
        match pixel {
            Some(pixel) => &qkv[self.part(problem, part, pixel)..][..problem.dim],
            None => &pad[self.part(problem, part, 0)..][..problem.dim],
        }
    }

    /// Where its output begins.
    pub(super) fn output(&self, problem: &Problem) -> usize {
        (self.pixel * problem.heads + self.head) * problem.dim
    }

    pub(super) fn neighbours(&self, problem: &Problem) -> impl Iterator<Item = Neighbour> {
        let &Problem { kernel_size, bias_side: side, .. } = problem;
        (0..kernel_size * kernel_size).map(move |t| {
            let (ty, tx) = (t / kernel_size, t % kernel_size);
            let (y, x) = (self.rows.start(self.y) + ty, self.columns.start(self.x) + tx);
            let bias = (self.head * side + self.rows.bias(self.y) + ty) * side;
            Neighbour { pixel: self.at(problem, y, x), bias: bias + self.columns.bias(self.x) + tx }
        })
    }

    /// softmax(q·k / √dim + rpb) over the neighbours.
    fn probabilities(&self, problem: &Problem, qkv: &[f64], rpb: &[f64], pad: &[f64]) -> Vec<f64> {
        let q = &qkv[self.part(problem, 0, self.pixel)..][..problem.dim];
        let score =
            |n: Neighbour| dot(q, self.key(problem, 1, n.pixel, qkv, pad)) * problem.scale() + rpb[n.bias];
        let mut p: Vec<f64> = self.neighbours(problem).map(score).collect();
        let max = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        p.iter_mut().for_each(|p| *p = (*p - max).exp());
        let sum: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= sum);
        p
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
