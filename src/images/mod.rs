//! Pixels in: files to 8-bit RGB, Pillow's and OpenCV's resize, the preprocessing of each task. Pixels
//! out: masks, found objects, classes and heat maps drawn onto their image, and picture files. No tensors and no networks here.

pub mod colours;
pub mod decode;
#[cfg(feature = "draw")]
pub mod draw;
pub mod encode;
mod error;
mod formats;
pub mod heat;
mod jpeg;
mod limits;
pub mod mask;
pub mod opencv;
pub mod outline;
pub mod palette;
mod pixels;
pub mod preprocess;
pub mod resize;
pub(crate) mod software;

pub use decode::Reader;
pub use encode::PictureFormat;
pub use error::{ImageError, ImageErrorKind};
pub use image::RgbImage;
pub use limits::{Exif, Limits};
pub use pixels::{RgbPixels, RgbView, SharedPixels};
pub use preprocess::{CenterCrop, Fitted, KeepRatio};
