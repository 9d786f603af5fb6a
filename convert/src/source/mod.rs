//! Files as they come: containers opened, their contents as plain values, tensors still on disk.
//!
//! Nothing here knows a network. [`Source::open`] detects the container by its bytes, never by its
//! name, and gives a tree of [`Value`]s in which tensors are [`TensorRef`]s; [`Source::read`]
//! fetches one tensor's elements. Nothing that a file names is ever imported, called or run.

mod arena;
mod contents;
mod detect;
mod foreign;
mod legacy;
mod pickle;
mod problem;
mod rebuild;
mod safetensors;
mod shards;
mod store;
#[cfg(test)]
mod tests;
mod value;
mod zip;

pub use contents::Container;
pub use problem::{Problem, SourceError};
pub use store::Source;
pub use value::{DType, TensorRef, Value};
