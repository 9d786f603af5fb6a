//! The operator as its users call it: layouts, types, refusals, and values that are not numbers.

use candle_core::{DType, Device, Tensor};
use nat_testing::tensors::{normal, values};

use super::tools::{attention, gradients, widen};
use crate::attention::{AttentionError, cpu, reference};
use crate::simd::Isa;

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
