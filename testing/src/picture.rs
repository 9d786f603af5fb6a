//! Pieces of image files that no encoder writes.

/// A PNG's chunk with its length and checksum.
pub fn png_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let checked = [name, data].concat();
    let sum = checked.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg()))
    });
    [&(data.len() as u32).to_be_bytes()[..], &checked, &(!sum).to_be_bytes()].concat()
}

/// A PNG with this Exif orientation behind its header.
pub fn turned_png(png: &[u8], orientation: u8) -> Vec<u8> {
    let entry = [0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0];
    let tiff = [&b"MM\0\x2a\0\0\0\x08\0\x01"[..], &entry, &[0; 4]].concat();
    let header_end = 8 + 4 + 4 + 13 + 4;
    [&png[..header_end], &png_chunk(b"eXIf", &tiff), &png[header_end..]].concat()
}

/// A little-endian TIFF of one strip at the end of the file; values are shorts.
pub fn tiff(tags: &[(u16, u16)], strip: &[u8]) -> Vec<u8> {
    const STRIP_OFFSETS: u16 = 273;
    let mut entries = tags.to_vec();
    let start = 8 + 2 + 12 * (tags.len() as u16 + 1) + 4;
    entries.push((STRIP_OFFSETS, start));
    entries.sort_unstable();
    let mut out = b"II\x2a\0\x08\0\0\0".to_vec();
    out.extend((entries.len() as u16).to_le_bytes());
    for (tag, value) in entries {
        for half in [tag, 3, 1, 0, value, 0] {
            out.extend(half.to_le_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(strip);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_the_checksum_of_the_standard() {
        assert_eq!(png_chunk(b"IEND", b""), b"\0\0\0\0IEND\xae\x42\x60\x82");
    }
}
