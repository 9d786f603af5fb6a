//! `--export`: what was found as datasets, whose files other programs read (`python/tests/readers` has those read them).

#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nat_infer::images::mask::Mask;
use nat_infer::results::{Classification, Detections, Segmentation};
use nat_testing::golden;
use nat_testing::place::{Done, Place, names};
use serde_json::Value;

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_nat-infer");

/// Two photographs in folders.
fn photos() -> Place {
    let place = Place::of(PROGRAM);
    for (name, photo) in [("photos/cat.png", "chelsea"), ("photos/a b/rocket.png", "rocket")] {
        place.file(name, fs::read(golden::path(format!("images/{photo}.png"))).unwrap());
    }
    place
}

fn detect(place: &Place, arguments: &[&str]) -> Done {
    let weights = golden::path("detect/maskrcnn_s/model.pth");
    let always = ["detect", "photos", "-r", "-w", weights.to_str().unwrap(), "--scale", "256x160"];
    place.run(&[&always, arguments].concat())
}

fn segment(place: &Place, arguments: &[&str]) -> Done {
    let weights = golden::path("segment/upernet_b/model.pth");
    let always = ["segment", "photos", "-r", "-w", weights.to_str().unwrap(), "--scale", "128x64"];
    place.run(&[&always, arguments].concat())
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn numbers(list: &Value) -> Vec<f32> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn objects_are_the_same_in_every_format() {
    let place = photos();
    let formats = ["coco", "yolo", "voc", "labelme", "label-studio"];
    let exports: Vec<&str> = formats.iter().flat_map(|format| ["--export", format, format]).collect();
    let records: Vec<Detections> =
        detect(&place, &[&["--max-detections", "4", "--save", "drawn"], &exports[..]].concat()).records();
    assert_eq!(
        place.files().into_iter().filter(|file| !file.starts_with("photos/")).collect::<Vec<_>>(),
        [
            "coco/annotations.json",
            "drawn/a b/rocket.png",
            "drawn/cat.png",
            "label-studio/label_config.xml",
            "label-studio/tasks.json",
            "labelme/a b/rocket.json",
            "labelme/cat.json",
            "voc/Annotations/a b/rocket.xml",
            "voc/Annotations/cat.xml",
            "yolo/classes.txt",
            "yolo/data.yaml",
            "yolo/labels/a b/rocket.txt",
            "yolo/labels/cat.txt",
        ]
    );
    let coco = json(&place.path("coco/annotations.json"));
    let tasks = json(&place.path("label-studio/tasks.json"));
    let of = |key: &str| coco[key].as_array().unwrap();
    assert_eq!(of("categories")[20]["name"], "elephant");
    let ids: BTreeSet<_> =
        of("annotations").iter().map(|annotation| annotation["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), of("annotations").len());
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record.detections.len(), 4);
        let name = record.image.strip_prefix("photos/").unwrap();
        let stem = name.strip_suffix(".png").unwrap();
        let size = [record.width, record.height];
        let image = of("images").iter().find(|image| image["file_name"] == name).unwrap();
        assert_eq!([&image["width"], &image["height"]], [record.width, record.height]);
        let annotations: Vec<_> =
            of("annotations").iter().filter(|annotation| annotation["image_id"] == image["id"]).collect();
        let labels = fs::read_to_string(place.path(&format!("yolo/labels/{stem}.txt"))).unwrap();
        let xml = fs::read_to_string(place.path(&format!("voc/Annotations/{stem}.xml"))).unwrap();
        assert_eq!(xml.matches("<object>").count(), 4);
        let labelme = json(&place.path(&format!("labelme/{stem}.json")));
        let up = if name.contains('/') { "../../photos/" } else { "../photos/" };
        assert_eq!(labelme["imagePath"], format!("{up}{name}"));
        assert_eq!([&labelme["imageWidth"], &labelme["imageHeight"]], [record.width, record.height]);
        let task = &tasks[number];
        assert_eq!(task["data"]["image"], format!("/data/local-files/?d={}", name.replace(' ', "%20")));
        assert_eq!(task["predictions"][0]["model_version"], record.model);
        let regions = task["predictions"][0]["result"].as_array().unwrap();
        let of_kind =
            |kind: &str| -> Vec<&Value> { regions.iter().filter(|region| region["type"] == kind).collect() };
        assert_eq!([annotations.len(), labels.lines().count(), of_kind("brushlabels").len()], [4; 3]);
        for (i, found) in record.detections.iter().enumerate() {
            let annotation = annotations[i];
            assert_eq!(annotation["category_id"], found.category_id);
            assert_eq!(numbers(&annotation["bbox"]), found.bbox);
            assert_eq!(annotation["score"].as_f64().unwrap() as f32, found.score);
            let mask = Mask::decode(found.segmentation.as_ref().unwrap()).unwrap();
            let pixels = mask.pixels.iter().filter(|on| **on).count();
            assert_eq!(annotation["area"].as_f64().unwrap(), pixels as f64);
            // The polygons' areas are those of the mask's parts.
            let polygons = annotation["segmentation"].as_array().unwrap();
            let area: f64 = polygons.iter().map(|polygon| area(&numbers(polygon))).sum();
            assert_eq!(area, pixels as f64);
            let line: Vec<&str> = labels.lines().nth(i).unwrap().split(' ').collect();
            assert_eq!(line[0], found.index.to_string());
            assert!(line.len() >= 7 && line.len() % 2 == 1, "{line:?}");
            for point in line[1..].chunks(2) {
                let [x, y] =
                    [0, 1].map(|axis| (point[axis].parse::<f64>().unwrap() * size[axis] as f64) as usize);
                assert!(mask.whole(size)[y * size[0] + x], "{x} {y}");
            }
            assert!(xml.contains(&format!("<name>{}</name>", found.label)));
            let (label, score) = (found.label.clone(), found.score.to_string());
            let rectangle = &of_kind("rectanglelabels")[i]["value"];
            assert_eq!(rectangle["rectanglelabels"], serde_json::json!([label]));
            let left = rectangle["x"].as_f64().unwrap() / 100.0 * record.width as f64;
            assert!((left - f64::from(found.bbox[0])).abs() < 1e-4);
            let brush = of_kind("brushlabels")[i];
            assert_eq!(brush["parentID"], of_kind("rectanglelabels")[i]["id"]);
            let shapes = labelme["shapes"].as_array().unwrap();
            assert!(shapes.iter().any(|shape| shape["label"] == label && shape["description"] == score));
        }
    }
}

/// The area of a polygon of x and y in turn.
fn area(polygon: &[f32]) -> f64 {
    let points: Vec<[f64; 2]> =
        polygon.chunks(2).map(|point| [f64::from(point[0]), f64::from(point[1])]).collect();
    let after = points.iter().cycle().skip(1);
    points.iter().zip(after).map(|(a, b)| (a[0] * b[1] - b[0] * a[1]) / 2.0).sum()
}

#[test]
fn boxes_alone_are_boxes_in_every_format() {
    let place = photos();
    let formats = ["coco", "yolo", "voc", "labelme", "label-studio"];
    let exports: Vec<&str> = formats.iter().flat_map(|format| ["--export", format, "all"]).collect();
    let records: Vec<Detections> = detect(&place, &[&["--no-masks"], &exports[..]].concat()).records();
    let coco = json(&place.path("all/annotations.json"));
    let found = &records[1].detections;
    let annotation = coco["annotations"].as_array().unwrap().last().unwrap();
    assert!(annotation.get("segmentation").is_none() && annotation["iscrowd"] == 0);
    let [.., w, h] = found.last().unwrap().bbox;
    assert!((annotation["area"].as_f64().unwrap() - f64::from(w) * f64::from(h)).abs() < 1e-3);
    let labels = fs::read_to_string(place.path("all/labels/cat.txt")).unwrap();
    for (line, object) in labels.lines().zip(found) {
        let line: Vec<f64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        let [x, y, w, h] = object.bbox.map(f64::from);
        let wanted =
            [object.index as f64, (x + w / 2.0) / 451.0, (y + h / 2.0) / 300.0, w / 451.0, h / 300.0];
        assert!(line.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{line:?} {wanted:?}");
    }
    assert_eq!(labels.lines().count(), found.len());
    let labelme = json(&place.path("all/cat.json"));
    let shapes = labelme["shapes"].as_array().unwrap();
    assert!(shapes.len() == found.len() && shapes.iter().all(|shape| shape["shape_type"] == "rectangle"));
    let xml = fs::read_to_string(place.path("all/Annotations/cat.xml")).unwrap();
    assert!(!xml.contains("polygon") && xml.contains("<segmented>0</segmented>"));
    let tasks = fs::read_to_string(place.path("all/tasks.json")).unwrap();
    assert!(!tasks.contains("brush"));
    assert!(!fs::read_to_string(place.path("all/label_config.xml")).unwrap().contains("Brush"));
}

#[test]
fn regions_cover_what_the_record_says() {
    let place = photos();
    let exports = ["--export", "coco", "s", "--export", "yolo", "s", "--export", "label-studio", "s"];
    let records: Vec<Segmentation> = segment(&place, &exports).records();
    let coco = json(&place.path("s/annotations.json"));
    for record in records {
        let name = record.image.strip_prefix("photos/").unwrap();
        let images = coco["images"].as_array().unwrap();
        let id = &images.iter().find(|image| image["file_name"] == name).unwrap()["id"];
        let pixels: BTreeMap<u64, u64> =
            record.segments.iter().map(|s| (s.index as u64 + 1, s.pixels as u64)).collect();
        let annotations = coco["annotations"].as_array().unwrap().iter();
        let found: BTreeMap<u64, u64> = annotations
            .filter(|annotation| annotation["image_id"] == *id)
            .map(|a| (a["category_id"].as_u64().unwrap(), a["area"].as_f64().unwrap() as u64))
            .collect();
        assert_eq!(found, pixels);
        let stem = name.strip_suffix(".png").unwrap();
        let labels = fs::read_to_string(place.path(&format!("s/labels/{stem}.txt"))).unwrap();
        let classes: BTreeSet<u64> =
            labels.lines().map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap() + 1).collect();
        assert_eq!(classes, pixels.keys().copied().collect());
    }
    assert!(!fs::read_to_string(place.path("s/tasks.json")).unwrap().contains("rectangle"));
}

#[test]
fn classes_are_choices() {
    let place = Place::of(PROGRAM);
    place.digit("photos/nine.png");
    place.file("names", r#"["a&b","\"c\"","<d>","e\nf","g","h","i","j","k","n<i>n\"e"]"#);
    let run = ["photos", "--labels", "names", "--export", "label-studio", "tasks"];
    let records: Vec<Classification> = place.classify(&run).records();
    let task = &json(&place.path("tasks/tasks.json"))[0];
    let choice = &task["predictions"][0]["result"][0];
    assert_eq!(choice["value"]["choices"], serde_json::json!(["n<i>n\"e"]));
    assert_eq!(choice["score"].as_f64().unwrap() as f32, records[0].top[0].score);
    let config = fs::read_to_string(place.path("tasks/label_config.xml")).unwrap();
    for name in ["a&amp;b", "&quot;c&quot;", "&lt;d&gt;", "e f", "n&lt;i&gt;n&quot;e"] {
        assert!(config.contains(&format!("<Choice value=\"{name}\"/>")), "{name} {config}");
    }
    let done = place.classify(&["photos", "--export", "yolo", "x"]);
    assert!(done.status() == 2 && done.stderr().contains("classes of images are written as label-studio"));
    let done = place.classify(&["photos", "--export", "pdf", "x"]);
    assert!(done.status() == 2 && done.stderr().contains("--export pdf"), "{}", done.stderr());
}

#[test]
fn what_was_corrected_by_hand_is_not_replaced() {
    for (format, file) in [
        ("coco", "out/annotations.json"),
        ("label-studio", "out/tasks.json"),
        ("yolo", "out/labels/cat.txt"),
        ("yolo", "out/data.yaml"),
        ("voc", "out/Annotations/cat.xml"),
        ("labelme", "out/cat.json"),
    ] {
        let place = photos();
        place.file(file, "corrected");
        let before = place.files();
        let done = detect(&place, &["--export", format, "out", "-o", "r.jsonl"]);
        assert_eq!(done.status(), 2, "{format}: {}", done.stderr());
        assert!(done.stderr().contains(&format!("{file} is there already")), "{}", done.stderr());
        assert!(done.stderr().contains("--overwrite replaces it"), "{}", done.stderr());
        assert_eq!(place.files(), before, "{format}");
        assert_eq!(fs::read_to_string(place.path(file)).unwrap(), "corrected");
        detect(&place, &["--export", format, "out", "--overwrite"]).success();
        assert_ne!(fs::read_to_string(place.path(file)).unwrap(), "corrected");
    }
    // What the run reads is never replaced.
    let place = photos();
    detect(&place, &["--export", "coco", "out"]).success();
    let annotations = ["--annotations", "out/annotations.json", "--export", "coco", "out", "--overwrite"];
    let done = detect(&place, &annotations);
    assert!(done.status() == 2 && done.stderr().contains("is read by this run"), "{}", done.stderr());
    // Numbers that annotations give are kept.
    let numbered = fs::read_to_string(place.path("out/annotations.json"))
        .unwrap()
        .replace("\"id\":2,\"file_name\"", "\"id\":77,\"file_name\"");
    place.file("known.json", numbered);
    detect(&place, &["--annotations", "known.json", "--export", "coco", "two"]).success();
    let images = &json(&place.path("two/annotations.json"))["images"];
    let ids: Vec<_> = images.as_array().unwrap().iter().map(|image| image["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 77]);
}

#[test]
fn images_of_one_name_are_told_apart_or_refused() {
    let place = Place::of(PROGRAM);
    let weights = golden::path("detect/maskrcnn_s/model.pth");
    let detect = |images: &[&str], format: &str, folder: &str| {
        let always =
            ["detect", "-w", weights.to_str().unwrap(), "--scale", "96x64", "--export", format, folder];
        place.run(&[&always, images].concat())
    };
    place.digit("a/x.png");
    place.digit("b/x.png");
    detect(&["a/x.png", "b/x.png"], "yolo", "yolo").success();
    assert_eq!(names(&place.path("yolo/labels")), ["a", "b"]);
    detect(&["a/x.png", "b/x.png"], "coco", "coco").success();
    let images = &json(&place.path("coco/annotations.json"))["images"];
    assert_eq!([&images[0]["file_name"], &images[1]["file_name"]], ["a/x.png", "b/x.png"]);
    // YOLO, VOC and labelme find annotations by the stem; COCO needs no such thing.
    place.digit("a/x.jpg");
    for format in ["yolo", "voc", "labelme"] {
        let done = detect(&["a"], format, "other");
        assert!(done.status() == 2 && done.stderr().contains("would both be"), "{}", done.stderr());
    }
    detect(&["a"], "coco", "other").success();
    // Two datasets in one folder, and a dataset and the records, are told apart as well.
    place.digit("c/annotations.png");
    let weights = golden::path("detect/maskrcnn_s/model.pth");
    let always =
        ["detect", "c", "-w", weights.to_str().unwrap(), "--scale", "96x64", "--export", "coco", "d"];
    for (more, says) in [
        (&["--export", "labelme", "d"][..], "would be a file of --export coco d and of --export labelme d"),
        (&["--export", "coco", "d"], "is asked for twice"),
        (&["-o", "d/annotations.json"], "would be a dataset's file and --output"),
        (&["-o", "./d/annotations.json.partial"], "would be a dataset's file and --output"),
        (&["--export", "yolo", "e", "-o", "e/classes.txt"], "would be a dataset's file and --output"),
    ] {
        let before = place.files();
        let done = place.run(&[&always, more].concat());
        assert!(done.status() == 2 && done.stderr().contains(says), "{}", done.stderr());
        assert_eq!(place.files(), before);
    }
    // Named twice it is one image, once in the dataset.
    detect(&["b/x.png", "b/x.png"], "coco", "twice").success();
    assert_eq!(json(&place.path("twice/annotations.json"))["images"].as_array().unwrap().len(), 1);
}

#[test]
fn shares_number_nothing_alike() {
    let place = photos();
    for name in ["photos/1.png", "photos/2.png", "photos/3.png"] {
        place.digit(name);
    }
    let mut ids = BTreeMap::new();
    for share in ["1/2", "2/2"] {
        let exports =
            ["--export", "coco", "out", "--export", "yolo", "out", "--export", "label-studio", "out"];
        detect(&place, &[&["--shard", share, "--max-detections", "3"], &exports[..]].concat()).success();
    }
    assert_eq!(names(&place.path("out/labels")).len(), 5);
    for share in ["1-of-2", "2-of-2"] {
        let coco = json(&place.path(&format!("out/annotations.{share}.json")));
        assert!(json(&place.path(&format!("out/tasks.{share}.json"))).as_array().unwrap().len() >= 2);
        for key in ["images", "annotations"] {
            for item in coco[key].as_array().unwrap() {
                *ids.entry((key, item["id"].as_u64().unwrap())).or_insert(0) += 1;
            }
        }
    }
    assert!(ids.len() == 5 + 15 && ids.values().all(|count| *count == 1), "{ids:?}");
}

/// A run that is killed again and again, and goes on, ends with the files of one that nobody killed.
#[test]
fn a_killed_run_goes_on_to_the_same_dataset() {
    let place = Place::of(PROGRAM);
    for i in 0..40 {
        place.digit(&format!("photos/{i:02}.png"));
    }
    place.file("photos/07x.png", "no image");
    let weights = golden::path("detect/maskrcnn_s/model.pth");
    let run = |folder: &str, more: &[&str]| {
        let output = format!("{folder}.jsonl");
        let detect = [
            "detect",
            "photos",
            "-w",
            weights.to_str().unwrap(),
            "--scale",
            "96x64",
            "--batch-size",
            "2",
            "--max-detections",
            "5",
            "-o",
            &output,
        ];
        let exports = ["coco", "yolo", "label-studio"].iter().flat_map(|format| ["--export", format, folder]);
        let mut run = place.command(&[&detect, &exports.collect::<Vec<_>>()[..], more].concat());
        run.stderr(Stdio::piped()).stdout(Stdio::null());
        run
    };
    assert_eq!(Done(run("whole", &[]).output().unwrap()).status(), 1);
    let lines =
        |name: &str| fs::read(place.path(name)).map_or(0, |bytes| bytes.split(|byte| *byte == b'\n').count());
    for _ in 0..4 {
        let begun = lines("out.jsonl.partial");
        let mut child = run("out", &["--resume"]).spawn().unwrap();
        let begin = Instant::now();
        while lines("out.jsonl.partial") < begun + 6 && !place.path("out.jsonl").exists() {
            assert!(begin.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(!place.path("out/annotations.json").exists());
    // Begun anew nothing of it is lost without a word, and a line that was cut is no obstacle.
    let done = Done(run("out", &[]).output().unwrap());
    assert!(done.status() == 2 && done.stderr().contains("interrupted run"), "{}", done.stderr());
    for file in ["out/annotations.json.partial", "out/tasks.json.partial"] {
        let cut = fs::read_to_string(place.path(file)).unwrap() + "{\"ima";
        fs::write(place.path(file), cut).unwrap();
    }
    let same = || {
        assert_eq!(names(&place.path("out/labels")), names(&place.path("whole/labels")));
        for file in [
            "annotations.json",
            "tasks.json",
            "label_config.xml",
            "data.yaml",
            "labels/00.txt",
            "labels/39.txt",
        ] {
            let [a, b] =
                ["out", "whole"].map(|folder| fs::read(place.path(&format!("{folder}/{file}"))).unwrap());
            assert!(a == b, "{file}");
        }
        assert!(!place.files().iter().any(|file| file.ends_with(".partial")));
    };
    assert_eq!(Done(run("out", &["--resume"]).output().unwrap()).status(), 1);
    same();
    // A run that was complete goes on with what is new, and keeps what somebody corrected: of the image that is computed again
    // to compare, and of others.
    assert_eq!(Done(run("out", &["--resume"]).output().unwrap()).status(), 1);
    same();
    fs::write(place.path("out/labels/39.txt"), "corrected").unwrap();
    let coco = fs::read_to_string(place.path("out/annotations.json")).unwrap();
    let corrected = coco.replace("\"id\":3,\"image_id\":1,", "\"id\":3,\"image_id\":2,");
    assert_ne!(coco, corrected);
    fs::write(place.path("out/annotations.json"), &corrected).unwrap();
    place.digit("photos/40.png");
    assert_eq!(Done(run("out", &["--resume"]).output().unwrap()).status(), 1);
    let after = json(&place.path("out/annotations.json"));
    assert_eq!(after["images"].as_array().unwrap().len(), 41);
    let of_the_second = after["annotations"].as_array().unwrap().iter().filter(|one| one["image_id"] == 2);
    assert_eq!(of_the_second.count(), 6);
    assert_eq!(fs::read_to_string(place.path("out/labels/39.txt")).unwrap(), "corrected");
    // What others added would be lost: then nothing is written.
    for (file, from, to) in [
        ("annotations.json", "\"licenses\":[]", "\"licenses\":[{\"id\":1}]"),
        ("annotations.json", "\"iscrowd\":0", "\"attributes\":{},\"iscrowd\":0"),
        ("tasks.json", "\"predictions\":", "\"annotations\":[],\"predictions\":"),
    ] {
        let path = place.path(&format!("out/{file}"));
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, before.replacen(from, to, 1)).unwrap();
        place.digit("photos/41.png");
        let done = Done(run("out", &["--resume"]).output().unwrap());
        assert!(done.status() == 2 && done.stderr().contains("has more in it"), "{}", done.stderr());
        assert_eq!(fs::read_to_string(&path).unwrap(), before.replacen(from, to, 1));
        fs::write(&path, before).unwrap();
        assert_eq!(lines("out.jsonl.partial"), 0, "the records are as they were");
    }
    // What an earlier run did without the dataset is missed in so many words.
    fs::remove_file(place.path("photos/41.png")).unwrap();
    let more = ["--resume", "--export", "labelme", "late"];
    let done = Done(run("out", &more).output().unwrap());
    assert!(done.stderr().contains("have no annotations in late"), "{}", done.stderr());
}

/// The moment between the dataset and the records, in which nothing is left to do, and others like it.
#[test]
fn no_moment_leaves_a_dataset_behind_its_records() {
    let place = Place::of(PROGRAM);
    for i in 0..4 {
        place.digit(&format!("photos/{i}.png"));
    }
    let run = |more: &[&str]| {
        place.classify(&[&["photos", "-o", "r.jsonl", "--export", "label-studio", "out"], more].concat())
    };
    run(&[]).success();
    let tasks = fs::read_to_string(place.path("out/tasks.json")).unwrap();
    let records = fs::read(place.path("r.jsonl")).unwrap();
    // Killed when the dataset had its name and the records had not.
    fs::rename(place.path("r.jsonl"), place.path("r.jsonl.partial")).unwrap();
    run(&["--resume"]).success();
    assert_eq!(fs::read_to_string(place.path("out/tasks.json")).unwrap(), tasks);
    assert_eq!(fs::read(place.path("r.jsonl")).unwrap(), records);
    // Killed when it had its name and its lines were still there; and then somebody corrected it.
    let lines: Vec<Value> = serde_json::from_str(&tasks).unwrap();
    let lines: String = lines.iter().map(|task| format!("{task}\n")).collect();
    fs::rename(place.path("r.jsonl"), place.path("r.jsonl.partial")).unwrap();
    place.file("out/tasks.json.partial", "{\"continues\":0}\n".to_owned() + &lines);
    thread::sleep(Duration::from_millis(20));
    let corrected = tasks.replace("\"9\"", "\"8\"");
    place.file("out/tasks.json", &corrected);
    run(&["--resume"]).success();
    assert_eq!(fs::read_to_string(place.path("out/tasks.json")).unwrap(), corrected);
    assert!(!place.path("out/tasks.json.partial").exists());
    // Records that are complete, and a dataset that is not there: said, and nothing is made of it.
    fs::remove_dir_all(place.path("out")).unwrap();
    let done = run(&["--resume"]);
    assert!(
        done.status() == 0
            && done.stderr().contains("4 images that an earlier run finished have no annotations")
    );
    // A dataset that can't be written leaves the records to be gone on with.
    run(&["--overwrite"]).success();
    fs::remove_file(place.path("out/label_config.xml")).unwrap();
    fs::create_dir(place.path("out/label_config.xml")).unwrap();
    let done = run(&["--overwrite"]);
    assert!(
        done.status() == 1 && done.stderr().contains("label_config.xml: can't be written"),
        "{}",
        done.stderr()
    );
    assert!(place.path("r.jsonl.partial").exists());
}

#[test]
fn an_interrupted_run_without_a_file_to_go_on_with_is_a_dataset_of_what_is_done() {
    let place = Place::of(PROGRAM);
    for i in 0..400 {
        place.digit(&format!("photos/{i:03}.png"));
    }
    let arguments = [
        "classify",
        "--model",
        "demo-digits",
        "photos",
        "--batch-size",
        "1",
        "--threads",
        "1",
        "--export",
        "label-studio",
        "out",
    ];
    let mut command = place.command(&arguments);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while fs::metadata(place.path("out/tasks.json.partial")).map_or(0, |found| found.len()) < 2000 {
        assert!(begin.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(1));
    }
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let done = Done(child.wait_with_output().unwrap());
    assert_eq!(done.status(), 130, "{}", done.stderr());
    let tasks = json(&place.path("out/tasks.json"));
    let count = tasks.as_array().unwrap().len();
    assert!((10..400).contains(&count), "{count}");
    assert!(!place.path("out/tasks.json.partial").exists());
}
