//! OpenCV's bilinear resize of 8-bit images, equal to the bit (`cv2.resize` with `INTER_LINEAR`, OpenCV 4.8):
//! half-pixel centres, no antialiasing, weights of 11 bits.

use std::ops::Deref;

use image::RgbImage;
use rayon::prelude::*;

use super::pixels::RgbPixels;

/// One of the weights that are spread over two pixels: 1 is 2048.
const ONE: f32 = 2048.0;

/// The two source pixels of an output pixel on one axis, and their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PixelPair {
    at: [usize; 2],
    weights: [i32; 2],
}

/// The taps of every output position. At the ends a column takes the outermost pixel alone; a row
/// keeps its weights and takes that pixel twice, which rounds differently.
fn taps(from: usize, to: usize, columns: bool) -> Vec<PixelPair> {
    let scale = 1.0 / (to as f64 / from as f64);
    let last = from as i64 - 1;
    let tap = |d: usize| {
        let place = ((d as f64 + 0.5) * scale - 0.5) as f32;
        let (mut first, mut part) = (place.floor() as i64, place - place.floor());
        if columns && !(0..last).contains(&first) {
            (first, part) = (first.clamp(0, last), 0.0);
        }
        let weight = |part: f32| (part * ONE).round_ties_even() as i32;
        let at = [first, first + 1].map(|at| at.clamp(0, last) as usize);
        PixelPair { at, weights: [weight(1.0 - part), weight(part)] }
    };
    (0..to).map(tap).collect()
}

/// `image` at `size` (width, height).
///
/// # Panics
/// When either has no pixels, or `size` does not fit into an image.
pub fn resize<P: Deref<Target = [u8]>>(image: &RgbPixels<P>, size: [usize; 2]) -> RgbImage {
    let [width, height] = size;
    let from = [image.width() as usize, image.height() as usize];
    assert!(width > 0 && height > 0 && from[0] > 0 && from[1] > 0);
    let (columns, rows) = (taps(from[0], width, true), taps(from[1], height, false));
    let pixels: &[u8] = image.as_raw();
    let mut out = vec![0; width * height * 3];
    out.par_chunks_exact_mut(width * 3).zip(&rows).for_each(|(out, row)| {
        let [above, below] = row.at.map(|y| &pixels[y * from[0] * 3..][..from[0] * 3]);
        for (out, column) in out.chunks_exact_mut(3).zip(&columns) {
            let [left, right] = column.at.map(|x| x * 3);
            for (c, out) in out.iter_mut().enumerate() {
                let across = |line: &[u8]| {
                    column.weights[0] * i32::from(line[left + c])
                        + column.weights[1] * i32::from(line[right + c])
                };
                let part = |weight: i32, line: &[u8]| (weight * (across(line) >> 4)) >> 16;
                let sum = part(row.weights[0], above) + part(row.weights[1], below);
                *out = ((sum + 2) >> 2) as u8;
            }
        }
    });
    RgbImage::from_raw(width as u32, height as u32, out).expect("three bytes per pixel")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pictures that OpenMMLab's pipelines made, detection's and segmentation's.
    #[test]
    fn pictures_are_opencvs_to_the_byte() {
        let golden = nat_testing::golden::path("");
        let mut cases = 0;
        for task in ["detect", "segment"] {
            for folder in std::fs::read_dir(golden.join(task)).unwrap().map(|e| e.unwrap().path()) {
                if !folder.join("resized.png").exists() {
                    continue;
                }
                let read = |name| crate::images::Reader::default().file(&folder.join(name)).unwrap();
                let (image, expected) = (read("image.png"), read("resized.png"));
                let size = [expected.width() as usize, expected.height() as usize];
                assert!(resize(&image, size) == expected, "{}", folder.display());
                cases += 1;
            }
        }
        assert!(cases >= 2, "{cases}");
    }

    #[test]
    fn the_same_size_changes_nothing_and_flat_stays_flat() {
        let image = RgbImage::from_fn(9, 5, |x, y| image::Rgb([(x * 28) as u8, (y * 60) as u8, 255]));
        assert_eq!(resize(&image, [9, 5]), image);
        for size in [[1, 1], [3, 40], [200, 2]] {
            let flat = RgbImage::from_pixel(7, 11, image::Rgb([0, 129, 255]));
            assert!(resize(&flat, size).pixels().all(|p| p.0 == [0, 129, 255]), "{size:?}");
        }
    }
}
