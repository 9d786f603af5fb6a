//! NAT (arXiv 2204.07143, section 3) and DiNAT (arXiv 2209.15001), which differs in its dilations.

use super::block::BlockSpec;
use super::kind::FamilyKind;
use crate::arch::backbone::BackboneConfig;
use crate::arch::maps::MapSizes;
use crate::arch::module::{ConvSpec, Inventory, LayerNormSpec, Scope, Window, count};
use crate::arch::shapes::{InferError, ShapeView};
use crate::recipe::{EPSILON, Recipe};

/// NAT or DiNAT without the norms that follow its levels.
#[derive(Clone, Debug, PartialEq)]
pub struct NatSpec {
    /// The overlapping convolutions that make tokens: the first to half the channels.
    pub proj: [ConvSpec; 2],
    /// Of the tokens.
    pub norm: LayerNormSpec,
    /// The levels, finest first.
    pub levels: Vec<NatLevelSpec>,
}

/// A level of NAT.
#[derive(Clone, Debug, PartialEq)]
pub struct NatLevelSpec {
    /// Its blocks.
    pub blocks: Vec<BlockSpec>,
    /// Of all levels but the last: the convolution to the next one, and the norm behind it.
    pub downsample: Option<(ConvSpec, LayerNormSpec)>,
}

impl NatSpec {
    /// The network at `scope`.
    pub fn new(config: &BackboneConfig, recipe: &Recipe, scope: &Scope) -> Self {
        let (dim, embedding) = (config.embed_dim, scope.at("patch_embed"));
        let conv = |i: usize, inputs, outputs| {
            ConvSpec::new(&embedding.at("proj").at(i), inputs, outputs, Window::HALVE, true)
        };
        let level = |level: usize| {
            let (dim, downsample) = (config.dim(level), scope.at("levels").at(level).at("downsample"));
            let blocks = NatFamily.blocks(scope, level);
            let block = |block| BlockSpec::new(config, recipe, [level, block], false, &blocks.at(block));
            let reduction = || {
                let conv = ConvSpec::new(&downsample.at("reduction"), dim, 2 * dim, Window::HALVE, false);
                (conv, LayerNormSpec::new(&downsample.at("norm"), 2 * dim, EPSILON))
            };
            NatLevelSpec {
                blocks: (0..config.depths[level]).map(block).collect(),
                downsample: (level + 1 < config.depths.len()).then(reduction),
            }
        };
        Self {
            proj: [conv(0, 3, dim / 2), conv(1, dim / 2, dim)],
            norm: LayerNormSpec::new(&embedding.at("norm"), dim, EPSILON),
            levels: (0..config.depths.len()).map(level).collect(),
        }
    }

    /// Takes the network on an image.
    pub fn walk(&self, maps: &MapSizes, inventory: &mut Inventory) {
        let [height, width] = maps.image.map(|side| count(side.div_ceil(2)));
        let [first, second] = &self.proj;
        first.walk(height * width, inventory);
        second.walk(maps.positions(0), inventory);
        self.norm.walk(maps.positions(0), inventory);
        for (i, (level, &map)) in self.levels.iter().zip(&maps.levels).enumerate() {
            level.blocks.iter().for_each(|block| block.walk(map, inventory));
            if let Some((reduction, norm)) = &level.downsample {
                reduction.walk(maps.positions(i + 1), inventory);
                norm.walk(maps.positions(i + 1), inventory);
            }
        }
    }
}

/// The family.
pub(crate) struct NatFamily;

impl FamilyKind for NatFamily {
    fn name(&self) -> &'static str {
        "NAT and DiNAT"
    }

    fn called(&self, dilated: Option<bool>) -> &'static str {
        match dilated {
            Some(true) => "DiNAT",
            Some(false) => "NAT",
            None => "NAT or DiNAT",
        }
    }

    fn patch_size(&self) -> usize {
        4
    }

    fn first_side(&self, pixels: usize, _: usize) -> usize {
        pixels.div_ceil(2).div_ceil(2)
    }

    fn anchor(&self) -> (&'static str, &'static str) {
        ("levels.", "blocks.")
    }

    fn is_of(&self, view: &ShapeView) -> bool {
        view.below("levels.").any(|rest| rest.contains(".blocks."))
    }

    fn embedding(&self, view: &ShapeView) -> Result<(usize, usize), InferError> {
        Ok((view.dim("patch_embed.proj.1.weight", 0)?, self.patch_size()))
    }

    fn levels(&self, view: &ShapeView) -> Result<usize, InferError> {
        view.count("levels.", "")
    }

    fn blocks(&self, scope: &Scope, level: usize) -> Scope {
        scope.at("levels").at(level).at("blocks")
    }

    fn walk(
        &self,
        config: &BackboneConfig,
        recipe: &Recipe,
        scope: &Scope,
        maps: &MapSizes,
        inventory: &mut Inventory,
    ) {
        NatSpec::new(config, recipe, scope).walk(maps, inventory);
    }
}
