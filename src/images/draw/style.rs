//! Widths and heights that fit a picture.

/// What depends on the size of the picture, in pixels.
pub struct Style {
    /// Width of a box's line.
    pub line: usize,
    /// Width of a mask's edge.
    pub edge: usize,
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
        let letters = (side / 36.0).max(Self::LEGIBLE).round();
        let letters = (6.0 * letters <= short).then_some(letters as usize);
        Self { line: wide(1.0 / 280.0), edge: wide(1.0 / 480.0), letters }
    }
}

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
        assert_eq!([style.line, style.edge], [17, 10]);
    }
}
