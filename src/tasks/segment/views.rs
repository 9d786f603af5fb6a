//! The way from the logits of a network's passes to the scores of the original picture, row by row: at full
//! size the logits of all classes take gigabytes.

use candle_core::{Result, Tensor};
use nat_convert::recipe::SlidingWindow;

use crate::layers::resample::{Tap, row, taps};
use crate::layers::softmax::softmax;

/// The windows of one size through which the network looks at an input.
pub(super) struct SlidingWindows {
    /// Width and height of each window.
    size: [usize; 2],
    /// Where windows begin across and down.
    starts: [Vec<usize>; 2],
}

impl SlidingWindows {
    /// Of an input of this width and height; one of its size unless a window slides.
    pub(super) fn new(input: [usize; 2], sliding: Option<SlidingWindow>) -> Self {
        let Some(SlidingWindow { crop, stride }) = sliding else {
            return Self { size: input, starts: [vec![0], vec![0]] };
        };
        // A recipe says height first.
        let [crop, stride] = [crop, stride].map(|[height, width]| [width, height]);
        let size = [0, 1].map(|axis| crop[axis].min(input[axis]));
        // As many steps as it takes to the end; the last window begins where it still has its whole size.
        let starts = [0, 1].map(|axis| {
            let (side, room) = (size[axis], input[axis] - size[axis]);
            let stride = stride[axis].clamp(1, side.max(1));
            (0..=room.div_ceil(stride)).map(|i| (i * stride).min(room)).collect()
        });
        Self { size, starts }
    }

    /// The parts of `images` [B, C, H, W] that lie in the windows, row by row.
    ///
    /// # Errors
    /// When the images are not of the input's size.
    pub(super) fn parts<'a>(&'a self, images: &'a Tensor) -> impl Iterator<Item = Result<Tensor>> + 'a {
        let [width, height] = self.size;
        let origins = self.starts[1].iter().flat_map(|&y| self.starts[0].iter().map(move |&x| (x, y)));
        origins.map(move |(x, y)| images.narrow(2, y, height)?.narrow(3, x, width)?.contiguous())
    }

    /// How many windows hold each of `side` positions of an axis.
    fn counts(&self, axis: usize, side: usize) -> Vec<usize> {
        let holds = |at: usize| move |start: &&usize| (**start..**start + self.size[axis]).contains(&at);
        (0..side).map(|at| self.starts[axis].iter().filter(holds(at)).count()).collect()
    }
}

/// What one pass gave.
pub(super) struct PassLogits {
    /// Of each window [B, h, w, outputs], f32, on the CPU.
    pub(super) logits: Vec<Tensor>,
    pub(super) windows: SlidingWindows,
    /// Width and height of the input.
    pub(super) size: [usize; 2],
    /// Width and height of the picture in it, at its left and top; the rest is padding.
    pub(super) resized: [usize; 2],
    pub(super) mirrored: bool,
}

/// What a pass gives of each pixel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PixelScores {
    Logits,
    /// Probabilities of classes of which one holds.
    Softmax,
    /// The probability of each output by itself.
    Sigmoid,
}

/// The way of a pass's logits to rows of the original picture: to the windows' size, where windows overlap
/// to their mean, then to the original size, both bilinear.
pub(super) struct PassRows<'a> {
    logits: &'a [&'a [f32]],
    windows: &'a SlidingWindows,
    /// Width of a window's logits in values.
    stride: usize,
    outputs: usize,
    mirrored: bool,
    /// Width of the input.
    width: usize,
    /// How many windows hold each column and each row of the input.
    counts: [Vec<usize>; 2],
    to_window: [Vec<Tap>; 2],
    to_original: [Vec<Tap>; 2],
}

/// Rows of the input's size that were made last, with their numbers, one of a window's, and one of the
/// original's.
#[derive(Default)]
pub(super) struct Scratch {
    rows: [(Option<usize>, Vec<f32>); 2],
    part: Vec<f32>,
    out: Vec<f32>,
}

impl<'a> PassRows<'a> {
    /// Of a view with the values of its `logits`, to width and height `size`.
    ///
    /// # Errors
    /// When the view has no logits.
    pub(super) fn new(
        view: &'a PassLogits,
        logits: &'a [&'a [f32]],
        size: [usize; 2],
        align_corners: bool,
    ) -> Result<Self> {
        let Some(first) = view.logits.first() else { candle_core::bail!("a pass without logits") };
        let (_, h, w, outputs) = first.dims4()?;
        let ([width, height], windows) = (view.size, &view.windows);
        let taps = |from, to| taps(from, to, align_corners);
        Ok(Self {
            logits,
            windows,
            stride: w * outputs,
            outputs,
            mirrored: view.mirrored,
            width,
            counts: [windows.counts(0, width), windows.counts(1, height)],
            to_window: [taps(w, windows.size[0]), taps(h, windows.size[1])],
            to_original: [taps(view.resized[0], size[0]), taps(view.resized[1], size[1])],
        })
    }

    /// Adds the scores of row `y` of the original picture to `sums` [width, outputs].
    pub(super) fn add(&self, y: usize, scratch: &mut Scratch, scores: PixelScores, sums: &mut [f32]) {
        let Scratch { rows, part, out } = scratch;
        let tap = self.to_original[1][y];
        // A row is needed by several: it stays in the place of its parity.
        for at in tap.at {
            let (made, line) = &mut rows[at % 2];
            if *made != Some(at) {
                self.input_row(at, part, line);
                *made = Some(at);
            }
        }
        let lines = tap.at.map(|at| rows[at % 2].1.as_slice());
        let width = self.to_original[0].len();
        out.resize(width * self.outputs, 0.0);
        row(lines, tap.part, &self.to_original[0], self.outputs, out);
        match scores {
            PixelScores::Logits => {}
            PixelScores::Softmax => softmax(out, self.outputs),
            PixelScores::Sigmoid => out.iter_mut().for_each(|x| *x = sigmoid(*x)),
        }
        for (x, scores) in out.chunks_exact(self.outputs).enumerate() {
            let x = if self.mirrored { width - 1 - x } else { x };
            let sums = &mut sums[x * self.outputs..][..self.outputs];
            sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += *score);
        }
    }

    /// Row `at` of the input: the mean of the windows that hold it, pixel by pixel.
    fn input_row(&self, at: usize, part: &mut Vec<f32>, line: &mut Vec<f32>) {
        line.resize(self.width * self.outputs, 0.0);
        if let [logits] = self.logits {
            return self.window_row(logits, at, line);
        }
        line.fill(0.0);
        let [across, down] = &self.windows.starts;
        let [width, height] = self.windows.size;
        part.resize(width * self.outputs, 0.0);
        for (start, logits) in down.iter().zip(self.logits.chunks_exact(across.len())) {
            let Some(y) = at.checked_sub(*start).filter(|y| *y < height) else { continue };
            for (start, logits) in across.iter().zip(logits) {
                self.window_row(logits, y, part);
                let line = &mut line[start * self.outputs..];
                line.iter_mut().zip(&*part).for_each(|(sum, value)| *sum += *value);
            }
        }
        for (pixel, count) in line.chunks_exact_mut(self.outputs).zip(&self.counts[0]) {
            let count = (count * self.counts[1][at]) as f32;
            pixel.iter_mut().for_each(|sum| *sum /= count);
        }
    }

    /// Row `y` of a window.
    fn window_row(&self, logits: &[f32], y: usize, out: &mut [f32]) {
        let [columns, rows] = &self.to_window;
        let from = rows[y].at.map(|y| &logits[y * self.stride..][..self.stride]);
        row(from, rows[y].part, columns, self.outputs, out);
    }
}

/// The probability that a logit stands for; of what is no finite number none, which has to be seen.
fn sigmoid(logit: f32) -> f32 {
    if logit.is_finite() { 1.0 / (1.0 + (-logit).exp()) } else { f32::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// mmseg's `slide_inference`, line by line.
    fn slide(side: i64, crop: i64, stride: i64) -> Vec<usize> {
        let grids = (side - crop + stride - 1).max(0) / stride + 1;
        let start = |i: i64| (((i * stride + crop).min(side)) - crop).max(0) as usize;
        (0..grids).map(start).collect()
    }

    #[test]
    fn windows_begin_where_mmsegs_do() {
        for (crop, stride) in [(512, 341), (512, 512), (7, 3), (7, 7), (1, 1), (5, 1)] {
            for side in [1, 2, 6, 7, 8, 10, 14, 15, 511, 512, 513, 853, 854, 1024] {
                let sliding = SlidingWindow { crop: [crop, 4], stride: [stride, 4] };
                let windows = SlidingWindows::new([9, side], Some(sliding));
                assert_eq!(windows.starts, [vec![0, 4, 5], slide(side as i64, crop as i64, stride as i64)]);
                assert_eq!(windows.size, [4, crop.min(side)]);
                assert!(windows.counts(1, side).iter().all(|count| *count > 0));
                assert_eq!(windows.counts(0, 9), [1, 1, 1, 1, 1, 2, 2, 2, 1]);
            }
        }
        let whole = SlidingWindows::new([9, 5], None);
        assert_eq!((whole.size, whole.starts), ([9, 5], [vec![0], vec![0]]));
    }

    #[test]
    fn what_is_no_number_has_no_probability() {
        for (logit, probability) in [(0.0, 0.5), (-200.0, 0.0), (200.0, 1.0), (1.0, 0.731_058_6)] {
            assert!((sigmoid(logit) - probability).abs() < 1e-6, "{logit}");
        }
        assert!([f32::NAN, f32::INFINITY, -f32::INFINITY].map(sigmoid).iter().all(|x| x.is_nan()));
    }
}
