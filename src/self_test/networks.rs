//! Small networks, one of every kind that is published.

use nat_convert::arch::{
    Architecture, BackboneConfig, ClassifierWidths, DetectorWidths, Family, Head, Norms, UpernetWidths,
};
use nat_convert::recipe::Recipe;

/// A network and its images.
pub(super) struct NetworkCase {
    pub(super) name: &'static str,
    pub(super) architecture: Architecture,
    /// Height and width of the images.
    pub(super) size: [usize; 2],
}

/// Added to variances: so much that a norm which leaves it out, or takes another one, is seen.
const NORM_EPSILON: f64 = 0.1;

/// Side of a patch of the families that have one level.
const PATCH: usize = 16;

/// What [`case`] takes of a backbone.
struct Sizes {
    embed_dim: usize,
    heads: &'static [usize],
    kernel_size: usize,
    dilations: &'static [&'static [usize]],
    layer_scale: bool,
}

fn case(name: &'static str, family: Family, size: [usize; 2], sizes: &Sizes, head: Head) -> NetworkCase {
    let &Sizes { embed_dim, heads, kernel_size, dilations, layer_scale } = sizes;
    let classifier = matches!(head, Head::Classifier(_));
    let backbone = BackboneConfig {
        family,
        embed_dim,
        patch_size: if matches!(family, Family::Isotropic | Family::VitRpb) { PATCH } else { 4 },
        depths: dilations.iter().map(|level| level.len()).collect(),
        num_heads: heads.to_vec(),
        kernel_size,
        mlp_ratio: 2.0,
        dilations: dilations.iter().map(|level| level.to_vec()).collect(),
        layer_scale,
        rpb: true,
        qkv_bias: true,
        norms: if classifier { Norms::Final } else { Norms::Outputs },
    };
    let mut recipe =
        Recipe { norm_epsilon: NORM_EPSILON, batch_norm_epsilon: NORM_EPSILON, ..Recipe::default() };
    // Regions of this test's sizes come from every map.
    recipe.detector.finest_scale = 8.0;
    NetworkCase { name, architecture: Architecture { backbone, head, recipe }, size }
}

/// All of them. Heads of 32 channels, which all published networks have, and others; maps larger than the windows and
/// smaller ones, which are padded.
pub(super) fn all() -> Vec<NetworkCase> {
    let classes = || Head::Classifier(ClassifierWidths { classes: 10 });
    let nat = Sizes {
        embed_dim: 32,
        heads: &[1, 2, 4],
        kernel_size: 7,
        dilations: &[&[1], &[1], &[1]],
        layer_scale: false,
    };
    let dinat = Sizes {
        embed_dim: 48,
        heads: &[2, 2],
        kernel_size: 5,
        dilations: &[&[1, 3], &[2]],
        layer_scale: true,
    };
    let dinat_s = Sizes {
        embed_dim: 32,
        heads: &[1, 2],
        kernel_size: 7,
        dilations: &[&[1, 2], &[1]],
        layer_scale: false,
    };
    let isotropic =
        Sizes { embed_dim: 64, heads: &[2], kernel_size: 3, dilations: &[&[1, 2]], layer_scale: true };
    let vit = Sizes { kernel_size: 4, dilations: &[&[1]], layer_scale: false, ..isotropic };
    let below = Sizes {
        embed_dim: 16,
        heads: &[1, 1, 2, 4],
        kernel_size: 3,
        dilations: &[&[1], &[2], &[1], &[1]],
        layer_scale: false,
    };
    let detector = |cascade: bool| DetectorWidths {
        classes: 5,
        fpn_channels: 32,
        box_convs: if cascade { 2 } else { 0 },
        box_channels: 32,
        box_fcs: if cascade { 1 } else { 2 },
        fc_channels: 48,
        // Otherwise a stage moves the regions of the one before by the deltas of a class that a last bit may change.
        class_agnostic: cascade,
        stages: if cascade { 3 } else { 1 },
        mask_convs: 2,
        mask_channels: 32,
    };
    let (images, square, pictures) = ([48, 72], [64, 64], [64, 96]);
    vec![
        case("nat", Family::Nat, images, &nat, classes()),
        case("dinat", Family::Nat, images, &dinat, classes()),
        case("dinat-s", Family::DinatS, images, &dinat_s, classes()),
        case("isotropic", Family::Isotropic, pictures, &isotropic, classes()),
        case("vit-rpb", Family::VitRpb, square, &vit, classes()),
        case("mask-rcnn", Family::Nat, pictures, &below, Head::MaskRcnn(detector(false))),
        case("cascade-mask-rcnn", Family::Nat, pictures, &below, Head::CascadeMaskRcnn(detector(true))),
        case(
            "upernet",
            Family::Nat,
            images,
            &below,
            Head::Upernet(UpernetWidths { classes: 7, channels: 32 }),
        ),
    ]
}
