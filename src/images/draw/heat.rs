//! Maps of one value a position, in colours over the image they are about.

use colorous::INFERNO;
use image::{RgbImage, imageops};
use rayon::prelude::*;

use super::canvas::extended;
use super::legend::Legend;
use super::shapes::shade;
use super::style::{FRAMED, PAPER, Style, Theme};
use super::text::{Text, percent};
use crate::images::heat::{plane, shares};
use crate::images::resize::Region;
use crate::layers::resample::{row, taps};

/// How bright the image stays where the map is 0, and beside the map.
const DIM: [f32; 2] = [0.55, 0.25];

/// Deviation of the blur of a map that is drawn, in its pixels: gradients reach the input through convolutions of
/// stride 2, which leave their grid in it.
const BLUR: f32 = 2.0;

/// Draws a map of `size`, of values from 0, over `region` of a picture, which becomes grey: the larger the value
/// the more of its colour, of a palette in which equal steps look equal (inferno). It is smoothed a little and
/// scaled as by [`to_bytes`](crate::images::heat::to_bytes). What lies beside the region is darkened.
///
/// # Panics
/// When there are not as many values as the size says, or the region is not inside the picture.
pub fn heat(picture: &mut RgbImage, map: &[f32], [columns, rows]: [usize; 2], region: &Region) {
    let values = shares(imageops::blur(&plane(&shares(map), [columns, rows]), BLUR).as_raw());
    let (across, down) = (taps(columns, region.x.len(), false), taps(rows, region.y.len(), false));
    let palette = palette();
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
            *pixel = warm(&palette, dim * grey, heat);
        }
    });
}

/// The colours of values from 0 to 1.
fn palette() -> Vec<[f32; 3]> {
    let colour = |i| INFERNO.eval_rational(i, 256);
    (0..=255).map(colour).map(|colour| [colour.r, colour.g, colour.b].map(f32::from)).collect()
}

/// A grey pixel with a value over it.
fn warm(palette: &[[f32; 3]], grey: f32, heat: f32) -> [u8; 3] {
    palette[(255.0 * heat).round() as usize].map(|colour| (grey * (1.0 - heat) + colour * heat).round() as u8)
}

/// The grey on which the bar shows its colours: a picture's mean, more or less.
const MEAN_GREY: f32 = 110.0;

/// Between what the bar is of.
const ENDS: [&str; 2] = ["low", "high"];

/// A picture of a map with what it is about, a class with its probability, and a bar of its colours: in a strip below it,
/// or over its lowest rows. Pictures with no place for letters have none inside.
pub fn caption(image: RgbImage, class: &str, probability: f32, place: Legend) -> RgbImage {
    let size = [image.width() as usize, image.height() as usize];
    let style = Style::new(size);
    if place == Legend::Off || size.contains(&0) || (place == Legend::Inside && style.letters.is_none()) {
        return image;
    }
    let strip = Strip::new(class, probability, size[0], style.text);
    let [wide, high] = strip.size;
    match place {
        Legend::Inside => {
            if wide > size[0] || 2 * high > size[1] {
                return image;
            }
            let mut image = image;
            let top = size[1] - high;
            shade(&mut image, &Region { x: 0..size[0], y: top..size[1] }, FRAMED.ground, FRAMED.opacity);
            strip.draw(&mut image, [size[0], top], &FRAMED);
            image
        }
        _ => {
            let mut image = extended(image, [wide.saturating_sub(size[0]), high], PAPER.ground);
            strip.draw(&mut image, [wide.max(size[0]), size[1]], &PAPER);
            image
        }
    }
}

/// A class and a bar, side by side, or one above the other where the picture is narrow.
struct Strip {
    name: Text,
    probability: Text,
    ends: [Text; 2],
    text: usize,
    /// Width of the bar.
    bar: usize,
    rows: usize,
    /// Least width, and height.
    size: [usize; 2],
}

impl Strip {
    /// The least and the largest width of the bar, in heights of a letter.
    const BAR: [usize; 2] = [6, 12];
    /// The least width of a name, in heights of a letter, for it to stand beside the bar.
    const NAME: usize = 8;

    fn new(class: &str, probability: f32, width: usize, text: usize) -> Self {
        let bar = (width / 4).clamp(Self::BAR[0] * text, Self::BAR[1] * text);
        let ends = ENDS.map(|end| Text::set(end, text));
        let probability = Text::set(&percent(probability), text);
        let margins = 2 * text;
        let scale = ends[0].width + bar + ends[1].width;
        let beside = width.saturating_sub(margins + scale + text);
        let rows = if beside >= Self::NAME * text { 1 } else { 2 };
        let place = if rows == 1 { beside } else { width.saturating_sub(margins).max(scale) };
        let place = place.saturating_sub(probability.width);
        let name = Text::shortened(class, "", text, place).unwrap_or_else(|| Text::set("…", text));
        let high = rows * text + (rows + 1) * (text * 3 / 5);
        Self { name, probability, ends, text, bar, rows, size: [scale + margins, high] }
    }

    /// Draws it between the left side of an image and column `right`, from row `top` on.
    fn draw(&self, image: &mut RgbImage, [right, top]: [usize; 2], theme: &Theme) {
        let (text, gap) = (self.text, self.text * 3 / 5);
        // A text has a margin of its own.
        let left = text - text / 4;
        let first = top + gap;
        self.name.draw(image, [left, first], theme.ink);
        self.probability.draw(image, [left + self.name.width, first], theme.faint);

        let last = top + self.size[1] - gap - text;
        let [low, high] = &self.ends;
        let start = match self.rows {
            1 => right - left - low.width - self.bar - high.width,
            _ => left,
        };
        low.draw(image, [start, last], theme.faint);
        let palette = palette();
        let columns = start + low.width..start + low.width + self.bar;
        // As high as the letters without what goes below their line.
        let rows = last + text / 5..last + text * 4 / 5;
        for x in columns.clone() {
            let heat = (x - columns.start) as f32 / (self.bar - 1) as f32;
            let colour = warm(&palette, DIM[0] * MEAN_GREY, heat);
            rows.clone().for_each(|y| image.put_pixel(x as u32, y as u32, image::Rgb(colour)));
        }
        high.draw(image, [columns.end, last], theme.faint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_is_yellow_and_what_is_not_seen_is_dark() {
        let mut picture = RgbImage::from_pixel(40, 30, image::Rgb([200, 100, 50]));
        // The right half is large.
        let map: Vec<f32> = (0..40 * 40).map(|i| f32::from(u8::from(i % 40 >= 20))).collect();
        heat(&mut picture, &map, [40, 40], &Region { x: 10..30, y: 0..30 });
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

    const GREY: [u8; 3] = [100; 3];

    fn captioned(size: [u32; 2], name: &str, place: Legend) -> RgbImage {
        caption(RgbImage::from_pixel(size[0], size[1], image::Rgb(GREY)), name, 0.97, place)
    }

    /// The columns of a row in which a bar from dark grey to yellow is, if one is.
    fn bar(image: &RgbImage, y: u32) -> Option<std::ops::Range<u32>> {
        let low = [(DIM[0] * MEAN_GREY).round() as u8; 3];
        let hottest = INFERNO.eval_rational(255, 256);
        let find = |colour: [u8; 3]| (0..image.width()).rfind(|&x| image.get_pixel(x, y).0 == colour);
        Some(find(low)?..find([hottest.r, hottest.g, hottest.b])? + 1)
    }

    #[test]
    fn a_caption_stands_below_its_picture() {
        for (size, rows) in
            [([512, 512], 1), ([512, 448], 1), ([2000, 1500], 1), ([120, 3000], 2), ([9, 3000], 2)]
        {
            let image = captioned(size, "tabby cat", Legend::Beside);
            let text = Style::new(size.map(|side| side as usize)).text as u32;
            assert_eq!(image.height() - size[1], rows * text + (rows + 1) * (text * 3 / 5), "{size:?}");
            assert!((0..size[1]).all(|y| (0..size[0]).all(|x| image.get_pixel(x, y).0 == GREY)), "{size:?}");
            let bars: Vec<_> = (size[1]..image.height()).filter_map(|y| bar(&image, y)).collect();
            assert_eq!(bars.len() as u32, text * 4 / 5 - text / 5, "{size:?}");
            assert!(
                bars[0].len() as u32 >= 6 * text - 2 && bars[0].end < image.width(),
                "{size:?}: {:?}",
                bars[0]
            );
        }
        // It is a name's that letters are of.
        let ink = |name: &str| {
            let image = captioned([512, 512], name, Legend::Beside);
            image.enumerate_pixels().filter(|(x, y, pixel)| *x < 200 && *y >= 512 && pixel.0[0] < 60).count()
        };
        assert!(ink("") == 0 && ink("tabby cat") > 3 * ink("9") && ink("9") > 5, "{} {}", ink(""), ink("9"));
    }

    #[test]
    fn a_caption_stands_inside_or_not_at_all() {
        let image = captioned([512, 512], "tabby cat", Legend::Inside);
        assert_eq!(image.dimensions(), (512, 512));
        assert!((0..480).all(|y| image.get_pixel(3, y).0 == GREY) && image.get_pixel(3, 511).0 != GREY);
        assert!((480..512).any(|y| bar(&image, y).is_some()));
        for (size, place) in
            [([512, 512], Legend::Off), ([9, 3000], Legend::Inside), ([3000, 9], Legend::Inside)]
        {
            assert!(captioned(size, "tabby cat", place).pixels().all(|pixel| pixel.0 == GREY), "{size:?}");
        }
    }

    #[test]
    fn nothing_panics_on_any_size_and_name() {
        let long = "W".repeat(2000);
        for size in [[1, 1], [1, 3000], [3000, 1], [78, 78], [79, 3000], [448, 448]] {
            for name in ["", "9", &long, "a\nb\u{4e2d}\u{1f600}"] {
                captioned(size, name, Legend::Beside);
                captioned(size, name, Legend::Inside);
            }
        }
    }
}
