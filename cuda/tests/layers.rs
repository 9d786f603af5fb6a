//! The layers' kernels, emulated, against their definitions in f64.

mod values;

use std::ffi::c_void;

use nat_cuda::{Element, Launch};
use nat_cuda::images::ImageConv;
use nat_cuda::layers::{KernelActivation, Windows, finish, finish_norm, layer_norm, mean};
use nat_testing::close::assert_each;
use nat_testing::naive;
use values::{Values, run};

/// Each type with how far a result may be off, relative to its size or to 1.
const TYPES: [(Element, f64); 3] = [(Element::F32, 2e-6), (Element::F16, 1e-3), (Element::Bf16, 8e-3)];

/// What a layer is finished with beside an activation: bias, gamma and residual.
const PARTS: [[bool; 3]; 6] = [
    [true, false, false],
    [true, false, true],
    [true, true, true],
    [false, true, false],
    [false, false, true],
    [false, false, false],
];

const ACTIVATIONS: [KernelActivation; 3] =
    [KernelActivation::None, KernelActivation::Gelu, KernelActivation::Relu];

/// The pointer to values where they are wanted.
fn given(wanted: bool, values: &mut Values) -> *mut c_void {
    if wanted { values.pointer() } else { std::ptr::null_mut() }
}

#[test]
fn a_layer_is_finished_with_whatever_it_has() {
    let mut rng = fastrand::Rng::with_seed(1);
    for (element, tolerance) in TYPES {
        for (rows, channels, vectors) in [
            (1, 1, true),
            (5, 13, true),
            (49, 64, true),
            (49, 64, false),
            (3, 1000, true),
            (2, 4096, true),
            (2, 300, false),
        ] {
            for (has, activation) in PARTS.into_iter().flat_map(|has| ACTIVATIONS.map(|a| (has, a))) {
                let mut x = Values::random(element, rows * channels, 0.0, &mut rng);
                let [mut bias, mut gamma] =
                    [0.3, 1.0].map(|c| Values::random(element, channels, c, &mut rng));
                let mut residual = Values::random(element, rows * channels, 0.0, &mut rng);
                let mut out = Values::nan(element, rows * channels);
                let launch = finish(element, [rows, channels], activation, vectors).unwrap();
                let [b, g, r] =
                    [given(has[0], &mut bias), given(has[1], &mut gamma), given(has[2], &mut residual)];
                run(&launch, &[x.pointer(), b, g, r, out.pointer()]);
                let [known_bias, known_gamma, known_residual] = [&bias, &gamma, &residual].map(Values::get);
                let expected = |(i, x): (usize, f64)| {
                    let x = x + if has[0] { known_bias[i % channels] } else { 0.0 };
                    let x = match activation {
                        KernelActivation::None => x,
                        KernelActivation::Gelu => naive::gelu(x),
                        KernelActivation::Relu => x.max(0.0),
                    };
                    x * if has[1] { known_gamma[i % channels] } else { 1.0 }
                        + if has[2] { known_residual[i] } else { 0.0 }
                };
                let want: Vec<f64> = x.get().into_iter().enumerate().map(expected).collect();
                let what = format!("{} {rows}x{channels} {has:?} {activation:?}", launch.function);
                assert_each(&out.get(), &want, tolerance, &what);

                // In place, and with so few blocks that each takes several rows.
                let few = Launch { grid: [1, launch.grid[1], 1], ..launch };
                let x = x.pointer();
                run(&few, &[x, b, g, r, x]);
                // SAFETY: x has as many bytes as out.
                let in_place = unsafe { std::slice::from_raw_parts(x.cast::<u128>(), out.words.len()) };
                assert_eq!(in_place, out.words, "{what} in place");
            }
        }
    }
}

#[test]
fn gelu_is_within_a_unit_in_the_last_place_of_any_half() {
    for (element, digits, lowest) in [(Element::F16, 10, -14), (Element::Bf16, 7, -126)] {
        for vectors in [false, true] {
            let mut x = Values::all(element);
            let mut out = Values::nan(element, x.count);
            let launch = finish(element, [64, x.count / 64], KernelActivation::Gelu, vectors).unwrap();
            let none = std::ptr::null_mut();
            run(&launch, &[x.pointer(), none, none, none, out.pointer()]);
            for (x, got) in x.get().into_iter().zip(out.get()) {
                let want = if x == f64::NEG_INFINITY { 0.0 } else { naive::gelu(x) };
                if !want.is_finite() {
                    assert!(
                        got.total_cmp(&want.abs()).is_eq() || got.is_nan() && want.is_nan(),
                        "{x}: {got}"
                    );
                    continue;
                }
                let exponent = want.abs().log2().floor().max(f64::from(lowest));
                let unit = (exponent - f64::from(digits)).exp2();
                // So small values may be zero, which only bf16 can tell from it.
                let bound = unit.max(if want.abs() < SMALL { SMALL } else { 0.0 });
                assert!((got - want).abs() <= bound, "{}: GELU of {x} is {got}, not {want}", launch.function);
            }
        }
    }
}

/// What GELU of a 16-bit type may give as zero.
const SMALL: f64 = 1.0 / (1_u128 << 122) as f64;

/// Channels of the published networks, and others: of rows of odd lengths, and too wide for registers.
const NORMED: [usize; 16] = [64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 13, 40, 48, 200, 2056];

#[test]
fn norms_are_those_of_the_definition_far_from_zero() {
    let mut rng = fastrand::Rng::with_seed(2);
    for (element, tolerance) in TYPES {
        for (rows, channels) in NORMED.map(|channels| (11, channels)).into_iter().chain([(1, 1), (130, 32)]) {
            for (vectors, epsilon) in [(false, 1e-5), (true, 1e-5), (false, 0.25), (true, 1e-12)] {
                // A large mean shows cancellation.
                let mut x = Values::random(element, rows * channels, 20.0, &mut rng);
                let [mut weight, mut bias] =
                    [1.0, 0.0].map(|c| Values::random(element, channels, c, &mut rng));
                let mut out = Values::nan(element, rows * channels);
                let launch = layer_norm(element, [rows, channels], epsilon, vectors).unwrap();
                run(&launch, &[x.pointer(), weight.pointer(), bias.pointer(), out.pointer()]);
                let (weight, bias) = (weight.get(), bias.get());
                let want = naive::layer_norm(&x.get(), &weight, &bias, f64::from(epsilon));
                // A mean of 20 in f32 leaves 5 digits of what is around it.
                let what = format!("{} {rows}x{channels}", launch.function);
                assert_each(&out.get(), &want, tolerance.max(2e-5), &what);
            }
        }
    }
}

#[test]
fn what_is_normed_as_it_is_finished_is_what_two_kernels_give() {
    let mut rng = fastrand::Rng::with_seed(5);
    for (element, _) in TYPES {
        for (channels, rows) in NORMED.into_iter().zip([37, 5, 1, 130].into_iter().cycle()) {
            let epsilon = 1e-5;
            let size = [rows, channels];
            let Some(both) = finish_norm(element, size, epsilon, true) else {
                assert!([13, 2056].contains(&channels), "{element:?} {channels}");
                continue;
            };
            let both = both.unwrap();
            let [mut x, mut residual] =
                [20.0, 1.0].map(|c| Values::random(element, rows * channels, c, &mut rng));
            let [mut bias, mut gamma, mut weight, mut norm_bias] =
                [0.3, 1.0, 1.0, 0.0].map(|c| Values::random(element, channels, c, &mut rng));
            for has in PARTS {
                let [b, g, r] =
                    [given(has[0], &mut bias), given(has[1], &mut gamma), given(has[2], &mut residual)];
                let (w, n) = (weight.pointer(), norm_bias.pointer());
                let [mut out, mut normed, mut want, mut want_normed] =
                    [(); 4].map(|()| Values::nan(element, rows * channels));
                let first = finish(element, size, KernelActivation::None, true).unwrap();
                run(&first, &[x.pointer(), b, g, r, want.pointer()]);
                let second = layer_norm(element, size, epsilon, true).unwrap();
                run(&second, &[want.pointer(), w, n, want_normed.pointer()]);

                run(&both, &[x.pointer(), b, g, r, w, n, out.pointer(), normed.pointer()]);
                let what = format!("{} {size:?} {has:?}", both.function);
                assert_eq!(out.words, want.words, "{what}");
                assert_eq!(normed.words, want_normed.words, "{what}, normed");

                let mut alone = Values::nan(element, rows * channels);
                run(&both, &[x.pointer(), b, g, r, w, n, std::ptr::null_mut(), alone.pointer()]);
                assert_eq!(alone.words, normed.words, "{what}, normed alone");
            }
        }
        assert!(finish_norm(element, [3, 64], 1e-5, false).is_none());
    }
}

#[test]
fn windows_are_those_of_a_convolution() {
    let mut rng = fastrand::Rng::with_seed(3);
    let cases = [
        // batch, size, channels, kernel, stride, padding
        (2, [7, 6], 3, 3, 2, 1),
        (1, [5, 9], 16, 3, 1, 1),
        (2, [9, 7], 3, 4, 4, 0),
        (1, [4, 4], 8, 1, 1, 0),
        (1, [3, 5], 4, 3, 2, 1),
        (3, [2, 40], 24, 3, 1, 1),
    ];
    for (element, _) in TYPES {
        for (batch, size, channels, kernel, stride, padding) in cases {
            for vectors in [false, true] {
                let out = size.map(|side: usize| side.div_ceil(stride));
                let windows = Windows { batch, size, channels, out, kernel, stride, padding };
                let mut x = Values::random(element, batch * size[0] * size[1] * channels, 0.0, &mut rng);
                let mut got = Values::nan(element, batch * out[0] * out[1] * windows.depth());
                let launch = windows.launch(element, vectors).unwrap();
                run(&launch, &[x.pointer(), got.pointer()]);
                let mut again = Values::nan(element, got.count);
                let few = Launch { grid: [launch.grid[0], launch.grid[1], 1], ..launch };
                run(&few, &[x.pointer(), again.pointer()]);
                assert_eq!(again.words, got.words, "{windows:?}, all images by the same threads");
                let x = x.get();
                let mut want = Vec::new();
                for row in 0..batch * out[0] * out[1] {
                    let (image, oy, ox) = (row / out[1] / out[0], row / out[1] % out[0], row % out[1]);
                    for at in 0..windows.depth() {
                        let (ky, kx, c) = (at / channels / kernel, at / channels % kernel, at % channels);
                        let (y, x_) = (
                            (oy * stride + ky).wrapping_sub(padding),
                            (ox * stride + kx).wrapping_sub(padding),
                        );
                        let inside = ky < kernel && y < size[0] && x_ < size[1];
                        want.push(if inside {
                            x[((image * size[0] + y) * size[1] + x_) * channels + c]
                        } else {
                            0.0
                        });
                    }
                }
                assert_each(&got.get(), &want, 0.0, &format!("{} {windows:?}", launch.function));
            }
        }
    }
}

/// Convolutions of images: those of the published networks, and with maps that end within a window, behind which
/// zeros are as well as before it.
const IMAGE_CONVS: [ImageConv; 6] = [
    ImageConv { batch: 2, channels: 3, size: [13, 22], out: [7, 11], outputs: 32, ..OVERLAPPING },
    ImageConv { batch: 1, channels: 3, size: [9, 300], out: [5, 150], outputs: 64, ..OVERLAPPING },
    ImageConv { batch: 2, channels: 1, size: [5, 4], out: [5, 7], outputs: 8, padding: 2, ..OVERLAPPING },
    ImageConv { batch: 3, channels: 3, size: [11, 13], out: [3, 4], outputs: 96, ..PATCHES },
    ImageConv { batch: 1, channels: 3, size: [8, 37], out: [2, 10], outputs: 192, ..PATCHES },
    ImageConv { batch: 1, channels: 5, size: [6, 3], out: [2, 1], outputs: 24, padding: 1, ..PATCHES },
];
const OVERLAPPING: ImageConv = ImageConv {
    batch: 1,
    channels: 3,
    size: [0; 2],
    out: [0; 2],
    outputs: 0,
    kernel: 3,
    stride: 2,
    padding: 1,
};
const PATCHES: ImageConv = ImageConv { kernel: 4, stride: 4, padding: 0, ..OVERLAPPING };

/// A convolution of `image` in f64.
fn convolved(conv: &ImageConv, image: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let &ImageConv { batch, channels, size: [h, w], out: [oh, ow], outputs, kernel, stride, padding } = conv;
    let mut all = Vec::new();
    for place in 0..batch * oh * ow {
        let (b, oy, ox) = (place / ow / oh, place / ow % oh, place % ow);
        for output in 0..outputs {
            let mut sum = bias[output];
            for tap in 0..channels * kernel * kernel {
                let (c, ky, kx) = (tap / kernel / kernel, tap / kernel % kernel, tap % kernel);
                let y = (oy * stride + ky).wrapping_sub(padding);
                let x = (ox * stride + kx).wrapping_sub(padding);
                if y < h && x < w {
                    let pixel = image[((b * channels + c) * h + y) * w + x];
                    sum += pixel * weight[output * channels * kernel * kernel + tap];
                }
            }
            all.push(sum);
        }
    }
    all
}

#[test]
fn images_are_convolved_as_they_come() {
    let mut rng = fastrand::Rng::with_seed(6);
    let types = TYPES.into_iter().flat_map(|(element, tolerance)| {
        let images = if element == Element::F32 { vec![element] } else { vec![element, Element::F32] };
        images.into_iter().map(move |image| (image, element, tolerance))
    });
    for (image_element, element, tolerance) in types {
        for conv in IMAGE_CONVS {
            let ImageConv { batch, channels, size, out, outputs, kernel, .. } = conv;
            let taps = channels * kernel * kernel;
            let mut image =
                Values::random(image_element, batch * channels * size[0] * size[1], 0.3, &mut rng);
            let mut weight = Values::random(element, outputs * taps, 0.0, &mut rng);
            let mut bias = Values::random(element, outputs, 0.5, &mut rng);
            let launch = conv.launch(image_element, element).unwrap().unwrap();
            for biased in [true, false] {
                let known_bias = if biased { bias.get() } else { vec![0.0; outputs] };
                let want = convolved(&conv, &image.get(), &weight.get(), &known_bias);
                let few = Launch { grid: [2, launch.grid[1], 1], ..launch.clone() };
                for launch in [&launch, &few] {
                    let mut got = Values::nan(element, batch * out[0] * out[1] * outputs);
                    let b = given(biased, &mut bias);
                    run(launch, &[image.pointer(), weight.pointer(), b, got.pointer()]);
                    let what = format!("{} {conv:?} {biased}", launch.function);
                    // Up to 48 products are summed.
                    assert_each(&got.get(), &want, tolerance.max(1e-5), &what);
                }
            }
        }
    }
}

#[test]
fn other_convolutions_of_images_are_left_to_others() {
    let conv = IMAGE_CONVS[0];
    let launched = |conv: ImageConv, image| conv.launch(image, Element::F16);
    assert!(launched(conv, Element::F32).is_some());
    assert!(launched(conv, Element::Bf16).is_none(), "halves of another kind");
    assert!(launched(ImageConv { outputs: 36, ..conv }, Element::F16).is_none(), "no whole words");
    assert!(launched(ImageConv { stride: 1, ..conv }, Element::F16).is_none(), "another stride");
    assert!(
        launched(ImageConv { channels: 15, outputs: 96, ..conv }, Element::F16).is_none(),
        "heavy weights"
    );
    assert!(launched(ImageConv { channels: 1, outputs: 1032, ..conv }, Element::F16).is_none(), "wide");
    let [largest, larger] = [4096, 1 << 16].map(|side| {
        let conv = ImageConv { batch: 4096, size: [side; 2], out: [side / 2; 2], outputs: 96, ..conv };
        launched(conv, Element::F32).unwrap()
    });
    assert!(largest.is_ok());
    assert_eq!(larger, Err(nat_cuda::TooLarge));
}

#[test]
fn means_are_over_places() {
    let mut rng = fastrand::Rng::with_seed(4);
    for (element, tolerance) in TYPES {
        for (batch, places, channels) in [(1, 1, 1), (2, 49, 64), (3, 5, 33), (1, 100, 7)] {
            let mut x = Values::random(element, batch * places * channels, 1.0, &mut rng);
            let mut out = Values::nan(element, batch * channels);
            let launch = mean(element, [batch, places, channels]).unwrap();
            run(&launch, &[x.pointer(), out.pointer()]);
            let x = x.get();
            let value = |i: usize| {
                let at = |place| x[(i / channels * places + place) * channels + i % channels];
                (0..places).map(at).sum::<f64>() / places as f64
            };
            let want: Vec<f64> = (0..batch * channels).map(value).collect();
            assert_each(
                &out.get(),
                &want,
                tolerance,
                &format!("{} {batch} {places} {channels}", launch.function),
            );
        }
    }
}

#[test]
fn launches_that_are_too_large_are_errors() {
    assert!(finish(Element::F16, [usize::MAX >> 20, 1024], KernelActivation::None, true).is_err());
    assert!(finish(Element::F16, [1 << 24, 4096], KernelActivation::None, true).is_err());
    assert!(layer_norm(Element::F32, [1 << 24, 1024], 1e-5, true).is_err());
    assert!(finish_norm(Element::F32, [1 << 24, 1024], 1e-5, true).unwrap().is_err());
    let side = 1 << 16;
    let map = Windows {
        batch: 4096,
        size: [side; 2],
        channels: 8,
        out: [side; 2],
        kernel: 3,
        stride: 1,
        padding: 1,
    };
    assert!(map.launch(Element::F16, true).is_ok());
    assert!(Windows { out: [side, side << 8], ..map }.launch(Element::F16, true).is_err());
    assert!(mean(Element::F32, [1, 1 << 31, 32]).is_err());
}
