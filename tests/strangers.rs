//! What people bring that this program did not make: checkpoints of everyday tools, names of classes, annotations.

use std::fs;

use nat_infer::results::{CocoResult, Detections, Segmentation};
use serde_json::Value;

use place::{Place, golden};

#[path = "common/place.rs"]
mod place;

#[test]
fn names_come_in_every_form() {
    let place = Place::new();
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
        let records = place.classify(&["a.png", "--labels", name]).records();
        assert_eq!(records[0].top[0].label, "number 9", "{name}");
    }
    place.file("gap.json", r#"{"0": "a", "2": "b"}"#);
    let done = place.classify(&["a.png", "--labels", "gap.json"]);
    let says = "--labels gap.json: class 1 has no name, and 2 others have";
    assert!(done.status() == 2 && done.stderr().contains(says), "{}", done.stderr());

    // Of the other tasks too.
    let set = golden("segment/upernet_b");
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
    let place = Place::new();
    let set = golden("detect/cascade_b");
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
