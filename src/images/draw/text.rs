//! Names and shares as letters.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, Glyph, ScaleFont, point};
use image::RgbImage;

use super::object::DrawnObject;
use super::shapes::blend;

/// DejaVu Sans Condensed Bold 2.37 of Debian's fonts-dejavu-extra, through fonttools 4.68: `pyftsubset
/// --unicodes=20-7E,A0-17F,370-3E1,3F0-45F,48A-4A7,4AA-4F9,2010-2027,2030-203A,20AC,2122,2212,FFFD
/// --layout-features= --drop-tables+=FFTM,GDEF,GPOS,GSUB,gasp --no-hinting --legacy-kern --name-IDs=*`.
static FONT: LazyLock<FontRef> = LazyLock::new(|| {
    FontRef::try_from_slice(include_bytes!("../../../assets/DejaVuSansCondensed-Bold.ttf"))
        .unwrap_or_else(|e| unreachable!("the font is part of the program: {e}"))
});

/// A line of text, its upper left corner at (0, 0).
pub struct Text {
    glyphs: Vec<Glyph>,
    /// With a margin on both sides.
    pub width: usize,
}

impl Text {
    /// Letters of a name that are printed at most.
    const LONGEST: usize = 60;
    /// Letters that a name is not shortened below.
    const SHORTEST: usize = 3;

    /// An object's name and score, the name shortened to what an image of this width has place for.
    pub fn of(object: &DrawnObject, height: usize, image_width: usize) -> Option<Self> {
        Self::shortened(object.label, &format!(" {}", percent(object.score)), height, image_width)
    }

    /// A name and what follows it, the name shortened to a width in pixels; `None` where even a few letters of it are
    /// wider.
    pub fn shortened(name: &str, tail: &str, height: usize, width: usize) -> Option<Self> {
        let letters: Vec<char> = name.chars().take(Self::LONGEST + 1).collect();
        let whole = (letters.len() <= Self::LONGEST).then(|| format!("{name}{tail}"));
        let shorter = (Self::SHORTEST..letters.len()).rev().map(|count| {
            let name: String = letters[..count].iter().collect();
            format!("{}…{tail}", name.trim_end())
        });
        let mut texts = whole.into_iter().chain(shorter).map(|text| Self::set(text.trim(), height));
        texts.find(|text| text.width <= width)
    }

    /// A text in letters of this height.
    pub fn set(text: &str, height: usize) -> Self {
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

    pub fn draw(&self, image: &mut RgbImage, [left, top]: [usize; 2], ink: [u8; 3]) {
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

/// A share of 0 to 1 in percent; NaN counts as 0.
pub fn percent(share: f32) -> String {
    format!("{}%", (share.clamp(0.0, 1.0) * 100.0).round() as u8)
}

/// Black or white, whichever has the higher contrast by WCAG 2 on a colour.
pub fn ink(colour: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = colour.map(|value| (f32::from(value) / 255.0).powf(2.2));
    // Where (luminance + 0.05) / 0.05 is 1.05 / (luminance + 0.05).
    if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 { [0; 3] } else { [255; 3] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(corners: [f32; 4]) -> DrawnObject<'static> {
        DrawnObject { index: 3, label: "cat", score: 0.5, corners, mask: None }
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
    fn names_are_shortened_to_the_image() {
        let text = |label, width| Text::of(&DrawnObject { label, ..object([0.0; 4]) }, 16, width);
        let glyphs = |label, width| text(label, width).map(|text| text.glyphs.len());
        assert_eq!(glyphs("traffic light", 300), Some("traffic light 50%".len()));
        assert_eq!(glyphs("traffic light", 100), Some("traffic… 50%".chars().count()));
        assert_eq!(glyphs("traffic light", 40), None);
        assert_eq!(glyphs("", 300), Some("50%".len()));
        assert_eq!(glyphs(&"l".repeat(1000), 2000), Some(60 + "… 50%".chars().count()));
    }

    /// Every letter of the alphabets that the font was cut down to, and of the class names.
    #[test]
    fn the_font_has_the_letters() {
        let names = ["ade20k", "coco", "imagenet-1k"]
            .map(|name| format!("{}/convert/assets/labels/{name}.txt", env!("CARGO_MANIFEST_DIR")))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .concat();
        let text = "Zażółć gęślą jaźń Größe Ærø ΑΒΓ αβγ Привет Ѓ ґ “”„—… €%";
        for letter in names.chars().chain(text.chars()).filter(|letter| !letter.is_control()) {
            assert_ne!(FONT.glyph_id(letter).0, 0, "{letter}");
        }
    }
}
