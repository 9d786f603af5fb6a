//! The program as a user runs it: inputs, formats, exit statuses, and what it says about bad input.

#[cfg(target_os = "linux")]
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use nat_convert::checkpoint::{Checkpoint, Options, Part};
use nat_convert::write::{WriteOptions, write};
use nat_infer::results::{
    Classification, Detections, NetworkTiming, SavedFeatures, SavedSaliency, Segmentation,
};
use nat_infer::simd::Isa;
use nat_infer::zoo;
use nat_testing::bound;
use nat_testing::checkpoint::Saved;
use nat_testing::close::{largest, relative};
use nat_testing::golden;
use nat_testing::picture::turned_png;
use nat_testing::place::{DIGIT, Done, Place};
use serde_json::Value;

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_nat-infer");

fn images(records: &[Classification]) -> Vec<&str> {
    records.iter().map(|record| record.image.as_str()).collect()
}

#[test]
fn a_digit_is_read_without_network_or_files() {
    let place = Place::of(PROGRAM);
    let records = place.classify(&[DIGIT]).records::<Classification>();
    assert_eq!((records.len(), records[0].model.as_str(), records[0].top.len()), (1, "demo-digits", 5));
    assert_eq!((records[0].top[0].index, records[0].top[0].label.as_str()), (9, "9"));
    assert!(records[0].top.is_sorted_by(|a, b| a.score >= b.score));
    assert_eq!(place.files(), [] as [&str; 0]);
}

#[test]
fn records_are_what_pytorch_answers() {
    let (place, image) = (Place::of(PROGRAM), golden::path("images/chelsea.png"));
    for (weights, answers, labels) in [
        ("classify/nat-k7.pth", "classify/nat-k7.safetensors", None),
        ("transformers/nat-hf", "transformers/nat-hf/golden.safetensors", Some("pagoda")),
    ] {
        let logits = Saved::read(golden::path(answers)).floats("logits");
        let weights = golden::path(weights);
        let arguments = ["classify", image.to_str().unwrap(), "-w", weights.to_str().unwrap()];
        let classes = logits.len();
        let line = place.run(&[&arguments[..], &["-k", "100", "--dilations", "1/1/1/1"]].concat()).success();
        let raw: Value = serde_json::from_str(&line).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&raw), ["image", "model", "top"]);
        assert_eq!(keys(&raw["top"][0]), ["index", "label", "score"]);

        let record: Classification = serde_json::from_value(raw).unwrap();
        assert_eq!((record.image.as_str(), record.top.len()), (image.to_str().unwrap(), classes));
        // Its name, and the beginning of its hash.
        let (file, hash) = record.model.split_once('@').unwrap();
        assert_eq!(file, weights.file_name().unwrap());
        assert!(hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        for scored in &record.top {
            let expected = f64::from(logits[scored.index]).exp() / sum;
            assert!(
                (f64::from(scored.score) - expected).abs() <= bound::NETWORK * expected,
                "{scored:?}: {expected}"
            );
            match labels {
                None => assert_eq!(scored.label, scored.index.to_string()),
                Some(name) => assert_eq!(scored.label == name, scored.index == 3),
            }
        }
    }
}

#[test]
fn inputs_keep_their_order_however_they_are_batched() {
    let place = Place::of(PROGRAM);
    for name in ["photos/b.png", "photos/a.png", "photos/deeper/no.png", "c.jpg.png"] {
        place.digit(name);
    }
    place.file("photos/notes.txt", "not an image");
    let grey = golden::path("images/camera.png");
    let arguments = ["photos", grey.to_str().unwrap(), "*.png", "photos/b.png"];
    let one = place.classify(&[&arguments[..], &["--batch-size", "1"]].concat()).records::<Classification>();
    let expected = ["photos/a.png", "photos/b.png", grey.to_str().unwrap(), "c.jpg.png", "photos/b.png"];
    assert_eq!(images(&one), expected);
    assert_ne!(one[2].top, one[1].top);
    for batch in ["2", "3", "64"] {
        let many =
            place.classify(&[&arguments[..], &["--batch-size", batch]].concat()).records::<Classification>();
        assert_eq!(images(&many), expected);
        for (a, b) in one.iter().zip(&many).flat_map(|(a, b)| a.top.iter().zip(&b.top)) {
            assert!(
                a.index == b.index && f64::from(a.score - b.score).abs() < bound::SAME_SCORE,
                "{batch}: {a:?} {b:?}"
            );
        }
    }
}

#[test]
fn an_image_comes_from_stdin() {
    let place = Place::of(PROGRAM);
    let mut child = place
        .command(&["classify", "--model", "demo-digits", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(DIGIT).unwrap()).unwrap();
    let records = Done(child.wait_with_output().unwrap()).records::<Classification>();
    assert_eq!((images(&records), records[0].top[0].index), (vec!["-"], 9));
    // The next thing on stdin is nothing.
    let done = place.classify(&["-"]);
    assert_eq!((done.status(), done.stdout().as_str()), (1, ""));
    assert!(
        done.stderr().starts_with("nat-infer: -: an empty file; copy or download it again"),
        "{}",
        done.stderr()
    );
}

#[test]
fn every_format_holds_the_same() {
    let place = Place::of(PROGRAM);
    place.digit("a,b.png");
    place.digit("c.png");
    let arguments = ["a,b.png", "c.png", "-k", "2", "--format"];
    let format = |name| place.classify(&[&arguments[..], &[name]].concat()).success();
    let lines: Vec<Value> = format("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(serde_json::from_str::<Vec<Value>>(&format("json")).unwrap(), lines);

    let csv = format("csv");
    let csv: Vec<&str> = csv.lines().collect();
    assert_eq!((csv.len(), csv[0]), (5, "image,model,rank,index,label,score"));
    assert_eq!(csv[1], format!("\"a,b.png\",demo-digits,1,9,9,{}", lines[0]["top"][0]["score"]));
    assert!(csv[4].starts_with("c.png,demo-digits,2,"));

    let table = format("table");
    let percent = 100.0 * lines[0]["top"][0]["score"].as_f64().unwrap();
    let first = ["a,b.png", &format!("  {percent:6.2}%  9")];
    assert!(table.lines().take(2).eq(first), "{table}");
    assert_eq!(table.lines().count(), 6);
}

#[test]
fn results_go_to_a_file_whole_or_not_at_all() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    let stdout = place.classify(&["a.png"]).success();
    assert_eq!(place.classify(&["a.png", "--output", "out"]).success(), "");
    assert_eq!(fs::read_to_string(place.path("out")).unwrap(), stdout);

    // No model, no output: what was there stays.
    let done = place.run(&["classify", "a.png", "--weights", "a.png", "--output", "out"]);
    assert_eq!((done.status(), place.files()), (2, vec!["a.png".to_owned(), "out".to_owned()]));
    assert_eq!(fs::read_to_string(place.path("out")).unwrap(), stdout);
    let done = place.classify(&["a.png", "--output", "no/such/out"]);
    assert_eq!((done.status(), done.stderr().lines().count()), (2, 1));
    assert!(done.stderr().contains("no/such/out: can't be written"), "{}", done.stderr());
}

#[test]
fn labels_come_from_a_file() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    let names: Vec<String> = (0..10).map(|i| format!("number {i}")).collect();
    place.file("lines", names.join("\r\n"));
    place.file("list.json", serde_json::to_string(&names).unwrap());
    for file in ["lines", "list.json"] {
        assert_eq!(
            place.classify(&["a.png", "--labels", file]).records::<Classification>()[0].top[0].label,
            "number 9"
        );
    }
    place.file("short", "one\ntwo\n");
    for (file, says) in [
        ("short", "2 labels are given and `demo-digits` has 10 classes"),
        ("nope", "--labels nope: No such file"),
    ] {
        let done = place.classify(&["a.png", "--labels", file]);
        assert!(done.status() == 2 && done.stderr().contains(says), "{}", done.stderr());
    }
}

#[test]
fn preprocessing_can_be_chosen() {
    let place = Place::of(PROGRAM);
    let mut turned = image::DynamicImage::ImageRgb8(image::open(DIGIT).unwrap().into_rgb8());
    place.digit("upright.png");
    turned = turned.rotate270();
    turned.save(place.path("turned.png")).unwrap();
    let turned = turned_png(&fs::read(place.path("turned.png")).unwrap(), 6);
    place.file("turned.png", turned);
    let top = |arguments: &[&str]| place.classify(arguments).records::<Classification>().swap_remove(0).top;
    let upright = top(&["upright.png"]);
    assert_eq!(top(&["turned.png"]), upright);
    assert_eq!(top(&["turned.png", "--exif", "apply"]), upright);
    assert_ne!(top(&["turned.png", "--exif", "ignore"]), upright);
    assert_ne!(top(&["upright.png", "--crop-pct", "0.5"]), upright);
    assert_ne!(top(&["upright.png", "--resolution", "128"]), upright);
    assert_eq!(top(&["upright.png", "--resolution", "96", "--crop-pct", "1", "--threads", "1"]), upright);
}

/// Those of this processor, as `NAT_INFER_ISA` takes them.
fn instruction_sets() -> Vec<String> {
    Isa::all_available().map(|isa| format!("{isa:?}").to_lowercase()).collect()
}

#[test]
fn one_bad_image_among_many_is_reported_and_skipped() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    place.file("b.png", "this is no picture");
    place.digit("c.png");
    let whole = fs::read(DIGIT).unwrap();
    place.file("d.png", &whole[..whole.len() / 2]);
    for batch in ["1", "2", "8"] {
        let done = place.classify(&[".", "nope.png", "-b", batch]);
        assert_eq!(done.status(), 1);
        let records: Vec<Value> =
            done.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let images: Vec<_> = records.iter().map(|record| record["image"].as_str().unwrap()).collect();
        assert_eq!(images, ["./a.png", "./c.png"]);
        let stderr = done.stderr();
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(lines.len(), 4, "{stderr}");
        assert!(lines[0].starts_with("nat-infer: ./b.png: not an image, it looks like text"), "{stderr}");
        assert!(lines[1].starts_with("nat-infer: ./d.png: truncated PNG image"), "{stderr}");
        assert_eq!(lines[2], "nat-infer: nope.png: no such file or folder");
        assert!(lines[3].starts_with("nat-infer: 2 images done, 3 failed, "), "{stderr}");
    }
}

#[test]
fn bad_input_gets_one_clear_line_and_the_promised_status() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    place.file("text.jpg", "dear reader");
    place.file("page.png", "<!DOCTYPE html>");
    place.file("empty.png", "");
    let whole = fs::read(golden::path("pillow/decode/444.jpg")).unwrap();
    place.file("cut.jpg", &whole[..whole.len() - 40]);
    // A header that promises 60000 x 60000 pixels.
    place.file(
        "huge.png",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0\x0f\xb0\xe2\x15\0\0\0\0IDAT",
    );
    place.file("\u{1b}[31m.png", "text");
    fs::create_dir(place.path("folder")).unwrap();
    let segmenter = golden::path("segment/upernet_b/model.pth");
    let segmenter = segmenter.to_str().unwrap();
    let detector = ["classify", "a.png", "--model", "mask-rcnn-nat-tiny"];
    let demo = |arguments: &[&'static str]| [&["classify", "--model", "demo-digits"], arguments].concat();
    for (arguments, status, says) in [
        (demo(&["nope.png"]), 1, "nope.png: no such file or folder"),
        (demo(&["*.tiff"]), 1, "*.tiff: no file matches"),
        (demo(&["folder"]), 1, "folder: no image in this folder"),
        (demo(&["text.jpg"]), 1, "text.jpg: not an image, it looks like text"),
        (demo(&["page.png"]), 1, "page.png: not an image, it looks like a web page"),
        (demo(&["empty.png"]), 1, "empty.png: an empty file; copy or download it again"),
        (demo(&["cut.jpg"]), 1, "cut.jpg: truncated JPEG image"),
        (demo(&["huge.png"]), 1, "huge.png: 60000x60000 is over the limit of 268435456 pixels"),
        (demo(&["\u{1b}[31m.png"]), 1, "?[31m.png: not an image"),
        (demo(&["a.png", "--crop-pct", "1.5"]), 2, "crop_pct 1.5 is not"),
        (demo(&["a.png", "--resolution", "100000"]), 2, "resolution 100000 is not"),
        (demo(&["a.png", "--arch", "nat-mini"]), 2, "--arch says what a file of --weights is"),
        (
            demo(&["a.png", "--dilations", "1/1/1/1"]),
            2,
            "--dilations says what a file of --weights is; --model demo-digits has its own",
        ),
        (
            vec!["classify", "a.png", "--dilations", "1/1/1/1"],
            2,
            "--dilations says what a file of --weights is; --model nat-tiny has its own",
        ),
        (vec!["classify", "a.png", "--model", "user/repo@v2"], 2, "`user/repo@v2` is not in the cache"),
        (
            vec!["classify", "a.png", "--weights", "https://a.example/x.pth"],
            2,
            "`https://a.example/x.pth` is not in",
        ),
        (demo(&["a.png", "--device", "cuda:9"]), 2, "GPU 9"),
        (vec!["classify", "a.png"], 2, "`nat-tiny` is not in the cache"),
        (vec!["classify", "a.png"], 2, "--model demo-digits is part of the program"),
        (vec!["classify", "a.png", "--weights", "nope.pth"], 2, "nope.pth"),
        (vec!["classify", "a.png", "--weights", "a.png"], 2, "a.png"),
        (vec!["classify", "a.png", "--weights", segmenter], 2, "is made to segment, it can't classify"),
        (detector.to_vec(), 2, "`mask-rcnn-nat-tiny` is made to detect, it can't classify"),
        (
            vec!["detect", "a.png", "--model", "demo-digits"],
            2,
            "`demo-digits` is made to classify, it can't detect",
        ),
        (vec!["features", "a.png", "--model", "demo-digits", "--save", "a.png/x"], 1, "--save a.png/x"),
        (
            vec!["saliency", "a.png", "--model", "demo-digits", "--save", "out", "--class", "10"],
            2,
            "`demo-digits` has the classes 0 to 9, 10 is none",
        ),
        (
            vec!["saliency", "a.png", "--save", "out", "--method", "grad-cam", "--seed", "1"],
            2,
            "--seed is for --method smooth-grad",
        ),
        (
            vec!["saliency", "a.png", "--save", "out", "--method", "grad-cam", "-b", "4"],
            2,
            "--batch-size is for --method smooth-grad",
        ),
        (
            vec!["saliency", "a.png", "--save", "out", "--noise", "0", "--samples", "50"],
            2,
            "would be 50 times the same",
        ),
        (vec!["saliency", "a.png", "--weights", segmenter, "--save", "out"], 2, "is made to segment"),
        (vec!["saliency", "a.png", "--model", "demo-digits", "--save", "."], 2, "a.png would be replaced"),
        (vec!["models", "path", "nat-tiny"], 1, "`nat-infer models pull nat-tiny` fetches it"),
        (vec!["models", "pull", "nat-tiny"], 1, "HF_HUB_OFFLINE forbids fetching it"),
        (vec!["man", "nope"], 2, "there is no command `nope`"),
        (
            vec!["bench", "--arch", "mask-rcnn-nat-mini", "--gradients"],
            2,
            "--gradients times classifiers, `mask-rcnn-nat-mini` is made to detect",
        ),
        (vec!["bench", "--model", "upernet-nat-mini", "--gradients"], 2, "is made to segment"),
        (vec!["bench", "--weights", segmenter, "--gradients"], 2, "has no gradients: only classifiers have"),
    ] {
        let before = place.files();
        let done = place.run(&arguments);
        let stderr = done.stderr();
        assert_eq!((done.status(), done.stdout().as_str()), (status, ""), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("nat-infer: ") && stderr.contains(says), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(!stderr.contains(['\u{1b}']) && !stderr.contains("panicked"), "{stderr}");
        assert_eq!(place.files(), before, "{arguments:?}");
    }
}

#[test]
fn wrong_usage_names_the_option_and_what_it_takes() {
    let place = Place::of(PROGRAM);
    for (arguments, says) in [
        (&["classify"][..], "<INPUT>..."),
        (&["classify", "a.png", "--model", "nat-tny"], "the nearest names are nat-tiny"),
        (&["classify", "a.png", "--model", "user/../x"], "is no repository of the Hub"),
        (&["classify", "a.png", "--weights", "x", "--arch", "dinat-bse"], "dinat-base"),
        (&["classify", "a.png", "--model", "nat-tiny", "--weights", "x"], "cannot be used with"),
        (&["classify", "a.png", "--top-k", "0"], "a whole number from 1"),
        (&["classify", "a.png", "--device", "tpu"], "auto, cpu, cuda and cuda:N"),
        (&["classify", "a.png", "--dilations", "1,x"], "is not a number from 1 to 4096"),
        (&["classify", "a.png", "--format", "xml"], "[possible values: table, json, jsonl, csv, coco]"),
        (&["features", "a.png"], "--save <DIR>"),
        (&["saliency", "a.png"], "--save <DIR>"),
        (&["saliency", "a.png", "--save", "x", "--noise", "-0.5"], "a number from 0"),
        (&["saliency", "a.png", "--save", "x", "--samples", "0"], "a whole number from 1"),
        (&["models", "show", "nat-tny"], "nat-tiny"),
        (&["nope"], "unrecognized subcommand"),
    ] {
        let done = place.run(arguments);
        assert_eq!((done.status(), done.stdout().as_str()), (2, ""), "{arguments:?}");
        assert!(done.stderr().contains(says), "{arguments:?}: {}", done.stderr());
    }
}

#[test]
fn features_are_what_pytorch_computes() {
    let place = Place::of(PROGRAM);
    let weights = golden::path("classify/nat-k7.pth");
    let image = golden::path("images/chelsea.png");
    let arguments =
        ["features", image.to_str().unwrap(), "--save", "new/out", "-w", weights.to_str().unwrap()];
    let line = place.run(&[&arguments[..], &["--arch", "nat-tiny"]].concat());
    assert_eq!(line.status(), 2, "nat-tiny is larger: {}", line.stderr());
    let record: SavedFeatures =
        serde_json::from_str(&place.run(&[&arguments[..], &["--dilations", "1/1/1/1"]].concat()).success())
            .unwrap();
    assert_eq!(record.file, "new/out/chelsea.safetensors");
    let (ours, theirs) = (place.path(&record.file), golden::path("classify/nat-k7.safetensors"));
    let (ours, theirs) = (Saved::read(ours), Saved::read(theirs));
    let names = ours.names();
    assert_eq!(names, ["input", "logits", "pooled", "stage1", "stage2", "stage3", "stage4"]);
    assert!(record.tensors.keys().eq(&names));
    for name in &names {
        assert_eq!(record.tensors[name], ours.shape(name));
        // Of the first stage the original has the corner only.
        if name != "stage1" {
            assert_eq!(ours.shape(name), theirs.shape(name), "{name}");
            let off = relative(&ours.floats(name), &theirs.floats(name));
            assert!(off <= bound::NETWORK, "{name}: {off}");
        }
    }
}

#[test]
fn features_do_not_depend_on_the_batch() {
    let place = Place::of(PROGRAM);
    place.digit("digit.png");
    let photo = golden::path("images/rocket.png");
    for (folder, batch) in [("one", "1"), ("two", "2")] {
        let model = ["features", "--model", "demo-digits", "--save", folder, "--batch-size", batch];
        place.run(&[&model[..], &["digit.png", photo.to_str().unwrap()]].concat()).success();
    }
    for name in ["digit.safetensors", "rocket.safetensors"] {
        let [one, two] = ["one", "two"].map(|folder| Saved::read(place.path(folder).join(name)));
        for name in one.names() {
            let off = largest(&one.floats(&name), &two.floats(&name));
            assert!(off <= 1e-5, "{name}: {off}");
        }
    }
}

#[test]
fn the_backbone_of_a_detector_or_segmenter_gives_features() {
    for network in ["segment/upernet_b", "detect/maskrcnn_s"] {
        let place = Place::of(PROGRAM);
        place.digit("a.png");
        let original = golden::path(network).join("model.pth");
        // The whole network and the backbone alone, as the converter writes them.
        let [whole, backbone] = [Part::All, Part::Backbone].map(|part| {
            let checkpoint = Checkpoint::open(&original, &Options::default().with_part(part)).unwrap();
            let path = place.path(&format!("{part:?}.safetensors"));
            write(&checkpoint, &path, WriteOptions::default(), &AtomicBool::new(false)).unwrap();
            path
        });
        let saved = [&original, &whole, &backbone].map(|weights| {
            let weights = weights.to_str().unwrap();
            let size = ["--resolution", "64", "-q", "--save", "."];
            let line = place.run(&[&["features", "a.png", "-w", weights], &size[..]].concat()).success();
            let record: SavedFeatures = serde_json::from_str(&line).unwrap();
            let names: Vec<_> = record.tensors.keys().collect();
            assert_eq!(names, ["input", "stage1", "stage2", "stage3", "stage4"], "{weights}");
            assert_eq!(record.tensors["input"], [1, 3, 64, 64], "{weights}");
            assert_eq!(record.tensors["stage4"][2..], [2, 2], "{weights}");
            fs::read(place.path("a.safetensors")).unwrap()
        });
        assert!(saved[0] == saved[1] && saved[0] == saved[2], "{network}");
    }
}

#[test]
fn a_detectors_backbone_is_fed_as_the_detector() {
    let place = Place::of(PROGRAM);
    let set = golden::path("detect/cascade_b");
    let [image, weights] = ["image.png", "model.pth"].map(|name| set.join(name).to_str().unwrap().to_owned());
    place.run(&["features", &image, "-w", &weights, "-q", "--save", "."]).success();
    let ours = Saved::read(place.path("image.safetensors"));
    let theirs = Saved::read(set.join("tensors.safetensors"));
    assert_eq!(ours.shape("input"), [1, 3, 320, 416]);
    // The one map that was stored whole.
    assert!(relative(&ours.floats("stage4"), &theirs.floats("backbone.3")) < bound::NETWORK);
}

#[test]
fn objects_are_those_of_mmdet_in_every_form() {
    let place = Place::of(PROGRAM);
    let set = golden::path("detect/cascade_b");
    let [image, weights] = ["image.png", "model.pth"].map(|name| set.join(name).to_str().unwrap().to_owned());
    let detect = |more: &[&str]| -> Detections {
        let line = place.run(&[&["detect", &image, "-w", &weights, "-q"], more].concat()).success();
        serde_json::from_str(&line).unwrap()
    };
    let all = detect(&["--save", "drawn", "--draw-threshold", "0.5"]);
    let expected: Value = serde_json::from_slice(&fs::read(set.join("golden.json")).unwrap()).unwrap();
    let expected = expected["results"].as_array().unwrap();
    assert_eq!((all.width, all.height, all.detections.len()), (299, 223, expected.len()));
    for (ours, want) in all.detections.iter().zip(expected).take(3) {
        let number = |v: &Value| v.as_f64().unwrap() as f32;
        assert_eq!(ours.index as u64, want["label"].as_u64().unwrap());
        assert!((ours.score - number(&want["score"])).abs() < 1e-4);
        let [x, y, w, h] = ours.bbox;
        for (edge, want) in [x, y, x + w, y + h].into_iter().zip(want["bbox"].as_array().unwrap()) {
            assert!((edge - number(want)).abs() < 0.01, "{ours:?}");
        }
        assert_eq!(ours.segmentation.as_ref().unwrap().size, [223, 299]);
    }
    // Class 63 of COCO's 80 has the number 73.
    let first = &all.detections[0];
    assert_eq!((first.index, first.category_id, first.label.as_str()), (63, 73, "laptop"));

    let picture = image::open(place.path("drawn/image.png")).unwrap().into_rgb8();
    let original = image::open(&image).unwrap().into_rgb8();
    // Drawn three times as large.
    assert_eq!(picture.dimensions(), (3 * 299, 3 * 223));
    let [left, top, ..] = first.bbox.map(|edge| (3.0 * edge).round() as u32);
    assert_ne!(picture.get_pixel(left, top + 9), original.get_pixel(left / 3, top / 3 + 3));

    let boxes = detect(&["--no-masks", "--max-detections", "3"]);
    assert!(boxes.detections.iter().all(|object| object.segmentation.is_none()));
    let places = |all: &Detections| all.detections.iter().map(|d| (d.index, d.bbox)).collect::<Vec<_>>();
    assert_eq!(places(&boxes), places(&all)[..3]);
    assert_eq!(detect(&["--score-threshold", "0.99"]).detections, []);
    let smaller = detect(&["--scale", "200x100"]);
    assert!(places(&smaller) != places(&all) && smaller.width == 299);
    let csv = place.run(&["detect", &image, "-w", &weights, "-q", "--format", "csv"]).success();
    assert_eq!(csv.lines().count(), 1 + all.detections.len());
}

#[test]
fn pictures_of_any_size_go_through_a_detector_together() {
    let place = Place::of(PROGRAM);
    let weights = golden::path("detect/maskrcnn_s/model.pth");
    for (name, width, height) in [("a.png", 32, 32), ("b.png", 300, 40), ("c.png", 1, 1)] {
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 7) as u8, (y * 5) as u8, 90]))
            .save(place.path(name))
            .unwrap();
    }
    let arguments =
        ["detect", "a.png", "b.png", "c.png", "-w", weights.to_str().unwrap(), "-q", "--scale", "96x64"];
    let [one, three] =
        ["1", "3"].map(|batch| place.run(&[&arguments[..], &["-b", batch]].concat()).success());
    assert_eq!(one, three);
    let sizes: Vec<_> = one
        .lines()
        .map(|line| serde_json::from_str::<Detections>(line).unwrap())
        .map(|record| (record.width, record.height))
        .collect();
    assert_eq!(sizes, [(32, 32), (300, 40), (1, 1)]);
}

#[test]
fn pixels_are_named_as_mmseg_names_them() {
    let place = Place::of(PROGRAM);
    let set = golden::path("segment/upernet_b");
    let [image, weights] = ["image.png", "model.pth"].map(|name| set.join(name).to_str().unwrap().to_owned());
    let segment = |more: &[&str]| -> Segmentation {
        let line = place.run(&[&["segment", &image, "-w", &weights, "-q"], more].concat()).success();
        serde_json::from_str(&line).unwrap()
    };
    let record = segment(&["--save", "out", "--palette"]);
    let labels = image::open(place.path("out/image.labels.png")).unwrap().into_rgb8();
    let want = image::open(set.join("label.png")).unwrap().into_luma8();
    assert_eq!((record.width, record.height), (239, 347));
    assert_eq!(record.segments.iter().map(|segment| segment.pixels).sum::<usize>(), 239 * 347);
    assert!(record.segments.is_sorted_by(|a, b| a.pixels >= b.pixels));
    for segment in &record.segments {
        let pixels = want.as_raw().iter().filter(|&&class| usize::from(class) == segment.index).count();
        assert!(pixels.abs_diff(segment.pixels) <= 239 * 347 / 1000, "{segment:?}, not {pixels}");
        assert!((segment.fraction - segment.pixels as f64 / (239.0 * 347.0)).abs() < 1e-12);
    }
    // With colours in it, the map shows a class in one colour.
    let colour = |class: u8| {
        let of_class = labels.pixels().zip(want.as_raw()).filter(|(_, want)| **want == class);
        of_class.map(|(pixel, _)| pixel.0).next().unwrap()
    };
    let largest = record.segments[0].index as u8;
    let shown = labels.pixels().filter(|pixel| pixel.0 == colour(largest)).count();
    assert_eq!(shown, record.segments[0].pixels);

    // Without, its values are the indices; the mean over sizes and mirror images is another map.
    segment(&["--save", "out", "--multi-scale", "--flip"]);
    let labels = image::open(place.path("out/image.labels.png")).unwrap().into_luma8();
    let want = image::open(set.join("label_ms.png")).unwrap().into_luma8();
    let differ = labels.as_raw().iter().zip(want.as_raw()).filter(|(a, b)| a != b).count();
    assert!(differ * 1000 <= 239 * 347, "{differ}");
    let picture = image::open(place.path("out/image.png")).unwrap().into_rgb8();
    assert!(picture != image::open(&image).unwrap().into_rgb8() && picture.height() == 2 * 347);
}

#[test]
fn maps_are_the_gradients_that_pytorch_computes() {
    let place = Place::of(PROGRAM);
    let (image, weights) = (golden::path("images/camera.png"), golden::path("classify/nat-padded.pth"));
    let expected = Saved::read(golden::path("saliency/nat-padded.safetensors")).floats("grad");
    let [red, green, blue] = [0, 1, 2].map(|c| &expected[c * 96 * 96..][..96 * 96]);
    let size: fn(f32) -> f32 = f32::abs;
    let positive: fn(f32) -> f32 = |x| x.max(0.0);
    // As for features, on every instruction set.
    let sizes = instruction_sets().into_iter().map(|isa| (isa, &[][..], size));
    for (isa, more, sign) in sizes.chain([("portable".to_owned(), &["--signed"][..], positive)]) {
        let arguments = ["saliency", image.to_str().unwrap(), "-w", weights.to_str().unwrap(), "-q"];
        let plain = ["--noise", "0", "--raw", "--save", "out", "--resolution", "96"];
        let mut command = place.command(&[&arguments[..], &plain[..], more].concat());
        let record = Done(command.env("NAT_INFER_ISA", &isa).output().unwrap()).success();
        let record: SavedSaliency = serde_json::from_str(&record).unwrap();
        assert_eq!((record.method.as_str(), record.class.index), ("smooth-grad", 5));
        let tensor = Saved::read(place.path(record.tensor.as_ref().unwrap()));
        assert_eq!(tensor.shape("saliency"), [96, 96]);
        let got = tensor.floats("saliency");
        let want: Vec<f32> = (0..96 * 96)
            .map(|i| [red, green, blue].map(|c| sign(c[i])).into_iter().fold(0.0, f32::max))
            .collect();
        let off = relative(&got, &want);
        assert!(off < bound::NETWORK, "{isa}, {more:?}: {off}");

        // The grey picture is the tensor from its smallest value to its 99th percentile.
        let grey = image::open(place.path(&record.map)).unwrap().into_luma8();
        assert_eq!(grey.dimensions(), (96, 96));
        let mut sorted = got.clone();
        sorted.sort_by(f32::total_cmp);
        let (low, high) = (sorted[0], sorted[(0.99 * (96.0 * 96.0 - 1.0_f64)).round() as usize]);
        for (byte, value) in grey.as_raw().iter().zip(&got) {
            let want = (255.0 * (value - low) / (high - low)).min(255.0);
            assert!((f32::from(*byte) - want).abs() < 0.51, "{byte} is not {want}");
        }
        let picture = image::open(place.path(&record.picture)).unwrap().into_rgb8();
        assert!(picture.pixels().any(|pixel| pixel.0[0] > pixel.0[2]), "there is no colour");
    }
}

#[test]
fn noise_is_the_same_for_the_same_seed_however_it_is_batched() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    place.digit("more/b.png");
    place.file("more/c.png", "no image");
    let map = |folder: &str, more: &[&str]| -> Vec<f32> {
        let arguments = [
            "saliency",
            "a.png",
            "more",
            "--model",
            "demo-digits",
            "--samples",
            "5",
            "--raw",
            "--save",
            folder,
        ];
        let done = place.run(&[&arguments[..], more].concat());
        assert!(done.status() == 1 && done.stderr().contains("c.png: not an image"), "{}", done.stderr());
        let records: Vec<SavedSaliency> =
            done.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let read = |record: &SavedSaliency| {
            Saved::read(place.path(record.tensor.as_ref().unwrap())).floats("saliency")
        };
        // The same image has the same map, whichever one it is.
        let maps: Vec<Vec<f32>> = records.iter().map(read).collect();
        assert!(maps.len() == 2 && maps[0] == maps[1]);
        maps[0].clone()
    };
    let first = map("first", &[]);
    assert_eq!(first.len(), 96 * 96);
    for more in [&["--batch-size", "1"][..], &["--batch-size", "4", "--threads", "1"]] {
        let off = relative(&map("again", more), &first);
        assert!(off < 1e-4, "{more:?}: {off}");
    }
    for more in [&["--seed", "0"][..], &["--noise", "0.15"], &["--class", "9"]] {
        assert!(map("default", more) == first, "{more:?}");
    }
    let whole = |more: &[&str]| {
        let arguments = ["saliency", "a.png", "--model", "demo-digits", "--save", "whole"];
        place.run(&[&arguments[..], more].concat()).success();
        fs::read(place.path("whole/a.saliency.png")).unwrap()
    };
    assert!(whole(&[]) == whole(&["--samples", "25"]));
    for more in [&["--seed", "1"][..], &["--noise", "0.5"], &["--class", "4"]] {
        let off = relative(&map("other", more), &first);
        assert!(off > 1e-2, "{more:?}: {off}");
    }
}

#[test]
fn grad_cam_draws_what_the_last_level_sees() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    let arguments = ["saliency", "a.png", "--model", "demo-digits", "--method", "grad-cam", "--save", "out"];
    let csv = place.run(&[&arguments[..], &["--format", "csv"]].concat()).success();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("image,model,method,index,label,score,map,picture,tensor"));
    assert!(lines.next().unwrap().starts_with("a.png,demo-digits,grad-cam,9,9,0.97"), "{csv}");
    assert_eq!(place.files(), ["a.png", "out/a.png", "out/a.saliency.png"]);
    // 128 x 128 pixels are enlarged, and what the map is about stands below; the map is of the network's input.
    let size = |name| image::image_dimensions(place.path(name)).unwrap();
    assert_eq!((size("out/a.png"), size("out/a.saliency.png")), ((512, 542), (96, 96)));
    // Three positions on a side, bilinear: between their centres values are on straight lines.
    let grey = image::open(place.path("out/a.saliency.png")).unwrap().into_luma8();
    for y in [0, 40, 95] {
        for x in [20, 30, 60, 70] {
            let [left, middle, right] = [x - 2, x, x + 2].map(|x| i32::from(grey.get_pixel(x, y).0[0]));
            let clipped = [left, middle, right].iter().any(|value| [0, 255].contains(value));
            assert!(clipped || (left + right - 2 * middle).abs() <= 2, "{x}, {y}: {left} {middle} {right}");
        }
    }
}

#[test]
fn a_result_never_replaces_its_image() {
    let place = Place::of(PROGRAM);
    let digit = fs::read(place.digit("a.png")).unwrap();
    let weights = golden::path("detect/maskrcnn_s/model.pth");
    let done = place.run(&["detect", "a.png", "-w", weights.to_str().unwrap(), "--save", "."]);
    let says = "a.png would be replaced by its result; use another --save folder";
    assert!(done.status() == 2 && done.stderr().contains(says), "{}", done.stderr());
    assert!(fs::read(place.path("a.png")).unwrap() == digit);
}

#[test]
fn a_second_run_replaces_what_the_first_saved() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    place.digit("other/a.bmp.png");
    let features = |model: &[&str]| {
        let arguments = ["features", "a.png", "other/a.bmp.png", "--save", "out"];
        place.run(&[&arguments[..], model].concat()).success();
        assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 2);
        fs::read(place.path("out/a.safetensors")).unwrap()
    };
    let first = features(&["--model", "demo-digits"]);
    let second = features(&["--model", "demo-digits", "--resolution", "64"]);
    assert!(first != second && place.path("out/a.bmp.safetensors").exists());
}

#[test]
fn what_training_programs_save_gives_the_scores_of_the_network() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    let run = |file: &str, more: &[&str]| {
        let weights = golden::path("doors").join(file);
        place.run(&[&["classify", "a.png", "-w", weights.to_str().unwrap()], more].concat())
    };
    // Scores alone: the names of the models differ.
    let scores = |done: Done| {
        let mut record = done.records::<Classification>().remove(0);
        record.model.clear();
        serde_json::to_string(&record).unwrap()
    };
    let expected = scores(run("plain.pth", &["-q"]));
    for file in
        ["compiled.pth", "lightning_metrics.ckpt", "deflated.pth", "timm_ema.pth", "model_state_dict.pth"]
    {
        assert_eq!(scores(run(&format!("read/{file}"), &["-q"])), expected, "{file}");
    }
    let (key, other) = (["--weights-key", "state_dict", "-q"], "read/timm_ema.pth");
    assert_ne!(scores(run(other, &key)), expected);

    let warnings = |file: &str, more: &[&str]| {
        let stderr = run(file, more).stderr();
        stderr.lines().filter(|line| line.contains("warning")).map(str::to_owned).collect::<Vec<_>>()
    };
    let dilations = "nat-infer: warning: timm_ema.pth: dilations are not in the file and taken as 1, as NAT's are; \
                     --arch or --dilations states them if it is a DiNAT";
    let key = "nat-infer: warning: timm_ema.pth: `state_dict_ema` is taken; there are other weights under \
               `state_dict`; --weights-key takes the other";
    let found = warnings(other, &["--labels", place.file("names", "a\nb\nc\n").to_str().unwrap()]);
    assert_eq!(found, [key, dilations]);
    assert_eq!(warnings(other, &["-q"]), [""; 0]);
    let stderr = run("read/lightning_metrics.ckpt", &["-v"]).stderr();
    assert!(stderr.contains("a metric's state (2)"), "{stderr}");
    let ignored = ["--ignore", "head.*", "--ignore", "*.nothing"];
    let done = run("plain.pth", &ignored);
    assert!(done.stderr().contains("made to give features") && done.status() == 2, "{}", done.stderr());
    for (file, more, says) in [
        ("refused/numpy.pth", &[][..], "21 tensors can't be read: numpy arrays instead of tensors"),
        (
            "read/timm_ema.pth",
            &["--weights-key", "ema"],
            "no weights under `ema`, only under `state_dict`, `state_dict_ema`; --weights-key takes one of them",
        ),
        ("read/timm_ema.pth", &["-m", "nat-tiny"], "cannot be used with"),
    ] {
        let done = run(file, more);
        assert!(done.status() == 2 && done.stderr().contains(says), "{}", done.stderr());
    }
    for (arguments, says) in [
        (&["--weights", "-"][..], "--weights -: a checkpoint can't be read from a pipe; save it to a file"),
        (&["--ignore", "x"], "--weights-key and --ignore say what to take of a file of --weights"),
        #[cfg(unix)]
        (&["--weights", "/dev/null"], "/dev/null: a checkpoint can't be read from a pipe or a device"),
        #[cfg(unix)]
        (&["--weights", "fifo"], "fifo: a checkpoint can't be read from a pipe or a device"),
    ] {
        // Nobody writes to it: it is not waited for.
        if arguments[1] == "fifo" {
            assert!(Command::new("mkfifo").arg(place.path("fifo")).status().unwrap().success());
        }
        let done = place.run(&[&["classify", "a.png"], arguments].concat());
        assert!(done.status() == 2 && done.stderr().contains(says), "{}", done.stderr());
    }
}

#[test]
fn warnings_and_settings_go_to_stderr_as_asked() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    let weights = golden::path("classify/nat-k7.pth");
    let run = |more: &[&str]| {
        let done = place.run(&[&["classify", "a.png", "-w", weights.to_str().unwrap()], more].concat());
        (done.stderr(), done.success())
    };
    let (stderr, stdout) = run(&[]);
    let warnings = |stderr: &str| stderr.lines().filter(|line| line.contains("warning")).count();
    for says in [
        "dilations are not in the file and taken as 1, as NAT's are; --arch or --dilations states them",
        "does not name its 10 classes",
    ] {
        let warning = stderr.lines().find(|line| line.contains(says)).unwrap_or_default();
        assert!(warning.starts_with("nat-infer: warning: nat-k7.pth"), "{stderr}");
    }
    assert_eq!((warnings(&stderr), stderr.lines().count()), (2, 3), "{stderr}");
    assert_eq!(run(&["-q"]), (String::new(), stdout.clone()));
    let (stderr, same) = run(&["--dilations", "1/1/1/1"]);
    assert_eq!((warnings(&stderr), same), (1, stdout));
    place.file("names", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
    assert_eq!(warnings(&run(&["--dilations", "1/1/1/1", "--labels", "names"]).0), 0);

    let done = place
        .command(&["classify", "a.png", "--model", "demo-digits", "-v"])
        .env("HF_TOKEN", "hf_secret")
        .output();
    let stderr = Done(done.unwrap()).stderr();
    for (name, value) in [
        ("model", "demo-digits"),
        ("input", "short side to 96, centre crop of 96x96"),
        ("device", "cpu, f32, "),
        ("dilations", "1/1/1/1"),
    ] {
        let line = stderr.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
        assert!(line.contains(value), "{name}: {stderr}");
    }
    assert!(!stderr.contains("hf_secret"));
}

#[test]
fn the_zoo_is_listed_in_every_format() {
    let place = Place::of(PROGRAM);
    let format = |name| place.run(&["models", "--format", name]).success();
    let rows: Vec<Value> = serde_json::from_str(&format("json")).unwrap();
    let tiny = rows.iter().find(|row| row["name"] == "nat-tiny").unwrap();
    assert_eq!(tiny["parameters"], 27_901_582);
    assert_eq!(
        (&tiny["metric"], &tiny["reported"], &tiny["cached"]),
        (&"top-1".into(), &83.2.into(), &false.into())
    );
    assert_eq!(tiny["download_bytes"], 4 * 27_901_582);
    assert_eq!((&tiny["licence"], tiny["macs"].as_u64().unwrap() / 10_000_000), (&"MIT".into(), 432));
    assert_eq!(format("jsonl").lines().count(), rows.len());
    assert!(format("csv").lines().any(|line| line.starts_with("nat-iso-small,") && line.contains(",80.0,")));
    for (task, models) in [("classify", 25), ("detect", 21), ("segment", 13)] {
        for list in [&["models"][..], &["models", "list"]] {
            let rows = place.run(&[list, &["--task", task]].concat()).success();
            let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(rows.len(), models);
            assert!(rows.iter().all(|row| row["task"] == task));
        }
    }
    assert!(format("csv").starts_with(
        "name,task,parameters,macs,download_bytes,metric,reported,licence,source,cached,measured\nnat-mini,classify,19984174,"
    ));
    assert!(
        format("table")
            .lines()
            .next()
            .unwrap()
            .split_whitespace()
            .eq(["name", "task", "params", "MACs", "size", "reported", "licence", "source", "cached"])
    );

    let shown: Vec<Value> =
        serde_json::from_str(&place.run(&["models", "show", "DiNAT_tiny", "-f", "json"]).success()).unwrap();
    assert_eq!((&shown[0]["dilations"], &shown[0]["classes"]), (&"1,8/1,4/1,2/1".into(), &1000.into()));
    assert_eq!(shown[0]["metrics"]["top-1"], 82.7);
}

#[test]
fn completions_and_manual_pages_are_printed() {
    let place = Place::of(PROGRAM);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(place.run(&["completions", shell]).success().contains("batch-size"), "{shell}");
    }
    // Every option and argument that takes the name of a model offers them all.
    for (shell, beside, times) in [
        // -m, --model and --arch of six commands.
        ("bash", "compgen -W", 3 * 6),
        ("bash", "opts=", 3),
        ("zsh", "--model=", 6),
        ("zsh", "--arch=", 6),
        ("zsh", "Model", 3),
        ("fish", "-l model", 6),
        ("fish", "-l arch", 6),
        ("fish", "show pull path", 1),
    ] {
        let text = place.run(&["completions", shell]).success();
        // fish's values stand on lines of their own.
        let text = text.replace("\\t''\n", " ");
        let offers = |line: &&str| {
            line.contains(beside) && zoo::entries().iter().all(|entry| line.contains(&entry.name))
        };
        let count = text.lines().filter(offers).count();
        assert!(count >= times, "{shell} {beside}: {count}");
    }
    assert!(!place.run(&["classify", "--help"]).success().contains("nat-iso-small"));
    assert!(place.run(&["man"]).success().contains(".TH nat-infer 1"));
    assert!(place.run(&["man", "classify"]).success().contains("\\-\\-top\\-k"));

    // In a shell itself: what it offers after words, of which the last is begun.
    place.file("completions.bash", place.run(&["completions", "bash"]).success());
    let script = r#"source completions.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _nat__infer nat-infer "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[@]}""#;
    for (words, offered) in [
        (&["classify", "--model", "nat-t"][..], "nat-tiny"),
        (&["bench", "--arch", "dinat-large-384"], "dinat-large-384 dinat-large-384-11x11"),
        (
            &["models", "show", "upernet-nat-"],
            "upernet-nat-mini upernet-nat-tiny upernet-nat-small upernet-nat-base",
        ),
        (&["models", "pull", "nat-tiny", "nat-b"], "nat-base"),
        (&["models", "--task", "se"], "segment"),
        (&["classify", "--batch"], "--batch-size"),
    ] {
        let mut bash = Command::new("bash");
        bash.args(["-c", script, "bash", "nat-infer"]).args(words).current_dir(place.path(""));
        let Ok(done) = bash.output() else {
            eprintln!("skipped: no bash here");
            return;
        };
        assert_eq!(Done(done).success().trim(), offered, "{words:?}");
    }
}

/// What a terminal of so many columns gets from a run; `None` where no such terminal can be had.
#[cfg(target_os = "linux")]
fn on_a_terminal(place: &Place, columns: usize, arguments: &str, cache: &OsStr) -> Option<Vec<u8>> {
    let command = format!("stty cols {columns}; '{}' {arguments}", env!("CARGO_BIN_EXE_nat-infer"));
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).current_dir(place.path("")).stdin(Stdio::null());
    script.env_remove("NO_COLOR").env("HOME", place.path("home")).env("NAT_INFER_CACHE", cache);
    match script.output() {
        Ok(done) => Some(done.stdout),
        Err(_) => {
            eprintln!("skipped: no program `script` here");
            None
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_zoo_fits_into_a_narrow_terminal() {
    let place = Place::of(PROGRAM);
    for columns in [60, 100, 200] {
        let Some(table) = on_a_terminal(&place, columns, "models", OsStr::new("cache")) else { return };
        let table = String::from_utf8(table).unwrap();
        assert!(table.starts_with("name ") && table.lines().count() == 60, "{table}");
        assert!(table.lines().all(|line| line.trim_end().len() <= columns), "{columns}: {table}");
    }
}

/// A command that takes a path out of a pipe gets it to the byte; a terminal does not obey it.
#[cfg(target_os = "linux")]
#[test]
fn paths_are_exact_in_a_pipe_and_harmless_on_a_terminal() {
    let place = Place::of(PROGRAM);
    let cache = place.path("").join(OsStr::from_bytes(b"red\x1b[31m\xc2\x9b\xff"));
    let entry = zoo::find("mask-rcnn-nat-mini").unwrap();
    let file = cache.join(&entry.name).join(entry.file_name().unwrap());
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "weights").unwrap();
    for command in ["path", "pull"] {
        let arguments = ["models", command, &entry.name];
        let done = place.command(&arguments).env("NAT_INFER_CACHE", &cache).output().unwrap();
        assert_eq!(done.stdout, [file.as_os_str().as_bytes(), b"\n"].concat());
        let Some(shown) = on_a_terminal(&place, 200, &arguments.join(" "), cache.as_os_str()) else { return };
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains("/red?[31m?\u{fffd}/mask-rcnn-nat-mini/"), "{shown:?}");
        assert!(!shown.contains(['\u{1b}', '\u{9b}']), "{shown:?}");
    }
    let done = place.run(&["models", "show", "\u{1b}[31m\u{9b}red"]);
    assert!(
        done.status() == 2 && done.stderr().contains("?red") && !done.stderr().contains("\u{9b}"),
        "{}",
        done.stderr()
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stdout_is_named() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    for arguments in [
        &["classify", "a.png", "--model", "demo-digits"][..],
        &["models"],
        &["completions", "bash"],
        &["man"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let done = Done(place.command(arguments).stdout(full).output().unwrap());
        assert_eq!((done.status(), done.stderr().lines().count()), (1, 1), "{arguments:?}");
        assert!(done.stderr().starts_with("nat-infer: can't write to stdout: "), "{}", done.stderr());
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_error() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    let inputs = vec!["a.png"; 64];
    let mut child = place
        .command(&[&["classify", "--model", "demo-digits"], &inputs[..]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let done = Done(child.wait_with_output().unwrap());
    assert_eq!((done.status(), done.stderr().as_str()), (0, ""));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_what_it_finished_alone() {
    // Far more than are done before the signal arrives: images, and copies of one.
    let images = [&["classify", "--output", "out", "fifo.png"][..], &["a.png"; 5000]].concat();
    let copies = ["saliency", "fifo.png", "--samples", "20000", "--output", "out", "--save", "maps"];
    for arguments in [&images[..], &copies] {
        let place = Place::of(PROGRAM);
        place.digit("a.png");
        let fifo = place.path("fifo.png");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut command = place.command(arguments);
        let mut child = command.args(["--model", "demo-digits"]).stderr(Stdio::piped()).spawn().unwrap();
        // Opens when the program begins to read, and by then it catches signals.
        let mut first = fs::File::options().write(true).open(&fifo).unwrap();
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        first.write_all(&fs::read(DIGIT).unwrap()).unwrap();
        drop(first);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{}", arguments[0]);
        let mut files = place.files();
        // What was done before the signal arrived, if anything was.
        if let Some(at) = files.iter().position(|file| file == "out.partial") {
            let records = fs::read_to_string(place.path(&files.remove(at))).unwrap();
            assert!(records.lines().all(|line| serde_json::from_str::<Classification>(line).is_ok()));
            assert!((1..5001).contains(&records.lines().count()), "{}", arguments[0]);
        }
        assert_eq!(files, ["a.png", "fifo.png"], "{}", arguments[0]);
    }
}

#[test]
fn every_instruction_set_gives_what_pytorch_computes() {
    let place = Place::of(PROGRAM);
    let expected = Saved::read(golden::path("classify/nat-k7.safetensors"));
    let (checkpoint, image) = (golden::path("classify/nat-k7.pth"), golden::path("images/chelsea.png"));
    for isa in instruction_sets() {
        let arguments =
            ["features", image.to_str().unwrap(), "--weights", checkpoint.to_str().unwrap(), "--save", &isa];
        let done = Done(place.command(&arguments).env("NAT_INFER_ISA", &isa).output().unwrap());
        done.success();
        let got = Saved::read(place.path(&isa).join("chelsea.safetensors"));
        for name in ["stage2", "stage3", "stage4", "pooled", "logits"] {
            let off = relative(&got.floats(name), &expected.floats(name));
            assert!(off <= bound::NETWORK, "{isa}: {name}: {off}");
        }
    }
}

#[test]
fn bench_says_how_fast_what_was_computed() {
    let place = Place::of(PROGRAM);
    let run = |more: &[&str]| -> Vec<Value> {
        let all = ["bench", "--model", "demo-digits", "--runs", "2", "--threads", "1", "--format", "json"];
        let text = place.run(&[&all, more].concat()).success();
        assert_eq!(text.lines().count(), 1.max(text.matches('{').count()));
        serde_json::from_str(&text).unwrap()
    };
    let network = &run(&["--batch-size", "3"])[0];
    for (field, value) in [("engine", "nat-infer"), ("model", "demo-digits"), ("dtype", "f32")] {
        assert_eq!(network[field], value);
    }
    for (field, value) in [("batch", 3), ("width", 96), ("height", 96), ("threads", 1), ("runs", 2)] {
        assert_eq!(network[field], value, "{field}");
    }
    let number = |row: &Value, field: &str| row[field].as_f64().unwrap();
    assert!(number(network, "min_ms") <= number(network, "median_ms"));
    let share = number(network, "gflops") / number(network, "sgemm_peak_gflops");
    assert!((share / number(network, "share_of_peak") - 1.0).abs() < 1e-9 && share > 0.0);
    let share = number(network, "gflops") / number(network, "fma_peak_gflops");
    assert!((share / number(network, "share_of_fma_peak") - 1.0).abs() < 1e-9 && share > 0.0);
    // A run of less than a second is too short to tell.
    assert_eq!(network["busy"], Value::Null);

    let levels = run(&["--op", "--resolution", "64x32"]);
    let sides: Vec<_> = levels.iter().map(|row| (row["width"].clone(), row["height"].clone())).collect();
    assert_eq!(sides, [(16, 8), (8, 4), (4, 2), (2, 1)].map(|(w, h)| (w.into(), h.into())));

    let gradients = &run(&["--gradients"])[0];
    assert!(number(gradients, "median_ms") > 0.0 && number(gradients, "gflops") > 0.0);
    assert_eq!((&gradients["gradients"], &network["gradients"]), (&true.into(), &Value::Null));

    let layers = run(&["--profile"]);
    let kinds: Vec<_> = layers.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    let all = ["convolution", "qkv", "attention", "proj", "mlp", "norm", "linear", "rest", "total"];
    assert_eq!(kinds, all);
    let shares: f64 = layers[..8].iter().map(|row| number(row, "share")).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");

    let sizes = run(&["--batch-size", "1,3,2"]);
    assert_eq!(sizes.iter().map(|row| row["batch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3, 2]);
    let layers = run(&["--profile", "-b", "2,1"]);
    assert_eq!((layers.len(), &layers[0]["batch"], &layers[9]["batch"]), (18, &2.into(), &1.into()));
    assert_eq!(run(&["--op", "--resolution", "64x32", "-b", "2,1"]).len(), 8);

    let closing = |more: &[&str]| {
        let all = ["bench", "--model", "demo-digits", "--runs", "3", "--threads", "1", "--batch-size", "1,2"];
        place.run(&[&all, more].concat()).stderr()
    };
    // A machine that is busy is said before.
    assert!(closing(&[]).contains("nat-infer: 6 passes timed in "), "{}", closing(&[]));
    assert!(closing(&["--op"]).contains(" calls timed in "));
    assert_eq!(closing(&["--quiet"]), "");
    let table = place.run(&["bench", "--model", "demo-digits", "--runs", "1", "-f", "table"]).success();
    assert!(table.contains(" ms per image (median of 1 runs; "), "{table}");

    // What multiplies, and why.
    let run = |dtype: &str, asked: &str, format: &str| {
        let all = ["bench", "--model", "demo-digits", "--runs", "1", "--threads", "1"];
        let arguments = [&all[..], &["--dtype", dtype, "--format", format]].concat();
        Done(place.command(&arguments).env("NAT_INFER_ISA", asked).output().unwrap()).success()
    };
    let said = |dtype: &str, asked: &str| {
        let timing: NetworkTiming = serde_json::from_str(&run(dtype, asked, "jsonl")).unwrap();
        (timing.isa, timing.isa_reason.unwrap())
    };
    for isa in Isa::all_available().map(Isa::name) {
        assert_eq!(said("bf16", isa), (isa.to_owned(), format!("NAT_INFER_ISA asks for {isa}")));
    }
    let last = Isa::all_available().last().unwrap();
    let asks = format!("NAT_INFER_ISA asks for {}", last.name());
    let single = last.wide().unwrap_or(last).name();
    assert_eq!(said("f16", last.name()), (single.to_owned(), asks.to_owned()));
    let table = run("bf16", last.name(), "table");
    assert!(table.ends_with(&format!("\n  {}: {asks}\n", last.name())), "{table}");
    assert!(table.lines().count() == 4 && table.contains("% of its largest products ("), "{table}");
    assert!(table.contains("% of this machine's multiply-adds ("), "{table}");
    // Left to the program, it is the widest, and of weights in bf16 what was found to be faster.
    let widest = "the preferred one of this processor";
    assert_eq!(said("f32", ""), (single.to_owned(), widest.to_owned()));
    let (used, why) = said("bf16", "");
    let faster = why.starts_with("bf16 products are faster here (");
    assert_eq!(used, if faster { last.name() } else { single }, "{why}");
    let measured = faster || why.starts_with("bf16 products are no faster here (");
    assert_eq!(measured, last.wide().is_some(), "{why}");

    // Random weights of any classifier, detector and segmenter.
    let random = ["bench", "--arch", "nat-mini", "--resolution", "32", "--runs", "1", "--format", "csv"];
    assert!(place.run(&random).success().lines().nth(1).unwrap().starts_with("nat-mini,f32,32,32,1,"));
    // They may be dilated, a published model not.
    let dilated =
        ["--resolution", "32", "--runs", "1", "--op", "--format", "json", "--dilations", "1,2/1/1/1"];
    let timings = place.run(&[&["bench", "--arch", "nat-mini"], &dilated[..]].concat()).success();
    let timings: Vec<Value> = serde_json::from_str(&timings).unwrap();
    assert!(timings.iter().any(|level| level["dilation"] == 2), "{timings:?}");
    let published = place.run(&[&["bench", "--model", "nat-mini"], &dilated[..]].concat());
    assert!(published.status() == 2 && published.stderr().contains("--model nat-mini has its own"));
    for network in ["detect/maskrcnn_s/model.pth", "segment/upernet_b/model.pth"] {
        let weights = golden::path(network);
        let small = ["--resolution", "80x50", "--runs", "1", "--format", "json"];
        let timing = place.run(&[&["bench", "-w", weights.to_str().unwrap()], &small[..]].concat()).success();
        let timing: Value = serde_json::from_str(&timing).unwrap();
        assert_eq!((&timing[0]["width"], &timing[0]["height"]), (&80.into(), &50.into()));
        assert!(number(&timing[0], "gflops") > 0.0);
    }
}
