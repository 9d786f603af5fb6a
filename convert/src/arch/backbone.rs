//! The transformer below every head, as metadata says it: sizes, and whose layout and names it has.

use serde::{Deserialize, Serialize};

use super::module::{LayerNormSpec, Scope};
use crate::recipe::{EPSILON, Recipe};

/// How tokens are made, merged and named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// NAT and DiNAT: overlapping convolutional tokenizer and downsamplers, `levels.*`.
    Nat,
    /// DiNAT_s: Swin's layout with a 4x4 patch embedding and patch merging, `layers.*`.
    DinatS,
    /// NAT-iso and DiNAT-iso: 16x16 patches, one level, `layers.*`.
    Isotropic,
    /// ViT with a relative position bias: as isotropic, attention over the whole map.
    VitRpb,
}

/// Which layer norms follow the levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norms {
    /// One `norm` after the last level, as classifiers have.
    Final,
    /// `norm0`..`norm3`, one for each level, as detection and segmentation backbones have.
    Outputs,
    /// None at all.
    Absent,
}

/// The transformer below every head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackboneConfig {
    /// Layout and names.
    pub family: Family,
    /// Channels of the first level; each further level has twice as many.
    pub embed_dim: usize,
    /// Side of a patch in pixels: 4 for hierarchical families, 16 for isotropic ones.
    pub patch_size: usize,
    /// Blocks in each level.
    pub depths: Vec<usize>,
    /// Attention heads in each level.
    pub num_heads: Vec<usize>,
    /// Neighborhood size K; for [`Family::VitRpb`] the side of the map that the bias table covers.
    pub kernel_size: usize,
    /// Hidden width of the MLP over its input width.
    pub mlp_ratio: f64,
    /// Dilation of every block, level by level.
    pub dilations: Vec<Vec<usize>>,
    /// Whether blocks scale their branches (`gamma1`, `gamma2`).
    pub layer_scale: bool,
    /// Whether the attention has a relative position bias.
    pub rpb: bool,
    /// Whether the layer of queries, keys and values has a bias.
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    /// The norms after the levels.
    pub norms: Norms,
}

fn yes() -> bool {
    true
}

impl BackboneConfig {
    /// Channels of level `level` (from 0).
    pub fn dim(&self, level: usize) -> usize {
        self.embed_dim << level
    }

    /// Channels of every level.
    pub fn dims(&self) -> Vec<usize> {
        (0..self.depths.len()).map(|level| self.dim(level)).collect()
    }

    /// Channels after the last level.
    pub fn out_dim(&self) -> usize {
        self.dim(self.depths.len() - 1)
    }

    /// Hidden width of the MLPs of `level`, truncated as PyTorch's `int(dim * ratio)`.
    pub fn hidden(&self, level: usize) -> usize {
        (self.dim(level) as f64 * self.mlp_ratio + 1e-6) as usize
    }

    /// Whether a block attends to more than its neighbours.
    pub fn is_dilated(&self) -> bool {
        self.dilations.iter().flatten().any(|&dilation| dilation > 1)
    }

    /// The norms after the levels of the backbone at `scope`: one of the last level, one of each, or none.
    pub fn norm_specs(&self, recipe: &Recipe, scope: &Scope) -> Vec<LayerNormSpec> {
        let of = |name: &str, dim, epsilon| LayerNormSpec::new(&scope.at(name), dim, epsilon);
        match self.norms {
            Norms::Final => vec![of("norm", self.out_dim(), recipe.norm_epsilon)],
            Norms::Outputs => {
                let each = self.dims().into_iter().enumerate();
                each.map(|(level, dim)| of(&format!("norm{level}"), dim, EPSILON)).collect()
            }
            Norms::Absent => Vec::new(),
        }
    }
}
