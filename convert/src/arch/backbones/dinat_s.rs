//! DiNAT_s (arXiv 2209.15001, section 4): Swin's layout with neighborhood attention in place of shifted windows.

use super::block::BlockSpec;
use super::kind::FamilyKind;
use super::patches::PatchesSpec;
use crate::arch::backbone::BackboneConfig;
use crate::arch::maps::MapSizes;
use crate::arch::module::{Inventory, LayerNormSpec, LinearSpec, Scope};
use crate::arch::shapes::{InferError, ShapeView};
use crate::recipe::{EPSILON, Recipe};

/// DiNAT_s without the norms that follow its levels.
#[derive(Clone, Debug, PartialEq)]
pub struct DinatSSpec {
    /// What makes tokens.
    pub patch_embed: PatchesSpec,
    /// The levels, finest first.
    pub levels: Vec<DinatSLevelSpec>,
}

/// A level of DiNAT_s.
#[derive(Clone, Debug, PartialEq)]
pub struct DinatSLevelSpec {
    /// Its blocks.
    pub blocks: Vec<BlockSpec>,
    /// Of all levels but the last: the norm of four positions side by side, and what merges them.
    pub downsample: Option<(LayerNormSpec, LinearSpec)>,
}

impl DinatSSpec {
    /// The network at `scope`.
    pub fn new(config: &BackboneConfig, recipe: &Recipe, scope: &Scope) -> Self {
        let level = |level: usize| {
            let (dim, downsample) = (config.dim(level), scope.at("layers").at(level).at("downsample"));
            let blocks = DinatSFamily.blocks(scope, level);
            let block = |block| BlockSpec::new(config, recipe, [level, block], false, &blocks.at(block));
            let merging = || {
                let norm = LayerNormSpec::new(&downsample.at("norm"), 4 * dim, EPSILON);
                (norm, LinearSpec::new(&downsample.at("reduction"), 4 * dim, 2 * dim, false))
            };
            DinatSLevelSpec {
                blocks: (0..config.depths[level]).map(block).collect(),
                downsample: (level + 1 < config.depths.len()).then(merging),
            }
        };
        Self {
            patch_embed: PatchesSpec::new(config, scope),
            levels: (0..config.depths.len()).map(level).collect(),
        }
    }

    /// Takes the network on an image.
    pub fn walk(&self, maps: &MapSizes, inventory: &mut Inventory) {
        self.patch_embed.walk(maps.positions(0), inventory);
        for (i, (level, &map)) in self.levels.iter().zip(&maps.levels).enumerate() {
            level.blocks.iter().for_each(|block| block.walk(map, inventory));
            if let Some((norm, reduction)) = &level.downsample {
                norm.walk(maps.positions(i + 1), inventory);
                reduction.walk(maps.positions(i + 1), inventory);
            }
        }
    }
}

/// The family.
pub(crate) struct DinatSFamily;

impl FamilyKind for DinatSFamily {
    fn name(&self) -> &'static str {
        "DiNAT_s"
    }

    fn called(&self, _: Option<bool>) -> &'static str {
        "DiNAT_s"
    }

    fn patch_size(&self) -> usize {
        4
    }

    fn anchor(&self) -> (&'static str, &'static str) {
        ("layers.", "blocks.")
    }

    fn is_of(&self, view: &ShapeView) -> bool {
        view.below("layers.").any(|rest| rest.contains(".blocks."))
    }

    fn embedding(&self, view: &ShapeView) -> Result<(usize, usize), InferError> {
        PatchesSpec::read(view)
    }

    fn levels(&self, view: &ShapeView) -> Result<usize, InferError> {
        view.count("layers.", "")
    }

    fn blocks(&self, scope: &Scope, level: usize) -> Scope {
        scope.at("layers").at(level).at("blocks")
    }

    fn walk(
        &self,
        config: &BackboneConfig,
        recipe: &Recipe,
        scope: &Scope,
        maps: &MapSizes,
        inventory: &mut Inventory,
    ) {
        DinatSSpec::new(config, recipe, scope).walk(maps, inventory);
    }
}
