//! Maps of one value a position as grey pictures.

use image::{GrayImage, ImageBuffer, Luma, Pixel, Primitive};

/// The share of values that are not brighter than white: few large ones would leave the others black.
const PERCENTILE: f64 = 0.99;

/// A map, row by row, as bytes: its smallest value is 0, its 99th percentile and all above are 255, as
/// SmoothGrad's pictures have them. A map of one value everywhere is black. NaN counts as the smallest.
pub fn to_bytes(map: &[f32]) -> Vec<u8> {
    shares(map).into_iter().map(|share| (255.0 * share).round() as u8).collect()
}

/// A map as shares of its brightest, 0 to 1.
pub(super) fn shares(map: &[f32]) -> Vec<f32> {
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
pub(super) fn plane<T: Primitive>(values: &[T], [width, height]: [usize; 2]) -> ImageBuffer<Luma<T>, Vec<T>>
where
    Luma<T>: Pixel<Subpixel = T>,
{
    assert_eq!(values.len(), width * height);
    ImageBuffer::from_fn(width as u32, height as u32, |x, y| Luma([values[y as usize * width + x as usize]]))
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
}
