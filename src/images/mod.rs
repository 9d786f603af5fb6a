//! Pixels in: files to 8-bit RGB, Pillow's resize, the classifiers' preprocessing. No tensors and no
//! networks here; results are drawn elsewhere.

pub mod decode;
pub mod preprocess;
pub mod resize;

pub use decode::{Exif, ImageError, Limits, Reader};
pub use image::RgbImage;
pub use preprocess::CenterCrop;
