//! Files as they come: containers opened, their contents as plain values, tensors still on disk.
//!
//! Nothing here knows a network. [`TensorStore::open`] (of bytes in memory [`TensorStore::from_bytes`]) detects the container by its bytes, never by its
//! name, and gives a tree of [`Value`]s in which tensors are [`TensorRef`]s; [`TensorStore::read`]
//! fetches one tensor's elements. Nothing that a file names is ever imported, called or run.

mod arena;
mod bytes;
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
pub use problem::{Flaw, StoreError};
pub use store::TensorStore;
pub use value::{ElementType, TensorRef, Value};
