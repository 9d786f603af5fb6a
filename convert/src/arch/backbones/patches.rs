//! The patch embedding of DiNAT_s and of isotropic networks.

use crate::arch::backbone::BackboneConfig;
use crate::arch::module::{ConvSpec, Count, Inventory, LayerNormSpec, Scope, Window};
use crate::arch::shapes::{InferError, ShapeView};
use crate::recipe::EPSILON;

/// Patches side by side through one linear map and a norm.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchesSpec {
    /// The linear map, as a convolution.
    pub proj: ConvSpec,
    /// Of the tokens.
    pub norm: LayerNormSpec,
}

impl PatchesSpec {
    /// The embedding of the backbone at `scope`.
    pub fn new(config: &BackboneConfig, scope: &Scope) -> Self {
        let (scope, dim) = (scope.at("patch_embed"), config.embed_dim);
        Self {
            proj: ConvSpec::new(&scope.at("proj"), 3, dim, Window::patches(config.patch_size), true),
            norm: LayerNormSpec::new(&scope.at("norm"), dim, EPSILON),
        }
    }

    /// Takes the embedding of so many `patches`.
    pub fn walk(&self, patches: Count, inventory: &mut Inventory) {
        self.proj.walk(patches, inventory);
        self.norm.walk(patches, inventory);
    }

    /// Channels and side of a patch, by the tensors.
    pub(super) fn read(view: &ShapeView) -> Result<(usize, usize), InferError> {
        Ok((view.dim("patch_embed.proj.weight", 0)?, view.dim("patch_embed.proj.weight", 3)?))
    }
}
