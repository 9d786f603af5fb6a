//! Widths and heights that fit a picture.

/// What depends on the size of the picture, in pixels.
pub struct Style {
    /// Width of a box's line.
    pub line: usize,
    /// Width of a mask's edge and of a border between regions.
    pub edge: usize,
    /// Height of a line of letters where there is place for it.
    pub text: usize,
    /// Height of a label; `None` where there is no place for labels.
    pub letters: Option<usize>,
}

impl Style {
    /// The smallest height at which the font's letters can be told apart.
    const LEGIBLE: f64 = 13.0;

    /// Of a picture of this width and height.
    pub fn new([width, height]: [usize; 2]) -> Self {
        let short = width.min(height) as f64;
        // The side of a square as large; long strips count by their short side.
        let side = ((width * height) as f64).sqrt().min(2.0 * short);
        let wide = |share: f64| ((side * share).round() as usize).max(1);
        let text = (side / 36.0).max(Self::LEGIBLE).round();
        let letters = (6.0 * text <= short).then_some(text as usize);
        Self { line: wide(1.0 / 280.0), edge: wide(1.0 / 560.0), text: text as usize, letters }
    }
}

/// What text is written in, and on.
pub struct Theme {
    /// What it is written on, and how much of it covers what was there.
    pub ground: [u8; 3],
    /// As [`Theme::ground`] says.
    pub opacity: f32,
    /// Names.
    pub ink: [u8; 3],
    /// What is read second.
    pub faint: [u8; 3],
}

impl Theme {
    /// Whether a colour is hardly seen on the ground.
    pub fn hides(&self, colour: [u8; 3]) -> bool {
        /// Values that are less apart look alike.
        const ALIKE: u8 = 48;
        self.ground.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < ALIKE)
    }
}

/// Beside a picture, as in a report.
pub const PAPER: Theme = Theme { ground: [255; 3], opacity: 1.0, ink: [32; 3], faint: [104; 3] };

/// On a picture, be it dark or bright.
pub const FRAMED: Theme = Theme { ground: [16; 3], opacity: 0.72, ink: [255; 3], faint: [200; 3] };

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!([style.line, style.edge, style.text], [17, 9, 136]);
        assert_eq!(Style::new([40, 30]).text, 13);
        // From where pictures are no longer enlarged, an edge is thinner than a box.
        for side in 448..4000 {
            let style = Style::new([side, side]);
            assert!(style.edge < style.line, "{side}");
        }
    }
}
