//! From a test pipeline to how pixels become inputs.

use super::place::{ConfigPlace, Findings};
use crate::arch::{Filter, Geometry, MAX_SIDE, Preprocessing};
use crate::python::Py;

/// What the steps do that turn a file into an input.
struct PipelineSteps {
    scale: Option<[usize; 2]>,
    keep_ratio: Option<bool>,
    divisor: Option<usize>,
    normalisation: Option<Normalisation>,
}

/// (x − mean) / std on 0..255, in the order of the network's channels.
struct Normalisation {
    mean: [f64; 3],
    std: [f64; 3],
    rgb: bool,
}

/// Reads the steps of a pipeline and, of mmengine, the `data_preprocessor` that follows it. `usual` is
/// what the published configurations of the task do.
pub(super) fn read(
    steps: &ConfigPlace,
    processor: &ConfigPlace,
    mmengine: bool,
    usual: Geometry,
    findings: &mut Findings,
) -> Option<Preprocessing> {
    let mut found = PipelineSteps { scale: None, keep_ratio: None, divisor: None, normalisation: None };
    if steps.is_given() {
        walk(steps, mmengine, &mut found, findings);
    }
    let processed = processor.is_given().then(|| preprocessor(processor, &mut found, findings)).flatten();
    let normalisation = match processed.or(found.normalisation.take()) {
        Some(normalisation) => normalisation,
        None if steps.is_given() => Normalisation { mean: [0.0; 3], std: [1.0; 3], rgb: false },
        None => return None,
    };
    let Geometry::Scale { scale: usual, divisor, .. } = usual else { return None };
    if found.scale.is_none() && steps.is_given() {
        findings.refuse(&steps.key("Resize"));
    }
    let keep_ratio = found.keep_ratio.unwrap_or(true);
    let mut scale = found.scale.unwrap_or(usual);
    if keep_ratio {
        // Bounds of the long and the short side, in whatever order they are written.
        scale.sort_unstable_by(|a, b| b.cmp(a));
    }
    Some(Preprocessing {
        geometry: Geometry::Scale { scale, divisor: found.divisor.unwrap_or(divisor), keep_ratio },
        mean: normalisation.mean.map(of_one),
        std: normalisation.std.map(of_one),
        filter: Filter::default(),
        bgr: !normalisation.rgb,
    })
}

fn walk(steps: &ConfigPlace, mmengine: bool, found: &mut PipelineSteps, findings: &mut Findings) {
    for step in steps.members() {
        match step.kind() {
            Some("LoadImageFromFile" | "LoadImageFromNDArray" | "LoadImage" | "LoadImageFromWebcam") => {
                findings.expect_off(&step.key("to_float32"));
                findings.expect(&step.key("color_type"), |value| {
                    matches!(value.text(), Some("color" | "color_ignore_orientation"))
                });
                if step.key("color_type").value().and_then(Py::text) == Some("color_ignore_orientation") {
                    findings.warnings.push(
                        "the configuration ignores a picture's EXIF orientation; here it is applied"
                            .to_owned(),
                    );
                }
            }
            Some("MultiScaleFlipAug") => {
                size(&step.key("img_scale"), found, findings);
                findings.expect_off(&step.key("scale_factor"));
                let ratios = step.key("img_ratios");
                let several = ratios.value().and_then(Py::list).is_some_and(|list| list.len() > 1);
                if several || step.key("flip").value() == Some(&Py::Bool(true)) {
                    findings.warnings.push(
                        "the configuration tests at several sizes or mirrored too; here that is done where it is asked for".to_owned(),
                    );
                } else if ratios.is_given() {
                    findings.expect_number(&ratios, 1.0);
                }
                walk(&step.key("transforms"), mmengine, found, findings);
            }
            Some("Resize") => {
                size(&step.key("scale"), found, findings);
                size(&step.key("img_scale"), found, findings);
                findings.expect_off(&step.key("scale_factor"));
                findings.expect_off(&step.key("min_size"));
                findings.expect_off(&step.key("ratio_range"));
                findings.expect(&step.key("interpolation"), |value| value.text() == Some("bilinear"));
                findings.expect(&step.key("backend"), |value| value.text() == Some("cv2"));
                let mut keep_ratio = !mmengine;
                findings.truth(&step.key("keep_ratio"), &mut keep_ratio);
                found.keep_ratio = Some(keep_ratio);
                findings.rest(
                    &step,
                    &[
                        "type",
                        "scale",
                        "img_scale",
                        "scale_factor",
                        "min_size",
                        "ratio_range",
                        "interpolation",
                        "backend",
                        "keep_ratio",
                        "multiscale_mode",
                        "override",
                        "clip_object_border",
                        "bbox_clip_border",
                        "_scope_",
                    ],
                );
            }
            Some("Normalize") => {
                let mut rgb = true;
                findings.truth(&step.key("to_rgb"), &mut rgb);
                found.normalisation = numbers(&step, "mean", "std", rgb, findings);
            }
            Some("Pad") => {
                let mut divisor = 1;
                findings.count(&step.key("size_divisor"), 1..=MAX_SIDE, &mut divisor);
                findings.expect_off(&step.key("size"));
                findings.expect_off(&step.key("pad_to_square"));
                let value = step.key("pad_val");
                match value.value() {
                    Some(Py::Dict(_)) => findings.expect_number(&value.key("img"), 0.0),
                    _ => findings.expect_number(&value, 0.0),
                }
                found.divisor = Some(divisor);
            }
            Some(
                "RandomFlip"
                | "ImageToTensor"
                | "DefaultFormatBundle"
                | "Collect"
                | "PackDetInputs"
                | "PackSegInputs"
                | "LoadAnnotations"
                | "ToTensor",
            ) => {}
            _ => findings.refuse(&step.key("type")),
        }
    }
}

/// A width and a height, or the one of a list of them.
fn size(place: &ConfigPlace, found: &mut PipelineSteps, findings: &mut Findings) {
    if !place.is_given() {
        return;
    }
    let pair = match place.value() {
        Some(Py::List(items)) if matches!(items.as_slice(), [Py::List(_)]) => place.first(),
        _ => place.clone(),
    };
    let mut sides = [1.0; 2];
    let refused = findings.refused.len();
    findings.exactly(&pair, 1.0..=MAX_SIDE as f64, &mut sides);
    if findings.refused.len() == refused {
        found.scale = Some(sides.map(|side| side as usize));
    }
}

/// mmdetection's `DetDataPreprocessor` and mmsegmentation's `SegDataPreProcessor`.
fn preprocessor(
    place: &ConfigPlace,
    found: &mut PipelineSteps,
    findings: &mut Findings,
) -> Option<Normalisation> {
    findings.expect_kind(
        place,
        &["DetDataPreprocessor", "SegDataPreProcessor", "SegDataPreprocessor", "ImgDataPreprocessor"],
    );
    let mut rgb = false;
    findings.truth(&place.key("bgr_to_rgb"), &mut rgb);
    findings.truth(&place.key("rgb_to_bgr"), &mut rgb);
    for value in ["pad_value", "pad_val"] {
        findings.expect_number(&place.key(value), 0.0);
    }
    let divisor = place.key("pad_size_divisor");
    if divisor.is_given() {
        let mut pixels = 1;
        findings.count(&divisor, 1..=MAX_SIDE, &mut pixels);
        found.divisor = Some(pixels);
    } else if place.kind() == Some("DetDataPreprocessor") {
        found.divisor = Some(1);
    }
    // `size` and `size_divisor` are for training; `test_cfg` has those of tests.
    let test = place.key("test_cfg");
    findings.expect_off(&test.key("size"));
    findings.expect_number(&test.key("size_divisor"), 1.0);
    findings.rest(
        place,
        &[
            "type",
            "mean",
            "std",
            "bgr_to_rgb",
            "rgb_to_bgr",
            "pad_value",
            "pad_val",
            "pad_size_divisor",
            "size",
            "size_divisor",
            "test_cfg",
            "pad_mask",
            "mask_pad_value",
            "pad_seg",
            "seg_pad_value",
            "seg_pad_val",
            "boxtype2tensor",
            "non_blocking",
            "batch_augments",
        ],
    );
    if place.key("mean").is_given() || place.key("std").is_given() {
        return numbers(place, "mean", "std", rgb, findings);
    }
    Some(Normalisation { mean: [0.0; 3], std: [1.0; 3], rgb })
}

fn numbers(
    place: &ConfigPlace,
    mean: &str,
    std: &str,
    rgb: bool,
    findings: &mut Findings,
) -> Option<Normalisation> {
    let mut normalisation = Normalisation { mean: [0.0; 3], std: [1.0; 3], rgb };
    findings.exactly(&place.key(mean), -1e4..=1e4, &mut normalisation.mean);
    findings.exactly(&place.key(std), 1e-3..=1e6, &mut normalisation.std);
    Some(normalisation)
}

/// A number on 0..255 on 0..1, as it would be written: 57.12 is 0.224, and not what division rounds it to.
fn of_one(number: f64) -> f64 {
    const DIGITS: f64 = 1e12;
    (number / 255.0 * DIGITS).round() / DIGITS
}
