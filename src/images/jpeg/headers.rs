//! What stands before the pixels of a JPEG file: its size, how it is coded, how a camera held it.

use image::metadata::Orientation;

/// What Exif begins with in an APP1 segment.
const EXIF: &[u8] = b"Exif\0\0";

/// Width and height, as the frame's header says.
pub fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let (_, payload) = frame(bytes)?;
    let &[_, h1, h0, w1, w0, ..] = payload else { return None };
    Some((u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into()))
}

/// The frame's header and its marker, which tells how the frame is coded.
pub fn frame(bytes: &[u8]) -> Option<(u8, &[u8])> {
    // Between the frames' markers stand those of Huffman's tables, of extensions, of arithmetic coding.
    segments(bytes).find(|(marker, _)| matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC))
}

/// How a frame is coded that the library does not know.
pub fn unread(bytes: &[u8]) -> String {
    let coding = match frame(bytes) {
        Some((0xC3 | 0xCB, _)) => "lossless",
        Some((0xC5..=0xC7 | 0xCD..=0xCF, _)) => "hierarchical",
        _ => "an unknown",
    };
    format!("{coding} coding, which is not read")
}

/// How a camera says that the pixels are to be turned: in Exif or, where that says nothing, in XMP, as Pillow
/// looks for it.
pub fn orientation(bytes: &[u8]) -> Orientation {
    const APP1: u8 = 0xE1;
    let chunks = |begin: &'static [u8]| {
        let app1 = segments(bytes).filter(|&(marker, _)| marker == APP1);
        app1.filter_map(move |(_, payload)| payload.strip_prefix(begin))
    };
    // Exif of more than 64 kB goes on in the next segment; what is looked for stands at its beginning.
    let exif = chunks(EXIF).take(2).collect::<Vec<_>>().concat();
    match exif_orientation(&exif) {
        Some(value) => u8::try_from(value).ok().and_then(Orientation::from_exif),
        None => chunks(b"http://ns.adobe.com/xap/1.0/\0").last().and_then(xmp_orientation),
    }
    .unwrap_or(Orientation::NoTransforms)
}

/// The value of Exif's orientation, 0 where it is no number. The `image` crate reads it as a short alone.
fn exif_orientation(mut exif: &[u8]) -> Option<u32> {
    const ORIENTATION: u16 = 0x112;
    const SHORT: u16 = 3;
    const LONG: u16 = 4;
    const SIGNED_SHORT: u16 = 8;
    const SIGNED_LONG: u16 = 9;
    while let Some(rest) = exif.strip_prefix(EXIF) {
        exif = rest;
    }
    let little = match exif.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let two = |at: usize| {
        let bytes = exif.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let four = |at: usize| {
        let bytes = exif.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = four(4)? as usize;
    let entries = (0..usize::from(two(directory)?)).map(|entry| directory.saturating_add(2 + 12 * entry));
    let at = entries.take_while(|&at| at < exif.len()).find(|&at| two(at) == Some(ORIENTATION))?;
    let kind = two(at + 2)?;
    let size: u64 = match kind {
        SHORT | SIGNED_SHORT => 2,
        LONG | SIGNED_LONG => 4,
        _ => return Some(0),
    };
    // More than four bytes stand elsewhere; if they do not, the entry does not count.
    let size = size * u64::from(four(at + 4)?);
    let at = if size <= 4 { at + 8 } else { four(at + 8)? as usize };
    if at as u64 + size > exif.len() as u64 {
        return None;
    }
    if matches!(kind, SHORT | SIGNED_SHORT) { two(at).map(u32::from) } else { four(at) }
}

/// The first orientation in XMP, as an attribute or an element.
fn xmp_orientation(xmp: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    let after = |at: usize| &xmp[at + NAME.len()..];
    let digit = (0..xmp.len()).filter(|&at| xmp[at..].starts_with(NAME)).find_map(|at| match after(at) {
        [b'=', b'"', digit @ b'0'..=b'9', ..] | [b'>', digit @ b'0'..=b'9', ..] => Some(digit - b'0'),
        _ => None,
    });
    digit.and_then(Orientation::from_exif)
}

/// The marker segments before the first scan: each marker's second byte, and what its segment holds. What is
/// between segments is passed over, as libjpeg does.
fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    const START_OF_SCAN: u8 = 0xDA;
    const END_OF_IMAGE: u8 = 0xD9;
    let mut rest = bytes.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            let at = rest.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF))?;
            let marker = rest[at + 1];
            rest = &rest[at + 2..];
            match marker {
                START_OF_SCAN | END_OF_IMAGE => return None,
                // These stand alone.
                0x01 | 0xD0..=0xD8 => continue,
                _ => {}
            }
            let &[high, low, ..] = rest else { return None };
            let length = usize::from(u16::from_be_bytes([high, low])).max(2).min(rest.len());
            let payload = &rest[2..length];
            rest = &rest[length..];
            return Some((marker, payload));
        }
    })
}
