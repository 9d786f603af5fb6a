//! What a checkpoint computes: the architecture types that the converter infers, the safetensors
//! metadata carries and the models are built from.
//!
//! An [`Architecture`] is what is written down of a network: sizes. Its description follows from it, module by
//! module (`…Spec`): what tensors each has, with names and shapes, and what it computes. A family of backbones is a
//! file in `backbones`, a head one in `heads`.
//!
//! These types, and those of [`crate::recipe`], list all that there is (none is `#[non_exhaustive]`): a program that
//! computes a network has to follow every field and every family, and one that is new must not pass unseen. A new
//! one is a new version of this crate that says so.
//!
//! Sources: arXiv 2204.07143 (NAT), 2209.15001 (DiNAT), and the repository
//! SHI-Labs/Neighborhood-Attention-Transformer for names and sizes.

mod backbone;
mod backbones;
mod dilations;
pub(crate) mod heads;
mod maps;
mod module;
mod network;
mod preprocessing;
pub(crate) mod shapes;
mod task;

pub use backbone::{BackboneConfig, Family, Norms};
pub use backbones::{
    AttentionSpec, BlockSpec, DinatSLevelSpec, DinatSSpec, IsotropicSpec, NatLevelSpec, NatSpec, PatchesSpec,
};
pub use dilations::{Dilations, DilationsError};
pub use heads::{
    BOX_SIDE, BoxHeadSpec, ClassifierWidths, DetectorSpec, DetectorWidths, FpnSpec, Head, MASK_SIDE,
    MaskHeadSpec, RpnSpec, UpernetSpec, UpernetWidths,
};
pub use maps::{MapSize, MapSizes};
pub use module::{
    BatchNormSpec, ConvModuleSpec, ConvSpec, Count, Inventory, LayerNormSpec, LinearSpec, Scope,
    UpsamplingSpec, Weight, Window, count,
};
pub use network::Architecture;
pub use preprocessing::{Filter, Geometry, IMAGENET_MEAN, IMAGENET_STD, MAX_SIDE, Preprocessing};
pub use task::Task;
