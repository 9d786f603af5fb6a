//! Names: where a checkpoint keeps its tensors, how it calls them, and what they are called here.
//!
//! This is the one place that knows the layouts of the published files. `find` unwraps the state
//! dict, `map` renames every tensor of the network in it to the canonical name (that of the original
//! repository) or says why it is dropped. Whether the result is a network is not decided here: a name that no
//! rule knows is kept, and the comparison with [`crate::arch::Architecture::tensors`] reports it.

mod assemble;
mod glob;
mod map;
mod mapped;
mod naming;
mod networks;
mod rule;
mod signs;
mod transformers;
mod unusable;
mod unwrapped;
#[cfg(test)]
mod values;
mod words;
mod wrappers;

pub(crate) use map::{OUTSIDE, map};
pub use mapped::Dropped;
pub(crate) use mapped::{Canonical, Mapped};
pub use naming::Layout;
pub(crate) use signs::looks_like;
pub(crate) use unusable::unreadable;
pub(crate) use unwrapped::{below, unwrapped};
pub(crate) use wrappers::{NotFound, find, get, ignore, text};
