//! Runs that were interrupted, that are gone on with, and that are cut into shards.

use std::fs;
use std::thread;
use std::time::Duration;

use nat_infer::results::Evaluation;

use super::{accuracy, digits, eval, found, lasting, report, with_digits};

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

/// A class that was corrected after a shard was done is that of the merged report, too.
#[test]
fn corrected_classes_are_kept_with_what_was_found() {
    let place = with_digits(1);
    let list = |shift: u64| -> String {
        let line =
            |(name, truth, _): &(String, u64, u64)| format!("{truth}/0-{name} {}\n", (truth + shift) % 10);
        digits().iter().map(line).collect()
    };
    // The same labels in another place are the same labels.
    for machine in ["a", "b"] {
        let real: serde_json::Map<String, serde_json::Value> =
            digits().into_iter().map(|(name, truth, _)| (format!("0-{name}"), vec![truth].into())).collect();
        place.file(&format!("{machine}/real.json"), serde_json::Value::from(real).to_string());
    }
    let shard = |number: &str, machine: &str, resume: &[&str]| {
        let (shard, output) = (format!("{number}/2"), format!("part{number}.json"));
        let real = format!("{machine}/real.json");
        let arguments = ["--annotations", "list.txt", "--shard", &shard, "-o", &output, "--real", &real];
        eval(&place, &[&arguments[..], resume].concat()).success();
    };
    place.file("list.txt", list(1));
    shard("1", "a", &[]);
    place.file("list.txt", list(0));
    shard("2", "b", &[]);
    shard("1", "b", &["--resume"]);
    place.run(&["eval", "merge", "part1.json", "part2.json", "-o", "merged.json"]).success();
    eval(&place, &["--real", "a/real.json", "-o", "whole.json"]).success();
    let [merged, whole] = ["merged.json", "whole.json"].map(|name| report(&place.path(name)));
    assert_eq!((&merged.metrics, &merged.classes), (&whole.metrics, &whole.classes));
    assert!(accuracy(&whole).0 > 90.0);
    // Of shards that were told otherwise nothing is added up.
    place.file("list.txt", list(2));
    shard("1", "a", &["--resume"]);
    let done = place.run(&["eval", "merge", "part1.json", "part2.json"]);
    assert!(
        done.status() == 2
            && done.stderr().contains("part2.json: was measured by other annotations than part1.json"),
        "{}",
        done.stderr()
    );
    // Where an image goes, every shard has others, and those that one has no more are another's.
    let shorter: String = list(0).split_inclusive('\n').skip(1).collect();
    for number in ["1", "2"] {
        place.file("list.txt", &shorter);
        shard(number, "a", &["--resume"]);
    }
    // The last, of shard 1, that is not there on this machine alone fails, and is no other annotation.
    let gone =
        digits().into_iter().next_back().map(|(name, truth, _)| format!("data/{truth}/0-{name}")).unwrap();
    fs::rename(place.path(&gone), place.path("gone.png")).unwrap();
    let arguments = ["--annotations", "list.txt", "--real", "a/real.json", "--resume"];
    let done = eval(&place, &[&arguments[..], &["--shard", "1/2", "-o", "part1.json"]].concat());
    assert_eq!(done.status(), 1, "{}", done.stderr());
    let done = place.run(&["eval", "merge", "part1.json", "part2.json", "-o", "merged.json"]);
    assert_eq!(done.status(), 1, "{}", done.stderr());
    let merged = report(&place.path("merged.json"));
    assert_eq!((merged.images, merged.failed.len()), (digits().len() - 1, 1));
    fs::rename(place.path("gone.png"), place.path(&gone)).unwrap();
    // Nor does an interrupted run lose anything by it: of the last image, which is computed again, the class is another.
    place.file("list.txt", list(0));
    shard("1", "a", &[]);
    fs::rename(place.path("part1.images.jsonl"), place.path("part1.images.jsonl.partial")).unwrap();
    place.file("list.txt", list(3));
    shard("1", "a", &["--resume"]);
    assert!(accuracy(&report(&place.path("part1.json"))).0 < 10.0);
    // What an earlier run ended with is no matter where a later one was interrupted.
    let partial = fs::read_to_string(place.path("part1.images.jsonl")).unwrap();
    let lines: Vec<&str> = partial.split_inclusive('\n').collect();
    place.file("part1.images.jsonl.partial", lines[..5].concat() + "{\"image\": \"da");
    place.file("part1.images.jsonl", partial.replace("\"run\":\"", "\"run\":\"0"));
    shard("1", "a", &["--resume"]);
    assert_eq!(found(&place.path("part1.images.jsonl")).len(), lines.len());
}
