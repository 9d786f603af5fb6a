//! Found objects and classes drawn onto their image: masks, boxes, labels, a legend.
//!
//! Widths and letters grow with the picture, so that it looks the same whatever its number of pixels.

mod classes;
mod colours;
mod labels;
mod object;
mod objects;
mod shapes;
mod style;
mod text;

pub use classes::classes;
pub use colours::colour;
pub use object::DrawnObject;
pub use objects::objects;
