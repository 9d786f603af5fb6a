//! Nearest neighbours by cosine, all rows looked at, and the class that they choose.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::layers::{Activation, Linear, LinearParts};
use crate::tensors::with_f32;
use crate::weights::Weights;

/// Rows of numbers, all of one width.
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> Vectors<'a> {
    /// Rows of `width` numbers one after the other, which have to be finite.
    ///
    /// # Panics
    /// When `width` is 0, or the last row is not whole.
    pub fn new(values: &'a [f32], width: usize) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width), "rows of {width} of {}", values.len());
        Self { values, width }
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.values.len() / self.width
    }

    /// Numbers of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The row of this number.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.width..][..self.width]
    }

    /// At most `rows` at a time, each time with the number of the first.
    fn blocks(self, rows: usize) -> impl Iterator<Item = (usize, Self)> {
        let blocks = self.values.chunks(rows * self.width).enumerate();
        blocks.map(move |(block, values)| (block * rows, Self { values, width: self.width }))
    }
}

/// A row that is near.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// Its number.
    pub row: usize,
    /// The cosine of the angle between the two, -1 to 1; 0 where one of them is all zeros.
    pub similarity: f32,
}

/// How neighbours choose a class.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KnnOptions {
    /// How many of them choose.
    pub neighbors: usize,
    /// Neighbours count `exp(similarity / temperature)`.
    pub temperature: f64,
}

impl Default for KnnOptions {
    /// DINO's (arXiv 2104.14294): 20 neighbours, temperature 0.07.
    fn default() -> Self {
        Self { neighbors: 20, temperature: 0.07 }
    }
}

/// Rows to look for neighbours in.
pub struct NeighborSearch<'a> {
    rows: Vectors<'a>,
    /// What makes each row's length 1; 0 of one that is all zeros.
    scales: Vec<f64>,
}

/// Queries that are compared with a block of rows at a time.
const QUERIES: usize = 512;

/// Rows of a block, so that what comes of it and of the queries stays in the caches.
const ROWS: usize = 1024;

/// Queries that a matrix product is no gain for: it computes some dozens at a time, and takes rows of length 1.
const FEW: usize = 8;

/// Rows of a block beside few queries.
const ROWS_OF_FEW: usize = 16 * ROWS;

/// Queries that one thread looks after: the values of a cache line.
const TOGETHER: usize = 16;

impl<'a> NeighborSearch<'a> {
    /// Measures the rows.
    pub fn new(rows: Vectors<'a>) -> Self {
        Self { rows, scales: scales(rows) }
    }

    /// The `k` nearest rows of each query, the most similar one first, of equal ones the lower number; all rows where
    /// they are fewer. Equal rows are equally similar, on any number of threads; with other queries beside it the last
    /// digit of a similarity may be another one.
    ///
    /// # Panics
    /// When queries and rows differ in width.
    pub fn nearest(&self, queries: Vectors, k: usize) -> Vec<Vec<Neighbor>> {
        self.search(queries, &scales(queries), k, false)
    }

    /// The `k` nearest other rows of each row.
    pub fn nearest_others(&self, k: usize) -> Vec<Vec<Neighbor>> {
        self.search(self.rows, &self.scales, k, true)
    }

    fn search(&self, queries: Vectors, scales: &[f64], k: usize, others: bool) -> Vec<Vec<Neighbor>> {
        assert_eq!(queries.width, self.rows.width, "queries and rows of one width");
        let block = |(first, block): (usize, Vectors)| {
            self.of_block(block, &scales[first..], k, others.then_some(first))
        };
        // Layers begin on the pool what they would else have to wake it for, again and again.
        rayon::scope(|_| queries.blocks(QUERIES).flat_map(block).collect())
    }

    /// The nearest rows of some queries. `own` is the row that the first of them is itself, where they are rows.
    fn of_block(&self, queries: Vectors, scales: &[f64], k: usize, own: Option<usize>) -> Vec<Vec<Neighbor>> {
        let (count, width) = (queries.count(), queries.width);
        let mut best: Vec<Best> = (0..count).map(|_| Best { most: k, kept: BinaryHeap::new() }).collect();
        let mut offer = |first: usize, similarities: &[f32]| {
            best.par_chunks_mut(TOGETHER).enumerate().for_each(|(chunk, best)| {
                for (row, similarities) in (first..).zip(similarities.chunks_exact(count)) {
                    let similarities = &similarities[chunk * TOGETHER..];
                    for (query, (best, &similarity)) in
                        (chunk * TOGETHER..).zip(best.iter_mut().zip(similarities))
                    {
                        if own.is_none_or(|own| own + query != row) {
                            best.offer(Neighbor { row, similarity });
                        }
                    }
                }
            });
        };
        if count <= FEW {
            for (first, rows) in self.rows.blocks(ROWS_OF_FEW) {
                offer(first, &cosines(rows, &self.scales[first..], queries, scales));
            }
        } else {
            let products = Products::with(unit(queries, scales), count, width);
            for (first, rows) in self.rows.blocks(ROWS) {
                products.of(unit(rows, &self.scales[first..]), width, |cosines| offer(first, cosines));
            }
        }
        best.into_iter().map(Best::in_order).collect()
    }
}

/// What makes the length of each row 1; 0 of one that is all zeros.
fn scales(rows: Vectors) -> Vec<f64> {
    let scale = |row: &[f32]| {
        let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 { length.recip() } else { 0.0 }
    };
    rows.values.par_chunks(rows.width).map(scale).collect()
}

/// Rows of length 1.
fn unit(rows: Vectors, scales: &[f64]) -> Vec<f32> {
    let mut values = rows.values.to_vec();
    values.par_chunks_mut(rows.width).zip(scales).for_each(|(row, scale)| {
        // No zero has a sign: similarities that are equal are the same to the bit.
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32 + 0.0);
    });
    values
}

/// The cosines of rows and few queries, [rows, queries].
fn cosines(rows: Vectors, row_scales: &[f64], queries: Vectors, scales: &[f64]) -> Vec<f32> {
    /// Rows that are worth another thread.
    const SOME: usize = 128;
    let mut cosines = vec![0.0; rows.count() * queries.count()];
    let each =
        cosines.par_chunks_mut(queries.count()).zip(rows.values.par_chunks(rows.width)).zip(row_scales);
    each.with_min_len(SOME).for_each(|((cosines, row), row_scale)| {
        for (query, (cosine, scale)) in cosines.iter_mut().zip(scales).enumerate() {
            *cosine = (dot(row, queries.row(query)) * row_scale * scale) as f32 + 0.0;
        }
    });
    cosines
}

/// The product of two rows, in sums that vectors can hold.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    const SUMS: usize = 8;
    let (a, a_rest) = a.as_chunks::<SUMS>();
    let (b, b_rest) = b.as_chunks::<SUMS>();
    let mut sums = [0.0; SUMS];
    for (a, b) in a.iter().zip(b) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(a) * f64::from(b);
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) * f64::from(b));
    sums.into_iter().chain(rest).sum()
}

/// Products of rows with some queries, by the matrix product of the layers: each is summed up in the same order
/// wherever it stands.
struct Products(Linear);

impl Products {
    fn with(queries: Vec<f32>, count: usize, width: usize) -> Self {
        let parts = LinearParts {
            weight: tensor(queries, count, width),
            bias: None,
            norm: None,
            activation: Activation::None,
            gamma: None,
        };
        Self(Linear::of(parts, &Weights::from_tensors([], DType::F32, Device::Cpu)))
    }

    /// Calls `f` with the products [rows, queries].
    fn of(&self, rows: Vec<f32>, width: usize, f: impl FnOnce(&[f32])) {
        let count = rows.len() / width;
        let rows = tensor(rows, count, width);
        self.0.forward(&rows).and_then(|products| with_f32(&products, f)).expect("widths that fit");
    }
}

fn tensor(values: Vec<f32>, rows: usize, width: usize) -> Tensor {
    Tensor::from_vec(values, (rows, width), &Device::Cpu).expect("so many values")
}

/// The nearest rows so far.
struct Best {
    most: usize,
    /// The least similar one on top.
    kept: BinaryHeap<Ranked>,
}

impl Best {
    /// Considers a row, of a higher number than those before.
    fn offer(&mut self, neighbor: Neighbor) {
        if self.kept.len() < self.most {
            self.kept.push(Ranked(neighbor));
        } else if let Some(mut last) = self.kept.peek_mut()
            && neighbor.similarity > last.0.similarity
        {
            *last = Ranked(neighbor);
        }
    }

    fn in_order(self) -> Vec<Neighbor> {
        let kept = self.kept.into_sorted_vec().into_iter();
        // Rounding leads out of the range of a cosine.
        kept.map(|Ranked(Neighbor { row, similarity })| Neighbor {
            row,
            similarity: similarity.clamp(-1.0, 1.0),
        })
        .collect()
    }
}

/// In the order of a list of neighbours.
struct Ranked(Neighbor);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.similarity.total_cmp(&self.0.similarity).then(self.0.row.cmp(&other.0.row))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

/// The `k` nearest rows of each query, see [`NeighborSearch::nearest`].
///
/// # Panics
/// When queries and rows differ in width.
pub fn nearest(queries: Vectors, rows: Vectors, k: usize) -> Vec<Vec<Neighbor>> {
    NeighborSearch::new(rows).nearest(queries, k)
}

/// The class of each query by its nearest rows, of which `classes` are the classes: the k-NN classifier of DINO
/// (arXiv 2104.14294). Of classes that are chosen alike it is the lower one; there is none without rows.
///
/// # Panics
/// When queries and rows differ in width, not every row has a class, or the temperature is not above 0.
pub fn knn_classify(
    queries: Vectors,
    rows: Vectors,
    classes: &[usize],
    options: &KnnOptions,
) -> Vec<Option<usize>> {
    chosen(&nearest(queries, rows, options.neighbors), rows, classes, options)
}

/// The class of each row by the rows that are nearest beside itself, as [`knn_classify`].
///
/// # Panics
/// When not every row has a class, or the temperature is not above 0.
pub fn knn_leave_one_out(rows: Vectors, classes: &[usize], options: &KnnOptions) -> Vec<Option<usize>> {
    let neighbors = NeighborSearch::new(rows).nearest_others(options.neighbors);
    chosen(&neighbors, rows, classes, options)
}

fn chosen(
    neighbors: &[Vec<Neighbor>],
    rows: Vectors,
    classes: &[usize],
    options: &KnnOptions,
) -> Vec<Option<usize>> {
    assert_eq!(classes.len(), rows.count(), "a class for each row");
    let temperature = options.temperature;
    assert!(temperature > 0.0, "a temperature above 0, not {temperature}");
    neighbors.par_iter().map(|neighbors| vote(neighbors, classes, temperature)).collect()
}

/// The class that neighbours, the most similar one first, choose.
fn vote(neighbors: &[Neighbor], classes: &[usize], temperature: f64) -> Option<usize> {
    let top = f64::from(neighbors.first()?.similarity);
    let mut votes: BTreeMap<usize, f64> = BTreeMap::new();
    for neighbor in neighbors {
        // Less the highest, which changes no order: a low temperature would leave the range of numbers.
        let weight = ((f64::from(neighbor.similarity) - top) / temperature).exp();
        *votes.entry(classes[neighbor.row]).or_default() += weight;
    }
    let higher = |best: (usize, f64), next: (usize, f64)| if next.1 > best.1 { next } else { best };
    votes.into_iter().reduce(higher).map(|(class, _)| class)
}

#[cfg(test)]
mod tests {
    use nat_testing::noise;

    use super::*;

    /// The definition: cosines in f64, sorted.
    fn naive(queries: Vectors, rows: Vectors, k: usize, others: bool) -> Vec<Vec<(usize, f64)>> {
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let cosine = |a: &[f32], b: &[f32]| {
            let lengths = dot(a, a).sqrt() * dot(b, b).sqrt();
            if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
        };
        let of = |q: usize| {
            let all = (0..rows.count()).filter(|&row| !others || row != q);
            let mut all: Vec<_> = all.map(|row| (row, cosine(queries.row(q), rows.row(row)))).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            all.truncate(k);
            all
        };
        (0..queries.count()).map(of).collect()
    }

    /// Whether neighbours are those of the definition, but for the order of what is as near to the last digits.
    #[track_caller]
    fn check(got: &[Vec<Neighbor>], want: &[Vec<(usize, f64)>]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert_eq!(got.len(), want.len());
            for (got, &(row, similarity)) in got.iter().zip(want) {
                assert!(
                    (f64::from(got.similarity) - similarity).abs() < 2e-6,
                    "{got:?}: {row}, {similarity}"
                );
            }
            let rows = |rows: &mut Vec<usize>| rows.sort_unstable();
            let (mut ours, mut theirs): (Vec<_>, Vec<_>) =
                (got.iter().map(|n| n.row).collect(), want.iter().map(|n| n.0).collect());
            rows(&mut ours);
            rows(&mut theirs);
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn neighbors_are_those_of_the_definition() {
        // More than a block of rows, and of queries; widths that are no multiple of a vector.
        for (queries, rows, width, k) in
            [(3, 2500, 37, 5), (600, 1030, 16, 20), (17, 40, 1, 3), (2, 5, 64, 9)]
        {
            let values = noise::uniform(5, (queries + rows) * width);
            let (queries, rows) = values.split_at(queries * width);
            let (queries, rows) = (Vectors::new(queries, width), Vectors::new(rows, width));
            if width == 1 {
                // One of two angles: ties alone.
                let got = nearest(queries, rows, k);
                for (q, got) in got.iter().enumerate() {
                    let same = |row: &usize| rows.row(*row)[0] * queries.row(q)[0] > 0.0;
                    let first: Vec<usize> = (0..rows.count()).filter(same).take(k).collect();
                    assert_eq!(got.iter().map(|n| n.row).collect::<Vec<_>>(), first);
                    assert!(got.iter().all(|n| n.similarity == 1.0));
                }
                continue;
            }
            check(&nearest(queries, rows, k), &naive(queries, rows, k, false));
            check(&NeighborSearch::new(rows).nearest_others(k), &naive(rows, rows, k, true));
        }
    }

    #[test]
    fn ties_are_in_the_order_of_the_rows() {
        // The same rows again and again, in blocks of their own, and of other lengths.
        let some = noise::uniform(6, 7 * 24);
        let mut values = Vec::new();
        for i in 0..400 {
            let factor = [1.0, 2.0, 1024.0][i % 3];
            values.extend(some.iter().map(|x| x * factor));
        }
        let rows = Vectors::new(&values, 24);
        let want: Vec<usize> = (0..9).map(|i| 7 * i + 3).collect();
        for (query, factor) in [(3, 1.0), (10, 0.5)] {
            let query: Vec<f32> = rows.row(query).iter().map(|x| x * factor).collect();
            let got = nearest(Vectors::new(&query, 24), rows, 9).swap_remove(0);
            assert_eq!(got.iter().map(|n| n.row).collect::<Vec<_>>(), want);
            assert!(got.iter().all(|n| n.similarity > 0.999_999 && n.similarity == got[0].similarity));
        }
        // On one thread or more, and few or many at a time.
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let all: Vec<_> = [1, 2, 3].map(|n| pool(n).install(|| nearest(rows, rows, 5))).into();
        assert!(all[0] == all[1] && all[0] == all[2]);
        let few = Vectors::new(&values[..5 * 24], 24);
        let few: Vec<_> = [1, 2, 3].map(|n| pool(n).install(|| nearest(few, rows, 5))).into();
        assert!(few[0] == few[1] && few[0] == few[2]);
        for (few, all) in few[0].iter().flatten().zip(all[0].iter().flatten()) {
            assert!(few.row == all.row && (few.similarity - all.similarity).abs() < 1e-6, "{few:?}: {all:?}");
        }
    }

    #[test]
    fn what_has_no_direction_is_similar_to_nothing() {
        // Of lengths whose squares are no f32.
        let [long, short] = [100, -100].map(|exponent| 2f32.powi(exponent));
        let rows = [0.0, 0.0, 3.0 * long, -4.0 * long, -0.0, 0.0, 3.0 * short, 4.0 * short];
        let rows = Vectors::new(&rows, 2);
        let near = |query: [f32; 2]| {
            let found = nearest(Vectors::new(&query, 2), rows, 9).swap_remove(0);
            // As one of many too.
            let many = query.repeat(FEW + 1);
            let rounded = |n: &Neighbor| (n.row, (n.similarity * 1e6).round());
            for other in nearest(Vectors::new(&many, 2), rows, 9) {
                assert!(other.iter().map(rounded).eq(found.iter().map(rounded)), "{other:?}");
            }
            found.into_iter().map(|n| (n.row, n.similarity)).collect::<Vec<_>>()
        };
        assert_eq!(near([0.0, -0.0]), [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0)]);
        assert_eq!(near([1e-38, 0.0]), [(1, 0.6), (3, 0.6), (0, 0.0), (2, 0.0)]);
        assert_eq!(near([-1e38, 0.0]), [(0, 0.0), (2, 0.0), (1, -0.6), (3, -0.6)]);
        assert!(nearest(Vectors::new(&[], 2), rows, 3).is_empty());
        assert_eq!(nearest(rows, Vectors::new(&[], 2), 3), vec![Vec::new(); 4]);
        assert!(nearest(rows, rows, 0).iter().all(Vec::is_empty));
    }

    #[test]
    fn classes_are_chosen_as_by_dino() {
        let (width, count) = (12, 300);
        let values = noise::uniform(8, 2 * count * width);
        let classes: Vec<usize> = (0..count).map(|i| i * 7 % 10).collect();
        let (queries, rows) = values.split_at(count * width);
        let (queries, rows) = (Vectors::new(queries, width), Vectors::new(rows, width));
        // `knn_classifier` of DINO's eval_knn.py, in f64.
        let dino = |found: Vec<Vec<(usize, f64)>>, temperature: f64| -> Vec<Option<usize>> {
            let choose = |found: Vec<(usize, f64)>| {
                let mut votes = [0.0; 10];
                found.iter().for_each(|(row, s)| votes[classes[*row]] += (s / temperature).exp());
                (0..10).rev().max_by(|&a, &b| f64::total_cmp(&votes[a], &votes[b]))
            };
            found.into_iter().map(choose).collect()
        };
        let options = KnnOptions::default();
        assert_eq!((options.neighbors, options.temperature), (20, 0.07));
        for neighbors in [1, 20, 1000] {
            for temperature in [0.07, 1.0] {
                let options = KnnOptions { neighbors, temperature };
                let want = dino(naive(queries, rows, neighbors, false), temperature);
                assert_eq!(knn_classify(queries, rows, &classes, &options), want);
                let want = dino(naive(rows, rows, neighbors, true), temperature);
                assert_eq!(knn_leave_one_out(rows, &classes, &options), want);
            }
        }
        // A row finds itself, unless it is left out.
        let one = KnnOptions { neighbors: 1, ..KnnOptions::default() };
        let own: Vec<_> = classes.iter().copied().map(Some).collect();
        assert_eq!(knn_classify(rows, rows, &classes, &one), own);
        assert_ne!(knn_leave_one_out(rows, &classes, &one), own);
    }

    #[test]
    fn votes_are_counted_in_range_and_ties_go_to_the_lower_class() {
        let neighbor = |row, similarity| Neighbor { row, similarity };
        let found = [neighbor(0, 1.0), neighbor(1, 0.5), neighbor(2, 0.5), neighbor(3, 0.5)];
        for (classes, temperature, class) in [
            ([5, 2, 2, 2], 0.07, 5),
            ([5, 2, 2, 2], 1.0, 2),
            ([5, 2, 2, 2], 1e-9, 5),
            ([5, 5, 5, 5], 1e-300, 5),
        ] {
            assert_eq!(vote(&found, &classes, temperature), Some(class), "{classes:?} {temperature}");
        }
        assert_eq!(vote(&found[1..3], &[9, 7, 4, 9], 0.07), Some(4));
        assert_eq!(vote(&[], &[], 0.07), None);
        let (one, none) = ([1.0, 0.0], []);
        let (one, none) = (Vectors::new(&one, 2), Vectors::new(&none, 2));
        assert_eq!(knn_leave_one_out(one, &[3], &KnnOptions::default()), [None]);
        assert_eq!(knn_classify(one, none, &[], &KnnOptions::default()), [None]);
        assert_eq!(knn_classify(none, one, &[3], &KnnOptions::default()), []);
    }
}
