//! What an image costs before the network sees it: decoding, and each task's resize.

// criterion_group! writes a public function without a comment.
#![allow(missing_docs)]

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use image::DynamicImage;
use image::imageops::FilterType;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use nat_convert::arch::{Geometry, Preprocessing};
use nat_infer::images::{CenterCrop, KeepRatio, Reader, RgbImage};
use rayon::prelude::*;

/// A photograph with these sides and a camera's noise.
fn photograph(width: u32, height: u32) -> RgbImage {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images/chelsea.png");
    let mut image = image::open(path).expect("a golden image").into_rgb8();
    image = image::imageops::resize(&image, width, height, FilterType::CatmullRom);
    let mut rng = fastrand::Rng::with_seed(0);
    image.iter_mut().for_each(|byte| *byte = byte.saturating_add(rng.u8(0..24)));
    image
}

fn encoded(image: &RgbImage, sampling: SamplingFactor, progressive: bool) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, 90);
    encoder.set_sampling_factor(sampling);
    encoder.set_progressive(progressive);
    let (width, height) = (image.width() as u16, image.height() as u16);
    encoder.encode(image, width, height, ColorType::Rgb).expect("a JPEG");
    jpeg
}

fn images(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("images");
    group.sample_size(20);
    for (width, height) in [(4000, 3000), (500, 375)] {
        let image = photograph(width, height);
        let size = format!("{width}x{height}");
        let reader = Reader::default();
        for (kind, sampling, progressive) in [
            ("4:2:0", SamplingFactor::F_2_2, false),
            ("4:4:4", SamplingFactor::F_1_1, false),
            ("4:2:0 progressive", SamplingFactor::F_2_2, true),
        ] {
            let jpeg = encoded(&image, sampling, progressive);
            let name = format!("decode JPEG {kind} {size}");
            group.bench_function(&name, |b| b.iter(|| reader.bytes("bench", black_box(&jpeg))));
            // The decoder of the `image` crate, whose pixels are not libjpeg-turbo's.
            group.bench_function(format!("{name} by zune-jpeg"), |b| {
                b.iter(|| image::load_from_memory(black_box(&jpeg)).map(DynamicImage::into_rgb8));
            });
            // What reading costs where there is nothing else to do: a thread for each core, as in a long run.
            let all = vec![&jpeg; 4 * rayon::current_num_threads()];
            group.throughput(Throughput::Elements(all.len() as u64));
            group.bench_function(format!("{name} on all cores"), |b| {
                b.iter(|| all.par_iter().map(|jpeg| reader.bytes("bench", jpeg)).collect::<Vec<_>>());
            });
            group.throughput(Throughput::Elements(1));
        }
        for resolution in [96, 224] {
            let geometry = Geometry::Crop { resolution, crop_pct: 0.875 };
            let crop =
                CenterCrop::new(resolution, 0.875, &Preprocessing::imagenet(geometry)).expect("a crop");
            group.bench_function(format!("crop {size} to {resolution}"), |b| {
                b.iter(|| crop.apply(black_box(&image)));
            });
        }
        let geometry = Geometry::detection([1333, 800]);
        let fit = KeepRatio::new([1333, 800], 32, &Preprocessing::imagenet(geometry)).expect("a scale");
        group
            .bench_function(format!("fit {size} into 1333x800"), |b| b.iter(|| fit.apply(black_box(&image))));
    }
    group.finish();
}

criterion_group!(benches, images);
criterion_main!(benches);
