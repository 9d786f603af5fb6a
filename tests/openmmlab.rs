//! Detectors and segmenters against what mmdet and mmseg computed with the original backbones, stage by
//! stage, to the last mask and the last pixel: every folder of `tests/golden/detect` and `segment`, or of
//! those in `$NAT_INFER_GOLDEN`, and every checkpoint in it.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use nat_convert::arch::Head;
use nat_convert::checkpoint::{Checkpoint, Options};
use nat_infer::images::{Reader, RgbImage};
use nat_infer::layers::bilinear;
use nat_infer::models::boxes::Corners;
use nat_infer::models::detector::Picture;
use nat_infer::models::mask_rcnn::{MaskRcnn, mean_sigmoid};
use nat_infer::models::uper::Upernet;
use nat_infer::results::Detection;
use nat_infer::tasks::detect::DetectOptions;
use nat_infer::tasks::segment::SegmentOptions;
use nat_infer::tasks::{Detect, LoadOptions, Model, Segment};
use nat_infer::weights::Weights;
use nat_testing::tensors::{deviations, largest, load};
use nat_testing::{bound, close, golden};
use serde_json::Value;

fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let paths = ["model.pth", "model_legacy.pth"].map(|name| folder.join(name));
    let paths: Vec<PathBuf> = paths.into_iter().filter(|path| path.exists()).collect();
    assert!(!paths.is_empty(), "{}", folder.display());
    paths
}

/// A folder's checkpoints, each on the CPU, and on the GPU where there is one.
fn runs(folder: &Path) -> Vec<(PathBuf, Device)> {
    let devices: Vec<Device> = [Device::Cpu].into_iter().chain(common::gpu()).collect();
    let on_each = |path: PathBuf| devices.iter().map(move |device| (path.clone(), device.clone()));
    checkpoints(folder).into_iter().flat_map(on_each).collect()
}

fn image(folder: &Path) -> RgbImage {
    Reader::default().file(&folder.join("image.png")).unwrap()
}

/// One golden case.
struct Case {
    name: String,
    json: Value,
    tensors: HashMap<String, Tensor>,
}

impl Case {
    fn read(folder: &Path) -> Self {
        let json = golden::json(&folder.join("golden.json"));
        let tensors = folder.join("tensors.safetensors");
        let tensors = if tensors.exists() { load(&tensors) } else { HashMap::new() };
        Self { name: folder.display().to_string(), json, tensors }
    }

    fn get(&self, key: &str) -> Tensor {
        let tensor = self.tensors.get(key).unwrap_or_else(|| panic!("{}: no {key}", self.name));
        tensor.to_dtype(DType::F32).unwrap()
    }

    /// Compares a channels-last map with a stored one, of which only every so manieth position was kept.
    fn map(&self, key: &str, ours: &Tensor) {
        let stride = self.json["tensors"][key]["spatial_stride"].as_u64().unwrap() as usize;
        let mut ours = ours.to_device(&Device::Cpu).unwrap().permute((0, 3, 1, 2)).unwrap();
        for axis in [2, 3] {
            let kept: Vec<u32> = (0..ours.dim(axis).unwrap() as u32).step_by(stride).collect();
            ours = ours
                .contiguous()
                .unwrap()
                .index_select(&Tensor::new(kept, &Device::Cpu).unwrap(), axis)
                .unwrap();
        }
        self.features(key, &ours);
    }

    /// Compares values with stored ones, in standard deviations of these.
    fn features(&self, key: &str, ours: &Tensor) {
        let off = deviations(ours, &self.get(key));
        assert!(off < bound::FEATURES, "{}: {key} is off by {off} standard deviations", self.name);
    }
}

fn corners(x: &Tensor) -> Vec<Corners> {
    x.to_vec2::<f32>().unwrap().iter().map(|row| std::array::from_fn(|i| row[i])).collect()
}

fn distance(a: &Corners, b: &Corners) -> f64 {
    close::largest(a, b)
}

/// For each box of `want` the index of ours, each taken once.
fn matched(name: &str, ours: &[Corners], want: &[Corners]) -> Vec<usize> {
    assert_eq!(ours.len(), want.len(), "{name}");
    let mut free: Vec<usize> = (0..ours.len()).collect();
    let nearest = |(i, want): (usize, &Corners)| {
        let by_distance = |a: &usize, b: &usize| {
            let [a, b] = [a, b].map(|&j| (distance(&ours[j], want), j.abs_diff(i)));
            a.partial_cmp(&b).unwrap()
        };
        let best = *free.iter().min_by(|a, b| by_distance(a, b)).unwrap();
        let off = distance(&ours[best], want);
        assert!(off < bound::PIXELS, "{name}: box {i} is off by {off} pixels");
        free.retain(|&j| j != best);
        best
    };
    want.iter().enumerate().map(nearest).collect()
}

fn rows(values: &[Vec<f32>], order: &[usize]) -> Tensor {
    let rows: Vec<Vec<f32>> = order.iter().map(|&i| values[i].clone()).collect();
    Tensor::new(rows, &Device::Cpu).unwrap()
}

#[test]
fn every_stage_is_mmdets() {
    let mut compared = 0;
    for folder in golden::folders("detect") {
        let case = Case::read(&folder);
        if case.tensors.is_empty() {
            continue;
        }
        for (path, device) in runs(&folder) {
            stages(&case, &path, &image(&folder), &device);
            compared += 1;
        }
    }
    assert!(compared >= 2, "{compared}");
}

fn stages(case: &Case, path: &Path, image: &RgbImage, device: &Device) {
    let name = format!("{} on {:?}", path.display(), device.location());
    let task = detector(path, &Device::Cpu);
    let input = task.fit().apply(image);
    let checkpoint = Checkpoint::open(path, &Options::default()).unwrap();
    let architecture = checkpoint.metadata().architecture.clone();
    let (Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector)) = &architecture.head else {
        panic!("{name}: no detector")
    };
    let weights = Weights::from_checkpoint(checkpoint, DType::F32, device.clone()).unwrap();
    let network = MaskRcnn::new(&architecture, detector, &weights).unwrap();
    assert_eq!(weights.parameters(), architecture.parameters(), "{name}");

    let [w, h] = input.size;
    let x = Tensor::from_slice(&input.values, (1, 3, h, w), device).unwrap();
    let picture = Picture { size: input.resized.map(|side| side as f32), scale_factor: input.scale_factor() };
    let maps = network.maps(&x).unwrap();
    maps.iter().enumerate().for_each(|(i, map)| case.map(&format!("backbone.{i}"), map));
    let pyramid = network.pyramid(&maps).unwrap();
    pyramid.iter().enumerate().for_each(|(i, map)| case.map(&format!("fpn.{i}"), map));
    let predictions = network.predict(&pyramid).unwrap();
    for (i, level) in predictions.iter().enumerate() {
        case.map(&format!("rpn.cls.{i}"), &level.cls);
        case.map(&format!("rpn.reg.{i}"), &level.reg);
    }

    let proposals = network.proposals(&predictions, &[picture.size]).unwrap().remove(0).unwrap();
    let rois: Vec<Corners> = proposals.iter().map(|p| p.corners).collect();
    let want = case.get("proposals").to_vec2::<f32>().unwrap();
    let mut order = matched(&format!("{name}: proposals"), &rois, &corners(&case.get("proposals")));
    for (&ours, want) in order.iter().zip(&want) {
        let off = f64::from(proposals[ours].score - want[4]).abs();
        assert!(off < bound::SCORE, "{name}: a proposal's score is off by {off}");
    }

    let regions = network.regions(&pyramid, rois, picture).unwrap();
    for (i, rois) in regions.rois.iter().enumerate() {
        let key = |what: &str| format!("stage{i}.{what}");
        order = matched(&format!("{name}: rois of stage {i}"), rois, &corners(&case.get(&key("rois"))));
        let six: Vec<Corners> = order[..6].iter().map(|&i| rois[i]).collect();
        let features = network.features(&pyramid, &six, 7).unwrap();
        case.features(&key("roi_feats_first6"), &features.permute((0, 3, 1, 2)).unwrap());
        case.features(&key("cls_score_first64"), &rows(&regions.logits[i], &order[..64]));
        case.features(&key("bbox_pred_first24"), &rows(&regions.deltas[i], &order[..24]));
    }

    let found = network.select(&regions, picture, network.recipe().into());
    let want: Vec<Corners> = corners(&case.get("det_bboxes"));
    let ours: Vec<Corners> = found.iter().map(|found| found.corners).collect();
    let order = matched(&format!("{name}: detections"), &ours, &want);
    let in_order: Vec<_> = order.iter().map(|&i| found[i]).collect();
    let masks = network.masks(&pyramid, &in_order, picture).unwrap();
    for (i, logits) in masks.iter().enumerate() {
        let key = format!("mask_logits_first16.{i}");
        let count = case.get(&key).dims()[0];
        case.features(&key, &logits.narrow(0, 0, count).unwrap());
    }
    let off = largest(&mean_sigmoid(&masks).unwrap(), &case.get("mask_prob"));
    assert!(off < bound::MASK_PROBABILITY, "{name}: mask probabilities are off by {off}");
}

fn detector(path: &Path, device: &Device) -> Detect {
    let load = LoadOptions::on(device.clone(), DType::F32);
    let model = Model::open(path, &load).unwrap();
    Detect::new(model, &DetectOptions::default()).unwrap()
}

#[test]
fn every_detection_is_mmdets() {
    for folder in golden::folders("detect") {
        let case = Case::read(&folder);
        for (path, device) in runs(&folder) {
            let objects = detector(&path, &device).run(&image(&folder)).unwrap();
            let ours: Vec<Detection> = objects.into_iter().map(|object| object.detection).collect();
            same_detections(&format!("{} on {:?}", path.display(), device.location()), &ours, &case);
        }
    }
}

fn same_detections(name: &str, ours: &[Detection], case: &Case) {
    let want = case.json["results"].as_array().unwrap();
    assert_eq!(ours.len(), want.len(), "{name}");
    assert!(ours.is_sorted_by(|a, b| a.score >= b.score), "{name}");
    let number = |v: &Value| v.as_f64().unwrap() as f32;
    let edges = |d: &Detection| [d.bbox[0], d.bbox[1], d.bbox[0] + d.bbox[2], d.bbox[1] + d.bbox[3]];
    let mut free: Vec<&Detection> = ours.iter().collect();
    for (i, want) in want.iter().enumerate() {
        let corners: Corners = std::array::from_fn(|side| number(&want["bbox"][side]));
        let class = want["label"].as_u64().unwrap() as usize;
        let of_class = free.iter().enumerate().filter(|(_, d)| d.index == class);
        let nearest = of_class
            .min_by(|a, b| distance(&edges(a.1), &corners).total_cmp(&distance(&edges(b.1), &corners)))
            .unwrap_or_else(|| panic!("{name}: no detection left of class {class}"))
            .0;
        let detection = free.swap_remove(nearest);
        let off = distance(&edges(detection), &corners);
        assert!(off < bound::PIXELS, "{name}: box {i} is off by {off} pixels");
        let off = f64::from(detection.score - number(&want["score"])).abs();
        assert!(off < bound::SCORE, "{name}: score {i} is off by {off}");

        let size = &want["mask"]["size"];
        let [h, w] = [0, 1].map(|i| size[i].as_u64().unwrap() as u32);
        let decode =
            |counts: &str| hotcoco::mask::decode(&hotcoco::mask::rle_from_string(counts, h, w).unwrap());
        let mask = detection.segmentation.as_ref().unwrap();
        assert_eq!(mask.size, [h as usize, w as usize], "{name}");
        let (got, expected) = (decode(&mask.counts), decode(want["mask"]["counts"].as_str().unwrap()));
        let differ = close::differing(&got, &expected);
        let area = (corners[2] - corners[0]) * (corners[3] - corners[1]);
        assert!(
            differ as f64 <= bound::MASK_PIXELS * f64::from(area.max(1.0)),
            "{name}: mask {i} differs in {differ} of {area} pixels"
        );
    }
}

#[test]
fn every_map_is_mmsegs() {
    for folder in golden::folders("segment") {
        let case = Case::read(&folder);
        for (path, device) in runs(&folder) {
            let checkpoint = Checkpoint::open(&path, &Options::default()).unwrap();
            let architecture = checkpoint.metadata().architecture.clone();
            let Head::Upernet(widths) = architecture.head else { panic!("{path:?}") };
            let weights = Weights::from_checkpoint(checkpoint, DType::F32, device.clone()).unwrap();
            let network = Upernet::new(&architecture, &widths, &weights).unwrap();
            assert_eq!(weights.parameters(), architecture.parameters(), "{path:?}");

            let task = segmenter(&path, &SegmentOptions::default(), &Device::Cpu);
            let input = task.fits()[0].apply(&image(&folder));
            let [w, h] = input.size;
            let x = Tensor::from_slice(&input.values, (1, 3, h, w), &device).unwrap();
            let maps = network.maps(&x).unwrap();
            maps.iter().enumerate().for_each(|(i, map)| case.map(&format!("backbone.{i}"), map));
            case.map("psp_out", &network.pool(&maps[3]).unwrap());
            let decoded = network.decode(&maps).unwrap();
            case.map("decoder_feature", &decoded);
            let logits = network.classify(&decoded).unwrap();
            case.map("logits", &logits);
            case.map("logits_input_size", &bilinear(&logits, h, w).unwrap());
        }
    }
}

fn segmenter(path: &Path, options: &SegmentOptions, device: &Device) -> Segment {
    let load = LoadOptions::on(device.clone(), DType::F32);
    Segment::new(Model::open(path, &load).unwrap(), options).unwrap()
}

#[test]
fn every_pixel_is_mmsegs() {
    for folder in golden::folders("segment") {
        for (path, device) in runs(&folder) {
            for (all, file) in [(false, "label.png"), (true, "label_ms.png")] {
                let mut options = SegmentOptions::default();
                (options.multi_scale, options.flip) = (all, all);
                let map = segmenter(&path, &options, &device).run(&image(&folder)).unwrap();
                let want = image::open(folder.join(file)).unwrap().into_luma8();
                assert_eq!(map.size, [want.width() as usize, want.height() as usize]);
                let differ = close::differing(&map.classes, want.as_raw());
                let most = bound::LABEL_PIXELS * map.classes.len() as f64;
                assert!(differ as f64 <= most, "{path:?}, {file}: {differ} pixels differ");
            }
        }
    }
}
