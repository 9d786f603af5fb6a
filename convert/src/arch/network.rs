//! Whole networks.

use serde::{Deserialize, Serialize};

use super::backbone::BackboneConfig;
use super::heads::Head;
use super::module::Inventory;
use crate::recipe::{Recipe, is_default};

/// A network: a backbone and what stands on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// The hierarchical or isotropic transformer.
    pub backbone: BackboneConfig,
    /// What turns its feature maps into results.
    pub head: Head,
    /// What its tensors do not tell.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recipe: Recipe,
}

impl Architecture {
    /// Classes that the network tells apart: of a segmenter with one output two, of a backbone none.
    pub fn classes(&self) -> Option<usize> {
        self.head.classes()
    }

    /// Every tensor with its shape under the canonical names: a classifier's and a bare backbone's
    /// as published, a detector's and a segmenter's backbone under `backbone.`.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let weights = self.inventory(0, 0).weights;
        weights.into_iter().map(|weight| (weight.name, weight.shape)).collect()
    }

    /// Learnable parameters: the values of every tensor but BatchNorm's running statistics.
    pub fn parameters(&self) -> u64 {
        self.inventory(0, 0).parameters()
    }

    /// Multiply-accumulates of one image of `height` x `width` pixels, as the authors' tools count (fvcore with
    /// NATTEN's handles; of a detector's head mmdet's): convolutions, linear layers, both products of the attention,
    /// one for each bias it adds, five for each value of a layer norm, two of a BatchNorm, four of an
    /// interpolation. A detector has all the proposals and detections that it keeps.
    pub fn macs(&self, height: usize, width: usize) -> u64 {
        self.inventory(height, width).macs.0
    }

    /// Everything that a walk over the network meets, for an image of `height` x `width` pixels.
    pub fn inventory(&self, height: usize, width: usize) -> Inventory {
        let maps = self.backbone.maps(height, width);
        let mut inventory = Inventory::default();
        self.backbone.walk(&self.recipe, &self.head.backbone_scope(), &maps, &mut inventory);
        self.head.walk(&self.recipe, &maps, &mut inventory);
        inventory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{Norms, UpernetWidths};
    use crate::zoo;

    /// Parameters, and multiply-accumulates at 37x1003, of what no published network is.
    #[test]
    fn altered_networks_are_counted_too() {
        type Alter = fn(&mut Architecture);
        let cases: [(&str, Alter, u64, u64); 11] = [
            ("nat-tiny", |a| a.backbone.rpb = false, 27_860_008, 4_222_815_808),
            ("nat-tiny", |a| a.backbone.qkv_bias = false, 27_877_966, 4_225_632_132),
            ("nat-tiny", |a| a.backbone.layer_scale = true, 27_917_326, 4_225_632_132),
            ("nat-tiny", |a| a.backbone.norms = Norms::Absent, 27_900_558, 4_225_468_292),
            ("nat-tiny", |a| a.backbone.mlp_ratio = 2.3, 24_289_652, 3_693_033_092),
            ("nat-tiny", |a| a.head = Head::Features, 27_388_582, 4_225_120_132),
            ("dinat-s-tiny", |a| a.backbone.embed_dim = 63, 12_385_489, 1_911_687_918),
            ("vit-rpb-small", |a| a.backbone.rpb = false, 21_975_400, 4_407_924_480),
            (
                "mask-rcnn-nat-tiny",
                |a| {
                    let recipe = &mut a.recipe.detector;
                    recipe.anchors.scales = vec![1.0, 2.0];
                    (recipe.proposals.most, recipe.max_detections) = (300, 7);
                },
                47_544_357,
                16_347_561_732,
            ),
            (
                "upernet-nat-tiny",
                |a| a.head = Head::Upernet(UpernetWidths { classes: 1, channels: 33 }),
                27_732_547,
                4_382_553_951,
            ),
            ("upernet-nat-tiny", |a| a.recipe.segmenter.pool_scales = vec![2, 5], 51_823_292, 36_623_910_892),
        ];
        for (i, (name, alter, parameters, macs)) in cases.into_iter().enumerate() {
            let mut network = zoo::find(name).unwrap().architecture.clone();
            alter(&mut network);
            assert_eq!((network.parameters(), network.macs(37, 1003)), (parameters, macs), "{name}, {i}");
        }
    }

    /// The counts themselves are held against the published figures in [`zoo`].
    #[test]
    fn counts_of_absurd_networks_end_at_the_largest_number() {
        for entry in zoo::entries() {
            let mut network = entry.architecture.clone();
            for side in [512, 1 << 16] {
                assert!(network.macs(side, side) < u64::MAX, "{}", entry.name);
            }
            let huge = usize::MAX >> 8;
            (network.backbone.embed_dim, network.backbone.kernel_size) = (huge, huge / 2);
            match &mut network.head {
                Head::Classifier(head) => head.classes = huge,
                Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector) => detector.box_fcs = 0,
                Head::Upernet(head) => head.channels = huge,
                _ => {}
            }
            assert_eq!(network.macs(512, 512), u64::MAX, "{}", entry.name);
        }
    }
}
