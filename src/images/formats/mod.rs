//! The image formats, each to 8-bit RGB as Pillow reads it.

pub mod allowance;
pub mod bmp;
pub mod canvas;
pub mod gif;
pub mod kind;
pub mod png;
pub mod raster;
pub mod samples;
pub mod tiff;
pub mod webp;
