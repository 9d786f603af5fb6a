//! `nat-infer eval` as people use it: on datasets on disk, interrupted, in shards, on predictions of others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nat_infer::results::{ClassScores, Detections, Evaluation, JudgedImage, Metrics};
use nat_testing::golden;
use nat_testing::place::{Done, Place};
use serde_json::{Value, json};

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_nat-infer");

/// What PyTorch answers on each of the held-out digits: name, truth, answer.
fn digits() -> Vec<(String, u64, u64)> {
    let expected: Value =
        serde_json::from_slice(&fs::read(golden::path("digits/expected.json")).unwrap()).unwrap();
    let answer = |answer: &Value| {
        let number = |key: &str| answer[key].as_u64().unwrap();
        (answer["image"].as_str().unwrap().to_owned(), number("truth"), number("index"))
    };
    expected["answers"].as_array().unwrap().iter().map(answer).collect()
}

/// A place with the digits in a folder for each, every one so many times.
fn with_digits(times: usize) -> Place {
    let place = Place::of(PROGRAM);
    for (name, truth, _) in digits() {
        let image = fs::read(golden::path("digits/images").join(&name)).unwrap();
        (0..times).for_each(|time| drop(place.file(&format!("data/{truth}/{time}-{name}"), &image)));
    }
    place
}

fn eval(place: &Place, arguments: &[&str]) -> Done {
    place.run(&[&["eval", "classify", "--model", "demo-digits", "--data", "data"], arguments].concat())
}

fn report(path: &Path) -> Evaluation {
    serde_json::from_slice(&fs::read(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn accuracy(evaluation: &Evaluation) -> (f64, f64) {
    let Metrics::Classify(accuracy) = &evaluation.metrics else { panic!("{evaluation:?}") };
    (accuracy.top1, accuracy.top5.unwrap())
}

/// Everything of a report that does not depend on how often a run was interrupted.
fn lasting(evaluation: &Evaluation) -> Value {
    let mut value = serde_json::to_value(evaluation).unwrap();
    let object = value.as_object_mut().unwrap();
    ["seconds", "images_per_second"].iter().for_each(|key| drop(object.remove(*key)));
    value
}

/// What was found of each image, by its name.
fn found(path: &Path) -> BTreeMap<String, JudgedImage> {
    let text = fs::read_to_string(path).unwrap();
    let images = text.lines().map(|line| serde_json::from_str::<JudgedImage>(line).unwrap());
    images.map(|image| (image.image.clone(), image)).collect()
}

#[test]
fn the_same_digits_are_right_and_wrong_as_in_pytorch() {
    let place = with_digits(1);
    place.run(&["eval", "classify", "--model", "demo-digits", "--data", "data", "-o", "r.json"]).success();
    let evaluation = report(&place.path("r.json"));
    let images = found(&place.path("r.images.jsonl"));
    let expected = digits();
    for (name, truth, answer) in &expected {
        let image = &images[&format!("data/{truth}/0-{name}")];
        assert_eq!((image.class as u64, image.top[0].index as u64), (*truth, *answer), "{name}");
        assert_eq!((image.right, image.top.len()), (truth == answer, 5), "{name}");
    }
    let right = expected.iter().filter(|(_, truth, answer)| truth == answer).count();
    assert!(right < expected.len());
    let top1 = 100.0 * right as f64 / expected.len() as f64;
    assert_eq!(accuracy(&evaluation).0, top1);
    assert_eq!((evaluation.images, evaluation.failed.len()), (expected.len(), 0));
    // What was run.
    assert_eq!(evaluation.model.as_deref(), Some("demo-digits"));
    let weights = fs::read("assets/demo-digits.safetensors").unwrap();
    assert_eq!(evaluation.weights_sha256, Some(sha256(&weights)));
    let settings = &evaluation.settings;
    assert_eq!((settings.dtype.as_deref(), settings.exif.as_deref()), (Some("f32"), Some("ignore")));
    assert!(settings.preprocessing.as_ref().unwrap().contains("96"), "{settings:?}");
    assert!(settings.device.as_ref().unwrap().starts_with("cpu, "), "{settings:?}");
    assert_eq!(settings.options["classes"], "by name");
    assert_eq!(evaluation.published["top1"], 98.1);
    let nines: Vec<&ClassScores> = evaluation.classes.iter().filter(|class| class.label == "9").collect();
    assert_eq!(nines[0].count, expected.iter().filter(|(_, truth, _)| *truth == 9).count() as u64);
    // The same of predictions that are there, whoever made them, of an archive, of a list, and by another order of classes.
    let predictions = place.run(&["classify", "data", "-r", "--model", "demo-digits", "-o", "p.jsonl"]);
    predictions.success();
    let mut list = String::new();
    for (name, truth, _) in &expected {
        list += &format!("{truth}/0-{name} {truth}\n");
    }
    place.file("list.txt", list);
    let mut tar = tar::Builder::new(fs::File::create(place.path("data.tar")).unwrap());
    tar.append_dir_all("digits", place.path("data")).unwrap();
    tar.finish().unwrap();
    place.file("names.txt", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    for arguments in [
        &["--data", "data", "--results", "p.jsonl", "--labels", "names.txt"][..],
        &["--data", "data.tar", "--model", "demo-digits"],
        &["--data", "data", "--annotations", "list.txt", "--model", "demo-digits"],
    ] {
        let text = place.run(&[&["eval", "classify", "--format", "json"], arguments].concat()).success();
        let same: Evaluation = serde_json::from_str(&text).unwrap();
        assert_eq!((accuracy(&same), same.images), (accuracy(&evaluation), expected.len()), "{arguments:?}");
        assert_eq!(same.classes, evaluation.classes, "{arguments:?}");
    }
    // As people read it.
    let table = eval(&place, &["--format", "table", "--per-class"]).success();
    assert!(table.contains(&format!("{top1:.2} %  (published 98.10 %)")), "{table}");
    assert!(table.contains("sha256 ") && table.contains("preprocessing"), "{table}");
    let markdown = eval(&place, &["-o", "r.md"]);
    markdown.success();
    let markdown = fs::read_to_string(place.path("r.md")).unwrap();
    assert!(markdown.contains(&format!("| top1 | {top1:.2} % | 98.10 % |")), "{markdown}");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_image_without_an_answer_counts_as_wrong_and_is_named() {
    let place = with_digits(1);
    let whole: Evaluation = serde_json::from_str(&eval(&place, &["--format", "json"]).success()).unwrap();
    place.file("data/3/zz-broken.png", "no picture");
    place.file("data/3/zz-empty.jpg", "");
    #[cfg(unix)]
    std::os::unix::fs::symlink("gone.png", place.path("data/3/zz-link.png")).unwrap();
    #[cfg(not(unix))]
    place.file("data/3/zz-link.png", "no picture");
    let done = eval(&place, &["-o", "r.json"]);
    assert_eq!(done.status(), 1);
    assert!(done.stderr().contains("data/3/zz-broken.png: not an image"), "{}", done.stderr());
    let evaluation = report(&place.path("r.json"));
    assert_eq!(evaluation.images, whole.images + 3);
    let names: Vec<&str> = evaluation.failed.iter().map(|failed| failed.image.as_str()).collect();
    assert_eq!(names, ["data/3/zz-broken.png", "data/3/zz-empty.jpg", "data/3/zz-link.png"]);
    assert!(evaluation.failed.iter().all(|failed| failed.class == Some(3) && !failed.error.contains("zz-")));
    let right = |evaluation: &Evaluation| accuracy(evaluation).0 * evaluation.images as f64;
    assert!((right(&evaluation) - right(&whole)).abs() < 1e-9);
    let threes = |evaluation: &Evaluation| evaluation.classes[3].count;
    assert_eq!(threes(&evaluation), threes(&whole) + 3);
    // Going on with a complete run tries them again, and says the same.
    let again = eval(&place, &["-o", "r.json", "--resume"]);
    assert_eq!(again.status(), 1);
    assert_eq!(lasting(&report(&place.path("r.json"))), lasting(&evaluation));
    fs::copy(golden::path("digits/images/digit-3-057.png"), place.path("data/3/zz-broken.png")).unwrap();
    eval(&place, &["-o", "r.json", "--resume"]);
    assert_eq!(report(&place.path("r.json")).failed.len(), 2);
    // Every image of a dataset may be one.
    let place = Place::of(PROGRAM);
    (0..10).for_each(|digit| drop(place.file(&format!("data/{digit}/x.png"), "none")));
    let done = eval(&place, &["-o", "r.json"]);
    assert_eq!((done.status(), report(&place.path("r.json")).failed.len()), (1, 10));
    // One that has nothing where it says is another one.
    place.file("list.txt", "a.png 1\nb.png 2\n");
    let done = eval(&place, &["--annotations", "list.txt"]);
    assert!(
        done.status() == 2 && done.stderr().contains("data: none of the images is there"),
        "{}",
        done.stderr()
    );
    // A shard may have nothing to do.
    let done = eval(&place, &["-o", "s.json", "--shard", "11/11"]);
    assert_eq!((done.status(), report(&place.path("s.json")).images), (0, 0), "{}", done.stderr());
}

/// What was found with other settings is no part of a run.
#[test]
fn a_run_goes_on_with_its_own_results_alone() {
    let place = with_digits(1);
    let mut list = String::new();
    for (name, truth, _) in digits() {
        list += &format!("{truth}/0-{name} {}\n", (truth + 1) % 10);
    }
    place.file("wrong.txt", &list);
    let listed = ["--annotations", "wrong.txt", "-o", "r.json"];
    eval(&place, &listed).success();
    let before = report(&place.path("r.json"));
    assert!(accuracy(&before).0 < 10.0);
    for changed in [&["--resolution", "64"][..], &["--dtype", "bf16"], &["--exif", "apply"]] {
        let done = eval(&place, &[&listed[..], &["--resume"], changed].concat());
        assert_eq!(done.status(), 2, "{changed:?}");
        assert!(done.stderr().contains("r.images.jsonl: is of another run"), "{}", done.stderr());
        assert_eq!(lasting(&report(&place.path("r.json"))), lasting(&before));
    }
    // Classes are those of now.
    place.file(
        "wrong.txt",
        list.lines()
            .map(|line| {
                let (image, _) = line.split_once(' ').unwrap();
                format!("{image} {}\n", &image[..1])
            })
            .collect::<String>(),
    );
    eval(&place, &[&listed[..], &["--resume"]].concat()).success();
    let after = report(&place.path("r.json"));
    assert_eq!(accuracy(&after).0, 95.0);
    // Nothing was computed, so that the time is that of the run that did.
    assert!(after.seconds == before.seconds && after.images_per_second > 0.0);
    // Of fewer images, all of which an interrupted run has finished.
    eval(&place, &["-o", "f.json"]).success();
    fs::remove_file(place.path("f.json")).unwrap();
    fs::rename(place.path("f.images.jsonl"), place.path("f.images.jsonl.partial")).unwrap();
    eval(&place, &["-o", "f.json", "--resume", "--limit", "10"]).success();
    let few = report(&place.path("f.json"));
    assert_eq!((few.images, few.failed.len(), accuracy(&few).0), (10, 0, 100.0));
    // Another shard is another run.
    eval(&place, &["-o", "s.json", "--shard", "1/2"]).success();
    let done = eval(&place, &["-o", "s.json", "--shard", "2/2", "--resume"]);
    assert!(
        done.status() == 2 && done.stderr().contains("s.images.jsonl: is of another run"),
        "{}",
        done.stderr()
    );
    // What is not the model's own is not what was published, and no measurement of it.
    let text = eval(&place, &["--resolution", "32", "--format", "json", "--record", "m.jsonl"]).success();
    let small: Evaluation = serde_json::from_str(&text).unwrap();
    assert!(small.settings.changed == ["resolution"] && small.published.is_empty());
    let listed = place.run(&["models", "--record", "m.jsonl", "--format", "csv"]).success();
    assert!(listed.lines().find(|line| line.starts_with("demo-digits")).unwrap().ends_with(','), "{listed}");
}

/// What a run reads it never replaces, and no two things that it writes are one file.
#[test]
fn inputs_stay_and_outputs_are_files_of_their_own() {
    let place = with_digits(1);
    place.run(&["classify", "data", "-r", "--model", "demo-digits", "-o", "p.jsonl"]).success();
    place.file("list.txt", "9/x.png 9\n");
    place.file("file", "mine");
    let before = fs::read(place.path("p.jsonl")).unwrap();
    for (arguments, says) in [
        (&["--results", "p.jsonl", "-o", "p.jsonl", "--overwrite"][..], "p.jsonl is an input of this run"),
        (&["--annotations", "list.txt", "-o", "list.txt", "--overwrite"], "list.txt is an input of this run"),
        (
            &["-o", "data/9/0-digit-9-011.png", "--overwrite"],
            "0-digit-9-011.png: lies in data, which is read",
        ),
        (&["-o", "r.json", "--record", "r.json"], "r.json: two things would be written to it"),
        (
            &["-o", "r.json", "--record", "r.images.jsonl"],
            "r.images.jsonl: two things would be written to it",
        ),
        (&["-o", "page/report.html", "--report", "page"], "two things would be written to it"),
        (&["--report", "file"], "--report file: is a file; a folder is wanted"),
        (&["--resume", "-o", "-"], "--resume goes on with a file"),
    ] {
        place.file("page/x", "");
        let done = place.run(&[&["eval", "classify", "--data", "data"], arguments].concat());
        assert_eq!((done.status(), done.stdout().as_str()), (2, ""), "{arguments:?}");
        assert!(done.stderr().contains(says), "{arguments:?}: {}", done.stderr());
    }
    assert_eq!(fs::read(place.path("p.jsonl")).unwrap(), before);
    // Names that differ have records that differ.
    for name in ["r.1", "r.2"] {
        eval(&place, &["-o", name, "--limit", "1"]).success();
    }
    assert!(place.path("r.1.images.jsonl").exists() && place.path("r.2.images.jsonl").exists());
}

/// Predictions that can't be told apart, or are of nothing, are said.
#[test]
fn predictions_of_others_are_not_believed_blindly() {
    let place = Place::of(PROGRAM);
    for name in ["data/cat/a.png", "data/cat/b.png", "data/dog/a.png"] {
        place.digit(name);
    }
    let record = |image: &str, classes: &[(&str, f64)]| {
        let top: Vec<Value> = classes
            .iter()
            .map(|(label, score)| json!({"index": usize::from(*label == "dog"), "label": label, "score": score}))
            .collect();
        json!({"image": image, "model": "m", "top": top}).to_string() + "\n"
    };
    let run = |records: &str| {
        place.file("r.jsonl", records);
        place.run(&["eval", "classify", "--data", "data", "--results", "r.jsonl", "--format", "json"])
    };
    // Of two images of one name the name alone is neither's; scores need not be sorted.
    let done = run(&[
        record("a.png", &[("cat", 0.9)]),
        record("cat/b.png", &[("dog", 0.1), ("cat", 0.8)]),
        record("data/dog/a.png", &[("dog", 0.9), ("cat", 0.1)]),
    ]
    .concat());
    let evaluation: Evaluation = serde_json::from_str(&done.stdout()).unwrap();
    assert_eq!((done.status(), evaluation.failed.len()), (1, 1));
    assert_eq!(evaluation.failed[0].image, "data/cat/a.png");
    let Metrics::Classify(accuracy) = &evaluation.metrics else { panic!() };
    assert!((accuracy.top1 - 200.0 / 3.0).abs() < 1e-9 && accuracy.top5.is_none(), "{accuracy:?}");
    for says in
        ["fewer than 5 classes, so there is no top5", "1 of its 3 records are of no image that counts"]
    {
        assert!(done.stderr().contains(says), "{}", done.stderr());
    }
    for (records, says) in [
        (record("a.png", &[("cat", 0.9), ("dog", 0.1)]).repeat(2), "has two records of a.png"),
        (
            record("elsewhere.png", &[("cat", 0.9), ("dog", 0.1)]),
            "none of its records is of an image of the dataset",
        ),
        ("no record\n".to_owned(), "line 1 is no record of `classify`"),
        // A folder that no record names is not the first class because the others are.
        (record("data/dog/a.png", &[("dog", 0.9)]), "does not name the classes of all 2 folders"),
    ] {
        let done = run(&records);
        assert_eq!((done.status(), done.stdout().as_str()), (2, ""), "{records}");
        assert!(done.stderr().contains(says), "{says}: {}", done.stderr());
    }
}

/// Interrupted at random three times, and cut into shards, a run says what an uninterrupted one says.
#[cfg(unix)]
#[test]
fn interruptions_and_shards_change_nothing() {
    let place = with_digits(8);
    place.file("data/5/broken.png", "no picture");
    let done = eval(&place, &["-o", "whole.json"]);
    assert_eq!(done.status(), 1);
    let whole = report(&place.path("whole.json"));
    assert_eq!(whole.images, 8 * digits().len() + 1);
    let mut interrupted = 0;
    for attempt in 0.. {
        let mut arguments =
            vec!["eval", "classify", "--model", "demo-digits", "--data", "data", "-o", "resumed.json"];
        if attempt > 0 {
            arguments.push("--resume");
        }
        let mut child = place.command(&arguments).stderr(std::process::Stdio::null()).spawn().unwrap();
        if interrupted < 3 {
            // Once something new is there, after a while that differs.
            let partial = place.path("resumed.images.jsonl.partial");
            let lines =
                || fs::read(&partial).map_or(0, |bytes| bytes.iter().filter(|&&b| b == b'\n').count());
            let before = lines();
            while lines() <= before && child.try_wait().unwrap().is_none() {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(fastrand::u64(0..60)));
            // A kill, which leaves no time for anything, or the terminal's signal.
            let signal = if interrupted == 1 { "-KILL" } else { "-INT" };
            let _ = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
            let status = child.wait().unwrap();
            if status.code() != Some(1) {
                assert!(!place.path("resumed.json").exists());
                interrupted += 1;
                continue;
            }
        } else {
            assert_eq!(child.wait().unwrap().code(), Some(1));
        }
        break;
    }
    assert!(interrupted > 0);
    assert_eq!(lasting(&report(&place.path("resumed.json"))), lasting(&whole));
    assert_eq!(found(&place.path("resumed.images.jsonl")), found(&place.path("whole.images.jsonl")));

    let mut reports = Vec::new();
    for shard in 1..=4 {
        let name = format!("part{shard}.json");
        eval(&place, &["-o", &name, "--shard", &format!("{shard}/4")]);
        reports.push(name);
    }
    // In any order.
    reports.rotate_left(1);
    let names: Vec<&str> = reports.iter().map(String::as_str).collect();
    let done = place.run(&[&["eval", "merge", "-o", "merged.json"], &names[..]].concat());
    assert_eq!(done.status(), 1, "{}", done.stderr());
    assert_eq!(lasting(&report(&place.path("merged.json"))), lasting(&whole));
    // A shard that is missing, there twice, of another run, or without what it found.
    for (names, says) in [
        (&names[1..], "the report of shard 2/4 is missing"),
        (&[names[0], names[0]][..], "shard 2/4 is there twice"),
        (&["whole.json"][..], "whole.json: is no report of a shard"),
        (&["data/5/broken.png"][..], "no report of `nat-infer eval` in json"),
    ] {
        let done = place.run(&[&["eval", "merge"], names].concat());
        assert_eq!((done.status(), done.stdout().as_str()), (2, ""));
        assert!(done.stderr().contains(says), "{says}: {}", done.stderr());
    }
    // Of what is no report of ours, nothing but a line.
    let part = fs::read_to_string(place.path("part1.json")).unwrap();
    for (from, to, says) in [
        ("\"count\": 4", "\"count\": 1000000000000", "shards is another than in"),
        ("\"run\": \"", "\"run\": \"0", "names of classes is another than in"),
    ] {
        assert!(part.contains(from), "{part}");
        place.file("part9.json", part.replace(from, to));
        let done = place.run(&["eval", "merge", "part9.json", "part2.json", "part3.json", "part4.json"]);
        assert_eq!((done.status(), done.stdout().as_str()), (2, ""), "{to}");
        assert!(
            done.stderr().contains(says) || done.stderr().contains("is of another run"),
            "{to}: {}",
            done.stderr()
        );
    }
    fs::remove_file(place.path("part3.images.jsonl")).unwrap();
    let done = place.run(&[&["eval", "merge"], &names[..]].concat());
    assert!(
        done.stderr().contains("part3.images.jsonl: what the shard found of its images"),
        "{}",
        done.stderr()
    );
}

#[test]
fn the_first_images_can_be_taken_alone_and_nothing_else_is_lost() {
    let place = with_digits(1);
    place.file("notes.json", "{\"mine\": true}");
    for (arguments, says) in [
        (&["-o", "notes.json"][..], "notes.json is there already and is no result of an earlier run"),
        (&["-o", "none/r.json"], "there is no folder none"),
        (&["--resume"], "--output"),
        (&["--record", "notes.json"], "notes.json: line 1 is no measured score"),
        (&["--labels", "none.txt"], "none.txt"),
        (&["--real", "notes.json"], "neither a JSON list of lists"),
    ] {
        let done = eval(&place, arguments);
        assert_eq!((done.status(), done.stdout().as_str()), (2, ""), "{arguments:?}");
        assert!(done.stderr().contains(says), "{arguments:?}: {}", done.stderr());
    }
    let evaluation: Evaluation =
        serde_json::from_str(&eval(&place, &["--limit", "7", "--format", "json"]).success()).unwrap();
    assert_eq!((evaluation.images, evaluation.settings.limit), (7, Some(7)));
    let weights = golden::path("classify/nat-k7.pth");
    let weights = weights.to_str().unwrap();
    for (weights, data, says) in [
        ("none.pth", "data", "none.pth"),
        (weights, "none", "none: no such file or folder"),
        (
            weights,
            "pets",
            "pets: the folder has 2 classes and the model 10; `cat`, `dog` is none of the model's",
        ),
    ] {
        place.digit("pets/cat/a.png");
        place.digit("pets/dog/b.png");
        let done = place.run(&["eval", "classify", "--weights", weights, "--data", data]);
        assert_eq!((done.status(), done.stdout().as_str()), (2, ""), "{data}");
        assert!(done.stderr().contains(says), "{data}: {}", done.stderr());
    }
}

#[test]
fn what_was_measured_is_recorded_and_shown_beside_what_was_published() {
    let place = with_digits(1);
    eval(&place, &["--record", "measured.jsonl", "-o", "r.json"]).success();
    eval(&place, &["--record", "measured.jsonl", "--limit", "1"]).success();
    let top1 = accuracy(&report(&place.path("r.json"))).0;
    let table = place.run(&["models", "--record", "measured.jsonl", "--format", "csv"]).success();
    let digits = table.lines().find(|line| line.starts_with("demo-digits,")).unwrap();
    assert!(digits.contains(",98.1,") && digits.ends_with(&format!(",{top1:.2}")), "{digits}");
    let shown =
        place.run(&["models", "show", "demo-digits", "--record", "measured.jsonl", "--format", "table"]);
    let shown = shown.success();
    assert!(shown.contains("98.1 (reported)") && shown.contains(&format!("{top1:.2} (measured)")), "{shown}");
}

#[test]
fn a_report_is_a_page_of_its_own() {
    let place = with_digits(1);
    eval(&place, &["-o", "r.json", "--report", "page"]).success();
    let page = fs::read_to_string(place.path("page/report.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("demo-digits"));
    let wrong = digits().into_iter().find(|(_, truth, answer)| truth != answer).unwrap().0;
    assert!(page.contains(&wrong) && page.contains("data:image/jpeg;base64,"));
    // It is replaced as an earlier report is, and nothing else is.
    eval(&place, &["-o", "r.json", "--report", "page"]).success();
    place.file("page/report.html", "mine");
    let done = eval(&place, &["-o", "r.json", "--report", "page"]);
    assert!(
        done.status() == 2 && done.stderr().contains("report.html is there already"),
        "{}",
        done.stderr()
    );
}

/// The nearest other digit by the cosine of pooled features, as `features --pooled` saves them.
#[test]
fn the_nearest_neighbor_is_the_one_with_the_largest_cosine() {
    let place = with_digits(1);
    place.run(&[
        "features",
        "data",
        "-r",
        "--pooled",
        "--save",
        "out",
        "--model",
        "demo-digits",
        "--exif",
        "ignore",
    ]);
    let bytes = fs::read(place.path("out/features.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let pooled = file.tensor("pooled").unwrap();
    let width = pooled.shape()[1];
    let values: Vec<f64> =
        pooled.data().as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect();
    let rows: Vec<&[f64]> = values.chunks(width).collect();
    let names = fs::read_to_string(place.path("out/features.txt")).unwrap();
    let classes: Vec<&str> = names.lines().map(|name| name.split('/').nth(1).unwrap()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let right = (0..rows.len()).filter(|&row| {
        let others = (0..rows.len()).filter(|&other| other != row);
        let nearest = others
            .max_by(|&a, &b| cosine(rows[row], rows[a]).total_cmp(&cosine(rows[row], rows[b])))
            .unwrap();
        classes[nearest] == classes[row]
    });
    let wanted = 100.0 * right.count() as f64 / rows.len() as f64;
    assert!((60.0..100.0).contains(&wanted), "{wanted}");
    let knn = |arguments: &[&str]| -> Evaluation {
        let done =
            place.run(&[&["eval", "knn", "--model", "demo-digits", "--format", "json"], arguments].concat());
        serde_json::from_str(&done.stdout()).unwrap_or_else(|_| panic!("{}", done.stderr()))
    };
    let top1 = |evaluation: &Evaluation| match &evaluation.metrics {
        Metrics::Knn(accuracy) => accuracy.knn_top1,
        other => panic!("{other:?}"),
    };
    let evaluation = knn(&["--data", "data", "-k", "1"]);
    assert_eq!((top1(&evaluation), evaluation.images), (wanted, digits().len()));
    // Among images that are the same each is its own.
    assert_eq!(top1(&knn(&["--data", "data", "--train", "data", "-k", "1"])), 100.0);
    // A class that nobody chooses, and an image that is none.
    place.file("data/3/zz.png", "none");
    let evaluation = knn(&["--data", "data", "-k", "1"]);
    assert_eq!((evaluation.images, evaluation.failed.len()), (digits().len() + 1, 1));
    assert_eq!((evaluation.failed[0].class, evaluation.failed[0].image.as_str()), (Some(3), "data/3/zz.png"));
    place.digit("train/3/a.png");
    let done = place.run(&["eval", "knn", "--model", "demo-digits", "--data", "data", "--train", "train"]);
    assert!(done.status() == 2 && done.stderr().contains("train: has no class `0`"), "{}", done.stderr());
}

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
        "images": [listed(7, "a.png"), listed(8, "b.png"), listed(9, "c.png")], "annotations": objects, "categories": categories
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
    // A program's own records are results too.
    let detect = ["detect", "images/a.png", "--annotations", "truth.json", "-o", "d.jsonl"];
    place.run(&[&detect[..], &model].concat()).success();
    let own: Detections = serde_json::from_str(&fs::read_to_string(place.path("d.jsonl")).unwrap()).unwrap();
    assert_eq!((own.image_id, own.detections.len()), (Some(7), results.len()));
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

/// A segmenter against its golden label map of several sizes: what it finds is what its golden map of one size scores.
#[test]
fn a_segmenter_scores_what_its_label_maps_score() {
    let place = Place::of(PROGRAM);
    let folder = golden::path("segment/upernet_b");
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    for name in ["a", "b", "broken"] {
        place.file(&format!("data/images/{name}.png"), read("image.png"));
        place.file(&format!("data/annotations/{name}.png"), read("label_ms.png"));
    }
    place.file("data/images/broken.png", "no picture");
    for name in ["a", "b"] {
        place.file(&format!("predicted/{name}.labels.png"), read("label.png"));
        // The picture that `segment --save` leaves beside it.
        place.file(&format!("predicted/{name}.png"), read("image.png"));
    }
    let weights = folder.join("model.pth");
    let model = ["--weights", weights.to_str().unwrap(), "--scale", "800x201"];
    let by_model =
        [&["eval", "segment", "--data", "data", "-o", "r.json", "--report", "page"][..], &model].concat();
    let done = place.run(&by_model);
    assert_eq!(done.status(), 1, "{}", done.stderr());
    let evaluation = report(&place.path("r.json"));
    let done = place.run(&[
        "eval",
        "segment",
        "--annotations",
        "data/annotations",
        "--results",
        "predicted",
        "--classes",
        "21",
        "-o",
        "s.json",
    ]);
    assert_eq!(done.status(), 1);
    let of_maps = report(&place.path("s.json"));
    for evaluation in [&evaluation, &of_maps] {
        assert_eq!((evaluation.images, evaluation.failed.len()), (3, 1));
        // A third of all pixels has no answer: they are missed.
        let missed: u64 = evaluation.failed[0].pixels.iter().map(|(.., pixels)| pixels).sum();
        let all: u64 = evaluation.classes.iter().map(|class| class.count).sum();
        assert_eq!(3 * missed, all);
        assert!(evaluation.failed[0].pixels.iter().all(|(_, predicted, _)| *predicted == 21));
    }
    let [got, wanted] = [&evaluation, &of_maps].map(|evaluation| evaluation.metrics.figures());
    for ((name, got), (_, wanted)) in got.iter().zip(&wanted) {
        assert!((got.unwrap() - wanted.unwrap()).abs() < 1e-3, "{name}: {got:?}, not {wanted:?}");
    }
    let page = fs::read_to_string(place.path("page/report.html")).unwrap();
    assert!(page.contains("a.png") && page.contains("data:image/jpeg"));
    for shard in ["1/3", "2/3", "3/3"] {
        let name = format!("part{}.json", &shard[..1]);
        place.run(
            &[&["eval", "segment", "--data", "data", "--shard", shard, "-o", &name][..], &model].concat(),
        );
    }
    place.run(&["eval", "merge", "part1.json", "part2.json", "part3.json", "-o", "merged.json"]);
    assert_eq!(lasting(&report(&place.path("merged.json"))), lasting(&evaluation));
    // A label that is no class ends the run: what it means for the others nobody knows.
    place.file("data/annotations/a.png", grey_png([347, 239], 21));
    fs::remove_file(place.path("data/images/broken.png")).unwrap();
    fs::remove_file(place.path("data/annotations/broken.png")).unwrap();
    let size = image_size(&folder.join("image.png"));
    place.file("data/annotations/a.png", grey_png(size, 21));
    let done = place.run(&[&["eval", "segment", "--data", "data"][..], &model].concat());
    assert_eq!((done.status(), done.stdout().as_str()), (1, ""));
    assert!(done.stderr().contains("a.png: ") && done.stderr().contains("21"), "{}", done.stderr());
    place.file("data/annotations/a.png", grey_png([size[0] + 1, size[1]], 1));
    let done = place.run(&[&["eval", "segment", "--data", "data", "--format", "json"][..], &model].concat());
    assert_eq!(done.status(), 1);
    let evaluation: Evaluation = serde_json::from_str(&done.stdout()).unwrap();
    assert!(
        evaluation.failed.len() == 1 && evaluation.failed[0].error.contains("and its image"),
        "{evaluation:?}"
    );
}

fn image_size(path: &Path) -> [u32; 2] {
    let (width, height) = image::image_dimensions(path).unwrap();
    [width, height]
}

fn grey_png([width, height]: [u32; 2], value: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = image::GrayImage::from_pixel(width, height, image::Luma([value]));
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}
