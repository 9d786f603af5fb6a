//! The geometry of neighborhood attention, once: which keys a query sees and which biases they take.
//! Nothing else in the crate knows about borders.
//!
//! The two axes of a map are independent. On an axis of `length` positions with a kernel of K and a
//! dilation of d, query i attends to K keys of its own residue class:
//!
//! ```text
//! class      g = i mod d            place in it  m = i div d        class length  n = max(⌈(length − g) / d⌉, K)
//! window     s = clamp(m − K div 2, 0, n − K)
//! neighbour  0 ≤ t < K              key  g + d·(s + t)              bias  s + t − m + K − 1
//! ```
//!
//! At a border the window shifts and never shrinks, so that every query has K keys, and the bias index
//! is the relative position (key − query)/d + K − 1, in 0..=2K−2. A class is thus an ordinary axis of
//! n positions with dilation 1, which is how the kernels see it.
//!
//! A class with fewer than K positions, on an axis shorter than K·d, is padded at its end to K places: the padded
//! ones are keys, all alike, and no queries. They are in every window then. With a dilation beyond the length each
//! query is alone in its class, as it is with the length for a dilation, which therefore takes its place.
//!
//! Sources: arXiv 2204.07143, section 3; arXiv 2209.15001, section 3 (dilation); NATTEN 0.14 to 0.17.5.

/// The widest kernel that a smaller map is padded for. Its scores and its biases, which take memory by K², are then
/// not bounded by the map: at this width they are a few megabytes a thread and a quarter of one a head.
pub(super) const MOST_PADDED: usize = 128;

/// The positions of one axis that are congruent modulo the dilation, and what they are padded with: an axis without
/// dilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    first: usize,
    dilation: usize,
    kernel: usize,
    size: usize,
    /// `size` and the padded ones.
    places: usize,
}

impl Class {
    /// The classes of an axis of `length` positions: `dilation` of them, or `length` if those are fewer.
    pub fn all(length: usize, kernel: usize, dilation: usize) -> impl Iterator<Item = Self> + Clone {
        debug_assert!(kernel > 0 && dilation > 0);
        let dilation = dilation.min(length);
        (0..dilation).map(move |first| {
            let size = (length - first).div_ceil(dilation);
            Self { first, dilation, kernel, size, places: size.max(kernel) }
        })
    }

    /// How many positions of the axis the class has: from this place on it is padded.
    #[inline]
    pub fn size(&self) -> usize {
        self.size
    }

    /// From a place to the next one on the axis.
    #[inline]
    pub fn dilation(&self) -> usize {
        self.dilation
    }

    /// Where place `m` of the class lies on the axis; `m` is less than [`Class::size`].
    #[inline]
    pub fn position(&self, m: usize) -> usize {
        self.first + self.dilation * m
    }

    /// First place of the window of the query at place `m`.
    #[inline]
    pub fn start(&self, m: usize) -> usize {
        m.saturating_sub(self.kernel / 2).min(self.places - self.kernel)
    }

    /// Bias index of the first neighbour of the query at place `m`; neighbour t has this plus t.
    #[inline]
    pub fn bias(&self, m: usize) -> usize {
        self.start(m) + self.kernel - 1 - m
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each query of the axis, the (key, bias) pairs of its window.
    fn windows(length: usize, kernel: usize, dilation: usize) -> Vec<Vec<(usize, usize)>> {
        let mut windows = vec![Vec::new(); length];
        for class in Class::all(length, kernel, dilation) {
            for m in 0..class.size() {
                let (start, bias) = (class.start(m), class.bias(m));
                windows[class.position(m)] =
                    (0..kernel).map(|t| (class.position(start + t), bias + t)).collect();
            }
        }
        windows
    }

    #[test]
    fn every_window_has_its_keys_once_and_their_relative_positions() {
        for (kernel, dilation) in [(1, 1), (3, 1), (3, 2), (5, 3), (7, 1), (7, 4), (13, 2), (14, 1)] {
            for length in kernel * dilation..kernel * dilation + 3 * dilation + 5 {
                if kernel % 2 == 0 && length != kernel {
                    continue;
                }
                for (i, window) in windows(length, kernel, dilation).into_iter().enumerate() {
                    let case = format!("K {kernel}, d {dilation}, length {length}, query {i}: {window:?}");
                    assert_eq!(window.len(), kernel, "{case}");
                    for (t, &(key, bias)) in window.iter().enumerate() {
                        assert!(key < length && key % dilation == i % dilation, "{case}");
                        assert_eq!(key, window[0].0 + t * dilation, "{case}");
                        assert!(bias <= 2 * kernel - 2, "{case}");
                        let relative = (key as isize - i as isize) / dilation as isize;
                        assert_eq!(bias as isize, relative + kernel as isize - 1, "{case}");
                    }
                    // As near the middle as the border allows.
                    let (first, last) = (window[0].0, window[kernel - 1].0);
                    let centred = i >= kernel / 2 * dilation && i + kernel / 2 * dilation < length;
                    let at_border = first < dilation || last + dilation >= length;
                    assert!(at_border || centred, "{case}");
                    assert!(!centred || window[kernel / 2].0 == i || kernel % 2 == 0, "{case}");
                }
            }
        }
    }

    /// As on the padded axis: its queries, and `None` for its padded keys.
    #[test]
    fn a_short_axis_is_the_beginning_of_one_of_kernel_times_dilation() {
        for (kernel, dilation) in [(1, 4), (3, 1), (3, 2), (5, 3), (7, 1), (7, 4), (13, 2), (3, 50)] {
            for length in 1..kernel * dilation {
                let mut seen = 0;
                let whole = windows(kernel * dilation, kernel, dilation);
                for class in Class::all(length, kernel, dilation) {
                    for m in 0..class.size() {
                        let (i, start, bias) = (class.position(m), class.start(m), class.bias(m));
                        let key = |place| (place < class.size()).then(|| class.position(place));
                        let window: Vec<_> = (0..kernel).map(|t| (key(start + t), bias + t)).collect();
                        let want: Vec<_> = whole[i]
                            .iter()
                            .map(|&(key, bias)| ((key < length).then_some(key), bias))
                            .collect();
                        assert_eq!(window, want, "K {kernel}, d {dilation}, length {length}, query {i}");
                        seen += 1;
                    }
                }
                assert_eq!(seen, length);
            }
        }
        assert_eq!(Class::all(0, 7, 2).count(), 0);
        assert_eq!(Class::all(3, 7, usize::MAX).count(), 3);
    }

    #[test]
    fn windows_are_those_of_natten() {
        // (length, K, d, query) to (first key, its bias).
        for (length, kernel, dilation, query, key, bias) in [
            (7, 7, 1, 0, 0, 6),
            (7, 7, 1, 6, 0, 0),
            (10, 3, 1, 0, 0, 2),
            (10, 3, 1, 1, 0, 1),
            (10, 3, 1, 5, 4, 1),
            (10, 3, 1, 9, 7, 0),
            (23, 5, 2, 0, 0, 4),
            (23, 5, 2, 11, 7, 2),
            (23, 5, 2, 22, 14, 0),
            (23, 5, 2, 21, 13, 0),
            (14, 14, 1, 9, 0, 4),
        ] {
            let window = &windows(length, kernel, dilation)[query];
            assert_eq!(window[0], (key, bias), "length {length}, K {kernel}, d {dilation}, query {query}");
        }
    }
}
