//! Neighborhood Attention Transformers (NAT, arXiv 2204.07143; DiNAT, arXiv 2209.15001) on candle.
//!
//! Data flows one way. A checkpoint of any kind is read by [`nat_convert`]; [`zoo`] knows where the
//! published ones are; [`weights`] gives their tensors to the [`models`], which are made of [`layers`]
//! and the operator of [`attention`]; [`tasks`] turn [`images`] into [`results`].
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
