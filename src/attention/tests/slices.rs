//! The operator on slices against itself on tensors, and its refusals.

use candle_core::{DType, Tensor};
use nat_testing::tensors::{normal, values};

use super::shapes::SHAPES;
use super::tools::{attention, widen};
use crate::attention::{AttentionError, reference};

#[test]
fn slices_give_what_tensors_give() {
    for (b, h, w, heads, dim, kernel_size, dilation) in SHAPES {
        if b * h * w * heads > 1000 {
            continue;
        }
        let attention = attention(heads, kernel_size, dilation);
        let shape = [b, h, w, 3 * heads * dim];
        let side = 2 * kernel_size - 1;
        let (qkv, rpb) = (normal(shape.to_vec(), 1.0), normal((heads, side, side), 1.0));
        let grad: Vec<f32> = values(&normal((b, h, w, heads * dim), 1.0));
        let vectors = |x: &Tensor| values::<f32>(x);
        let (x, bias) = (vectors(&qkv), vectors(&rpb));
        for rpb in [Some((&rpb, &bias)), None] {
            let what = format!("{attention:?} on {shape:?}, bias: {}", rpb.is_some());
            let (tensor, slice) =
                rpb.map_or((None, None), |(tensor, slice)| (Some(tensor), Some(&slice[..])));
            let want = vectors(&attention.forward(&qkv, tensor).unwrap());
            assert_eq!(attention.forward_slices(shape, &x, slice).unwrap(), want, "{what}");
            let (wide, wide_bias) = (widen(&x), slice.map(widen));
            let want = attention.forward(&qkv.to_dtype(DType::F64).unwrap(), tensor).unwrap();
            let got = attention.forward_slices(shape, &wide, wide_bias.as_deref()).unwrap();
            assert_eq!(got, values::<f64>(&want), "{what}");

            let problem = attention.problem(&shape, false).unwrap();
            let zeros = vec![0.0; heads * side * side];
            let bias = wide_bias.as_deref().unwrap_or(&zeros);
            let (exact_qkv, exact_rpb) = reference::backward(&problem, &wide, bias, &[], &widen(&grad));
            let wide_grad = widen(&grad);
            let (got, got_rpb) =
                attention.backward_slices(shape, &wide, wide_bias.as_deref(), &wide_grad, true).unwrap();
            assert_eq!((got, got_rpb), (exact_qkv.clone(), slice.map(|_| exact_rpb.clone())), "{what}");
            let (got, got_rpb) = attention.backward_slices(shape, &x, slice, &grad, true).unwrap();
            let (alone, none) = attention.backward_slices(shape, &x, slice, &grad, false).unwrap();
            assert!(none.is_none() && alone == got, "{what}");
            let error = nat_testing::close::relative(&got, &exact_qkv);
            assert!(error < 5e-6, "{what}: off by {error:e}");
            assert_eq!(got_rpb.is_some(), slice.is_some());
            if let Some(got) = got_rpb {
                let error = nat_testing::close::relative(&got, &exact_rpb);
                // A kernel of one pixel has no use for biases: their gradients are 0.
                assert!(error < 5e-6 || kernel_size == 1, "{what}: off by {error:e}");
            }
        }
    }
}

#[test]
fn slices_of_other_lengths_are_refused() {
    let attention = attention(2, 3, 1);
    let shape = [1, 3, 4, 12];
    let (qkv, rpb, grad) = (vec![1f32; 144], vec![1f32; 50], vec![1f32; 48]);
    assert!(attention.forward_slices(shape, &qkv, Some(&rpb)).is_ok());
    for (shape, qkv, rpb, grad, message) in [
        (shape, &qkv[1..], &rpb[..], &grad[..], "qkv has 143 values, expected 144"),
        ([1, 3, 5, 12], &qkv, &rpb, &grad, "qkv has 144 values, expected 180"),
        ([usize::MAX, 3, 4, 12], &qkv, &rpb, &grad, "qkv has 144 values"),
        (shape, &qkv, &rpb[1..], &grad, "the relative position bias has 49 values, expected 50"),
        (shape, &qkv, &rpb, &grad[1..], "the gradient of the output has 47 values, expected 48"),
        ([1, 3, 2, 12], &qkv[..72], &rpb, &grad, "a map of 3x2 is too small for kernel size 3"),
    ] {
        let error = attention.backward_slices(shape, qkv, Some(rpb), grad, true).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        if grad.len() == 48 {
            let error = attention.forward_slices(shape, qkv, Some(rpb)).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }
    let none = attention.forward_slices::<f32>([0, 3, 4, 12], &[], None).unwrap();
    assert!(none.is_empty());
    let error = attention.forward_slices::<f64>([1, 3, 4, 13], &[], None).unwrap_err();
    assert!(matches!(error, AttentionError::Channels { channels: 13, heads: 2 }));
}
