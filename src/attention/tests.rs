//! The operator against golden data, and the kernels against the reference on generated problems.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var, WithDType};
use fastrand::Rng;

use super::*;

/// ‖a − b‖ / ‖b‖ that f32 kernels stay under, by the largest |score| of the problem: a score of that
/// size has an error of its own of 6e-8 times it, which the softmax passes on.
const TOLERANCES: [(f64, f64); 2] = [(10.0, 5e-7), (200.0, 5e-6)];

/// The same for gradients, in which p and g·v differ from their mean by less than their own size; ten times as much
/// where keys are padded, and most of them differ little.
const GRADIENT_TOLERANCES: [(f64, f64); 2] = [(10.0, 2e-6), (200.0, 2e-5)];

/// The cases that NATTEN computed, of `tests/golden` or `$NAT_INFER_GOLDEN`.
fn golden() -> PathBuf {
    std::env::var_os("NAT_INFER_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from)
        .join("attention")
}

fn relative(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    (error / want.iter().map(|b| b * b).sum::<f64>().max(f64::MIN_POSITIVE)).sqrt()
}

fn values<T: WithDType>(x: &Tensor) -> Vec<T> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn attention(heads: usize, kernel_size: usize, dilation: usize) -> NeighborhoodAttention {
    NeighborhoodAttention { heads, kernel_size, dilation }
}

/// Values about as in a normal distribution with this deviation (twelve uniform ones are), the same in every run of
/// a test.
fn normal(shape: impl Into<Shape>, deviation: f32) -> Tensor {
    thread_local!(static RNG: RefCell<Rng> = const { RefCell::new(Rng::with_seed(7)) });
    let shape = shape.into();
    let value = |rng: &mut Rng| deviation * ((0..12).map(|_| rng.f32()).sum::<f32>() - 6.0);
    let values = RNG.with_borrow_mut(|rng| (0..shape.elem_count()).map(|_| value(rng)).collect::<Vec<_>>());
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}

/// Both gradients of the CPU's kernels; that of qkv is the same by itself.
fn gradients(
    problem: &Problem,
    isa: Isa,
    qkv: &[f32],
    rpb: &[f32],
    pad: &[f32],
    grad: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let (grad_qkv, grad_rpb) = cpu::backward(problem, isa, qkv, rpb, pad, grad, true);
    let (alone, none) = cpu::backward(problem, isa, qkv, rpb, pad, grad, false);
    assert!(none.is_none() && bits(&alone) == bits(&grad_qkv), "{problem:?}");
    (grad_qkv, grad_rpb.unwrap())
}

#[test]
fn golden_cases_are_those_of_natten() {
    let mut cases = 0;
    for entry in std::fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let field = |name| header.metadata().as_ref().unwrap()[name].parse().unwrap();
        let attention = attention(field("heads"), field("kernel_size"), field("dilation"));
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        let (qkv, rpb) = (&tensors["qkv"], &tensors["rpb"]);

        let exact: Vec<f64> =
            values(&attention.forward(&qkv.to_dtype(DType::F64).unwrap(), Some(rpb)).unwrap());
        // The files hold what was computed in f64 rounded to f32.
        for (i, (got, want)) in exact.iter().zip(values::<f32>(&tensors["out"])).enumerate() {
            let want = f64::from(want);
            let half_ulp = want.abs() * f64::from(f32::EPSILON) / 2.0;
            assert!((got - want).abs() <= half_ulp + 1e-12, "{path:?}[{i}]: {got}, expected {want}");
        }
        let problem = attention.problem(qkv.dims(), false).unwrap();
        for &isa in Isa::available() {
            let got = cpu::forward(&problem, isa, &values::<f32>(qkv), &values::<f32>(rpb), &[]);
            let error = relative(&got, &exact);
            assert!(error < TOLERANCES[0].1, "{path:?} on {isa:?}: off by {error:e}");
        }

        let wide = |name: &str| values::<f64>(&tensors[name].to_dtype(DType::F64).unwrap());
        let [grad_qkv, grad_rpb] =
            reference::backward(&problem, &wide("qkv"), &wide("rpb"), &[], &wide("grad_out")).into();
        for (got, want) in [(&grad_qkv, "grad_qkv"), (&grad_rpb, "grad_rpb")] {
            let error = relative(&values::<f32>(&tensors[want]), got);
            assert!(error < 1e-7, "{path:?}, {want}: off by {error:e}");
        }
        let narrow = |name: &str| values::<f32>(&tensors[name]);
        for &isa in Isa::available() {
            let (got_qkv, got_rpb) =
                gradients(&problem, isa, &narrow("qkv"), &narrow("rpb"), &[], &narrow("grad_out"));
            let errors = [relative(&got_qkv, &grad_qkv), relative(&got_rpb, &grad_rpb)];
            assert!(errors.iter().all(|e| *e < GRADIENT_TOLERANCES[0].1), "{path:?} on {isa:?}: {errors:?}");
        }
        cases += 1;
    }
    assert!(cases > 0);
}

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

/// Batch, height, width, heads, channels of a head, kernel size, dilation.
const SHAPES: [(usize, usize, usize, usize, usize, usize, usize); 22] = [
    (1, 3, 4, 1, 8, 1, 1),
    (1, 12, 9, 2, 32, 3, 1),
    (1, 9, 31, 1, 33, 5, 1),
    (2, 15, 26, 2, 32, 7, 1),
    (1, 28, 28, 4, 32, 7, 1),
    (1, 7, 7, 2, 32, 7, 1),
    (1, 8, 7, 2, 24, 7, 1),
    (1, 8, 8, 1, 32, 7, 1),
    (1, 7, 40, 1, 16, 7, 1),
    (1, 150, 8, 1, 16, 7, 1),
    (1, 14, 14, 2, 32, 7, 2),
    (2, 23, 26, 1, 64, 7, 3),
    (1, 56, 61, 1, 24, 7, 8),
    (1, 21, 20, 1, 128, 9, 2),
    (1, 6, 5, 2, 168, 3, 1),
    (1, 12, 11, 1, 7, 11, 1),
    (1, 20, 30, 1, 32, 13, 1),
    (1, 17, 16, 2, 32, 15, 1),
    (1, 21, 33, 1, 16, 21, 1),
    (1, 14, 14, 3, 32, 14, 1),
    (1, 8, 8, 2, 32, 8, 1),
    (1, 2, 2, 1, 1, 2, 1),
];

/// The same where an axis, or both, are padded.
const PADDED: [(usize, usize, usize, usize, usize, usize, usize); 18] = [
    (2, 2, 2, 1, 32, 3, 1),
    (1, 6, 7, 2, 32, 7, 1),
    (1, 7, 5, 1, 32, 7, 1),
    (2, 3, 20, 2, 24, 7, 1),
    (1, 26, 4, 1, 16, 7, 1),
    (1, 13, 13, 2, 32, 7, 2),
    (1, 9, 9, 1, 33, 5, 2),
    (1, 9, 14, 1, 32, 7, 2),
    (1, 5, 30, 2, 8, 3, 4),
    (2, 4, 5, 1, 32, 3, 4),
    (1, 5, 3, 1, 64, 7, 4),
    (1, 5, 6, 2, 32, 7, 4096),
    (1, 6, 21, 1, 32, 7, 3),
    (1, 4, 4, 1, 32, 13, 1),
    (1, 12, 16, 1, 32, 13, 1),
    (1, 17, 40, 1, 8, 13, 3),
    (1, 20, 23, 2, 16, 11, 5),
    (1, 2, 9, 1, 7, 9, 1),
];

/// The same, of which f32 makes more of its errors: a window with one pixel, and one with thousands of places.
const EXTREME: [(usize, usize, usize, usize, usize, usize, usize); 2] =
    [(1, 1, 1, 2, 32, 7, 1), (1, 70, 3, 1, 8, 75, 1)];

#[test]
fn kernels_agree_with_the_reference() {
    for (b, h, w, heads, dim, kernel_size, dilation) in SHAPES.into_iter().chain(PADDED) {
        let attention = attention(heads, kernel_size, dilation);
        let qkv_shape = (b, h, w, 3 * heads * dim);
        let problem = attention.problem(Shape::from(qkv_shape).dims(), true).unwrap();
        let rpb: Vec<f32> = values(&normal((heads, problem.bias_side, problem.bias_side), 1.0));
        // Scores have about the square of the deviation of q and k.
        for ((_, tolerance), deviation) in TOLERANCES.into_iter().zip([1.0, 5.0]) {
            let qkv: Vec<f32> = values(&normal(qkv_shape, deviation));
            let pad: Vec<f32> = values(&normal(3 * heads * dim, deviation));
            let exact = reference::forward(&problem, &widen(&qkv), &widen(&rpb), &widen(&pad));
            for &isa in Isa::available() {
                let error = relative(&cpu::forward(&problem, isa, &qkv, &rpb, &pad), &exact);
                assert!(error < tolerance, "{problem:?}, deviation {deviation}, {isa:?}: off by {error:e}");
            }
        }
    }
}

#[test]
fn gradients_agree_with_the_reference() {
    for (b, h, w, heads, dim, kernel_size, dilation) in SHAPES.into_iter().chain(PADDED) {
        let attention = attention(heads, kernel_size, dilation);
        let qkv_shape = (b, h, w, 3 * heads * dim);
        let problem = attention.problem(Shape::from(qkv_shape).dims(), true).unwrap();
        let rpb: Vec<f32> = values(&normal((heads, problem.bias_side, problem.bias_side), 1.0));
        let grad: Vec<f32> = values(&normal((b, h, w, heads * dim), 1.0));
        // Of few values all probabilities may be near 0 or 1, where nothing is left but rounding.
        if grad.len() < 16 {
            continue;
        }
        for ((_, tolerance), deviation) in GRADIENT_TOLERANCES.into_iter().zip([1.0, 5.0]) {
            let tolerance = if problem.is_padded() { 10.0 * tolerance } else { tolerance };
            let qkv: Vec<f32> = values(&normal(qkv_shape, deviation));
            let pad: Vec<f32> = values(&normal(3 * heads * dim, deviation));
            let (exact_qkv, exact_rpb) =
                reference::backward(&problem, &widen(&qkv), &widen(&rpb), &widen(&pad), &widen(&grad));
            for &isa in Isa::available() {
                // However the map is cut: on one thread and on many.
                for threads in [1, 5] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let (got_qkv, got_rpb) =
                        pool.install(|| gradients(&problem, isa, &qkv, &rpb, &pad, &grad));
                    let errors = [relative(&got_qkv, &exact_qkv), relative(&got_rpb, &exact_rpb)];
                    assert!(
                        errors.iter().all(|error| *error < tolerance),
                        "{problem:?}, deviation {deviation}, {isa:?}, {threads} threads: off by {errors:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn softmax_survives_any_score() {
    let attention = attention(1, 3, 1);
    let problem = attention.problem(&[1, 4, 5, 12], false).unwrap();
    for score in [1e4, -1e4, 1e30, -1e30] {
        // All scores equal but for a bias: the mean of the values.
        let qkv: Vec<f32> =
            (0..20).flat_map(|i| [1.0, 0., 0., 0., score, 0., 0., 0., i as f32, 0., 0., 1.]).collect();
        let rpb = [0.0; 25];
        for &isa in Isa::available() {
            let out = cpu::forward(&problem, isa, &qkv, &rpb, &[]);
            assert!((out[0] - 6.0).abs() < 1e-5 && (out[3] - 1.0).abs() < 1e-6, "{isa:?} {score}: {out:?}");
        }
    }
}

#[test]
fn nan_reaches_the_queries_that_see_it_and_no_others() {
    let attention = attention(1, 7, 1);
    let (h, w, dim) = (12, 26, 16);
    let problem = attention.problem(&[1, h, w, 3 * dim], false).unwrap();
    let [qkv, rpb] = [values::<f32>(&normal((h, w, 3 * dim), 1.0)), values(&normal((13, 13), 1.0))];
    for (part, poison) in [(0, f32::NAN), (1, f32::NAN), (2, f32::NAN), (2, f32::INFINITY)] {
        for at in [0, w + 3, 5 * w + 12, h * w - 1] {
            let mut qkv = qkv.clone();
            qkv[at * 3 * dim + part * dim] = poison;
            let (wide, wide_rpb) = (widen(&qkv), widen(&rpb));
            let exact = reference::forward(&problem, &wide, &wide_rpb, &[]);
            let grad: Vec<f32> = values(&normal((h, w, dim), 1.0));
            let (exact_qkv, exact_rpb) = reference::backward(&problem, &wide, &wide_rpb, &[], &widen(&grad));
            let same = |got: &[f32], exact: &[f64]| {
                got.iter().zip(exact).all(|(got, exact)| got.is_finite() == exact.is_finite())
            };
            for &isa in Isa::available() {
                let what = format!("{poison} in part {part} at pixel {at} on {isa:?}");
                assert!(same(&cpu::forward(&problem, isa, &qkv, &rpb, &[]), &exact), "{what}");
                let (got_qkv, got_rpb) = gradients(&problem, isa, &qkv, &rpb, &[], &grad);
                assert!(same(&got_qkv, &exact_qkv) && same(&got_rpb, &exact_rpb), "{what}, gradient");
            }
        }
    }
}

/// `qkv` with `pad` at every position that an axis is short of K·d.
fn explicitly_padded(attention: &NeighborhoodAttention, qkv: &Tensor, pad: &Tensor) -> Tensor {
    let span = attention.kernel_size * attention.dilation;
    let mut qkv = qkv.clone();
    for axis in [1, 2] {
        let mut shape = qkv.dims().to_vec();
        shape[axis] = span.saturating_sub(shape[axis]);
        qkv = Tensor::cat(&[&qkv, &pad.broadcast_as(shape).unwrap()], axis).unwrap();
    }
    qkv.contiguous().unwrap()
}

/// Of a tensor [B, H, W, C] the first `h` rows and `w` columns.
fn cropped(x: &Tensor, h: usize, w: usize) -> Tensor {
    x.narrow(1, 0, h).unwrap().narrow(2, 0, w).unwrap()
}

#[test]
fn a_padded_map_gives_what_the_same_map_with_pixels_for_its_padding_does() {
    for (b, h, w, heads, dim, kernel_size, dilation) in PADDED.into_iter().chain(EXTREME) {
        let attention = attention(heads, kernel_size, dilation.min(10));
        let side = 2 * kernel_size - 1;
        let (qkv, pad) = (normal((b, h, w, 3 * heads * dim), 1.0), normal(3 * heads * dim, 1.0));
        let rpb = normal((heads, side, side), 1.0);
        let case = format!("{:?}, {attention:?}", qkv.dims());
        for (rpb, pad) in [(Some(&rpb), Some(&pad)), (Some(&rpb), None), (None, Some(&pad)), (None, None)] {
            let zeros = Tensor::zeros(3 * heads * dim, DType::F32, &Device::Cpu).unwrap();
            let large = explicitly_padded(&attention, &qkv, pad.unwrap_or(&zeros));
            let got = attention.forward_padded(&qkv, rpb, pad).unwrap();
            let want = cropped(&attention.forward(&large, rpb).unwrap(), h, w);
            assert_eq!(got.dims(), [b, h, w, heads * dim], "{case}");
            let error = relative(&values(&got), &widen(&values(&want)));
            assert!(error < 1e-6, "{case}: off by {error:e}");
        }
        // In f64 to the last digits, and so the gradients.
        let wide = |x: &Tensor| Var::from_tensor(&x.to_dtype(DType::F64).unwrap()).unwrap();
        let (qkv, rpb) = (wide(&qkv), wide(&rpb));
        let pad = pad.to_dtype(DType::F64).unwrap();
        let grad = normal((b, h, w, heads * dim), 1.0).to_dtype(DType::F64).unwrap();
        let results = |out: Tensor| {
            let grads = (&out * &grad).unwrap().sum_all().unwrap().backward().unwrap();
            [out, grads.get(&qkv).unwrap().clone(), grads.get(&rpb).unwrap().clone()]
        };
        let got = results(attention.forward_padded(&qkv, Some(&rpb), Some(&pad)).unwrap());
        let large = explicitly_padded(&attention, &qkv, &pad);
        let want = results(cropped(&attention.forward(&large, Some(&rpb)).unwrap(), h, w));
        for (got, want) in got.iter().zip(&want) {
            let most = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            let off = most(&(got - want).unwrap());
            assert!(off < 1e-12 * (1.0 + most(want)), "{case}: off by {off:e}");
        }
    }
}

#[test]
fn a_dilation_beyond_the_map_is_as_that_of_its_side() {
    let (qkv, pad) = (normal((2, 5, 9, 48), 1.0), normal(48, 1.0));
    let rpb = normal((2, 13, 13), 1.0);
    let run = |dilation| {
        values::<f32>(&attention(2, 7, dilation).forward_padded(&qkv, Some(&rpb), Some(&pad)).unwrap())
    };
    let want = run(9);
    for dilation in [10, 4096, usize::MAX / 8, usize::MAX] {
        assert_eq!(bits(&run(dilation)), bits(&want), "dilation {dilation}");
    }
    // A query that sees itself alone, on maps that the dilation makes smaller than a window.
    for (h, w) in [(5, 5), (5, 9)] {
        let qkv = qkv.narrow(1, 0, h).unwrap().narrow(2, 0, w).unwrap();
        let got = attention(2, 1, 10).forward_padded(&qkv, None, Some(&pad)).unwrap();
        assert_eq!(values::<f32>(&got), values::<f32>(&qkv.narrow(3, 32, 16).unwrap()), "{h}x{w}");
    }
}

#[test]
fn images_of_a_padded_batch_are_what_they_are_alone() {
    for (_, h, w, heads, dim, kernel_size, dilation) in PADDED.into_iter().chain(EXTREME) {
        let attention = attention(heads, kernel_size, dilation);
        let side = 2 * kernel_size - 1;
        let (qkv, pad) = (normal((5, h, w, 3 * heads * dim), 1.0), normal(3 * heads * dim, 1.0));
        let rpb = normal((heads, side, side), 1.0);
        let run =
            |qkv: &Tensor| values::<f32>(&attention.forward_padded(qkv, Some(&rpb), Some(&pad)).unwrap());
        let together = run(&qkv);
        for (i, together) in together.chunks_exact(together.len() / 5).enumerate() {
            let alone = run(&qkv.narrow(0, i, 1).unwrap());
            assert_eq!(bits(&alone), bits(together), "{attention:?}, image {i}");
        }
    }
}

#[test]
fn padding_takes_every_type_and_no_gradient() {
    let attention = attention(2, 5, 2);
    let (qkv, rpb) = (normal((2, 7, 13, 48), 1.0), normal((2, 9, 9), 1.0));
    let pad = Var::from_tensor(&normal(48, 1.0)).unwrap();
    let wide = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
    for dtype in [DType::F16, DType::BF16] {
        let [qkv, rpb, pad] = [&qkv, &rpb, pad.as_tensor()].map(|x| x.to_dtype(dtype).unwrap());
        let want = attention.forward_padded(&wide(&qkv), Some(&wide(&rpb)), Some(&wide(&pad))).unwrap();
        let got = attention.forward_padded(&qkv, Some(&rpb), Some(&pad)).unwrap();
        assert_eq!(got.dtype(), dtype);
        let want = want.to_dtype(dtype).unwrap();
        assert_eq!(values::<f32>(&wide(&got)), values::<f32>(&wide(&want)), "{dtype:?}");
    }
    // Of other types than qkv, and not contiguous.
    let want: Vec<f32> = values(&attention.forward_padded(&qkv, Some(&rpb), Some(&pad)).unwrap());
    let swapped = qkv.transpose(1, 2).unwrap().contiguous().unwrap().transpose(1, 2).unwrap();
    let wider = pad.to_dtype(DType::F64).unwrap();
    let got = attention.forward_padded(&swapped, Some(&rpb), Some(&wider)).unwrap();
    assert_eq!(values::<f32>(&got), want);
    let qkv = Var::from_tensor(&qkv).unwrap();
    let out = attention.forward_padded(&qkv, Some(&rpb), Some(&pad)).unwrap();
    let grads = out.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&qkv).is_some() && grads.get(&pad).is_none());
    // No images, no rows: no output.
    for (axis, shape) in [(0, [0, 7, 13, 16]), (1, [2, 0, 13, 16]), (2, [2, 7, 0, 16])] {
        let none = qkv.narrow(axis, 0, 0).unwrap();
        let none = attention.forward_padded(&none, Some(&rpb), Some(&pad)).unwrap();
        assert_eq!(none.dims(), shape);
    }
}

#[test]
fn absurd_padding_is_refused_with_its_numbers() {
    let qkv = Tensor::zeros((1, 2, 3, 48), DType::F32, &Device::Cpu).unwrap();
    for kernel_size in [MOST_PADDED + 1, 8_000_001, usize::MAX / 2, usize::MAX] {
        let error = attention(2, kernel_size, 1).forward_padded(&qkv, None, None).unwrap_err();
        let says = format!("kernel size {kernel_size} is too large for a map of 2x3");
        assert!(error.to_string().contains(&says), "{error}");
    }
    let pad = Tensor::zeros(47, DType::F32, &Device::Cpu).unwrap();
    let error = attention(2, 7, 1).forward_padded(&qkv, None, Some(&pad)).unwrap_err().to_string();
    assert!(error.contains("the padding has shape [47], expected [48]"), "{error}");
    let rpb = Tensor::zeros((2, 13, 12), DType::F32, &Device::Cpu).unwrap();
    let error = attention(2, 7, 1).forward_padded(&qkv, Some(&rpb), None).unwrap_err().to_string();
    assert!(error.contains("has shape [2, 13, 12], expected [2, 13, 13]"), "{error}");
    let error = attention(2, 6, 1).forward_padded(&qkv, None, None).unwrap_err().to_string();
    assert!(error.contains("kernel size 6 is even"), "{error}");
}

#[test]
fn every_layout_type_and_bias_gives_the_same() {
    let attention = attention(2, 5, 2);
    let (qkv, rpb) = (normal((2, 11, 13, 48), 1.0), normal((2, 9, 9), 1.0));
    let want: Vec<f32> = values(&attention.forward(&qkv, Some(&rpb)).unwrap());
    // Not contiguous: the axes of the map are swapped in memory; an offset; through candle's interface.
    let swapped = qkv.transpose(1, 2).unwrap().contiguous().unwrap().transpose(1, 2).unwrap();
    assert!(!swapped.is_contiguous());
    assert_eq!(values::<f32>(&attention.forward(&swapped, Some(&rpb)).unwrap()), want);
    let second = attention.forward(&qkv.narrow(0, 1, 1).unwrap(), Some(&rpb)).unwrap();
    assert_eq!(values::<f32>(&second), want[want.len() / 2..]);
    assert_eq!(values::<f32>(&qkv.apply_op2(&rpb, attention).unwrap()), want);
    assert!(swapped.apply_op2(&rpb, attention).is_err());
    // No bias is a table of zeros.
    let zeros = attention.forward(&qkv, Some(&rpb.zeros_like().unwrap())).unwrap();
    assert_eq!(values::<f32>(&attention.forward(&qkv, None).unwrap()), values::<f32>(&zeros));
    // No images, no output.
    let none = attention.forward(&qkv.narrow(0, 0, 0).unwrap(), Some(&rpb)).unwrap();
    assert_eq!(none.dims(), [0, 11, 13, 16]);
    // Half types: computed in f32, rounded once.
    for dtype in [DType::F16, DType::BF16] {
        let (qkv, rpb) = (qkv.to_dtype(dtype).unwrap(), rpb.to_dtype(dtype).unwrap());
        let [wide_qkv, wide_rpb] = [&qkv, &rpb].map(|x| x.to_dtype(DType::F32).unwrap());
        let want = attention.forward(&wide_qkv, Some(&wide_rpb)).unwrap().to_dtype(dtype).unwrap();
        let got = attention.forward(&qkv, Some(&rpb)).unwrap();
        assert_eq!(got.dtype(), dtype);
        let [got, want] = [got, want].map(|x| values::<f32>(&x.to_dtype(DType::F32).unwrap()));
        assert_eq!(got, want, "{dtype:?}");
    }
}

#[test]
fn wrong_inputs_are_refused_with_their_numbers() {
    let table = [
        (
            attention(2, 7, 1),
            &[7, 7, 48][..],
            None,
            "takes qkv as [batch, height, width, 3 x channels], got [7, 7, 48]",
        ),
        (attention(0, 7, 1), &[1, 7, 7, 48], None, "0 heads, kernel size 7, dilation 1"),
        (attention(2, 0, 1), &[1, 7, 7, 48], None, "2 heads, kernel size 0, dilation 1"),
        (attention(2, 7, 0), &[1, 7, 7, 48], None, "2 heads, kernel size 7, dilation 0"),
        (
            attention(5, 7, 1),
            &[1, 7, 7, 48],
            None,
            "48 channels of qkv cannot be divided into q, k and v of 5 heads",
        ),
        (attention(2, 7, 1), &[1, 7, 7, 0], None, "0 channels of qkv cannot be divided"),
        (attention(2, 6, 1), &[1, 7, 6, 48], None, "kernel size 6 is even: on a map of 7x6 with dilation 1"),
        (
            attention(2, 6, 2),
            &[1, 12, 12, 48],
            None,
            "kernel size 6 is even: on a map of 12x12 with dilation 2",
        ),
        (
            attention(2, 7, 1),
            &[1, 6, 9, 48],
            None,
            "a map of 6x9 is too small for kernel size 7 with dilation 1",
        ),
        (
            attention(2, 7, 2),
            &[1, 14, 13, 48],
            None,
            "a map of 14x13 is too small for kernel size 7 with dilation 2",
        ),
        (attention(2, 7, usize::MAX), &[1, 7, 7, 48], None, "a map of 7x7 is too small"),
        (attention(2, usize::MAX, 1), &[1, 7, 7, 48], None, "a map of 7x7 is too small"),
        (
            attention(2, 7, 1),
            &[1, 7, 7, 48],
            Some([2, 13, 12]),
            "has shape [2, 13, 12], expected [2, 13, 13]",
        ),
    ];
    for (attention, shape, rpb, message) in table {
        let qkv = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let rpb = rpb.map(|shape| Tensor::zeros(&shape, DType::F32, &Device::Cpu).unwrap());
        let error = attention.forward(&qkv, rpb.as_ref()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        let rpb = rpb.unwrap_or_else(|| Tensor::zeros((2, 13, 13), DType::F32, &Device::Cpu).unwrap());
        let error = qkv.apply_op2(&rpb, attention).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let ints = Tensor::zeros((1, 7, 7, 48), DType::U8, &Device::Cpu).unwrap();
    let error = attention(2, 7, 1).forward(&ints, None).unwrap_err();
    assert!(error.to_string().contains("got qkv U8 and bias U8"), "{error}");
    let qkv = Tensor::zeros((1, 6, 9, 48), DType::F32, &Device::Cpu).unwrap();
    let error = attention(2, 7, 1).forward(&qkv, None).unwrap_err();
    assert!(matches!(error, AttentionError::SmallMap { height: 6, width: 9, kernel_size: 7, dilation: 1 }));
}

mod gpu {
    //! The GPU's kernels: always on the CPU, emulated, and on a GPU where there is one.

    use std::ffi::c_void;

    use nat_cuda::attention::Problem as Kernels;
    use nat_cuda::emulate::Emulator;
    use nat_cuda::{Element, Launch};

    use super::*;

    /// The types with what their kernels stay under, as [`TOLERANCES`] and [`GRADIENT_TOLERANCES`] for scores up
    /// to 10 and 200. Results, and on the matrix units probabilities, are rounded to 11 and 8 bits. In f32 a product
    /// of vectors is one long chain of sums, which large scores feel: their gradients may be off by twice as much.
    const TYPES: [(DType, Element, [f64; 2], [f64; 2]); 3] = [
        (DType::F32, Element::F32, [5e-7, 5e-6], [2e-6, 4e-5]),
        (DType::F16, Element::F16, [5e-4, 5e-4], [5e-4, 5e-4]),
        (DType::BF16, Element::Bf16, [4e-3, 4e-3], [4e-3, 4e-3]),
    ];

    fn kernels(problem: &Problem) -> Kernels {
        let &Problem { batch, height, width, heads, dim, kernel_size, dilation, .. } = problem;
        Kernels { batch, height, width, heads, dim, kernel_size, dilation }
    }

    /// The bytes of a tensor, in its own type.
    fn bytes(x: &Tensor) -> Vec<u8> {
        match x.dtype() {
            DType::F32 => values::<f32>(x).iter().flat_map(|x| x.to_ne_bytes()).collect(),
            DType::F16 => values::<f16>(x).iter().flat_map(|x| x.to_ne_bytes()).collect(),
            DType::BF16 => values::<bf16>(x).iter().flat_map(|x| x.to_ne_bytes()).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// A tensor in memory that begins at a multiple of 16 bytes.
    struct Memory {
        words: Vec<u128>,
        dtype: DType,
        count: usize,
    }

    impl Memory {
        fn new(x: &Tensor) -> Self {
            let (bytes, mut memory) = (bytes(x), Self::nan(x.dtype(), x.elem_count()));
            // SAFETY: the words have room for the bytes.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.pointer().cast(), bytes.len()) };
            memory
        }

        fn nan(dtype: DType, count: usize) -> Self {
            Self { words: vec![u128::MAX; (count * dtype.size_in_bytes()).div_ceil(16)], dtype, count }
        }

        /// An input that is not there.
        fn null(dtype: DType) -> Self {
            Self { words: Vec::new(), dtype, count: 0 }
        }

        fn pointer(&mut self) -> *mut c_void {
            if self.words.is_empty() { std::ptr::null_mut() } else { self.words.as_mut_ptr().cast() }
        }

        fn values(&self) -> Vec<f32> {
            // SAFETY: the words hold so many bytes.
            let bytes: &[u8] = unsafe {
                std::slice::from_raw_parts(
                    self.words.as_ptr().cast(),
                    self.count * self.dtype.size_in_bytes(),
                )
            };
            let halves = bytes.chunks_exact(2).map(|x| [x[0], x[1]]);
            match self.dtype {
                DType::F32 => {
                    bytes.chunks_exact(4).map(|x| f32::from_ne_bytes([x[0], x[1], x[2], x[3]])).collect()
                }
                DType::F16 => halves.map(|x| f16::from_ne_bytes(x).to_f32()).collect(),
                _ => halves.map(|x| bf16::from_ne_bytes(x).to_f32()).collect(),
            }
        }
    }

    /// Runs a kernel on the tensors that its launch is for.
    fn emulate<const N: usize>(launch: &Launch, tensors: [&mut Memory; N]) {
        // SAFETY: tensors of the launch's sizes and types.
        unsafe { Emulator::get().unwrap().launch(launch, &tensors.map(Memory::pointer)) };
    }

    /// `pad` for the kernels: nothing where no axis is padded.
    fn padding(problem: &Problem, pad: &Tensor) -> Memory {
        if problem.is_padded() { Memory::new(pad) } else { Memory::null(pad.dtype()) }
    }

    /// What a kernel makes of qkv, rpb and pad.
    fn emulated(launch: &Launch, problem: &Problem, [qkv, rpb, pad]: [&Tensor; 3]) -> Vec<f32> {
        let mut out = Memory::nan(qkv.dtype(), problem.output().elem_count());
        let [mut qkv, mut rpb, mut pad] = [Memory::new(qkv), Memory::new(rpb), padding(problem, pad)];
        emulate(launch, [&mut qkv, &mut rpb, &mut pad, &mut out]);
        out.values()
    }

    /// The gradients of qkv and rpb.
    fn emulated_gradients(problem: &Problem, element: Element, inputs: [&Tensor; 4]) -> [Vec<f32>; 2] {
        let [mut grad_qkv, mut grad_rpb] =
            [inputs[0], inputs[1]].map(|x| Memory::nan(x.dtype(), x.elem_count()));
        let mut statistics = Memory::nan(DType::F32, problem.output().elem_count() / problem.dim * 2);
        let [qkv, rpb, pad, grad] = inputs;
        let [mut qkv, mut rpb, mut grad] = [qkv, rpb, grad].map(Memory::new);
        let (mut pad, kernels) = (padding(problem, pad), kernels(problem));
        // Words of 16 bytes or single elements, as in `check`.
        let aligned = element != Element::F32;
        let query = kernels.query_gradients(element, aligned).unwrap();
        emulate(&query, [&mut qkv, &mut rpb, &mut pad, &mut grad, &mut grad_qkv, &mut statistics]);
        let key = kernels.key_gradients(element, aligned).unwrap();
        emulate(&key, [&mut qkv, &mut rpb, &mut pad, &mut grad, &mut statistics, &mut grad_qkv]);
        let bias = kernels.bias_gradients(element, aligned).unwrap();
        emulate(&bias, [&mut qkv, &mut rpb, &mut pad, &mut grad, &mut statistics, &mut grad_rpb]);
        [grad_qkv.values(), grad_rpb.values()]
    }

    /// The GPU, if this program is built for one and finds it.
    fn device() -> Option<Device> {
        #[cfg(feature = "cuda")]
        let device = crate::cuda::open(0).ok();
        #[cfg(not(feature = "cuda"))]
        let device = None;
        if device.is_none() {
            eprintln!("skipped on the GPU: there is none, or the feature `cuda` is off");
        }
        device
    }

    /// Compares all kernels that serve a problem with the reference, whose inputs are rounded to each type.
    fn check(problem: &Problem, inputs: [&Tensor; 3], large: bool, gpu: Option<&Device>, what: &str) {
        let attention = attention(problem.heads, problem.kernel_size, problem.dilation);
        for (dtype, element, tolerances, _) in TYPES {
            let inputs = inputs.map(|x| x.to_dtype(dtype).unwrap());
            let [qkv, rpb, pad] = inputs.each_ref().map(|x| values::<f64>(&x.to_dtype(DType::F64).unwrap()));
            let exact = reference::forward(problem, &qkv, &rpb, &pad);
            let tolerance = tolerances[usize::from(large)];
            // Words of 16 bytes or single elements, which differ by type only in how they are read.
            let general = [kernels(problem).general(element, dtype != DType::F32).unwrap()];
            let matrix_units = kernels(problem).matrix_units(element).map(Result::unwrap);
            for launch in general.into_iter().chain(matrix_units) {
                let error = relative(&emulated(&launch, problem, inputs.each_ref()), &exact);
                assert!(error < tolerance, "{what}, {}: off by {error:e}", launch.function);
            }
            if let Some(gpu) = gpu {
                let [qkv, rpb, pad] = inputs.each_ref().map(|x| x.to_device(gpu).unwrap());
                let got = attention.forward_padded(&qkv, Some(&rpb), Some(&pad)).unwrap();
                let error = relative(&values::<f32>(&got.to_dtype(DType::F32).unwrap()), &exact);
                assert!(error < tolerance, "{what}, {dtype:?} on the GPU: off by {error:e}");
            }
        }
    }

    /// The gradients of a problem, as [`check`].
    fn check_gradients(
        problem: &Problem,
        inputs: [&Tensor; 4],
        large: bool,
        gpu: Option<&Device>,
        what: &str,
    ) {
        let attention = attention(problem.heads, problem.kernel_size, problem.dilation);
        for (dtype, element, _, tolerances) in TYPES {
            let inputs = inputs.map(|x| x.to_dtype(dtype).unwrap());
            let [qkv, rpb, pad, grad] =
                inputs.each_ref().map(|x| values::<f64>(&x.to_dtype(DType::F64).unwrap()));
            let exact: [_; 2] = reference::backward(problem, &qkv, &rpb, &pad, &grad).into();
            let compare = |got: [Vec<f32>; 2], place: &str| {
                let errors = [relative(&got[0], &exact[0]), relative(&got[1], &exact[1])];
                let more = if problem.is_padded() { 10.0 } else { 1.0 };
                let tolerance = more * tolerances[usize::from(large)];
                assert!(
                    errors.iter().all(|error| *error < tolerance),
                    "{what}, {dtype:?} {place}: off by {errors:?}"
                );
            };
            compare(emulated_gradients(problem, element, inputs.each_ref()), "emulated");
            if let Some(gpu) = gpu {
                let [qkv, rpb, pad, grad] = inputs.each_ref().map(|x| x.to_device(gpu).unwrap());
                let [qkv, rpb] = [&qkv, &rpb].map(|x| Var::from_tensor(x).unwrap());
                let out = attention.forward_padded(&qkv, Some(&rpb), Some(&pad)).unwrap();
                let grads = (out * grad).unwrap().sum_all().unwrap().backward().unwrap();
                let got = [&qkv, &rpb]
                    .map(|x| values::<f32>(&grads.get(x.as_tensor()).unwrap().to_dtype(DType::F32).unwrap()));
                compare(got, "on the GPU");
            }
        }
    }

    /// Whether so many queries are few: the emulation takes seconds for more, and they show it nothing new.
    fn quick(queries: usize) -> bool {
        queries < 1000
    }

    #[test]
    fn kernels_agree_with_the_reference() {
        let gpu = device();
        // More than a tile of the matrix units' kernels in every direction, and classes of unequal size.
        let more = [
            (1, 11, 19, 2, 32, 3, 1),
            (2, 17, 12, 1, 32, 5, 2),
            (1, 25, 18, 1, 32, 7, 1),
            (1, 9, 24, 1, 32, 9, 1),
            (1, 23, 13, 1, 32, 11, 1),
            (1, 27, 29, 1, 32, 13, 2),
        ];
        for (b, h, w, heads, dim, kernel_size, dilation) in SHAPES.into_iter().chain(more).chain(PADDED) {
            if gpu.is_none() && !quick(b * h * w * heads) {
                continue;
            }
            let attention = attention(heads, kernel_size, dilation);
            let qkv_shape = (b, h, w, 3 * heads * dim);
            let problem = attention.problem(Shape::from(qkv_shape).dims(), true).unwrap();
            let rpb = normal((heads, problem.bias_side, problem.bias_side), 1.0);
            for (large, deviation) in [(false, 1.0), (true, 5.0)] {
                let (qkv, pad) = (normal(qkv_shape, deviation), normal(3 * heads * dim, deviation));
                let what = format!("{problem:?}, deviation {deviation}");
                check(&problem, [&qkv, &rpb, &pad], large, gpu.as_ref(), &what);
            }
        }
    }

    #[test]
    fn gradients_agree_with_the_reference() {
        let gpu = device();
        for (b, h, w, heads, dim, kernel_size, dilation) in SHAPES.into_iter().chain(PADDED) {
            // As for the CPU's kernels.
            let few = b * h * w * heads * dim < 16;
            if few || gpu.is_none() && !quick(b * h * w * heads) {
                continue;
            }
            let attention = attention(heads, kernel_size, dilation);
            let qkv_shape = (b, h, w, 3 * heads * dim);
            let problem = attention.problem(Shape::from(qkv_shape).dims(), true).unwrap();
            let rpb = normal((heads, problem.bias_side, problem.bias_side), 1.0);
            let grad = normal((b, h, w, heads * dim), 1.0);
            for (large, deviation) in [(false, 1.0), (true, 5.0)] {
                let (qkv, pad) = (normal(qkv_shape, deviation), normal(3 * heads * dim, deviation));
                let what = format!("{problem:?}, deviation {deviation}");
                check_gradients(&problem, [&qkv, &rpb, &pad, &grad], large, gpu.as_ref(), &what);
            }
        }
    }

    #[test]
    fn golden_cases_are_those_of_natten() {
        let gpu = device();
        for entry in std::fs::read_dir(golden()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            let field = |name| header.metadata().as_ref().unwrap()[name].parse().unwrap();
            let attention = attention(field("heads"), field("kernel_size"), field("dilation"));
            let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
            let problem = attention.problem(tensors["qkv"].dims(), false).unwrap();
            let what = path.display().to_string();
            let [qkv, rpb, grad] = ["qkv", "rpb", "grad_out"].map(|name| &tensors[name]);
            let pad = &normal(3 * problem.heads * problem.dim, 1.0);
            check(&problem, [qkv, rpb, pad], false, gpu.as_ref(), &what);
            check_gradients(&problem, [qkv, rpb, pad, grad], false, gpu.as_ref(), &what);
        }
    }
}
