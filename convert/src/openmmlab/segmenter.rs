//! UPerNet's part of a configuration.

use super::parts;
use super::place::{ConfigPlace, Findings, whole_numbers};
use crate::python::Py;
use crate::recipe::{Recipe, SlidingWindow};

/// Largest pooled map, and largest window.
const MAX_POOL: f64 = 64.0;
const MAX_WINDOW: usize = 1 << 13;

/// Reads `model.decode_head` and how it is tested.
pub(crate) fn read(model: &ConfigPlace, test: &ConfigPlace, recipe: &mut Recipe, findings: &mut Findings) {
    findings.expect_kind(model, &["EncoderDecoder"]);
    findings.expect_off(&model.key("neck"));
    let head = model.key("decode_head");
    if matches!(head.value(), Some(Py::List(_))) {
        findings.refuse(&head);
        return;
    }
    findings.expect_kind(&head, &["UPerHead"]);
    let segmenter = &mut recipe.segmenter;
    let mut pools = segmenter.pool_scales.iter().map(|&side| side as f64).collect();
    findings.numbers(&head.key("pool_scales"), 1.0..=MAX_POOL, &mut pools);
    segmenter.pool_scales = pools.into_iter().map(|side| side as usize).collect();
    findings.truth(&head.key("align_corners"), &mut segmenter.align_corners);
    findings.number(&head.key("threshold"), 0.0..=1.0, &mut segmenter.threshold);
    let inputs = head.key("in_index");
    findings.expect(&inputs, |value| {
        whole_numbers(value).is_some_and(|list| list.iter().copied().eq(0..list.len()))
    });
    findings.expect(&head.key("input_transform"), |value| value.text() == Some("multiple_select"));
    parts::norm(&head, recipe, findings);
    parts::activation(&head, findings);
    parts::plain_convolutions(&head, findings);
    findings.rest(
        &head,
        &[
            "type",
            "in_channels",
            "in_index",
            "input_transform",
            "pool_scales",
            "channels",
            "dropout_ratio",
            "num_classes",
            "out_channels",
            "threshold",
            "norm_cfg",
            "act_cfg",
            "conv_cfg",
            "align_corners",
            "loss_decode",
            "ignore_index",
            "sampler",
            "init_cfg",
        ],
    );
    let mode = test.key("mode");
    match mode.value() {
        None | Some(Py::None) => {}
        Some(Py::Str(mode)) if mode == "whole" => {}
        Some(Py::Str(slide)) if slide == "slide" => recipe.segmenter.window = window(test, findings),
        Some(_) => findings.refuse(&mode),
    }
    findings.expect(&test.key("multi_label"), |value| *value == Py::Bool(false));
    findings.rest(test, &["mode", "crop_size", "stride", "multi_label"]);
}

fn window(test: &ConfigPlace, findings: &mut Findings) -> Option<SlidingWindow> {
    let mut pair = |key: &str| -> Option<[usize; 2]> {
        let place = test.key(key);
        let sides = place.value().and_then(whole_numbers).and_then(|list| <[usize; 2]>::try_from(list).ok());
        let sides = sides.filter(|sides| sides.iter().all(|side| (1..=MAX_WINDOW).contains(side)));
        if sides.is_none() {
            findings.refuse(&place);
        }
        sides
    };
    let (crop, stride) = (pair("crop_size")?, pair("stride")?);
    if stride[0] > crop[0] || stride[1] > crop[1] {
        // Some pixels would be in no window.
        findings.refuse(&test.key("stride"));
        return None;
    }
    Some(SlidingWindow { crop, stride })
}
