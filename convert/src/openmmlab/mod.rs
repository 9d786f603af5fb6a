//! What mmdetection and mmsegmentation save beside the weights: class names and colours, and the training
//! configuration as Python text. Of the configuration everything that changes pixels or answers is read: what
//! is applied goes into a [`Recipe`], what can't be is refused by name.
//!
//! Sources: mmdetection 2.28 and 3.3, mmsegmentation 0.30 and 1.2, mmcv 1.7 and 2.1, mmengine 0.10.

mod detector;
mod meta;
mod parts;
mod pipeline;
mod place;
mod segmenter;

pub(crate) use detector::read as read_detector;
pub(crate) use meta::{Meta, usual_geometry};
pub(crate) use place::HeadReader;
pub(crate) use segmenter::read as read_segmenter;
