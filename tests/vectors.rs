//! Vectors of images as a user makes and searches them: `features --pooled`, `search`, and the k-NN classifier over them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use nat_infer::eval::index::FeatureIndex;
use nat_infer::eval::neighbors::{KnnOptions, Vectors, knn_classify, knn_leave_one_out};
use nat_infer::results::SearchResult;
use nat_testing::checkpoint::{Saved, save};
use nat_testing::golden;
use nat_testing::place::{DIGIT, Done, Place, names};
use nat_testing::shape::{Shapes, csv, json};

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_nat-infer");

/// `features --pooled` of `photos` with the embedded model.
const FEATURES: [&str; 6] = ["features", "photos", "--pooled", "--model", "demo-digits", "-q"];

const ROWS: &str = "index/features.safetensors";
const NAMES: &str = "index/features.txt";

/// A place with the sixty digits in `photos`.
fn digits() -> Place {
    let place = Place::of(PROGRAM);
    for name in names(&golden::path("digits/images")) {
        let bytes = fs::read(golden::path("digits/images").join(&name)).unwrap();
        place.file(&format!("photos/{name}"), bytes);
    }
    place
}

/// A place with the index of the sixty digits.
fn indexed() -> Place {
    let place = digits();
    pooled(&place, &["--save", "index"]).success();
    place
}

fn pooled(place: &Place, more: &[&str]) -> Done {
    place.run(&[&FEATURES[..], more].concat())
}

fn lines(path: &Path) -> usize {
    fs::read(path).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

/// Both files of an index.
fn index(place: &Place, folder: &str) -> [Vec<u8>; 2] {
    ["features.safetensors", "features.txt"].map(|name| fs::read(place.path(folder).join(name)).unwrap())
}

/// The digit that an image shows, which its name says.
fn truth(name: &str) -> usize {
    let (_, digit) = name.rsplit_once("digit-").unwrap();
    digit[..1].parse().unwrap()
}

#[track_caller]
fn refused(done: &Done, says: &str) {
    let stderr = done.stderr();
    assert_eq!((done.status(), stderr.lines().count()), (2, 1), "{stderr}");
    assert!(stderr.contains(says) && done.stdout().is_empty(), "{stderr}");
}

#[test]
fn pooled_features_are_those_of_each_image() {
    let place = digits();
    place.file("photos/digit-5-bad.png", "no image");
    place
        .run(&["features", "photos/digit-*-0*.png", "--model", "demo-digits", "--save", "each", "-q"])
        .success();
    for batch in ["1", "7"] {
        let done = place.run(&[
            "features",
            "photos",
            "--pooled",
            "--model",
            "demo-digits",
            "--save",
            "index",
            "-b",
            batch,
        ]);
        assert_eq!((done.status(), done.stdout().as_str()), (1, ""));
        let stderr = done.stderr();
        assert!(stderr.contains("nat-infer: photos/digit-5-bad.png: not an image"), "{stderr}");
        assert!(
            stderr.contains("60 images done, 1 failed")
                && stderr.contains("; features in index/features.safetensors\n")
        );
        assert_eq!(names(&place.path("index")), ["features.safetensors", "features.txt"]);
        let saved = Saved::read(place.path(ROWS));
        assert_eq!((saved.names(), saved.shape("pooled")), (vec!["pooled".to_owned()], vec![60, 128]));
        let rows = saved.floats("pooled");
        let list = fs::read_to_string(place.path(NAMES)).unwrap();
        let sorted = names(&golden::path("digits/images"));
        let sorted: Vec<String> = sorted.iter().map(|name| format!("photos/{name}")).collect();
        assert_eq!(list.lines().collect::<Vec<_>>(), sorted);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        for (name, row) in list.lines().zip(rows.chunks(128)) {
            let file = Path::new(name).with_extension("safetensors");
            let one = Saved::read(place.path("each").join(file.file_name().unwrap()));
            assert_eq!(bits(row), bits(&one.floats("pooled")), "{name}");
        }
    }
    let says = index(&place, "index")[0][8..].to_vec();
    let header = serde_json::Deserializer::from_slice(&says).into_iter::<serde_json::Value>().next();
    assert_eq!(
        header.unwrap().unwrap()["__metadata__"],
        serde_json::json!({
            "software": "nat-infer", "model": "demo-digits", "dilations": "1/1/1/1", "dtype": "f32",
            "preparation": "short side to 96, centre crop of 96x96", "exif": "apply",
        })
    );
}

#[test]
fn shares_have_folders_of_their_own() {
    let place = indexed();
    let mut rows = BTreeMap::new();
    for (shard, folder) in [("1/3", "one"), ("2/3", "two"), ("3/3", "three")] {
        pooled(&place, &["--shard", shard, "--save", folder]).success();
        let index = FeatureIndex::open(&place.path(folder).join("features.safetensors")).unwrap();
        rows.extend((0..index.count()).map(|row| (index.name(row), index.vectors().row(row).to_vec())));
    }
    let whole = FeatureIndex::open(&place.path(ROWS)).unwrap();
    assert_eq!(rows.len(), 60);
    for (i, (name, row)) in rows.iter().enumerate() {
        assert_eq!((name, row.as_slice()), (&whole.name(i), whole.vectors().row(i)));
    }
}

/// Waits until `ready`, and fails where that takes a minute.
#[cfg(unix)]
#[track_caller]
fn wait_until(mut ready: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !ready() {
        assert!(begin.elapsed().as_secs() < 60, "it never came");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Kills a run at moments of all kinds, goes on, and compares with a run that nobody killed.
#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    use std::process::Stdio;
    let place = indexed();
    place.file("photos/digit-0-bad.png", "no image");
    let whole = index(&place, "index");
    let [rows, list] = ["killed/features.safetensors", "killed/features.txt"].map(|name| place.path(name));
    let [partial_rows, partial_list] =
        ["killed/features.safetensors.partial", "killed/features.txt.partial"].map(|name| place.path(name));
    let resume = [&FEATURES[..], &["--save", "killed", "--resume"]].concat();
    let mut before = 0;
    for (round, name) in
        [("-KILL", 130), ("-KILL", 130), ("-INT", 130), ("-KILL", 130), ("-TERM", 130)].iter().enumerate()
    {
        let target = before + 1 + round * 3;
        let child = place.command(&resume).stderr(Stdio::piped()).spawn().unwrap();
        wait_until(|| lines(&partial_list) >= target || rows.exists());
        let id = child.id().to_string();
        assert!(std::process::Command::new("kill").args([name.0, &id]).status().unwrap().success());
        let done = child.wait_with_output().unwrap();
        if rows.exists() {
            // The machine was slow: as if that had come before the files got their names.
            fs::rename(&rows, &partial_rows).unwrap();
            fs::rename(&list, &partial_list).unwrap();
            before = 60;
            break;
        }
        before = lines(&partial_list);
        assert!(before >= target, "{before}");
        if name.0 != "-KILL" {
            assert_eq!(done.status.code(), Some(name.1));
            // What is left is an index.
            assert_eq!(Saved::read(&partial_rows).shape("pooled"), [before, 128]);
        }
    }
    assert!(before > 0);
    // Without --resume nothing is lost.
    let says =
        "killed/features.safetensors.partial has the rows of an interrupted run; --resume goes on with them";
    refused(&pooled(&place, &["--save", "killed"]), says);
    // As if a row and a name had been cut by the kill.
    let append = |path: &Path, bytes: &[u8]| {
        fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
    };
    append(&partial_rows, &[1, 2, 3]);
    append(&partial_list, b"photos/digit-9");
    let done = place.run(&resume);
    assert_eq!((done.status(), done.stderr().lines().count()), (1, 1), "{}", done.stderr());
    assert!(index(&place, "killed") == whole);
    assert_eq!(names(&place.path("killed")), ["features.safetensors", "features.txt"]);
    // Once more there is nothing to do but what failed; and nothing at all without it.
    let done = place.run(&resume);
    assert!(done.status() == 1 && index(&place, "killed") == whole, "{}", done.stderr());
    fs::remove_file(place.path("photos/digit-0-bad.png")).unwrap();
    assert_eq!(place.run(&resume).success(), "");
    assert!(index(&place, "killed") == whole);
    assert_eq!(names(&place.path("killed")), ["features.safetensors", "features.txt"]);
}

#[test]
fn a_run_goes_on_with_the_same_options_alone() {
    let place = indexed();
    let whole = index(&place, "index");
    // The first twenty, as a run leaves them.
    let begin = |place: &Place| {
        let header = 8 + u64::from_le_bytes(whole[0][..8].try_into().unwrap()) as usize;
        place.file("part/features.safetensors.partial", &whole[0][..header + 20 * 128 * 4]);
        let list: String =
            String::from_utf8(whole[1].clone()).unwrap().split_inclusive('\n').take(20).collect();
        place.file("part/features.txt.partial", list);
        ["part/features.safetensors.partial", "part/features.txt.partial"]
            .map(|name| fs::read(place.path(name)).unwrap())
    };
    let left = begin(&place);
    let part = |more: &[&str]| pooled(&place, &[&["--save", "part", "--resume"], more].concat());
    for (more, says) in [
        (&["--crop-pct", "0.5"][..], "was made with preparation `short side to 96"),
        (
            &["--dtype", "bf16"],
            "was made with dtype `f32`, not dtype `bf16`; --overwrite without --resume begins anew",
        ),
        (&["--exif", "ignore"], "was made with exif `apply`, not exif `ignore`"),
        (&["--overwrite"], "cannot be used with"),
        (&["-o", "x.jsonl"], "--pooled writes features.safetensors and features.txt and no records"),
        (&["--format", "csv"], "leave --output and --format out"),
    ] {
        let done = part(more);
        assert!(done.status() == 2 && done.stderr().contains(says), "{}", done.stderr());
        let now = ["part/features.safetensors.partial", "part/features.txt.partial"]
            .map(|name| fs::read(place.path(name)).unwrap());
        assert!(now == left, "{more:?}");
    }
    // The last of the images is computed again: another one shows.
    let last = String::from_utf8(left[1].clone()).unwrap().lines().last().unwrap().to_owned();
    let image = fs::read(place.path(&last)).unwrap();
    place.digit(&last);
    let done = part(&[]);
    assert!(
        done.status() == 2 && done.stderr().contains("its last row comes out differently now"),
        "{}",
        done.stderr()
    );
    place.file(&last, image);
    assert_eq!(part(&[]).success(), "");
    assert!(index(&place, "part") == whole);
    // New images are added; those that are gone stay, with a word.
    place.digit("photos/zz.png");
    fs::remove_file(place.path(&last)).unwrap();
    let done = part(&[]);
    assert!(done.stderr().contains("has 1 results of images that are not among the inputs; they stay"));
    let added = FeatureIndex::open(&place.path("part/features.safetensors")).unwrap();
    assert_eq!((added.count(), added.name(60).as_str()), (61, "photos/zz.png"));
    let old = FeatureIndex::open(&place.path(ROWS)).unwrap();
    assert!((0..60).all(|row| added.vectors().row(row) == old.vectors().row(row)));
}

#[test]
fn only_earlier_results_are_replaced() {
    let place = digits();
    let run = |folder: &str, more: &[&str]| pooled(&place, &[&["--save", folder], more].concat());
    place.file("a/features.safetensors", "dear diary");
    place.file("b/features.txt", "dear diary");
    place.file("c/features.safetensors.partial", "dear diary");
    place.file("d/features.txt.partial", "dear diary");
    for (folder, says) in [
        ("a", "a/features.safetensors is there already and was not made by this program"),
        ("b", "b/features.txt is there already"),
        ("c", "c/features.safetensors.partial is there already"),
        ("d", "d/features.txt.partial is there already"),
    ] {
        for more in [&[][..], &["--resume"]] {
            refused(&run(folder, more), says);
            let file = place.path(folder).join(&names(&place.path(folder))[0]);
            assert_eq!(fs::read_to_string(file).unwrap(), "dear diary");
        }
        assert_eq!(run(folder, &["--overwrite"]).success(), "");
        // An earlier result is replaced, as often as one likes.
        assert_eq!(run(folder, &[]).success(), "");
        assert_eq!(names(&place.path(folder)), ["features.safetensors", "features.txt"]);
    }
    // When nothing succeeds, it stays.
    place.file("bad/bad.png", "no image");
    let before = index(&place, "a");
    let bad = ["features", "bad", "--pooled", "--model", "demo-digits", "--save"];
    for (folder, says) in [
        ("a", "a/features.safetensors is left as it was"),
        ("new", "new/features.safetensors is not written"),
    ] {
        let done = place.run(&[&bad[..], &[folder]].concat());
        assert!(done.status() == 1 && done.stderr().contains(says), "{}", done.stderr());
    }
    assert!(index(&place, "a") == before && names(&place.path("new")).is_empty());
    // What the run reads is never replaced, whatever one insists on.
    let list =
        ["features", "--files-from", "a/features.txt", "--pooled", "--model", "demo-digits", "--save", "a"];
    refused(
        &place.run(&[&list[..], &["--overwrite"]].concat()),
        "a/features.txt is read by this run and would be replaced",
    );
    fs::copy(
        golden::repository().join("assets/demo-digits.safetensors"),
        place.path("b/features.safetensors"),
    )
    .unwrap();
    let own =
        ["features", "photos", "--pooled", "-w", "b/features.safetensors", "--save", "b", "--overwrite"];
    refused(&place.run(&own), "b/features.safetensors is read by this run and would be replaced");
    fs::create_dir_all(place.path("e/features.safetensors")).unwrap();
    refused(&run("e", &["--overwrite"]), "e/features.safetensors: can't be written: it is a folder");
}

#[test]
fn what_is_no_classifier_has_no_vectors() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    let [detector, segmenter] = ["detect/maskrcnn_s/model.pth", "segment/upernet_b/model.pth"]
        .map(|name| golden::path(name).display().to_string());
    for model in
        [["-w", &detector], ["-w", &segmenter], ["-m", "mask-rcnn-nat-tiny"], ["-m", "upernet-nat-tiny"]]
    {
        let arguments = ["features", "a.png", "--pooled", "--save", "out", "--resolution", "64", "-q"];
        let done = place.run(&[&arguments[..], &model].concat());
        refused(&done, "has no pooled features: only classifiers have");
        assert!(!place.path("out").exists());
    }
}

/// An image finds itself first, and then mostly images of its class.
#[test]
fn images_find_their_like() {
    let place = indexed();
    let records = place.run(&["search", ROWS, "photos", "-k", "3"]).records::<SearchResult>();
    assert_eq!(records.len(), 60);
    let mut right = 0;
    for (row, record) in records.iter().enumerate() {
        assert_eq!(
            (record.model.as_str(), record.index.as_str(), record.nearest.len()),
            ("demo-digits", ROWS, 3)
        );
        let [own, next, last] = record.nearest.as_slice() else { panic!("{record:?}") };
        assert_eq!((own.row, &own.image), (row, &record.image));
        assert!((own.similarity - 1.0).abs() < 1e-6 && own.similarity <= 1.0, "{}", own.similarity);
        assert!(own.similarity > next.similarity && next.similarity >= last.similarity);
        right += usize::from(truth(&next.image) == truth(&record.image));
    }
    assert_eq!(right, 57);
}

/// The k-NN classifier over an index, against the definition in f64.
#[test]
fn classes_are_chosen_by_neighbors() {
    let place = indexed();
    let index = FeatureIndex::open(&place.path(ROWS)).unwrap();
    let classes: Vec<usize> = (0..index.count()).map(|row| truth(&index.name(row))).collect();
    let unit: Vec<Vec<f64>> = (0..60)
        .map(|row| {
            let row = index.vectors().row(row).iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.iter().map(|x| x / length).collect()
        })
        .collect();
    let cosine = |a: usize, b: usize| unit[a].iter().zip(&unit[b]).map(|(a, b)| a * b).sum::<f64>();
    let naive = |query: usize, rows: &[usize], k: usize| {
        let mut near: Vec<(f64, usize)> = rows.iter().map(|&row| (cosine(query, row), row)).collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut votes = [0.0; 10];
        near.iter().take(k).for_each(|&(similarity, row)| votes[classes[row]] += (similarity / 0.07).exp());
        (0..10).max_by(|&a, &b| f64::total_cmp(&votes[a], &votes[b])).unwrap()
    };
    let mut pinned = Vec::new();
    for k in [1, 5, 20, 1000] {
        let mut options = KnnOptions::default();
        options.neighbors = k;
        let got = knn_leave_one_out(index.vectors(), &classes, &options);
        let others = |query: usize| (0..60).filter(|&row| row != query).collect::<Vec<_>>();
        let want: Vec<_> = (0..60).map(|query| Some(naive(query, &others(query), k))).collect();
        assert_eq!(got, want, "{k}");
        pinned.push(got.iter().zip(&classes).filter(|(got, truth)| **got == Some(**truth)).count());
        // Trained on the first half of each class, tried on the other.
        let halves: [Vec<usize>; 2] = [0, 1].map(|half| (0..60).filter(|row| row / 3 % 2 == half).collect());
        let rows = |half: &[usize]| {
            half.iter().flat_map(|&row| index.vectors().row(row)).copied().collect::<Vec<f32>>()
        };
        let [train, val] = [0, 1].map(|half| rows(&halves[half]));
        let known: Vec<usize> = halves[0].iter().map(|&row| classes[row]).collect();
        let got = knn_classify(Vectors::new(&val, 128), Vectors::new(&train, 128), &known, &options);
        let want: Vec<_> = halves[1].iter().map(|&query| Some(naive(query, &halves[0], k))).collect();
        assert_eq!(got, want, "{k}");
    }
    assert_eq!(pinned, [57; 4]);
}

#[test]
fn what_was_found_is_said_in_every_format() {
    let place = indexed();
    fs::copy(place.path("photos/digit-0-012.png"), place.path("a.png")).unwrap();
    place.digit("b, c.png");
    let mut shapes = Shapes::of("search");
    let hide = ["similarity"];
    let search =
        |format: &str| place.run(&["search", ROWS, ".", "-k", "2", "--format", format, "-q"]).success();
    let call = |format: &str| format!("nat-infer search {ROWS} . -k 2 --format {format}");
    let lines: Vec<String> = search("jsonl").lines().map(|line| json(line, &hide)).collect();
    shapes.add(&call("jsonl"), &lines.join("\n"));
    shapes.add(&call("json"), &json(&search("json"), &hide));
    shapes.add(&call("csv"), &csv(&search("csv"), &hide)).check();
    let table = search("table");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[..2], ["./a.png", "   1.0000  photos/digit-0-012.png"]);
    assert!(lines.len() == 6 && lines[2].starts_with("   0.") && lines[3] == "./b, c.png", "{table}");
    // Earlier results are replaced, in every format; and none of the index.
    for (format, name) in [("table", "x"), ("csv", "x.csv"), ("json", "x.json"), ("jsonl", "x.jsonl")] {
        for _ in 0..2 {
            let output = ["search", ROWS, "a.png", "--format", format, "-o", name, "-q"];
            assert_eq!(place.run(&output).success(), "");
        }
    }
    for file in [ROWS, NAMES] {
        let done = place.run(&["search", ROWS, "a.png", "-o", file, "--overwrite"]);
        refused(&done, "is an input of this run; --output needs another file");
    }
    // More than there are.
    let all = place.run(&["search", ROWS, "a.png", "-k", "1000"]).records::<SearchResult>();
    assert_eq!(all[0].nearest.len(), 60);
    // A query that can't be read does not keep the others.
    place.file("bad.png", "no image");
    let done = place.run(&["search", ROWS, "bad.png", "a.png"]);
    assert_eq!((done.status(), done.stdout().lines().count()), (1, 1));
}

#[test]
fn vectors_are_compared_with_their_like_alone() {
    let place = indexed();
    place.digit("a.png");
    let golden = golden::path("classify/nat-k7.pth").display().to_string();
    let demo = golden::repository().join("assets/demo-digits.safetensors").display().to_string();
    for (more, says) in [
        (
            &["-w", &golden, "--dilations", "1/1/1/1"][..],
            "index/features.safetensors was made with the model `demo-digits`, not `nat-k7.pth@",
        ),
        (
            &["--resolution", "64"],
            "was made with images prepared by `short side to 96, centre crop of 96x96`, not `",
        ),
        (&["--crop-pct", "0.5"], "was made with images prepared by"),
        (&["--exif", "ignore"], "was made with --exif apply; the queries need the same"),
        (&["--report", "out", "-o", "x.jsonl", "--resume"], "--resume goes on without it"),
        (&["--resume"], "--resume goes on with a file; --output names it"),
    ] {
        refused(&place.run(&[&["search", ROWS, "a.png", "-q"], more].concat()), says);
    }
    // The resolution of the index is that of the queries.
    let file = [
        "features",
        "photos",
        "--pooled",
        "-w",
        &demo,
        "--resolution",
        "64",
        "--exif",
        "ignore",
        "--save",
        "other",
        "-q",
    ];
    place.run(&file).success();
    let other = "other/features.safetensors";
    let says = "other/features.safetensors was made with `demo-digits.safetensors@";
    refused(&place.run(&["search", other, "a.png", "--exif", "ignore", "-q"]), says);
    fs::copy(&demo, place.path("copy.safetensors")).unwrap();
    let query =
        ["search", other, "photos/digit-0-012.png", "--exif", "ignore", "-w", "copy.safetensors", "-q"];
    let found = place.run(&query).records::<SearchResult>();
    assert_eq!((found[0].nearest[0].row, found[0].nearest[0].similarity), (0, 1.0));

    // Anybody's index says nothing of its model.
    let path = place.path("theirs.safetensors");
    let tensor = |name: &str, shape: &[usize]| (name.to_owned(), "F32", shape.to_vec(), Vec::new());
    save(&path, &[tensor("embeddings", &[3, 128])]);
    let theirs = ["search", "theirs.safetensors", "a.png", "-q"];
    let says = "theirs.safetensors does not say which model made it; --model or --weights does";
    refused(&place.run(&theirs), says);
    let demo = [&theirs[..], &["-m", "demo-digits"]].concat();
    let found = place.run(&demo).records::<SearchResult>();
    let rows: Vec<_> =
        found[0].nearest.iter().map(|found| (found.image.as_str(), found.row, found.similarity)).collect();
    assert_eq!(rows, [("0", 0, 0.0), ("1", 1, 0.0), ("2", 2, 0.0)]);
    for (shape, says) in [
        (
            &[3, 64][..],
            "theirs.safetensors has vectors of 64 numbers, demo-digits makes 128: it is another model's",
        ),
        (&[0, 128], "theirs.safetensors: `embeddings` is [0, 128]: there is no image in it"),
        (&[384], "theirs.safetensors: `embeddings` is [384]; an index has a row for each image"),
    ] {
        save(&path, &[tensor("embeddings", shape)]);
        refused(&place.run(&demo), says);
    }
    refused(&place.run(&["search", "none.safetensors", "a.png"]), "none.safetensors: ");
    refused(
        &place.run(&["search", "index", "a.png"]),
        "index: a folder, no index; name the safetensors file in it",
    );
    fs::remove_file(place.path(NAMES)).unwrap();
    refused(&place.run(&["search", ROWS, "a.png"]), "index/features.txt: not there: it names the images");
}

#[test]
fn what_was_found_is_shown_on_a_page() {
    let place = indexed();
    place.digit("queries/a.png");
    place.digit("queries/b <b>.png");
    place.file("queries/c.png", "no image");
    fs::remove_file(place.path("photos/digit-9-055.png")).unwrap();
    let report = ["search", ROWS, "queries", "-k", "60", "--report", "found"];
    for _ in 0..2 {
        let done = place.run(&report);
        assert_eq!((done.status(), done.stdout().lines().count()), (1, 2), "{}", done.stderr());
        assert!(done.stderr().contains("; files in found\n"), "{}", done.stderr());
        assert_eq!(names(&place.path("found")), ["search.html"]);
    }
    let html = fs::read_to_string(place.path("found/search.html")).unwrap();
    let left = names(&place.path("photos")).len();
    assert_eq!(html.matches("src=\"data:image/jpeg;base64,").count(), 2 * (1 + left));
    assert!(html.contains("queries/b &lt;b&gt;.png") && !html.contains("<b>.png"));
    assert!(html.contains("photos/digit-0-012.png") && html.contains("demo-digits"));
    // The pictures are found beside an index that was moved with them, and are not needed.
    fs::create_dir(place.path("moved")).unwrap();
    fs::rename(place.path("index/features.txt"), place.path("moved/features.txt")).unwrap();
    fs::rename(place.path(ROWS), place.path("moved/features.safetensors")).unwrap();
    fs::rename(place.path("photos"), place.path("moved/photos")).unwrap();
    let pictures = |folder: &str| {
        let arguments = ["search", "moved/features.safetensors", DIGIT, "-k", "60", "--report", folder, "-q"];
        place.run(&arguments).success();
        fs::read_to_string(place.path(folder).join("search.html"))
            .unwrap()
            .matches("src=\"data:image/")
            .count()
    };
    assert_eq!(pictures("found"), 1 + left);
    fs::remove_dir_all(place.path("moved/photos")).unwrap();
    assert_eq!(pictures("found"), 1);
    place.file("mine/search.html", "dear diary");
    let mine = ["search", "moved/features.safetensors", DIGIT, "--report", "mine", "-q"];
    refused(&place.run(&mine), "mine/search.html is there already and is no result of an earlier run");
    place.run(&[&mine[..], &["--overwrite"]].concat()).success();
    // Where nothing was found nothing is written.
    let none = place.run(&["search", "moved/features.safetensors", "queries/c.png", "--report", "none"]);
    assert!(none.status() == 1 && !place.path("none/search.html").exists());
}
