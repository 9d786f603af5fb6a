//! Many images through a task: named, read ahead, computed in batches, and answered in order, one result for each.
//!
//! [`Listing`] finds images, [`Pipeline`] does them, [`Partial`](partial::Partial) keeps what comes of them. An image
//! that is damaged, crashes its decoder or gives no number is an error of its own; the others are done.
//!
//! ```
//! use std::sync::Arc;
//!
//! use nat_infer::pipeline::{Listing, Pipeline, PipelineOptions};
//! use nat_infer::tasks::classify::ClassifyOptions;
//! use nat_infer::tasks::{Classify, LoadOptions, Model};
//! use nat_infer::zoo::{self, Located};
//!
//! let model = Model::named(zoo::find("demo-digits")?, &Located::Embedded, &LoadOptions::default())?;
//! let task = Arc::new(Classify::new(model, &ClassifyOptions::default())?);
//! let images = Listing::expand(&["assets/nine.png".into(), "none.png".into()], false, &mut || Ok(Vec::new()));
//! let mut answers = Vec::new();
//! for done in Pipeline::new(task, images.sources, PipelineOptions::default())? {
//!     match done.result {
//!         Ok(answer) => answers.push(answer.output[0].label.clone()),
//!         Err(failure) => answers.push(failure.to_string()),
//!     }
//! }
//! assert_eq!(answers, ["9", "none.png: no such file or folder"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod archive;
mod failure;
mod glob;
mod listing;
mod names;
pub mod partial;
mod passed_over;
mod queue;
mod read;
mod run;
mod source;
mod source_error;

pub use failure::Failure;
pub use listing::Listing;
pub use names::{name_of, plain};
pub use read::Fetch;
pub use run::{Answer, Done, Pipeline, PipelineOptions, Times};
pub use source::{Location, Source};
pub use source_error::SourceError;
#[cfg(feature = "eval")]
pub(crate) use source_error::reason;
