//! What a detector's recipe says changes answers as it should: golden checkpoints with other recipes, and with weights
//! that make up for these, answer as before.

#[path = "common/altered.rs"]
mod altered;

use std::path::PathBuf;

use altered::{Altered, Tensors, altered, replace, rows};
use candle_core::{DType, Device, Tensor};
use nat_convert::arch::{DetectorWidths, Head};
use nat_convert::metadata::Metadata;
use nat_convert::recipe::BoxCoder;
use nat_infer::images::Reader;
use nat_infer::models::Network;
use nat_infer::models::detector::Picture;
use nat_infer::models::mask_rcnn::MaskRcnn;
use nat_infer::results::Detection;
use nat_infer::tasks::Detect;
use nat_infer::tasks::detect::{DetectOptions, Object};
use nat_testing::{bound, golden, tensors};

/// A set of a detector.
fn set(name: &str) -> PathBuf {
    golden::path("detect").join(name)
}

/// A golden detector and what is to be changed in it.
fn detector(name: &str, alter: impl FnOnce(&mut Metadata, &mut Tensors)) -> Altered {
    altered(&set(name).join("model.pth"), alter)
}

fn run(file: &Altered, name: &str, options: &DetectOptions) -> Vec<Object> {
    let image = Reader::default().file(&set(name).join("image.png")).unwrap();
    Detect::new(file.model(), options).unwrap().run(&image).unwrap()
}

/// The boxes on the golden image.
fn boxes(file: &Altered, name: &str) -> Vec<Detection> {
    let mut options = DetectOptions::default();
    options.masks = false;
    run(file, name, &options).into_iter().map(|object| object.detection).collect()
}

/// Each detection of `want` has one of its own in `got`.
fn assert_same(got: &[Detection], want: &[Detection]) {
    assert_eq!(got.len(), want.len());
    assert!(!want.is_empty());
    let mut free: Vec<&Detection> = got.iter().collect();
    for want in want {
        let off = |d: &Detection| (0..4).map(|i| (d.bbox[i] - want.bbox[i]).abs()).fold(0.0, f32::max);
        let of_class = (0..free.len()).filter(|&i| free[i].index == want.index);
        let nearest = of_class.min_by(|&a, &b| off(free[a]).total_cmp(&off(free[b])));
        let got = free.swap_remove(nearest.unwrap_or_else(|| panic!("nothing left for {want:?}")));
        assert!(
            off(got) < 0.02 && f64::from(got.score - want.score).abs() < bound::SCORE,
            "{got:?}, not {want:?}"
        );
    }
}

fn head(metadata: &mut Metadata) -> &mut DetectorWidths {
    match &mut metadata.architecture.head {
        Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector) => detector,
        other => panic!("{other:?}"),
    }
}

/// Makes outputs of the tensors that `of` accepts such that `new` reads from them what `old` did.
fn recode(tensors: &mut Tensors, of: &str, old: &BoxCoder, new: &BoxCoder) {
    let each = |f: &dyn Fn(usize) -> f64, outputs: usize| (0..outputs).map(|i| f(i % 4)).collect::<Vec<_>>();
    let factor = |i: usize| old.stds[i] / new.stds[i];
    let term = |i: usize| (old.means[i] - new.means[i]) / new.stds[i];
    let outputs = |x: &Tensor| x.dims()[0];
    replace(
        tensors,
        |name| name == format!("{of}.weight"),
        |x| rows(x, &each(&factor, outputs(x)), &each(&|_| 0.0, outputs(x))),
    );
    replace(
        tensors,
        |name| name == format!("{of}.bias"),
        |x| rows(x, &each(&factor, outputs(x)), &each(&term, outputs(x))),
    );
}

#[test]
fn deltas_have_the_means_and_deviations_of_the_recipe() {
    for name in ["cascade_b", "maskrcnn_s"] {
        let usual = boxes(&detector(name, |_, _| ()), name);
        let recoded = detector(name, |metadata, tensors| {
            let stages = head(metadata).stages;
            let recipe = &mut metadata.architecture.recipe.detector;
            let rpn = BoxCoder { means: [0.1, -0.2, 0.05, 0.3], stds: [0.5, 2.0, 1.5, 0.25] };
            recode(tensors, "rpn_head.rpn_reg", &recipe.proposals.coder, &rpn);
            recipe.proposals.coder = rpn;
            for (stage, coder) in recipe.stages.iter_mut().enumerate().take(stages) {
                let other = BoxCoder { means: [-0.02, 0.03, 0.01, -0.04], stds: [0.3, 0.2, 0.1, 0.4] };
                let of = match stages {
                    1 => "roi_head.bbox_head.fc_reg".to_owned(),
                    _ => format!("roi_head.bbox_head.{stage}.fc_reg"),
                };
                recode(tensors, &of, coder, &other);
                *coder = other;
            }
        });
        assert_same(&boxes(&recoded, name), &usual);
    }
}

/// Rows of `x` in another order; each is `size` rows.
fn in_order(x: &Tensor, order: &[usize], size: usize) -> Tensor {
    let rows: Vec<u32> = order.iter().flat_map(|&i| (0..size).map(move |j| (i * size + j) as u32)).collect();
    x.index_select(&Tensor::new(rows, &Device::Cpu).unwrap(), 0).unwrap()
}

/// The proposal network's outputs for anchors in another order.
fn reorder(tensors: &mut Tensors, order: &[usize]) {
    replace(tensors, |name| name.starts_with("rpn_head.rpn_cls."), |x| in_order(x, order, 1));
    replace(tensors, |name| name.starts_with("rpn_head.rpn_reg."), |x| in_order(x, order, 4));
}

#[test]
fn anchors_are_the_recipes() {
    let name = "maskrcnn_s";
    let usual = boxes(&detector(name, |_, _| ()), name);
    // Ratios in another order.
    let turned = detector(name, |metadata, tensors| {
        metadata.architecture.recipe.detector.anchors.ratios = vec![2.0, 0.5, 1.0];
        reorder(tensors, &[2, 0, 1]);
    });
    assert_same(&boxes(&turned, name), &usual);
    // Larger base sizes and smaller scales.
    let same = detector(name, |metadata, _| {
        let anchors = &mut metadata.architecture.recipe.detector.anchors;
        anchors.base_sizes.iter_mut().for_each(|size| *size *= 2.0);
        anchors.scales = vec![4.0];
    });
    assert_same(&boxes(&same, name), &usual);
    // Centres elsewhere, and deltas that lead back: in units of the anchor's sides.
    let offset = detector(name, |metadata, tensors| {
        let anchors = &mut metadata.architecture.recipe.detector.anchors;
        anchors.center_offset = 0.5;
        let back = anchors.ratios.iter().flat_map(|ratio| {
            let (w, h) = (8.0 / ratio.sqrt(), 8.0 * ratio.sqrt());
            [-0.5 / w, -0.5 / h, 0.0, 0.0]
        });
        let back: Vec<f64> = back.collect();
        replace(tensors, |name| name == "rpn_head.rpn_reg.bias", |x| rows(x, &[1.0; 12], &back));
    });
    assert_same(&boxes(&offset, name), &usual);
}

/// Of each ratio one anchor of each scale: with the scales the other way round, so are the outputs of each ratio.
#[test]
fn several_scales_follow_each_other_within_a_ratio() {
    let name = "maskrcnn_s";
    let with = |scales: [f64; 2], order: [usize; 6]| {
        detector(name, |metadata, tensors| {
            metadata.architecture.recipe.detector.anchors.scales = scales.to_vec();
            reorder(tensors, &[0, 0, 1, 1, 2, 2]);
            // The two of a ratio differ.
            let terms = [0.0, 0.3, 0.0, -0.2, 0.0, 0.1];
            replace(tensors, |name| name == "rpn_head.rpn_cls.bias", |x| rows(x, &[1.0; 6], &terms));
            reorder(tensors, &order);
        })
    };
    let want = boxes(&with([8.0, 3.0], [0, 1, 2, 3, 4, 5]), name);
    assert_same(&boxes(&with([3.0, 8.0], [1, 0, 3, 2, 5, 4]), name), &want);
}

/// A first stage that moves nothing and says nothing of classes, with the others' logits as much larger.
#[test]
fn a_fourth_stage_counts() {
    let name = "cascade_b";
    let usual = boxes(&detector(name, |_, _| ()), name);
    let four = detector(name, |metadata, tensors| {
        head(metadata).stages = 4;
        let stages = &mut metadata.architecture.recipe.detector.stages;
        stages.insert(0, BoxCoder { means: [0.0; 4], stds: [7.0; 4] });
        for kind in ["roi_head.bbox_head", "roi_head.mask_head"] {
            for stage in (0..3).rev() {
                let of_stage = format!("{kind}.{stage}.");
                let moved: Vec<_> = tensors.iter().filter(|(name, _)| name.starts_with(&of_stage)).collect();
                let moved: Vec<_> = moved
                    .into_iter()
                    .map(|(name, x)| (name.replace(&of_stage, &format!("{kind}.{}.", stage + 1)), x.clone()))
                    .collect();
                tensors.extend(moved);
            }
        }
        let first = |name: &str| name.starts_with("roi_head.bbox_head.0.fc_");
        replace(tensors, first, |x| x.zeros_like().unwrap());
        let classes = |name: &str| name.contains(".fc_cls.");
        replace(tensors, classes, |x| (x * (4.0 / 3.0)).unwrap());
    });
    assert_same(&boxes(&four, name), &usual);
    // More stages than the recipe has coders for can't be.
    let error = detector(name, |metadata, _| head(metadata).stages = 4);
    let error = Network::new(&error.metadata.architecture, &error.weights()).err().unwrap();
    assert!(
        error.to_string().contains("4 stages of box heads, and the recipe has box coders for 3"),
        "{error}"
    );
}

/// Outputs on a region's map, and on a fully connected layer that changes nothing: what it gets is not negative.
#[test]
fn outputs_without_fully_connected_layers_take_the_whole_map() {
    let name = "cascade_b";
    let with = |fcs: usize| {
        detector(name, |metadata, tensors| {
            metadata.architecture.recipe.detector.score_threshold = 0.0;
            let head = head(metadata);
            assert!(head.box_convs > 0 && head.box_fcs == 1);
            let inputs = 49 * head.box_channels;
            (head.box_fcs, head.fc_channels) = (fcs, inputs);
            // Positions and channels that were taken for each other would show.
            let spread = |x: &Tensor| {
                let outputs = x.dims()[0];
                let value = |i: usize| ((i % 7919) as f32 * 0.37).sin() * 0.05;
                Tensor::from_vec((0..outputs * inputs).map(value).collect(), (outputs, inputs), x.device())
                    .unwrap()
            };
            let outputs = |name: &str| name.ends_with(".fc_cls.weight") || name.ends_with(".fc_reg.weight");
            replace(tensors, outputs, spread);
            let hidden = |name: &str| name.contains(".shared_fcs.");
            if fcs == 0 {
                tensors.retain(|name, _| !hidden(name));
            } else {
                let identity = Tensor::eye(inputs, DType::F32, &Device::Cpu).unwrap();
                let zeros = Tensor::zeros(inputs, DType::F32, &Device::Cpu).unwrap();
                replace(tensors, hidden, |x| if x.rank() == 2 { identity.clone() } else { zeros.clone() });
            }
        })
    };
    assert_same(&boxes(&with(0), name), &boxes(&with(1), name));
}

/// A region takes its features from the finest map alone when all regions are small to the recipe, and from the
/// coarsest of four alone when all are large.
#[test]
fn regions_take_their_features_from_the_map_that_the_recipe_says() {
    let name = "cascade_b";
    let rois = vec![[10.0, 20.0, 50.0, 70.0], [0.0, 0.0, 200.0, 180.0], [30.0, 10.0, 230.0, 250.0]];
    let picture = Picture { size: [256.0; 2], scale_factor: [1.0; 2] };
    let logits = |finest_scale: f64, only: Option<usize>| {
        let file = detector(name, |metadata, _| {
            metadata.architecture.recipe.detector.finest_scale = finest_scale;
        });
        let mut metadata = file.metadata.clone();
        let detector = head(&mut metadata).clone();
        let network = MaskRcnn::new(&metadata.architecture, &detector, &file.weights()).unwrap();
        let image = tensors::ramp((1, 3, 256, 256));
        let mut pyramid = network.pyramid(&network.maps(&image).unwrap()).unwrap();
        for (level, map) in pyramid.iter_mut().enumerate() {
            if only.is_some_and(|only| only != level) {
                *map = map.zeros_like().unwrap();
            }
        }
        network.regions(&pyramid, rois.clone(), picture).unwrap().logits
    };
    for (finest_scale, only) in [(1e4, 0), (1e-2, 3)] {
        let want = logits(finest_scale, None);
        assert_eq!(logits(finest_scale, Some(only)), want);
        assert_ne!(logits(56.0, None), want);
    }
}

#[test]
fn selection_is_the_recipes_unless_options_say_otherwise() {
    let name = "maskrcnn_s";
    let usual = detector(name, |_, _| ());
    let all = boxes(&usual, name);
    let other = detector(name, |metadata, _| {
        let recipe = &mut metadata.architecture.recipe.detector;
        (recipe.score_threshold, recipe.max_detections) = (0.07, 9);
    });
    let few: Vec<Detection> = all.iter().filter(|d| d.score > 0.07).take(9).cloned().collect();
    assert!(few.len() > 1 && few.len() < all.len());
    assert_eq!(boxes(&other, name), few);
    let mut options = DetectOptions::default();
    (options.score_threshold, options.max_detections, options.masks) = (Some(0.05), Some(100), false);
    let got: Vec<Detection> = run(&other, name, &options).into_iter().map(|o| o.detection).collect();
    assert_eq!(got, all);
    // Nothing overlaps by more than 1, and then nothing is suppressed.
    let crowded = detector(name, |metadata, _| {
        metadata.architecture.recipe.detector.iou_threshold = 1.0;
        metadata.architecture.recipe.detector.max_detections = 60_000;
    });
    assert!(boxes(&crowded, name).len() > all.len());
}

#[test]
fn masks_begin_at_the_recipes_threshold() {
    let name = "maskrcnn_s";
    let masks = |threshold: f64| {
        let file = detector(name, |metadata, _| {
            metadata.architecture.recipe.detector.mask_threshold = threshold;
        });
        let mut options = DetectOptions::default();
        options.max_detections = Some(5);
        run(&file, name, &options).into_iter().map(|object| object.mask().unwrap().pixels).collect::<Vec<_>>()
    };
    let (low, high) = (masks(0.45), masks(0.55));
    let mut more = 0;
    for (low, high) in low.iter().flatten().zip(high.iter().flatten()) {
        assert!(*low || !high);
        more += usize::from(low != high);
    }
    assert!(more > 0);
    assert!(masks(0.0).iter().flatten().all(|on| *on));
    assert!(!masks(1.0).iter().flatten().any(|on| *on));
}
