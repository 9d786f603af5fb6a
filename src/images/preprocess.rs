//! From pictures to inputs: for classifiers timm's evaluation transform over Pillow, for detectors and
//! segmenters mmcv's over OpenCV.
//!
//! timm: short side to floor(resolution / crop_pct) with bicubic antialiasing, centre crop, normalise
//! (`transforms_imagenet_eval` with `crop_mode="center"`). mmcv: keep the ratio, fit into two bounds,
//! normalise, pad (`Resize`, `Normalize` and `Pad` of the published configurations).

use std::fmt;
use std::ops::{Deref, Range};

use image::RgbImage;
use nat_convert::arch::{Geometry, Preprocessing};

use super::opencv;
use super::pixels::RgbPixels;
use super::resize::{Filter, Region, resize};

/// Resize, centre crop and normalisation, for one resolution.
#[derive(Clone, Debug)]
pub struct CenterCrop {
    /// Side of the square crop.
    resolution: usize,
    crop_pct: f64,
    /// The short side after the resize.
    short_side: usize,
    filter: Filter,
    bgr: bool,
    /// The normalised value of each byte, channel by channel.
    values: [[f32; 256]; 3],
}

/// Numbers that make no preprocessing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CropError {
    /// Nothing, or more than [`MAX_SIDE`], would remain.
    #[error("resolution {0} is not from 1 to {MAX_SIDE} pixels")]
    Resolution(usize),
    /// The crop would be larger than the image, or the image larger than [`MAX_SIDE`].
    #[error("crop_pct {0} is not more than 0 and at most 1, or too small for the resolution")]
    CropPct(f64),
}

/// The largest side that an image is resized to.
pub use nat_convert::arch::MAX_SIDE;

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
        let &Preprocessing { filter, bgr, .. } = of;
        Ok(Self { resolution, crop_pct, short_side: short_side as usize, filter, bgr, values })
    }

    /// Side of the square input in pixels.
    pub fn resolution(&self) -> usize {
        self.resolution
    }

    /// Share of the resized short side that the crop keeps.
    pub fn crop_pct(&self) -> f64 {
        self.crop_pct
    }

    /// The network's input of one image: [3, resolution, resolution].
    ///
    /// # Panics
    /// When the image has no pixels.
    pub fn apply<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> Vec<f32> {
        let cropped = self.crop(image);
        let plane = |c: usize| {
            let bytes = cropped.as_raw().iter().skip(channel(c, self.bgr)).step_by(3);
            bytes.map(move |&byte| self.values[c][byte as usize])
        };
        let mut out = Vec::with_capacity(cropped.as_raw().len());
        (0..3).for_each(|c| out.extend(plane(c)));
        out
    }

    /// The 8-bit crop before normalisation.
    fn crop<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> RgbImage {
        let (size, region) = self.plan([image.width() as usize, image.height() as usize]);
        resize(image, size, self.filter, region)
    }

    /// The pixels of a picture of this size, width and height, that the crop is made of, at least one.
    ///
    /// # Panics
    /// When the picture has no pixels.
    pub fn region(&self, picture: [usize; 2]) -> Region {
        let (size, Region { x, y }) = self.plan(picture);
        let in_picture = |range: Range<usize>, axis: usize| {
            let place = |at: usize| (at as f64 / size[axis] as f64 * picture[axis] as f64).round() as usize;
            let start = place(range.start).min(picture[axis] - 1);
            start..place(range.end).max(start + 1)
        };
        Region { x: in_picture(x, 0), y: in_picture(y, 1) }
    }

    /// The size that a picture is resized to, and which part of that is cropped.
    fn plan(&self, [width, height]: [usize; 2]) -> ([usize; 2], Region) {
        let short = width.min(height);
        // torchvision: int(size * long / short).
        let size = [width, height].map(|side| (self.short_side * side) / short);
        let [x, y] = size.map(|side| {
            let offset = ((side - self.resolution) as f64 / 2.0).round_ties_even() as usize;
            offset..offset + self.resolution
        });
        (size, Region { x, y })
    }
}

impl fmt::Display for CenterCrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resolution, short_side, filter, .. } = self;
        write!(f, "short side to {short_side}, centre crop of {resolution}x{resolution}")?;
        if *filter != Filter::default() {
            write!(f, ", {}", format!("{filter:?}").to_lowercase())?;
        }
        Ok(())
    }
}

/// The channel of a picture that a network's channel `c` is.
fn channel(c: usize, bgr: bool) -> usize {
    if bgr { 2 - c } else { c }
}

/// Resize, with the ratio kept or not, normalisation and padding: OpenMMLab's test pipeline.
#[derive(Clone, Debug)]
pub struct KeepRatio {
    /// Bounds of the long and the short side; where the ratio is not kept, width and height.
    scale: [usize; 2],
    keep_ratio: bool,
    divisor: usize,
    bgr: bool,
    /// The normalised value of each byte, channel by channel.
    values: [[f32; 256]; 3],
}

/// An input with what is to be known of its picture. Sizes are width and height in pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The network's input, [3, height, width].
    pub values: Vec<f32>,
    /// The input's size, with padding.
    pub size: [usize; 2],
    /// The resized picture's size, without padding.
    pub resized: [usize; 2],
    /// The original size.
    pub original: [usize; 2],
}

impl KeepRatio {
    /// Fits pictures into the bounds `scale`, larger one first or not, or where `of` does not keep the ratio makes
    /// them of this width and height; pads to multiples of `divisor`, normalised as `of` says.
    ///
    /// # Errors
    /// [`CropError::Resolution`] when a bound is 0 or more than [`MAX_SIDE`].
    pub fn new(scale: [usize; 2], divisor: usize, of: &Preprocessing) -> Result<Self, CropError> {
        if let Some(&bound) = scale.iter().find(|bound| !(1..=MAX_SIDE).contains(*bound)) {
            return Err(CropError::Resolution(bound));
        }
        // As OpenCV: on 0..255, differences and products rounded to f32 one by one.
        let value = |c: usize, byte: usize| {
            let centred = (byte as f64 - of.mean[c] * 255.0) as f32;
            (f64::from(centred) / (of.std[c] * 255.0)) as f32
        };
        let values = std::array::from_fn(|c| std::array::from_fn(|byte| value(c, byte)));
        let keep_ratio = !matches!(of.geometry, Geometry::Scale { keep_ratio: false, .. });
        Ok(Self { scale, keep_ratio, divisor: divisor.max(1), bgr: of.bgr, values })
    }

    /// The size of a resized picture: as large as the bounds allow, each side rounded, never 0.
    pub fn fit(&self, original: [usize; 2]) -> [usize; 2] {
        if !self.keep_ratio {
            return self.scale;
        }
        let order = |[a, b]: [usize; 2]| [a.max(b) as f64, a.min(b) as f64];
        let ([long, short], [long_side, short_side]) = (order(self.scale), order(original));
        let factor = (long / long_side).min(short / short_side);
        original.map(|side| ((side as f64 * factor + 0.5) as usize).max(1))
    }

    /// The network's input of one picture.
    ///
    /// # Panics
    /// When the picture has no pixels.
    pub fn apply<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> Fitted {
        let original = [image.width() as usize, image.height() as usize];
        let resized = self.fit(original);
        let [width, height] = resized.map(|side| side.next_multiple_of(self.divisor));
        let picture = opencv::resize(image, resized);
        let mut values = vec![0.0; 3 * width * height];
        for (c, plane) in values.chunks_exact_mut(width * height).enumerate() {
            let channel = channel(c, self.bgr);
            for (out, row) in plane.chunks_exact_mut(width).zip(picture.as_raw().chunks_exact(resized[0] * 3))
            {
                for (out, pixel) in out.iter_mut().zip(row.chunks_exact(3)) {
                    *out = self.values[c][pixel[channel] as usize];
                }
            }
        }
        Fitted { values, size: [width, height], resized, original }
    }
}

impl Fitted {
    /// The resized sides over the original ones, which differ a little: mmcv's `scale_factor`.
    pub fn scale_factor(&self) -> [f32; 2] {
        std::array::from_fn(|axis| (self.resized[axis] as f64 / self.original[axis] as f64) as f32)
    }
}

impl fmt::Display for KeepRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scale: [long, short], keep_ratio, divisor, .. } = self;
        write!(f, "scaled {} {long}x{short}", if *keep_ratio { "into" } else { "to" })?;
        if *divisor > 1 {
            write!(f, ", padded to multiples of {divisor}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
        let golden = nat_testing::golden::path("");
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
    fn a_region_is_where_the_crop_comes_from() {
        for (picture, [x, y]) in [
            ([256, 256], [16..240, 16..240]),
            ([512, 256], [144..368, 16..240]),
            ([1024, 2048], [64..960, 576..1472]),
            ([28, 28], [2..26, 2..26]),
            ([1, 1], [0..1, 0..1]),
            ([3, 5000], [0..3, 2499..2501]),
        ] {
            assert_eq!(imagenet(224, 0.875).unwrap().region(picture), Region { x, y }, "{picture:?}");
        }
        let whole = imagenet(384, 1.0).unwrap();
        assert_eq!(whole.region([500, 400]), Region { x: 50..450, y: 0..400 });
    }

    #[test]
    fn channels_filter_and_ratio_are_those_that_are_said() {
        let picture =
            RgbImage::from_fn(40, 30, |x, y| image::Rgb([(5 * x) as u8, (7 * y) as u8, (x * y) as u8]));
        let geometry = Geometry::Crop { resolution: 14, crop_pct: 0.875 };
        let of = Preprocessing {
            mean: [0.1, 0.2, 0.3],
            std: [0.5, 0.25, 2.0],
            filter: Filter::Box,
            bgr: true,
            ..Preprocessing::imagenet(geometry)
        };
        let crop = CenterCrop::new(14, 0.875, &of).unwrap();
        assert_eq!(crop.to_string(), "short side to 16, centre crop of 14x14, box");
        let resized = resize(&picture, [21, 16], Filter::Box, Region { x: 4..18, y: 1..15 });
        let input = crop.apply(&picture);
        for (i, pixel) in resized.pixels().enumerate() {
            for c in 0..3 {
                let want = (f64::from(pixel[2 - c]) / 255.0 - of.mean[c]) / of.std[c];
                assert!((f64::from(input[196 * c + i]) - want).abs() < 1e-6, "{i} {c}");
            }
        }
        let geometry = Geometry::Scale { scale: [24, 50], divisor: 32, keep_ratio: false };
        let fit = KeepRatio::new([24, 50], 32, &Preprocessing { geometry, ..of.clone() }).unwrap();
        assert_eq!(fit.to_string(), "scaled to 24x50, padded to multiples of 32");
        let fitted = fit.apply(&picture);
        assert_eq!((fitted.resized, fitted.size), ([24, 50], [32, 64]));
        assert_eq!(fitted.scale_factor(), [24.0 / 40.0, 50.0 / 30.0]);
        let resized = opencv::resize(&picture, [24, 50]);
        for (x, y, pixel) in resized.enumerate_pixels() {
            for c in 0..3 {
                let want = (f64::from(pixel[2 - c]) / 255.0 - of.mean[c]) / of.std[c];
                let got = f64::from(fitted.values[2048 * c + (32 * y + x) as usize]);
                assert!((got - want).abs() < 1e-5, "{x} {y} {c}: {got}, not {want}");
            }
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

    /// Sizes and inputs of mmdet and mmseg; large inputs are stored with strides.
    #[test]
    fn fitted_inputs_are_openmmlabs() {
        let golden = nat_testing::golden::path("");
        let mut cases = 0;
        for (task, divisor) in [("detect", 32), ("segment", 1)] {
            for folder in std::fs::read_dir(golden.join(task)).unwrap().map(|e| e.unwrap().path()) {
                if !folder.join("tensors.safetensors").exists() {
                    continue;
                }
                let read = |name| std::fs::read(folder.join(name)).unwrap();
                let case: serde_json::Value = serde_json::from_slice(&read("golden.json")).unwrap();
                let number = |v: &serde_json::Value| v.as_u64().unwrap() as usize;
                let scale = [0, 1].map(|i| number(&case["spec"]["img_scale"][i]));
                let geometry = Geometry::Scale { scale, divisor, keep_ratio: true };
                let fit = KeepRatio::new(scale, divisor, &Preprocessing::imagenet(geometry)).unwrap();
                let image = crate::images::Reader::default().file(&folder.join("image.png")).unwrap();
                let fitted = fit.apply(&image);
                let shape = &case["input_shape"];
                assert_eq!(fitted.size, [number(&shape[3]), number(&shape[2])], "{}", folder.display());
                let file = read("tensors.safetensors");
                let file = SafeTensors::deserialize(&file).unwrap();
                let stored = file.tensor("input").unwrap();
                let stride = number(&case["tensors"]["input"]["spatial_stride"]);
                let (numbers, _) = stored.data().as_chunks::<4>();
                let [width, height] = fitted.size;
                let ours = (0..3 * height * width)
                    .filter(|i| i % width % stride == 0 && i / width % height % stride == 0)
                    .map(|i| fitted.values[i]);
                assert_eq!(ours.clone().count(), numbers.len());
                let largest = ours
                    .zip(numbers)
                    .map(|(x, bytes)| (x - f32::from_le_bytes(*bytes)).abs())
                    .fold(0.0, f32::max);
                assert!(largest <= 1e-6, "{}: off by {largest}", folder.display());
                cases += 1;
            }
        }
        assert!(cases >= 2, "{cases}");
    }

    #[test]
    fn extreme_ratios_keep_a_pixel() {
        let fit = KeepRatio::new([1333, 800], 32, &Preprocessing::imagenet(Geometry::detection([1333, 800])));
        let fit = fit.unwrap();
        for (original, expected) in [
            ([640, 480], [1067, 800]),
            ([480, 640], [800, 1067]),
            ([32, 32], [800, 800]),
            ([9000, 2], [1333, 1]),
        ] {
            assert_eq!(fit.fit(original), expected, "{original:?}");
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
