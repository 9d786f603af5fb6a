//! Samples as files pack them.

use super::canvas::CHANNELS;

/// The `index`-th of the values of `bits` bits, at most 8, that are packed into `row`, high bits first.
pub fn bits_at(row: &[u8], index: usize, bits: usize) -> u8 {
    let first = index * bits;
    let mask = u8::MAX >> (8 - bits);
    row[first / 8] >> (8 - bits - first % 8) & mask
}

/// What values of `bits` bits, at most 8, are multiplied with to be 0 to 255.
pub fn full_scale(bits: usize) -> u8 {
    u8::MAX / (u8::MAX >> (8 - bits))
}

/// Puts `pixels` behind those in `rgb`.
pub fn extend_pixels(rgb: &mut Vec<u8>, pixels: impl ExactSizeIterator<Item = [u8; CHANNELS]>) {
    let start = rgb.len();
    rgb.resize(start + CHANNELS * pixels.len(), 0);
    for (place, pixel) in rgb[start..].as_chunks_mut().0.iter_mut().zip(pixels) {
        *place = pixel;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_values_are_found_and_spread() {
        let row = [0b1101_0010, 0b0110_1111];
        let values = |bits, count| (0..count).map(|i| bits_at(&row, i, bits)).collect::<Vec<_>>();
        assert_eq!(values(1, 9), [1, 1, 0, 1, 0, 0, 1, 0, 0]);
        assert_eq!(values(2, 5), [3, 1, 0, 2, 1]);
        assert_eq!(values(4, 4), [13, 2, 6, 15]);
        assert_eq!(values(8, 2), [0xD2, 0x6F]);
        assert_eq!([1, 2, 4, 8].map(full_scale), [255, 85, 17, 1]);
    }
}
