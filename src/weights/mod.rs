//! Where models take their tensors from: a safetensors file, mapped or in memory, a checkpoint converted in memory, tensors
//! by name, a `candle_nn::VarBuilder`, or random numbers.
//!
//! The other way round, [`CheckpointTensors`] is a builder for any program on candle, of any checkpoint.
//!
//! Loading is total. A model is built by calls of [`Weights::take`], which always give a tensor of the shape asked for;
//! what was missing, misshapen or left over is collected and [`Weights::finish`] reports all of it in one error.

mod checkpoint_tensors;
mod elements;
mod origin;
mod problem;
mod safetensors_file;
mod view;

pub use checkpoint_tensors::CheckpointTensors;
pub use problem::{LoadError, TensorProblem};
#[cfg(feature = "eval")]
pub(crate) use safetensors_file::SafetensorsFile;
pub(crate) use view::Placement;
#[cfg(feature = "cuda")]
pub(crate) use view::Purpose;
pub use view::Weights;
