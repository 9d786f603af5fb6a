//! Found objects drawn onto their image: masks, boxes, labels.
//!
//! Widths and letters grow with the picture, so that it looks the same whatever its number of pixels.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, Glyph, ScaleFont, point};
use image::RgbImage;
use rayon::prelude::*;

use super::mask::Mask;
use super::resize::Region;

/// An object to draw.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// Class: chooses the colour.
    pub index: usize,
    /// Name of the class.
    pub label: &'a str,
    /// 0 to 1, printed as a percentage; NaN counts as 0.
    pub score: f32,
    /// Left, top, right, bottom in pixels of the image, where (0, 0) is the first pixel's corner. What lies
    /// outside the image is cut off; a box that is inverted, NaN or wholly outside is not drawn.
    pub corners: [f32; 4],
    /// The object's pixels. What lies outside the image is cut off.
    pub mask: Option<&'a Mask>,
}

/// Draws objects onto their image: all masks, then the masks' edges, the boxes, the labels. Among each the
/// best object lies on top, of equal scores the first.
///
/// A label stands above its box, or inside or below where that is taken or outside the image. One for
/// which better labels leave no place is left out. Labels cover a quarter of the picture at most;
/// pictures too small for letters that can be read get none.
pub fn objects(image: &mut RgbImage, objects: &[Object]) {
    let size = [image.width() as usize, image.height() as usize];
    if size.contains(&0) {
        return;
    }
    let style = Style::new(size);
    let mut objects: Vec<&Object> = objects.iter().collect();
    // From worst to best. `max` returns the other one of NaN.
    objects.sort_by(|a, b| b.score.max(0.0).total_cmp(&a.score.max(0.0)));
    objects.reverse();

    masks(image, &objects, &style);
    for object in &objects {
        if let Some(area) = pixels(object.corners, size) {
            frame(image, &area, style.line, colour(object.index));
        }
    }
    labels(image, &objects, &style);
}

/// How much of its class's colour a pixel takes.
const CLASS_OPACITY: f32 = 0.5;

/// Draws the classes of an image's pixels, row by row, each in its colour, and a legend: the names and
/// shares (as scores) of `largest`, upwards from the lower left corner, in at most half of the height.
///
/// # Panics
/// When there are not as many `classes` as pixels, or one has no colour.
pub fn classes(image: &mut RgbImage, classes: &[u8], colours: &[[u8; 3]], largest: &[Object]) {
    let size = [image.width() as usize, image.height() as usize];
    assert_eq!(classes.len(), size[0] * size[1]);
    for (pixel, &class) in image.as_chunks_mut().0.iter_mut().zip(classes) {
        blend(pixel, colours[class as usize], CLASS_OPACITY);
    }
    let Some(height) = Style::new(size).letters else { return };
    let texts =
        largest.iter().filter_map(|object| Some((Text::of(object, height, size[0])?, colours[object.index])));
    let texts: Vec<_> = texts.take(size[1] / 2 / height).collect();
    let width = texts.iter().map(|(text, _)| text.width).max().unwrap_or(0);
    for (line, (text, colour)) in texts.iter().enumerate() {
        let top = size[1] - (texts.len() - line) * height;
        fill(image, &Region { x: 0..width, y: top..top + height }, *colour);
        text.draw(image, [0, top], ink(*colour));
    }
}

/// What depends on the size of the picture, in pixels.
struct Style {
    /// Width of a box's line.
    line: usize,
    /// Width of a mask's edge.
    edge: usize,
    /// Height of a label; `None` where there is no place for labels.
    letters: Option<usize>,
}

impl Style {
    /// The smallest height at which the font's letters can be told apart.
    const LEGIBLE: f64 = 13.0;

    fn new([width, height]: [usize; 2]) -> Self {
        let short = width.min(height) as f64;
        // The side of a square as large; long strips count by their short side.
        let side = ((width * height) as f64).sqrt().min(2.0 * short);
        let wide = |share: f64| ((side * share).round() as usize).max(1);
        let letters = (side / 36.0).max(Self::LEGIBLE).round();
        let letters = (6.0 * letters <= short).then_some(letters as usize);
        Self { line: wide(1.0 / 280.0), edge: wide(1.0 / 480.0), letters }
    }
}

/// The pixels of a box; none where it is no box or lies outside.
fn pixels([left, top, right, bottom]: [f32; 4], [width, height]: [usize; 2]) -> Option<Region> {
    let side = |low: f32, high: f32, size: usize| {
        // With NaN each comparison is false. A cast takes what is too small as 0.
        (low <= high && low < size as f32 && high > 0.0).then(|| {
            let start = (low.round() as usize).min(size - 1);
            start..(high.round() as usize).clamp(start + 1, size)
        })
    };
    Some(Region { x: side(left, right, width)?, y: side(top, bottom, height)? })
}

/// Fills an area that lies inside the image.
fn fill(image: &mut RgbImage, area: &Region, colour: [u8; 3]) {
    let bytes = 3 * area.x.start..3 * area.x.end;
    let stride = 3 * image.width() as usize;
    for row in image.chunks_exact_mut(stride).skip(area.y.start).take(area.y.len()) {
        row[bytes.clone()].as_chunks_mut().0.fill(colour);
    }
}

/// Draws the border of an area, inside it: the lines of a box that the image cuts off stay visible.
fn frame(image: &mut RgbImage, area: &Region, line: usize, colour: [u8; 3]) {
    // Of small boxes the lines would leave nothing to see.
    let line = line.min(area.x.len().min(area.y.len()) / 6).max(1);
    let (x, y) = (&area.x, &area.y);
    let (left, right) = (x.start..x.start + line, x.end - line..x.end);
    let (top, bottom) = (y.start..y.start + line, y.end - line..y.end);
    for (x, y) in [(x, &top), (x, &bottom), (&left, y), (&right, y)] {
        fill(image, &Region { x: x.clone(), y: y.clone() }, colour);
    }
}

/// Moves a pixel towards a colour.
fn blend(pixel: &mut [u8; 3], colour: [u8; 3], opacity: f32) {
    for (value, colour) in pixel.iter_mut().zip(colour) {
        let (from, to) = (f32::from(*value), f32::from(colour));
        *value = (from + (to - from) * opacity).round() as u8;
    }
}

/// How much of a mask's colour its pixels take.
const MASK_OPACITY: f32 = 0.4;

/// A mask in its colour, and where in the image it has pixels.
struct Stencil<'a> {
    colour: [u8; 3],
    mask: &'a Mask,
    extent: Region,
}

impl<'a> Stencil<'a> {
    fn new(object: &Object<'a>, [width, height]: [usize; 2]) -> Option<Self> {
        let mask = object.mask?;
        let [x, y] = [0, 1].map(|axis| {
            let (start, end) = (mask.origin[axis], mask.origin[axis] + mask.size[axis]);
            start.min([width, height][axis])..end.min([width, height][axis])
        });
        let extent = Region { x, y };
        (!extent.x.is_empty() && !extent.y.is_empty()).then(|| Self {
            colour: colour(object.index),
            mask,
            extent,
        })
    }

    /// The pixels of row `y` of the image from the extent's first column on.
    fn row(&self, y: usize) -> &[bool] {
        &self.mask.pixels[(y - self.mask.origin[1]) * self.mask.size[0]..][..self.extent.x.len()]
    }

    fn contains(&self, x: usize, y: usize) -> bool {
        self.extent.y.contains(&y) && self.extent.x.contains(&x) && self.row(y)[x - self.extent.x.start]
    }

    /// The pixels of the mask with a side to what is not of it; the image's border is not of it.
    fn rim(&self) -> Vec<[usize; 2]> {
        let mut rim = Vec::new();
        for y in self.extent.y.clone() {
            for x in self.extent.x.clone().filter(|&x| self.contains(x, y)) {
                // -1 wraps and is outside too.
                let sides = [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)];
                if !sides.iter().all(|&(x, y)| self.contains(x, y)) {
                    rim.push([x, y]);
                }
            }
        }
        rim
    }
}

/// Draws the masks, then their edges.
fn masks(image: &mut RgbImage, objects: &[&Object], style: &Style) {
    let size = [image.width() as usize, image.height() as usize];
    let width = size[0];
    let masks: Vec<Stencil> = objects.iter().filter_map(|object| Stencil::new(object, size)).collect();
    image.par_chunks_exact_mut(3 * width).enumerate().for_each(|(y, row)| {
        for mask in masks.iter().filter(|mask| mask.extent.y.contains(&y)) {
            let x = mask.extent.x.clone();
            let pixels = row[3 * x.start..3 * x.end].as_chunks_mut().0;
            for (pixel, _) in pixels.iter_mut().zip(mask.row(y)).filter(|(_, inside)| **inside) {
                blend(pixel, mask.colour, MASK_OPACITY);
            }
        }
    });

    let rims: Vec<Vec<[usize; 2]>> = masks.par_iter().map(Stencil::rim).collect();
    // All that is nearer to the rim than the edge is wide, and of the mask: an edge never makes it larger.
    let reach = style.edge - 1;
    for (mask, rim) in masks.iter().zip(rims) {
        for [x, y] in rim {
            for near_y in y.saturating_sub(reach)..=y + reach {
                for near_x in x.saturating_sub(reach)..=x + reach {
                    let far = near_x.abs_diff(x).pow(2) + near_y.abs_diff(y).pow(2) >= style.edge.pow(2);
                    if !far && mask.contains(near_x, near_y) {
                        image.put_pixel(near_x as u32, near_y as u32, image::Rgb(mask.colour));
                    }
                }
            }
        }
    }
}

/// A label and its place.
struct Label {
    text: Text,
    area: Region,
    colour: [u8; 3],
}

impl Label {
    /// A label in the first place that those already `placed` leave free; none where there is no such
    /// place, or the image is too narrow.
    fn place(object: &Object, height: usize, size: [usize; 2], placed: &[Self]) -> Option<Self> {
        let area = pixels(object.corners, size)?;
        let text = Text::of(object, height, size[0])?;
        // Labels of a class have one colour: without a gap they would run together.
        let gap = (height / 8).max(1);
        let taken: Vec<Region> = placed.iter().map(|label| grown(&label.area, gap)).collect();
        let mut places = places(&area, [text.width, height], size, &taken).into_iter();
        let area = places.find(|place| !taken.iter().any(|other| overlap(place, other)))?;
        Some(Self { text, area, colour: colour(object.index) })
    }

    fn draw(&self, image: &mut RgbImage) {
        fill(image, &self.area, self.colour);
        self.text.draw(image, [self.area.x.start, self.area.y.start], ink(self.colour));
    }
}

/// Draws the labels. The best choose their places first; none hides another.
fn labels(image: &mut RgbImage, objects: &[&Object], style: &Style) {
    let Some(height) = style.letters else { return };
    let size = [image.width() as usize, image.height() as usize];
    let mut covered = 0;
    let mut placed = Vec::with_capacity(objects.len());
    for object in objects.iter().rev() {
        if let Some(label) = Label::place(object, height, size, &placed) {
            covered += label.area.x.len() * height;
            if 4 * covered > size[0] * size[1] {
                break;
            }
            placed.push(label);
        }
    }
    placed.iter().for_each(|label| label.draw(image));
}

/// Where a label of this size may stand, the usual place first. Each lies inside the image.
fn places(area: &Region, [width, height]: [usize; 2], size: [usize; 2], taken: &[Region]) -> Vec<Region> {
    let corners = [area.x.start, area.x.end.saturating_sub(width)];
    // Beside another label, as long as it's plain whose it is.
    let beside = taken.iter().flat_map(|other| [Some(other.x.end), other.x.start.checked_sub(width)]);
    let beside = beside.flatten().filter(|x| area.x.contains(&(x + width / 2)));
    let mut columns: Vec<usize> = corners.into_iter().chain(beside).map(|x| x.min(size[0] - width)).collect();
    columns.sort_by_key(|x| x.abs_diff(area.x.start));
    columns.dedup();

    let inside = 2 * height <= area.y.len();
    let rows = [
        area.y.start.checked_sub(height),
        inside.then_some(area.y.start),
        Some(area.y.end).filter(|y| y + height <= size[1]),
        inside.then(|| area.y.end - height),
    ];
    let at = |x: usize, y: usize| Region { x: x..x + width, y: y..y + height };
    rows.into_iter().flatten().flat_map(|y| columns.iter().map(move |&x| at(x, y))).collect()
}

/// An area and what is around it.
fn grown(area: &Region, by: usize) -> Region {
    let side = |side: &Range<usize>| side.start.saturating_sub(by)..side.end + by;
    Region { x: side(&area.x), y: side(&area.y) }
}

/// Whether two areas share a pixel.
fn overlap(a: &Region, b: &Region) -> bool {
    let side = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
    side(&a.x, &b.x) && side(&a.y, &b.y)
}

/// DejaVu Sans Condensed Bold 2.37 of Debian's fonts-dejavu-extra, through fonttools 4.68: `pyftsubset
/// --unicodes=20-7E,A0-17F,370-3E1,3F0-45F,48A-4A7,4AA-4F9,2010-2027,2030-203A,20AC,2122,2212,FFFD
/// --layout-features= --drop-tables+=FFTM,GDEF,GPOS,GSUB,gasp --no-hinting --legacy-kern --name-IDs=*`.
static FONT: LazyLock<FontRef> = LazyLock::new(|| {
    FontRef::try_from_slice(include_bytes!("../../assets/DejaVuSansCondensed-Bold.ttf"))
        .unwrap_or_else(|e| unreachable!("the font is part of the program: {e}"))
});

/// A line of text, its upper left corner at (0, 0).
struct Text {
    glyphs: Vec<Glyph>,
    /// With a margin on both sides.
    width: usize,
}

impl Text {
    /// Letters of a name that are printed at most.
    const LONGEST: usize = 60;
    /// Letters that a name is not shortened below.
    const SHORTEST: usize = 3;

    /// An object's name and score, the name shortened to what an image of this width has place for.
    fn of(object: &Object, height: usize, image_width: usize) -> Option<Self> {
        let percent = (object.score.clamp(0.0, 1.0) * 100.0).round() as u8;
        let name: Vec<char> = object.label.chars().take(Self::LONGEST + 1).collect();
        let whole = format!("{} {percent}%", object.label);
        let whole = (name.len() <= Self::LONGEST).then_some(whole);
        let shorter = (Self::SHORTEST..name.len()).rev().map(|letters| {
            let name: String = name[..letters].iter().collect();
            format!("{}… {percent}%", name.trim_end())
        });
        let mut texts = whole.into_iter().chain(shorter).map(|text| Self::set(text.trim(), height));
        texts.find(|text| text.width <= image_width)
    }

    fn set(text: &str, height: usize) -> Self {
        let font = FONT.as_scaled(height as f32);
        let margin = 0.25 * height as f32;
        // Letters on a whole row are sharper.
        let baseline = font.ascent().round();
        let mut x = margin;
        let mut glyphs: Vec<Glyph> = Vec::with_capacity(text.len());
        for letter in text.chars() {
            let id = font.glyph_id(if letter.is_control() { ' ' } else { letter });
            x += glyphs.last().map_or(0.0, |last| font.kern(last.id, id));
            glyphs.push(id.with_scale_and_position(height as f32, point(x, baseline)));
            x += font.h_advance(id);
        }
        Self { glyphs, width: (x + margin).ceil() as usize }
    }

    fn draw(&self, image: &mut RgbImage, [left, top]: [usize; 2], ink: [u8; 3]) {
        for glyph in self.glyphs.iter().filter_map(|glyph| FONT.outline_glyph(glyph.clone())) {
            let corner = glyph.px_bounds().min;
            let (left, top) = (left as i64 + corner.x as i64, top as i64 + corner.y as i64);
            glyph.draw(|x, y, coverage| {
                let [x, y] = [left + i64::from(x), top + i64::from(y)].map(u32::try_from);
                if let (Ok(x), Ok(y)) = (x, y)
                    && let Some(pixel) = image.get_pixel_mut_checked(x, y)
                {
                    blend(&mut pixel.0, ink, coverage.min(1.0));
                }
            });
        }
    }
}

/// Black or white, whichever has the higher contrast by WCAG 2 on a colour.
fn ink(colour: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = colour.map(|value| (f32::from(value) / 255.0).powf(2.2));
    // Where (luminance + 0.05) / 0.05 is 1.05 / (luminance + 0.05).
    if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 { [0; 3] } else { [255; 3] }
}

/// A saturated colour, the same for a class in every picture. The colours of the first 256 classes
/// differ; they are used again for the next 256.
///
/// Each is as far as can be in OKLab from all before it, so that the first ones differ most: of 80 no two
/// are nearer than 0.055.
pub fn colour(index: usize) -> [u8; 3] {
    PALETTE[index % PALETTE.len()]
}

static PALETTE: LazyLock<Vec<[u8; 3]>> = LazyLock::new(|| {
    // In thousandths, whole numbers: every machine then chooses the same, however it rounds.
    let point = |lab: [f64; 3]| lab.map(|v| (1000.0 * v).round() as i32);
    let distance = |a: [i32; 3], b: [i32; 3]| (0..3).map(|i| (a[i] - b[i]).pow(2)).sum::<i32>();

    // What is darker or brighter drowns in shadows or in the sky, and so do pastels.
    let all = (50..=86).step_by(3).flat_map(|l| (0..360).step_by(3).map(move |hue| vivid(l, hue)));
    let saturated = all.filter(|&lab| {
        let [r, g, b] = srgb(lab);
        r.min(g).min(b) <= 0.5 * r.max(g).max(b)
    });
    let mut candidates: Vec<_> = saturated.map(|lab| (lab, i32::MAX)).collect();

    // Neither skin nor leaf: the people that MS-COCO begins with are drawn in it.
    let mut next = vivid(62, 255);
    let mut palette = Vec::with_capacity(256);
    while palette.len() < 256 {
        palette.push(srgb(next).map(|v| (255.0 * v).round() as u8));
        for (candidate, nearest) in &mut candidates {
            *nearest = distance(point(*candidate), point(next)).min(*nearest);
        }
        // Of equals the first.
        let farthest = candidates.iter().enumerate().max_by_key(|&(i, &(_, nearest))| (nearest, Reverse(i)));
        next = farthest.map_or(next, |(_, &(lab, _))| lab);
    }
    palette
});

/// The colour of OKLab with the most chroma that sRGB has of a lightness in percent and a hue in degrees.
fn vivid(lightness: i32, hue: i32) -> [f64; 3] {
    let (sin, cos) = f64::from(hue).to_radians().sin_cos();
    let lab = |chroma: f64| [f64::from(lightness) / 100.0, chroma * cos, chroma * sin];
    let (mut inside, mut outside) = (0.0, 0.4);
    for _ in 0..20 {
        let middle = (inside + outside) / 2.0;
        let is_inside = srgb(lab(middle)).iter().all(|v| (0.0..=1.0).contains(v));
        *(if is_inside { &mut inside } else { &mut outside }) = middle;
    }
    lab(inside)
}

/// OKLab to sRGB of 0 to 1 (Björn Ottosson, "A perceptual color space for image processing", 2020).
/// Colours that sRGB has not are outside of 0 to 1.
fn srgb([l, a, b]: [f64; 3]) -> [f64; 3] {
    let cones = [
        l + 0.3963377774 * a + 0.2158037573 * b,
        l - 0.1055613458 * a - 0.0638541728 * b,
        l - 0.0894841775 * a - 1.2914855480 * b,
    ];
    let [l, m, s] = cones.map(|v| v.powi(3));
    let linear = [
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    ];
    linear.map(|v| if v <= 0.0031308 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREY: [u8; 3] = [100; 3];

    fn grey(width: u32, height: u32) -> RgbImage {
        RgbImage::from_pixel(width, height, image::Rgb(GREY))
    }

    fn object(corners: [f32; 4]) -> Object<'static> {
        Object { index: 3, label: "cat", score: 0.5, corners, mask: None }
    }

    fn at(image: &RgbImage, x: u32, y: u32) -> [u8; 3] {
        image.get_pixel(x, y).0
    }

    /// sRGB to OKLab, by the matrices that the article gives for this direction.
    fn lab(colour: [u8; 3]) -> [f64; 3] {
        let linear = colour.map(|v| f64::from(v) / 255.0);
        let [r, g, b] =
            linear.map(|v| if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) });
        let cones = [
            0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b,
            0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b,
            0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b,
        ];
        let [l, m, s] = cones.map(f64::cbrt);
        [
            0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
            1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
            0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s,
        ]
    }

    #[test]
    fn colours_differ_and_stay() {
        for (index, expected) in [
            (0, [0, 131, 253]),
            (1, [62, 250, 0]),
            (2, [248, 20, 0]),
            (3, [25, 120, 0]),
            (15, [36, 58, 255]),
            (79, [255, 150, 61]),
        ] {
            assert_eq!(colour(index), expected, "{index}");
        }
        assert_eq!(colour(256), colour(0));
        colour(usize::MAX);

        let labs: Vec<[f64; 3]> = (0..256).map(|i| lab(colour(i))).collect();
        let distance = |a: &[f64; 3], b: &[f64; 3]| (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt();
        for (classes, least) in [(12, 0.16), (80, 0.055), (150, 0.035), (256, 0.025)] {
            for (i, a) in labs[..classes].iter().enumerate() {
                for (j, b) in labs[..i].iter().enumerate() {
                    assert!(distance(a, b) > least, "{j} and {i} of {classes}: {}", distance(a, b));
                }
            }
        }
        for (i, [l, ..]) in labs.into_iter().enumerate() {
            assert!((0.49..0.87).contains(&l), "{i}: lightness {l}");
        }
    }

    #[test]
    fn labels_are_in_the_ink_with_more_contrast() {
        for (colour, expected) in [
            ([255, 255, 0], [0; 3]),
            ([0, 255, 0], [0; 3]),
            ([128, 128, 128], [0; 3]),
            ([0, 0, 255], [255; 3]),
            ([160, 0, 0], [255; 3]),
        ] {
            assert_eq!(ink(colour), expected, "{colour:?}");
        }
    }

    #[test]
    fn boxes_are_cut_to_the_image() {
        let image = [20, 10];
        for (corners, expected) in [
            ([2.0, 3.0, 7.0, 8.0], Some((2..7, 3..8))),
            ([2.4, 3.5, 6.6, 7.7], Some((2..7, 4..8))),
            ([-5.0, -1e30, 25.0, f32::INFINITY], Some((0..20, 0..10))),
            // At least a pixel.
            ([4.0, 4.0, 4.0, 4.0], Some((4..5, 4..5))),
            ([19.9, 9.9, 19.9, 9.9], Some((19..20, 9..10))),
            ([0.1, 0.1, 0.2, 0.2], Some((0..1, 0..1))),
            // Outside.
            ([20.0, 0.0, 30.0, 10.0], None),
            ([0.0, -5.0, 10.0, 0.0], None),
            // No boxes.
            ([7.0, 3.0, 2.0, 8.0], None),
            ([2.0, f32::NAN, 7.0, 8.0], None),
            ([f32::NAN; 4], None),
        ] {
            let area = pixels(corners, image).map(|area| (area.x, area.y));
            assert_eq!(area, expected, "{corners:?}");
        }
    }

    #[test]
    fn nothing_panics_on_any_picture_and_box() {
        let numbers = [f32::NAN, f32::NEG_INFINITY, -7.0, 0.0, 0.5, 30.0, 99.5, 1e9, f32::INFINITY];
        let mut all = Vec::new();
        for (i, &left) in numbers.iter().enumerate() {
            for &right in &numbers {
                let label = ["", "person", "a\nb\u{4e2d}\u{1f600}", "W".repeat(2000).leak()][i % 4];
                let corners = [left, right, right, left];
                all.push(Object { index: i, label, score: left, corners, mask: None });
                all.push(Object { corners: [left, left, right, right], ..all[all.len() - 1] });
            }
        }
        for size in [[0, 0], [0, 5], [1, 1], [1, 3000], [3000, 1], [32, 32], [100, 80], [90, 700], [700, 90]]
        {
            let pixels = (0..size[0] * size[1]).map(|i| i % 7 < 4).collect();
            let mask = Mask { origin: [size[0] / 3, 0], size, pixels };
            let masked = all.iter().map(|&object| Object { mask: Some(&mask), ..object });
            let mut image = grey(size[0] as u32, size[1] as u32);
            objects(&mut image, &masked.collect::<Vec<_>>());
            objects(&mut image, &all);
        }
    }

    #[test]
    fn a_box_is_its_lines() {
        let mut image = grey(60, 50);
        objects(&mut image, &[object([10.0, 20.0, 40.0, 45.0])]);
        for (x, y, pixel) in image.enumerate_pixels() {
            let inside = (10..40).contains(&x) && (20..45).contains(&y);
            let inner = (11..39).contains(&x) && (21..44).contains(&y);
            assert_eq!(pixel.0, if inside && !inner { colour(3) } else { GREY }, "{x}, {y}");
        }
        // 840 / 280 pixels, unless the box is small.
        let mut image = grey(840, 840);
        objects(&mut image, &[object([100.0, 300.0, 200.0, 400.0]), object([500.0, 500.0, 513.0, 540.0])]);
        let line = |x: u32, y| (x..x + 9).take_while(|&x| at(&image, x, y) == colour(3)).count();
        assert_eq!([line(100, 350), line(500, 520)], [3, 2]);
    }

    #[test]
    fn a_mask_is_blended_and_its_edge_is_not() {
        // A disc on a picture large enough for an edge of three pixels.
        let (size, radius) = (1440, 200);
        let far = |x: u32, y: u32| (x.abs_diff(700).pow(2) + y.abs_diff(600).pow(2)).isqrt();
        let mask: Vec<bool> = (0..size * size).map(|i| far(i % size, i / size) < radius).collect();
        let mut image = grey(size, size);
        let mask = Mask { origin: [0, 0], size: [size as usize; 2], pixels: mask };
        objects(&mut image, &[Object { mask: Some(&mask), ..object([f32::NAN; 4]) }]);
        let blended = colour(3).map(|v| (100.0 + 0.4 * (f32::from(v) - 100.0)).round() as u8);
        for (x, y, pixel) in image.enumerate_pixels() {
            match far(x, y) {
                d if d >= radius => assert_eq!(pixel.0, GREY, "{x}, {y}"),
                d if d >= radius - 2 => assert_eq!(pixel.0, colour(3), "{x}, {y}"),
                d if d < radius - 4 => assert_eq!(pixel.0, blended, "{x}, {y}"),
                _ => {}
            }
        }
    }

    #[test]
    fn a_mask_has_an_edge_at_the_border_of_the_image() {
        let mut image = grey(8, 6);
        // More than the image.
        let mask = Mask { origin: [0, 0], size: [9, 7], pixels: vec![true; 63] };
        objects(&mut image, &[Object { mask: Some(&mask), ..object([f32::NAN; 4]) }]);
        for (x, y, pixel) in image.enumerate_pixels() {
            let edge = x == 0 || y == 0 || x == 7 || y == 5;
            assert_eq!(pixel.0 == colour(3), edge, "{x}, {y}");
        }
    }

    #[test]
    fn classes_are_blended_above_their_legend() {
        let mut image = grey(200, 160);
        let labels: Vec<u8> = (0..200 * 160).map(|i| u8::from(i % 200 >= 100)).collect();
        let colours = [[200, 0, 0], [0, 0, 200]];
        let entry = |index, label, score| Object { index, label, score, corners: [0.0; 4], mask: None };
        classes(&mut image, &labels, &colours, &[entry(1, "sky", 0.5), entry(0, "wall", 0.5)]);
        assert_eq!([at(&image, 50, 60), at(&image, 150, 60)], [[150, 50, 50], [50, 50, 150]]);
        // The last line of the legend ends with the image, the first is above it.
        assert_eq!([at(&image, 0, 159), at(&image, 0, 159 - 13)], [[200, 0, 0], [0, 0, 200]]);
        assert_eq!(at(&image, 199, 159), [50, 50, 150]);
    }

    #[test]
    fn a_mask_of_a_part_lies_where_it_belongs() {
        let mask = Mask { origin: [3, 1], size: [4, 2], pixels: vec![true; 8] };
        let mut image = grey(8, 6);
        objects(&mut image, &[Object { mask: Some(&mask), ..object([f32::NAN; 4]) }]);
        for (x, y, pixel) in image.enumerate_pixels() {
            let inside = (3..7).contains(&x) && (1..3).contains(&y);
            assert_eq!(pixel.0 == colour(3), inside, "{x}, {y}");
        }
    }

    #[test]
    fn the_best_lies_on_top() {
        let of = |index, score| Object { index, score, ..object([5.0, 5.0, 15.0, 15.0]) };
        for (scores, best) in
            [([0.9, 0.3], 0), ([0.3, 0.9], 1), ([0.5, 0.5], 0), ([f32::NAN, 0.1], 1), ([0.0, f32::NAN], 0)]
        {
            let mut image = grey(20, 20);
            objects(&mut image, &[of(0, scores[0]), of(1, scores[1])]);
            assert_eq!(at(&image, 5, 5), colour(best), "{scores:?}");
        }
    }

    /// Areas of the labels of these boxes on an image of this size, best first.
    fn placed(size: [usize; 2], boxes: &[[f32; 4]]) -> Vec<Region> {
        let mut labels = Vec::new();
        for &corners in boxes {
            labels.extend(Label::place(&object(corners), 16, size, &labels));
        }
        labels.into_iter().map(|label| label.area).collect()
    }

    #[test]
    fn labels_stand_where_there_is_place() {
        let size = [300, 200];
        let width = Text::of(&object([0.0; 4]), 16, 300).unwrap().width;
        for (corners, expected) in [
            // Above.
            ([50.0, 60.0, 150.0, 160.0], [50, 44]),
            ([50.0, 16.0, 150.0, 160.0], [50, 0]),
            // Inside.
            ([50.0, 15.0, 150.0, 160.0], [50, 15]),
            ([-20.0, -20.0, 150.0, 160.0], [0, 0]),
            // Below, of a box too low for its label.
            ([50.0, 5.0, 150.0, 30.0], [50, 30]),
            // Shifted into the image.
            ([290.0, 60.0, 300.0, 80.0], [300 - width, 44]),
        ] {
            let area = &placed(size, &[corners])[0];
            assert_eq!([area.x.start, area.y.start], expected, "{corners:?}");
            assert_eq!([area.x.len(), area.y.len()], [width, 16]);
        }
    }

    #[test]
    fn labels_do_not_hide_each_other() {
        let same = [[50.0, 60.0, 150.0, 160.0]; 40];
        let staggered: Vec<[f32; 4]> =
            (0..40).map(|i| [0.0, 0.0, 40.0, 60.0].map(|v| v + 6.0 * i as f32)).collect();
        for boxes in [&same[..], &staggered] {
            let areas = placed([300, 300], boxes);
            assert!(areas.len() >= 4, "{}", areas.len());
            for (i, a) in areas.iter().enumerate() {
                assert!(a.x.end <= 300 && a.y.end <= 300, "{a:?}");
                assert!(areas[..i].iter().all(|b| !overlap(a, b)), "{areas:?}");
            }
        }
    }

    #[test]
    fn labels_are_written_in_their_colour() {
        let mut image = grey(400, 300);
        objects(&mut image, &[Object { index: 1, ..object([50.0, 60.0, 350.0, 260.0]) }]);
        let label =
            || image.enumerate_pixels().filter(|(x, y, _)| (50..90).contains(x) && (47..60).contains(y));
        assert_eq!(ink(colour(1)), [0; 3]);
        assert!(label().all(|(.., pixel)| pixel[0] <= colour(1)[0] && pixel[1] <= colour(1)[1]));
        let dark = label().filter(|(.., pixel)| pixel[1] < 60).count();
        assert!((40..200).contains(&dark), "{dark}");
        assert_eq!(at(&image, 60, 46), GREY);
    }

    #[test]
    fn names_are_shortened_to_the_image() {
        let text = |label, width| Text::of(&Object { label, ..object([0.0; 4]) }, 16, width);
        let glyphs = |label, width| text(label, width).map(|text| text.glyphs.len());
        assert_eq!(glyphs("traffic light", 300), Some("traffic light 50%".len()));
        assert_eq!(glyphs("traffic light", 100), Some("traffic… 50%".chars().count()));
        assert_eq!(glyphs("traffic light", 40), None);
        assert_eq!(glyphs("", 300), Some("50%".len()));
        assert_eq!(glyphs(&"l".repeat(1000), 2000), Some(60 + "… 50%".chars().count()));
    }

    #[test]
    fn small_pictures_have_no_labels_and_large_ones_large() {
        for (size, letters) in [
            ([32, 32], None),
            ([40, 30], None),
            ([5000, 60], None),
            ([300, 200], Some(13)),
            ([640, 480], Some(15)),
            ([4000, 3000], Some(96)),
            ([6000, 4000], Some(136)),
        ] {
            assert_eq!(Style::new(size).letters, letters, "{size:?}");
        }
        let style = Style::new([6000, 4000]);
        assert_eq!([style.line, style.edge], [17, 10]);
    }

    #[test]
    fn labels_cover_a_quarter_at_most() {
        let boxes: Vec<Object> = (0..400)
            .map(|i| [(i % 20 * 15) as f32, (i / 20 * 10) as f32])
            .map(|[x, y]| object([x, y, x + 14.0, y + 9.0]))
            .collect();
        let mut image = grey(300, 200);
        labels(&mut image, &boxes.iter().collect::<Vec<_>>(), &Style::new([300, 200]));
        let covered = image.pixels().filter(|pixel| pixel.0 != GREY).count();
        assert!((10_000..=15_000).contains(&covered), "{covered}");
    }

    /// Every letter of the alphabets that the font was cut down to, and of the class names.
    #[test]
    fn the_font_has_the_letters() {
        let names = ["ade20k", "coco", "imagenet-1k"]
            .map(|name| format!("{}/assets/labels/{name}.txt", env!("CARGO_MANIFEST_DIR")))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .concat();
        let text = "Zażółć gęślą jaźń Größe Ærø ΑΒΓ αβγ Привет Ѓ ґ “”„—… €%";
        for letter in names.chars().chain(text.chars()).filter(|letter| !letter.is_control()) {
            assert_ne!(FONT.glyph_id(letter).0, 0, "{letter}");
        }
    }
}
