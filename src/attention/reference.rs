//! Neighborhood attention and its gradient in f64, written to be read: what every kernel is compared with,
//! and what f64 tensors get.

use super::Problem;
use super::window::Class;

/// The output [B, H, W, heads·dim] for `qkv` [B, H, W, 3·heads·dim] and `rpb` [heads, 2K−1, 2K−1].
pub(super) fn forward(problem: &Problem, qkv: &[f64], rpb: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; qkv.len() / 3];
    for query in queries(problem) {
        let p = query.probabilities(problem, qkv, rpb);
        let out = &mut out[query.output(problem)..][..problem.dim];
        for (neighbour, p) in query.neighbours(problem).zip(p) {
            let v = &qkv[neighbour.v..][..problem.dim];
            out.iter_mut().zip(v).for_each(|(out, v)| *out += p * v);
        }
    }
    out
}

/// The gradients of a loss with respect to `qkv` and `rpb`, of their shapes, from that with respect to the
/// output, `grad` [B, H, W, heads·dim].
pub(super) fn backward(problem: &Problem, qkv: &[f64], rpb: &[f64], grad: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (dim, scale) = (problem.dim, problem.scale());
    let (mut grad_qkv, mut grad_rpb) = (vec![0.0; qkv.len()], vec![0.0; rpb.len()]);
    for query in queries(problem) {
        let p = query.probabilities(problem, qkv, rpb);
        let grad = &grad[query.output(problem)..][..dim];
        let grad_p: Vec<f64> = query.neighbours(problem).map(|n| dot(grad, &qkv[n.v..][..dim])).collect();
        let mean = dot(&p, &grad_p);
        let q = query.q(problem);
        for (neighbour, (p, grad_p)) in query.neighbours(problem).zip(p.iter().zip(grad_p)) {
            let grad_score = p * (grad_p - mean);
            grad_rpb[neighbour.bias] += grad_score;
            for c in 0..dim {
                grad_qkv[q + c] += grad_score * scale * qkv[neighbour.k + c];
                grad_qkv[neighbour.k + c] += grad_score * scale * qkv[q + c];
                grad_qkv[neighbour.v + c] += p * grad[c];
            }
        }
    }
    (grad_qkv, grad_rpb)
}

/// A query of one head: its class and place on each axis.
#[derive(Clone, Copy)]
struct Query {
    image: usize,
    rows: Class,
    columns: Class,
    y: usize,
    x: usize,
    head: usize,
}

/// Where the parts of a neighbour begin: its key and its value in qkv, and the bias that it takes in rpb.
struct Neighbour {
    k: usize,
    v: usize,
    bias: usize,
}

/// Every query of every head.
fn queries(problem: &Problem) -> impl Iterator<Item = Query> {
    let &Problem { batch, height, width, heads, kernel_size, dilation, .. } = problem;
    let places = move |length| {
        Class::all(length, kernel_size, dilation)
            .flat_map(|class| (0..class.size()).map(move |place| (class, place)))
    };
    (0..batch).flat_map(move |image| {
        places(height).flat_map(move |(rows, y)| {
            places(width).flat_map(move |(columns, x)| {
                (0..heads).map(move |head| Query { image, rows, columns, y, x, head })
            })
        })
    })
}

impl Query {
    /// Where q (0), k (1) or v (2) of this head begins at a place of the query's classes.
    fn part(&self, problem: &Problem, part: usize, y: usize, x: usize) -> usize {
        let &Problem { height, width, heads, dim, .. } = problem;
        let pixel = (self.image * height + self.rows.position(y)) * width + self.columns.position(x);
        ((pixel * 3 + part) * heads + self.head) * dim
    }

    fn q(&self, problem: &Problem) -> usize {
        self.part(problem, 0, self.y, self.x)
    }

    /// Where its output begins.
    fn output(&self, problem: &Problem) -> usize {
        let pixel = self.q(problem) / (3 * problem.heads * problem.dim);
        (pixel * problem.heads + self.head) * problem.dim
    }

    fn neighbours(&self, problem: &Problem) -> impl Iterator<Item = Neighbour> {
        let &Problem { kernel_size, bias_side: side, .. } = problem;
        (0..kernel_size * kernel_size).map(move |t| {
            let (ty, tx) = (t / kernel_size, t % kernel_size);
            let (y, x) = (self.rows.start(self.y) + ty, self.columns.start(self.x) + tx);
            let bias = (self.head * side + self.rows.bias(self.y) + ty) * side;
            Neighbour {
                k: self.part(problem, 1, y, x),
                v: self.part(problem, 2, y, x),
                bias: bias + self.columns.bias(self.x) + tx,
            }
        })
    }

    /// softmax(q·k / √dim + rpb) over the neighbours.
    fn probabilities(&self, problem: &Problem, qkv: &[f64], rpb: &[f64]) -> Vec<f64> {
        let q = &qkv[self.q(problem)..][..problem.dim];
        let score = |n: Neighbour| dot(q, &qkv[n.k..][..problem.dim]) * problem.scale() + rpb[n.bias];
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
