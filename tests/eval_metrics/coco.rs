//! Boxes and masks, as with pycocotools.

use std::collections::HashMap;
use std::path::Path;

use nat_infer::eval::coco::{CategoryRule, CocoTruth, twelve_lines};
use nat_infer::results::{CocoResult, CocoSummary, Detection, Detections, Rle};
use nat_testing::golden;
use serde_json::{Value, json};

use crate::{assert_all_close, assert_close, expected, folder, json_file};

fn golden_truth() -> CocoTruth {
    CocoTruth::open(&golden::path("eval/coco_truth.json")).unwrap()
}

fn golden_list() -> Vec<Value> {
    golden::json(&golden::path("eval/coco_detections.json")).as_array().unwrap().clone()
}

fn twelve(summary: &CocoSummary) -> [f64; 12] {
    let CocoSummary { ap, ap50, ap75, ap_small, ap_medium, ap_large, .. } = *summary;
    let CocoSummary { ar1, ar10, ar100, ar_small, ar_medium, ar_large, .. } = *summary;
    [ap, ap50, ap75, ap_small, ap_medium, ap_large, ar1, ar10, ar100, ar_small, ar_medium, ar_large]
}

/// The scores are pycocotools', each number and each line.
#[test]
fn boxes_and_masks_score_as_with_pycocotools() {
    let truth = golden_truth();
    let results = truth.results(&golden::path("eval/coco_detections.json")).unwrap();
    assert!(results.has_boxes() && results.has_masks() && results.other_categories() == 0);
    let scores = truth.score(&results, true).unwrap();
    let expected = expected();
    for (kind, summary) in [("bbox", scores.metrics.bbox), ("segm", scores.metrics.segm)] {
        for (i, got) in twelve(&summary.unwrap()).into_iter().enumerate() {
            assert_close(got, &expected[kind][i], &format!("{kind} {i}"));
        }
    }
    assert_eq!(
        twelve_lines(&scores.metrics.bbox.unwrap()),
        " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.488\n \
          Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ] = 0.621\n \
          Average Precision  (AP) @[ IoU=0.75      | area=   all | maxDets=100 ] = 0.608\n \
          Average Precision  (AP) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = 0.133\n \
          Average Precision  (AP) @[ IoU=0.50:0.95 | area=medium | maxDets=100 ] = 0.563\n \
          Average Precision  (AP) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = 0.430\n \
          Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ] = 0.451\n \
          Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets= 10 ] = 0.632\n \
          Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.632\n \
          Average Recall     (AR) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = 0.133\n \
          Average Recall     (AR) @[ IoU=0.50:0.95 | area=medium | maxDets=100 ] = 0.659\n \
          Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = 0.600\n"
    );

    // The mean over the classes is the whole.
    let names: Vec<&str> = scores.classes.iter().map(|class| class.label.as_str()).collect();
    assert_eq!(names, ["class 1", "class 3", "class 18", "class 44", "class 90"]);
    for (key, kind, number) in
        [("AP", "bbox", 0), ("AP50", "bbox", 1), ("mask AP", "segm", 0), ("mask AP50", "segm", 1)]
    {
        let all: Vec<f64> = scores.classes.iter().map(|class| class.scores[key].unwrap()).collect();
        assert_close(all.iter().sum::<f64>() / all.len() as f64, &expected[kind][number], key);
    }
    let objects = golden::json(&golden::path("eval/coco_truth.json"))["annotations"].clone();
    let objects = objects.as_array().unwrap().iter().filter(|object| object["iscrowd"] == 0).count();
    assert_eq!(scores.classes.iter().map(|class| class.count).sum::<u64>(), objects as u64);
}

/// The same objects in every form that they may have.
#[test]
fn results_have_many_forms() {
    let truth = golden_truth();
    let images: HashMap<u64, String> =
        truth.images().iter().map(|image| (image.id, image.file_name.clone())).collect();
    let list = golden_list();
    let parsed: Vec<CocoResult> = serde_json::from_value(Value::from(list.clone())).unwrap();
    // As `detect` writes them: by image, with a model's own category that the name corrects.
    let mut by_image: Vec<Detections> = Vec::new();
    for result in &parsed {
        let detection = Detection {
            category_id: 7,
            index: 6,
            label: format!("Class {}", result.category_id),
            score: result.score,
            bbox: result.bbox,
            segmentation: result.segmentation.clone(),
        };
        match by_image.last_mut().filter(|image| image.image_id == Some(result.image_id)) {
            Some(image) => image.detections.push(detection),
            None => by_image.push(Detections {
                image: format!("images/val/{}", images[&result.image_id]),
                model: "m".to_owned(),
                width: 1,
                height: 1,
                image_id: Some(result.image_id),
                detections: vec![detection],
            }),
        }
    }
    let lines = |records: &[Detections]| -> Vec<u8> {
        records
            .iter()
            .flat_map(|record| serde_json::to_vec(record).unwrap().into_iter().chain(*b"\n"))
            .collect()
    };
    let unnumbered: Vec<Detections> =
        by_image.iter().cloned().map(|image| Detections { image_id: None, ..image }).collect();
    let extra: Vec<Value> = list
        .iter()
        .map(|result| {
            let mut result = result.clone();
            for (key, value) in
                [("id", json!(3)), ("label", json!(5)), ("image", json!([])), ("area", json!(0))]
            {
                result[key] = value;
            }
            result["image_id"] = json!(result["image_id"].as_f64().unwrap());
            result
        })
        .collect();
    let marked = [b"\xef\xbb\xbf", serde_json::to_vec(&list).unwrap().as_slice()].concat();

    let expected = expected();
    for (what, bytes) in [
        ("pretty", serde_json::to_vec_pretty(&list).unwrap()),
        ("with a byte order mark", marked),
        ("with more keys", serde_json::to_vec(&extra).unwrap()),
        ("detect's json", serde_json::to_vec(&by_image).unwrap()),
        ("detect's jsonl", lines(&by_image)),
        ("detect's jsonl by names", lines(&unnumbered)),
    ] {
        let folder = folder(&[("results.json", &bytes)]);
        let results = truth.results(&folder.path().join("results.json")).unwrap();
        assert_eq!(results.len(), list.len(), "{what}");
        let metrics = truth.score(&results, true).unwrap().metrics;
        assert_close(metrics.bbox.unwrap().ap, &expected["bbox"][0], what);
        assert_close(metrics.segm.unwrap().ap, &expected["segm"][0], what);
    }
    let results = truth.results_of(parsed).unwrap();
    let metrics = truth.score(&results, true).unwrap().metrics;
    assert_close(metrics.bbox.unwrap().ap, &expected["bbox"][0], "in memory");
    assert_close(metrics.segm.unwrap().ap, &expected["segm"][0], "in memory");
}

/// A mask that is a polygon, runs or compressed runs is the same mask.
#[test]
fn masks_have_three_forms() {
    // 8 x 6 pixels, an object on the columns 2 to 5 and the rows 1 to 3.
    let object = json!({"id": 1, "image_id": 5, "category_id": 2, "bbox": [2, 1, 4, 3], "area": 12, "iscrowd": 0,
        "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]});
    let (_truth, path) = json_file(&json!({
        "info": {"year": "2024"}, "licenses": [{"id": "a"}],
        "images": [{"id": 5, "file_name": "a.png", "width": 8, "height": 6, "license": "", "date_captured": 0}],
        "annotations": [object], "categories": [{"id": 2, "name": "thing", "supercategory": 3}]}));
    let truth = CocoTruth::open(&path).unwrap();
    let runs = json!({"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 3, 3, 14]});
    for mask in [json!([[2, 1, 6, 1, 6, 4, 2, 4]]), runs, json!({"size": [6, 8], "counts": "=3300000;"})] {
        for bbox in [Value::Null, json!([2, 1, 4, 3])] {
            let with_box = !bbox.is_null();
            let (_list, list) = json_file(
                &json!([{"image_id": 5, "category_id": 2, "score": 1, "bbox": bbox, "segmentation": mask}]),
            );
            let results = truth.results(&list);
            let results = results.unwrap_or_else(|error| panic!("{mask}: {error}"));
            let metrics = truth.score(&results, true).unwrap().metrics;
            let segm = metrics.segm.unwrap();
            assert_close(segm.ap, &json!(1.0), "masks");
            assert_close(segm.ap_small, &json!(1.0), "small masks");
            assert_eq!(metrics.bbox.is_some(), with_box, "{mask}");
            metrics.bbox.inspect(|bbox| assert_close(bbox.ap, &json!(1.0), "boxes"));
        }
    }
}

#[test]
fn scores_are_of_what_is_there() {
    let truth = golden_truth();
    let list = golden_list();
    let without = |key: &str| -> Vec<Value> {
        let mut list = list.clone();
        list.iter_mut().for_each(|result| drop(result.as_object_mut().unwrap().remove(key)));
        list
    };
    let expected = expected();
    for (list, masks, bbox, segm) in [
        (list.clone(), false, true, false),
        (without("segmentation"), true, true, false),
        (without("bbox"), true, false, true),
        (without("bbox"), false, false, false),
    ] {
        let (_folder, path) = json_file(&Value::from(list));
        let results = truth.results(&path).unwrap();
        let metrics = truth.score(&results, masks).unwrap().metrics;
        assert_eq!((metrics.bbox.is_some(), metrics.segm.is_some()), (bbox, segm));
        if let Some(metrics) = metrics.bbox {
            assert_close(metrics.ap, &expected["bbox"][0], "bbox");
        }
        if let Some(metrics) = metrics.segm {
            // Without boxes an object is as large as its mask: of pycocotools 2.0.11.
            let sizes = [0.16666666666666663, 0.412009249276576, 0.5303960396039604];
            assert_close(metrics.ap, &expected["segm"][0], "segm");
            for (got, wanted) in
                [metrics.ap_small, metrics.ap_medium, metrics.ap_large].into_iter().zip(sizes)
            {
                assert_close(got, &json!(wanted), "segm by size");
            }
        }
    }

    // Nothing found scores nothing.
    let (_folder, path) = json_file(&json!([]));
    let results = truth.results(&path).unwrap();
    let scores = truth.score(&results, true).unwrap();
    for summary in [scores.metrics.bbox.unwrap(), scores.metrics.segm.unwrap()] {
        assert_eq!(twelve(&summary), [0.0; 12]);
    }
    for class in &scores.classes {
        assert_eq!(class.scores["AP"], Some(0.0), "{}", class.label);
        assert_eq!(class.scores["mask AP50"], Some(0.0), "{}", class.label);
    }
    assert!(truth.score(&results, false).unwrap().metrics.segm.is_none());

    // Categories that the dataset doesn't have don't count.
    let mut more = list.clone();
    more.push(json!({"image_id": 1000, "category_id": 2, "bbox": [0, 0, 9, 9], "score": 1.0}));
    let (_folder, path) = json_file(&Value::from(more));
    let results = truth.results(&path).unwrap();
    assert_eq!(results.other_categories(), 1);
    assert_close(
        truth.score(&results, false).unwrap().metrics.bbox.unwrap().ap,
        &expected["bbox"][0],
        "bbox",
    );

    // A dataset without masks, which has no sizes and no areas either.
    let (_folder, path) = json_file(&json!({
    "images": [{"id": 1}, {"id": 2}], "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
    "annotations": [
        {"image_id": 1, "category_id": 0, "bbox": [0, 0, 10, 10], "segmentation": []},
        {"image_id": 1, "category_id": 0, "bbox": [50, 0, 10, 10], "iscrowd": true},
    ]}));
    let truth = CocoTruth::open(&path).unwrap();
    assert!(!truth.has_masks());
    let found = |image_id, category_id, x| CocoResult {
        image_id,
        category_id,
        bbox: [x, 0.0, 10.0, 10.0],
        score: 0.5,
        segmentation: None,
    };
    let results = truth.results_of([found(1, 0, 0.0), found(1, 0, 50.0)]).unwrap();
    let scores = truth.score(&results, true).unwrap();
    assert!(scores.metrics.segm.is_none());
    let bbox = scores.metrics.bbox.unwrap();
    for (got, wanted) in [(bbox.ap, 1.0), (bbox.ap_small, 1.0), (bbox.ap_large, -1.0)] {
        assert_close(got, &json!(wanted), "boxes alone");
    }
    assert_eq!(scores.classes.iter().map(|class| class.count).collect::<Vec<_>>(), [1, 0]);
    let classes: Vec<_> = scores.classes.iter().map(|class| class.scores["AP"]).collect();
    assert_all_close(&classes, &json!([1.0, null]), "classes");
}

/// Some images alone score as a file of these alone.
#[test]
fn a_part_of_the_images_can_be_scored() {
    let truth = golden_truth();
    let whole = golden::json(&golden::path("eval/coco_truth.json"));
    let ids: Vec<u64> = truth.images().iter().map(|image| image.id).step_by(3).collect();
    let is_kept = |value: &Value, key: &str| ids.contains(&value[key].as_u64().unwrap());
    let kept = |values: &Value, key: &str| -> Vec<Value> {
        values.as_array().unwrap().iter().filter(|value| is_kept(value, key)).cloned().collect()
    };
    let (_folder, path) = json_file(&json!({"images": kept(&whole["images"], "id"),
        "annotations": kept(&whole["annotations"], "image_id"), "categories": whole["categories"]}));
    let alone = CocoTruth::open(&path).unwrap();
    let all = golden_list();
    let few: Vec<Value> = all.iter().filter(|result| is_kept(result, "image_id")).cloned().collect();
    let (_folder, few) = json_file(&Value::from(few));
    let wanted = alone.score(&alone.results(&few).unwrap(), true).unwrap();

    let part = truth.restrict(&[&ids[..], &[77]].concat());
    assert_eq!(part.images().iter().map(|image| image.id).collect::<Vec<_>>(), ids);
    let results = part.results(&golden::path("eval/coco_detections.json")).unwrap();
    assert_eq!(part.score(&results, true).unwrap(), wanted);
    assert!(wanted.metrics.bbox.unwrap().ap > 0.1);

    // Those of images of the file are left out; others are another dataset's.
    let error = alone.results(&golden::path("eval/coco_detections.json")).err().unwrap().to_string();
    let left = all.len() - results.len();
    let says = format!(
        "coco_detections.json: {left} of its results are of images that the annotations don't list, the first of image 1001;"
    );
    assert!(error.contains(&says), "{error}");
}

#[test]
fn images_are_sorted_by_how_they_went() {
    let object = |image: u64, category: u64, x: f64| json!({"image_id": image, "category_id": category, "bbox": [x, 0, 10, 10]});
    let (_folder, path) = json_file(&json!({
        "images": [{"id": 4}, {"id": 3}, {"id": 2}, {"id": 1}], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [object(1, 1, 0.0), object(1, 2, 20.0), object(3, 1, 0.0)]}));
    let truth = CocoTruth::open(&path).unwrap();
    let found = |image: u64, category: u64, x: f64, score: f64| {
        let mut found = object(image, category, x);
        found["score"] = json!(score);
        found
    };
    let (_folder, path) = json_file(&json!([
        // One of two, half beside it; one that isn't there; one that doesn't count.
        found(1, 1, 2.0, 0.9),
        found(1, 1, 60.0, 0.8),
        found(1, 2, 20.0, 0.3),
        found(3, 1, 0.0, 0.31),
        found(3, 1, 90.0, 0.29),
        found(4, 2, 0.0, 0.5)
    ]));
    let results = truth.results(&path).unwrap();
    assert_eq!(truth.image_scores(&results).unwrap(), [(4, 0.0), (3, 1.0), (2, 1.0), (1, 0.5)]);
    assert_eq!(truth.images().len(), 4);

    // By masks where there are no boxes.
    let truth = golden_truth();
    let by_boxes =
        truth.image_scores(&truth.results(&golden::path("eval/coco_detections.json")).unwrap()).unwrap();
    let mut list = golden_list();
    list.iter_mut().for_each(|result| drop(result.as_object_mut().unwrap().remove("bbox")));
    let (_folder, path) = json_file(&Value::from(list));
    let by_masks = truth.image_scores(&truth.results(&path).unwrap()).unwrap();
    let mean = |scores: &[(u64, f64)]| scores.iter().map(|(_, score)| score).sum::<f64>() / 24.0;
    assert!(mean(&by_masks) > 0.3 && mean(&by_masks) <= mean(&by_boxes), "{by_masks:?} {by_boxes:?}");
}

#[test]
fn classes_find_their_categories() {
    let truth = golden_truth();
    let labels = |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.to_owned()).collect() };
    let all = ["class 3", "Class 1", "class 18", "class 44", "other", "class 90"];
    let ids = truth.category_ids(&labels(&all)).unwrap();
    assert_eq!(ids.rule, CategoryRule::Name);
    assert_eq!(ids.ids, [Some(3), Some(1), Some(18), Some(44), None, Some(90)]);
    let ids = truth.category_ids(&labels(&["a", "b", "c", "d", "e"])).unwrap();
    assert_eq!(
        (ids.ids, ids.rule),
        (vec![Some(1), Some(3), Some(18), Some(44), Some(90)], CategoryRule::Position)
    );
    let error = truth.category_ids(&labels(&["a"])).unwrap_err().to_string();
    assert!(error.contains("coco_truth.json: its 5 categories are not the model's 1 classes"), "{error}");
}

#[test]
fn files_that_are_no_annotations_are_refused() {
    let image = json!({"id": 1, "file_name": "a.png", "width": 4, "height": 4});
    let category = json!({"id": 1, "name": "a"});
    let with =
        |annotation: Value| json!({"images": [image], "annotations": [annotation], "categories": [category]});
    for (value, says) in [
        (json!([]), "a list, as of COCO's results, and not COCO's annotations"),
        (json!("a"), "no JSON of COCO's annotations"),
        (json!({}), "it lists no images; COCO's annotations of objects are wanted here"),
        (json!({"images": [image]}), "it lists no categories"),
        (json!({"images": [image, image], "categories": [category]}), "several images have the id 1;"),
        (json!({"images": [image], "categories": [category, category]}), "several categories have the id 1;"),
        (with(json!({"image_id": 1, "caption": "a"})), "its annotation 0 (from 0) has no category_id"),
        (with(json!({"image_id": 1, "segments_info": []})), "panoptic annotations; those of objects"),
        (
            with(json!({"image_id": 1.5, "category_id": 1})),
            "no JSON of COCO's annotations: 1.5 is no whole number",
        ),
        (
            with(json!({"image_id": 1, "category_id": 1, "segmentation": []})),
            "its annotation 0 (from 0) has neither a bbox nor a segmentation with one",
        ),
        (with(json!({"image_id": -1, "category_id": 1})), "no JSON of COCO's annotations: "),
        (with(json!({"image_id": 1, "category_id": 1, "bbox": [1, 2]})), "no JSON of COCO's annotations: "),
    ] {
        let (_folder, path) = json_file(&value);
        let error = CocoTruth::open(&path).err().unwrap_or_else(|| panic!("{value}")).to_string();
        assert!(error.contains(&format!("file.json: {says}")) && !error.contains('\n'), "{error}");
    }
    let error = CocoTruth::open(Path::new("nothing.json")).err().unwrap().to_string();
    assert_eq!(error, "nothing.json: no such file or folder");
    let folder = folder(&[("a.json", b"{\"images\": [")]);
    let error = CocoTruth::open(&folder.path().join("a.json")).err().unwrap().to_string();
    assert!(error.contains("a.json: no JSON of COCO's annotations: EOF"), "{error}");
}

#[test]
fn lists_that_are_no_results_are_refused() {
    let truth = golden_truth();
    let good = json!({"image_id": 1000, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5});
    let but = |key: &str, value: Value| {
        let mut result = good.clone();
        if value.is_null() {
            result.as_object_mut().unwrap().remove(key);
        } else {
            result[key] = value;
        }
        json!([good, result])
    };
    let masked = |result: &Value, with_box: bool| {
        let mut result = result.clone();
        result["segmentation"] = json!([[1, 2, 4, 2, 4, 6, 1, 6]]);
        if !with_box {
            result.as_object_mut().unwrap().remove("bbox");
        }
        result
    };
    for (value, says) in [
        (but("image_id", Value::Null), "its result 1 (from 0) has no image_id"),
        (but("category_id", Value::Null), "its result 1 (from 0) has no category_id"),
        (but("score", Value::Null), "its result 1 (from 0) has no score"),
        (but("bbox", Value::Null), "its result 1 (from 0) has no bbox and segmentation"),
        (
            json!([masked(&good, true), masked(&good, false)]),
            "its result 1 (from 0) has no bbox, and others have one",
        ),
        (
            json!([good, masked(&good, true)]),
            "its result 0 (from 0) has no segmentation, and others have one",
        ),
        (but("bbox", json!([1, 2, 3])), "no JSON of COCO's results: "),
        (but("score", json!("a")), "no JSON of COCO's results: "),
        (
            but("image_id", json!(7)),
            "1 of its results are of images that the annotations don't list, the first of image 7;",
        ),
        (
            but("segmentation", json!({"size": [5, 6], "counts": [30]})),
            "its result 1 (from 0) has a mask of 6x5 pixels, and image 1000 has 345x307",
        ),
        (
            but("segmentation", json!({"size": [307, 345], "counts": "l]W3"})),
            "its result 1 (from 0) has a mask that can't be read: ",
        ),
        (
            but("segmentation", json!({"size": [307, 345], "counts": [307 * 345 + 1]})),
            "its result 1 (from 0) has a mask that can't be read: ",
        ),
        (
            json!([{"image": "000.png", "detections": [good]}]),
            "1 of its results are of images that the annotations don't list, the first of image 000.png;",
        ),
        (json!([{"image": "000.jpg", "model": "nat", "top": []}]), "its result 0 (from 0) has no image_id"),
        (
            json!({"images": [], "annotations": []}),
            "a dataset's annotations; COCO's list of results is wanted here",
        ),
        (json!([1]), "no JSON of COCO's results: "),
        (json!(1), "no JSON of COCO's results: a list of {image_id, category_id, bbox, score} is wanted"),
    ] {
        let (_folder, path) = json_file(&value);
        let error = truth.results(&path).err().unwrap_or_else(|| panic!("{value}")).to_string();
        assert!(error.contains(&format!("file.json: {says}")) && !error.contains('\n'), "{error}");
    }
    for (bytes, says) in [
        (
            &b"[{\"image_id\": 1000, \"category_id\": 1, \"bbox\": [0,0,1,1], \"score\": NaN}]"[..],
            "no JSON of COCO's results: ",
        ),
        (b"[] []", "no JSON of COCO's results: trailing"),
        (b"", "no JSON of COCO's results: a list"),
        (b"[{\"image_id\": 1000", "no JSON of COCO's results: EOF"),
    ] {
        let folder = folder(&[("file.json", bytes)]);
        let error = truth.results(&folder.path().join("file.json")).err().unwrap().to_string();
        assert!(error.contains(&format!("file.json: {says}")), "{error}");
    }
    let error = truth.results(Path::new("nothing.json")).err().unwrap().to_string();
    assert!(error == "nothing.json: no such file or folder", "{error}");
    let far = Rle { size: [1 << 40, 1], counts: String::new() };
    let result =
        CocoResult { image_id: 1000, category_id: 1, bbox: [0.0; 4], score: 1.0, segmentation: Some(far) };
    let error = truth.results_of([result]).err().unwrap().to_string();
    assert!(
        error.contains("coco_truth.json: its result 0 (from 0) has a mask of 1x4294967295 pixels"),
        "{error}"
    );
}

/// A class that annotations do not name is none of their categories, whatever number the model gives it.
#[test]
fn classes_that_annotations_do_not_name_do_not_count() {
    let image = json!({"id": 1, "file_name": "a.png", "width": 64, "height": 64});
    let object = json!({"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]});
    let found = |label: &str| json!({"category_id": 1, "index": 0, "label": label, "score": 0.5, "bbox": [0, 0, 10, 10]});
    let (_list, list) = json_file(&json!([{
        "image": "a.png", "model": "m", "width": 64, "height": 64, "detections": [found("person"), found("dog")]
    }]));
    for (name, others, ap) in [("cat", Some("person"), 0.0), ("dog", Some("person"), 1.0), ("", None, 1.0)] {
        let (_truth, path) = json_file(
            &json!({"images": [image], "annotations": [object], "categories": [{"id": 1, "name": name}]}),
        );
        let truth = CocoTruth::open(&path).unwrap();
        let results = truth.results(&list).unwrap();
        assert_eq!(results.first_other_category(), others, "{name}");
        assert_close(truth.score(&results, false).unwrap().metrics.bbox.unwrap().ap, &json!(ap), name);
    }
    // Classes without names are called by their places, which are those of the categories, as far as there are as many.
    let unnamed = |index: usize| {
        json!({
            "category_id": index + 1, "index": index, "label": index.to_string(), "score": 0.5,
            "bbox": [20 * index, 0, 10, 10]
        })
    };
    for (ids, named, places, ap) in [
        ([0, 1, 2], true, [0, 1, 2], Some(1.0)),
        ([1, 2, 3], false, [0, 1, 2], Some(1.0)),
        ([7, 5, 6], false, [2, 1, 0], Some(1.0)),
        ([1, 2, 3], true, [0, 1, 3], None),
    ] {
        let category = |id: &u64| match named {
            true => json!({"id": id, "name": format!("kind {id}")}),
            false => json!({"id": id}),
        };
        let object = |(place, id): (usize, &u64)| json!({"image_id": 1, "category_id": id, "bbox": [20 * place, 0, 10, 10]});
        let objects: Vec<Value> = ids.iter().enumerate().map(object).collect();
        let categories: Vec<Value> = ids.iter().map(category).collect();
        let (_truth, path) =
            json_file(&json!({"images": [image], "annotations": objects, "categories": categories}));
        let (_list, list) = json_file(&json!([{"image": "a.png", "detections": places.map(unnamed)}]));
        let truth = CocoTruth::open(&path).unwrap();
        let results = truth.results(&list).unwrap();
        assert_eq!(results.has_known_categories(), ap.is_some(), "{ids:?}");
        let got = truth.score(&results, false).unwrap().metrics.bbox.unwrap().ap;
        assert_close(got, &json!(ap.unwrap_or(0.0)), "by order");
    }
}

/// An object that is annotated by its mask alone has the box around it.
#[test]
fn objects_without_a_box_have_that_of_their_mask() {
    let runs = json!({"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 3, 3, 14]});
    for mask in [json!([[2, 1, 6, 1, 6, 4], [2, 4, 2, 1]]), runs] {
        let (_truth, path) = json_file(&json!({
            "images": [{"id": 5, "file_name": "a.png", "width": 8, "height": 6}],
            "annotations": [{"image_id": 5, "category_id": 2, "segmentation": mask}],
            "categories": [{"id": 2, "name": "thing"}]
        }));
        let truth = CocoTruth::open(&path).unwrap();
        let found = CocoResult {
            image_id: 5,
            category_id: 2,
            bbox: [2.0, 1.0, 4.0, 3.0],
            score: 0.5,
            segmentation: None,
        };
        let results = truth.results_of([found]).unwrap();
        assert_close(truth.score(&results, false).unwrap().metrics.bbox.unwrap().ap, &json!(1.0), "box");
    }
}
