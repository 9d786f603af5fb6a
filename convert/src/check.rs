//! Numbers out of a file, held against what can be computed with: metadata is input like any other.

use std::fmt::Display;

use crate::arch::{Architecture, Backbone, Detector, Family, Geometry, Head, MAX_SIDE, Preprocessing};
use crate::metadata::Metadata;
use crate::recipe::{BoxCoder, DetectorRecipe, Recipe, SegmenterRecipe, SlidingWindow};

/// More than any network has of channels, blocks, classes and the like: products of a few of these are far
/// from overflowing.
const MAX_CHANNELS: usize = 1 << 16;
const MAX_LEVELS: usize = 8;
const MAX_BLOCKS: usize = 1 << 10;
const MAX_CLASSES: usize = 1 << 20;
const MAX_DILATION: usize = 1 << 12;
const MAX_BOXES: usize = 1 << 16;
const MAX_LIST: usize = 64;
/// Maps of a detector's pyramid.
const MAPS: usize = 5;
/// Longest name of a class in bytes.
const MAX_NAME: usize = 1 << 12;

type Result = std::result::Result<(), String>;

/// # Errors
/// What the first number is that nothing can be computed with.
pub(crate) fn metadata(metadata: &Metadata) -> Result {
    architecture(&metadata.architecture)?;
    preprocessing(&metadata.preprocessing)?;
    if let Some(labels) = &metadata.labels {
        at_most("labels", labels.len(), MAX_CLASSES)?;
        if let Some(label) = labels.iter().find(|label| label.len() > MAX_NAME) {
            return Err(format!("a label has {} bytes, more than {MAX_NAME}", label.len()));
        }
    }
    if let Some(palette) = &metadata.palette {
        at_most("palette", palette.len(), MAX_CLASSES)?;
    }
    Ok(())
}

fn architecture(architecture: &Architecture) -> Result {
    backbone(&architecture.backbone)?;
    match &architecture.head {
        Head::Features => {}
        Head::Classifier { classes } => count("classes", *classes, MAX_CLASSES)?,
        Head::MaskRcnn(head) | Head::CascadeMaskRcnn(head) => {
            detector(head)?;
            let (stages, coders) = (head.stages, architecture.recipe.detector.stages.len());
            if stages > coders {
                return Err(format!("{stages} stages of a detector have {coders} box coders"));
            }
        }
        Head::Upernet { classes, channels } => {
            count("classes", *classes, MAX_CLASSES)?;
            count("channels", *channels, MAX_CHANNELS)?;
        }
    }
    recipe(&architecture.recipe)
}

fn backbone(backbone: &Backbone) -> Result {
    let Backbone { embed_dim, patch_size, depths, num_heads, kernel_size, dilations, .. } = backbone;
    count("depths", depths.len(), MAX_LEVELS)?;
    count("embed_dim", *embed_dim, MAX_CHANNELS)?;
    count("patch_size", *patch_size, 1 << 8)?;
    count("kernel_size", *kernel_size, MAX_DILATION)?;
    number("mlp_ratio", backbone.mlp_ratio, 1e-3, 64.0)?;
    if num_heads.len() != depths.len() || dilations.len() != depths.len() {
        return Err(format!(
            "{} levels have {} numbers of heads and {} lists of dilations",
            depths.len(),
            num_heads.len(),
            dilations.len()
        ));
    }
    for (level, ((&depth, &heads), dilations)) in depths.iter().zip(num_heads).zip(dilations).enumerate() {
        count("depths", depth, MAX_BLOCKS)?;
        count("num_heads", heads, MAX_CHANNELS)?;
        if !backbone.dim(level).is_multiple_of(heads) {
            return Err(format!("{} channels can't be divided into {heads} heads", backbone.dim(level)));
        }
        if dilations.len() != depth {
            return Err(format!("the {depth} blocks of level {level} have {} dilations", dilations.len()));
        }
        for &dilation in dilations {
            count("dilations", dilation, MAX_DILATION)?;
        }
    }
    if kernel_size.is_multiple_of(2) && backbone.family != Family::VitRpb {
        return Err(format!("kernel_size is {kernel_size}, and a neighbourhood has a middle"));
    }
    Ok(())
}

fn detector(detector: &Detector) -> Result {
    count("classes", detector.classes, MAX_CLASSES)?;
    for (name, channels) in [
        ("fpn_channels", detector.fpn_channels),
        ("box_channels", detector.box_channels),
        ("fc_channels", detector.fc_channels),
        ("mask_channels", detector.mask_channels),
    ] {
        count(name, channels, MAX_CHANNELS)?;
    }
    for (name, layers) in [
        ("box_convs", detector.box_convs),
        ("box_fcs", detector.box_fcs),
        ("mask_convs", detector.mask_convs),
        ("stages", detector.stages),
    ] {
        at_most(name, layers, MAX_LIST)?;
    }
    count("stages", detector.stages, MAX_LIST)
}

fn recipe(recipe: &Recipe) -> Result {
    let Recipe { norm_epsilon, batch_norm_epsilon, query_scale, scores: _, detector, segmenter } = recipe;
    number("norm_epsilon", *norm_epsilon, 1e-12, 1.0)?;
    number("batch_norm_epsilon", *batch_norm_epsilon, 1e-12, 1.0)?;
    if let Some(scale) = query_scale {
        number("query_scale", *scale, 1e-6, 1e6)?;
    }
    detector_recipe(detector)?;
    segmenter_recipe(segmenter)
}

fn detector_recipe(recipe: &DetectorRecipe) -> Result {
    let DetectorRecipe { anchors, proposals, stages, .. } = recipe;
    for (name, list) in [
        ("anchors.scales", &anchors.scales),
        ("anchors.ratios", &anchors.ratios),
        ("anchors.base_sizes", &anchors.base_sizes),
    ] {
        count(name, list.len(), MAX_LIST)?;
        list.iter().try_for_each(|&size| number(name, size, 1e-3, 1e5))?;
    }
    // One for each map of the pyramid.
    if anchors.base_sizes.len() != MAPS {
        return Err(format!("anchors.base_sizes are {}, not {MAPS}", anchors.base_sizes.len()));
    }
    number("anchors.center_offset", anchors.center_offset, 0.0, 1.0)?;
    coder("proposals.coder", &proposals.coder)?;
    count("proposals.per_map", proposals.per_map, MAX_BOXES)?;
    count("proposals.most", proposals.most, MAX_BOXES)?;
    number("proposals.iou_threshold", proposals.iou_threshold, 0.0, 1.0)?;
    number("proposals.smallest", proposals.smallest, 0.0, 1e5)?;
    count("stages", stages.len(), MAX_LIST)?;
    stages.iter().try_for_each(|stage| coder("stages", stage))?;
    number("finest_scale", recipe.finest_scale, 1e-3, 1e5)?;
    number("score_threshold", recipe.score_threshold, 0.0, 1.0)?;
    number("iou_threshold", recipe.iou_threshold, 0.0, 1.0)?;
    count("max_detections", recipe.max_detections, MAX_BOXES)?;
    number("mask_threshold", recipe.mask_threshold, 0.0, 1.0)
}

fn coder(name: &str, coder: &BoxCoder) -> Result {
    coder.means.iter().try_for_each(|&mean| number(name, mean, -1e3, 1e3))?;
    coder.stds.iter().try_for_each(|&std| number(name, std, 1e-6, 1e3))
}

fn segmenter_recipe(recipe: &SegmenterRecipe) -> Result {
    count("pool_scales", recipe.pool_scales.len(), MAX_LIST)?;
    recipe.pool_scales.iter().try_for_each(|&side| count("pool_scales", side, MAX_LIST))?;
    number("threshold", recipe.threshold, 0.0, 1.0)?;
    if let Some(SlidingWindow { crop, stride }) = &recipe.window {
        for (crop, stride) in crop.iter().zip(stride) {
            count("window.crop", *crop, MAX_SIDE)?;
            count("window.stride", *stride, *crop)?;
        }
    }
    Ok(())
}

/// # Errors
/// What can't be done with pixels.
pub(crate) fn preprocessing(preprocessing: &Preprocessing) -> Result {
    preprocessing.mean.iter().try_for_each(|&mean| number("mean", mean, -1e6, 1e6))?;
    preprocessing.std.iter().try_for_each(|&std| number("std", std, 1e-9, 1e6))?;
    match preprocessing.geometry {
        Geometry::Crop { resolution, crop_pct } => {
            count("resolution", resolution, MAX_SIDE)?;
            number("crop_pct", crop_pct, 1e-3, 1.0)?;
            if resolution as f64 / crop_pct > MAX_SIDE as f64 {
                return Err(format!("a crop of {resolution} pixels is {crop_pct} of more than {MAX_SIDE}"));
            }
            Ok(())
        }
        Geometry::Scale { scale, divisor, .. } => {
            scale.iter().try_for_each(|&side| count("scale", side, MAX_SIDE))?;
            count("divisor", divisor, MAX_SIDE)
        }
    }
}

/// From 1 to `most`.
fn count(name: &str, value: usize, most: usize) -> Result {
    if (1..=most).contains(&value) { Ok(()) } else { out_of_range(name, value, 1, most) }
}

fn at_most(name: &str, value: usize, most: usize) -> Result {
    if value > most { out_of_range(name, value, 0, most) } else { Ok(()) }
}

/// From `least` to `most`, which no NaN is.
fn number(name: &str, value: f64, least: f64, most: f64) -> Result {
    if (least..=most).contains(&value) { Ok(()) } else { out_of_range(name, value, least, most) }
}

fn out_of_range(name: &str, value: impl Display, least: impl Display, most: impl Display) -> Result {
    Err(format!("{name} has {value}, not from {least} to {most}"))
}
