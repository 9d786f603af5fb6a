//! Scores of a model on a dataset: what the papers' tables say, measured.

pub mod coco;
mod coco_categories;
mod coco_files;
pub mod coco_images;
mod coco_picture;
mod coco_results;
mod error;
mod figures;
pub mod gallery;
mod html;
pub mod image_folder;
pub mod index;
pub mod index_origin;
pub mod index_writer;
mod label_files;
pub mod label_maps;
mod label_pairs;
pub mod label_picture;
mod names;
pub mod neighbors;
pub mod page;
pub mod panoptic;
mod read;
mod thumbnail;
pub mod top_k;
mod versions;

pub use error::DatasetError;
pub use thumbnail::{THUMBNAIL_SIZE, thumbnail};
pub use versions::hotcoco_version;
