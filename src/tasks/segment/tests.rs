//! Values of segmenters with altered recipes.

use std::collections::HashMap;
use std::fs;

use candle_core::safetensors::load_buffer;
use nat_convert::arch::{Head, UpernetWidths};
use nat_convert::checkpoint::{Checkpoint, Options};
use nat_convert::metadata::Metadata;
use nat_convert::recipe::SlidingWindow;
use nat_convert::write::{WriteOptions, write};
use safetensors::SafeTensors;

use super::*;
use crate::tasks::LoadOptions;

type Tensors = HashMap<String, Tensor>;

const WEIGHT: &str = "decode_head.conv_seg.weight";
const BIAS: &str = "decode_head.conv_seg.bias";

fn upernet_b(name: &str) -> std::path::PathBuf {
    nat_testing::golden::path("segment/upernet_b").join(name)
}

fn picture() -> RgbImage {
    image::open(upernet_b("image.png")).unwrap().into_rgb8()
}

/// The golden network, fed with small pictures, altered.
fn altered(alter: impl FnOnce(&mut Metadata, &mut Tensors)) -> Result<Model, TaskError> {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("ours.safetensors");
    let checkpoint = Checkpoint::open(&upernet_b("model.pth"), &Options::default()).unwrap();
    write(&checkpoint, &target, WriteOptions::default(), &false.into()).unwrap();
    let file = fs::read(target).unwrap();
    let map = SafeTensors::read_metadata(&file).unwrap().1.metadata().clone().unwrap();
    let mut metadata = Metadata::from_map(&map.into_iter().collect()).unwrap().unwrap();
    metadata.preprocessing.geometry = Geometry::segmentation([150, 110]);
    metadata.labels = None;
    let mut tensors = load_buffer(&file, &Device::Cpu).unwrap();
    alter(&mut metadata, &mut tensors);
    let map = metadata.to_map().unwrap().into_iter().collect();
    let file = safetensors::serialize(&tensors, Some(map)).unwrap();
    Model::from_bytes("it", file, &LoadOptions::default())
}

fn task(options: &SegmentOptions, alter: impl FnOnce(&mut Metadata, &mut Tensors)) -> Segment {
    Segment::new(altered(alter).unwrap(), options).unwrap()
}

fn set_outputs(metadata: &mut Metadata, outputs: usize) {
    let Head::Upernet(UpernetWidths { classes, .. }) = &mut metadata.architecture.head else { panic!() };
    *classes = outputs;
}

fn network(task: &Segment) -> &dyn Segmenter {
    let Network::Segmenter(network) = &task.model.network else { panic!() };
    &**network
}

fn fitted(task: &Segment) -> Fitted {
    task.fits[0].apply(&picture())
}

/// The picture as the network takes it, [1, 3, H, W].
fn input(task: &Segment) -> Tensor {
    let fitted = fitted(task);
    task.model.stack(&[&fitted.values], fitted.size).unwrap()
}

/// The share of pixels in which two maps of one size differ.
fn differing(a: &LabelMap, b: &LabelMap) -> f64 {
    assert_eq!(a.size, b.size);
    let pairs = a.classes.iter().zip(&b.classes);
    pairs.filter(|(a, b)| a != b).count() as f64 / a.classes.len() as f64
}

/// A map [h, w, C] at another size by the definition of bilinear, in f64.
fn resized(x: &[f64], [h, w, c]: [usize; 3], [height, width]: [usize; 2], align_corners: bool) -> Vec<f64> {
    let place = |i: usize, from: usize, to: usize| match (align_corners, to) {
        (false, _) => ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, (from - 1) as f64),
        (true, 1) => 0.0,
        (true, _) => i as f64 * (from - 1) as f64 / (to - 1) as f64,
    };
    let mut out = Vec::new();
    for i in 0..height * width {
        let (y, x_) = (place(i / width, h, height), place(i % width, w, width));
        let ends = |at: f64, n: usize| {
            let low = at as usize;
            [(low, 1.0 - at.fract()), ((low + 1).min(n - 1), at.fract())]
        };
        for k in 0..c {
            let mut sum = 0.0;
            for (row, a) in ends(y, h) {
                sum +=
                    ends(x_, w).map(|(column, b)| a * b * x[(row * w + column) * c + k]).iter().sum::<f64>();
            }
            out.push(sum);
        }
    }
    out
}

/// The logits of the original picture, [height, width, classes], as mmseg's `slide_inference` makes them.
fn slide(task: &Segment, crop: [usize; 2], stride: [usize; 2], size: [usize; 2], aligned: bool) -> Vec<f64> {
    let images = input(task);
    let (_, _, h, w) = images.dims4().unwrap();
    let classes = task.outputs;
    let (mut sums, mut counts) = (vec![0.0; h * w * classes], vec![0.0; h * w]);
    let grids = |side: usize, axis: usize| {
        (side as i64 - crop[axis] as i64 + stride[axis] as i64 - 1).max(0) as usize / stride[axis] + 1
    };
    for i in 0..grids(h, 0) {
        for j in 0..grids(w, 1) {
            let (y2, x2) = ((i * stride[0] + crop[0]).min(h), (j * stride[1] + crop[1]).min(w));
            let (y1, x1) = (y2.saturating_sub(crop[0]), x2.saturating_sub(crop[1]));
            let part = images.narrow(2, y1, y2 - y1).unwrap().narrow(3, x1, x2 - x1).unwrap();
            let logits = network(task).forward(&part.contiguous().unwrap()).unwrap();
            let (_, lh, lw, _) = logits.dims4().unwrap();
            let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let logits: Vec<f64> = logits.into_iter().map(f64::from).collect();
            let logits = resized(&logits, [lh, lw, classes], [y2 - y1, x2 - x1], aligned);
            for (k, pixel) in logits.chunks_exact(classes).enumerate() {
                let at = (y1 + k / (x2 - x1)) * w + x1 + k % (x2 - x1);
                counts[at] += 1.0;
                sums[at * classes..][..classes].iter_mut().zip(pixel).for_each(|(sum, x)| *sum += x);
            }
        }
    }
    sums.chunks_exact_mut(classes).zip(&counts).for_each(|(s, n)| s.iter_mut().for_each(|x| *x /= n));
    // Without padding.
    let [width, height] = fitted(task).resized;
    let rows = sums.chunks_exact(w * classes).take(height);
    let sums: Vec<f64> = rows.flat_map(|row| &row[..width * classes]).copied().collect();
    resized(&sums, [height, width, classes], [size[1], size[0]], aligned)
}

#[test]
fn windows_give_what_they_give_one_by_one() {
    let image = picture();
    let size = [image.width() as usize, image.height() as usize];
    for (window, align_corners, divisor) in [
        (Some(([64, 48], [40, 48])), false, 1),
        (Some(([64, 48], [40, 30])), true, 32),
        (Some(([200, 64], [150, 21])), true, 1),
        (None, true, 1),
        (None, false, 32),
    ] {
        let task = task(&SegmentOptions::default(), |metadata, _| {
            let recipe = &mut metadata.architecture.recipe.segmenter;
            recipe.window = window.map(|(crop, stride)| SlidingWindow { crop, stride });
            recipe.align_corners = align_corners;
            metadata.preprocessing.geometry =
                Geometry::Scale { scale: [150, 110], divisor, keep_ratio: true };
        });
        let (crop, stride) = window.unwrap_or(([1000; 2], [1000; 2]));
        let naive = slide(&task, crop, stride, size, align_corners);
        let view = task.view(network(&task), &input(&task), fitted(&task).resized, false).unwrap();
        let mut sums = vec![0.0; naive.len()];
        with_all_f32(&view.logits, |logits| {
            let pass = PassRows::new(&view, logits, size, align_corners).unwrap();
            let mut scratch = Scratch::default();
            for (y, sums) in sums.chunks_exact_mut(size[0] * task.outputs).enumerate() {
                pass.add(y, &mut scratch, PixelScores::Logits, sums);
            }
        })
        .unwrap();
        let off = sums.iter().zip(&naive).map(|(x, y)| (f64::from(*x) - y).abs()).fold(0.0, f64::max);
        assert!(off < 1e-3, "{window:?} {align_corners}: {off}");
        let map = task.run(&image).unwrap();
        let sure = |(label, scores): (&u8, &[f64])| {
            scores.iter().all(|score| *score <= scores[usize::from(*label)] + 1e-3)
        };
        assert!(map.classes.iter().zip(naive.chunks_exact(task.outputs)).all(sure), "{window:?}");
    }
}

#[test]
fn padding_stays_where_it_is_in_mirror_images() {
    let options = SegmentOptions { flip: true, ..SegmentOptions::default() };
    let task = task(&options, |metadata, _| {
        metadata.preprocessing.geometry =
            Geometry::Scale { scale: [150, 110], divisor: 32, keep_ratio: true };
    });
    let fitted = fitted(&task);
    assert!(fitted.size[0] > fitted.resized[0] && fitted.size[1] > fitted.resized[1]);
    // Both have the same two views, in another order.
    let straight = task.run(&picture()).unwrap();
    let mut other = task.run(&image::imageops::flip_horizontal(&picture())).unwrap();
    other.classes.chunks_exact_mut(other.size[0]).for_each(<[u8]>::reverse);
    assert!(differing(&straight, &other) < 1e-3, "{}", differing(&straight, &other));
}

#[test]
fn a_window_as_large_as_the_picture_is_the_whole() {
    for (multi_scale, flip) in [(false, false), (true, true)] {
        let options = SegmentOptions { multi_scale, flip, ..SegmentOptions::default() };
        let map = |window: Option<SlidingWindow>| {
            let task = task(&options, |metadata, _| {
                metadata.architecture.recipe.segmenter.window = window;
            });
            task.run(&picture()).unwrap()
        };
        let whole = map(None);
        for side in [300, 8192] {
            assert!(whole == map(Some(SlidingWindow { crop: [side; 2], stride: [side; 2] })));
        }
        let small = map(Some(SlidingWindow { crop: [64; 2], stride: [40; 2] }));
        assert!(differing(&whole, &small) > 0.02, "{}", differing(&whole, &small));
    }
}

#[test]
fn windows_that_leave_parts_out_are_refused() {
    for (crop, stride, fits) in [
        ([64, 32], [64, 32], true),
        ([64, 32], [32, 64], false),
        ([64, 32], [0, 32], false),
        ([0, 32], [0, 32], false),
    ] {
        let model = altered(|metadata, _| {
            metadata.architecture.recipe.segmenter.window = Some(SlidingWindow { crop, stride });
        });
        assert_eq!(model.is_ok(), fits, "{crop:?} {stride:?}");
    }
}

/// Makes the network's first two classes its only ones, about as often, the second one more likely by
/// `favour`; and with one output, of what the second has more than the first.
fn make_two(tensors: &mut Tensors, balance: f64, favour: f64, one: bool) {
    let [weight, bias] = [WEIGHT, BIAS].map(|name| tensors[name].narrow(0, 0, 2).unwrap());
    let shift = Tensor::new(&[0f32, (favour - balance) as f32], &Device::Cpu).unwrap();
    let both = [(WEIGHT, weight), (BIAS, (bias + shift).unwrap())];
    for (name, both) in both {
        let alone = (both.narrow(0, 1, 1).unwrap() - both.narrow(0, 0, 1).unwrap()).unwrap();
        tensors.insert(name.to_owned(), if one { alone } else { both });
    }
}

#[test]
fn one_output_decides_between_two_classes() {
    let plain = task(&SegmentOptions::default(), |_, _| ());
    let logits = network(&plain).forward(&input(&plain)).unwrap();
    let mean = |class| logits.narrow(3, class, 1).unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    let balance = f64::from(mean(1) - mean(0));
    let views = SegmentOptions { multi_scale: true, flip: true, ..SegmentOptions::default() };
    for (threshold, options) in [
        (0.5f64, SegmentOptions::default()),
        (0.3, SegmentOptions::default()),
        (0.8, SegmentOptions::default()),
        (0.5, views),
    ] {
        // p > t where logit(p) > logit(t): the same decision as between two outputs, moved.
        let favour = ((1.0 - threshold) / threshold).ln();
        let two = task(&options, |metadata, tensors| {
            set_outputs(metadata, 2);
            make_two(tensors, balance, favour, false);
        });
        let names = vec!["background".to_owned(), "road".to_owned()];
        let one = task(&options, |metadata, tensors| {
            set_outputs(metadata, 1);
            metadata.labels = Some(names.clone());
            metadata.architecture.recipe.segmenter.threshold = threshold;
            make_two(tensors, balance, 0.0, true);
        });
        assert_eq!((one.labels(), two.labels().len()), (&names[..], 2));
        let (a, b) = (one.run(&picture()).unwrap(), two.run(&picture()).unwrap());
        let off = differing(&a, &b);
        assert!(off < 1e-3, "{threshold}: {off} of the pixels differ");
        let shares = one.shares(&a);
        assert!(shares.len() == 2 && shares[1].fraction > 0.02, "{threshold}: {shares:?}");
    }
    // The published default, where nothing is said.
    let unnamed = task(&SegmentOptions::default(), |metadata, tensors| {
        set_outputs(metadata, 1);
        make_two(tensors, balance, 0.0, true);
    });
    assert_eq!((unnamed.recipe().threshold, unnamed.labels()), (0.3, &["0".to_owned(), "1".to_owned()][..]));
    let wrongly_named = altered(|metadata, tensors| {
        set_outputs(metadata, 1);
        metadata.labels = Some(vec!["road".to_owned()]);
        make_two(tensors, balance, 0.0, true);
    });
    assert!(wrongly_named.unwrap().metadata.labels.is_none());
}

#[test]
fn an_output_that_is_no_number_is_seen() {
    let task = task(&SegmentOptions::default(), |metadata, tensors| {
        set_outputs(metadata, 1);
        make_two(tensors, 0.0, 0.0, true);
        tensors.insert(BIAS.to_owned(), Tensor::new(&[f32::INFINITY], &Device::Cpu).unwrap());
    });
    assert!(matches!(task.run(&picture()), Err(TaskError::NotFinite { .. })));
}

/// Other sides in another order, with the weights that belong to them.
#[test]
fn pooled_maps_have_the_recipes_sides() {
    let plain = task(&SegmentOptions::default(), |_, _| ());
    let images = input(&plain);
    let expected = network(&plain).forward(&images).unwrap();
    let order = [2usize, 0, 3, 1];
    let other = |scales: Vec<usize>| {
        task(&SegmentOptions::default(), |metadata, tensors| {
            metadata.architecture.recipe.segmenter.pool_scales = scales;
            let old = tensors.clone();
            for (to, from) in order.into_iter().enumerate() {
                let [from, to] = [from, to].map(|i| format!("decode_head.psp_modules.{i}."));
                for (name, tensor) in old.iter().filter(|(name, _)| name.starts_with(&from)) {
                    tensors.insert(name.replace(&from, &to), tensor.clone());
                }
            }
            let bottleneck = tensors.get_mut("decode_head.bottleneck.conv.weight").unwrap();
            let channels = bottleneck.dim(0).unwrap();
            let last = bottleneck.dim(1).unwrap() - order.len() * channels;
            let mut parts = vec![bottleneck.narrow(1, 0, last).unwrap()];
            parts.extend(order.map(|i| bottleneck.narrow(1, last + i * channels, channels).unwrap()));
            *bottleneck = Tensor::cat(&parts, 1).unwrap().contiguous().unwrap();
        })
    };
    let off = |scales: Vec<usize>| {
        let logits = network(&other(scales)).forward(&images).unwrap();
        let off = (logits - &expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        off.to_scalar::<f32>().unwrap()
    };
    assert!(off(vec![3, 1, 6, 2]) < 1e-4, "{}", off(vec![3, 1, 6, 2]));
    for others in [vec![1, 2, 3, 6], vec![3, 1, 5, 2]] {
        assert!(off(others.clone()) > 1e-3, "{others:?}");
    }
    // Fewer maps: as if those left out counted nothing.
    let fewer = task(&SegmentOptions::default(), |metadata, tensors| {
        metadata.architecture.recipe.segmenter.pool_scales = vec![1, 2];
        tensors.retain(|name, _| {
            !["2", "3"].iter().any(|i| name.starts_with(&format!("decode_head.psp_modules.{i}.")))
        });
        let bottleneck = tensors.get_mut("decode_head.bottleneck.conv.weight").unwrap();
        let (channels, inputs) = (bottleneck.dim(0).unwrap(), bottleneck.dim(1).unwrap());
        *bottleneck = bottleneck.narrow(1, 0, inputs - 2 * channels).unwrap().contiguous().unwrap();
    });
    let without = task(&SegmentOptions::default(), |_, tensors| {
        let bottleneck = tensors.get_mut("decode_head.bottleneck.conv.weight").unwrap();
        let (channels, inputs) = (bottleneck.dim(0).unwrap(), bottleneck.dim(1).unwrap());
        let kept = bottleneck.narrow(1, 0, inputs - 2 * channels).unwrap();
        let zeros = bottleneck.narrow(1, 0, 2 * channels).unwrap().zeros_like().unwrap();
        *bottleneck = Tensor::cat(&[kept, zeros], 1).unwrap().contiguous().unwrap();
    });
    let [fewer, without] = [fewer, without].map(|task| network(&task).forward(&images).unwrap());
    let off = (fewer - without).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    assert!(off.to_scalar::<f32>().unwrap() < 1e-4, "{off}");
}

#[test]
fn colours_are_the_models_own() {
    let colours = |palette: Option<Vec<[u8; 3]>>| {
        task(&SegmentOptions::default(), |metadata, _| metadata.palette = palette).colours()
    };
    let plain = colours(None);
    let own: Vec<[u8; 3]> = (0..plain.len() as u8).map(|i| [i, 2 * i, 255 - i]).collect();
    assert_eq!(colours(Some(own.clone())), own);
    assert_eq!(colours(Some(own[1..].to_vec())), plain);
}
