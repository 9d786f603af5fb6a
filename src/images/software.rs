//! How our pictures are told from others: they say what made them.

/// What our PNG files say made them, as a text of this keyword.
pub(crate) const SOFTWARE: [&str; 2] = ["Software", "nat-infer"];

/// The same as EXIF, which JPEG and WebP files carry: a TIFF header and one directory, of one tag.
pub(crate) fn exif() -> Vec<u8> {
    const TAG_SOFTWARE: u16 = 0x0131;
    const TYPE_ASCII: u16 = 2;
    // The header takes 8 bytes, the directory 2 + 12 + 4.
    const TEXT_AT: u32 = 8 + 18;
    let text = format!("{}\0", SOFTWARE[1]);
    let mut exif = b"II*\0".to_vec();
    exif.extend(8_u32.to_le_bytes());
    exif.extend(1_u16.to_le_bytes());
    exif.extend(TAG_SOFTWARE.to_le_bytes());
    exif.extend(TYPE_ASCII.to_le_bytes());
    exif.extend((text.len() as u32).to_le_bytes());
    exif.extend(TEXT_AT.to_le_bytes());
    exif.extend(0_u32.to_le_bytes());
    exif.extend(text.bytes());
    exif
}

/// Whether a file that begins and ends with these bytes is a picture that says it is ours. PNG and JPEG files say it
/// before anything that is large, WebP files behind it.
pub(crate) fn says_ours(begin: &[u8], end: &[u8]) -> bool {
    let has = |bytes: &[u8], words: &[u8]| bytes.windows(words.len()).any(|part| part == words);
    match begin {
        [b'\x89', b'P', b'N', b'G', ..] => has(begin, SOFTWARE.join("\0").as_bytes()),
        [0xFF, 0xD8, 0xFF, ..] => has(begin, &exif()),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => has(end, &exif()),
        _ => false,
    }
}
