//! What is drawn.

use crate::images::mask::Mask;

/// An object to draw.
#[derive(Clone, Copy, Debug)]
pub struct DrawnObject<'a> {
    /// Class: chooses the colour.
    pub index: usize,
    /// Name of the class.
    pub label: &'a str,
    /// 0 to 1, printed as a percentage; NaN counts as 0.
    pub score: f32,
    /// Left, top, right, bottom in pixels of the image, where (0, 0) is the first pixel's corner. What lies
    /// outside the image is cut off; a box that is inverted, NaN or wholly outside is not drawn.
    pub corners: [f32; 4],
    /// The object's pixels. What lies outside the image is cut off.
    pub mask: Option<&'a Mask>,
}
