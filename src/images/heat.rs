//! Maps of one value a position as pictures: grey, and in colours over the image they are about.

use colorous::INFERNO;
use image::{GrayImage, ImageBuffer, Luma, Pixel, Primitive, RgbImage, imageops};
use rayon::prelude::*;

use super::resize::Region;
use crate::layers::resample::{row, taps};

/// The share of values that are not brighter than white: few large ones would leave the others black.
const PERCENTILE: f64 = 0.99;

/// A map, row by row, as bytes: its smallest value is 0, its 99th percentile and all above are 255, as
/// SmoothGrad's pictures have them. A map of one value everywhere is black. NaN counts as the smallest.
pub fn to_bytes(map: &[f32]) -> Vec<u8> {
    shares(map).into_iter().map(|share| (255.0 * share).round() as u8).collect()
}

/// A map as shares of its brightest, 0 to 1.
fn shares(map: &[f32]) -> Vec<f32> {
    let mut numbers: Vec<f32> = map.iter().copied().filter(|value| !value.is_nan()).collect();
    let Some(last) = numbers.len().checked_sub(1) else { return vec![0.0; map.len()] };
    let place = (last as f64 * PERCENTILE).round() as usize;
    let (below, &mut high, _) = numbers.select_nth_unstable_by(place, f32::total_cmp);
    let low = below.iter().copied().fold(high, f32::min);
    let share = |value: f32| if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
    map.iter().map(|&value| if value.is_nan() { 0.0 } else { share(value) }).collect()
}

/// A map of `size`, width and height, as a grey picture, scaled as by [`to_bytes`].
///
/// # Panics
/// When there are not as many values as the size says.
pub fn grey(map: &[f32], size: [usize; 2]) -> GrayImage {
    plane(&to_bytes(map), size)
}

/// Values of a picture of one channel.
fn plane<T: Primitive>(values: &[T], [width, height]: [usize; 2]) -> ImageBuffer<Luma<T>, Vec<T>>
where
    Luma<T>: Pixel<Subpixel = T>,
{
    assert_eq!(values.len(), width * height);
    ImageBuffer::from_fn(width as u32, height as u32, |x, y| Luma([values[y as usize * width + x as usize]]))
}

/// The smallest short side of a picture: below it the map would have more to show than the picture has pixels.
const SHORT_SIDE: u32 = 448;

/// `image` as it is drawn over: small ones enlarged by a whole factor, so that their pixels stay what they are.
pub fn canvas(image: &RgbImage) -> RgbImage {
    let factor = SHORT_SIDE.div_ceil(image.width().min(image.height()).max(1)).clamp(1, SHORT_SIDE);
    // A strip would become endless.
    let factor = factor.min((4 * SHORT_SIDE / image.width().max(image.height()).max(1)).max(1));
    if factor == 1 {
        return image.clone();
    }
    RgbImage::from_fn(factor * image.width(), factor * image.height(), |x, y| {
        *image.get_pixel(x / factor, y / factor)
    })
}

/// How bright the image stays where the map is 0, and beside the map.
const DIM: [f32; 2] = [0.55, 0.25];

/// Deviation of the blur of a map that is drawn, in its pixels: gradients reach the input through convolutions of
/// stride 2, which leave their grid in it.
const BLUR: f32 = 2.0;

/// Draws a map of `size`, of values from 0, over `region` of a picture, which becomes grey: the larger the value
/// the more of its colour, of a palette in which equal steps look equal (inferno). It is smoothed a little and
/// scaled as by [`to_bytes`]. What lies beside the region is darkened.
///
/// # Panics
/// When there are not as many values as the size says, or the region is not inside the picture.
pub fn draw(picture: &mut RgbImage, map: &[f32], [columns, rows]: [usize; 2], region: &Region) {
    let values = shares(imageops::blur(&plane(&shares(map), [columns, rows]), BLUR).as_raw());
    let (across, down) = (taps(columns, region.x.len(), false), taps(rows, region.y.len(), false));
    let palette: Vec<[f32; 3]> = (0..=255)
        .map(|i| INFERNO.eval_rational(i, 256))
        .map(|colour| [colour.r, colour.g, colour.b].map(f32::from))
        .collect();
    let width = picture.width() as usize;
    picture.par_chunks_exact_mut(3 * width).enumerate().for_each(|(y, pixels)| {
        let mut heat = vec![0.0; region.x.len()];
        let inside = region.y.contains(&y);
        if inside {
            let tap = down[y - region.y.start];
            row(tap.at.map(|y| &values[y * columns..][..columns]), tap.part, &across, 1, &mut heat);
        }
        for (x, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            // ITU-R BT.601, as Pillow's grey.
            let [r, g, b] = pixel.map(f32::from);
            let grey = 0.299 * r + 0.587 * g + 0.114 * b;
            let (heat, dim) = match x.checked_sub(region.x.start) {
                Some(x) if inside && x < heat.len() => (heat[x], DIM[0]),
                _ => (0.0, DIM[1]),
            };
            let colour = palette[(255.0 * heat).round() as usize];
            *pixel = colour.map(|colour| (dim * grey * (1.0 - heat) + colour * heat).round() as u8);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_white() {
        let ramp: Vec<f32> = (0..=100).map(|i| i as f32 * 2.0 - 50.0).collect();
        let bytes = to_bytes(&ramp);
        assert_eq!([0, 33, 66, 99, 100].map(|i| bytes[i]), [0, 85, 170, 255, 255]);
        // One pixel of a hundred may be as large as it likes.
        let mut ramp = ramp;
        ramp[100] = 1e9;
        assert_eq!(to_bytes(&ramp), bytes);
        assert_eq!(to_bytes(&[3.0; 4]), [0; 4]);
        assert_eq!(to_bytes(&[f32::NAN, 1.0, 2.0]), [0, 0, 255]);
        assert_eq!(to_bytes(&[f32::NAN]), [0]);
        assert!(to_bytes(&[]).is_empty());
    }

    #[test]
    fn small_pictures_are_enlarged_by_whole_factors() {
        for ([width, height], factor) in
            [([448, 600], 1), ([447, 600], 2), ([28, 28], 16), ([1, 1], 448), ([4, 896], 2), ([9, 3000], 1)]
        {
            let image = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
            let drawn = canvas(&image);
            assert_eq!(drawn.dimensions(), (factor * width, factor * height), "{width}x{height}");
            let last = drawn.get_pixel(factor * width - 1, factor * height - 1);
            assert_eq!(last, image.get_pixel(width - 1, height - 1));
        }
    }

    #[test]
    fn what_is_large_is_yellow_and_what_is_not_seen_is_dark() {
        let mut picture = RgbImage::from_pixel(40, 30, image::Rgb([200, 100, 50]));
        // The right half is large.
        let map: Vec<f32> = (0..40 * 40).map(|i| f32::from(u8::from(i % 40 >= 20))).collect();
        draw(&mut picture, &map, [40, 40], &Region { x: 10..30, y: 0..30 });
        let grey = 0.299 * 200.0 + 0.587 * 100.0 + 0.114 * 50.0;
        let of_grey = |dim: f32| [(dim * grey).round() as u8; 3];
        assert_eq!(picture.get_pixel(12, 15).0, of_grey(DIM[0]));
        let hottest = INFERNO.eval_rational(255, 256);
        assert_eq!(picture.get_pixel(27, 15).0, [hottest.r, hottest.g, hottest.b]);
        // Where the halves meet the map is smooth.
        let reds: Vec<u8> = (14..28).map(|x| picture.get_pixel(x, 15).0[0]).collect();
        let between = reds.iter().filter(|&&red| red != reds[0] && red != hottest.r).count();
        assert!(between >= 3, "{reds:?}");
        for x in [0, 9, 30, 39] {
            assert_eq!(picture.get_pixel(x, 15).0, of_grey(DIM[1]), "column {x}");
        }
    }
}
