//! Pascal VOC's annotations: an XML file for each image.
//!
//! Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit": pixels are counted from 1, a box's edges
//! are pixels in it. Polygons are what others added for masks.

use std::io;

use quick_xml::Writer;
use quick_xml::events::BytesText;

use super::labelled::{ImageLabels, LabelledObject, printable};
use super::yolo::within;
use crate::images::outline::{Outline, outlines};

type Xml = Writer<Vec<u8>>;

/// The file of an image.
///
/// # Errors
/// Never: it is written to memory.
pub(super) fn xml(image: &ImageLabels) -> io::Result<Vec<u8>> {
    let [width, height] = image.size;
    let file_name = image.place.file_name();
    let (folder, file) = file_name.rsplit_once('/').unwrap_or(("", &file_name));
    let is_segmented = image.objects().any(|object| object.mask.is_some());
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.create_element("annotation").write_inner_content(|writer| {
        text(writer, "folder", folder)?;
        text(writer, "filename", file)?;
        writer.create_element("source").write_inner_content(|writer| {
            text(writer, "database", "unknown")?;
            text(writer, "annotation", &image.model)
        })?;
        writer.create_element("size").write_inner_content(|writer| {
            text(writer, "width", width)?;
            text(writer, "height", height)?;
            text(writer, "depth", 3)
        })?;
        text(writer, "segmented", u8::from(is_segmented))?;
        image.objects().try_for_each(|found| object(writer, &found, image.size))
    })?;
    let mut xml = writer.into_inner();
    xml.push(b'\n');
    Ok(xml)
}

fn object(writer: &mut Xml, object: &LabelledObject, size: [usize; 2]) -> io::Result<()> {
    let [width, height] = size.map(|side| side as f64);
    let [left, top, right, bottom] = within(object.bbox, [width, height]).map(f64::round);
    let [left, top] = [(left + 1.0).min(width), (top + 1.0).min(height)];
    let is_cut = left == 1.0 || top == 1.0 || right == width || bottom == height;
    writer.create_element("object").write_inner_content(|writer| {
        text(writer, "name", &object.label)?;
        text(writer, "pose", "Unspecified")?;
        text(writer, "truncated", u8::from(is_cut))?;
        text(writer, "difficult", 0)?;
        writer.create_element("bndbox").write_inner_content(|writer| {
            let edges = [("xmin", left), ("ymin", top), ("xmax", right.max(left)), ("ymax", bottom.max(top))];
            edges.into_iter().try_for_each(|(edge, at)| text(writer, edge, at))
        })?;
        let parts = object.mask.as_ref().map(outlines).unwrap_or_default();
        parts.iter().try_for_each(|part| polygon(writer, part))
    })?;
    Ok(())
}

fn polygon(writer: &mut Xml, part: &Outline) -> io::Result<()> {
    writer.create_element("polygon").write_inner_content(|writer| {
        (1..).zip(part.pixels()).try_for_each(|(number, [x, y])| {
            text(writer, &format!("x{number}"), x + 1)?;
            text(writer, &format!("y{number}"), y + 1)
        })
    })?;
    Ok(())
}

/// An element with a text or a number in it.
fn text(writer: &mut Xml, name: &str, content: impl ToString) -> io::Result<()> {
    let content = printable(&content.to_string());
    writer.create_element(name).write_text_content(BytesText::new(&content))?;
    Ok(())
}
