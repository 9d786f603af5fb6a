//! A problem with its inputs, and how the drivers walk through it.

use std::ops::Range;

use candle_core::Shape;
use fastrand::Rng;
use nat_testing::tensors::{normal, values};

use crate::attention::cpu::geometry::{ANY, BATCH, KernelSize, Query, QueryTile, reach, reach_rows, tiles};
use crate::attention::problem::Problem;
use crate::attention::reference::HeadQuery;
use crate::attention::tests::tools::attention;

/// Batch, height, width, heads, channels of a head, kernel size, dilation.
pub(super) type ShapeOf = (usize, usize, usize, usize, usize, usize, usize);

/// A problem and its inputs.
pub(super) struct Inputs {
    pub(super) problem: Problem,
    pub(super) qkv: Vec<f32>,
    pub(super) rpb: Vec<f32>,
    pub(super) pad: Vec<f32>,
    /// The gradient of the output.
    pub(super) grad: Vec<f32>,
    /// The tiles of a map.
    pub(super) walks: Vec<Walk>,
}

/// A tile, the places that its windows reach, and its pairs in the drivers' order.
pub(super) struct Walk {
    pub(super) tile: QueryTile,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    pub(super) pairs: Vec<[Query; 2]>,
    /// Of each pair.
    pub(super) stages: Vec<[Stages; 2]>,
}

impl Inputs {
    /// Of that shape; q, k, v and pad have this deviation, and scores about its square.
    pub(super) fn new((b, h, w, heads, dim, kernel_size, dilation): ShapeOf, deviation: f32) -> Self {
        let shape = (b, h, w, 3 * heads * dim);
        let problem =
            attention(heads, kernel_size, dilation).problem(Shape::from(shape).dims(), true).unwrap();
        let mut inputs = Self {
            problem,
            qkv: values(&normal(shape, deviation)),
            rpb: values(&normal((heads, problem.bias_side, problem.bias_side), 1.0)),
            pad: values(&normal(3 * heads * dim, deviation)),
            grad: values(&normal((b, h, w, heads * dim), 1.0)),
            walks: Vec::new(),
        };
        let mut walks = inputs.pairs();
        for walk in &mut walks {
            walk.stages =
                walk.pairs.iter().map(|pair| pair.map(|query| Stages::new(&inputs, walk, &query))).collect();
        }
        inputs.walks = walks;
        inputs
    }

    /// The image that steps are tested on, the last.
    pub(super) fn image(&self) -> usize {
        self.problem.batch - 1
    }

    /// The head that steps are tested on, the last.
    pub(super) fn head(&self) -> usize {
        self.problem.heads - 1
    }

    /// The tiles of a map and their pairs, without stages.
    fn pairs(&self) -> Vec<Walk> {
        let kernel_size = self.problem.kernel_size;
        let slack = KernelSize::<ANY>::new(kernel_size).slack();
        let walk = |tile: QueryTile| {
            let (mut pairs, mut next) = (Vec::new(), Some(tile.first()));
            while next.is_some() {
                let mut batch = [[Query::default(); 2]; BATCH];
                let count = tile.batch(&mut next, slack, &mut batch);
                pairs.extend_from_slice(&batch[..count]);
            }
            let rows = reach_rows(tile.rows, &tile.y, kernel_size);
            let columns = reach(tile.columns, &tile.x, kernel_size);
            Walk { tile, rows, columns, pairs, stages: Vec::new() }
        };
        tiles(&self.problem, 1).into_iter().map(walk).collect()
    }

    /// The query as the reference sees it.
    pub(super) fn reference(&self, walk: &Walk, query: &Query) -> HeadQuery {
        let (QueryTile { rows, columns, .. }, Query { y, x, .. }) = (&walk.tile, *query);
        let image = self.image();
        let pixel = self.pixel(walk, y, x);
        HeadQuery { image, pixel, rows: *rows, columns: *columns, y, x, head: self.head() }
    }

    /// q (0), k (1) or v (2) at a place of a tile's classes, padded or not.
    pub(super) fn vector(&self, walk: &Walk, part: usize, y: usize, x: usize) -> &[f32] {
        let &Problem { heads, dim, .. } = &self.problem;
        let at = (part * heads + self.head()) * dim;
        if y < walk.tile.rows.size() && x < walk.tile.columns.size() {
            &self.qkv[self.pixel(walk, y, x) * 3 * heads * dim + at..][..dim]
        } else {
            &self.pad[at..][..dim]
        }
    }

    /// A pixel, counted through all images.
    fn pixel(&self, walk: &Walk, y: usize, x: usize) -> usize {
        let &Problem { height, width, .. } = &self.problem;
        (self.image() * height + walk.tile.rows.position(y)) * width + walk.tile.columns.position(x)
    }
}

/// What a step gets for one query, [K, K] each: what the step before makes, rounded once.
pub(super) struct Stages {
    pub(super) products: Vec<f32>,
    pub(super) scores: Vec<f32>,
    pub(super) largest: f32,
    pub(super) exponentials: Vec<f32>,
    /// One over their sum.
    pub(super) factor: f32,
    pub(super) probabilities: Vec<f32>,
    /// Of the gradients of p, which differ more from each other than real ones.
    pub(super) noise: Vec<f32>,
}

impl Stages {
    fn new(inputs: &Inputs, walk: &Walk, query: &Query) -> Self {
        let k = inputs.problem.kernel_size;
        let q = inputs.vector(walk, 0, query.y, query.x);
        let places = (0..k * k).map(|t| (query.window_y + t / k, query.window_x + t % k));
        let products: Vec<f32> = places.map(|(y, x)| dot(q, inputs.vector(walk, 1, y, x)) as f32).collect();
        let scores: Vec<f32> = scores(inputs, walk, query, &products).iter().map(|x| *x as f32).collect();
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let wide: Vec<f64> = scores.iter().map(|x| (f64::from(*x) - f64::from(largest)).exp()).collect();
        let sum: f64 = wide.iter().sum();
        let mut rng = Rng::with_seed((query.y * 4096 + query.x) as u64);
        Self {
            products,
            scores,
            largest,
            exponentials: wide.iter().map(|x| *x as f32).collect(),
            factor: (1.0 / sum) as f32,
            probabilities: wide.iter().map(|x| (x / sum) as f32).collect(),
            noise: (0..k * k).map(|_| 2.0 * rng.f32() - 1.0).collect(),
        }
    }
}

/// a · b.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// product / √dim + bias, with the reference's biases.
pub(super) fn scores(inputs: &Inputs, walk: &Walk, query: &Query, products: &[f32]) -> Vec<f64> {
    let reference = inputs.reference(walk, query);
    let neighbours = reference.neighbours(&inputs.problem);
    let score = |(bias, product): (usize, &f32)| {
        f64::from(*product) * inputs.problem.scale() + f64::from(inputs.rpb[bias])
    };
    neighbours.map(|n| n.bias).zip(products).map(score).collect()
}
