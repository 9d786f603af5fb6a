//! The backbones: a file a family, and the rows of all.

mod block;
mod dinat_s;
mod isotropic;
mod kind;
mod nat;
mod patches;
mod registry;

pub use block::{AttentionSpec, BlockSpec};
pub use dinat_s::{DinatSLevelSpec, DinatSSpec};
pub use isotropic::IsotropicSpec;
pub use nat::{NatLevelSpec, NatSpec};
pub use patches::PatchesSpec;
