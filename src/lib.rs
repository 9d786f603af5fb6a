//! Neighborhood Attention Transformers (NAT, arXiv 2204.07143; DiNAT, arXiv 2209.15001) on candle: the published
//! networks with the original's numbers, and the operator that they are made of.
//!
//! # Start here
//!
//! | you have | you want | look at |
//! | --- | --- | --- |
//! | an image | classes, objects, regions, a heat map, features | [`tasks`]: a [`Model`](tasks::Model) and a task of it; of many images a [`Pipeline`](pipeline::Pipeline) |
//! | a network of your own on candle | its attention | [`attention::NeighborhoodAttention`]: any odd kernel, dilation and head width, with gradients |
//! | a `candle_nn::VarBuilder` | a NAT or DiNAT, or its backbone | [`weights::Weights::from_var_builder`], then [`models::classifier::Classifier`], [`models::Backbone`] or [`models::Network`] |
//! | a `.pth` of any network | a `VarBuilder` | [`weights::CheckpointTensors`] |
//! | a checkpoint of NAT or DiNAT | safetensors, or what is in it | [`nat_convert`], which needs neither candle nor Python |
//! | the name of a published model | its files | [`zoo`] |
//!
//! ```
//! # #[cfg(feature = "images")] {
//! use nat_infer::images::Reader;
//! use nat_infer::tasks::{Classify, ClassifyOptions, LoadOptions, Model};
//!
//! // Any checkpoint: `.pth`, safetensors, a folder of Transformers; `Model::from_bytes` takes one from memory.
//! let model = Model::open("assets/demo-digits.safetensors".as_ref(), &LoadOptions::default())?;
//! let task = Classify::new(model, &ClassifyOptions::default())?;
//! let top = &task.run(&[Reader::default().file("assets/nine.png".as_ref())?])?[0];
//! assert_eq!(top[0].label, "9");
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | what it adds | default |
//! | --- | --- | --- |
//! | `images` | [`images`], [`tasks`], [`pipeline`], [`results`]: from files to answers | with `draw` and `cli` |
//! | `draw` | pictures of results: boxes, masks, regions, heat maps | yes |
//! | `eval` | [`eval`]: scores on datasets, nearest images | with `cli` |
//! | `export` | [`export`]: what was found as datasets: COCO, YOLO, Pascal VOC, labelme, Label Studio | with `cli` |
//! | `hub` | [`zoo`] finds and fetches published models: the Hugging Face Hub, its cache, files of the web | yes |
//! | `cli` | the program `nat-infer`, with all of the above | yes |
//! | `cuda` | NVIDIA GPUs; with `cli`, in a program that starts without NVIDIA's libraries | no |
//!
//! Without any (`default-features = false`) there are the operator, the layers, the networks and their weights, on candle
//! and nat-convert alone.
//!
//! # How it fits together
//!
//! Data flows one way: [`nat_convert`] reads a checkpoint, [`zoo`] finds the published ones, [`weights`] gives their
//! tensors to the [`models`], [`tasks`] turn [`images`] into [`results`]. What users hold is `Send` and `Sync`: one
//! model, in an `Arc`, serves several tasks on several threads. A model that is loaded with
//! [`LoadOptions::gradients`](tasks::LoadOptions::gradients) says what it looks at: [`tasks::Saliency`] draws it.
//!
//! The crates whose types are part of this interface are here under their names: `candle_core`, `candle_nn`,
//! `nat_convert` and `image`.

pub use candle_core;
pub use candle_nn;
#[cfg(feature = "images")]
pub use image;
pub use nat_convert;

pub mod attention;
#[doc(hidden)]
pub mod crash;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(any(feature = "images", feature = "hub"))]
mod digest;
#[cfg(feature = "eval")]
pub mod eval;
#[cfg(feature = "export")]
pub mod export;
#[cfg(feature = "images")]
pub mod images;
pub mod layers;
#[cfg(feature = "images")]
#[doc(hidden)]
pub mod memory;
pub mod models;
#[cfg(feature = "images")]
pub mod pipeline;
pub mod profile;
#[cfg(feature = "images")]
pub mod results;
pub mod self_test;
pub mod simd;
#[cfg(feature = "images")]
pub mod tasks;
mod tensors;
pub mod weights;
pub mod zoo;

/// Compiles the example of README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
