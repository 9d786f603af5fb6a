//! The part of a configuration that Mask R-CNN and Cascade Mask R-CNN have.

use super::parts;
use super::place::{ConfigPlace, Findings};
use crate::python::Py;
use crate::recipe::{Anchors, BoxCoder, Recipe};

/// Sides of boxes in pixels, and numbers that boxes are multiplied with.
const SIZES: std::ops::RangeInclusive<f64> = 1e-3..=1e5;
/// Shares: of an intersection, of a probability.
const SHARE: std::ops::RangeInclusive<f64> = 0.0..=1.0;
/// Most boxes that are kept anywhere.
const MOST: usize = 1 << 16;

/// Strides of the pyramid's maps.
const STRIDES: [f64; 5] = [4.0, 8.0, 16.0, 32.0, 64.0];

/// Reads `model.neck`, `model.rpn_head`, `model.roi_head` and how they are tested.
pub(crate) fn read(model: &ConfigPlace, test: &ConfigPlace, recipe: &mut Recipe, findings: &mut Findings) {
    findings.expect_kind(
        model,
        &["MaskRCNN", "CascadeRCNN", "CascadeMaskRCNN", "FasterRCNN", "TwoStageDetector"],
    );
    neck(&model.key("neck"), findings);
    proposals(&model.key("rpn_head"), &test.key("rpn"), recipe, findings);
    let roi = model.key("roi_head");
    let rcnn = match test.key("rcnn") {
        place if place.is_given() => place,
        _ => roi.key("test_cfg"),
    };
    regions(&roi, recipe, findings);
    selection(&rcnn, recipe, findings);
}

fn neck(neck: &ConfigPlace, findings: &mut Findings) {
    findings.expect_kind(neck, &["FPN"]);
    findings.expect_number(&neck.key("start_level"), 0.0);
    findings.expect(&neck.key("end_level"), |value| matches!(value, Py::Int(-1 | 3)));
    findings.expect_number(&neck.key("num_outs"), STRIDES.len() as f64);
    findings.expect_off(&neck.key("add_extra_convs"));
    findings.expect_off(&neck.key("norm_cfg"));
    findings.expect_off(&neck.key("act_cfg"));
    parts::plain_convolutions(neck, findings);
    let upsample = neck.key("upsample_cfg");
    findings.expect(&upsample.key("mode"), |value| value.text() == Some("nearest"));
    findings.rest(
        neck,
        &[
            "type",
            "in_channels",
            "out_channels",
            "num_outs",
            "start_level",
            "end_level",
            "add_extra_convs",
            "relu_before_extra_convs",
            "no_norm_on_lateral",
            "norm_cfg",
            "act_cfg",
            "conv_cfg",
            "upsample_cfg",
            "init_cfg",
        ],
    );
}

fn proposals(head: &ConfigPlace, test: &ConfigPlace, recipe: &mut Recipe, findings: &mut Findings) {
    findings.expect_kind(head, &["RPNHead"]);
    findings.expect_number(&head.key("num_convs"), 1.0);
    findings.expect(&head.key("loss_cls").key("use_sigmoid"), |value| *value == Py::Bool(true));
    anchors(&head.key("anchor_generator"), &mut recipe.detector.anchors, findings);
    let proposals = &mut recipe.detector.proposals;
    coder(&head.key("bbox_coder"), &mut proposals.coder, findings);
    findings.expect_off(&head.key("reg_decoded_bbox"));
    findings.rest(
        head,
        &[
            "type",
            "in_channels",
            "feat_channels",
            "anchor_generator",
            "bbox_coder",
            "loss_cls",
            "loss_bbox",
            "num_convs",
            "num_classes",
            "reg_decoded_bbox",
            "train_cfg",
            "test_cfg",
            "init_cfg",
        ],
    );
    findings.count(&test.key("nms_pre"), 1..=MOST, &mut proposals.per_map);
    findings.count(&test.key("max_num"), 1..=MOST, &mut proposals.most);
    findings.count(&test.key("max_per_img"), 1..=MOST, &mut proposals.most);
    findings.number(&test.key("nms_thr"), SHARE, &mut proposals.iou_threshold);
    findings.number(&test.key("min_bbox_size"), 0.0..=1e5, &mut proposals.smallest);
    suppression(&test.key("nms"), &mut proposals.iou_threshold, findings);
    // `nms_post` and `nms_across_levels` are of old versions, and nothing reads them any more.
    findings.rest(
        test,
        &[
            "nms_pre",
            "max_num",
            "max_per_img",
            "nms_thr",
            "min_bbox_size",
            "nms",
            "nms_post",
            "nms_across_levels",
        ],
    );
}

fn anchors(generator: &ConfigPlace, anchors: &mut Anchors, findings: &mut Findings) {
    findings.expect_kind(generator, &["AnchorGenerator"]);
    let octave = generator.key("octave_base_scale");
    if octave.is_given() {
        let (mut base, mut steps) = (0.0, 1);
        findings.number(&octave, SIZES, &mut base);
        findings.count(&generator.key("scales_per_octave"), 1..=16, &mut steps);
        anchors.scales = (0..steps).map(|i| base * 2f64.powf(i as f64 / steps as f64)).collect();
    }
    findings.numbers(&generator.key("scales"), SIZES, &mut anchors.scales);
    findings.numbers(&generator.key("ratios"), SIZES, &mut anchors.ratios);
    let strides = generator.key("strides");
    findings.expect(&strides, |value| {
        let stride = |value: &Py| value.number().or_else(|| value.list()?.first()?.number());
        value.list().is_some_and(|list| list.iter().map(stride).eq(STRIDES.map(Some)))
    });
    findings.numbers(&generator.key("base_sizes"), SIZES, &mut anchors.base_sizes);
    if anchors.base_sizes.len() != STRIDES.len() {
        findings.refuse(&generator.key("base_sizes"));
    }
    findings.expect_off(&generator.key("centers"));
    findings.number(&generator.key("center_offset"), SHARE, &mut anchors.center_offset);
    // Scales before ratios: the order of the network's outputs.
    findings.expect(&generator.key("scale_major"), |value| *value == Py::Bool(true));
    findings.rest(
        generator,
        &[
            "type",
            "octave_base_scale",
            "scales_per_octave",
            "scales",
            "ratios",
            "strides",
            "base_sizes",
            "centers",
            "center_offset",
            "scale_major",
            "use_box_type",
        ],
    );
}

fn coder(place: &ConfigPlace, coder: &mut BoxCoder, findings: &mut Findings) {
    findings.expect_kind(place, &["DeltaXYWHBBoxCoder"]);
    findings.exactly(&place.key("target_means"), -1e3..=1e3, &mut coder.means);
    findings.exactly(&place.key("target_stds"), 1e-6..=1e3, &mut coder.stds);
    findings.expect(&place.key("clip_border"), |value| *value == Py::Bool(true));
    findings.expect_off(&place.key("add_ctr_clamp"));
    findings.rest(
        place,
        &[
            "type",
            "target_means",
            "target_stds",
            "clip_border",
            "add_ctr_clamp",
            "ctr_clamp",
            "use_box_type",
            "encode_size",
        ],
    );
}

fn suppression(nms: &ConfigPlace, iou_threshold: &mut f64, findings: &mut Findings) {
    findings.expect_kind(nms, &["nms"]);
    findings.number(&nms.key("iou_thr"), SHARE, iou_threshold);
    findings.number(&nms.key("iou_threshold"), SHARE, iou_threshold);
    findings.expect_off(&nms.key("class_agnostic"));
    findings.rest(nms, &["type", "iou_thr", "iou_threshold", "class_agnostic", "split_thr"]);
}

fn regions(roi: &ConfigPlace, recipe: &mut Recipe, findings: &mut Findings) {
    findings.expect_kind(roi, &["StandardRoIHead", "CascadeRoIHead"]);
    findings.expect_off(&roi.key("shared_head"));
    let mut finest = None;
    for (extractor, side) in [("bbox_roi_extractor", 7.0), ("mask_roi_extractor", 14.0)] {
        for extractor in roi.key(extractor).members() {
            findings.expect_kind(&extractor, &["SingleRoIExtractor"]);
            let layer = extractor.key("roi_layer");
            findings.expect_kind(&layer, &["RoIAlign"]);
            findings.expect_number(&layer.key("output_size"), side);
            findings.expect_number(&layer.key("sampling_ratio"), 0.0);
            findings.expect(&layer.key("aligned"), |value| *value == Py::Bool(true));
            findings.expect(&layer.key("pool_mode"), |value| value.text() == Some("avg"));
            findings.rest(
                &layer,
                &[
                    "type",
                    "output_size",
                    "out_size",
                    "sampling_ratio",
                    "sample_num",
                    "aligned",
                    "pool_mode",
                    "use_torchvision",
                ],
            );
            findings.expect(&extractor.key("featmap_strides"), |value| {
                value.list().is_some_and(|list| {
                    list.iter().map(Py::number).eq(STRIDES[..4].iter().copied().map(Some))
                })
            });
            let mut own = recipe.detector.finest_scale;
            let place = extractor.key("finest_scale");
            findings.number(&place, SIZES, &mut own);
            if finest.is_some_and(|finest| finest != own) {
                findings.refuse(&place);
            }
            finest = Some(own);
            findings.rest(
                &extractor,
                &["type", "roi_layer", "out_channels", "featmap_strides", "finest_scale", "init_cfg"],
            );
        }
    }
    recipe.detector.finest_scale = finest.unwrap_or(recipe.detector.finest_scale);
    let heads = roi.key("bbox_head");
    if heads.is_given() {
        let mut stages = Vec::new();
        for (i, head) in heads.members().iter().enumerate() {
            let mut stage = recipe.detector.stages.get(i).copied().unwrap_or_default();
            box_head(head, &mut stage, recipe, findings);
            stages.push(stage);
        }
        let mut count = stages.len();
        findings.count(&roi.key("num_stages"), 1..=64, &mut count);
        // One head for all stages is given once.
        if count > stages.len() && stages.len() == 1 {
            stages.resize(count, stages[0]);
        }
        recipe.detector.stages = stages;
    }
    for head in roi.key("mask_head").members() {
        mask_head(&head, findings);
    }
    findings.rest(
        roi,
        &[
            "type",
            "num_stages",
            "stage_loss_weights",
            "bbox_roi_extractor",
            "bbox_head",
            "mask_roi_extractor",
            "mask_head",
            "shared_head",
            "train_cfg",
            "test_cfg",
            "pretrained",
            "init_cfg",
        ],
    );
}

fn box_head(head: &ConfigPlace, stage: &mut BoxCoder, recipe: &mut Recipe, findings: &mut Findings) {
    findings
        .expect_kind(head, &["Shared2FCBBoxHead", "Shared4Conv1FCBBoxHead", "ConvFCBBoxHead", "BBoxHead"]);
    coder(&head.key("bbox_coder"), stage, findings);
    findings.expect_number(&head.key("roi_feat_size"), 7.0);
    findings.expect_off(&head.key("with_avg_pool"));
    for branch in ["num_cls_convs", "num_cls_fcs", "num_reg_convs", "num_reg_fcs"] {
        findings.expect_number(&head.key(branch), 0.0);
    }
    let loss = head.key("loss_cls");
    findings.expect_off(&loss.key("use_sigmoid"));
    findings.expect_kind(&loss, &["CrossEntropyLoss"]);
    for predictor in ["reg_predictor_cfg", "cls_predictor_cfg"] {
        findings.expect_kind(&head.key(predictor), &["Linear"]);
    }
    parts::norm(head, recipe, findings);
    parts::plain_convolutions(head, findings);
    findings.rest(
        head,
        &[
            "type",
            "in_channels",
            "conv_out_channels",
            "fc_out_channels",
            "num_shared_convs",
            "num_shared_fcs",
            "num_cls_convs",
            "num_cls_fcs",
            "num_reg_convs",
            "num_reg_fcs",
            "roi_feat_size",
            "num_classes",
            "bbox_coder",
            "predict_box_type",
            "reg_class_agnostic",
            "reg_decoded_bbox",
            "reg_predictor_cfg",
            "cls_predictor_cfg",
            "norm_cfg",
            "conv_cfg",
            "loss_cls",
            "loss_bbox",
            "with_avg_pool",
            "with_cls",
            "with_reg",
            "init_cfg",
        ],
    );
}

fn mask_head(head: &ConfigPlace, findings: &mut Findings) {
    findings.expect_kind(head, &["FCNMaskHead"]);
    findings.expect_number(&head.key("roi_feat_size"), 14.0);
    findings.expect_number(&head.key("conv_kernel_size"), 3.0);
    findings.expect_off(&head.key("class_agnostic"));
    findings.expect_off(&head.key("norm_cfg"));
    parts::plain_convolutions(head, findings);
    let upsample = head.key("upsample_cfg");
    findings.expect_kind(&upsample, &["deconv"]);
    findings.expect_number(&upsample.key("scale_factor"), 2.0);
    findings.expect_kind(&head.key("predictor_cfg"), &["Conv"]);
    findings.rest(
        head,
        &[
            "type",
            "num_convs",
            "in_channels",
            "conv_out_channels",
            "num_classes",
            "roi_feat_size",
            "conv_kernel_size",
            "class_agnostic",
            "upsample_cfg",
            "predictor_cfg",
            "conv_cfg",
            "norm_cfg",
            "loss_mask",
            "init_cfg",
        ],
    );
}

fn selection(test: &ConfigPlace, recipe: &mut Recipe, findings: &mut Findings) {
    let detector = &mut recipe.detector;
    findings.number(&test.key("score_thr"), SHARE, &mut detector.score_threshold);
    findings.count(&test.key("max_per_img"), 1..=MOST, &mut detector.max_detections);
    // Below 0 masks are probabilities, for pictures.
    findings.number(&test.key("mask_thr_binary"), SHARE, &mut detector.mask_threshold);
    suppression(&test.key("nms"), &mut detector.iou_threshold, findings);
    findings.rest(test, &["score_thr", "nms", "max_per_img", "mask_thr_binary"]);
}
