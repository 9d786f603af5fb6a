//! Probabilities of classes.

use crate::simd::{Isa, Kernel, Simd};

/// The first of the largest; 0 of none.
pub(crate) fn likeliest(scores: &[f32]) -> usize {
    let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (0..scores.len()).fold(0, better)
}

/// Makes probabilities of each row of `values` [rows, classes].
pub(crate) fn softmax(values: &mut [f32], classes: usize) {
    Isa::best().run(SoftmaxRows { values, classes });
}

struct SoftmaxRows<'a> {
    values: &'a mut [f32],
    classes: usize,
}

impl Kernel for SoftmaxRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.values.chunks_exact_mut(self.classes) {
            let whole = row.len() - row.len() % S::LANES;
            let pointer = row.as_mut_ptr();
            // SAFETY: vectors below `whole` lie in the row, and the rest of it is read and written by its
            // length.
            unsafe {
                let mut largest = s.splat(f32::NEG_INFINITY);
                for i in (0..whole).step_by(S::LANES) {
                    largest = s.max(largest, s.load(pointer.add(i)));
                }
                let mut largest = s.reduce_max(largest);
                for i in whole..row.len() {
                    largest = largest.max(*pointer.add(i));
                }
                let shift = s.splat(largest);
                let mut sum = s.splat(0.0);
                for i in (0..whole).step_by(S::LANES) {
                    let power = s.exp(s.sub(s.load(pointer.add(i)), shift));
                    sum = s.add(sum, power);
                    s.store(pointer.add(i), power);
                }
                let rest = row.len() - whole;
                let power = s.exp(s.sub(s.load_first(pointer.add(whole), rest), shift));
                s.store_first(pointer.add(whole), power, rest);
                let mut sum = s.reduce_sum(sum);
                for i in whole..row.len() {
                    sum += *pointer.add(i);
                }
                let factor = s.splat(1.0 / sum);
                for i in (0..row.len()).step_by(S::LANES) {
                    let n = S::LANES.min(row.len() - i);
                    s.store_first(pointer.add(i), s.mul(s.load_first(pointer.add(i), n), factor), n);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_scores_the_first_is_likeliest() {
        for (scores, best) in [(&[][..], 0), (&[1.0], 0), (&[0.0, 3.0, 3.0], 1), (&[-2.0, -1.0, -3.0], 1)] {
            assert_eq!(likeliest(scores), best, "{scores:?}");
        }
    }

    #[test]
    fn probabilities_add_up_for_any_number_of_classes() {
        for isa in Isa::available() {
            for classes in [1, 2, 7, 8, 16, 21, 150] {
                let logits: Vec<f32> = (0..3 * classes).map(|i| (i * 37 % 23) as f32 - 9.0).collect();
                let mut values = logits.clone();
                isa.run(SoftmaxRows { values: &mut values, classes });
                for (got, logits) in values.chunks(classes).zip(logits.chunks(classes)) {
                    let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
                    for (got, &logit) in got.iter().zip(logits) {
                        let off = (f64::from(*got) - f64::from(logit).exp() / sum).abs();
                        assert!(off < 1e-6, "{isa:?}, {classes} classes: {off}");
                    }
                }
            }
        }
        let mut values = [f32::NAN, 1.0, 2.0];
        softmax(&mut values, 3);
        assert!(values.iter().any(|x| x.is_nan()));
    }
}
