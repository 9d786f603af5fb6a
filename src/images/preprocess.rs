//! The classifiers' preprocessing: timm's evaluation transform over Pillow.
//!
//! Short side to floor(resolution / crop_pct) with bicubic antialiasing, centre crop, normalise
//! (timm's `transforms_imagenet_eval` with `crop_mode="center"`).

use std::fmt;

use image::RgbImage;
use nat_convert::arch::Preprocessing;

use super::resize::{Filter, Region, resize};

/// Resize, centre crop and normalisation, for one resolution.
#[derive(Clone, Debug)]
pub struct CenterCrop {
    /// Side of the square crop.
    resolution: usize,
    /// The short side after the resize.
    short_side: usize,
    /// The normalised value of each byte, channel by channel.
    values: [[f32; 256]; 3],
}

/// Numbers that make no preprocessing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CropError {
    /// Nothing, or more than [`MAX_SIDE`], would remain.
    #[error("resolution {0} is not from 1 to {MAX_SIDE} pixels")]
    Resolution(usize),
    /// The crop would be larger than the image, or the image larger than [`MAX_SIDE`].
    #[error("crop_pct {0} is not more than 0 and at most 1, or too small for the resolution")]
    CropPct(f64),
}

/// The largest side that an image is resized to.
pub const MAX_SIDE: usize = 1 << 13;

impl CenterCrop {
    /// A crop of `resolution` pixels a side out of an image whose short side becomes
    /// floor(resolution / crop_pct), normalised with the mean and standard deviation of `of`.
    ///
    /// # Errors
    /// [`CropError`] when the numbers are out of range.
    pub fn new(resolution: usize, crop_pct: f64, of: &Preprocessing) -> Result<Self, CropError> {
        if !(1..=MAX_SIDE).contains(&resolution) {
            return Err(CropError::Resolution(resolution));
        }
        let short_side = (resolution as f64 / crop_pct).floor();
        if !(crop_pct > 0.0 && crop_pct <= 1.0 && short_side <= MAX_SIDE as f64) {
            return Err(CropError::CropPct(crop_pct));
        }
        // In f32 and in this order, as torch does it.
        let value = |c: usize, byte: usize| (byte as f32 / 255.0 - of.mean[c] as f32) / of.std[c] as f32;
        let values = std::array::from_fn(|c| std::array::from_fn(|byte| value(c, byte)));
        Ok(Self { resolution, short_side: short_side as usize, values })
    }

    /// Side of the square input in pixels.
    pub fn resolution(&self) -> usize {
        self.resolution
    }

    /// The network's input of one image: [3, resolution, resolution].
    ///
    /// # Panics
    /// When the image has no pixels.
    pub fn apply(&self, image: &RgbImage) -> Vec<f32> {
        let cropped = self.crop(image);
        let plane =
            |c: usize| cropped.as_raw().iter().skip(c).step_by(3).map(move |&b| self.values[c][b as usize]);
        let mut out = Vec::with_capacity(cropped.as_raw().len());
        (0..3).for_each(|c| out.extend(plane(c)));
        out
    }

    /// The 8-bit crop before normalisation.
    fn crop(&self, image: &RgbImage) -> RgbImage {
        let [width, height] = [image.width() as usize, image.height() as usize];
        let short = width.min(height);
        // torchvision: int(size * long / short).
        let scaled = |side: usize| (self.short_side * side) / short;
        let size = [scaled(width), scaled(height)];
        let [x, y] = size.map(|side| {
            let offset = ((side - self.resolution) as f64 / 2.0).round_ties_even() as usize;
            offset..offset + self.resolution
        });
        resize(image, size, Filter::Bicubic, Region { x, y })
    }
}

impl fmt::Display for CenterCrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resolution, short_side, .. } = self;
        write!(f, "short side to {short_side}, centre crop of {resolution}x{resolution}")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nat_convert::arch::Geometry;
    use safetensors::SafeTensors;

    use super::*;

    fn imagenet(resolution: usize, crop_pct: f64) -> Result<CenterCrop, CropError> {
        CenterCrop::new(
            resolution,
            crop_pct,
            &Preprocessing::imagenet(Geometry::Crop { resolution, crop_pct }),
        )
    }

    /// The inputs that PyTorch was fed, all of them lossless images.
    #[test]
    fn inputs_are_timms() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let classify = std::fs::read_dir(golden.join("classify")).unwrap();
        let transformers = std::fs::read_dir(golden.join("transformers")).unwrap();
        let mut cases = 0;
        for path in classify.chain(transformers).map(|e| e.unwrap().path()) {
            let json = if path.is_dir() { path.join("golden.json") } else { path };
            if json.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let case: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
            let answers = std::fs::read(json.with_extension("safetensors")).unwrap();
            let answers = SafeTensors::deserialize(&answers).unwrap();
            let expected = answers.tensor("input").unwrap();
            let resolution = case["resolution"].as_u64().unwrap() as usize;
            assert_eq!(expected.shape(), [1, 3, resolution, resolution]);

            let image = golden.join("images").join(case["image"].as_str().unwrap());
            let image = crate::images::Reader::default().file(&image).unwrap();
            let crop = imagenet(resolution, case["crop_pct"].as_f64().unwrap()).unwrap();
            let input = crop.apply(&image);
            let (numbers, _) = expected.data().as_chunks::<4>();
            assert_eq!(input.len(), numbers.len());
            let largest = input
                .iter()
                .zip(numbers)
                .map(|(x, bytes)| (x - f32::from_le_bytes(*bytes)).abs())
                .fold(0.0, f32::max);
            assert!(largest <= 1e-6, "{}: off by {largest}", json.display());
            cases += 1;
        }
        assert!(cases >= 8, "{cases}");
    }

    #[test]
    fn crops_are_centred_with_halves_to_even() {
        // Red counts columns, green counts rows; the short side keeps its size.
        let numbered = |w, h| RgbImage::from_fn(w, h, |x, y| image::Rgb([x as u8, y as u8, 0]));
        for (width, height, resolution, first) in [
            (32, 32, 28, [2, 2]),
            (33, 32, 28, [2, 2]), // (33 - 28) / 2 = 2.5
            (35, 32, 28, [4, 2]), // 3.5
            (32, 39, 28, [2, 6]), // 5.5
        ] {
            let crop = imagenet(resolution, 0.875).unwrap();
            let out = crop.crop(&numbered(width, height));
            assert_eq!(out.dimensions(), (28, 28));
            assert_eq!(out.get_pixel(0, 0).0[..2], first, "{width}x{height}");
        }
    }

    #[test]
    fn extreme_shapes_cost_no_more_than_their_crop() {
        let crop = imagenet(224, 0.875).unwrap();
        for [width, height] in [[1, 200_000], [200_000, 1], [1, 1]] {
            let image = RgbImage::from_pixel(width, height, image::Rgb([255; 3]));
            let input = crop.apply(&image);
            assert_eq!(input.len(), 3 * 224 * 224);
            assert!((input[0] - (1.0 - 0.485) / 0.229).abs() < 1e-6);
        }
    }

    #[test]
    fn impossible_numbers_are_errors() {
        for (resolution, crop_pct) in [(0, 0.875), (MAX_SIDE + 1, 1.0)] {
            assert_eq!(imagenet(resolution, crop_pct).unwrap_err(), CropError::Resolution(resolution));
        }
        for crop_pct in [0.0, -0.5, 1.01, 1e-9, f64::INFINITY] {
            assert_eq!(imagenet(224, crop_pct).unwrap_err(), CropError::CropPct(crop_pct));
        }
        assert!(imagenet(224, f64::NAN).is_err());
    }
}
