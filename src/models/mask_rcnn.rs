//! Mask R-CNN (arXiv 1703.06870) and Cascade Mask R-CNN (arXiv 1906.09756) as mmdet 2.28 computes them:
//! a pyramid on a backbone, proposals, then box heads that follow each other, and as many mask heads on what
//! they found. Mask R-CNN is a cascade of one stage.

use candle_core::{D, DType, Device, Result, Tensor};
use nat_convert::arch::{
    Architecture, BOX_SIDE, BoxHeadSpec, DetectorSpec, DetectorWidths, Head, MASK_SIDE, MaskHeadSpec,
};
use nat_convert::recipe::DetectorRecipe;

use super::backbone::Backbone;
use super::boxes::{Candidate, Corners, decode, nms};
use super::detector::{Detected, Detector, Found, Picture, Selection};
use super::fpn::Fpn;
use super::roi::roi_align;
use super::rpn::{Predictions, Rpn, proposals};
use crate::layers::softmax::{likeliest, softmax};
use crate::layers::{Conv2d, ConvParts, Linear, LinearParts, MapLayout, Maps, on_pool};
use crate::weights::{LoadError, Weights};

/// Pixels a position of each pyramid map; regions take features from all but the last.
pub const STRIDES: [usize; 5] = [4, 8, 16, 32, 64];

/// A detector of either kind.
pub struct MaskRcnn {
    backbone: Backbone,
    fpn: Fpn,
    rpn: Rpn,
    box_heads: Vec<BoxHead>,
    mask_heads: Vec<MaskHead>,
    recipe: DetectorRecipe,
    maps: Maps,
}

/// Values of each region.
type RegionRows = Vec<Vec<f32>>;

/// What the box heads say, stage by stage.
pub struct Regions {
    /// The regions that each stage looked at, in pixels of the resized picture.
    pub rois: Vec<Vec<Corners>>,
    /// Class logits of each stage, [rois, classes + 1], background last.
    pub logits: Vec<RegionRows>,
    /// Deltas of each stage, [rois, 4 · classes], or [rois, 4] if they are the same for all classes.
    pub deltas: Vec<RegionRows>,
}

impl MaskRcnn {
    /// Builds the network, whose head is a `detector`, and takes all of its weights.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] with everything in which weights and architecture differ;
    /// [`LoadError::Architecture`] when the backbone has not as many levels as there are strides, or the recipe
    /// does not say what the deltas of each stage are.
    pub fn new(
        architecture: &Architecture,
        detector: &DetectorWidths,
        weights: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let cascade = matches!(architecture.head, Head::CascadeMaskRcnn(_));
        let Architecture { backbone, head, recipe } = architecture;
        let dims = backbone.dims();
        check(detector, dims.len(), &recipe.detector)?;
        weights.compare(&architecture.tensors())?;
        let spec = DetectorSpec::new(detector, cascade, recipe, &dims);
        let network = Self {
            backbone: Backbone::new(backbone, recipe, &head.backbone_scope(), weights),
            fpn: Fpn::new(&spec.fpn, weights),
            rpn: Rpn::new(&spec.rpn, weights),
            box_heads: spec.box_heads.iter().map(|head| BoxHead::new(head, weights)).collect(),
            mask_heads: spec.mask_heads.iter().map(|head| MaskHead::new(head, weights)).collect(),
            recipe: recipe.detector.clone(),
            maps: Maps::new(weights),
        };
        weights.finish()?;
        Ok(network)
    }

    /// How the detector proposes, moves and selects boxes.
    pub fn recipe(&self) -> &DetectorRecipe {
        &self.recipe
    }

    /// The backbone's maps, [B, H/4, W/4, C] and on.
    ///
    /// # Errors
    /// When the images do not suit the network.
    pub fn maps(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        self.backbone.forward(images)
    }

    /// The pyramid of the backbone's maps: [B, H/4, W/4, C] to [B, H/64, W/64, C].
    ///
    /// # Errors
    /// When the maps are not the backbone's.
    pub fn pyramid(&self, maps: &[Tensor]) -> Result<Vec<Tensor>> {
        self.fpn.forward(maps)
    }

    /// Scores and deltas of the anchors of each map.
    ///
    /// # Errors
    /// When the maps are not the pyramid's.
    pub fn predict(&self, pyramid: &[Tensor]) -> Result<Vec<Predictions>> {
        pyramid.iter().map(|map| self.rpn.forward(map)).collect()
    }

    /// The best boxes of each of the pictures of `sizes` that the predictions are of: [`proposals`].
    ///
    /// # Errors
    /// Those of [`proposals`].
    pub fn proposals(
        &self,
        predictions: &[Predictions],
        sizes: &[[f32; 2]],
    ) -> Result<Vec<Option<Vec<Candidate>>>> {
        proposals(self.maps, &self.recipe, predictions, &STRIDES, sizes)
    }

    /// Runs the box heads on the pyramid [1, ..] of one picture: each looks at the boxes of the one before
    /// it, refined for the class that this one thought likeliest.
    ///
    /// # Errors
    /// When the maps are not the pyramid's.
    pub fn regions(&self, pyramid: &[Tensor], rois: Vec<Corners>, picture: Picture) -> Result<Regions> {
        let mut regions = Regions { rois: vec![rois], logits: Vec::new(), deltas: Vec::new() };
        for (stage, (head, coder)) in self.box_heads.iter().zip(&self.recipe.stages).enumerate() {
            let rois = &regions.rois[stage];
            let (logits, deltas) = head.forward(&self.features(pyramid, rois, BOX_SIDE)?)?;
            if stage + 1 < self.box_heads.len() {
                let refine = |((&roi, logits), deltas): ((&Corners, &Vec<f32>), &Vec<f32>)| {
                    let class = likeliest(&logits[..logits.len() - 1]);
                    decode(roi, of_class(deltas, class), coder, picture.size)
                };
                let refined = rois.iter().zip(&logits).zip(&deltas).map(refine).collect();
                regions.rois.push(refined);
            }
            regions.logits.push(logits);
            regions.deltas.push(deltas);
        }
        Ok(regions)
    }

    /// The detections among the regions: scores of the mean of all stages' logits, boxes of the last stage,
    /// suppression class by class in pixels of the original picture.
    pub fn select(&self, regions: &Regions, picture: Picture, selection: Selection) -> Vec<Found> {
        let (Some(rois), Some(deltas)) = (regions.rois.last(), regions.deltas.last()) else {
            return Vec::new();
        };
        let coder = &self.recipe.stages[regions.deltas.len() - 1];
        let stages = regions.logits.len() as f32;
        let mut candidates = Vec::new();
        for (i, (&roi, deltas)) in rois.iter().zip(deltas).enumerate() {
            let mut mean = regions.logits[0][i].clone();
            for logits in &regions.logits[1..] {
                mean.iter_mut().zip(&logits[i]).for_each(|(sum, logit)| *sum += logit);
            }
            mean.iter_mut().for_each(|sum| *sum /= stages);
            let classes = mean.len();
            softmax(&mut mean, classes);
            for (class, &score) in mean[..classes - 1].iter().enumerate() {
                if score > selection.score_threshold {
                    let corners = decode(roi, of_class(deltas, class), coder, picture.size);
                    let corners = std::array::from_fn(|side| corners[side] / picture.scale_factor[side % 2]);
                    candidates.push(Candidate { corners, score, group: class });
                }
            }
        }
        let mut kept = nms(&candidates, self.recipe.iou_threshold as f32);
        kept.truncate(selection.max_detections);
        let found = |index: usize| {
            let Candidate { corners, score, group } = candidates[index];
            Found { index: group, score, corners }
        };
        kept.into_iter().map(found).collect()
    }

    /// Mask logits of what was found on one picture, from each mask head, [objects, 28, 28].
    ///
    /// # Errors
    /// When the maps are not the pyramid's.
    pub fn masks(&self, pyramid: &[Tensor], found: &[Found], picture: Picture) -> Result<Vec<Tensor>> {
        let resized =
            |found: &Found| std::array::from_fn(|side| found.corners[side] * picture.scale_factor[side % 2]);
        let rois: Vec<Corners> = found.iter().map(resized).collect();
        let classes: Vec<u32> = found.iter().map(|found| found.index as u32).collect();
        let features = self.features(pyramid, &rois, MASK_SIDE)?;
        self.mask_heads.iter().map(|head| head.forward(&features, &classes)).collect()
    }

    /// The features of regions, in pixels of the resized picture, from the four finest maps of its pyramid:
    /// [rois, `side`, `side`, C].
    ///
    /// # Errors
    /// When the maps are not the pyramid's.
    pub fn features(&self, pyramid: &[Tensor], rois: &[Corners], side: usize) -> Result<Tensor> {
        let levels = STRIDES.len() - 1;
        let (maps, finest_scale) = (&pyramid[..levels.min(pyramid.len())], self.recipe.finest_scale as f32);
        roi_align(self.maps, maps, &STRIDES[..levels], rois, finest_scale, side)
    }
}

impl Detector for MaskRcnn {
    /// The pyramid is computed of all images together; a picture's thousand regions fill the heads by
    /// themselves.
    fn forward(
        &self,
        images: &Tensor,
        pictures: &[Picture],
        selection: Selection,
        masks: bool,
    ) -> Result<Vec<Option<Detected>>> {
        on_pool(images.device(), || {
            let pyramid = self.pyramid(&self.backbone.forward(images)?)?;
            let sizes: Vec<[f32; 2]> = pictures.iter().map(|picture| picture.size).collect();
            let proposals = self.proposals(&self.predict(&pyramid)?, &sizes)?;
            let detect = |(i, (proposals, &picture)): (usize, (Option<Vec<Candidate>>, &Picture))| {
                let Some(proposals) = proposals else { return Ok(None) };
                let pyramid = pyramid.iter().map(|map| map.narrow(0, i, 1)).collect::<Result<Vec<_>>>()?;
                let rois = proposals.iter().map(|proposal| proposal.corners).collect();
                let regions = self.regions(&pyramid, rois, picture)?;
                let mut values = regions.logits.iter().chain(&regions.deltas).flatten().flatten();
                if !values.all(|x| x.is_finite()) {
                    return Ok(None);
                }
                let found = self.select(&regions, picture, selection);
                let masks =
                    if masks { Some(mean_sigmoid(&self.masks(&pyramid, &found, picture)?)?) } else { None };
                Ok(Some(Detected { found, masks }))
            };
            proposals.into_iter().zip(pictures).enumerate().map(detect).collect()
        })
    }

    fn selection(&self) -> Selection {
        (&self.recipe).into()
    }
}

/// That maps and stages are as many as there are strides, anchors and deltas for them.
fn check(
    config: &DetectorWidths,
    levels: usize,
    recipe: &DetectorRecipe,
) -> std::result::Result<(), LoadError> {
    let wrong = |what| Err(LoadError::Architecture(what));
    let (stages, coders, bases) = (config.stages, recipe.stages.len(), recipe.anchors.base_sizes.len());
    if levels + 1 != STRIDES.len() {
        return wrong(format!("a detector's backbone has {} levels, not {levels}", STRIDES.len() - 1));
    }
    if !(1..=coders).contains(&stages) {
        return wrong(format!("{stages} stages of box heads, and the recipe has box coders for {coders}"));
    }
    if bases < STRIDES.len() {
        return wrong(format!("anchors of {bases} base sizes for {} maps", STRIDES.len()));
    }
    Ok(())
}

/// Four deltas of a class, or those of all classes where there are no more.
fn of_class(deltas: &[f32], class: usize) -> [f32; 4] {
    let first = if deltas.len() == 4 { 0 } else { 4 * class };
    std::array::from_fn(|i| deltas[first + i])
}

/// The mean of the probabilities of several logits.
pub fn mean_sigmoid(logits: &[Tensor]) -> Result<Tensor> {
    let probability = |x: &Tensor| (x.to_dtype(DType::F32)?.neg()?.exp()? + 1.0)?.recip();
    let Some((first, rest)) = logits.split_first() else {
        candle_core::bail!("a detector without mask heads")
    };
    let sum = rest.iter().try_fold(probability(first)?, |sum, x| sum + probability(x)?)?;
    sum / logits.len() as f64
}

/// What classifies and moves regions: convolutions with BatchNorm, linear layers, two outputs.
struct BoxHead {
    convs: Vec<Conv2d>,
    fcs: Vec<Linear>,
    fc_cls: Linear,
    fc_reg: Linear,
}

impl BoxHead {
    fn new(spec: &BoxHeadSpec, weights: &Weights) -> Self {
        // The first linear layer takes the region's whole map; without any the outputs do.
        let parts = |linear, first| match first {
            true => LinearParts::on_map(linear, spec.channels, weights),
            false => LinearParts::take(linear, weights),
        };
        let fc = |(i, linear)| Linear::of(parts(linear, i == 0).relu(), weights);
        let output = |linear| Linear::of(parts(linear, spec.fcs.is_empty()), weights);
        Self {
            convs: spec.convs.iter().map(|conv| Conv2d::module(conv, weights)).collect(),
            fcs: spec.fcs.iter().enumerate().map(fc).collect(),
            fc_cls: output(&spec.cls),
            fc_reg: output(&spec.reg),
        }
    }

    /// Features [regions, 7, 7, C] to class logits and deltas, a row a region.
    fn forward(&self, features: &Tensor) -> Result<(RegionRows, RegionRows)> {
        let regions = features.dim(0)?;
        if regions == 0 {
            return Ok((Vec::new(), Vec::new()));
        }
        let x = self.convs.iter().try_fold(features.clone(), |x, conv| conv.forward(&x))?;
        let x = x.reshape((regions, ()))?;
        let x = self.fcs.iter().try_fold(x, |x, fc| fc.forward(&x))?;
        let rows = |x: Tensor| x.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.to_vec2::<f32>();
        Ok((rows(self.fc_cls.forward(&x)?)?, rows(self.fc_reg.forward(&x)?)?))
    }
}

/// What tells an object's pixels from others in its box.
struct MaskHead {
    convs: Vec<Conv2d>,
    /// The transposed convolution of 2x2 at stride 2: four outputs a position, none overlap.
    upsample: Linear,
    /// `[classes, C]`
    weight: Tensor,
    /// `[classes]`
    bias: Option<Tensor>,
}

impl MaskHead {
    fn new(spec: &MaskHeadSpec, weights: &Weights) -> Self {
        let conv = |conv| ConvParts::take(conv, MapLayout::ChannelsLast, weights).relu();
        let logits = ConvParts::take(&spec.logits, MapLayout::ChannelsLast, weights);
        let shape = [spec.logits.outputs, spec.logits.inputs];
        let weight = weights.made(&shape, &spec.logits.weight.name, logits.weight.flatten(1, D::Minus1));
        Self {
            convs: spec.convs.iter().map(|spec| Conv2d::of(conv(spec), weights)).collect(),
            upsample: Linear::of(LinearParts::upsampling(&spec.upsample, weights).relu(), weights),
            weight,
            bias: logits.bias,
        }
    }

    /// Features [objects, 14, 14, C] to the logits of each object's own class, [objects, 28, 28].
    fn forward(&self, features: &Tensor, classes: &[u32]) -> Result<Tensor> {
        let (objects, h, w, _) = features.dims4()?;
        if objects == 0 {
            return Tensor::zeros((0, 2 * h, 2 * w), DType::F32, features.device());
        }
        let x = self.convs.iter().try_fold(features.clone(), |x, conv| conv.forward(&x))?;
        let x = self.upsample.forward(&x)?; // [objects, 14, 14, 4C]
        let (_, channels) = self.weight.dims2()?;
        let x = x.reshape((objects, 4 * h * w, channels))?;
        let classes = Tensor::new(classes, x.device())?;
        let weight = self.weight.index_select(&classes, 0)?.to_dtype(x.dtype())?.unsqueeze(2)?;
        let mut logits = x.matmul(&weight)?;
        if let Some(bias) = &self.bias {
            let bias = bias.index_select(&classes, 0)?.to_dtype(x.dtype())?.reshape((objects, 1, 1))?;
            logits = logits.broadcast_add(&bias)?;
        }
        // Position, then place among its four.
        logits.reshape((objects, h, w, 2, 2))?.permute((0, 1, 3, 2, 4))?.reshape((objects, 2 * h, 2 * w))
    }
}

#[cfg(test)]
mod tests {
    use nat_convert::zoo;

    use super::*;

    /// The cascade that mmdet's own configurations build: two linear layers, one box for all classes.
    #[test]
    fn the_stock_cascade_refines_one_box_for_all_classes() {
        let mut architecture = zoo::find("cascade-mask-rcnn-nat-mini").unwrap().architecture.clone();
        let backbone = &mut architecture.backbone;
        (backbone.embed_dim, backbone.depths) = (16, vec![1; 4]);
        (backbone.num_heads, backbone.dilations) = (vec![1, 2, 4, 8], vec![vec![1]; 4]);
        let detector = DetectorWidths {
            classes: 3,
            fpn_channels: 8,
            box_convs: 0,
            box_channels: 8,
            box_fcs: 2,
            fc_channels: 12,
            class_agnostic: true,
            stages: 3,
            mask_convs: 4,
            mask_channels: 8,
        };
        architecture.head = Head::CascadeMaskRcnn(detector.clone());
        let weights = Weights::random(3, DType::F32, Device::Cpu);
        let network = MaskRcnn::new(&architecture, &detector, &weights).unwrap();
        assert_eq!(weights.parameters(), architecture.parameters());

        let image = Tensor::randn(0f32, 1.0, (1, 3, 64, 96), &Device::Cpu).unwrap();
        let picture = Picture { size: [90.0, 60.0], scale_factor: [1.5, 1.5] };
        let all = Selection { score_threshold: 0.0, max_detections: 10_000 };
        let pyramid = network.pyramid(&network.maps(&image).unwrap()).unwrap();
        let predictions = network.predict(&pyramid).unwrap();
        let proposals = network.proposals(&predictions, &[picture.size]).unwrap().remove(0).unwrap();
        let rois: Vec<Corners> = proposals.iter().map(|proposal| proposal.corners).collect();
        let regions = network.regions(&pyramid, rois.clone(), picture).unwrap();
        assert!(regions.deltas.iter().flatten().all(|deltas| deltas.len() == 4));
        let recipe = network.recipe();
        // Each stage looks at what the one before made of its regions.
        for stage in 1..3 {
            for (i, roi) in regions.rois[stage].iter().enumerate() {
                let deltas = std::array::from_fn(|d| regions.deltas[stage - 1][i][d]);
                let moved =
                    decode(regions.rois[stage - 1][i], deltas, &recipe.stages[stage - 1], picture.size);
                assert_eq!(*roi, moved);
            }
        }
        let found = network.select(&regions, picture, all);
        let mut boxes: Vec<_> = found.iter().map(|found| found.corners.map(f32::to_bits)).collect();
        boxes.sort_unstable();
        boxes.dedup();
        assert!(!found.is_empty() && boxes.len() <= rois.len() && boxes.len() < found.len());
        for Found { corners: [x1, y1, x2, y2], .. } in &found {
            assert!(*x1 >= 0.0 && *y1 >= 0.0 && *x2 <= 60.0 && *y2 <= 40.0 && x1 <= x2 && y1 <= y2);
        }
        let masks = network.masks(&pyramid, &found[..2], picture).unwrap();
        assert!(masks.len() == 3 && masks.iter().all(|logits| logits.dims() == [2, 28, 28]));

        // What is no number is said, not taken for an empty picture; what goes with it is not harmed.
        let images = Tensor::cat(&[&(&image * f64::NAN).unwrap(), &image], 0).unwrap();
        let [none, some] = network.forward(&images, &[picture; 2], all, true).unwrap().try_into().unwrap();
        assert!(none.is_none());
        let some = some.unwrap();
        assert!(some.found == found && some.masks.unwrap().dims() == [found.len(), 28, 28]);
        assert!(network.forward(&images, &[picture], all, true).is_err());
    }
}
