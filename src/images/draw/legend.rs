//! A legend: the colours of classes, their names and shares.

use image::RgbImage;

use super::canvas::extended;
use super::shapes::{fill, frame, shade};
use super::style::{FRAMED, PAPER, Style, Theme};
use super::text::{Text, percent};
use crate::images::resize::Region;

/// Where what explains a picture stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Legend {
    /// On the right of the picture or below it, which becomes larger: no pixel is covered.
    #[default]
    Beside,
    /// On the picture, in its lower left.
    Inside,
    /// Nowhere.
    Off,
}

/// A line of a legend.
#[derive(Clone, Copy, Debug)]
pub struct LegendEntry<'a> {
    /// Colour of the class.
    pub colour: [u8; 3],
    /// Name of the class.
    pub name: &'a str,
    /// Share of the picture, 0 to 1.
    pub share: f32,
}

/// Names are cut to so many heights of a line.
const LONGEST: usize = 14;

/// Lines for which there has to be place on the right of a picture; else they stand below it.
const FEWEST: usize = 8;

/// Rows below a picture at most.
const ROWS: usize = 8;

/// A picture with its legend, which says how many entries there is no place for. Pictures with no place for letters have
/// none inside.
pub fn legend(image: RgbImage, entries: &[LegendEntry], place: Legend) -> RgbImage {
    let size = [image.width() as usize, image.height() as usize];
    if place == Legend::Off || entries.is_empty() || size.contains(&0) {
        return image;
    }
    let style = Style::new(size);
    match place {
        Legend::Inside if style.letters.is_some() => inside(image, entries, style.text),
        Legend::Beside => beside(image, entries, style.text),
        _ => image,
    }
}

fn beside(image: RgbImage, entries: &[LegendEntry], text: usize) -> RgbImage {
    let [width, height] = [image.width() as usize, image.height() as usize];
    let (line, margin) = (line_height(text), text);
    let on_the_right = height.saturating_sub(2 * margin) / line;
    if on_the_right >= FEWEST.min(entries.len()) {
        let list = List::new(entries, on_the_right, text, LONGEST * text);
        let mut image = extended(image, [list.width() + 2 * margin, 0], PAPER.ground);
        list.draw(&mut image, [width + margin, margin], list.lines.len(), &PAPER);
        return image;
    }
    let gap = column_gap(text);
    let of = |columns: usize| List::new(entries, ROWS * columns, text, LONGEST * text);
    let wide = |list: &List, columns: usize| columns * (list.width() + gap) - gap + 2 * margin;
    // As many columns as there is place for, in each of which is something.
    let most = entries.len().min(width / text);
    let columns = (1..=most).rev().find(|&columns| wide(&of(columns), columns) <= width).unwrap_or(1);
    let list = of(columns);
    let rows = list.lines.len().div_ceil(columns);
    let columns = list.lines.len().div_ceil(rows);
    let wider = wide(&list, columns).saturating_sub(width);
    let mut image = extended(image, [wider, rows * line + 2 * margin], PAPER.ground);
    list.draw(&mut image, [margin, height + margin], rows, &PAPER);
    image
}

fn inside(mut image: RgbImage, entries: &[LegendEntry], text: usize) -> RgbImage {
    /// How much of the height the lines take at most.
    const HEIGHT: f64 = 0.6;
    let [width, height] = [image.width() as usize, image.height() as usize];
    let (line, margin, inset) = (line_height(text), text / 2, text / 2);
    let most = (HEIGHT * height as f64) as usize / line;
    let list = List::new(entries, most, text, (LONGEST * text).min(width / 2));
    let [wide, high] = [list.width() + 2 * margin, list.lines.len() * line + 2 * margin];
    if list.lines.is_empty() || wide + inset > width || high + inset > height {
        return image;
    }
    let (left, top) = (inset, height - inset - high);
    shade(&mut image, &Region { x: left..left + wide, y: top..top + high }, FRAMED.ground, FRAMED.opacity);
    list.draw(&mut image, [left + margin, top + margin], list.lines.len(), &FRAMED);
    image
}

/// Height of a line for letters of this height.
fn line_height(text: usize) -> usize {
    text * 7 / 5
}

/// What lies between columns of lines.
fn column_gap(text: usize) -> usize {
    2 * text
}

/// Lines of a legend.
struct List {
    lines: Vec<Line>,
    text: usize,
    /// Width of the names, and of the shares.
    widths: [usize; 2],
}

struct Line {
    colour: Option<[u8; 3]>,
    name: Text,
    share: Text,
}

impl List {
    /// The first of the entries, `most` lines of them with one that says how many more there are, names no wider than
    /// `longest` pixels.
    fn new(entries: &[LegendEntry], most: usize, text: usize, longest: usize) -> Self {
        let named = if entries.len() > most { most.saturating_sub(1) } else { entries.len() };
        let (named, more) = entries.split_at(named);
        let line = |colour, name: &str, share| {
            let name = Text::shortened(name, "", text, longest).unwrap_or_else(|| Text::set("…", text));
            Line { colour, name, share: Text::set(&share_in_words(share), text) }
        };
        let mut lines: Vec<Line> =
            named.iter().map(|entry| line(Some(entry.colour), entry.name, entry.share)).collect();
        if !more.is_empty() && most > 0 {
            let share = more.iter().map(|entry| entry.share).sum();
            lines.push(line(None, &rest_in_words(more.len()), share));
        }
        let widest = |width: fn(&Line) -> usize| lines.iter().map(width).max().unwrap_or(0);
        let widths = [widest(|line| line.name.width), widest(|line| line.share.width)];
        Self { lines, text, widths }
    }

    /// A swatch, a name, a share.
    fn width(&self) -> usize {
        self.swatch() + self.gap() + self.widths[0] + 2 * self.gap() + self.widths[1]
    }

    fn swatch(&self) -> usize {
        self.text
    }

    fn gap(&self) -> usize {
        self.text / 4
    }

    /// Draws the lines from a corner on, in columns of so many.
    fn draw(&self, image: &mut RgbImage, [left, top]: [usize; 2], rows: usize, theme: &Theme) {
        let line_height = line_height(self.text);
        for (i, line) in self.lines.iter().enumerate() {
            let left = left + i / rows * (self.width() + column_gap(self.text));
            let top = top + i % rows * line_height;
            if let Some(colour) = line.colour {
                let inset = (line_height - self.swatch()) / 2;
                let y = top + inset..top + inset + self.swatch();
                let area = Region { x: left..left + self.swatch(), y };
                fill(image, &area, colour);
                if theme.hides(colour) {
                    frame(image, &area, 1, theme.faint);
                }
            }
            let above = top + (line_height - self.text) / 2;
            let name = left + self.swatch() + self.gap();
            line.name.draw(image, [name, above], if line.colour.is_some() { theme.ink } else { theme.faint });
            let right = left + self.width() - line.share.width;
            line.share.draw(image, [right, above], theme.faint);
        }
    }
}

fn rest_in_words(count: usize) -> String {
    format!("and {count} more")
}

/// A share in percent; what is there is never 0%.
fn share_in_words(share: f32) -> String {
    if share > 0.0 && share < 0.005 { "<1%".to_owned() } else { percent(share) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREY: [u8; 3] = [100; 3];

    fn grey(width: u32, height: u32) -> RgbImage {
        RgbImage::from_pixel(width, height, image::Rgb(GREY))
    }

    /// So many classes of equal shares, each in another red.
    fn entries(count: usize) -> Vec<LegendEntry<'static>> {
        let entry = |i| LegendEntry { colour: [200, i as u8, 0], name: "wall", share: 1.0 / count as f32 };
        (0..count).map(entry).collect()
    }

    /// How many entries have their colour in a picture.
    fn shown(image: &RgbImage, entries: &[LegendEntry]) -> usize {
        entries.iter().filter(|entry| image.pixels().any(|pixel| pixel.0 == entry.colour)).count()
    }

    #[test]
    fn beside_the_picture_it_covers_no_pixel() {
        for (size, count, on_the_right, all) in [
            ([640, 480], 5, true, true),
            ([640, 480], 20, true, true),
            ([640, 480], 60, true, false),
            ([448, 1792], 40, true, true),
            ([9, 3000], 30, true, true),
            // Too low for a list.
            ([1792, 60], 30, false, true),
            ([3000, 9], 5, false, true),
            ([1792, 60], 200, false, false),
        ] {
            let entries = entries(count);
            let [width, height] = size;
            let drawn = legend(grey(width, height), &entries, Legend::Beside);
            let grew = [drawn.width() > width, drawn.height() > height];
            assert_eq!(grew, [on_the_right, !on_the_right], "{size:?}");
            for y in 0..height {
                assert!((0..width).all(|x| drawn.get_pixel(x, y).0 == GREY), "{size:?}, row {y}");
            }
            // One more than what fits is said in one line.
            let shown = shown(&drawn, &entries);
            assert!(if all { shown == count } else { (8..count - 1).contains(&shown) }, "{size:?}: {shown}");
        }
    }

    #[test]
    fn inside_it_leaves_most_of_the_picture() {
        for (count, all) in [(3, true), (60, false)] {
            let entries = entries(count);
            let drawn = legend(grey(640, 480), &entries, Legend::Inside);
            assert_eq!(drawn.dimensions(), (640, 480));
            assert_eq!(shown(&drawn, &entries) == count, all);
            let covered = drawn.pixels().filter(|pixel| pixel.0 != GREY).count();
            assert!((1000..640 * 480 / 5).contains(&covered), "{covered}");
            // In the lower left, with even margins.
            let of = |x: u32, y: u32| drawn.get_pixel(x, y).0;
            assert!(of(6, 470) == GREY && of(7, 472) != GREY && of(7, 473) == GREY);
            assert!((0..640).all(|x| of(x, 479) == GREY) && (0..640).all(|x| of(x, 180) == GREY));
        }
        // No place for letters.
        assert!(legend(grey(3000, 60), &entries(3), Legend::Inside) == grey(3000, 60));
    }

    #[test]
    fn a_colour_like_the_paper_has_a_frame() {
        for (colour, framed) in
            [([230; 3], true), ([255; 3], true), ([200, 0, 0], false), ([250, 250, 0], false)]
        {
            let entry = LegendEntry { colour, name: "", share: 1.0 };
            let drawn = legend(grey(640, 480), &[entry], Legend::Beside);
            // Letters of 15 pixels: a margin of as many, and a line that is 21 high.
            let [edge, middle] = [18, 25].map(|y| drawn.get_pixel(640 + 20, y).0);
            assert_eq!([edge, middle], [if framed { PAPER.faint } else { colour }, colour], "{colour:?}");
        }
    }

    #[test]
    fn off_is_off() {
        assert!(legend(grey(640, 480), &entries(3), Legend::Off) == grey(640, 480));
        assert!(legend(grey(640, 480), &[], Legend::Beside) == grey(640, 480));
        assert_eq!(legend(grey(0, 0), &entries(3), Legend::Beside).dimensions(), (0, 0));
    }

    #[test]
    fn what_there_is_no_place_for_is_counted() {
        let lines = |count, most| List::new(&entries(count), most, 16, 200).lines;
        let last = |count, most| lines(count, most).pop().map(|line| line.colour.is_none());
        for (count, most, expected) in [(5, 5, (5, Some(false))), (6, 5, (5, Some(true))), (3, 0, (0, None))]
        {
            assert_eq!((lines(count, most).len(), last(count, most)), expected, "{count} in {most}");
        }
        assert_eq!(rest_in_words(12), "and 12 more");
        for (share, expected) in [(0.0, "0%"), (0.004, "<1%"), (0.006, "1%"), (0.996, "100%")] {
            assert_eq!(share_in_words(share), expected);
        }
    }

    #[test]
    fn nothing_panics_on_any_size_and_name() {
        let long = "W".repeat(2000);
        for [width, height] in [[1, 1], [1, 3000], [3000, 1], [78, 78], [79, 3000], [448, 448]] {
            for name in ["", "wall", &long, "a\nb\u{4e2d}\u{1f600}"] {
                for count in [1, 7, 300] {
                    let entries = vec![LegendEntry { colour: [1, 2, 3], name, share: f32::NAN }; count];
                    legend(grey(width, height), &entries, Legend::Beside);
                    legend(grey(width, height), &entries, Legend::Inside);
                }
            }
        }
    }
}
