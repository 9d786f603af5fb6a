//! Pixels in: files to 8-bit RGB, Pillow's and OpenCV's resize, the preprocessing of each task. Pixels
//! out: masks, found objects and heat maps drawn onto their image. No tensors and no networks here.

pub mod decode;
pub mod draw;
mod formats;
pub mod heat;
mod jpeg;
pub mod mask;
pub mod opencv;
pub mod palette;
pub mod preprocess;
pub mod resize;

/// What our PNG files say made them, as a text of this keyword: so that they can be told from anybody else's.
pub(crate) const SOFTWARE: [&str; 2] = ["Software", "nat-infer"];

pub use decode::{Exif, ImageError, Limits, Reader};
pub use image::RgbImage;
pub use preprocess::{CenterCrop, Fitted, KeepRatio};
