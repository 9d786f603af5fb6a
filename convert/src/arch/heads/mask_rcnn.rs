//! Mask R-CNN (arXiv 1703.06870) and Cascade Mask R-CNN (arXiv 1906.09756) as mmdet computes them: a pyramid,
//! proposals, then box heads that follow each other, and as many mask heads on what they found.

use serde::{Deserialize, Serialize};

use super::kind::{About, HeadKind, HeadRow};
use crate::arch::backbone::Norms;
use crate::arch::maps::MapSizes;
use crate::arch::module::{
    ConvModuleSpec, ConvSpec, Count, Inventory, LinearSpec, Scope, UpsamplingSpec, Window, count, sum,
};
use crate::arch::shapes::{InferError, ShapeView};
use crate::arch::task::Task;
use crate::limits::{Checked, MAX_CHANNELS, MAX_CLASSES, MAX_LIST, at_least_one, at_most};
use crate::openmmlab;
use crate::recipe::Recipe;

/// Side of a region's features for the box heads.
pub const BOX_SIDE: usize = 7;
/// Side of a region's features for the mask heads, half of a mask's.
pub const MASK_SIDE: usize = 14;
/// Levels of the backbone under a detector: its pyramid has one map more.
const DETECTOR_LEVELS: usize = 4;

/// Widths of a two-stage detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectorWidths {
    /// Foreground classes.
    pub classes: usize,
    /// Channels of the feature pyramid and of the region proposal network.
    pub fpn_channels: usize,
    /// 3x3 convolutions in a box head, before its fully connected layers.
    pub box_convs: usize,
    /// Channels of those convolutions; of a head without any, `fpn_channels`.
    pub box_channels: usize,
    /// Fully connected layers in a box head.
    pub box_fcs: usize,
    /// Width of those fully connected layers.
    pub fc_channels: usize,
    /// Whether one box is regressed for all classes together.
    pub class_agnostic: bool,
    /// Box heads: 1, or the cascade's stages.
    pub stages: usize,
    /// 3x3 convolutions in a mask head.
    pub mask_convs: usize,
    /// Channels of a mask head.
    pub mask_channels: usize,
}

/// What stands on a detector's backbone.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectorSpec {
    /// The feature pyramid, `neck`.
    pub fpn: FpnSpec,
    /// The region proposal network, `rpn_head`.
    pub rpn: RpnSpec,
    /// The box head of each stage.
    pub box_heads: Vec<BoxHeadSpec>,
    /// The mask head of each stage.
    pub mask_heads: Vec<MaskHeadSpec>,
}

/// The feature pyramid (arXiv 1612.03144).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FpnSpec {
    /// Of each of the backbone's maps, to the pyramid's channels.
    pub lateral_convs: Vec<ConvSpec>,
    /// What follows each.
    pub fpn_convs: Vec<ConvSpec>,
}

/// The region proposal network (arXiv 1506.01497).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpnSpec {
    /// What both outputs look at, before ReLU.
    pub conv: ConvSpec,
    /// A score of each anchor.
    pub cls: ConvSpec,
    /// Four deltas of each anchor.
    pub reg: ConvSpec,
}

/// What classifies and moves regions.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxHeadSpec {
    /// Convolutions on a region's map.
    pub convs: Vec<ConvModuleSpec>,
    /// Channels of that map behind them: the first linear layer, or without any both outputs, take all of its
    /// [`BOX_SIDE`] x [`BOX_SIDE`] positions, channel by channel.
    pub channels: usize,
    /// Linear layers, each before ReLU.
    pub fcs: Vec<LinearSpec>,
    /// Logits of the classes, background last.
    pub cls: LinearSpec,
    /// Four deltas of each class, or of all together.
    pub reg: LinearSpec,
}

/// What tells an object's pixels from others in its box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskHeadSpec {
    /// Convolutions, each before ReLU.
    pub convs: Vec<ConvSpec>,
    /// To twice the side, before ReLU.
    pub upsample: UpsamplingSpec,
    /// A logit of each class.
    pub logits: ConvSpec,
}

impl DetectorSpec {
    /// The head on maps of `dims` channels. The heads of a `cascade` are numbered, also a single one.
    pub fn new(detector: &DetectorWidths, cascade: bool, recipe: &Recipe, dims: &[usize]) -> Self {
        let root = Scope::default();
        let stage = |kind: &str, stage: usize| {
            let head = root.at("roi_head").at(kind);
            if cascade { head.at(stage) } else { head }
        };
        let box_head = |s| BoxHeadSpec::new(detector, recipe, &stage("bbox_head", s));
        let mask_head = |s| MaskHeadSpec::new(detector, &stage("mask_head", s));
        Self {
            fpn: FpnSpec::new(detector.fpn_channels, dims, &root.at("neck")),
            rpn: RpnSpec::new(detector.fpn_channels, recipe.detector.anchors.count(), &root.at("rpn_head")),
            box_heads: (0..detector.stages).map(box_head).collect(),
            mask_heads: (0..detector.stages).map(mask_head).collect(),
        }
    }

    /// Takes the head on a backbone's maps with all the proposals and detections that it keeps, counting
    /// convolutions and linear layers alone, as mmdet's tool does.
    pub fn walk(&self, recipe: &Recipe, maps: &MapSizes, inventory: &mut Inventory) {
        self.fpn.walk(maps, inventory);
        // The fifth map is every second row and column of the last one.
        let fifth = maps.levels.last().map_or(count(0), |map| map.positions / count(4));
        self.rpn.walk(sum(maps.levels.iter().map(|map| map.positions)) + fifth, inventory);
        let (regions, objects) = (recipe.detector.proposals.most, recipe.detector.max_detections);
        self.box_heads.iter().for_each(|head| head.walk(count(regions), inventory));
        self.mask_heads.iter().for_each(|head| head.walk(count(objects), inventory));
    }
}

impl FpnSpec {
    fn new(channels: usize, dims: &[usize], scope: &Scope) -> Self {
        let conv = |name: &str, (i, inputs): (usize, usize), window| {
            ConvSpec::new(&scope.at(name).at(i).at("conv"), inputs, channels, window, true)
        };
        let levels = || dims.iter().copied().enumerate();
        Self {
            lateral_convs: levels().map(|level| conv("lateral_convs", level, Window::POINT)).collect(),
            fpn_convs: levels().map(|(i, _)| conv("fpn_convs", (i, channels), Window::SAME)).collect(),
        }
    }

    fn walk(&self, maps: &MapSizes, inventory: &mut Inventory) {
        for convs in [&self.lateral_convs, &self.fpn_convs] {
            convs.iter().zip(&maps.levels).for_each(|(conv, map)| conv.walk(map.positions, inventory));
        }
    }
}

impl RpnSpec {
    fn new(channels: usize, anchors: usize, scope: &Scope) -> Self {
        let conv =
            |name: &str, outputs, window| ConvSpec::new(&scope.at(name), channels, outputs, window, true);
        Self {
            conv: conv("rpn_conv", channels, Window::SAME),
            cls: conv("rpn_cls", anchors, Window::POINT),
            reg: conv("rpn_reg", 4 * anchors, Window::POINT),
        }
    }

    fn walk(&self, positions: Count, inventory: &mut Inventory) {
        [&self.conv, &self.cls, &self.reg].iter().for_each(|conv| conv.walk(positions, inventory));
    }
}

impl BoxHeadSpec {
    fn new(detector: &DetectorWidths, recipe: &Recipe, scope: &Scope) -> Self {
        let &DetectorWidths { classes, fpn_channels, box_channels: channels, fc_channels, .. } = detector;
        let conv = |i: usize| {
            let inputs = if i == 0 { fpn_channels } else { channels };
            let scope = scope.at("shared_convs").at(i);
            ConvModuleSpec::new(&scope, inputs, channels, Window::SAME, recipe.batch_norm_epsilon)
        };
        let linear = |scope: Scope, layers_before: usize, outputs| {
            let inputs = if layers_before == 0 { channels * BOX_SIDE * BOX_SIDE } else { fc_channels };
            LinearSpec::new(&scope, inputs, outputs, true)
        };
        let boxes = if detector.class_agnostic { 1 } else { classes };
        Self {
            convs: (0..detector.box_convs).map(conv).collect(),
            channels,
            fcs: (0..detector.box_fcs)
                .map(|i| linear(scope.at("shared_fcs").at(i), i, fc_channels))
                .collect(),
            cls: linear(scope.at("fc_cls"), detector.box_fcs, classes + 1),
            reg: linear(scope.at("fc_reg"), detector.box_fcs, 4 * boxes),
        }
    }

    fn walk(&self, regions: Count, inventory: &mut Inventory) {
        let positions = count(BOX_SIDE * BOX_SIDE) * regions;
        for ConvModuleSpec { conv, norm } in &self.convs {
            conv.walk(positions, inventory);
            // mmdet's tool does not count it.
            norm.walk(count(0), inventory);
        }
        self.fcs.iter().chain([&self.cls, &self.reg]).for_each(|layer| layer.walk(regions, inventory));
    }
}

impl MaskHeadSpec {
    /// Rows and columns of the logits for one of the features.
    const FINER: usize = 2;

    fn new(detector: &DetectorWidths, scope: &Scope) -> Self {
        let &DetectorWidths { classes, fpn_channels, mask_channels: channels, .. } = detector;
        let conv = |i: usize| {
            let inputs = if i == 0 { fpn_channels } else { channels };
            ConvSpec::new(&scope.at("convs").at(i).at("conv"), inputs, channels, Window::SAME, true)
        };
        Self {
            convs: (0..detector.mask_convs).map(conv).collect(),
            upsample: UpsamplingSpec::new(&scope.at("upsample"), channels, channels, Self::FINER),
            logits: ConvSpec::new(&scope.at("conv_logits"), channels, classes, Window::POINT, true),
        }
    }

    fn walk(&self, objects: Count, inventory: &mut Inventory) {
        let positions = count(MASK_SIDE * MASK_SIDE) * objects;
        self.convs.iter().for_each(|conv| conv.walk(positions, inventory));
        self.upsample.walk(positions, inventory);
        self.logits.walk(count(Self::FINER * Self::FINER) * positions, inventory);
    }
}

/// What both kinds have in common.
const ABOUT: About = About {
    name: "mask-rcnn",
    made: "detector",
    task: Task::Detect,
    norms: Norms::Outputs,
    prefixes: &["neck.", "rpn_head.", "roi_head."],
    sign: Some("rpn_head."),
    levels: Some(DETECTOR_LEVELS),
    configuration: Some(openmmlab::read_detector),
};

pub(crate) const MASK_RCNN: HeadRow<DetectorWidths> = HeadRow {
    about: ABOUT,
    infer: |view| infer(view, false),
    published: mask_rcnn,
    alike,
    head: |detector| Box::new(TwoStage { detector, cascade: false }),
};

pub(crate) const CASCADE_MASK_RCNN: HeadRow<DetectorWidths> = HeadRow {
    about: About { name: "cascade-mask-rcnn", ..ABOUT },
    infer: |view| infer(view, true),
    published: |classes| DetectorWidths { box_convs: 4, box_fcs: 1, stages: 3, ..mask_rcnn(classes) },
    alike,
    head: |detector| Box::new(TwoStage { detector, cascade: true }),
};

/// detection/configs of the original repository.
fn mask_rcnn(classes: usize) -> DetectorWidths {
    DetectorWidths {
        classes,
        fpn_channels: 256,
        box_convs: 0,
        box_channels: 256,
        box_fcs: 2,
        fc_channels: 1024,
        class_agnostic: false,
        stages: 1,
        mask_convs: 4,
        mask_channels: 256,
    }
}

fn alike(a: &DetectorWidths, b: &DetectorWidths) -> bool {
    DetectorWidths { classes: b.classes, ..a.clone() } == *b
}

/// Sizes of a two-stage detector; the heads of a `cascade` are numbered.
fn infer(view: &ShapeView, cascade: bool) -> Result<Option<DetectorWidths>, InferError> {
    if !view.has("roi_head.") {
        return Ok(None);
    }
    let stages = view.count("roi_head.bbox_head.", "fc_cls.")?;
    if cascade != (stages > 0) {
        return Ok(None);
    }
    let stage = if cascade { ".0" } else { "" };
    let (boxes, masks) = (format!("roi_head.bbox_head{stage}."), format!("roi_head.mask_head{stage}."));
    let fpn_channels = view.dim("neck.lateral_convs.0.conv.weight", 0)?;
    let classes = view.dim(&format!("{boxes}fc_cls.weight"), 0)? - 1;
    if classes == 0 {
        return Err(InferError::Unclear(format!("`{boxes}fc_cls.weight` has no class but the background")));
    }
    let box_convs = view.count(&format!("{boxes}shared_convs."), "conv.")?;
    let mask_convs = view.count(&format!("{masks}convs."), "conv.")?;
    let width = |convs: usize, first: String| if convs > 0 { view.dim(&first, 0) } else { Ok(fpn_channels) };
    Ok(Some(DetectorWidths {
        classes,
        fpn_channels,
        box_convs,
        box_channels: width(box_convs, format!("{boxes}shared_convs.0.conv.weight"))?,
        box_fcs: view.count(&format!("{boxes}shared_fcs."), "")?,
        fc_channels: view.dim(&format!("{boxes}fc_cls.weight"), 1)?,
        // With one class both ways have the same shape and mean the same.
        class_agnostic: classes > 1 && view.dim(&format!("{boxes}fc_reg.weight"), 0)? == 4,
        stages: stages.max(1),
        mask_convs,
        mask_channels: width(mask_convs, format!("{masks}convs.0.conv.weight"))?,
    }))
}

/// A detector of either kind.
struct TwoStage<'a> {
    detector: &'a DetectorWidths,
    cascade: bool,
}

impl HeadKind for TwoStage<'_> {
    fn outputs(&self) -> usize {
        self.detector.classes
    }

    fn in_words(&self) -> String {
        let DetectorWidths { classes, stages, .. } = self.detector;
        if !self.cascade {
            return format!(" with Mask R-CNN, {classes} classes");
        }
        let agnostic = if self.detector.class_agnostic { ", class-agnostic boxes" } else { "" };
        format!(" with Cascade Mask R-CNN, {stages} stages, {classes} classes{agnostic}")
    }

    fn check(&self, recipe: &Recipe) -> Checked {
        let d = self.detector;
        at_least_one("classes", d.classes, MAX_CLASSES)?;
        for (name, channels) in [
            ("fpn_channels", d.fpn_channels),
            ("box_channels", d.box_channels),
            ("fc_channels", d.fc_channels),
            ("mask_channels", d.mask_channels),
        ] {
            at_least_one(name, channels, MAX_CHANNELS)?;
        }
        for (name, layers) in [
            ("box_convs", d.box_convs),
            ("box_fcs", d.box_fcs),
            ("mask_convs", d.mask_convs),
            ("stages", d.stages),
        ] {
            at_most(name, layers, MAX_LIST)?;
        }
        at_least_one("stages", d.stages, MAX_LIST)?;
        match recipe.detector.stages.len() {
            coders if d.stages > coders => {
                Err(format!("{} stages of a detector have {coders} box coders", d.stages))
            }
            _ => Ok(()),
        }
    }

    fn explained(&self, recipe: &Recipe, first: &dyn Fn(&str) -> Option<usize>) -> Checked {
        let (anchors, coders) = (recipe.detector.anchors.count(), recipe.detector.stages.len());
        match first("rpn_head.rpn_cls.weight") {
            Some(count) if count != anchors => {
                return Err(format!(
                    "the network has {count} anchors at a position, and the {anchors} scales and ratios \
                     that are known are not theirs"
                ));
            }
            _ => {}
        }
        match self.detector.stages {
            stages if stages > coders => Err(format!(
                "a cascade of {stages} stages, and the deviations of the boxes are known of {coders}"
            )),
            _ => Ok(()),
        }
    }

    fn walk(&self, recipe: &Recipe, maps: &MapSizes, inventory: &mut Inventory) {
        DetectorSpec::new(self.detector, self.cascade, recipe, &maps.dims()).walk(recipe, maps, inventory);
    }
}
