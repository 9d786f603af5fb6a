//! What checkpoints' configurations say about pixels and answers: applied, or refused by name.

use std::path::{Path, PathBuf};

use nat_convert::arch::{Architecture, Filter, Geometry, Head, Preprocessing};
use nat_convert::checkpoint::{Checkpoint, Options};
use nat_convert::metadata::Metadata;
use nat_convert::recipe::{BoxCoder, DetectorRecipe, Recipe, Scores, SegmenterRecipe, SlidingWindow};
use nat_convert::source::ElementType;
use nat_testing::golden;
use nat_testing::torch::{Object, save};
use tempfile::TempDir;

/// The tensors of a checkpoint, as they are to be saved.
fn state(checkpoint: &Checkpoint) -> Vec<(String, Object)> {
    let tensor = |tensor: &nat_convert::checkpoint::Tensor| {
        let mut bytes = Vec::new();
        assert_eq!(checkpoint.read(&tensor.name, &mut bytes).unwrap(), ElementType::F32);
        (tensor.name.clone(), Object::Tensor("FloatStorage", tensor.shape.clone(), bytes))
    };
    checkpoint.tensors().iter().map(tensor).collect()
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(path: &Path) -> String {
    match Checkpoint::open(path, &Options::default()) {
        Ok(checkpoint) => panic!("it opens: {}", checkpoint.report()),
        Err(error) => error.to_string(),
    }
}

/// A golden network whose configuration is another text.
struct Case {
    folder: TempDir,
    tensors: Vec<(String, Object)>,
    classes: usize,
}

impl Case {
    fn of(name: &str) -> Self {
        let checkpoint = open(&golden::path(name).join("model.pth"));
        let classes = checkpoint.metadata().architecture.classes().unwrap();
        Self { folder: tempfile::tempdir().unwrap(), tensors: state(&checkpoint), classes }
    }

    fn saved(&self, meta: Vec<(&str, Object)>, change: impl Fn(&mut Vec<(String, Object)>)) -> PathBuf {
        let mut tensors = self.tensors.clone();
        change(&mut tensors);
        let meta = Object::dict(meta.into_iter().map(|(key, value)| (key.to_owned(), value)));
        let path = self.folder.path().join("model.pth");
        let root = [("meta".to_owned(), meta), ("state_dict".to_owned(), Object::dict(tensors))];
        save(&path, &Object::dict(root));
        path
    }

    fn with(&self, config: &str) -> PathBuf {
        self.saved(vec![("config", Object::str(config))], |_| {})
    }

    /// As mmengine saves it.
    fn with_cfg(&self, config: &str) -> PathBuf {
        let names = (0..self.classes).map(|i| Object::Str(format!("c{i}"))).collect();
        let colours = (0..self.classes).map(|i| Object::List([i as i64, 7, 255].map(Object::Int).to_vec()));
        let dataset = [("classes", Object::Tuple(names)), ("palette", Object::List(colours.collect()))];
        let dataset = Object::dict(dataset.map(|(key, value)| (key.to_owned(), value)));
        self.saved(
            vec![
                ("cfg", Object::str(config)),
                ("mmengine_version", Object::str("0.10.3")),
                ("dataset_meta", dataset),
            ],
            |_| {},
        )
    }
}

fn recipe(path: &Path) -> Recipe {
    open(path).metadata().architecture.recipe.clone()
}

#[test]
fn a_detectors_numbers_are_its_configurations() {
    let case = Case::of("detect/cascade_b");
    let usual = DetectorRecipe::default;
    let with = |change: &dyn Fn(&mut DetectorRecipe)| {
        let mut recipe = usual();
        change(&mut recipe);
        Recipe { detector: recipe, ..Recipe::default() }
    };
    let head = |stds: &str| {
        format!(
            "dict(type='Shared2FCBBoxHead', bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds={stds}))"
        )
    };
    let three = |i: usize, stds: [f64; 4]| {
        let mut stages = usual().stages;
        stages[i] = BoxCoder { stds, ..BoxCoder::default() };
        stages
    };
    for (config, wanted) in [
        ("x = 1".to_owned(), with(&|_| {})),
        ("model = dict(rpn_head=dict(anchor_generator=dict(scales=[4])))".to_owned(), with(&|r| r.anchors.scales = vec![4.0])),
        (
            "model = dict(rpn_head=dict(anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, \
             scales_per_octave=1, ratios=[1, 2, 4], center_offset=0.5, strides=[4, 8, 16, 32, 64])))"
                .to_owned(),
            with(&|r| {
                r.anchors.scales = vec![4.0];
                r.anchors.ratios = vec![1.0, 2.0, 4.0];
                r.anchors.center_offset = 0.5;
            }),
        ),
        (
            "model = dict(rpn_head=dict(bbox_coder=dict(target_means=[0.1, 0, 0, 0], target_stds=[.5, .5, 1, 1])))".to_owned(),
            with(&|r| {
                r.proposals.coder = BoxCoder { means: [0.1, 0.0, 0.0, 0.0], stds: [0.5, 0.5, 1.0, 1.0] };
            }),
        ),
        (
            format!(
                "model = dict(roi_head=dict(type='CascadeRoIHead', bbox_head=[{}, {}, {}]))",
                head("[0.1, 0.1, 0.2, 0.2]"),
                head("[0.07, 0.07, 0.14, 0.14]"),
                head("[0.033, 0.033, 0.067, 0.067]")
            ),
            with(&|r| r.stages = three(1, [0.07, 0.07, 0.14, 0.14])),
        ),
        (
            "model = dict(test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300, nms=dict(type='nms', \
             iou_threshold=0.6), min_bbox_size=2), rcnn=dict(score_thr=0.2, nms=dict(type='nms', \
             iou_threshold=0.4), max_per_img=50, mask_thr_binary=0.6)))"
                .to_owned(),
            with(&|r| {
                r.proposals.per_map = 500;
                r.proposals.most = 300;
                r.proposals.iou_threshold = 0.6;
                r.proposals.smallest = 2.0;
                r.score_threshold = 0.2;
                r.iou_threshold = 0.4;
                r.max_detections = 50;
                r.mask_threshold = 0.6;
            }),
        ),
        // What the region head's own copy says counts where nothing else is said.
        (
            "model = dict(roi_head=dict(test_cfg=dict(score_thr=0.3)))".to_owned(),
            with(&|r| r.score_threshold = 0.3),
        ),
        (
            "model = dict(roi_head=dict(bbox_roi_extractor=dict(finest_scale=28), \
             mask_roi_extractor=dict(finest_scale=28)))"
                .to_owned(),
            with(&|r| r.finest_scale = 28.0),
        ),
        (
            "model = dict(backbone=dict(qk_scale=0.25), roi_head=dict(bbox_head=dict(norm_cfg=dict(type='BN', \
             eps=0.001))))"
                .to_owned(),
            Recipe {
                query_scale: Some(0.25),
                batch_norm_epsilon: 1e-3,
                // One head that stands for all.
                detector: DetectorRecipe { stages: vec![usual().stages[0]; 3], ..usual() },
                ..Recipe::default()
            },
        ),
    ] {
        let config = config.replace("bbox_head=dict(norm", "num_stages=3, bbox_head=dict(norm");
        assert_eq!(recipe(&case.with(&config)), wanted, "{config}");
        assert_eq!(recipe(&case.with_cfg(&config)), wanted, "{config}");
    }
}

#[test]
fn what_a_detector_can_not_do_is_refused_by_name() {
    let case = Case::of("detect/cascade_b");
    for (config, says) in [
        ("model = dict(type='HybridTaskCascade')", "model.type is 'HybridTaskCascade'"),
        ("model = dict(neck=dict(type='PAFPN'))", "model.neck.type is 'PAFPN'"),
        ("model = dict(neck=dict(num_outs=6))", "model.neck.num_outs is 6"),
        ("model = dict(neck=dict(add_extra_convs='on_output'))", "model.neck.add_extra_convs is 'on_output'"),
        (
            "model = dict(rpn_head=dict(loss_cls=dict(use_sigmoid=False)))",
            "model.rpn_head.loss_cls.use_sigmoid is False",
        ),
        (
            "model = dict(rpn_head=dict(anchor_generator=dict(scales=[0])))",
            "model.rpn_head.anchor_generator.scales is [0]",
        ),
        (
            "model = dict(rpn_head=dict(anchor_generator=dict(scales=[4, 8])))",
            "the network has 3 anchors at a position, and the 6",
        ),
        (
            "model = dict(rpn_head=dict(anchor_generator=dict(strides=[8, 16, 32, 64, 128])))",
            "strides is [8, 16, 32, 64, 128]",
        ),
        (
            "model = dict(roi_head=dict(bbox_head=[dict(type='DoubleConvFCBBoxHead')]))",
            "bbox_head.0.type is 'DoubleConvFCBBoxHead'",
        ),
        (
            "model = dict(roi_head=dict(bbox_head=[dict(), dict()]))",
            "a cascade of 3 stages, and the deviations of the boxes are known of 2",
        ),
        (
            "model = dict(roi_head=dict(bbox_head=dict(bbox_coder=dict(target_stds=[0, 1, 1, 1]))))",
            "target_stds is [0, 1, 1, 1]",
        ),
        (
            "model = dict(roi_head=dict(bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2))))",
            "sampling_ratio is 2",
        ),
        (
            "model = dict(test_cfg=dict(rcnn=dict(nms=dict(type='soft_nms'))))",
            "model.test_cfg.rcnn.nms.type is 'soft_nms'",
        ),
        ("model = dict(test_cfg=dict(rcnn=dict(score_thr=1e999)))", "score_thr"),
        ("model = dict(test_cfg=dict(rcnn=dict(mask_thr_binary=-1)))", "mask_thr_binary is -1"),
        ("model = dict(backbone=dict(out_indices=(1, 2, 3)))", "model.backbone.out_indices is [1, 2, 3]"),
        ("test_pipeline = [dict(type='Albu')]", "test_pipeline.0.type is 'Albu'"),
    ] {
        let error = refusal(&case.with(config));
        assert!(error.contains(says) && error.contains("model.pth: "), "{config}: {error}");
    }
    // What nobody here knows is said, not refused; and what can't be read at all.
    for (config, says) in [
        (
            "model = dict(roi_head=dict(magic=3))",
            "the configuration's model.roi_head.magic is not known here",
        ),
        ("model = dict(", "the training configuration in the file can't be read (line 1: "),
        (
            "test_pipeline = [dict(type='MultiScaleFlipAug', img_scale=(640, 400), flip=True, \
             transforms=[dict(type='Resize')])]",
            "tests at several sizes or mirrored too",
        ),
    ] {
        let checkpoint = open(&case.with(config));
        let said = &checkpoint.report().warnings;
        assert!(said.iter().any(|warning| warning.text.contains(says)), "{config}: {said:?}");
    }
}

#[test]
fn a_segmenters_numbers_are_its_configurations() {
    let case = Case::of("segment/upernet_b");
    let with = |change: &dyn Fn(&mut SegmenterRecipe)| {
        let mut segmenter = SegmenterRecipe::default();
        change(&mut segmenter);
        Recipe { segmenter, ..Recipe::default() }
    };
    let window = SlidingWindow { crop: [64, 48], stride: [40, 48] };
    for (config, wanted) in [
        (
            "model = dict(decode_head=dict(pool_scales=(1, 2, 4, 8)))",
            with(&|s| s.pool_scales = vec![1, 2, 4, 8]),
        ),
        ("model = dict(decode_head=dict(align_corners=True))", with(&|s| s.align_corners = true)),
        ("model = dict(decode_head=dict(threshold=0.7))", with(&|s| s.threshold = 0.7)),
        (
            "model = dict(test_cfg=dict(mode='slide', crop_size=(64, 48), stride=(40, 48)))",
            with(&|s| s.window = Some(window)),
        ),
        (
            "norm_cfg = dict(type='SyncBN', eps=1e-3)\nmodel = dict(decode_head=dict(norm_cfg=norm_cfg))",
            Recipe { batch_norm_epsilon: 1e-3, ..Recipe::default() },
        ),
    ] {
        assert_eq!(recipe(&case.with(config)), wanted, "{config}");
        assert_eq!(recipe(&case.with_cfg(config)), wanted, "{config}");
    }
    for (config, says) in [
        ("model = dict(decode_head=dict(type='PSPHead'))", "model.decode_head.type is 'PSPHead'"),
        ("model = dict(decode_head=[dict(), dict()])", "model.decode_head is ["),
        ("model = dict(decode_head=dict(pool_scales=(1, 2)))", "pools 4 maps, and the 2 sides"),
        ("model = dict(decode_head=dict(in_index=[1, 2, 3]))", "in_index is [1, 2, 3]"),
        ("model = dict(decode_head=dict(act_cfg=dict(type='GELU')))", "act_cfg.type is 'GELU'"),
        ("model = dict(decode_head=dict(norm_cfg=dict(type='GN')))", "norm_cfg.type is 'GN'"),
        (
            "model = dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(65, 64)))",
            "stride is [65, 64]",
        ),
        ("model = dict(test_cfg=dict(mode='slide', crop_size=(64, 64)))", "stride is not given"),
    ] {
        let error = refusal(&case.with(config));
        assert!(error.contains(says), "{config}: {error}");
    }
}

#[test]
fn pixels_are_the_test_pipelines() {
    let case = Case::of("segment/upernet_b");
    let scaled = |scale, keep_ratio| Geometry::Scale { scale, divisor: 1, keep_ratio };
    let usual = |geometry| Preprocessing::imagenet(geometry);
    let imagenet = "mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]";
    let aug = |rest: &str| {
        format!(
            "dict(type='MultiScaleFlipAug', img_scale=(300, 200), flip=False, transforms=[dict(type='Resize', keep_ratio=True), {rest}])"
        )
    };
    let half = |bgr| Preprocessing { mean: [0.5; 3], std: [1.0; 3], bgr, ..usual(scaled([300, 200], true)) };
    for (config, wanted) in [
        ("x = 1".to_owned(), usual(scaled([2048, 512], true))),
        // What `data.test` says is run, not what `test_pipeline` says.
        (
            format!(
                "test_pipeline = []\ndata = dict(test=dict(pipeline=[{}]))",
                aug(&format!("dict(type='Normalize', {imagenet})"))
            ),
            usual(scaled([300, 200], true)),
        ),
        (
            format!(
                "test_pipeline = [{}]",
                aug("dict(type='Normalize', mean=[127.5]*3, std=[255.0]*3, to_rgb=True)")
            ),
            half(false),
        ),
        (
            format!(
                "test_pipeline = [{}]",
                aug("dict(type='Normalize', mean=[127.5]*3, std=[255.0]*3, to_rgb=False)")
            ),
            half(true),
        ),
        // Nothing normalises: values of 0 to 255, blue first.
        (
            format!("test_pipeline = [{}]", aug("dict(type='Pad', size_divisor=8)")),
            Preprocessing {
                mean: [0.0; 3],
                std: [0.003921568627; 3],
                bgr: true,
                ..usual(Geometry::Scale { scale: [300, 200], divisor: 8, keep_ratio: true })
            },
        ),
        (
            format!(
                "test_pipeline = [dict(type='Resize', img_scale=(200, 300), keep_ratio=False), dict(type='Normalize', {imagenet})]"
            ),
            usual(scaled([200, 300], false)),
        ),
    ] {
        assert_eq!(open(&case.with(&config)).metadata().preprocessing, wanted, "{config}");
    }
    for (config, wanted) in [
        (
            format!(
                "data_preprocessor = dict(type='SegDataPreProcessor', bgr_to_rgb=True, {imagenet}, size=(512, 512))\n\
                 test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(201, 800), keep_ratio=True), dict(type='PackSegInputs')]"
            ),
            usual(scaled([800, 201], true)),
        ),
        (
            format!(
                "model = dict(data_preprocessor=dict({imagenet}))\n\
                 test_dataloader = dict(dataset=dict(pipeline=[dict(type='mmseg.Resize', scale=(300, 200))]))"
            ),
            Preprocessing { bgr: true, ..usual(scaled([300, 200], false)) },
        ),
    ] {
        let checkpoint = open(&case.with_cfg(&config));
        assert_eq!(checkpoint.metadata().preprocessing, wanted, "{config}");
        let labels = checkpoint.metadata().labels.clone().unwrap();
        assert_eq!((labels.len(), labels[3].as_str()), (case.classes, "c3"));
        let palette = checkpoint.metadata().palette.clone().unwrap();
        assert_eq!((palette.len(), palette[3]), (case.classes, [3, 7, 255]));
    }
    for (config, says) in [
        (aug("dict(type='Normalize', mean=[0], std=[1])"), "mean is [0]"),
        (aug("dict(type='Normalize', mean=[0, 0, 0], std=[0, 1, 1])"), "std is [0, 1, 1]"),
        (aug("dict(type='Pad', size=(512, 512))"), "size is [512, 512]"),
        (aug("dict(type='Pad', size_divisor=32, pad_val=dict(img=114))"), "pad_val.img is 114"),
        ("dict(type='Resize', scale=(inf, 200))".to_owned(), "scale is [inf, 200]"),
        (
            "dict(type='Resize', scale=(300, 200), interpolation='bicubic')".to_owned(),
            "interpolation is 'bicubic'",
        ),
        ("dict(type='Resize', scale=(300, 200), backend='pillow')".to_owned(), "backend is 'pillow'"),
        ("dict(type='Resize', scale_factor=0.5)".to_owned(), "scale_factor is 0.5"),
        ("dict(type='LoadImageFromFile')".to_owned(), "Resize is not given"),
        (
            "dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='Resize', scale=(9, 9))"
                .to_owned(),
            "color_type is 'grayscale'",
        ),
    ] {
        let error = refusal(&case.with(&format!("test_pipeline = [{config}]")));
        assert!(error.contains(says), "{config}: {error}");
    }
}

/// Without a configuration that says so, four stages have no deviations, nine anchors no shapes.
#[test]
fn heads_that_only_a_configuration_could_explain_are_refused() {
    let case = Case::of("detect/cascade_b");
    let fourth = |tensors: &mut Vec<(String, Object)>| {
        let third: Vec<_> = tensors.iter().filter(|(name, _)| name.contains("_head.2.")).cloned().collect();
        tensors
            .extend(third.into_iter().map(|(name, tensor)| (name.replace("_head.2.", "_head.3."), tensor)));
    };
    let error = refusal(&case.saved(vec![], fourth));
    assert!(
        error.contains("a cascade of 4 stages, and the deviations of the boxes are known of 3"),
        "{error}"
    );
    let stage = "dict(bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2]))";
    let config = format!("model = dict(roi_head=dict(num_stages=4, bbox_head=[{}]))", [stage; 4].join(", "));
    let path = case.saved(vec![("config", Object::str(&config))], fourth);
    let checkpoint = open(&path);
    let Head::CascadeMaskRcnn(detector) = &checkpoint.metadata().architecture.head else {
        panic!("no cascade")
    };
    assert_eq!((detector.stages, checkpoint.metadata().architecture.recipe.detector.stages.len()), (4, 4));

    let anchors = |tensors: &mut Vec<(String, Object)>| {
        for (name, tensor) in tensors {
            let times = 3;
            if let (true, Object::Tensor(_, shape, bytes)) =
                (name.starts_with("rpn_head.rpn_") && !name.contains("conv"), tensor)
            {
                shape[0] *= times;
                *bytes = bytes.repeat(times);
            }
        }
    };
    let error = refusal(&case.saved(vec![], anchors));
    assert!(error.contains("the network has 9 anchors at a position"), "{error}");
    let config = "model = dict(rpn_head=dict(anchor_generator=dict(scales=[4, 8, 16])))";
    let checkpoint = open(&case.saved(vec![("config", Object::str(config))], anchors));
    assert_eq!(checkpoint.metadata().architecture.recipe.detector.anchors.scales, [4.0, 8.0, 16.0]);
}

#[test]
fn a_transformers_folder_says_epsilon_scores_and_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let source = golden::path("transformers/nat-hf");
    for file in ["config.json", "preprocessor_config.json", "pytorch_model.bin"] {
        std::fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let original = std::fs::read_to_string(source.join("config.json")).unwrap();
    let config = |from: &str, to: &str| {
        assert!(original.contains(from));
        std::fs::write(folder.path().join("config.json"), original.replace(from, to)).unwrap();
        open(folder.path()).metadata().architecture.recipe.clone()
    };
    assert_eq!(config("\"layer_norm_eps\": 1e-05", "\"layer_norm_eps\": 1e-03").norm_epsilon, 1e-3);
    for (problem, scores) in
        [("multi_label_classification", Scores::Sigmoid), ("single_label_classification", Scores::Softmax)]
    {
        assert_eq!(
            config("\"qkv_bias\"", &format!("\"problem_type\": \"{problem}\", \"qkv_bias\"")).scores,
            scores
        );
    }
    std::fs::write(folder.path().join("config.json"), &original).unwrap();
    let processor = |json: &str| {
        std::fs::write(folder.path().join("preprocessor_config.json"), json).unwrap();
        Checkpoint::open(folder.path(), &Options::default())
    };
    let opened =
        processor(r#"{"size": 192, "do_normalize": false, "resample": 2, "crop_pct": 1.0}"#).unwrap();
    let wanted = Preprocessing {
        geometry: Geometry::Crop { resolution: 192, crop_pct: 1.0 },
        mean: [0.0; 3],
        std: [1.0; 3],
        filter: Filter::Bilinear,
        bgr: false,
    };
    assert_eq!(opened.metadata().preprocessing, wanted);
    let error = processor(r#"{"size": 224, "do_resize": false}"#).err().unwrap().to_string();
    assert!(error.contains("preprocessor_config.json: do_resize is false"), "{error}");
    // A folder that can't be normalised at all.
    let error = processor(r#"{"size": 224, "image_std": 0}"#).err().unwrap().to_string();
    assert!(error.contains("std has 0, not from"), "{error}");
}

#[test]
fn a_training_runs_arguments_are_the_classifiers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model_best.pth.tar");
    let tensors = || Object::dict(state(&open(&golden::path("classify/nat-k7.pth"))));
    let args = |args: &[(&str, Object)]| {
        let args = Object::dict(args.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let args = Object::Instance("argparse Namespace", Box::new(args));
        save(&path, &Object::dict([("state_dict".to_owned(), tensors()), ("args".to_owned(), args)]));
        Checkpoint::open(&path, &Options::default())
    };
    let floats = |numbers: &[f64]| Object::List(numbers.iter().map(|&x| Object::Float(x)).collect());
    let opened = args(&[
        ("img_size", Object::Int(160)),
        ("crop_pct", Object::Float(0.9)),
        ("mean", floats(&[0.5])),
        ("std", floats(&[0.25, 0.5, 0.75])),
        ("interpolation", Object::str("lanczos")),
        ("lr", Object::Float(1e-3)),
    ]);
    let wanted = Preprocessing {
        geometry: Geometry::Crop { resolution: 160, crop_pct: 0.9 },
        mean: [0.5; 3],
        std: [0.25, 0.5, 0.75],
        filter: Filter::Lanczos,
        bgr: false,
    };
    assert_eq!(opened.unwrap().metadata().preprocessing, wanted);
    let nothing = args(&[("img_size", Object::None), ("interpolation", Object::str(""))]).unwrap();
    let wanted = Preprocessing::imagenet(Geometry::Crop { resolution: 224, crop_pct: 0.875 });
    assert_eq!(nothing.metadata().preprocessing, wanted);
    let error = args(&[("crop_mode", Object::str("squash"))]).err().unwrap().to_string();
    assert!(error.contains("crop_mode can't be used"), "{error}");
}

#[test]
fn one_logit_is_a_probability() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.pth");
    let mut tensors = state(&open(&golden::path("classify/nat-k7.pth")));
    for (name, tensor) in &mut tensors {
        if let (true, Object::Tensor(_, shape, bytes)) = (name.starts_with("head."), tensor) {
            bytes.truncate(bytes.len() / shape[0]);
            shape[0] = 1;
        }
    }
    save(&path, &Object::dict(tensors));
    assert_eq!(recipe(&path).scores, Scores::Sigmoid);
}

/// A converted file keeps all of it, and its metadata is input like any other.
#[test]
fn metadata_is_held_against_what_can_be_computed() {
    let case = Case::of("detect/cascade_b");
    let config = "model = dict(test_cfg=dict(rcnn=dict(score_thr=0.2)))";
    let opened = open(&case.with_cfg(config));
    let out = case.folder.path().join("out.safetensors");
    let stop = std::sync::atomic::AtomicBool::new(false);
    nat_convert::write::write(&opened, &out, Default::default(), &stop).unwrap();
    let written = open(&out);
    assert_eq!(written.metadata().architecture, opened.metadata().architecture);
    assert_eq!(written.metadata().palette, opened.metadata().palette);

    let metadata = serde_json::to_value(opened.metadata()).unwrap();
    for (path, value, says) in [
        (
            "/architecture/backbone/dilations/0/0",
            "2305843009213693952",
            "dilations has 2305843009213693952, not from 1 to 4096",
        ),
        ("/architecture/backbone/dilations/0/0", "0", "dilations has 0, not from 1 to 4096"),
        ("/architecture/backbone/embed_dim", "18446744073709551615", "embed_dim has 18446744073709551615"),
        ("/architecture/backbone/num_heads/0", "0", "num_heads has 0"),
        ("/architecture/backbone/num_heads/0", "3", "can't be divided into 3 heads"),
        ("/architecture/backbone/depths", "[]", "depths has 0"),
        ("/architecture/backbone/kernel_size", "4", "kernel_size is 4, and a neighbourhood has a middle"),
        ("/architecture/backbone/mlp_ratio", "1e308", "mlp_ratio has 1000000"),
        ("/architecture/head/stages", "9", "9 stages of a detector have 3 box coders"),
        ("/architecture/recipe/detector/score_threshold", "-1", "score_threshold has -1"),
        ("/architecture/recipe/detector/anchors/base_sizes", "[4]", "anchors.base_sizes are 1, not 5"),
        ("/architecture/recipe/detector/proposals/most", "0", "proposals.most has 0"),
        ("/architecture/recipe/detector/stages/0/stds/0", "0", "stages has 0"),
        ("/architecture/recipe/detector", "{\"magic\": 1}", "unknown field `magic`"),
        ("/preprocessing/std/0", "0", "std has 0"),
        ("/preprocessing/mean/0", "null", "metadata that this version can't read"),
        ("/preprocessing/mean/0", "1e300", "mean has 1000000"),
        ("/preprocessing/divisor", "9223372036854775808", "divisor has 9223372036854775808"),
        ("/preprocessing/scale/0", "0", "scale has 0"),
        ("/labels/0", "7", "metadata that this version can't read"),
    ] {
        let mut changed = metadata.clone();
        *changed.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = serde_json::from_str(value).unwrap();
        let map = [("nat".to_owned(), changed.to_string())].into();
        let error = Metadata::from_map(&map).unwrap_err().to_string();
        assert!(error.contains(says), "{path} {value}: {error}");
    }
}

/// Files of before there were recipes have the published one, and say nothing of it.
#[test]
fn the_published_recipe_needs_no_words() {
    let original = open(&golden::path("detect/cascade_b/model.pth"));
    let architecture: &Architecture = &original.metadata().architecture;
    assert_eq!(architecture.recipe, Recipe::default());
    let json = serde_json::to_value(architecture).unwrap();
    assert!(json.get("recipe").is_none(), "{json}");
    assert_eq!(&serde_json::from_value::<Architecture>(json).unwrap(), architecture);
}
