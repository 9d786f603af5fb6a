//! A TIFF's samples to RGB.

use half::f16;

use super::directory::{Directory, PixelStorage, SampleKind, compression, tag};
use super::error::{damaged, unsupported};
use crate::images::error::ImageErrorKind;
use crate::images::formats::canvas::CHANNELS;
use crate::images::formats::samples::{bits_at, extend_pixels, full_scale};

/// What the samples of a pixel are.
enum Space {
    /// 255 is white.
    Grey,
    /// 0 is white.
    WhiteIsZero,
    /// Which colours there are; as many as samples have values.
    Palette(Vec<[u8; CHANNELS]>),
    Rgb,
    /// Red, green and blue were multiplied with the alpha that follows them.
    Multiplied,
    Cmyk,
    YCbCr,
    /// The same without compression, which Pillow computes otherwise.
    PlainYCbCr,
}

/// Samples as they are stored.
#[derive(Clone, Copy)]
struct Sample {
    kind: SampleKind,
    bits: u16,
}

/// The photometric interpretation of brightness and two colours.
pub const YCBCR: u64 = 6;

/// How a file's samples become colours.
pub struct Colours {
    space: Space,
    sample: Sample,
    /// From a sample of a pixel to that of the next, in samples.
    stride: usize,
    /// How many of them are looked at.
    used: usize,
}

/// An extra sample that the colour was multiplied with.
const ASSOCIATED_ALPHA: u64 = 1;

impl Colours {
    /// # Errors
    /// When the photometric interpretation is not read, or the samples don't fit it.
    pub fn new(storage: &PixelStorage, directory: &Directory) -> Result<Self, ImageErrorKind> {
        let integer = storage.kind == SampleKind::Unsigned;
        let (space, used) = match storage.photometric {
            // Pillow takes wider samples as they are.
            0 if storage.bits <= 8 => (Space::WhiteIsZero, 1),
            0 | 1 => (Space::Grey, 1),
            2 if storage.extra.first() == Some(&ASSOCIATED_ALPHA) && storage.samples >= 4 => {
                (Space::Multiplied, 4)
            }
            2 => (Space::Rgb, 3),
            3 if integer && storage.bits <= 8 => (Space::Palette(palette(directory, storage.bits)?), 1),
            3 => return Err(unsupported(format!("a palette for samples of {} bits", storage.bits))),
            5 => (Space::Cmyk, 4),
            YCBCR if storage.samples == 1 => (Space::Grey, 1),
            YCBCR if is_subsampled(storage, directory)? => {
                return Err(unsupported("YCbCr of fewer colours than pixels, other than as JPEG".to_owned()));
            }
            // Of JPEG they are made red, green and blue on the way.
            YCBCR if storage.compression == compression::JPEG => (Space::Rgb, 3),
            YCBCR if storage.compression == compression::NONE => (Space::PlainYCbCr, 3),
            YCBCR => (Space::YCbCr, 3),
            4 => return Err(unsupported("a mask for pixels".to_owned())),
            8..=10 => return Err(unsupported("CIE Lab colours".to_owned())),
            32803 | 34892 => return Err(unsupported("a camera's raw pixels".to_owned())),
            32844 | 32845 => return Err(unsupported("LogLuv colours".to_owned())),
            number => return Err(unsupported(format!("photometric interpretation {number}"))),
        };
        if usize::from(storage.samples) < used {
            return Err(damaged(format!("its pixels have {} samples of {used}", storage.samples)));
        }
        let sample = Sample { kind: storage.kind, bits: storage.bits };
        let stride = usize::from(storage.samples / storage.planes());
        Ok(Self { space, sample, stride, used })
    }

    /// The `columns` pixels of a row, whose samples are in one plane or in as many as there are.
    pub fn row<'a>(&self, planes: impl Iterator<Item = &'a [u8]>, columns: usize, rgb: &mut Vec<u8>) {
        let planes: Vec<_> = planes.take(self.used).collect();
        match &self.space {
            Space::Palette(colours) => {
                let bits = usize::from(self.sample.bits);
                let indices = (0..columns).map(|column| bits_at(planes[0], column * self.stride, bits));
                extend_pixels(rgb, indices.map(|index| colours[usize::from(index)]));
            }
            Space::Rgb if self.sample.bits == 8 && self.stride == CHANNELS => {
                rgb.extend_from_slice(planes[0])
            }
            space => {
                let pixel = |column: usize| {
                    let at = |channel: usize| match planes[..] {
                        [plane] => self.sample.level(plane, column * self.stride + channel),
                        _ => self.sample.level(planes[channel], column),
                    };
                    match space {
                        Space::WhiteIsZero => [u8::MAX - at(0); CHANNELS],
                        Space::Rgb => [at(0), at(1), at(2)],
                        Space::Multiplied => divided([at(0), at(1), at(2)], at(3)),
                        Space::Cmyk => cmyk_to_rgb([at(0), at(1), at(2), at(3)]),
                        Space::YCbCr => ycbcr_to_rgb([at(0), at(1), at(2)]),
                        Space::PlainYCbCr => pillows_ycbcr_to_rgb([at(0), at(1), at(2)]),
                        Space::Grey | Space::Palette(_) => [at(0); CHANNELS],
                    }
                };
                extend_pixels(rgb, (0..columns).map(pixel));
            }
        }
    }
}

impl Sample {
    /// A row's sample as 0 to 255. Of 12 and 16 bits the high ones count, other integers are clipped, floating
    /// point is 0 to 1, fewer than 8 bits are spread.
    fn level(self, row: &[u8], index: usize) -> u8 {
        fn at<const N: usize>(row: &[u8], index: usize) -> [u8; N] {
            row.as_chunks().0[index]
        }
        let clipped = |value: i64| value.clamp(0, u8::MAX.into()) as u8;
        // The cast takes what is no number for 0.
        let scaled = |value: f64| (value.clamp(0., 1.) * f64::from(u8::MAX)).round() as u8;
        match (self.kind, self.bits) {
            // Pillow takes bytes as they are, with or without a sign.
            (SampleKind::Unsigned | SampleKind::Signed, 8) => row[index],
            (SampleKind::Unsigned, 16) => (u16::from_ne_bytes(at(row, index)) >> 8) as u8,
            (SampleKind::Signed, 16) => clipped(i16::from_ne_bytes(at(row, index)).into()),
            (SampleKind::Unsigned, 32) => clipped(u32::from_ne_bytes(at(row, index)).into()),
            (SampleKind::Signed, 32) => clipped(i32::from_ne_bytes(at(row, index)).into()),
            (SampleKind::Unsigned, 64) => u64::from_ne_bytes(at(row, index)).min(u8::MAX.into()) as u8,
            (SampleKind::Signed, 64) => clipped(i64::from_ne_bytes(at(row, index))),
            (SampleKind::Float, 16) => scaled(f16::from_ne_bytes(at(row, index)).into()),
            (SampleKind::Float, 32) => scaled(f32::from_ne_bytes(at(row, index)).into()),
            (SampleKind::Float, 64) => scaled(f64::from_ne_bytes(at(row, index))),
            // The high eight of twelve.
            (SampleKind::Unsigned, 12) => {
                let half_bytes = |at: usize| bits_at(row, at, 4);
                half_bytes(3 * index) << 4 | half_bytes(3 * index + 1)
            }
            (_, bits) => full_scale(bits.into()) * bits_at(row, index, bits.into()),
        }
    }
}

/// The colours of a palette: all reds, all greens, all blues, of 16 bits each. Missing ones are black.
fn palette(directory: &Directory, bits: u16) -> Result<Vec<[u8; CHANNELS]>, ImageErrorKind> {
    let values = directory.numbers(tag::COLOURS)?;
    if values.is_empty() {
        return Err(damaged("it has no palette".to_owned()));
    }
    let stored = values.len() / CHANNELS;
    let colour = |index: usize| {
        std::array::from_fn(|channel| match index < stored {
            true => (values[channel * stored + index] >> 8) as u8,
            false => 0,
        })
    };
    Ok((0..1 << bits).map(colour).collect())
}

/// Whether colours are stored for blocks of pixels, which JPEG's decoder knows how to spread.
fn is_subsampled(storage: &PixelStorage, directory: &Directory) -> Result<bool, ImageErrorKind> {
    if storage.compression == compression::JPEG {
        return Ok(false);
    }
    let sampling = directory.numbers(tag::SUBSAMPLING)?;
    // Without the tag it is two by two; but writers of whole colours forget it.
    let whole = u64::from(storage.width) * u64::from(storage.height) * u64::from(storage.samples);
    let is_whole = storage.compression == compression::NONE && storage.lengths.iter().sum::<u64>() >= whole;
    Ok(if sampling.is_empty() { !is_whole } else { sampling.iter().any(|&by| by != 1) })
}

/// Colours that were multiplied with `alpha`, as they were, as Pillow divides.
fn divided(colour: [u8; CHANNELS], alpha: u8) -> [u8; CHANNELS] {
    colour.map(|value| match alpha {
        0 => 0,
        alpha => (u16::from(value) * 255 / u16::from(alpha)).min(255) as u8,
    })
}

/// As Pillow computes it.
fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; CHANNELS] {
    let paper = u8::MAX - k;
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * u32::from(paper) + 128;
        paper.saturating_sub(((product + (product >> 8)) >> 8) as u8)
    })
}

/// As libtiff computes it, and libjpeg, with 16 bits after the point.
fn ycbcr_to_rgb([y, cb, cr]: [u8; CHANNELS]) -> [u8; CHANNELS] {
    const HALF: i32 = 1 << 15;
    const RED: i32 = 91_881; // 1.402
    const GREEN_OF_BLUE: i32 = 22_554; // 0.34414
    const GREEN_OF_RED: i32 = 46_802; // 0.71414
    const BLUE: i32 = 116_130; // 1.772
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((RED * cr + HALF) >> 16);
    let green = y + ((HALF - GREEN_OF_BLUE * cb - GREEN_OF_RED * cr) >> 16);
    let blue = y + ((BLUE * cb + HALF) >> 16);
    [red, green, blue].map(|value| value.clamp(0, 255) as u8)
}

/// As Pillow computes it where there is no compression, with 6 bits after the point.
fn pillows_ycbcr_to_rgb([y, cb, cr]: [u8; CHANNELS]) -> [u8; CHANNELS] {
    let scaled = |factor: f64, value: i32| (factor * 64. * f64::from(value) + 0.5) as i32;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + (scaled(1.402, cr) >> 6);
    let green = y + ((scaled(-0.34414, cb) + scaled(-0.71414, cr)) >> 6);
    let blue = y + (scaled(1.772, cb) >> 6);
    [red, green, blue].map(|value| value.clamp(0, 255) as u8)
}
