//! `eval detect`.

use std::fs;

use nat_infer::results::{Detections, Evaluation};
use nat_testing::golden;
use nat_testing::place::Place;
use serde_json::{Value, json};

use super::{PROGRAM, lasting, report};

/// A detector's own golden objects as annotations: what it finds on the image is what its golden results score.
#[test]
fn a_detector_scores_what_its_results_score() {
    let place = Place::of(PROGRAM);
    let folder = golden::path("detect/maskrcnn_s");
    let golden: Value = serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let results = golden["results"].as_array().unwrap();
    let image = fs::read(folder.join("image.png")).unwrap();
    place.file("images/a.png", &image);
    place.file("images/c.png", "no picture");
    let [height, width] = [207, 229];
    let of_image = |id: u64, shrink: f64| -> Vec<Value> {
        let object = |(number, object): (usize, &Value)| {
            let edges: Vec<f64> =
                object["bbox"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let [x1, y1, x2, y2] = edges[..] else { panic!() };
            let bbox = [x1, y1, shrink * (x2 - x1), shrink * (y2 - y1)];
            let mask = json!({"size": object["mask"]["size"], "counts": object["mask"]["counts"]});
            json!({
                "id": 1000 * id + number as u64 + 1, "image_id": id, "category_id": object["label"].as_u64().unwrap() + 100,
                "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0, "segmentation": mask, "score": object["score"]
            })
        };
        results.iter().enumerate().map(object).collect()
    };
    let categories: Vec<Value> =
        (0..30).map(|id| json!({"id": id + 100, "name": format!("class {id}")})).collect();
    let listed = |id: u64, name: &str| json!({"id": id, "file_name": name, "width": width, "height": height});
    // Some objects are annotated smaller than they are found, and two images are not there.
    let mut objects = of_image(7, 0.9);
    objects.extend(of_image(9, 1.0));
    let truth = json!({
        "images": [listed(7, "a.png"), listed(8, "b.png"), listed(9, "c.png")], "annotations": &objects, "categories": categories
    });
    place.file("truth.json", truth.to_string());
    place.file("results.json", Value::from(of_image(7, 1.0)).to_string());
    let weights = folder.join("model.pth");
    let model = ["--weights", weights.to_str().unwrap(), "--scale", "450x281"];
    let by_model = ["eval", "detect", "--data", "images", "--annotations", "truth.json", "-o", "r.json"];
    let done = place.run(&[&by_model[..], &model, &["--report", "page"]].concat());
    assert_eq!(done.status(), 1, "{}", done.stderr());
    let evaluation = report(&place.path("r.json"));
    let names: Vec<&str> = evaluation.failed.iter().map(|failed| failed.image.as_str()).collect();
    assert_eq!((evaluation.images, names), (3, vec!["images/b.png", "images/c.png"]));
    assert_eq!(evaluation.settings.options["classes"], "by order");
    let text = place
        .run(&[
            "eval",
            "detect",
            "--annotations",
            "truth.json",
            "--results",
            "results.json",
            "--format",
            "json",
        ])
        .success();
    let of_results: Evaluation = serde_json::from_str(&text).unwrap();
    let [got, wanted] = [&evaluation, &of_results].map(|evaluation| evaluation.metrics.figures());
    assert_eq!(got.len(), 24);
    for ((name, got), (_, wanted)) in got.iter().zip(&wanted) {
        assert!((got.unwrap() - wanted.unwrap()).abs() < 2e-3, "{name}: {got:?}, not {wanted:?}");
    }
    let ap = wanted.iter().find(|(name, _)| name == "bbox.AP").unwrap().1.unwrap();
    assert!((0.1..0.6).contains(&ap), "{ap}");
    let page = fs::read_to_string(place.path("page/report.html")).unwrap();
    assert!(page.contains("a.png") && page.contains("data:image/jpeg"));
    // Shards have images of their own, and are scored together.
    for shard in ["1/2", "2/2"] {
        let name = format!("part{}.json", &shard[..1]);
        let arguments = ["--annotations", "truth.json", "--shard", shard, "-o", &name];
        place.run(&[&["eval", "detect", "--data", "images"], &arguments[..], &model].concat());
    }
    place.run(&["eval", "merge", "part1.json", "part2.json", "-o", "merged.json"]);
    assert_eq!(lasting(&report(&place.path("merged.json"))), lasting(&evaluation));
    // A program's own records are results too, where the annotations call their classes so.
    let detect = ["detect", "images/a.png", "--annotations", "truth.json", "-o", "d.jsonl"];
    place.run(&[&detect[..], &model].concat()).success();
    let own: Detections = serde_json::from_str(&fs::read_to_string(place.path("d.jsonl")).unwrap()).unwrap();
    assert_eq!((own.image_id, own.detections.len()), (Some(7), results.len()));
    let mut called = truth.clone();
    for object in &own.detections {
        called["categories"][object.index]["name"] = json!(object.label);
    }
    place.file("called.json", called.to_string());
    let score = |annotations: &str| {
        let by_records = ["--annotations", annotations, "--results", "d.jsonl", "--format", "json"];
        place.run(&[&["eval", "detect"], &by_records[..]].concat())
    };
    let of_records: Evaluation = serde_json::from_str(&score("called.json").success()).unwrap();
    let got = of_records.metrics.figures()[0].1.unwrap();
    assert!((got - ap).abs() < 2e-3, "{got}");
    // Of names that the annotations do not have none is a category, whatever their numbers are.
    let done = score("truth.json");
    let says =
        format!("d.jsonl: {} results are of categories that the annotations do not have", results.len());
    assert_eq!((done.status(), done.stdout().as_str()), (2, ""));
    assert!(done.stderr().contains(&says), "{}", done.stderr());
    // Annotations that were corrected are counted by, and what was found stays.
    let records = || fs::read_to_string(place.path("part1.images.jsonl")).unwrap();
    let box_ap = || report(&place.path("part1.json")).metrics.figures()[0].1.unwrap();
    let before = records();
    assert!(box_ap() > 0.1);
    objects.iter_mut().for_each(|object| object["category_id"] = json!(129));
    let mut corrected = truth.clone();
    corrected["annotations"] = objects.into();
    place.file("truth.json", corrected.to_string());
    let done = place.run(&["eval", "merge", "part1.json", "part2.json"]);
    assert!(
        done.status() == 2 && done.stderr().contains("truth.json: is not what the shards were measured by"),
        "{}",
        done.stderr()
    );
    let arguments = ["--annotations", "truth.json", "--shard", "1/2", "-o", "part1.json", "--resume"];
    place.run(&[&["eval", "detect", "--data", "images"], &arguments[..], &model].concat());
    assert_eq!((box_ap(), records()), (0.0, before));
    // An image that has another number now is computed again.
    corrected["images"][0]["id"] = json!(70);
    place.file("truth.json", corrected.to_string());
    place.run(&[&["eval", "detect", "--data", "images"], &arguments[..], &model].concat());
    let records = records();
    assert!(records.lines().count() == 1 && records.contains("\"image_id\":70,"), "{records}");
    for (arguments, says) in [
        (&["--data", "none"][..], "none"),
        (&["--data", "images"], "there is no annotations/instances_val2017.json in it"),
        (&["--annotations", "results.json", "--results", "results.json"], "results.json: "),
        (&["--annotations", "truth.json", "--results", "truth.json"], "truth.json: "),
    ] {
        let done = place.run(&[&["eval", "detect"], arguments].concat());
        assert_eq!((done.status(), done.stdout().as_str()), (2, ""), "{arguments:?}");
        assert!(done.stderr().contains(says), "{arguments:?}: {}", done.stderr());
    }
}

/// An image that is not the annotated one fails alone, and masks that can't be scored are told of before anything is done.
#[test]
fn images_of_other_sizes_fail_by_name() {
    let place = Place::of(PROGRAM);
    let folder = golden::path("detect/maskrcnn_s");
    let image = fs::read(folder.join("image.png")).unwrap();
    place.file("images/a.png", &image);
    place.file("images/b.png", &image);
    let truth = |sizes: [Option<[u64; 2]>; 2]| {
        let listed = |(name, (id, size)): (&str, (u64, Option<[u64; 2]>))| match size {
            Some([width, height]) => json!({"id": id, "file_name": name, "width": width, "height": height}),
            None => json!({"id": id, "file_name": name}),
        };
        let images: Vec<Value> = ["a.png", "b.png"].into_iter().zip((1..).zip(sizes)).map(listed).collect();
        let object = |id: u64| {
            json!({
                "id": id, "image_id": id, "category_id": 1, "bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0,
                "segmentation": [[8, 8, 28, 8, 28, 28, 8, 28]]
            })
        };
        let categories: Vec<Value> =
            (1..31).map(|id| json!({"id": id, "name": format!("class {id}")})).collect();
        json!({"images": images, "annotations": [object(1), object(2)], "categories": categories}).to_string()
    };
    let weights = folder.join("model.pth");
    let run = |more: &[&str]| {
        let weights = ["--weights", weights.to_str().unwrap(), "--scale", "450x281"];
        let arguments = ["eval", "detect", "--data", "images", "--annotations", "truth.json", "-o", "r.json"];
        place.run(&[&arguments[..], &weights, more].concat())
    };
    place.file("truth.json", truth([Some([229, 207]), Some([207, 229])]));
    for more in [&[][..], &["--no-masks"]] {
        assert_eq!(run(more).status(), 1);
        let failed = report(&place.path("r.json")).failed;
        assert_eq!((failed.len(), failed[0].image.as_str()), (1, "images/b.png"));
        assert_eq!(failed[0].error, "truth.json: says 207x229, and the image is 229x207; see --exif");
    }
    fs::remove_file(place.path("r.json")).unwrap();
    fs::remove_file(place.path("r.images.jsonl")).unwrap();
    place.file("truth.json", truth([Some([229, 207]), None]));
    let done = run(&[]);
    assert_eq!((done.status(), place.path("r.images.jsonl").exists()), (2, false), "{}", done.stderr());
    assert!(done.stderr().contains("truth.json: "), "{}", done.stderr());
    assert_eq!(run(&["--no-masks"]).status(), 0);
}
