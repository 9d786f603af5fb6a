//! Definitions in f64, to hold kernels against.

/// The Gaussian error linear unit, exactly: x·Φ(x).
pub fn gelu(x: f64) -> f64 {
    // Far below zero 1 + erf would cancel.
    0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// The product of `a`, [m, depth], with the transpose of `w`, [n, depth]: [m, n].
pub fn product([m, n, depth]: [usize; 3], a: &[f32], w: &[f32]) -> Vec<f64> {
    assert_eq!((a.len(), w.len()), (m * depth, n * depth));
    let dot = |row: usize, column: usize| {
        let pairs = a[row * depth..][..depth].iter().zip(&w[column * depth..][..depth]);
        pairs.map(|(&a, &w)| f64::from(a) * f64::from(w)).sum::<f64>()
    };
    (0..m * n).map(|i| dot(i / n, i % n)).collect()
}

/// The layer norm of each row of `x`, [rows, channels], with population variance.
pub fn layer_norm(x: &[f64], weight: &[f64], bias: &[f64], epsilon: f64) -> Vec<f64> {
    let channels = weight.len();
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks(channels) {
        let mean = row.iter().sum::<f64>() / channels as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / channels as f64;
        let normed = row.iter().map(|x| (x - mean) / (variance + epsilon).sqrt());
        out.extend(normed.enumerate().map(|(c, x)| x * weight[c] + bias[c]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_those_of_the_books() {
        assert_eq!(gelu(0.0), 0.0);
        assert!((gelu(1.0) - 0.841_344_746_068_543).abs() < 1e-14);
        assert_eq!(product([2, 1, 3], &[1.0, 2.0, 3.0, 0.0, 1.0, 0.0], &[1.0, 10.0, 100.0]), [321.0, 10.0]);
        let normed = layer_norm(&[1.0, 3.0], &[1.0, 2.0], &[0.0, 5.0], 0.0);
        assert_eq!(normed, [-1.0, 7.0]);
    }
}
