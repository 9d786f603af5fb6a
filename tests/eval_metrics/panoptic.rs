//! Panoptic quality, as with panopticapi.

use std::fs;

use nat_infer::eval::panoptic;
use nat_infer::results::PanopticQuality;
use nat_testing::golden;
use serde_json::{Value, json};

use crate::{TOLERANCE, assert_close, grey};

#[test]
fn panoptic_quality_is_panopticapis() {
    let set = golden::path("eval/panoptic");
    let expected = golden::json(&set.join("expected.json"));
    let scores = panoptic::score(&set.join("truth.json"), &set.join("predicted.json"), None).unwrap();
    let metrics = scores.metrics;
    for (name, PanopticQuality { pq, sq, rq, n }) in
        [("All", metrics.all), ("Things", metrics.things), ("Stuff", metrics.stuff)]
    {
        let expected = &expected["metrics"][name];
        assert_close(pq.unwrap(), &expected["PQ"], name);
        assert_close(sq.unwrap(), &expected["SQ"], name);
        assert_close(rq.unwrap(), &expected["RQ"], name);
        assert_eq!(n as u64, expected["n"].as_u64().unwrap());
    }
    assert_eq!((scores.images, scores.counts.len(), scores.classes.len()), (12, 6, 6));
    for (class, counts) in scores.classes.iter().zip(&scores.counts) {
        let expected = &expected["per_class"][counts.category_id.to_string()];
        assert_eq!(
            json!([counts.found, counts.wrong, counts.missed]),
            json!([expected["tp"], expected["fp"], expected["fn"]])
        );
        assert_close(counts.iou, &expected["iou"], &class.label);
        assert_eq!(class.label, format!("class {}", counts.category_id));
        assert_eq!(counts.is_thing, Some(counts.category_id < 5));
        assert_eq!(class.count, counts.found + counts.missed);
        let sq = 100.0 * counts.iou / counts.found as f64;
        assert!((class.scores["SQ"].unwrap() - sq).abs() < TOLERANCE);
    }
}

#[test]
fn panoptic_files_that_cannot_be_scored_are_refused() {
    let set = golden::path("eval/panoptic");
    let place = tempfile::tempdir().unwrap();
    for side in ["truth", "predicted"] {
        fs::create_dir(place.path().join(side)).unwrap();
        for i in 0..12 {
            let name = format!("{side}/{i:04}.png");
            fs::copy(set.join(&name), place.path().join(&name)).unwrap();
        }
    }
    let [truth, predicted] =
        ["truth", "predicted"].map(|side| golden::json(&set.join(format!("{side}.json"))));
    let score = |truth: &Value, predicted: &Value, limit| {
        let write = |name: &str, value: &Value| {
            let path = place.path().join(name);
            fs::write(&path, value.to_string()).unwrap();
            path
        };
        let (truth, predicted) = (write("truth.json", truth), write("predicted.json", predicted));
        panoptic::score(&truth, &predicted, limit).map_err(|error| error.to_string())
    };
    // Information that others write as they like is not read.
    let mut odd = truth.clone();
    odd["info"] = json!({"year": "2018"});
    odd["images"] = json!(3);
    assert_eq!(score(&odd, &predicted, None).unwrap().images, 12);

    // The first images alone, in the order of the truth.
    let mut few = truth.clone();
    few["annotations"].as_array_mut().unwrap().truncate(5);
    let mut reversed = predicted.clone();
    reversed["annotations"].as_array_mut().unwrap().reverse();
    let wanted = score(&few, &predicted, None).unwrap();
    assert_eq!(wanted.images, 5);
    assert_eq!(score(&truth, &reversed, Some(5)).unwrap(), wanted);

    let alter = |value: &Value, change: &dyn Fn(&mut Value)| {
        let mut value = value.clone();
        change(&mut value);
        value
    };
    let shorter = alter(&predicted, &|value| value["annotations"].as_array_mut().unwrap().truncate(9));
    assert_eq!(score(&truth, &shorter, Some(9)).unwrap().images, 9);
    for (truth, predicted, says) in [
        (
            truth.clone(),
            shorter,
            "predicted.json: 3 of 12 images have no prediction, the first is image 509 (0009.png)",
        ),
        (
            truth.clone(),
            json!([]),
            "predicted.json: a list, as of COCO's results, and not COCO's panoptic format",
        ),
        (truth.clone(), json!({}), "predicted.json: it has no annotations;"),
        (
            alter(&truth, &|value| value["categories"] = json!([])),
            predicted.clone(),
            "truth.json: it lists no categories;",
        ),
        (
            alter(&truth, &|value| {
                drop(value["annotations"][2].as_object_mut().unwrap().remove("segments_info"))
            }),
            predicted.clone(),
            "truth.json: no JSON of COCO's panoptic format: missing field `segments_info`",
        ),
        (
            truth.clone(),
            alter(&predicted, &|value| value["annotations"][3]["file_name"] = json!("x.png")),
            "predicted/x.png: can't be read: no such file or directory; ",
        ),
        (
            truth.clone(),
            alter(&predicted, &|value| {
                drop(value["annotations"][3].as_object_mut().unwrap().remove("file_name"))
            }),
            "predicted.json: its image 503 has no file_name",
        ),
        (
            truth.clone(),
            alter(&predicted, &|value| value["annotations"][3]["file_name"] = json!("0004.png")),
            "predicted.json: image 503 has 77x60 pixels, and its prediction 151x101",
        ),
        (
            truth.clone(),
            alter(&predicted, &|value| value["annotations"][0]["segments_info"][0]["category_id"] = json!(3)),
            "predicted.json: image 500: predicted segment ",
        ),
    ] {
        let error = score(&truth, &predicted, None).expect_err(says);
        assert!(error.contains(says) && !error.contains('\n'), "{error}, not {says}");
    }
    let png = place.path().join("predicted/0000.png");
    fs::write(&png, grey([2, 2], &[0; 4])).unwrap();
    let error = score(&truth, &predicted, None).unwrap_err();
    assert!(
        error.contains("predicted/0000.png: a grey PNG; one whose colours are the segments' ids is wanted"),
        "{error}"
    );
    fs::write(&png, b"GIF").unwrap();
    let error = score(&truth, &predicted, None).unwrap_err();
    assert!(error.contains("predicted/0000.png: no PNG, or a damaged one ("), "{error}");
    fs::remove_dir_all(place.path().join("truth")).unwrap();
    let error = score(&truth, &predicted, None).unwrap_err();
    assert!(error.contains("truth: no such folder; the PNG files of "), "{error}");
}
