//! The reference's gradients against differences of its outputs.

use candle_core::{DType, Shape, Tensor};
use nat_testing::tensors::{normal, values};

use super::tools::attention;
use crate::attention::reference;

/// A step in the direction of any value changes the output as the gradient says.
#[test]
fn gradients_are_the_limits_of_differences() {
    for (b, h, w, heads, dim, kernel_size, dilation) in [
        (2, 3, 4, 1, 2, 1, 1),
        (1, 6, 5, 2, 3, 3, 1),
        (1, 7, 8, 1, 2, 3, 2),
        (1, 2, 2, 1, 4, 2, 1),
        (2, 2, 3, 1, 2, 5, 1),
        (1, 4, 7, 2, 2, 3, 2),
        (1, 7, 3, 1, 2, 3, 2),
        (1, 2, 3, 1, 2, 3, 9),
    ] {
        let attention = attention(heads, kernel_size, dilation);
        let qkv_shape = (b, h, w, 3 * heads * dim);
        let problem = attention.problem(Shape::from(qkv_shape).dims(), true).unwrap();
        let wide = |x: Tensor| values::<f64>(&x.to_dtype(DType::F64).unwrap());
        let qkv = wide(normal(qkv_shape, 1.0));
        let rpb = wide(normal((heads, problem.bias_side, problem.bias_side), 1.0));
        let grad = wide(normal((b, h, w, heads * dim), 1.0));
        let pad = wide(normal(3 * heads * dim, 1.0));
        let loss = |qkv: &[f64], rpb: &[f64]| {
            let out = reference::forward(&problem, qkv, rpb, &pad);
            out.iter().zip(&grad).map(|(out, grad)| out * grad).sum::<f64>()
        };
        let (grad_qkv, grad_rpb) = reference::backward(&problem, &qkv, &rpb, &pad, &grad);
        const STEP: f64 = 1e-5;
        let check = |slope: f64, want: f64, what: String| {
            assert!((slope - want).abs() < 1e-8, "{problem:?}, {what}: {slope}, not {want}");
        };
        for (i, &want) in grad_qkv.iter().enumerate() {
            let at =
                |step| qkv.iter().enumerate().map(|(j, x)| x + if i == j { step } else { 0.0 }).collect();
            let [up, down]: [Vec<f64>; 2] = [at(STEP), at(-STEP)];
            let slope = (loss(&up, &rpb) - loss(&down, &rpb)) / (2.0 * STEP);
            check(slope, want, format!("qkv[{i}]"));
        }
        for (i, &want) in grad_rpb.iter().enumerate() {
            let at =
                |step| rpb.iter().enumerate().map(|(j, x)| x + if i == j { step } else { 0.0 }).collect();
            let [up, down]: [Vec<f64>; 2] = [at(STEP), at(-STEP)];
            let slope = (loss(&qkv, &up) - loss(&qkv, &down)) / (2.0 * STEP);
            check(slope, want, format!("rpb[{i}]"));
        }
    }
}
