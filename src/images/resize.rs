//! Pillow's antialiased resize, to the bit: the published accuracies were measured through it.
//!
//! Two passes of fixed-point weights with an 8-bit image between them, after `Resample.c` of Pillow
//! 13.0. Only the part of the result that is asked for is computed, so a crop costs its own size.

use std::f64::consts::PI;
use std::ops::{Deref, Range};

use image::RgbImage;
pub use nat_convert::arch::Filter;
use rayon::prelude::*;

use super::pixels::RgbPixels;
use crate::simd::{Isa, Kernel, Simd};

/// How far a filter reaches, in input pixels where nothing is lost.
fn support(filter: Filter) -> f64 {
    match filter {
        Filter::Nearest => 0.0,
        Filter::Box => 0.5,
        Filter::Bilinear | Filter::Hamming => 1.0,
        Filter::Bicubic => 2.0,
        Filter::Lanczos => 3.0,
    }
}

/// A filter's weight at a distance. The terms are in Pillow's order: another order rounds differently.
fn weight(filter: Filter, x: f64) -> f64 {
    // Keys' cubic.
    const A: f64 = -0.5;
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
    let distance = x.abs();
    match filter {
        Filter::Box if x > -0.5 && x <= 0.5 => 1.0,
        Filter::Bilinear if distance < 1.0 => 1.0 - distance,
        Filter::Hamming if x == 0.0 => 1.0,
        // The constants are floats there.
        Filter::Hamming if distance < 1.0 => {
            let x = distance * PI;
            x.sin() / x * (f64::from(0.54_f32) + f64::from(0.46_f32) * x.cos())
        }
        Filter::Bicubic if distance < 1.0 => ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0,
        Filter::Bicubic if distance < 2.0 => (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A,
        Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
        _ => 0.0,
    }
}

/// A rectangle of pixels, its ends exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Columns.
    pub x: Range<usize>,
    /// Rows.
    pub y: Range<usize>,
}

/// `region` of `image` resized to `width` x `height` pixels: the bytes of Pillow 13's
/// `image.resize((width, height), filter).crop(region)`.
///
/// An image that loses more than twice as many rows as columns is resized vertically first, as Pillow
/// 13 does (10.4 did not, and differs there by up to 5 levels).
///
/// # Panics
/// When `region` is empty or not inside the resized image, or `image` is empty.
pub fn resize<P: Deref<Target = [u8]>>(
    image: &RgbPixels<P>,
    [width, height]: [usize; 2],
    filter: Filter,
    region: Region,
) -> RgbImage {
    let (in_width, in_height) = (image.width() as usize, image.height() as usize);
    assert!(in_width > 0 && in_height > 0, "an empty image can't be resized");
    assert!(!region.x.is_empty() && region.x.end <= width, "columns {:?} of {width}", region.x);
    assert!(!region.y.is_empty() && region.y.end <= height, "rows {:?} of {height}", region.y);
    if filter == Filter::Nearest {
        return nearest(image, [width, height], region);
    }
    // Every output pixel of a side that keeps its size is its own only tap, of weight exactly 1: the
    // pass that Pillow leaves out changes nothing here either.
    let columns = Taps::new(in_width, width, filter, region.x.clone());
    let rows = Taps::new(in_height, height, filter, region.y.clone());
    let source = Plane { bytes: image.as_raw(), width: in_width };
    let lost_rows = in_height as i64 - height as i64;
    let lost_columns = in_width as i64 - width as i64;
    let bytes = if lost_rows > 0 && lost_rows > 2 * lost_columns {
        let between = vertical(source, &rows, columns.extent());
        let width = columns.extent().len();
        horizontal(Plane { bytes: &between, width }, &columns.shifted(), 0..region.y.len())
    } else {
        let between = horizontal(source, &columns, rows.extent());
        let width = region.x.len();
        vertical(Plane { bytes: &between, width }, &rows.shifted(), 0..width)
    };
    RgbImage::from_raw(region.x.len() as u32, region.y.len() as u32, bytes)
        .unwrap_or_else(|| unreachable!("the passes return three bytes for each pixel of the region"))
}

/// As [`resize`], each pixel one of the image's. Pillow adds up where it looks, and so rounds.
fn nearest<P: Deref<Target = [u8]>>(
    image: &RgbPixels<P>,
    [width, height]: [usize; 2],
    region: Region,
) -> RgbImage {
    let places = |input: u32, output: usize, wanted: Range<usize>| {
        let step = f64::from(input) / output as f64;
        let places = std::iter::successors(Some(step * 0.5), move |place| Some(place + step));
        places.map(move |place| (place as u32).min(input - 1)).take(wanted.end).skip(wanted.start)
    };
    let columns: Vec<u32> = places(image.width(), width, region.x.clone()).collect();
    let rows = places(image.height(), height, region.y.clone());
    let pixels = rows.flat_map(|y| columns.iter().flat_map(move |&x| image.get_pixel(x, y).0));
    RgbImage::from_raw(region.x.len() as u32, region.y.len() as u32, pixels.collect())
        .unwrap_or_else(|| unreachable!("three bytes were taken for each pixel of the region"))
}

/// Rows of RGB bytes.
#[derive(Clone, Copy)]
struct Plane<'a> {
    bytes: &'a [u8],
    width: usize,
}

impl<'a> Plane<'a> {
    fn row(self, y: usize) -> &'a [u8] {
        &self.bytes[y * self.width * 3..][..self.width * 3]
    }
}

/// Bits behind the point of a weight: 32, less 8 for the pixel, less 2 for partial sums, which the
/// negative lobes of a filter make larger than the whole.
const FRACTION: u32 = 22;
/// One half, so that the shift rounds.
const HALF: i32 = 1 << (FRACTION - 1);

/// For each output position, which input positions it is made of and in which parts.
struct Taps {
    /// First input position of each output position.
    first: Vec<usize>,
    /// Weights of each output position, with [`FRACTION`] fractional bits.
    weights: Vec<Vec<i32>>,
}

impl Taps {
    /// Taps of the positions `wanted` of a side of `input` pixels resized to `output`.
    fn new(input: usize, output: usize, filter: Filter, wanted: Range<usize>) -> Self {
        let scale = input as f64 / output as f64;
        let filter_scale = scale.max(1.0);
        let support = support(filter) * filter_scale;
        let (first, weights) = wanted
            .map(|position| {
                let center = (position as f64 + 0.5) * scale;
                // `as` truncates and sends what is negative to 0.
                let first = (center - support + 0.5) as usize;
                let end = ((center + support + 0.5) as usize).min(input);
                let at = |i| weight(filter, (i as f64 - center + 0.5) * (1.0 / filter_scale));
                let weights: Vec<f64> = (first..end).map(at).collect();
                let sum: f64 = weights.iter().sum();
                let fixed = |w: &f64| (w / sum * f64::from(1 << FRACTION)).round() as i32;
                (first, weights.iter().map(fixed).collect())
            })
            .unzip();
        Self { first, weights }
    }

    /// The input positions that take part in any output position.
    fn extent(&self) -> Range<usize> {
        let ends = self.first.iter().zip(&self.weights).map(|(first, weights)| first + weights.len());
        self.first[0]..ends.max().unwrap_or(0)
    }

    /// The same taps of an input that begins where [`Taps::extent`] does.
    fn shifted(mut self) -> Self {
        let start = self.extent().start;
        self.first.iter_mut().for_each(|first| *first -= start);
        self
    }

    fn split(&self) -> Vec<SplitTaps> {
        self.first.iter().zip(&self.weights).map(|(&first, weights)| SplitTaps::new(first, weights)).collect()
    }
}

/// The sum of a pixel's weighted taps, back to 8 bits.
#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> FRACTION).clamp(0, 255) as u8
}

/// Rows `rows` of `source`, each resized: [rows, taps, 3].
fn horizontal(source: Plane, taps: &Taps, rows: Range<usize>) -> Vec<u8> {
    let width = 3 * taps.first.len();
    let mut out = vec![0; width * rows.len()];
    let (split, extent) = (taps.split(), taps.extent());
    out.par_chunks_mut(width * STRIP).enumerate().for_each_init(Vec::new, |planes, (i, out)| {
        let start = rows.start + i * STRIP;
        // With those that come next, to ask for them early.
        let rows: Vec<&[u8]> = (start..rows.end.min(start + STRIP + TOGETHER))
            .map(|y| &source.row(y)[3 * extent.start..3 * extent.end])
            .collect();
        Isa::best().run(HorizontalStrip { rows: &rows, taps: &split, start: extent.start, planes, out });
    });
    out
}

/// Rows that the horizontal pass takes up at once.
const STRIP: usize = 16;
/// Rows that a weight is multiplied with once it is loaded.
const TOGETHER: usize = 4;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The taps of an output position as [`Simd::weighted_sums`] takes them.
struct SplitTaps {
    first: usize,
    /// Weights without their low eight bits, and these; filled up with zeros.
    high: Vec<i16>,
    low: Vec<i16>,
}

impl SplitTaps {
    /// Weights come in so many.
    const UNIT: usize = 16;

    fn new(first: usize, weights: &[i32]) -> Self {
        // A weight is hardly more than 1, which is 2^14 without its low bits.
        let parts = weights.iter().map(|weight| ((weight >> 8) as i16, (weight & 0xFF) as i16));
        let (mut high, mut low): (Vec<i16>, Vec<i16>) = parts.unzip();
        let length = weights.len().next_multiple_of(Self::UNIT);
        high.resize(length, 0);
        low.resize(length, 0);
        Self { first, high, low }
    }
}

/// The horizontal pass over up to [`STRIP`] rows, each of them first a plane of 16-bit numbers for each colour.
struct HorizontalStrip<'a> {
    /// The part of each row that [`Taps::extent`] covers, and of the rows after these.
    rows: &'a [&'a [u8]],
    taps: &'a [SplitTaps],
    /// Where that part begins.
    start: usize,
    planes: &'a mut Vec<i16>,
    out: &'a mut [u8],
}

impl Kernel for HorizontalStrip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { rows, taps, start, planes, out } = self;
        let (width, length) = (3 * taps.len(), rows[0].len() / 3);
        // Weights that fill up may reach beyond the last pixel.
        let plane = length + SplitTaps::UNIT;
        planes.resize(TOGETHER * 3 * plane, 0);
        // Whole cache lines of a row, and how many of them are asked for while an output position is computed.
        let lines = 3 * length / LINE;
        let lines_each = lines.div_ceil(taps.len());
        for (group, out) in out.chunks_mut(TOGETHER * width).enumerate() {
            let (rows, next) = rows[group * TOGETHER..].split_at(out.len() / width);
            let next = &next[..next.len().min(TOGETHER)];
            for (row, planes) in rows.iter().zip(planes.chunks_exact_mut(3 * plane)) {
                let (red, rest) = planes.split_at_mut(plane);
                let (green, blue) = rest.split_at_mut(plane);
                let colours = red.iter_mut().zip(green).zip(blue);
                for (pixel, ((red, green), blue)) in row.chunks_exact(3).zip(colours) {
                    (*red, *green, *blue) = (pixel[0].into(), pixel[1].into(), pixel[2].into());
                }
            }
            for (x, SplitTaps { first, high, low }) in taps.iter().enumerate() {
                // A photograph was just decoded and lies far from the processor.
                for row in next {
                    for line in (x * lines_each).min(lines)..((x + 1) * lines_each).min(lines) {
                        simd.prefetch(row[line * LINE..].as_ptr().cast());
                    }
                }
                for c in 0..3 {
                    let sums = simd.weighted_sums(&planes[c * plane + first - start..], 3 * plane, high, low);
                    for (row, sum) in out.chunks_exact_mut(width).zip(sums) {
                        row[3 * x + c] = clip(HALF.wrapping_add(sum));
                    }
                }
            }
        }
    }
}

/// Columns `columns` of `source`, each resized: [taps, columns, 3].
fn vertical(source: Plane, taps: &Taps, columns: Range<usize>) -> Vec<u8> {
    let bytes = 3 * columns.start..3 * columns.end;
    let mut out = vec![0; bytes.len() * taps.first.len()];
    let jobs = out.par_chunks_mut(bytes.len()).zip(&taps.first).zip(&taps.weights);
    jobs.for_each_init(Vec::new, |sums, ((out, &first), weights)| {
        Isa::best().run(VerticalRow { source, first, weights, bytes: bytes.clone(), sums, out });
    });
    out
}

/// One row of the vertical pass.
struct VerticalRow<'a> {
    source: Plane<'a>,
    first: usize,
    weights: &'a [i32],
    bytes: Range<usize>,
    sums: &'a mut Vec<i32>,
    out: &'a mut [u8],
}

impl Kernel for VerticalRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { source, first, weights, bytes, sums, out } = self;
        sums.clear();
        sums.resize(bytes.len(), HALF);
        for (y, &weight) in (first..).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(&source.row(y)[bytes.clone()]) {
                *sum += i32::from(value) * weight;
            }
        }
        for (out, &sum) in out.iter_mut().zip(sums.iter()) {
            *out = clip(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nat_testing::golden;

    use super::*;

    fn open(path: &Path) -> RgbImage {
        image::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into_rgb8()
    }

    fn whole([width, height]: [usize; 2]) -> Region {
        Region { x: 0..width, y: 0..height }
    }

    /// The file names say what was done: see tests/golden/pillow/make.py.
    #[test]
    fn every_byte_is_pillows() {
        let mut cases = 0;
        for entry in std::fs::read_dir(golden::path("pillow/resize")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let [image, x, y, size, filter] = name.split(',').collect::<Vec<_>>().try_into().unwrap();
            let numbers =
                |text: &str| text.split(['-', 'x']).map(|n| n.parse().unwrap()).collect::<Vec<u32>>();
            let (x, y, size) = (numbers(x), numbers(y), numbers(size));
            let source = open(&golden::path(format!("images/{image}.png")));
            let source = image::imageops::crop_imm(&source, x[0], y[0], x[1] - x[0], y[1] - y[0]).to_image();
            let filter = Filter::named(filter).unwrap();
            let size = [size[0] as usize, size[1] as usize];
            let out = resize(&source, size, filter, whole(size));
            assert!(out == open(&path), "{name} differs");
            cases += 1;
        }
        assert!(cases >= 72, "{cases}");
    }

    #[test]
    fn a_region_is_a_crop_of_the_whole() {
        let source = open(&golden::path("images/rocket.png"));
        // The last loses many rows, the others are horizontal first.
        for size in [[100, 67], [600, 400], [420, 40]] {
            let all = resize(&source, size, Filter::Bicubic, whole(size));
            for (x, y) in [(0..1, 0..1), (13..77, 5..38), (size[0] - 3..size[0], size[1] - 2..size[1])] {
                let part = resize(&source, size, Filter::Bicubic, Region { x: x.clone(), y: y.clone() });
                let [w, h] = [x.len() as u32, y.len() as u32];
                let crop = image::imageops::crop_imm(&all, x.start as u32, y.start as u32, w, h).to_image();
                assert!(part == crop, "{size:?} {x:?} {y:?}");
            }
        }
    }

    #[test]
    fn extremes_stay_in_range() {
        // Overshoots of the cubic at a hard edge are clipped; constants stay what they are.
        let edge = RgbImage::from_fn(40, 40, |x, _| image::Rgb([if x < 20 { 0 } else { 255 }; 3]));
        let out = resize(&edge, [160, 160], Filter::Bicubic, whole([160, 160]));
        assert_eq!((out.get_pixel(70, 9).0, out.get_pixel(90, 9).0), ([0; 3], [255; 3]));
        for value in [0, 1, 127, 254, 255] {
            let flat = RgbImage::from_pixel(301, 77, image::Rgb([value; 3]));
            let out = resize(&flat, [64, 99], Filter::Bicubic, whole([64, 99]));
            assert!(out.as_raw().iter().all(|&b| b == value), "{value}");
        }
    }
}
