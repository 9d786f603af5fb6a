//! The networks. A file reads like its paper: a configuration, then modules with `new` and
//! `forward`, activations channels-last from the patch embedding to the last norm.

mod block;
pub mod boxes;
pub mod classifier;
mod dinat_s;
pub mod fpn;
mod isotropic;
pub mod mask_rcnn;
mod nat;
pub mod roi;
pub mod rpn;
pub mod uper;

use candle_core::{Result, Tensor};
use nat_convert::arch::{Architecture, Backbone as Config, Family, Head, Norms, UpernetWidths};
use nat_convert::recipe::{EPSILON, Recipe};

use self::classifier::Classifier;
use self::mask_rcnn::MaskRcnn;
use self::uper::Upernet;
use crate::layers::{LayerNorm, mean};
use crate::weights::{LoadError, Weights};
pub use dinat_s::DinatS;
pub use isotropic::Isotropic;
pub use nat::Nat;

/// A network of any task.
pub enum Network {
    /// A classifier, or a backbone alone.
    Classifier(Box<Classifier>),
    /// Mask R-CNN or Cascade Mask R-CNN.
    Detector(Box<MaskRcnn>),
    /// UPerNet.
    Segmenter(Box<Upernet>),
}

impl Network {
    /// Builds the network that `architecture` describes and takes all of its weights.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] with everything in which weights and architecture differ.
    pub fn new(architecture: &Architecture, weights: &Weights) -> std::result::Result<Self, LoadError> {
        match &architecture.head {
            Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector) => {
                MaskRcnn::new(architecture, detector, weights)
                    .map(|network| Self::Detector(Box::new(network)))
            }
            &Head::Upernet(UpernetWidths { classes, channels }) => {
                Upernet::new(architecture, classes, channels, weights)
                    .map(|network| Self::Segmenter(Box::new(network)))
            }
            _ => Classifier::new(architecture, weights).map(|network| Self::Classifier(Box::new(network))),
        }
    }
}

/// A transformer of any family, with the norms that follow its levels.
pub struct Backbone {
    family: AnyFamily,
    norms: Vec<LayerNorm>,
    kind: Norms,
}

enum AnyFamily {
    Nat(Nat),
    DinatS(DinatS),
    Isotropic(Isotropic),
}

impl Backbone {
    /// Builds the network that `config` describes, with the epsilons and the scale of `recipe`; what the
    /// weights lack, they report.
    pub fn new(config: &Config, recipe: &Recipe, weights: &Weights) -> Self {
        let family = match config.family {
            Family::Nat => AnyFamily::Nat(Nat::new(config, recipe, weights)),
            Family::DinatS => AnyFamily::DinatS(DinatS::new(config, recipe, weights)),
            Family::Isotropic | Family::VitRpb => {
                AnyFamily::Isotropic(Isotropic::new(config, recipe, weights))
            }
        };
        let norms = match config.norms {
            Norms::Final => vec![LayerNorm::new(config.out_dim(), recipe.norm_epsilon, &weights.pp("norm"))],
            Norms::Outputs => (0..config.depths.len())
                .map(|l| LayerNorm::new(config.dim(l), EPSILON, &weights.pp(format!("norm{l}"))))
                .collect(),
            Norms::Absent => Vec::new(),
        };
        Self { family, norms, kind: config.norms }
    }

    /// Images [B, 3, H, W] to each level's map [B, H/4, W/4, C], [B, H/8, W/8, 2C], … (one map for an
    /// isotropic network), taken before the level's downsampler and passed through its `norm{i}` where
    /// the network has them.
    ///
    /// # Errors
    /// When the images do not suit the network.
    pub fn forward(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let maps = match &self.family {
            AnyFamily::Nat(net) => net.forward(images),
            AnyFamily::DinatS(net) => net.forward(images),
            AnyFamily::Isotropic(net) => net.forward(images).map(|map| vec![map]),
        }?;
        match self.kind {
            Norms::Outputs => maps.iter().zip(&self.norms).map(|(map, norm)| norm.forward(map)).collect(),
            _ => Ok(maps),
        }
    }

    /// The last level's map through the final norm, [B, H, W, C], averaged to [B, C].
    ///
    /// # Errors
    /// When the network has no final norm.
    pub fn pool(&self, last: &Tensor) -> Result<Tensor> {
        match (self.kind, self.norms.as_slice()) {
            (Norms::Final, [norm]) => mean(&norm.forward(last)?),
            _ => candle_core::bail!("this backbone has no final norm, so nothing to pool"),
        }
    }
}
