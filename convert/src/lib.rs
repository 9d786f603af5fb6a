//! Reads PyTorch checkpoints without Python: the tensors of any network by name, and those of Neighborhood Attention
//! Transformers (NAT, DiNAT) with everything that it takes to run them. Nothing that a file names is ever imported,
//! called or run.
//!
//! # Start here
//!
//! | you want | begin with |
//! | --- | --- |
//! | a checkpoint of NAT or DiNAT as safetensors | [`write::write`](write/fn.write.html) (feature `write`), or the program `nat-convert` |
//! | to know what is in one: network, labels, preprocessing | [`checkpoint::Checkpoint`] and its [`report::Report`] |
//! | the tensors of any network, by name | [`state_dict::StateDict`] |
//! | to know what the published models are | [`zoo::entries`], [`zoo::find`] |
//! | everything that a file holds, value by value | [`source::TensorStore`] |
//! | what a network consists of, and what it computes | [`arch::Architecture`] |
//!
//! Files are told by their bytes, never by their names: archives of `torch.save`, its legacy format, safetensors,
//! folders and split checkpoints of Transformers. Each of the three doors opens a path (`open`) or bytes in memory
//! (`from_bytes`); elements stay where they are until `read` asks for them. What a door gives is `Send` and `Sync`:
//! threads share it and read at the same time.
//!
//! ```no_run
//! use nat_convert::checkpoint::{Checkpoint, Options};
//!
//! let checkpoint = Checkpoint::open("nat_tiny.pth".as_ref(), &Options::default())?;
//! println!("{}", checkpoint.report());
//! let mut bytes = Vec::new();
//! for tensor in checkpoint.tensors() {
//!     let dtype = checkpoint.read(&tensor.name, &mut bytes)?;
//!     println!("{} {:?} {dtype:?}: {} bytes", tensor.name, tensor.shape, bytes.len());
//! }
//! # Ok::<(), nat_convert::error::ConvertError>(())
//! ```
//!
//! # How it works
//!
//! A file passes through three rooms: [`source`] opens the container and reads values; [`layout`] finds the state dict
//! and maps its names to the canonical ones; what the tensors are is read off their shapes and every one is held
//! against the [`arch::Architecture`] found. Whatever does not fit is one error that lists it all.
//!
//! # Features
//!
//! `cli` (default) is the program and its crates; `write` adds the module `write`. A library needs neither:
//! `default-features = false`.

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
// The programs of this workspace show what files hold with it; it is no part of reading checkpoints.
#[doc(hidden)]
pub mod terminal;
mod timm;
mod transformers;
mod warning;
#[cfg(feature = "write")]
pub mod write;
pub mod zoo;

/// The examples of the README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct PackageReadme;
