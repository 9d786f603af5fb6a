//! Found objects, classes and maps drawn onto their image: masks, boxes, labels, legends.
//!
//! Widths and letters grow with the picture, so that it looks the same whatever its number of pixels; small images are
//! enlarged by whole factors.

mod canvas;
mod classes;
mod heat;
mod labels;
mod legend;
mod object;
mod objects;
mod shades;
mod shapes;
mod style;
mod text;

pub use canvas::{beside, canvas};
pub use classes::classes;
pub use heat::{caption, heat};
pub use legend::{Legend, LegendEntry, legend};
pub use object::DrawnObject;
pub use objects::objects;
