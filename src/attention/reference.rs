//! Neighborhood attention in f64, written to be read: what every kernel is compared with, and what
//! f64 tensors get.

use super::Problem;
use super::window::Class;

/// The output [B, H, W, heads·dim] for `qkv` [B, H, W, 3·heads·dim] and `rpb` [heads, 2K−1, 2K−1].
pub(super) fn forward(problem: &Problem, qkv: &[f64], rpb: &[f64]) -> Vec<f64> {
    let &Problem { batch, height, width, heads, dim, kernel_size, dilation, bias_side: side } = problem;
    let scale = (dim as f64).powf(-0.5);
    // Where the q (0), k (1) or v (2) of a pixel's head starts.
    let vector = |part: usize, image: usize, y: usize, x: usize, head: usize| {
        let pixel = (image * height + y) * width + x;
        let start = ((pixel * 3 + part) * heads + head) * dim;
        &qkv[start..start + dim]
    };

    let mut out = vec![0.0; batch * height * width * heads * dim];
    let mut scores = Vec::with_capacity(kernel_size * kernel_size);
    for image in 0..batch {
        for (rows, my) in places(height, kernel_size, dilation) {
            for (columns, mx) in places(width, kernel_size, dilation) {
                let (y, x) = (rows.position(my), columns.position(mx));
                for head in 0..heads {
                    let neighbours = (0..kernel_size * kernel_size).map(|t| {
                        let (ty, tx) = (t / kernel_size, t % kernel_size);
                        let key =
                            (rows.position(rows.start(my) + ty), columns.position(columns.start(mx) + tx));
                        let bias = (head * side + rows.bias(my) + ty) * side + columns.bias(mx) + tx;
                        (key, rpb[bias])
                    });

                    let q = vector(0, image, y, x, head);
                    scores.clear();
                    scores.extend(neighbours.clone().map(|((ky, kx), bias)| {
                        let k = vector(1, image, ky, kx, head);
                        q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * scale + bias
                    }));
                    softmax(&mut scores);

                    let pixel = (image * height + y) * width + x;
                    let out = &mut out[(pixel * heads + head) * dim..][..dim];
                    for (((ky, kx), _), p) in neighbours.zip(&scores) {
                        let v = vector(2, image, ky, kx, head);
                        out.iter_mut().zip(v).for_each(|(out, v)| *out += p * v);
                    }
                }
            }
        }
    }
    out
}

/// Every position of an axis, as a class and a place in it.
fn places(length: usize, kernel: usize, dilation: usize) -> impl Iterator<Item = (Class, usize)> {
    Class::all(length, kernel, dilation).flat_map(|class| (0..class.len()).map(move |m| (class, m)))
}

fn softmax(x: &mut [f64]) {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f64 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}
