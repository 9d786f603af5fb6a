//! Backbones: the registry of families, and the norms that follow their levels.

use candle_core::{Result, Tensor};
use nat_convert::arch::{BackboneConfig, DinatSSpec, Family, IsotropicSpec, NatSpec, Norms, Scope};
use nat_convert::recipe::Recipe;

use super::dinat_s::DinatS;
use super::isotropic::Isotropic;
use super::levels::Levels;
use super::nat::Nat;
use crate::layers::{LayerNorm, Maps};
use crate::weights::Weights;

/// A transformer of any family, with the norms that follow its levels.
pub struct Backbone {
    family: Box<dyn Levels>,
    norms: Vec<LayerNorm>,
    kind: Norms,
    maps: Maps,
}

impl Backbone {
    /// Builds the network that `config` describes, with the epsilons and the scale of `recipe`, whose names begin
    /// with `scope`; what the weights lack, they report.
    pub fn new(config: &BackboneConfig, recipe: &Recipe, scope: &Scope, weights: &Weights) -> Self {
        let isotropic =
            |whole_map| Isotropic::new(&IsotropicSpec::new(config, recipe, whole_map, scope), weights);
        let family: Box<dyn Levels> = match config.family {
            Family::Nat => Box::new(Nat::new(&NatSpec::new(config, recipe, scope), weights)),
            Family::DinatS => Box::new(DinatS::new(&DinatSSpec::new(config, recipe, scope), weights)),
            Family::Isotropic => Box::new(isotropic(false)),
            Family::VitRpb => Box::new(isotropic(true)),
        };
        let norms = config.norm_specs(recipe, scope);
        let norms = norms.iter().map(|norm| LayerNorm::new(norm, weights)).collect();
        Self { family, norms, kind: config.norms, maps: Maps::new(weights) }
    }

    /// Images [B, 3, H, W] to each level's map [B, H/4, W/4, C], [B, H/8, W/8, 2C], … (one map for an
    /// isotropic network), taken before the level's downsampler and passed through its `norm{i}` where
    /// the network has them.
    ///
    /// # Errors
    /// When the images do not suit the network.
    pub fn forward(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let maps = self.family.forward(images)?;
        match self.kind {
            Norms::Outputs => maps.iter().zip(&self.norms).map(|(map, norm)| norm.forward(map)).collect(),
            _ => Ok(maps),
        }
    }

    /// Numbers of the network's type in f32.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn widened(&self, x: &Tensor) -> Result<Tensor> {
        self.maps.widened(x)
    }

    /// The last level's map through the final norm, [B, H, W, C], averaged to [B, C].
    ///
    /// # Errors
    /// When the network has no final norm.
    pub fn pool(&self, last: &Tensor) -> Result<Tensor> {
        match (self.kind, self.norms.as_slice()) {
            (Norms::Final, [norm]) => self.maps.mean(&norm.forward(last)?),
            _ => candle_core::bail!("this backbone has no final norm, so nothing to pool"),
        }
    }
}
