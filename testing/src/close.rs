//! How far numbers are from what they should be. What is no number is infinitely far from everything.

/// ‖got − want‖ / ‖want‖ in f64, `want` of f32, f64 or a half type; of zeros the norm of what was got, divided by the
/// smallest number.
#[track_caller]
pub fn relative<A: Copy + Into<f64>, B: Copy + Into<f64>>(got: &[A], want: &[B]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(&a, &b)| (a.into() - b.into()).powi(2)).sum();
    let size: f64 = want.iter().map(|&b| b.into().powi(2)).sum();
    or_infinity((error / size.max(f64::MIN_POSITIVE)).sqrt())
}

/// The largest difference of two values at the same place, in f64; 0 for none.
#[track_caller]
pub fn largest<A: Copy + Into<f64>, B: Copy + Into<f64>>(got: &[A], want: &[B]) -> f64 {
    assert_eq!(got.len(), want.len());
    let off = |(&a, &b): (&A, &B)| or_infinity((a.into() - b.into()).abs());
    got.iter().zip(want).map(off).fold(0.0, f64::max)
}

/// Each value is at most `bound` off, relative to the size of what it should be where that is above 1.
#[track_caller]
pub fn assert_each<A: Copy + Into<f64>, B: Copy + Into<f64>>(got: &[A], want: &[B], bound: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let (got, want): (f64, f64) = (got.into(), want.into());
        assert!((got - want).abs() <= bound * want.abs().max(1.0), "{what}, value {i}: {got}, not {want}");
    }
}

/// How many places differ.
#[track_caller]
pub fn differing<T: PartialEq>(got: &[T], want: &[T]) -> usize {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).filter(|(a, b)| a != b).count()
}

fn or_infinity(off: f64) -> f64 {
    if off.is_nan() { f64::INFINITY } else { off }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_definition() {
        assert_eq!(relative(&[3f32, 0.0], &[0f64, 4.0]), 5.0 / 4.0);
        assert_eq!(relative(&[1f32; 3], &[1f32; 3]), 0.0);
        assert_eq!(relative(&[0f32], &[0f32]), 0.0);
        assert!(relative(&[1e-30f32], &[0f32]) > 1e100);
        assert_eq!(largest(&[1f32, -2.0, 3.0], &[1.5f64, 2.0, 3.0]), 4.0);
        assert_eq!(largest::<f32, f32>(&[], &[]), 0.0);
        assert_eq!(differing(&[1, 2, 3], &[1, 3, 2]), 2);
    }

    #[test]
    fn what_is_no_number_is_close_to_nothing() {
        for value in [f32::NAN, f32::INFINITY] {
            assert_eq!(relative(&[1.0, value], &[1f32, 2.0]), f64::INFINITY);
            assert_eq!(largest(&[value, 1.0], &[1f32, 2.0]), f64::INFINITY);
            assert!(std::panic::catch_unwind(|| assert_each(&[value], &[1f32], 1.0, "")).is_err());
        }
    }
}
