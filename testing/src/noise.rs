//! Values that are the same in every run.

use std::cell::RefCell;

/// So many values between -1 and 1.
pub fn uniform(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| rng.f32() * 2.0 - 1.0).collect()
}

/// So many values about as in a normal distribution with this deviation: twelve uniform ones are. The next call in
/// a test gives others, the next run of it the same.
pub fn normal(count: usize, deviation: f32) -> Vec<f32> {
    thread_local!(static RNG: RefCell<fastrand::Rng> = const { RefCell::new(fastrand::Rng::with_seed(7)) });
    let value = |rng: &mut fastrand::Rng| deviation * ((0..12).map(|_| rng.f32()).sum::<f32>() - 6.0);
    RNG.with_borrow_mut(|rng| (0..count).map(|_| value(rng)).collect())
}

/// Values from -1 to 1 whose period, 10 007, no size of a map shares: a value at a wrong place shows.
pub fn ramp(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 37 % 10_007) as f32 / 5e3 - 1.0).collect()
}

/// Bytes with no period that a wrong offset could hide in, four for every one of `words`.
pub fn bytes(words: u32) -> Vec<u8> {
    (0..words).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_what_it_says() {
        let values = normal(100_000, 2.0);
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e5;
        let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.03 && (variance.sqrt() - 2.0).abs() < 0.03, "{mean} {variance}");
        assert_ne!(normal(3, 2.0), normal(3, 2.0));
        assert_eq!(uniform(1, 9), uniform(1, 9));
        assert_ne!(uniform(1, 9), uniform(2, 9));
        assert!(uniform(3, 999).iter().all(|x| x.abs() <= 1.0));
        assert!(ramp(20_000).iter().all(|x| x.abs() <= 1.01));
        assert_eq!(bytes(300).len(), 1200);
    }
}
