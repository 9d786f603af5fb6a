//! The kernels that move values, emulated, against what they are said to do.

mod values;

use nat_cuda::maps::{ImageWindows, merge, widen};
use nat_cuda::{Element, TooLarge};
use values::{Values, run};

const TYPES: [Element; 3] = [Element::F32, Element::F16, Element::Bf16];

#[test]
fn any_half_is_the_same_number_in_f32() {
    assert_eq!(widen(Element::F32, 5), None);
    for element in [Element::F16, Element::Bf16] {
        let mut x = Values::all(element);
        let mut out = Values::nan(Element::F32, 1 << 16);
        run(&widen(element, 1 << 16).unwrap().unwrap(), &[x.pointer(), out.pointer()]);
        let same = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan();
        assert!(x.get().iter().zip(&out.get()).all(same), "{element:?}");
    }
}

#[test]
fn neighbours_are_merged_columns_before_rows() {
    let mut rng = fastrand::Rng::with_seed(3);
    for element in TYPES {
        for (batch, h, w, c) in [(1, 2, 2, 8), (2, 5, 3, 16), (1, 1, 7, 3), (3, 6, 4, 40)] {
            let mut x = Values::random(element, batch * h * w * c, 0.0, &mut rng);
            let (oh, ow) = (h.div_ceil(2), w.div_ceil(2));
            let known = x.get();
            let mut want = Vec::new();
            for (b, y, x) in places([batch, oh, ow]) {
                for (column, row) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let (y, x) = (2 * y + row, 2 * x + column);
                    want.extend((0..c).map(|channel| {
                        if y < h && x < w { known[((b * h + y) * w + x) * c + channel] } else { 0.0 }
                    }));
                }
            }
            for vectors in [false, true] {
                let mut out = Values::nan(element, want.len());
                let launch = merge(element, [batch, h, w, c], vectors).unwrap();
                run(&launch, &[x.pointer(), out.pointer()]);
                assert!(out.get() == want, "{} of {batch}x{h}x{w}x{c}", launch.function);
            }
        }
    }
    assert_eq!(merge(Element::F16, [1, 1 << 17, 2, 8], true), Err(TooLarge));
}

#[test]
fn windows_of_images_are_as_weights_are() {
    let mut rng = fastrand::Rng::with_seed(4);
    let pairs = TYPES.iter().flat_map(|&element| [(element, element), (Element::F32, element)]);
    for (image, element) in pairs {
        // 3 · 2² is no multiple of 8: zeros follow.
        for (kernel, stride, padding, size) in [(16, 16, 0, [32, 33]), (2, 2, 0, [5, 4]), (3, 1, 1, [4, 3])] {
            let (batch, channels) = (2, 3);
            let out = size.map(|side: usize| side.div_ceil(stride));
            let windows = ImageWindows { batch, channels, size, out, kernel, stride, padding };
            let mut x = Values::random(image, batch * channels * size[0] * size[1], 0.0, &mut rng);
            // Rounded to the map's type.
            let known = Values::new(element, &x.get()).get();
            let depth = (kernel * kernel * channels).next_multiple_of(8);
            let mut want = Vec::new();
            for (b, y, x) in places([batch, out[0], out[1]]) {
                for at in 0..depth {
                    let (c, ky, kx) = (at / kernel / kernel, at / kernel % kernel, at % kernel);
                    let (y, x) =
                        ((y * stride + ky).checked_sub(padding), (x * stride + kx).checked_sub(padding));
                    want.push(match (y, x) {
                        (Some(y), Some(x)) if c < channels && y < size[0] && x < size[1] => {
                            known[((b * channels + c) * size[0] + y) * size[1] + x]
                        }
                        _ => 0.0,
                    });
                }
            }
            let mut got = Values::nan(element, want.len());
            let launch = windows.launch(image, element).unwrap().unwrap();
            run(&launch, &[x.pointer(), got.pointer()]);
            assert!(got.get() == want, "{} of {windows:?}", launch.function);
        }
    }
    let windows =
        ImageWindows { batch: 1, channels: 3, size: [8, 8], out: [4, 4], kernel: 2, stride: 2, padding: 0 };
    assert_eq!(windows.launch(Element::F16, Element::F32), None);
}

/// All places of an array of these sizes.
fn places([n, h, w]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..n * h * w).map(move |i| (i / w / h, i / w % h, i % w))
}
