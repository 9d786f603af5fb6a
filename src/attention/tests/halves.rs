//! The halves of the operator, put together again, against the reference for the whole.

use candle_core::{DType, Device};
use nat_testing::close::relative;
use nat_testing::golden;
use nat_testing::noise::normal;
use nat_testing::tensors::values;

use super::shapes::SHAPES;
use super::tools::{attention, widen};
use crate::attention::problem::Problem;
use crate::attention::{AttentionHalves, AttentionNumber, reference};

/// Queries, keys and values [B, heads, H, W, dim] of a qkv [B, H, W, 3·heads·dim], or what has this layout with one part
/// instead of three.
fn parts<T: AttentionNumber, const N: usize>(problem: &Problem, x: &[T]) -> [Vec<T>; N] {
    let &Problem { batch, height, width, heads, dim, .. } = problem;
    let pixels = height * width;
    std::array::from_fn(|part| {
        (0..batch * heads * pixels)
            .flat_map(|i| {
                let (image, head, pixel) = (i / heads / pixels, i / pixels % heads, i % pixels);
                &x[(((image * pixels + pixel) * N + part) * heads + head) * dim..][..dim]
            })
            .copied()
            .collect()
    })
}

/// e^x over the sum of those of each group, in f64.
fn softmax<T: AttentionNumber>(scores: &[T], group: usize) -> Vec<T> {
    let softmax = |scores: &[T]| {
        let exponentials: Vec<f64> = scores.iter().map(|&x| x.into().exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        exponentials.into_iter().map(move |x| T::nearest(x / sum))
    };
    scores.chunks(group).flat_map(softmax).collect()
}

/// What attention is made of: out, and the gradients of q, k, v and rpb.
fn whole<T: AttentionNumber>(
    problem: &Problem,
    [q, k, v]: &[Vec<T>; 3],
    rpb: &[T],
    grad: &[T],
) -> [Vec<T>; 5] {
    let &Problem { batch, height, width, heads, dim, kernel_size, dilation, .. } = problem;
    let halves = AttentionHalves::new([batch, heads, height, width, dim], kernel_size, dilation).unwrap();
    let window = kernel_size * kernel_size;
    let scaled = |x: &[T]| -> Vec<T> { x.iter().map(|&x| T::nearest(x.into() * problem.scale())).collect() };
    let q = scaled(q);
    let p = softmax(&halves.scores(&q, k, Some(rpb)).unwrap(), window);
    let out = halves.mix(&p, v).unwrap();
    let grad_p = halves.scores(grad, v, None).unwrap();
    let grad_scores: Vec<T> = (p.chunks(window).zip(grad_p.chunks(window)))
        .flat_map(|(p, grad)| {
            let mean: f64 = p.iter().zip(grad).map(|(&p, &grad)| p.into() * grad.into()).sum();
            p.iter().zip(grad).map(move |(&p, &grad)| T::nearest(p.into() * (grad.into() - mean)))
        })
        .collect();
    [
        out,
        scaled(&halves.mix(&grad_scores, k).unwrap()),
        halves.spread(&grad_scores, &q).unwrap(),
        halves.spread(&p, grad).unwrap(),
        halves.bias_gradient(&grad_scores).unwrap(),
    ]
}

/// The same of the reference.
fn exact(problem: &Problem, qkv: &[f64], rpb: &[f64], grad: &[f64]) -> [Vec<f64>; 5] {
    let [out] = parts(problem, &reference::forward(problem, qkv, rpb, &[]));
    let (grad_qkv, grad_rpb) = reference::backward(problem, qkv, rpb, &[], grad);
    let [q, k, v] = parts(problem, &grad_qkv);
    [out, q, k, v, grad_rpb]
}

fn check(problem: &Problem, qkv: &[f32], rpb: &[f32], grad: &[f32]) {
    let [wide_qkv, wide_rpb, wide_grad] = [qkv, rpb, grad].map(widen);
    let exact = exact(problem, &wide_qkv, &wide_rpb, &wide_grad);
    let [narrow_grad] = parts(problem, grad);
    let narrow = whole(problem, &parts(problem, qkv), rpb, &narrow_grad);
    let [wide_grad] = parts(problem, &wide_grad);
    let wide = whole(problem, &parts(problem, &wide_qkv), &wide_rpb, &wide_grad);
    for (i, what) in ["out", "q", "k", "v", "rpb"].into_iter().enumerate() {
        // With one neighbour, whose probability is 1, scores have no gradients.
        if problem.kernel_size == 1 && ["q", "k", "rpb"].contains(&what) {
            assert!(narrow[i].iter().all(|x| x.abs() < 1e-5), "{problem:?}, {what}");
            continue;
        }
        let error = relative(&narrow[i], &exact[i]);
        assert!(error < 1e-5, "{problem:?}, {what}: off by {error:e}");
        let error = relative(&wide[i], &exact[i]);
        assert!(error < 1e-12, "{problem:?}, {what} in f64: off by {error:e}");
    }
}

#[test]
fn both_halves_together_are_attention() {
    let more = [(2, 9, 12, 2, 1, 3, 2), (1, 15, 7, 1, 47, 7, 1), (1, 9, 11, 3, 72, 3, 3)];
    for (b, h, w, heads, dim, kernel_size, dilation) in SHAPES.into_iter().chain(more) {
        let attention = attention(heads, kernel_size, dilation);
        let problem = attention.problem(&[b, h, w, 3 * heads * dim], false).unwrap();
        if problem.macs() > 10_000_000 {
            continue;
        }
        let values = b * h * w * heads * dim;
        let qkv = normal(3 * values, 1.0);
        check(&problem, &qkv, &normal(heads * problem.bias_side.pow(2), 1.0), &normal(values, 1.0));
    }
}

#[test]
fn golden_cases_come_out_of_halves() {
    golden::each(&golden::files("attention", "safetensors"), |path| {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let field = |name| header.metadata().as_ref().unwrap()[name].parse().unwrap();
        let attention = attention(field("heads"), field("kernel_size"), field("dilation"));
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        let problem = attention.problem(tensors["qkv"].dims(), false).unwrap();
        let narrow = |name: &str| values::<f32>(&tensors[name].to_dtype(DType::F32).unwrap());
        let [grad] = parts(&problem, &narrow("grad_out"));
        let got = whole(&problem, &parts(&problem, &narrow("qkv")), &narrow("rpb"), &grad);
        let [out] = parts(&problem, &narrow("out"));
        let [q, k, v] = parts(&problem, &narrow("grad_qkv"));
        for (i, want) in [out, q, k, v, narrow("grad_rpb")].iter().enumerate() {
            let error = relative(&got[i], want);
            assert!(error < 1e-5, "{path:?}, result {i}: off by {error:e}");
        }
    });
}

#[test]
fn halves_are_the_same_for_any_number_of_threads() {
    let problem = attention(2, 5, 2).problem(&[2, 13, 11, 3 * 2 * 24], false).unwrap();
    let qkv = parts(&problem, &normal(2 * 13 * 11 * 144, 1.0));
    let (rpb, grad) = (normal(2 * 81, 1.0), normal(2 * 13 * 11 * 48, 1.0));
    let [one, three] = [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| whole(&problem, &qkv, &rpb, &grad)).map(|x| super::tools::bits(&x))
    });
    assert_eq!(one, three);
}

#[test]
fn wrong_sizes_of_halves_are_refused() {
    for (shape, kernel_size, dilation, message) in [
        ([1, 2, 6, 9, 32], 7, 1, "a map of 6x9 is too small for kernel size 7 with dilation 1"),
        ([1, 2, 14, 14, 32], 6, 1, "kernel size 6 is even"),
        ([1, 2, 14, 14, 32], 0, 1, "2 heads, kernel size 0, dilation 1"),
        ([1, 0, 14, 14, 32], 3, 1, "0 heads, kernel size 3"),
        ([1, 2, 14, 14, 0], 3, 1, "0 channels"),
    ] {
        let error = AttentionHalves::new(shape, kernel_size, dilation).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let halves = AttentionHalves::new([1, 2, 3, 4, 5], 3, 1).unwrap();
    let (vectors, weights, rpb) = ([1f32; 120], [1f32; 216], [1f32; 50]);
    assert!(halves.scores(&vectors, &vectors, Some(&rpb)).is_ok());
    for (error, message) in [
        (
            halves.scores(&vectors[1..], &vectors, None),
            "the first factor of the scores has 119 values, expected 120",
        ),
        (halves.scores(&vectors, &vectors[1..], None), "the second factor of the scores has 119 values"),
        (halves.scores(&vectors, &vectors, Some(&rpb[1..])), "bias has 49 values, expected 50"),
        (halves.mix(&weights[1..], &vectors), "the tensor of weights has 215 values, expected 216"),
        (halves.spread(&weights, &vectors[1..]), "the weighted tensor has 119 values, expected 120"),
        (halves.bias_gradient(&weights[1..]), "the gradient of the scores has 215 values"),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    // No images: nothing to compute, of whatever size.
    let none = AttentionHalves::new([0, 2, usize::MAX / 2, usize::MAX / 2, 5], 3, 1).unwrap();
    assert!(none.scores::<f32>(&[], &[], None).unwrap().is_empty());
    assert!(none.spread::<f32>(&[], &[]).unwrap().is_empty());
    assert_eq!(none.bias_gradient::<f32>(&[]).unwrap(), [0.0; 50]);
}
