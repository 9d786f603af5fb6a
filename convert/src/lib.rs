//! Reads the checkpoints that NAT and DiNAT were published in and writes safetensors.
//!
//! A file passes through three rooms: [`source`] opens the container and reads values without
//! running anything; `layout` maps tensor names to the canonical ones, `infer` reads the
//! [`arch::Architecture`] off them and holds every tensor against it; [`mod@write`] streams the tensors
//! into one safetensors file. [`checkpoint::Checkpoint`] is the door to all three, and what
//! `nat-infer --weights` uses:
//!
//! ```no_run
//! use nat_convert::checkpoint::{Checkpoint, Options};
//!
//! let checkpoint = Checkpoint::open("nat_tiny.pth".as_ref(), &Options::default())?;
//! let mut bytes = Vec::new();
//! for tensor in checkpoint.tensors() {
//!     let dtype = checkpoint.read(&tensor.name, &mut bytes)?;
//!     println!("{} {:?} {dtype:?}: {} bytes", tensor.name, tensor.shape, bytes.len());
//! }
//! # Ok::<(), nat_convert::error::ConvertError>(())
//! ```

pub mod arch;
mod check;
pub mod checkpoint;
pub mod error;
mod infer;
mod known;
pub mod labels;
pub mod layout;
mod likeness;
mod limits;
pub mod metadata;
mod opened;
mod openmmlab;
mod options;
mod python;
pub mod recipe;
pub mod report;
pub mod source;
pub mod state_dict;
pub mod terminal;
mod timm;
mod transformers;
mod warning;
#[cfg(feature = "write")]
pub mod write;
pub mod zoo;
