//! What a checkpoint computes: the architecture types that the converter infers, the safetensors
//! metadata carries and the models are built from.
//!
//! Sources: arXiv 2204.07143 (NAT), 2209.15001 (DiNAT), and the repository
//! SHI-Labs/Neighborhood-Attention-Transformer for names and sizes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::recipe::{DetectorRecipe, Recipe, SegmenterRecipe, is_default};

/// A network: a backbone and what stands on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// The hierarchical or isotropic transformer.
    pub backbone: Backbone,
    /// What turns its feature maps into results.
    pub head: Head,
    /// What its tensors do not tell.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recipe: Recipe,
}

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
pub struct Backbone {
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
    /// The norms after the levels.
    pub norms: Norms,
}

/// What stands on the backbone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename_all = "snake_case")]
pub enum Head {
    /// Nothing: feature maps are the result.
    Features,
    /// Global average pooling and one linear layer.
    Classifier {
        /// Outputs of the linear layer.
        classes: usize,
    },
    /// Mask R-CNN (arXiv 1703.06870) with a feature pyramid.
    MaskRcnn(Detector),
    /// Cascade Mask R-CNN (arXiv 1906.09756): three box and three mask heads.
    CascadeMaskRcnn(Detector),
    /// UPerNet (arXiv 1807.10221).
    Upernet {
        /// Semantic classes.
        classes: usize,
        /// Width of the decoder.
        channels: usize,
    },
}

/// Widths of a two-stage detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detector {
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

impl Detector {
    /// Values that a box head's outputs are made of: those of its last fully connected layer or, without
    /// one, of the region's whole map of 7x7.
    pub fn box_features(&self) -> usize {
        if self.box_fcs > 0 { self.fc_channels } else { self.box_channels * 7 * 7 }
    }

    /// Multiply-accumulates of everything behind the backbone, whose `maps` have so many positions and
    /// channels: convolutions and linear layers alone, as mmdet's tool counts.
    fn macs(&self, recipe: &DetectorRecipe, maps: impl Iterator<Item = (usize, usize)>) -> usize {
        let (f, m) = (self.fpn_channels, self.mask_channels);
        let square = 9 * f * f;
        // Of each position: region proposals, four deltas and a score of each anchor.
        let proposals = square + 5 * recipe.anchors.count() * f;
        let mut last = 0;
        let mut sum = 0;
        for (positions, dim) in maps {
            sum += positions * (dim * f + square + proposals);
            last = positions;
        }
        // The fifth map.
        sum += last / 4 * proposals;
        let convs = |count: usize, inputs: usize, channels: usize| match count {
            0 => 0,
            _ => 9 * channels * (inputs + (count - 1) * channels),
        };
        let boxes = if self.class_agnostic { 1 } else { self.classes };
        let hidden = match self.box_fcs {
            0 => 0,
            fcs => (49 * self.box_channels + (fcs - 1) * self.fc_channels) * self.fc_channels,
        };
        let outputs = (self.classes + 1 + 4 * boxes) * self.box_features();
        let region = 49 * convs(self.box_convs, f, self.box_channels) + hidden + outputs;
        let upsampled = 4 * 196 * m * (m + self.classes);
        let object = 196 * convs(self.mask_convs, f, m) + upsampled;
        sum + self.stages * (recipe.proposals.most * region + recipe.max_detections * object)
    }
}

/// Multiply-accumulates of UPerNet behind the backbone, whose `maps` have so many positions and channels:
/// its convolutions, two for each value that a BatchNorm scales, four for each that is interpolated, up to
/// the logits of all `pixels` of the input.
fn upernet_macs(
    (classes, channels): (usize, usize),
    recipe: &SegmenterRecipe,
    maps: &[(usize, usize)],
    pixels: usize,
) -> usize {
    let (Some(&(finest, _)), Some((&(coarsest, last), lower))) = (maps.first(), maps.split_last()) else {
        return 0;
    };
    let below: usize = lower.iter().map(|(n, _)| n).sum();
    let pools: Vec<usize> = recipe.pool_scales.iter().map(|side| side * side).collect();
    let pooled = pools.iter().sum::<usize>() * last * channels
        + coarsest * 9 * (last + pools.len() * channels) * channels;
    let pyramid: usize = lower.iter().map(|(n, dim)| n * (dim + 9 * channels) * channels).sum();
    let fused = finest * channels * (9 * maps.len() * channels + classes);
    let normed = (pools.iter().sum::<usize>() + coarsest + 2 * below + finest) * channels;
    let interpolated = (pools.len() * coarsest + below + lower.len() * finest) * channels + pixels * classes;
    pooled + pyramid + fused + 2 * normed + 4 * interpolated
}

/// How pixels become the network's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Resize and crop.
    #[serde(flatten)]
    pub geometry: Geometry,
    /// Channel means on 0..1, RGB.
    pub mean: [f64; 3],
    /// Channel standard deviations on 0..1, RGB.
    pub std: [f64; 3],
    /// How a crop's picture is resized, as Pillow does; [`Geometry::Scale`] is OpenCV's bilinear resize.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filter: Filter,
    /// Whether the network's channels are blue, green and red.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bgr: bool,
}

/// The kernel of a resize, by Pillow's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Filter {
    Nearest,
    Box,
    Bilinear,
    Hamming,
    #[default]
    Bicubic,
    Lanczos,
}

/// The resize that a task's reference does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Geometry {
    /// Classification: short side to floor(resolution / crop_pct), centre crop.
    Crop {
        /// Side of the square input in pixels.
        resolution: usize,
        /// Share of the resized short side that the crop keeps.
        crop_pct: f64,
    },
    /// Detection and segmentation: keep the ratio, fit into long x short.
    Scale {
        /// Bounds of the long and the short side in pixels.
        scale: [usize; 2],
        /// Zeros are added at the right and the bottom up to multiples of this: 32 for detection, 1 for
        /// segmentation.
        #[serde(default = "one")]
        divisor: usize,
        /// Whether the picture keeps its ratio; if not, its width and height become the two of `scale`.
        #[serde(default = "yes", skip_serializing_if = "is_true")]
        keep_ratio: bool,
    },
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

impl Geometry {
    /// What mmdet's configurations do with a picture.
    pub fn detection(scale: [usize; 2]) -> Self {
        Self::Scale { scale, divisor: 32, keep_ratio: true }
    }

    /// What mmseg's configurations do with a picture.
    pub fn segmentation(scale: [usize; 2]) -> Self {
        Self::Scale { scale, divisor: 1, keep_ratio: true }
    }
}

/// ImageNet's channel means, on 0..1.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// ImageNet's channel standard deviations, on 0..1.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

impl Preprocessing {
    /// `geometry` with ImageNet's normalisation, which every published checkpoint uses.
    pub fn imagenet(geometry: Geometry) -> Self {
        Self { geometry, mean: IMAGENET_MEAN, std: IMAGENET_STD, filter: Filter::default(), bgr: false }
    }
}

/// Dilations as a user writes them: levels split by `/`, a level's list repeats along the level.
///
/// `1,8/1,4/1,2/1` is DiNAT at 224.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dilations(Vec<Vec<usize>>);

impl Dilations {
    /// Dilations of these levels.
    ///
    /// # Errors
    /// When there is no level, a level is empty, or a dilation is not from 1 to 4096.
    pub fn new(levels: Vec<Vec<usize>>) -> Result<Self, DilationsError> {
        if levels.is_empty() || levels.iter().any(Vec::is_empty) {
            return Err(DilationsError("a level without dilations (write levels like 1,8/1,4/1,2/1)".into()));
        }
        match levels.iter().flatten().find(|d| !(1..=4096).contains(*d)) {
            Some(d) => Err(DilationsError(format!("dilation {d} is not a number from 1 to 4096"))),
            None => Ok(Self(levels)),
        }
    }

    /// The shortest way to write the dilations of every block: each level's list without its
    /// repetitions.
    pub fn shortest(blocks: &[Vec<usize>]) -> Self {
        let period = |level: &Vec<usize>| {
            let fits = |p: &usize| level.iter().zip(&level[*p..]).all(|(a, b)| a == b);
            level[..(1..level.len()).find(fits).unwrap_or(level.len())].to_vec()
        };
        Self(blocks.iter().map(period).collect())
    }

    /// The dilation of every block of levels with these depths: a shorter list repeats, of a longer
    /// one the first `depth` count.
    ///
    /// # Errors
    /// When the number of levels differs.
    pub fn expand(&self, depths: &[usize]) -> Result<Vec<Vec<usize>>, DilationsError> {
        if self.0.len() != depths.len() {
            return Err(DilationsError(format!(
                "dilations `{self}` have {} level(s), the network has {}",
                self.0.len(),
                depths.len()
            )));
        }
        Ok(self
            .0
            .iter()
            .zip(depths)
            .map(|(list, &depth)| list.iter().copied().cycle().take(depth).collect())
            .collect())
    }
}

/// A dilation list that can't be read or does not fit the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DilationsError(String);

impl FromStr for Dilations {
    type Err = DilationsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |item: &str| match item.trim().parse::<usize>() {
            Ok(d) if (1..=4096).contains(&d) => Ok(d),
            _ => Err(DilationsError(format!(
                "`{item}` in dilations `{text}` is not a number from 1 to 4096 (write levels like 1,8/1,4/1,2/1)"
            ))),
        };
        let levels = text.split('/').map(|level| level.split(',').map(number).collect());
        Self::new(levels.collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for Dilations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = |l: &Vec<usize>| l.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        f.write_str(&self.0.iter().map(level).collect::<Vec<_>>().join("/"))
    }
}

impl Backbone {
    /// Channels of level `level` (from 0).
    pub fn dim(&self, level: usize) -> usize {
        self.embed_dim << level
    }

    /// Channels after the last level.
    pub fn out_dim(&self) -> usize {
        self.dim(self.depths.len() - 1)
    }

    /// Hidden width of the MLPs of `level`, truncated as PyTorch's `int(dim * ratio)`.
    pub fn hidden(&self, level: usize) -> usize {
        (self.dim(level) as f64 * self.mlp_ratio + 1e-6) as usize
    }

    /// Every tensor with its shape, under the published names.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = List::default();
        let e = self.embed_dim;
        match self.family {
            Family::Nat => {
                list.conv("patch_embed.proj.0", e / 2, 3, 3, true);
                list.conv("patch_embed.proj.1", e, e / 2, 3, true);
            }
            _ => list.conv("patch_embed.proj", e, 3, self.patch_size, true),
        }
        list.norm("patch_embed.norm", e);
        let last = self.depths.len() - 1;
        for (l, &depth) in self.depths.iter().enumerate() {
            let (dim, heads) = (self.dim(l), self.num_heads[l]);
            for b in 0..depth {
                let p = match self.family {
                    Family::Nat => format!("levels.{l}.blocks.{b}"),
                    Family::DinatS => format!("layers.{l}.blocks.{b}"),
                    Family::Isotropic | Family::VitRpb => format!("layers.{b}"),
                };
                list.norm(&format!("{p}.norm1"), dim);
                list.linear(&format!("{p}.attn.qkv"), 3 * dim, dim, true);
                if self.rpb {
                    let side = 2 * self.kernel_size - 1;
                    list.push(format!("{p}.attn.rpb"), &[heads, side, side]);
                }
                list.linear(&format!("{p}.attn.proj"), dim, dim, true);
                list.norm(&format!("{p}.norm2"), dim);
                list.linear(&format!("{p}.mlp.fc1"), self.hidden(l), dim, true);
                list.linear(&format!("{p}.mlp.fc2"), dim, self.hidden(l), true);
                if self.layer_scale {
                    list.push(format!("{p}.gamma1"), &[dim]);
                    list.push(format!("{p}.gamma2"), &[dim]);
                }
            }
            if l < last {
                if self.family == Family::Nat {
                    list.conv(&format!("levels.{l}.downsample.reduction"), 2 * dim, dim, 3, false);
                    list.norm(&format!("levels.{l}.downsample.norm"), 2 * dim);
                } else {
                    list.norm(&format!("layers.{l}.downsample.norm"), 4 * dim);
                    list.linear(&format!("layers.{l}.downsample.reduction"), 2 * dim, 4 * dim, false);
                }
            }
        }
        match self.norms {
            Norms::Final => list.norm("norm", self.out_dim()),
            Norms::Outputs => (0..=last).for_each(|l| list.norm(&format!("norm{l}"), self.dim(l))),
            Norms::Absent => {}
        }
        list.0
    }

    /// Height or width of each level's map for an input side of `side` pixels.
    pub fn map_sides(&self, side: usize) -> Vec<usize> {
        let first = match self.family {
            Family::Nat => side.div_ceil(2).div_ceil(2),
            _ => side.div_ceil(self.patch_size),
        };
        let halve = |s: &usize| Some(s.div_ceil(2));
        std::iter::successors(Some(first), halve).take(self.depths.len()).collect()
    }

    /// Multiply-accumulates of one image of `height` x `width` pixels, counted as the authors' tool
    /// does (fvcore with NATTEN's handles): convolutions, linear layers, both products of the
    /// attention, one for each bias it adds, and five for each value a layer norm normalises;
    /// activations, softmax and residual additions are free.
    pub fn macs(&self, height: usize, width: usize) -> u64 {
        const NORM: usize = 5;
        let (hs, ws) = (self.map_sides(height), self.map_sides(width));
        let e = self.embed_dim;
        let mut total = match self.family {
            Family::Nat => {
                height.div_ceil(2) * width.div_ceil(2) * (e / 2) * 27 + hs[0] * ws[0] * e * (e / 2) * 9
            }
            _ => hs[0] * ws[0] * e * 3 * self.patch_size.pow(2),
        };
        total += NORM * hs[0] * ws[0] * e;
        for (l, &depth) in self.depths.iter().enumerate() {
            let (dim, area) = (self.dim(l), hs[l] * ws[l]);
            // ViT-rpb gathers its bias with PyTorch's own operators, whose additions are free.
            let (keys, biases) = match self.family {
                Family::VitRpb => (area, 0),
                _ => (
                    self.kernel_size.pow(2),
                    self.num_heads[l] * self.kernel_size.pow(2) * usize::from(self.rpb),
                ),
            };
            let linear = 4 * dim * dim + 2 * dim * self.hidden(l);
            total += depth * area * (linear + 2 * keys * dim + biases + 2 * NORM * dim);
            if l + 1 < self.depths.len() {
                // The kernel's taps, and the channels that the norm beside the reduction sees.
                let (taps, normed) = if self.family == Family::Nat { (9, 2 * dim) } else { (4, 4 * dim) };
                total += hs[l + 1] * ws[l + 1] * (taps * dim * 2 * dim + NORM * normed);
            }
        }
        let normed = |l: usize| hs[l] * ws[l] * self.dim(l);
        let last = self.depths.len() - 1;
        total += NORM
            * match self.norms {
                Norms::Final => normed(last),
                Norms::Outputs => (0..=last).map(normed).sum(),
                Norms::Absent => 0,
            };
        total as u64
    }
}

impl Architecture {
    /// Classes that the network tells apart: of a segmenter with one output two, of a backbone none.
    pub fn classes(&self) -> Option<usize> {
        match &self.head {
            Head::Features => None,
            Head::Upernet { classes: 1, .. } => Some(2),
            Head::Classifier { classes } | Head::Upernet { classes, .. } => Some(*classes),
            Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector) => Some(detector.classes),
        }
    }

    /// Every tensor with its shape under the canonical names: a classifier's and a bare backbone's
    /// as published, a detector's and a segmenter's backbone under `backbone.`.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = List(self.backbone.tensors());
        let dims: Vec<_> = (0..self.backbone.depths.len()).map(|l| self.backbone.dim(l)).collect();
        match &self.head {
            Head::Features => {}
            Head::Classifier { classes } => list.linear("head", *classes, self.backbone.out_dim(), true),
            Head::MaskRcnn(d) | Head::CascadeMaskRcnn(d) => {
                list.prefix("backbone.");
                let cascade = matches!(self.head, Head::CascadeMaskRcnn(_));
                list.detector(d, self.recipe.detector.anchors.count(), &dims, cascade);
            }
            Head::Upernet { classes, channels } => {
                list.prefix("backbone.");
                list.upernet(*classes, *channels, self.recipe.segmenter.pool_scales.len(), &dims);
            }
        }
        list.0
    }

    /// Learnable parameters: every tensor but BatchNorm's running statistics.
    pub fn parameters(&self) -> u64 {
        let counted = |(name, _): &&(String, Vec<usize>)| !name.contains(".running_");
        self.tensors().iter().filter(counted).map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
    }

    /// Multiply-accumulates of one image of `height` x `width` pixels, as [`Backbone::macs`] counts, of
    /// a detector with its 1000 proposals and 100 detections.
    pub fn macs(&self, height: usize, width: usize) -> u64 {
        let maps = || {
            let [rows, columns] = [height, width].map(|side| self.backbone.map_sides(side));
            let positions: Vec<usize> = rows.iter().zip(&columns).map(|(h, w)| h * w).collect();
            positions.into_iter().enumerate().map(|(l, positions)| (positions, self.backbone.dim(l)))
        };
        let head = match &self.head {
            Head::Features => 0,
            Head::Classifier { classes } => self.backbone.out_dim() * classes,
            Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector) => {
                detector.macs(&self.recipe.detector, maps())
            }
            &Head::Upernet { classes, channels } => upernet_macs(
                (classes, channels),
                &self.recipe.segmenter,
                &maps().collect::<Vec<_>>(),
                height * width,
            ),
        };
        self.backbone.macs(height, width) + head as u64
    }
}

/// Tensor names and shapes in the order in which the original code declares them.
#[derive(Default)]
struct List(Vec<(String, Vec<usize>)>);

impl List {
    fn push(&mut self, name: String, shape: &[usize]) {
        self.0.push((name, shape.to_vec()));
    }

    fn prefix(&mut self, prefix: &str) {
        for (name, _) in &mut self.0 {
            name.insert_str(0, prefix);
        }
    }

    fn norm(&mut self, name: &str, dim: usize) {
        self.push(format!("{name}.weight"), &[dim]);
        self.push(format!("{name}.bias"), &[dim]);
    }

    fn linear(&mut self, name: &str, out: usize, inputs: usize, bias: bool) {
        self.push(format!("{name}.weight"), &[out, inputs]);
        if bias {
            self.push(format!("{name}.bias"), &[out]);
        }
    }

    fn conv(&mut self, name: &str, out: usize, inputs: usize, side: usize, bias: bool) {
        self.push(format!("{name}.weight"), &[out, inputs, side, side]);
        if bias {
            self.push(format!("{name}.bias"), &[out]);
        }
    }

    /// OpenMMLab's ConvModule: a convolution without bias and its BatchNorm.
    fn conv_bn(&mut self, name: &str, out: usize, inputs: usize, side: usize) {
        self.conv(&format!("{name}.conv"), out, inputs, side, false);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            self.push(format!("{name}.bn.{part}"), &[out]);
        }
    }

    fn detector(&mut self, d: &Detector, anchors: usize, dims: &[usize], cascade: bool) {
        let f = d.fpn_channels;
        for (i, &dim) in dims.iter().enumerate() {
            self.conv(&format!("neck.lateral_convs.{i}.conv"), f, dim, 1, true);
        }
        for i in 0..dims.len() {
            self.conv(&format!("neck.fpn_convs.{i}.conv"), f, f, 3, true);
        }
        self.conv("rpn_head.rpn_conv", f, f, 3, true);
        self.conv("rpn_head.rpn_cls", anchors, f, 1, true);
        self.conv("rpn_head.rpn_reg", 4 * anchors, f, 1, true);
        let stage = |head: &str, s: usize| {
            if cascade { format!("roi_head.{head}.{s}") } else { format!("roi_head.{head}") }
        };
        for s in 0..d.stages {
            let p = stage("bbox_head", s);
            for j in 0..d.box_convs {
                let inputs = if j == 0 { f } else { d.box_channels };
                self.conv_bn(&format!("{p}.shared_convs.{j}"), d.box_channels, inputs, 3);
            }
            for j in 0..d.box_fcs {
                let inputs = if j == 0 { d.box_channels * 7 * 7 } else { d.fc_channels };
                self.linear(&format!("{p}.shared_fcs.{j}"), d.fc_channels, inputs, true);
            }
            let boxes = if d.class_agnostic { 1 } else { d.classes };
            self.linear(&format!("{p}.fc_cls"), d.classes + 1, d.box_features(), true);
            self.linear(&format!("{p}.fc_reg"), 4 * boxes, d.box_features(), true);
        }
        for s in 0..d.stages {
            let p = stage("mask_head", s);
            let m = d.mask_channels;
            for j in 0..d.mask_convs {
                self.conv(&format!("{p}.convs.{j}.conv"), m, if j == 0 { f } else { m }, 3, true);
            }
            self.conv(&format!("{p}.upsample"), m, m, 2, true);
            self.conv(&format!("{p}.conv_logits"), d.classes, m, 1, true);
        }
    }

    fn upernet(&mut self, classes: usize, c: usize, pools: usize, dims: &[usize]) {
        let Some((last, lower)) = dims.split_last() else { return };
        self.conv("decode_head.conv_seg", classes, c, 1, true);
        for i in 0..pools {
            self.conv_bn(&format!("decode_head.psp_modules.{i}.1"), c, *last, 1);
        }
        self.conv_bn("decode_head.bottleneck", c, last + pools * c, 3);
        for (i, &dim) in lower.iter().enumerate() {
            self.conv_bn(&format!("decode_head.lateral_convs.{i}"), c, dim, 1);
        }
        for i in 0..lower.len() {
            self.conv_bn(&format!("decode_head.fpn_convs.{i}"), c, c, 3);
        }
        self.conv_bn("decode_head.fpn_bottleneck", c, dims.len() * c, 3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dilations_repeat_along_their_level() {
        let d: Dilations = "1,8/1,4/1,2/1".parse().unwrap();
        assert_eq!(d.expand(&[3, 1, 2, 2]).unwrap(), [vec![1, 8, 1], vec![1], vec![1, 2], vec![1, 1]]);
        assert_eq!(d.to_string(), "1,8/1,4/1,2/1");
        for bad in ["", "1,/2", "0", "1,x", "99999"] {
            assert!(bad.parse::<Dilations>().is_err(), "{bad}");
        }
        assert_eq!(Dilations::shortest(&d.expand(&[3, 4, 18, 5]).unwrap()), d);
        assert_eq!(Dilations::shortest(&[vec![1, 28, 1]]).to_string(), "1,28");
        assert!(Dilations::new(vec![vec![1], vec![]]).is_err());
        assert!(d.expand(&[1, 1]).unwrap_err().to_string().contains("4 level(s), the network has 2"));
    }
}
