//! What people bring that this program did not make: checkpoints of everyday tools, names of classes, annotations.

use std::fs;

use nat_convert::checkpoint::{Checkpoint, Options};
use nat_infer::results::{Classification, CocoResult, Detections, Segmentation};
use nat_testing::checkpoint::Saved;
use nat_testing::golden;
use nat_testing::place::Place;
use nat_testing::torch::{Object, save};
use serde_json::Value;

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_nat-infer");

/// The tensors of a golden checkpoint, as they are to be saved.
fn tensors(file: &str) -> Vec<(String, Object)> {
    let checkpoint = Checkpoint::open(&golden::path(file), &Options::default()).unwrap();
    let tensor = |tensor: &nat_convert::checkpoint::Tensor| {
        let mut bytes = Vec::new();
        checkpoint.read(&tensor.name, &mut bytes).unwrap();
        (tensor.name.clone(), Object::Tensor("FloatStorage", tensor.shape.clone(), bytes))
    };
    checkpoint.tensors().iter().map(tensor).collect()
}

/// One logit, and classes of which several may hold, are probabilities by themselves.
#[test]
fn scores_are_what_the_checkpoint_says() {
    let place = Place::of(PROGRAM);
    let image = golden::path("images/chelsea.png").to_str().unwrap().to_owned();
    let mut one = tensors("classify/nat-k7.pth");
    for (name, tensor) in &mut one {
        if let (true, Object::Tensor(_, shape, bytes)) = (name.starts_with("head."), tensor) {
            bytes.truncate(bytes.len() / shape[0]);
            shape[0] = 1;
        }
    }
    save(&place.path("one.pth"), &Object::dict(one));
    let folder = golden::path("transformers/nat-hf");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let several = config.replacen('{', r#"{"problem_type": "multi_label_classification","#, 1);
    place.file("several/config.json", several);
    for name in ["pytorch_model.bin", "preprocessor_config.json"] {
        place.file(&format!("several/{name}"), fs::read(folder.join(name)).unwrap());
    }
    for (weights, classes) in [("one.pth", 1), ("several", 4)] {
        let line = place.run(&["classify", &image, "-w", weights, "-q"]).success();
        let record: Classification = serde_json::from_str(&line).unwrap();
        place.run(&["features", &image, "-w", weights, "-q", "--save", "."]).success();
        let logits = Saved::read(place.path("chelsea.safetensors")).floats("logits");
        assert_eq!((record.top.len(), logits.len()), (classes, classes), "{weights}");
        for top in &record.top {
            let want = 1.0 / (1.0 + (-f64::from(logits[top.index])).exp());
            assert!(
                (f64::from(top.score) - want).abs() < 1e-6 && want < 1.0,
                "{weights}: {top:?}, not {want}"
            );
        }
        assert!(record.top.is_sorted_by(|a, b| a.score >= b.score));
    }
}

/// As mmsegmentation 1 saves it, and with another normalisation, which is part of the network.
#[test]
fn a_configuration_is_followed() {
    let place = Place::of(PROGRAM);
    let set = golden::path("segment/upernet_b");
    let image = set.join("image.png").to_str().unwrap().to_owned();
    let dict = |pairs: Vec<(&str, Object)>| Object::dict(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)));
    let names = (0..21).map(|i| Object::Str(format!("class {i}"))).collect();
    let config = |mean: &str, std: &str| {
        format!(
            "data_preprocessor = dict(bgr_to_rgb=True, mean={mean}, std={std}, size=(512, 512), \
             type='SegDataPreProcessor')\n\
             model = dict(backbone=dict(dilations=[[4], [1, 3], [1, 2], [2]], kernel_size=5, type='DiNAT'),\n\
             decode_head=dict(num_classes=21, type='UPerHead'), type='EncoderDecoder')\n\
             test_pipeline = [dict(type='LoadImageFromFile'), dict(keep_ratio=True, scale=(800, 201), \
             type='Resize'), dict(type='PackSegInputs')]\n"
        )
    };
    let with = |name: &str, config: String| {
        let meta = dict(vec![
            ("cfg", Object::Str(config)),
            ("mmengine_version", Object::str("0.10.3")),
            ("dataset_meta", dict(vec![("classes", Object::Tuple(Vec::clone(&names)))])),
        ]);
        let state = Object::dict(tensors("segment/upernet_b/model.pth"));
        save(&place.path(name), &dict(vec![("meta", meta), ("state_dict", state)]));
    };
    with("same.pth", config("[123.675, 116.28, 103.53]", "[58.395, 57.12, 57.375]"));
    with("other.pth", config("[0.0, 0.0, 0.0]", "[255.0, 255.0, 255.0]"));
    let line = place.run(&["segment", &image, "-w", "same.pth", "-q", "--save", "out"]).success();
    let record: Segmentation = serde_json::from_str(&line).unwrap();
    assert!(record.segments.iter().all(|segment| segment.label == format!("class {}", segment.index)));
    let labels = image::open(place.path("out/image.labels.png")).unwrap().into_luma8();
    let want = image::open(set.join("label.png")).unwrap().into_luma8();
    let differ = labels.as_raw().iter().zip(want.as_raw()).filter(|(a, b)| a != b).count();
    assert!(differ * 1000 <= labels.as_raw().len(), "{differ}");
    // What the network is fed is the resized picture over 255.
    place.run(&["features", &image, "-w", "other.pth", "-q", "--save", "."]).success();
    let input = Saved::read(place.path("image.safetensors")).floats("input");
    let resized = image::open(set.join("resized.png")).unwrap().into_rgb8();
    let area = (resized.width() * resized.height()) as usize;
    assert_eq!(input.len(), 3 * area);
    for (i, pixel) in resized.pixels().enumerate() {
        for c in 0..3 {
            let want = f32::from(pixel[c]) / 255.0;
            assert!((input[c * area + i] - want).abs() < 1e-6, "{i} {c}");
        }
    }
}

#[test]
fn names_come_in_every_form() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    let number = |i: usize| format!("number {i}");
    let by_index: serde_json::Map<_, _> = (0..10).map(|i| (i.to_string(), number(i).into())).collect();
    let by_name: serde_json::Map<_, _> = (0..10).map(|i| (number(i), i.into())).collect();
    for (name, json) in [
        ("id2label.json", Value::from(by_index.clone())),
        ("class_to_idx.json", by_name.into()),
        ("config.json", serde_json::json!({"model_type": "nat", "id2label": by_index})),
    ] {
        place.file(name, json.to_string());
        let records = place.classify(&["a.png", "--labels", name]).records::<Classification>();
        assert_eq!(records[0].top[0].label, "number 9", "{name}");
    }
    place.file("gap.json", r#"{"0": "a", "2": "b"}"#);
    let done = place.classify(&["a.png", "--labels", "gap.json"]);
    let says = "--labels gap.json: class 1 has no name, and 2 others have";
    assert!(done.status() == 2 && done.stderr().contains(says), "{}", done.stderr());

    // Of the other tasks too.
    let set = golden::path("segment/upernet_b");
    let path = |name: &str| set.join(name).to_str().unwrap().to_owned();
    let names: Vec<String> = (0..21).map(|i| format!("region {i}")).collect();
    place.file("regions.json", serde_json::to_string(&names).unwrap());
    let line = place
        .run(&["segment", &path("image.png"), "-w", &path("model.pth"), "-q", "--labels", "regions.json"])
        .success();
    let record: Segmentation = serde_json::from_str(&line).unwrap();
    assert!(record.segments.iter().all(|segment| segment.label == format!("region {}", segment.index)));
    let done =
        place.run(&["segment", &path("image.png"), "-w", &path("model.pth"), "-q", "--labels", "gap.json"]);
    assert_eq!(done.status(), 2, "{}", done.stderr());
}

#[test]
fn objects_are_cocos_list_of_results() {
    let place = Place::of(PROGRAM);
    let set = golden::path("detect/cascade_b");
    let weights = set.join("model.pth").to_str().unwrap().to_owned();
    for name in ["photos/b.png", "photos/c.png"] {
        place.file(name, fs::read(set.join("image.png")).unwrap());
    }
    place.file("photos/bad.png", "no image");
    let detect = |more: &[&str]| place.run(&[&["detect", "photos", "-w", &weights, "-q"], more].concat());
    let lines = detect(&[]).stdout();
    let records: Vec<Detections> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.len() == 2 && records.iter().all(|record| record.image_id.is_none()));

    let done = detect(&["--format", "coco", "-o", "found.json"]);
    assert_eq!(done.status(), 1, "{}", done.stderr());
    let read = |name: &str| fs::read_to_string(place.path(name)).unwrap();
    let results: Vec<CocoResult> = serde_json::from_str(&read("found.json")).unwrap();
    let wanted: Vec<CocoResult> = (1..)
        .zip(&records)
        .flat_map(|(image_id, record)| {
            record.detections.iter().cloned().map(move |object| CocoResult {
                image_id,
                category_id: object.category_id,
                bbox: object.bbox,
                score: object.score,
                segmentation: object.segmentation,
            })
        })
        .collect();
    assert!(!results.is_empty() && results == wanted);
    let images: Value = serde_json::from_str(&read("found.images.json")).unwrap();
    let image = |i: usize| (&images["images"][i]["id"], images["images"][i]["file_name"].as_str().unwrap());
    assert_eq!(image(0), (&Value::from(1), "photos/b.png"));
    assert_eq!(image(1), (&Value::from(2), "photos/c.png"));
    assert_eq!(images["images"][0]["width"], records[0].width);
    let laptop =
        images["categories"].as_array().unwrap().iter().find(|category| category["name"] == "laptop");
    assert_eq!(laptop.unwrap()["id"], 73);
    // Both files are results, and replaced by the next ones.
    assert_eq!(detect(&["--format", "coco", "-o", "found.json"]).status(), 1);

    place.file(
        "truth.json",
        r#"{"images": [{"id": 139, "file_name": "c.png"}, {"id": 285, "file_name": "b.png"}], "annotations": []}"#,
    );
    let list = detect(&["--format", "coco", "--annotations", "truth.json"]).stdout();
    let results: Vec<CocoResult> = serde_json::from_str(&list).unwrap();
    let ids: std::collections::BTreeSet<u64> = results.iter().map(|result| result.image_id).collect();
    assert_eq!((ids.into_iter().collect::<Vec<_>>(), results.len()), (vec![139, 285], wanted.len()));
    place.file("photos/d.png", fs::read(set.join("image.png")).unwrap());
    let done = detect(&["--annotations", "truth.json"]);
    let says = "d.png: no image of its name is in truth.json, so that it has no number";
    assert!(done.status() == 1 && done.stderr().contains(says), "{}", done.stderr());
    let record: Detections = serde_json::from_str(done.stdout().lines().next().unwrap()).unwrap();
    assert_eq!(record.image_id, Some(285));

    place.file("other.images.json", "{}");
    for (more, says) in [
        (&["--format", "coco"][..], "--annotations FILE has them, or --output PATH"),
        (&["--format", "coco", "-o", "other.json"], "other.images.json is there already"),
        (&["--format", "coco", "-o", "x.json", "--shard", "1/2"], "--annotations FILE numbers them all"),
        (&["--annotations", "photos/b.png"], "--annotations photos/b.png: no annotations in COCO's format"),
    ] {
        let done = detect(more);
        assert!(done.status() == 2 && done.stderr().contains(says), "{more:?}: {}", done.stderr());
    }
    let done = place.classify(&["photos/b.png", "--format", "coco"]);
    assert!(
        done.status() == 2 && done.stderr().contains("of the objects that `detect` finds"),
        "{}",
        done.stderr()
    );
}
