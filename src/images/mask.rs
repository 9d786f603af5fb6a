//! Masks of objects in a picture: pasted from a detector's grid as mmdet does it, and written as COCO's
//! run-length encoding.

use crate::results::Rle;

/// A mask of a picture that is empty outside of a rectangle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Left and top edge of the rectangle in pixels.
    pub origin: [usize; 2],
    /// Width and height of the rectangle.
    pub size: [usize; 2],
    /// The rectangle's pixels, row by row.
    pub pixels: Vec<bool>,
}

/// Why a mask has no encoding.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaskError {
    /// Runs are counted in 32 bits.
    #[error("a picture of {0}x{1} pixels is too large for a mask")]
    Size(usize, usize),
    /// The rectangle is not in the picture, or its pixels are not as many as it has.
    #[error("a mask of {size:?} pixels at {origin:?} is not one of a picture of {picture:?}")]
    #[allow(missing_docs)]
    Outside { origin: [usize; 2], size: [usize; 2], picture: [usize; 2] },
    /// A text that is no encoding of a mask of this size.
    #[error(
        "the counts of a mask of {0}x{1} pixels are not COCO's compressed run lengths, or not of so many pixels"
    )]
    Counts(usize, usize),
}

/// Where a pixel's centre lies on one axis of the grid: between two cells, `None` outside, `part` of
/// the way to the second.
struct CellPosition {
    cells: [Option<usize>; 2],
    part: f32,
}

/// The mask of an object of a picture of `size` (width, height): a `side` x `side` grid of
/// probabilities over the box `corners` (x1, y1, x2, y2), interpolated at the centre of each pixel with
/// 0 around the grid, is on from `threshold` on. mmdet's `_do_paste_mask`.
///
/// # Panics
/// When the grid has another length.
pub fn paste(grid: &[f32], side: usize, corners: [f32; 4], size: [usize; 2], threshold: f32) -> Mask {
    assert_eq!(grid.len(), side * side);
    let [(x, columns), (y, rows)] =
        [0, 1].map(|axis| places(corners[axis], corners[axis + 2], side, size[axis]));
    let mut pixels = Vec::with_capacity(columns.len() * rows.len());
    for row in &rows {
        for column in &columns {
            let value = |y: Option<usize>, x: Option<usize>| match (y, x) {
                (Some(y), Some(x)) => grid[y * side + x],
                _ => 0.0,
            };
            let across =
                |y| value(y, column.cells[0]) * (1.0 - column.part) + value(y, column.cells[1]) * column.part;
            let probability = across(row.cells[0]) * (1.0 - row.part) + across(row.cells[1]) * row.part;
            pixels.push(probability >= threshold);
        }
    }
    Mask { origin: [x, y], size: [columns.len(), rows.len()], pixels }
}

/// The first pixel of an axis that an object may cover, and where it and those after it lie in the grid.
fn places(low: f32, high: f32, side: usize, size: usize) -> (usize, Vec<CellPosition>) {
    let first = (low.floor() - 1.0).clamp(0.0, size as f32) as usize;
    let end = (high.ceil() + 1.0).clamp(first as f32, size as f32) as usize;
    let place = |pixel: usize| {
        let within = (pixel as f32 + 0.5 - low) / (high - low) * 2.0 - 1.0;
        // Of an empty box every pixel is in the middle.
        let within = if within.is_finite() { within } else { 0.0 };
        let at = ((within + 1.0) * side as f32 - 1.0) / 2.0;
        let cell = |at: f32| (at >= 0.0 && at < side as f32).then_some(at as usize);
        CellPosition { cells: [cell(at.floor()), cell(at.floor() + 1.0)], part: at - at.floor() }
    };
    (first, (first..end).map(place).collect())
}

impl Mask {
    /// The mask that [`Mask::encode`] made the encoding of, in the smallest rectangle that holds it.
    ///
    /// # Errors
    /// When the text is no encoding, or one of a mask of another size.
    pub fn decode(rle: &Rle) -> Result<Self, MaskError> {
        let [height, width] = rle.size;
        let lengths = lengths(&rle.counts).filter(|lengths| {
            let sum = lengths.iter().try_fold(0usize, |sum, &length| sum.checked_add(length as usize));
            sum.is_some_and(|sum| Some(sum) == width.checked_mul(height))
        });
        let lengths = lengths.ok_or(MaskError::Counts(width, height))?;
        // The runs that are on, from the first pixel of each to the one after its last, column by column.
        let mut end = 0;
        let runs = lengths.iter().enumerate().filter_map(|(i, &length)| {
            end += length as usize;
            (i % 2 == 1 && length > 0).then(|| end - length as usize..end)
        });
        let runs: Vec<_> = runs.collect();
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            return Ok(Self { origin: [0; 2], size: [0; 2], pixels: Vec::new() });
        };
        let columns = first.start / height..last.end.div_ceil(height);
        // A run that goes on in the next column has pixels at the top and at the bottom.
        let rows = runs.iter().fold([height, 0], |[top, bottom], run| {
            let one_column = run.start / height == (run.end - 1) / height;
            let rows = if one_column { run.start % height..(run.end - 1) % height + 1 } else { 0..height };
            [top.min(rows.start), bottom.max(rows.end)]
        });
        let size = [columns.len(), rows[1] - rows[0]];
        let mut pixels = vec![false; size[0] * size[1]];
        for pixel in runs.into_iter().flatten() {
            pixels[(pixel % height - rows[0]) * size[0] + pixel / height - columns.start] = true;
        }
        Ok(Self { origin: [columns.start, rows[0]], size, pixels })
    }

    /// Whether the pixel at x and y of the rectangle is on; outside of it none is.
    pub(crate) fn has(&self, [x, y]: [isize; 2]) -> bool {
        let within = |at: isize, size: usize| usize::try_from(at).ok().filter(|at| *at < size);
        within(x, self.size[0])
            .zip(within(y, self.size[1]))
            .is_some_and(|(x, y)| self.pixels[y * self.size[0] + x])
    }

    /// The pixels of the whole picture of `size` (width, height), row by row.
    ///
    /// # Panics
    /// When the mask is not one of such a picture.
    pub fn whole(&self, size: [usize; 2]) -> Vec<bool> {
        let mut pixels = vec![false; size[0] * size[1]];
        let [[x, y], [columns, _]] = [self.origin, self.size];
        for (row, from) in self.pixels.chunks_exact(columns.max(1)).enumerate() {
            pixels[(y + row) * size[0] + x..][..columns].copy_from_slice(from);
        }
        pixels
    }

    /// The mask of the whole picture of `size` (width, height) in COCO's compressed form.
    ///
    /// # Errors
    /// When the picture has more pixels than the form can count, or is another one.
    pub fn encode(&self, size: [usize; 2]) -> Result<Rle, MaskError> {
        let [width, height] = size;
        let ([x, y], [columns, rows]) = (self.origin, self.size);
        let in_picture =
            |axis: usize| self.origin[axis].checked_add(self.size[axis]).is_some_and(|end| end <= size[axis]);
        if !(in_picture(0) && in_picture(1)) || columns.checked_mul(rows) != Some(self.pixels.len()) {
            return Err(MaskError::Outside { origin: self.origin, size: self.size, picture: size });
        }
        // A run is of all pixels at most, so that every count below fits.
        let too_large = || MaskError::Size(width, height);
        let all = width.checked_mul(height).ok_or_else(too_large)?;
        u32::try_from(all.max(width).max(height)).map_err(|_| too_large())?;
        let mut runs = Runs::default();
        runs.add(false, x * height);
        for column in 0..columns {
            runs.add(false, y);
            (0..rows).for_each(|row| runs.add(self.pixels[row * columns + column], 1));
            runs.add(false, height - y - rows);
        }
        runs.add(false, (width - x - columns) * height);
        Ok(Rle { size: [height, width], counts: compressed(&runs.lengths) })
    }
}

/// The lengths of runs of equal pixels, column by column: background, object, background, ...
#[derive(Default)]
struct Runs {
    lengths: Vec<u32>,
}

impl Runs {
    /// Appends pixels that are `on` or not. There are fewer than 2^32 in all.
    fn add(&mut self, on: bool, pixels: usize) {
        // The first run is background, of no pixels where the object begins at once.
        let is_on = self.lengths.len().is_multiple_of(2);
        match self.lengths.last_mut() {
            _ if pixels == 0 => {}
            Some(last) if is_on == on => *last += pixels as u32,
            None if on => self.lengths.extend([0, pixels as u32]),
            _ => self.lengths.push(pixels as u32),
        }
    }
}

/// Run lengths as COCO's text (`rleToString` of its `maskApi.c`): from the fourth on the difference from the one before
/// the last, each number in groups of five bits, lowest first, whose sixth bit says that more follow.
fn compressed(lengths: &[u32]) -> String {
    let mut text = String::new();
    for (i, &length) in lengths.iter().enumerate() {
        let before = if i > 2 { lengths[i - 2] } else { 0 };
        let mut rest = i64::from(length) - i64::from(before);
        loop {
            let bits = (rest & 0x1f) as u8;
            rest >>= 5;
            // The last group's highest bit is the sign.
            let more = rest != if bits & 0x10 == 0 { 0 } else { -1 };
            text.push(char::from(b'0' + (bits | if more { 0x20 } else { 0 })));
            if !more {
                break;
            }
        }
    }
    text
}

/// The run lengths of COCO's text (`rleFrString` of its `maskApi.c`), `None` where it is none.
fn lengths(text: &str) -> Option<Vec<u32>> {
    // Twelve bits more than a length can have.
    const MOST_GROUPS: u32 = 9;
    let mut lengths: Vec<u32> = Vec::new();
    let mut bytes = text.bytes();
    while let Some(mut byte) = bytes.next() {
        let (mut value, mut groups) = (0i64, 0);
        loop {
            let bits = byte.checked_sub(b'0').filter(|bits| *bits < 0x40 && groups < MOST_GROUPS)?;
            value |= i64::from(bits & 0x1f) << (5 * groups);
            groups += 1;
            if bits & 0x20 == 0 {
                // The last group's highest bit is the sign.
                value -= i64::from(bits & 0x10) << (5 * groups - 4);
                break;
            }
            byte = bytes.next()?;
        }
        let before = if lengths.len() > 2 { lengths[lengths.len() - 2] } else { 0 };
        lengths.push(u32::try_from(value + i64::from(before)).ok()?);
    }
    Some(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_grid_fills_its_box_and_an_empty_one_nothing() {
        let ones = [1.0; 28 * 28];
        let inside = |mask: &Mask| -> Vec<[usize; 2]> {
            let on = mask.pixels.iter().enumerate().filter(|(_, on)| **on);
            on.map(|(i, _)| [mask.origin[0] + i % mask.size[0], mask.origin[1] + i / mask.size[0]]).collect()
        };
        for (corners, [left, top, right, bottom]) in [
            ([2.0, 3.0, 6.0, 9.0], [2, 3, 6, 9]),
            // Pixels whose centres are inside, or on the edge.
            ([2.6, 3.4, 6.4, 8.6], [3, 3, 6, 9]),
            ([-5.0, -5.0, 50.0, 50.0], [0, 0, 12, 10]),
        ] {
            let mask = paste(&ones, 28, corners, [12, 10], 0.5);
            let expected: Vec<_> = (top..bottom).flat_map(|y| (left..right).map(move |x| [x, y])).collect();
            assert_eq!(inside(&mask), expected, "{corners:?}");
        }
        assert!(inside(&paste(&[0.0; 28 * 28], 28, [2.0, 3.0, 6.0, 9.0], [12, 10], 0.5)).is_empty());
    }

    #[test]
    fn encoding_a_rectangle_is_encoding_the_picture() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (origin, size) in [
            ([0, 0], [5, 4]),
            ([2, 1], [3, 2]),
            ([0, 0], [2, 4]),
            ([4, 3], [1, 1]),
            ([5, 0], [0, 0]),
            ([3, 0], [2, 4]),
        ] {
            for fill in [0, 1, 2] {
                let on = |_| if fill == 2 { rng.bool() } else { fill == 1 };
                let mask = Mask { origin, size, pixels: (0..size[0] * size[1]).map(on).collect() };
                let mut whole = vec![0; 5 * 4];
                for (i, &on) in mask.pixels.iter().enumerate() {
                    whole[(origin[0] + i % size[0]) * 4 + origin[1] + i / size[0]] = u8::from(on);
                }
                let expected = hotcoco::mask::rle_to_string(&hotcoco::mask::encode(&whole, 4, 5).unwrap());
                let got = mask.encode([5, 4]).unwrap();
                assert_eq!((got.size, &got.counts), ([4, 5], &expected), "{mask:?}");
                assert!(
                    mask.whole([5, 4])
                        .iter()
                        .enumerate()
                        .all(|(i, on)| u8::from(*on) == whole[i % 5 * 4 + i / 5])
                );
                // And back, to the smallest rectangle.
                let back = Mask::decode(&got).unwrap();
                assert!(back.size.iter().zip(mask.size).all(|(back, whole)| *back <= whole), "{back:?}");
                assert_eq!(back.encode([5, 4]).unwrap(), got, "{mask:?}");
            }
        }
    }

    #[test]
    fn a_text_that_encodes_no_mask_is_an_error() {
        for counts in ["", "!", "d", "P", "oooooooooooooooooo", "\u{e9}", "e01", "d1"] {
            let error = Mask::decode(&Rle { size: [4, 5], counts: counts.to_owned() });
            assert!(matches!(error, Err(MaskError::Counts(5, 4))), "{counts}: {error:?}");
        }
        let none = Mask::decode(&Rle { size: [4, 5], counts: "d0".to_owned() }).unwrap();
        assert_eq!(none, Mask { origin: [0; 2], size: [0; 2], pixels: Vec::new() });
    }

    #[test]
    fn what_can_not_be_counted_is_an_error() {
        let mask = |origin, size: [usize; 2]| Mask { origin, size, pixels: vec![true; size[0] * size[1]] };
        // The first has more pixels than 32 bits count, the second just as few as they do.
        for (picture, fits) in [([65_537, 65_536], false), ([65_535, 65_536], true), ([usize::MAX, 2], false)]
        {
            let rle = mask([65_534, 0], [1, 1]).encode(picture);
            assert_eq!(rle.is_ok(), fits, "{picture:?}: {rle:?}");
        }
        let rle = mask([65_534, 0], [1, 1]).encode([65_535, 65_536]).unwrap();
        let runs = hotcoco::mask::rle_from_string(&rle.counts, 65_536, 65_535).unwrap();
        assert_eq!(runs.counts, [65_534 * 65_536, 1, 65_535]);
        for (origin, size) in [([4, 0], [2, 1]), ([0, 3], [1, 2]), ([usize::MAX, 0], [1, 1])] {
            let error = mask(origin, size).encode([5, 4]).unwrap_err();
            assert!(matches!(error, MaskError::Outside { .. }), "{error}");
        }
        let short = Mask { pixels: Vec::new(), ..mask([0, 0], [2, 2]) };
        assert!(matches!(short.encode([5, 4]), Err(MaskError::Outside { .. })));
    }
}
