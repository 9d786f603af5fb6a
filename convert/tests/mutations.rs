//! Files as nobody meant to write them: checkpoints, metadata and configurations that a seeded generator damages.
//! Whatever comes out, it is a checkpoint or an error of one line: no panic, no abort, no memory to speak of.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use nat_convert::checkpoint::{Checkpoint, Options};
use nat_convert::metadata::Metadata;
use nat_convert::write::{WriteOptions, write};
use nat_testing::torch::{Object, save};
use nat_testing::{damage, golden};
use serde_json::Value;

/// Opens a file; of what opens every tensor is read.
fn try_out(path: &Path, opened: &mut [usize; 2]) {
    match Checkpoint::open(path, &Options::default()) {
        Ok(checkpoint) => {
            opened[0] += 1;
            assert!(!checkpoint.report().to_string().contains('\u{1b}'));
            let mut bytes = Vec::new();
            for tensor in checkpoint.tensors() {
                if let Ok(dtype) = checkpoint.read(&tensor.name, &mut bytes) {
                    assert_eq!(bytes.len(), tensor.shape.iter().product::<usize>() * dtype.size());
                }
            }
        }
        Err(error) => {
            opened[1] += 1;
            let text = error.to_string();
            assert!(!text.contains('\n') && !text.is_empty() && text.len() < 10_000, "{text}");
        }
    }
}

/// Most structure is at the beginning and at the end.
const EDGE: usize = 1 << 13;

#[test]
fn nothing_that_is_damaged_panics_or_takes_memory() {
    const EACH: usize = 150;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut random = fastrand::Rng::with_seed(20);

    // Containers of every kind.
    let checkpoint = Checkpoint::open(&golden::path("classify/nat-iso.pth"), &Options::default()).unwrap();
    write(&checkpoint, &path("ours.safetensors"), WriteOptions::default(), &AtomicBool::new(false)).unwrap();
    let files = [
        golden::path("classify/nat-iso.pth"),
        golden::path("pickle/zip-protocol2.pth"),
        golden::path("pickle/zip-protocol5.pth"),
        golden::path("pickle/legacy-protocol2.pth"),
        golden::path("pickle/legacy-protocol4.pth"),
        path("ours.safetensors"),
    ];
    let mut opened = [0; 2];
    for file in &files {
        let whole = fs::read(file).unwrap();
        for _ in 0..EACH {
            let mut bytes = whole.clone();
            damage::bytes(&mut random, &mut bytes, EDGE);
            fs::write(path("damaged"), bytes).unwrap();
            try_out(&path("damaged"), &mut opened);
        }
    }
    assert!(opened.iter().all(|&count| count > 0), "{opened:?}");

    // Metadata of our own files.
    let metadata = serde_json::to_value(checkpoint.metadata()).unwrap();
    let mut kinds = [0; 2];
    for _ in 0..10 * EACH {
        let mut changed = metadata.clone();
        (0..=random.usize(..2)).for_each(|_| damage::json(&mut random, &mut changed));
        let map = [("nat".to_owned(), changed.to_string())].into();
        kinds[usize::from(Metadata::from_map(&map).is_err())] += 1;
    }
    assert!(kinds.iter().all(|&count| count > EACH / 10), "{kinds:?}");

    // The files beside a Transformers checkpoint.
    let source = golden::path("transformers/nat-hf");
    fs::copy(source.join("pytorch_model.bin"), path("pytorch_model.bin")).unwrap();
    let read =
        |name: &str| -> Value { serde_json::from_slice(&fs::read(source.join(name)).unwrap()).unwrap() };
    let names = ["config.json", "preprocessor_config.json"];
    let whole = names.map(read);
    let mut opened = [0; 2];
    for _ in 0..EACH {
        for (name, value) in names.iter().zip(&whole) {
            let mut changed = value.clone();
            damage::json(&mut random, &mut changed);
            fs::write(path(name), changed.to_string()).unwrap();
        }
        try_out(folder.path(), &mut opened);
    }
    assert!(opened.iter().all(|&count| count > 0), "{opened:?}");

    // Training configurations, as text.
    let detector =
        Checkpoint::open(&golden::path("detect/maskrcnn_s/model.pth"), &Options::default()).unwrap();
    let tensors = detector.tensors().iter().map(|tensor| {
        let mut bytes = Vec::new();
        detector.read(&tensor.name, &mut bytes).unwrap();
        (tensor.name.clone(), Object::Tensor("FloatStorage", tensor.shape.clone(), bytes))
    });
    let tensors = Object::dict(tensors);
    let mut opened = [0; 2];
    for _ in 0..EACH / 3 {
        let mut config = CONFIG.as_bytes().to_vec();
        damage::bytes(&mut random, &mut config, EDGE);
        let config = Object::Str(String::from_utf8_lossy(&config).into_owned());
        let meta = Object::dict([("config".to_owned(), config)]);
        save(
            &path("m.pth"),
            &Object::dict([("meta".to_owned(), meta), ("state_dict".to_owned(), tensors.clone())]),
        );
        try_out(&path("m.pth"), &mut opened);
    }
    assert!(opened.iter().all(|&count| count > 0), "{opened:?}");
    if let Some(peak) = damage::peak_memory() {
        assert!(peak < 600, "{peak} MiB");
    }
}

const CONFIG: &str = "\
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
model = dict(
    type='MaskRCNN',
    backbone=dict(type='DiNAT_s', dilations=[[1, 2], [1], [1, 2], [1]], out_indices=(0, 1, 2, 3), qk_scale=None),
    neck=dict(type='FPN', in_channels=[16] * 4, out_channels=32, num_outs=5),
    rpn_head=dict(
        type='RPNHead',
        anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[.0, .0, .0, .0], target_stds=[1.0] * 4)),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_head=dict(bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2]), loss_cls=dict(use_sigmoid=False))),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100, mask_thr_binary=0.5)))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(1333, 800), flip=False, transforms=[
        dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'), dict(type='Normalize', **img_norm_cfg),
        dict(type='Pad', size_divisor=32), dict(type='ImageToTensor', keys=['img'])])]
";
