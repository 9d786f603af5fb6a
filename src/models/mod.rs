//! The networks. A file reads like its paper: a configuration, then modules with `new` and
//! `forward`, activations channels-last from the patch embedding to the last norm.
//!
//! To add a family of backbones: a file with its `impl Levels` and a row in `backbone.rs`. To add a head: a file with
//! its `impl Segmenter` or `impl Detector` and a row in `network.rs`. What both are made of is described once, in
//! [`nat_convert::arch`].

mod backbone;
pub mod boxes;
pub mod classifier;
pub mod detector;
mod dinat_s;
mod fpn;
mod isotropic;
mod levels;
pub mod mask_rcnn;
mod nat;
mod network;
mod patches;
mod roi;
pub mod rpn;
pub mod segmenter;
pub mod uper;

pub use backbone::Backbone;
pub use network::Network;
