//! Colours of classes, and label maps as PNG files.

use std::io::Write;

use nat_convert::labels::Labels;

use super::software::SOFTWARE;

/// The colours in which ADE20K's 150 classes are usually shown, by index.
pub fn ade20k() -> Vec<[u8; 3]> {
    Labels::Ade20k.colours().unwrap_or_default()
}

/// Writes a map of class indices, row by row, as a PNG of 8 bits whose values are the indices: grey, or
/// with `palette` shown in these colours.
///
/// # Errors
/// When `classes` are not `size` (width, height) pixels, or can't be written.
pub fn write_labels(
    to: impl Write,
    classes: &[u8],
    size: [usize; 2],
    palette: Option<&[[u8; 3]]>,
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(to, size[0] as u32, size[1] as u32);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_color(png::ColorType::Grayscale);
    if let Some(palette) = palette {
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(palette.concat());
    }
    let [keyword, text] = SOFTWARE.map(str::to_owned);
    encoder.add_text_chunk(keyword, text)?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(classes)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_ade20k_has_its_colour() {
        let colours = ade20k();
        assert_eq!(colours.len(), Labels::Ade20k.classes());
        // wall, sky, flag
        assert_eq!([0, 2, 149].map(|i| colours[i]), [[120, 120, 120], [6, 230, 230], [92, 0, 255]]);
        let mut distinct = colours.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() >= 148, "{}", distinct.len());
    }

    #[test]
    fn values_are_indices_with_and_without_colours() {
        let (classes, palette) = ([0, 1, 2, 2, 1, 0], [[9, 8, 7], [255, 0, 0], [0, 0, 255]]);
        for palette in [None, Some(&palette[..])] {
            let mut file = Vec::new();
            write_labels(&mut file, &classes, [3, 2], palette).unwrap();
            let mut reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
            assert_eq!((reader.info().width, reader.info().height), (3, 2));
            assert_eq!(reader.info().palette.as_deref(), palette.map(|p| p.concat()).as_deref());
            let mut values = [0; 6];
            reader.next_frame(&mut values).unwrap();
            assert_eq!(values, classes);
        }
        assert!(write_labels(Vec::new(), &classes, [4, 2], None).is_err());
    }
}
