//! Maps that are smaller than a window.

use candle_core::{DType, Device, Tensor, Var};
use nat_testing::close::relative;
use nat_testing::tensors::{normal, values};

use super::shapes::{EXTREME, PADDED};
use super::tools::{attention, bits};
use crate::attention::NeighborhoodAttention;
use crate::attention::window::MOST_PADDED;

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
            let error = relative(&values::<f32>(&got), &values::<f32>(&want));
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
