//! Neighborhood Attention Transformers (NAT, arXiv 2204.07143; DiNAT, arXiv 2209.15001) on candle.
//!
//! Start here:
//!
//! - **An image in, an answer out**: [`tasks`]. A [`Model`](tasks::Model) is loaded, a task ([`Classify`](tasks::Classify),
//!   [`Detect`](tasks::Detect), [`Segment`](tasks::Segment), [`Saliency`](tasks::Saliency),
//!   [`ExtractFeatures`](tasks::ExtractFeatures)) is made of it. Many images go through a
//!   [`Pipeline`](pipeline::Pipeline).
//! - **The operator in a network of your own**: [`attention::NeighborhoodAttention`], any odd kernel, dilation and head
//!   width, with gradients; [`layers`] and [`models`] are what the published networks are made of.
//! - **A checkpoint to safetensors**: [`nat_convert`], which needs neither candle nor Python; [`zoo`] knows where the
//!   published ones are.
//!
//! Data flows one way: [`nat_convert`] reads a checkpoint, [`zoo`] finds the published ones, [`weights`] gives their
//! tensors to the [`models`], [`tasks`] turn [`images`] into [`results`].
//!
//! ```
//! use nat_infer::tasks::classify::ClassifyOptions;
//! use nat_infer::tasks::{Classify, LoadOptions, Model};
//! use nat_infer::zoo::{self, Located};
//!
//! // The digits model is part of the crate; `Model::open` takes a file or a folder.
//! let model = Model::named(zoo::find("demo-digits")?, &Located::Embedded, &LoadOptions::default())?;
//! let task = Classify::new(model, ClassifyOptions::default())?;
//! let top = &task.run(&[image::open("assets/nine.png")?.into_rgb8()])?[0];
//! assert_eq!(top[0].label, "9");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A model that is loaded with [`LoadOptions::gradients`](tasks::LoadOptions::gradients) says what it looks at:
//! [`tasks::Saliency`] draws it, [`Classifier::gradients`](models::classifier::Classifier::gradients) gives the
//! gradients themselves, and [`attention::NeighborhoodAttention`] is differentiable in networks of your own.

pub mod attention;
pub mod crash;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod images;
pub mod layers;
mod memory;
pub mod models;
pub mod pipeline;
pub mod results;
pub mod simd;
pub mod tasks;
mod tensors;
pub mod weights;
pub mod zoo;

/// Compiles the example of README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
