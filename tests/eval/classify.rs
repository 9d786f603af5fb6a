//! `eval classify`: what is right and wrong, what is said of it, and what is refused.

use std::fs;

use nat_infer::results::{ClassScores, Evaluation, Metrics};
use nat_testing::golden;
use nat_testing::place::Place;
use serde_json::{Value, json};

use super::{PROGRAM, accuracy, digits, eval, found, lasting, report, sha256, with_digits};

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
    // What is not called like an image is told of; in an archive as well.
    place.file("data/3/photo.ppm", "P6");
    place.file("data/3/no-extension", "");
    let mut tar = tar::Builder::new(fs::File::create(place.path("data.tar")).unwrap());
    tar.follow_symlinks(false);
    tar.append_dir_all(".", place.path("data")).unwrap();
    tar.finish().unwrap();
    for (data, quiet) in [("data", false), ("data.tar", false), ("data", true)] {
        let arguments = ["eval", "classify", "--model", "demo-digits", "--data", data];
        let done = place.run(&[&arguments[..], if quiet { &["--quiet"] } else { &[] }].concat());
        let told = format!("{data}: passed over 2 files of other kinds");
        assert_eq!(done.stderr().contains(&told), !quiet, "{}", done.stderr());
    }
    // Every image of a dataset may be one.
    let place = Place::of(PROGRAM);
    (0..10).for_each(|digit| drop(place.file(&format!("data/{digit}/x.png"), "none")));
    let done = eval(&place, &["-o", "r.json"]);
    assert_eq!((done.status(), report(&place.path("r.json")).failed.len()), (1, 10));
    // Where it was not so before, what stands beside the report is of then no more.
    (0..10).for_each(|digit| drop(place.digit(&format!("data/{digit}/x.png"))));
    eval(&place, &["-o", "r.json"]).success();
    assert_eq!(found(&place.path("r.images.jsonl")).len(), 10);
    (0..10).for_each(|digit| drop(place.file(&format!("data/{digit}/x.png"), "none")));
    let done = eval(&place, &["-o", "r.json"]);
    let evaluation = report(&place.path("r.json"));
    assert_eq!((done.status(), evaluation.failed.len(), accuracy(&evaluation).0), (1, 10, 0.0));
    assert!(done.stderr().contains("results in r.images.jsonl"), "{}", done.stderr());
    assert!(found(&place.path("r.images.jsonl")).is_empty());
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
