//! Isotropic networks (arXiv 2209.15001, section 4.4): NAT-iso, DiNAT-iso, and ViT with a relative position bias,
//! which attends over the whole map.

use super::block::BlockSpec;
use super::kind::FamilyKind;
use super::patches::PatchesSpec;
use crate::arch::backbone::{BackboneConfig, Family};
use crate::arch::maps::MapSizes;
use crate::arch::module::{Inventory, Scope};
use crate::arch::shapes::{InferError, ShapeView};
use crate::recipe::Recipe;

/// Patches of 16x16 pixels and one level of blocks, without the norm that follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct IsotropicSpec {
    /// What makes tokens.
    pub patch_embed: PatchesSpec,
    /// The blocks.
    pub layers: Vec<BlockSpec>,
}

impl IsotropicSpec {
    /// The network at `scope`; `whole_map` says of what the attention is.
    pub fn new(config: &BackboneConfig, recipe: &Recipe, whole_map: bool, scope: &Scope) -> Self {
        let blocks = IsotropicFamily { whole_map }.blocks(scope, 0);
        let block = |block| BlockSpec::new(config, recipe, [0, block], whole_map, &blocks.at(block));
        Self {
            patch_embed: PatchesSpec::new(config, scope),
            layers: (0..config.depths[0]).map(block).collect(),
        }
    }

    /// Takes the network on an image.
    pub fn walk(&self, maps: &MapSizes, inventory: &mut Inventory) {
        self.patch_embed.walk(maps.positions(0), inventory);
        for &map in &maps.levels {
            self.layers.iter().for_each(|block| block.walk(map, inventory));
        }
    }
}

/// Either family.
pub(crate) struct IsotropicFamily {
    /// Whether attention is over the whole map.
    pub whole_map: bool,
}

impl FamilyKind for IsotropicFamily {
    fn name(&self) -> &'static str {
        if self.whole_map { "ViT-rpb" } else { "isotropic" }
    }

    fn called(&self, dilated: Option<bool>) -> &'static str {
        match dilated {
            _ if self.whole_map => "ViT-rpb",
            Some(true) => "DiNAT-iso",
            Some(false) => "NAT-iso",
            None => "NAT-iso or DiNAT-iso",
        }
    }

    fn patch_size(&self) -> usize {
        16
    }

    fn attends_whole_map(&self) -> bool {
        self.whole_map
    }

    fn over_whole_map(&self) -> Option<Family> {
        Some(Family::VitRpb)
    }

    fn anchor(&self) -> (&'static str, &'static str) {
        ("layers.", "attn.")
    }

    fn is_of(&self, view: &ShapeView) -> bool {
        view.below("layers.").any(|rest| rest.contains(".attn.qkv."))
    }

    fn embedding(&self, view: &ShapeView) -> Result<(usize, usize), InferError> {
        PatchesSpec::read(view)
    }

    fn levels(&self, _: &ShapeView) -> Result<usize, InferError> {
        Ok(1)
    }

    fn blocks(&self, scope: &Scope, _: usize) -> Scope {
        scope.at("layers")
    }

    fn walk(
        &self,
        config: &BackboneConfig,
        recipe: &Recipe,
        scope: &Scope,
        maps: &MapSizes,
        inventory: &mut Inventory,
    ) {
        IsotropicSpec::new(config, recipe, self.whole_map, scope).walk(maps, inventory);
    }
}
