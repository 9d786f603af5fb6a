//! UPerNet (arXiv 1807.10221) as mmseg computes it: pyramid pooling on the last map, a pyramid on the others,
//! everything fused at the finest one. The auxiliary head takes part in training only.

use serde::{Deserialize, Serialize};

use super::kind::{About, HeadKind, HeadRow};
use crate::arch::backbone::Norms;
use crate::arch::maps::MapSizes;
use crate::arch::module::{ConvModuleSpec, ConvSpec, Inventory, Scope, Window, count, sum};
use crate::arch::shapes::{InferError, ShapeView};
use crate::arch::task::Task;
use crate::limits::{Checked, MAX_CHANNELS, MAX_CLASSES, at_least_one};
use crate::openmmlab;
use crate::recipe::Recipe;

/// Widths of UPerNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpernetWidths {
    /// Outputs of the last layer: semantic classes, or one that tells two classes apart.
    pub classes: usize,
    /// Width of the decoder.
    pub channels: usize,
}

/// What stands on a segmenter's backbone, `decode_head`.
#[derive(Clone, Debug, PartialEq)]
pub struct UpernetSpec {
    /// The last layer.
    pub conv_seg: ConvSpec,
    /// Of each side that the last map is pooled to.
    pub psp_modules: Vec<ConvModuleSpec>,
    /// Of the last map beside all that was pooled.
    pub bottleneck: ConvModuleSpec,
    /// Of each map but the last, to the decoder's width.
    pub lateral_convs: Vec<ConvModuleSpec>,
    /// What follows them.
    pub fpn_convs: Vec<ConvModuleSpec>,
    /// Of all maps side by side.
    pub fpn_bottleneck: ConvModuleSpec,
    /// Sides that the last map is pooled to.
    pub pool_scales: Vec<usize>,
}

impl UpernetSpec {
    /// The head on maps of `dims` channels, of which there is at least one.
    pub fn new(widths: &UpernetWidths, recipe: &Recipe, dims: &[usize]) -> Self {
        let &UpernetWidths { classes, channels } = widths;
        let pool_scales = recipe.segmenter.pool_scales.clone();
        let (last, lower) = dims.split_last().map_or((0, dims), |(&last, lower)| (last, lower));
        let scope = Scope::default().at("decode_head");
        let module = |scope: &Scope, inputs, window| {
            ConvModuleSpec::new(scope, inputs, channels, window, recipe.batch_norm_epsilon)
        };
        let pooled = |i: usize| module(&scope.at("psp_modules").at(i).at(1), last, Window::POINT);
        let lateral =
            |(i, &dim): (usize, &usize)| module(&scope.at("lateral_convs").at(i), dim, Window::POINT);
        let fpn = |i: usize| module(&scope.at("fpn_convs").at(i), channels, Window::SAME);
        Self {
            conv_seg: ConvSpec::new(&scope.at("conv_seg"), channels, classes, Window::POINT, true),
            psp_modules: (0..pool_scales.len()).map(pooled).collect(),
            bottleneck: module(&scope.at("bottleneck"), last + pool_scales.len() * channels, Window::SAME),
            lateral_convs: lower.iter().enumerate().map(lateral).collect(),
            fpn_convs: (0..lower.len()).map(fpn).collect(),
            fpn_bottleneck: module(&scope.at("fpn_bottleneck"), dims.len() * channels, Window::SAME),
            pool_scales,
        }
    }

    /// Takes the head on a backbone's maps, with four multiply-accumulates for each value that is interpolated, up
    /// to the logits of all pixels of the image.
    pub fn walk(&self, maps: &MapSizes, inventory: &mut Inventory) {
        const INTERPOLATED: usize = 4;
        let (Some(finest), Some((last, lower))) = (maps.levels.first(), maps.levels.split_last()) else {
            return;
        };
        self.conv_seg.walk(finest.positions, inventory);
        for (module, &side) in self.psp_modules.iter().zip(&self.pool_scales) {
            module.walk(count(side) * count(side), inventory);
        }
        self.bottleneck.walk(last.positions, inventory);
        self.lateral_convs.iter().zip(lower).for_each(|(conv, map)| conv.walk(map.positions, inventory));
        self.fpn_convs.iter().zip(lower).for_each(|(conv, map)| conv.walk(map.positions, inventory));
        self.fpn_bottleneck.walk(finest.positions, inventory);
        // What was pooled to the last map, each map to the one below, all to the finest.
        let resized = count(self.pool_scales.len()) * last.positions
            + sum(lower.iter().map(|map| map.positions))
            + count(lower.len()) * finest.positions;
        let values = resized * count(self.conv_seg.inputs) + maps.pixels() * count(self.conv_seg.outputs);
        inventory.macs += count(INTERPOLATED) * values;
    }
}

pub(crate) const ROW: HeadRow<UpernetWidths> = HeadRow {
    about: About {
        name: "upernet",
        made: "segmenter",
        task: Task::Segment,
        norms: Norms::Outputs,
        prefixes: &["decode_head."],
        sign: Some("decode_head."),
        levels: None,
        configuration: Some(openmmlab::read_segmenter),
    },
    infer,
    // segmentation/configs of the original repository.
    published: |classes| UpernetWidths { classes, channels: 512 },
    alike: |a, b| a.channels == b.channels,
    head: |widths| Box::new(*widths),
};

fn infer(view: &ShapeView) -> Result<Option<UpernetWidths>, InferError> {
    if !view.has("decode_head.") {
        return Ok(None);
    }
    let width = |axis| view.dim("decode_head.conv_seg.weight", axis);
    Ok(Some(UpernetWidths { classes: width(0)?, channels: width(1)? }))
}

impl HeadKind for UpernetWidths {
    fn outputs(&self) -> usize {
        self.classes
    }

    fn classes(&self) -> usize {
        // One output tells two classes apart.
        if self.classes == 1 { 2 } else { self.classes }
    }

    fn in_words(&self) -> String {
        format!(" with UPerNet, {} channels, {} classes", self.channels, self.classes)
    }

    fn check(&self, _: &Recipe) -> Checked {
        at_least_one("classes", self.classes, MAX_CLASSES)?;
        at_least_one("channels", self.channels, MAX_CHANNELS)
    }

    fn explained(&self, recipe: &Recipe, first: &dyn Fn(&str) -> Option<usize>) -> Checked {
        let pools = recipe.segmenter.pool_scales.len();
        let modules =
            (0..).take_while(|i| first(&format!("decode_head.psp_modules.{i}.1.conv.weight")).is_some());
        match modules.count() {
            count if count != pools && count > 0 => Err(format!(
                "the network pools {count} maps, and the {pools} sides that are known are not theirs"
            )),
            _ => Ok(()),
        }
    }

    fn walk(&self, recipe: &Recipe, maps: &MapSizes, inventory: &mut Inventory) {
        UpernetSpec::new(self, recipe, &maps.dims()).walk(maps, inventory);
    }
}
