//! Numbers out of a file, held against what can be computed with: metadata is input like any other.

use crate::arch::{Architecture, BackboneConfig, Geometry, MAX_SIDE, Preprocessing};
use crate::limits::{Checked, MAX_CHANNELS, MAX_LIST, at_least_one, number};
use crate::recipe::{BoxCoder, DetectorRecipe, Recipe, SegmenterRecipe, SlidingWindow};

/// More than any network has, so that products of a few of these are far from overflowing.
const MAX_LEVELS: usize = 8;
const MAX_BLOCKS: usize = 1 << 10;
const MAX_DILATION: usize = 1 << 12;
const MAX_BOXES: usize = 1 << 16;
/// Maps of a detector's pyramid.
const MAPS: usize = 5;

/// # Errors
/// What the first number is that nothing can be computed with.
pub(crate) fn architecture(architecture: &Architecture) -> Checked {
    backbone(&architecture.backbone)?;
    architecture.head.check(&architecture.recipe)?;
    recipe(&architecture.recipe)
}

fn backbone(backbone: &BackboneConfig) -> Checked {
    let BackboneConfig { embed_dim, patch_size, depths, num_heads, kernel_size, dilations, .. } = backbone;
    at_least_one("depths", depths.len(), MAX_LEVELS)?;
    at_least_one("embed_dim", *embed_dim, MAX_CHANNELS)?;
    at_least_one("patch_size", *patch_size, 1 << 8)?;
    at_least_one("kernel_size", *kernel_size, MAX_DILATION)?;
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
        at_least_one("depths", depth, MAX_BLOCKS)?;
        at_least_one("num_heads", heads, MAX_CHANNELS)?;
        if !backbone.dim(level).is_multiple_of(heads) {
            return Err(format!("{} channels can't be divided into {heads} heads", backbone.dim(level)));
        }
        if dilations.len() != depth {
            return Err(format!("the {depth} blocks of level {level} have {} dilations", dilations.len()));
        }
        for &dilation in dilations {
            at_least_one("dilations", dilation, MAX_DILATION)?;
        }
    }
    if kernel_size.is_multiple_of(2) && !backbone.family.attends_whole_map() {
        return Err(format!("kernel_size is {kernel_size}, and a neighbourhood has a middle"));
    }
    Ok(())
}

fn recipe(recipe: &Recipe) -> Checked {
    let Recipe { norm_epsilon, batch_norm_epsilon, query_scale, scores: _, detector, segmenter } = recipe;
    number("norm_epsilon", *norm_epsilon, 1e-12, 1.0)?;
    number("batch_norm_epsilon", *batch_norm_epsilon, 1e-12, 1.0)?;
    if let Some(scale) = query_scale {
        number("query_scale", *scale, 1e-6, 1e6)?;
    }
    detector_recipe(detector)?;
    segmenter_recipe(segmenter)
}

fn detector_recipe(recipe: &DetectorRecipe) -> Checked {
    let DetectorRecipe { anchors, proposals, stages, .. } = recipe;
    for (name, list) in [
        ("anchors.scales", &anchors.scales),
        ("anchors.ratios", &anchors.ratios),
        ("anchors.base_sizes", &anchors.base_sizes),
    ] {
        at_least_one(name, list.len(), MAX_LIST)?;
        list.iter().try_for_each(|&size| number(name, size, 1e-3, 1e5))?;
    }
    // One for each map of the pyramid.
    if anchors.base_sizes.len() != MAPS {
        return Err(format!("anchors.base_sizes are {}, not {MAPS}", anchors.base_sizes.len()));
    }
    number("anchors.center_offset", anchors.center_offset, 0.0, 1.0)?;
    coder("proposals.coder", &proposals.coder)?;
    at_least_one("proposals.per_map", proposals.per_map, MAX_BOXES)?;
    at_least_one("proposals.most", proposals.most, MAX_BOXES)?;
    number("proposals.iou_threshold", proposals.iou_threshold, 0.0, 1.0)?;
    number("proposals.smallest", proposals.smallest, 0.0, 1e5)?;
    at_least_one("stages", stages.len(), MAX_LIST)?;
    stages.iter().try_for_each(|stage| coder("stages", stage))?;
    number("finest_scale", recipe.finest_scale, 1e-3, 1e5)?;
    number("score_threshold", recipe.score_threshold, 0.0, 1.0)?;
    number("iou_threshold", recipe.iou_threshold, 0.0, 1.0)?;
    at_least_one("max_detections", recipe.max_detections, MAX_BOXES)?;
    number("mask_threshold", recipe.mask_threshold, 0.0, 1.0)
}

fn coder(name: &str, coder: &BoxCoder) -> Checked {
    coder.means.iter().try_for_each(|&mean| number(name, mean, -1e3, 1e3))?;
    coder.stds.iter().try_for_each(|&std| number(name, std, 1e-6, 1e3))
}

fn segmenter_recipe(recipe: &SegmenterRecipe) -> Checked {
    at_least_one("pool_scales", recipe.pool_scales.len(), MAX_LIST)?;
    recipe.pool_scales.iter().try_for_each(|&side| at_least_one("pool_scales", side, MAX_LIST))?;
    number("threshold", recipe.threshold, 0.0, 1.0)?;
    if let Some(SlidingWindow { crop, stride }) = &recipe.window {
        for (crop, stride) in crop.iter().zip(stride) {
            at_least_one("window.crop", *crop, MAX_SIDE)?;
            at_least_one("window.stride", *stride, *crop)?;
        }
    }
    Ok(())
}

/// # Errors
/// What can't be done with pixels.
pub(crate) fn preprocessing(preprocessing: &Preprocessing) -> Checked {
    preprocessing.mean.iter().try_for_each(|&mean| number("mean", mean, -1e6, 1e6))?;
    preprocessing.std.iter().try_for_each(|&std| number("std", std, 1e-9, 1e6))?;
    match preprocessing.geometry {
        Geometry::Crop { resolution, crop_pct } => {
            at_least_one("resolution", resolution, MAX_SIDE)?;
            number("crop_pct", crop_pct, 1e-3, 1.0)?;
            if resolution as f64 / crop_pct > MAX_SIDE as f64 {
                return Err(format!("a crop of {resolution} pixels is {crop_pct} of more than {MAX_SIDE}"));
            }
            Ok(())
        }
        Geometry::Scale { scale, divisor, .. } => {
            scale.iter().try_for_each(|&side| at_least_one("scale", side, MAX_SIDE))?;
            at_least_one("divisor", divisor, MAX_SIDE)
        }
    }
}
