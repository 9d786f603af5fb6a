//! Long runs over many images: what a bad image, a signal or a full disk leaves, and how a run goes on.

#![cfg(unix)]

use std::collections::BTreeSet;
#[cfg(target_os = "linux")]
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nat_infer::results::{Classification, Detections};
use nat_testing::golden;
use nat_testing::place::{DIGIT, Done, Place};
use serde_json::Value;

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_nat-infer");

/// Names of the images of records, one per line.
fn images(jsonl: &str) -> Vec<String> {
    let image =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["image"].as_str().unwrap().to_owned();
    jsonl.lines().map(image).collect()
}

/// Lines on stderr that say something failed.
fn complaints(done: &Done) -> Vec<String> {
    let stderr = done.stderr();
    stderr.lines().filter(|line| !line.contains(" done")).map(str::to_owned).collect()
}

/// Waits until `ready`, and fails where that takes a minute.
#[track_caller]
fn wait_until(mut ready: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !ready() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it never came");
        thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

fn lines(path: &Path) -> usize {
    fs::read(path).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

// macOS has no such names.
#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_are_done_and_told_apart() {
    let place = Place::of(PROGRAM);
    fs::create_dir(place.path("photos")).unwrap();
    for name in [&b"photos/caf\xe9.png"[..], b"photos/caf\xe8.png", b"photos/a.png"] {
        fs::copy(DIGIT, place.path("").join(OsStr::from_bytes(name))).unwrap();
    }
    let expected = ["photos/a.png", r"photos/caf\xe8.png", r"photos/caf\xe9.png"];
    for argument in ["photos", "photos/*", "**/*.png"] {
        assert_eq!(images(&place.classify(&[argument]).success()), expected, "{argument}");
    }
    let mut command = place.command(&["classify", "--model", "demo-digits"]);
    let done = Done(command.arg(OsStr::from_bytes(b"photos/caf\xe9*")).output().unwrap());
    assert_eq!(images(&done.success()), expected[2..]);
    // What is saved for them is told apart too.
    place.run(&["features", "photos", "--save", "out", "--model", "demo-digits"]).success();
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 3);
}

#[test]
fn links_and_folders_are_said_and_done_once() {
    let place = Place::of(PROGRAM);
    place.digit("photos/a.png");
    place.digit("photos/sub/b.png");
    place.file("photos/notes.txt", "x");
    symlink("nowhere.png", place.path("photos/dead.png")).unwrap();
    symlink("..", place.path("photos/sub/up")).unwrap();
    let done = place.classify(&["photos", "-v"]);
    assert_eq!((done.status(), images(&done.stdout())), (1, vec!["photos/a.png".to_owned()]));
    assert!(done.stderr().contains("nat-infer: photos/dead.png: a link that leads nowhere\n"));
    assert!(done.stderr().contains("photos: passed over 1 folder, 1 file of another kind\n"));
    for arguments in [&["photos", "-r"][..], &["photos/**/*.png"]] {
        let done = place.classify(arguments);
        assert_eq!(
            (done.status(), images(&done.stdout())),
            (1, vec!["photos/a.png".into(), "photos/sub/b.png".into()])
        );
        let complaints = complaints(&done);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[1].contains("photos/sub/up: a link back to photos"), "{complaints:?}");
    }
}

#[test]
fn lists_and_shares_cover_everything_once() {
    let place = Place::of(PROGRAM);
    for name in ["a.png", "b b.png", "sub/c.png", "sub/d.png", "e.png"] {
        place.digit(name);
    }
    place.file("list", "a.png\nb b.png\r\n\nsub\n");
    let listed = place.classify(&["--files-from", "list"]).success();
    assert_eq!(images(&listed), ["a.png", "b b.png", "sub/c.png", "sub/d.png"]);
    let feed = |list: &str, arguments: &[&str]| {
        let mut child = place
            .command(&[&["classify", "--model", "demo-digits", "--files-from", "-"], arguments].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
        Done(child.wait_with_output().unwrap())
    };
    assert_eq!(images(&feed("e.png\n", &["a.png"]).success()), ["a.png", "e.png"]);
    assert_eq!(images(&feed("e.png\0sub/c.png\0", &["-0"]).success()), ["e.png", "sub/c.png"]);
    let twice = feed("a.png\n-\n", &[]);
    assert!(twice.status() == 1 && twice.stderr().contains("-: can't be read: it has the list of inputs"));
    assert!(feed("", &[]).status() == 2);

    let whole = place.classify(&[".", "-r", "--output", "whole.jsonl"]);
    assert_eq!(whole.status(), 0);
    let whole: BTreeSet<String> =
        fs::read_to_string(place.path("whole.jsonl")).unwrap().lines().map(str::to_owned).collect();
    let shares: Vec<String> =
        (1..=3).map(|i| place.classify(&[".", "-r", "--shard", &format!("{i}/3")]).success()).collect();
    let together = shares.concat();
    assert_eq!(together.lines().count(), 5);
    assert_eq!(together.lines().map(str::to_owned).collect::<BTreeSet<_>>(), whole);
    // A share without an input is a result too.
    assert!(place.classify(&["a.png", "--shard", "2/2", "--format", "csv", "-o", "none.csv"]).status() == 0);
    assert_eq!(fs::read_to_string(place.path("none.csv")).unwrap(), "image,model,rank,index,label,score\n");
    for shard in ["0/2", "3/2", "1", "a/b"] {
        assert_eq!(place.classify(&["a.png", "--shard", shard]).status(), 2);
    }
}

#[test]
fn a_damaged_image_is_one_bad_image() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    // A progressive file whose luma is sampled less than its chroma: decoders have panicked on it.
    let odd = golden::path("pillow/jpeg/found-c8_1x1_2x2_2x2_p.jpg");
    let mut damaged = fs::read(&odd).unwrap();
    let frame = damaged.windows(2).position(|pair| pair == [0xFF, 0xC2]).unwrap();
    damaged[frame + 5..frame + 9].fill(0);
    place.file("b.jpg", &damaged);
    fs::copy(&odd, place.path("c.jpg")).unwrap();
    place.digit("d.png");
    let done = place.classify(&[".", "-o", "out.jsonl"]);
    assert_eq!(done.status(), 1, "{}", done.stderr());
    let kept = fs::read_to_string(place.path("out.jsonl")).unwrap();
    assert_eq!(images(&kept), ["./a.png", "./c.jpg", "./d.png"]);
    let stderr = done.stderr();
    assert!(stderr.starts_with("nat-infer: ./b.jpg: damaged or unsupported JPEG image: "), "{stderr}");
    assert!(stderr.lines().count() == 2 && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_name_that_is_too_long_costs_its_own_result_alone() {
    let place = Place::of(PROGRAM);
    let long = format!("{}.png", "b".repeat(245));
    for name in ["a.png", &long, "c.png"] {
        place.digit(name);
    }
    for command in [&["features"][..], &["saliency", "--method", "grad-cam"]] {
        let arguments = ["--model", "demo-digits", "--save", "out", "-o", "out.json", "--overwrite", "."];
        let done = place.run(&[command, &arguments].concat());
        assert_eq!(done.status(), 1, "{}", done.stderr());
        let records: Value = serde_json::from_slice(&fs::read(place.path("out.json")).unwrap()).unwrap();
        let names: Vec<_> =
            records.as_array().unwrap().iter().map(|record| record["image"].as_str().unwrap()).collect();
        assert_eq!(names, ["./a.png", "./c.png"]);
        let complaints = complaints(&done);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(
            complaints[0].contains("bbb.png: out/bbb") && complaints[0].contains("can't be written"),
            "{complaints:?}"
        );
        assert!(done.stderr().contains("2 images done, 1 failed"), "{}", done.stderr());
    }
}

#[test]
fn equal_names_in_several_folders_are_saved_in_these() {
    let place = Place::of(PROGRAM);
    for name in ["p/a/x.png", "p/b/x.png", "q/x.png", "q/y.png"] {
        place.digit(name);
    }
    let bmp = image::open(DIGIT).unwrap();
    bmp.save(place.path("q/y.bmp")).unwrap();
    let saved = |folder: &str, inputs: &[&str]| {
        let arguments = ["features", "--model", "demo-digits", "--save", folder];
        place.run(&[&arguments[..], inputs].concat()).success();
        let prefix = format!("{folder}/");
        let files = place.files().into_iter();
        files.filter_map(|file| file.strip_prefix(&prefix).map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(saved("1", &["p", "-r"]), ["a/x.safetensors", "b/x.safetensors"]);
    assert_eq!(saved("2", &["p/*/x.png"]), ["a/x.safetensors", "b/x.safetensors"]);
    // As a shell expands it: of equal names each is in its folders.
    assert_eq!(
        saved("3", &["p/a/x.png", "p/b/x.png", "q/y.png"]),
        ["p/a/x.safetensors", "p/b/x.safetensors", "y.safetensors"]
    );
    assert_eq!(
        saved("4", &["p/a", "q"]),
        ["p/a/x.safetensors", "q/x.safetensors", "y.bmp.safetensors", "y.png.safetensors"]
    );
    assert_eq!(saved("5", &["q/x.png", "q/x.png"]), ["x.safetensors"]);
    place.file("list", "p/a/x.png\np/b/x.png\n");
    assert_eq!(saved("6", &["--files-from", "list"]), ["p/a/x.safetensors", "p/b/x.safetensors"]);
    // Shares plan as the whole does.
    for share in ["1/2", "2/2"] {
        saved("7", &["p/a", "q", "--shard", share]);
    }
    let files = |folder: &str| place.files().into_iter().filter(|file| file.starts_with(folder)).count();
    assert_eq!((files("7/"), files("4/")), (4, 4));
}

#[test]
fn what_is_saved_replaces_no_photo_and_no_checkpoint() {
    let place = Place::of(PROGRAM);
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo-digits.safetensors");
    place.file("photos/net.safetensors", fs::read(digits).unwrap());
    place.digit("photos/net.png");
    place.digit("photos/cat.png");
    image::open(DIGIT).unwrap().save(place.path("photos/cat.bmp")).unwrap();
    let weights = ["-w", "photos/net.safetensors"];
    let demo = ["--model", "demo-digits", "--method", "grad-cam"];
    let says = "photos/cat.png is there already and was not made by this program";
    for (arguments, says) in [
        (
            &[&["features", "photos/net.png", "--save", "photos"], &weights[..]].concat(),
            "photos/net.safetensors is read by this run and would be replaced",
        ),
        (&[&["saliency", "photos/cat.bmp", "--save", "photos"], &demo[..]].concat(), says),
        (
            &[&["saliency", "photos/cat.bmp", "--save", "out", "-o", "out/cat.png"], &demo[..]].concat(),
            "out/cat.png would be a result and --output",
        ),
    ] {
        let before: Vec<_> =
            place.files().into_iter().map(|file| fs::read(place.path(&file)).unwrap()).collect();
        let done = place.run(arguments);
        assert!(done.status() == 2 && done.stderr().contains(says), "{}", done.stderr());
        let after: Vec<_> =
            place.files().into_iter().map(|file| fs::read(place.path(&file)).unwrap()).collect();
        assert!(before == after, "{arguments:?}");
    }
    // Two images never share a file, whatever their names make of it.
    place.digit("more/a.png");
    place.digit("more/a.saliency.png");
    place.run(&[&["saliency", "more", "--save", "two"], &demo[..]].concat()).success();
    assert_eq!(fs::read_dir(place.path("two")).unwrap().count(), 4);
    place.digit("x/a.png");
    place.digit("y/x/a.png");
    let mut command =
        place.command(&[&["saliency", "x/a.png", "../x/a.png", "--save", "../up"], &demo[..]].concat());
    let done = Done(command.current_dir(place.path("y")).output().unwrap());
    assert_eq!(done.status(), 0, "{}", done.stderr());
    let saved = place.files().into_iter().filter(|file| file.starts_with("up/")).count();
    assert_eq!(saved, 4);
}

#[test]
fn the_extension_says_the_format() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    for (name, begins) in [
        ("x.json", "[{\"image\""),
        ("x.jsonl", "{\"image\""),
        ("x.ndjson", "{\"image\""),
        ("x.CSV", "image,model"),
        ("x", "{\"image\""),
    ] {
        place.classify(&["a.png", "-o", name]).success();
        let text = fs::read_to_string(place.path(name)).unwrap();
        assert!(text.starts_with(begins), "{name}: {text}");
    }
    place.classify(&["a.png", "-o", "x.json", "--format", "csv"]).success();
    assert!(fs::read_to_string(place.path("x.json")).unwrap().starts_with("image,model"));
    let stdout = place.classify(&["a.png", "-o", "-"]).success();
    assert!(stdout.starts_with("{\"image\"") && !place.path("-").exists());
}

#[test]
fn only_results_are_replaced() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    let photo = place.digit("photo.png");
    let picture = fs::read(&photo).unwrap();
    let checkpoint = place.file("model.pth", fs::read(golden::path("classify/nat-k7.pth")).unwrap());
    place.file("notes.txt", "dear diary");
    place.file("data.jsonl", "{\"image\":\"a.png\",\"caption\":\"a nine\"}\n");
    place.file("tasks.csv", "name,task,who\na,b,c\n");
    place.file("todo.txt", "move the photos -> archive\n");
    place.file("cars.json", "[{\"engine\":\"V8\",\"model\":\"Mustang\"}]");
    place.file("cars.csv", "image,model,year\n");
    place.file("empty", "");
    symlink("photo.png", place.path("link.jsonl")).unwrap();
    for (output, says) in [
        ("a.png", "a.png is an input of this run"),
        (
            "photo.png",
            "photo.png is there already and is no result of an earlier run; --overwrite replaces it",
        ),
        ("link.jsonl", "link.jsonl is there already"),
        ("model.pth", "is there already"),
        ("notes.txt", "is there already"),
        ("data.jsonl", "is there already"),
        ("tasks.csv", "is there already"),
        ("todo.txt", "is there already"),
        ("cars.json", "is there already"),
        ("cars.csv", "is there already"),
        ("no/x.csv", "no/x.csv: can't be written: there is no folder no"),
        ("a.png/x.csv", "a.png/x.csv: can't be written: a.png is no folder"),
        (".", ".: can't be written: it is a folder"),
    ] {
        let before = place.files();
        let done = place.classify(&["a.png", "--output", output]);
        assert_eq!((done.status(), done.stderr().lines().count()), (2, 1), "{output}: {}", done.stderr());
        assert!(done.stderr().contains(says), "{output}: {}", done.stderr());
        assert_eq!(place.files(), before);
    }
    // An input is never replaced, whatever one insists on; nor are the weights and lists that a run reads.
    place.file("list", "a.png\n");
    let weights = ["classify", "a.png", "-w", "model.pth", "--overwrite", "-o", "model.pth"];
    for arguments in
        [&["classify", "--model", "demo-digits", "a.png", "--overwrite", "-o", "./a.png"][..], &weights]
    {
        let done = place.run(arguments);
        assert!(done.status() == 2 && done.stderr().contains("is an input of this run"), "{}", done.stderr());
    }
    let done = place.classify(&["--files-from", "list", "-o", "list", "--overwrite"]);
    assert!(
        done.status() == 2 && done.stderr().contains("list is an input of this run"),
        "{}",
        done.stderr()
    );
    assert!(fs::read(&photo).unwrap() == picture && fs::read(checkpoint).unwrap().starts_with(b"PK"));

    let done = place.classify(&["a.png", "--overwrite"]);
    assert!(
        done.status() == 2 && done.stderr().contains("--overwrite has nothing to replace"),
        "{}",
        done.stderr()
    );

    // Earlier results are, in every format, and what is empty.
    for name in ["empty", "x.json", "x.jsonl", "x.csv", "x.table"] {
        for _ in 0..2 {
            let table = if name == "x.table" { &["--format", "table"][..] } else { &[] };
            place.classify(&[&["a.png", "-o", name], table].concat()).success();
        }
    }
    place.classify(&["a.png", "-o", "notes.txt", "--overwrite"]).success();
    // When nothing succeeds, an older result stays.
    place.file("bad.png", "no image");
    let older = fs::read(place.path("x.csv")).unwrap();
    let done = place.classify(&["bad.png", "-o", "x.csv"]);
    assert!(done.status() == 1 && done.stderr().contains("x.csv is left as it was"), "{}", done.stderr());
    assert_eq!(fs::read(place.path("x.csv")).unwrap(), older);
    let done = place.classify(&["bad.png", "-o", "new.csv"]);
    assert!(done.status() == 1 && done.stderr().contains("new.csv is not written"), "{}", done.stderr());
    assert!(!place.path("new.csv").exists() && !place.path("new.csv.partial").exists());
}

/// So many images in `photos`, each another one, of which some can't be decoded, saved or found.
fn mixed(place: &Place, count: usize) {
    let nine = image::open(DIGIT).unwrap().into_rgb8();
    for number in 0..count {
        let name = format!("photos/{number:04}.png");
        match number % 60 {
            7 => drop(place.file(&name, "no image")),
            // Too long for what is saved of it.
            32 => drop(place.digit(&format!("photos/{number:04}{}.png", "x".repeat(242)))),
            57 => symlink("nowhere", place.path(&name)).unwrap(),
            _ => {
                let mut image = nine.clone();
                let (x, y) = ((number * 7 % 128) as u32, (number * 13 % 128) as u32);
                image::imageops::overlay(&mut image, &image::RgbImage::new(9, 9), x.into(), y.into());
                if number % 3 == 0 {
                    image = image::imageops::rotate90(
                        &image::imageops::crop_imm(&image, 0, 0, 100, 128).to_image(),
                    );
                }
                image.save(place.file(&name, "")).unwrap();
            }
        }
    }
}

/// Kills a run at moments of all kinds, goes on, and compares with a run that nobody killed.
#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let detector = golden::path("detect/maskrcnn_s/model.pth");
    let grad_cam = ["saliency", "--model", "demo-digits", "--method", "grad-cam"];
    let detect = ["detect", "-w", detector.to_str().unwrap(), "--scale", "96x64", "--batch-size", "4"];
    for (command, format, count) in
        [(&grad_cam[..], "jsonl", 120), (&grad_cam, "csv", 120), (&detect, "jsonl", 60)]
    {
        let place = Place::of(PROGRAM);
        mixed(&place, count);
        let run = |output: &str, more: &[&str]| {
            let mut run =
                place.command(&[command, &["photos", "--save", "maps", "-o", output], more].concat());
            run.stderr(Stdio::piped()).stdout(Stdio::null());
            run
        };
        let whole = format!("whole.{format}");
        let done = Done(run(&whole, &[]).output().unwrap());
        assert_eq!(done.status(), 1);
        let (whole, bad) = (fs::read(place.path(&whole)).unwrap(), complaints(&done));
        // A detector's pictures have shorter names than a map.
        assert!(bad.len() >= count / 30, "{bad:?}");

        let output = format!("out.{format}");
        let (path, partial) = (place.path(&output), place.path(&format!("{output}.partial")));
        let seed = std::process::id().into();
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..5 {
            let target = lines(&partial) + rng.usize(0..count / 12);
            let mut child = run(&output, &["--resume"]).spawn().unwrap();
            wait_until(|| lines(&partial) > target || path.exists());
            child.kill().unwrap();
            child.wait().unwrap();
            if path.exists() {
                // The machine was slow to kill: as if that had come before the file got its name.
                fs::rename(&path, &partial).unwrap();
            }
        }
        // As if a record had been cut by the kill.
        let mut cut = fs::OpenOptions::new().append(true).open(&partial).unwrap();
        cut.write_all(if format == "csv" { b"photos/01" } else { b"{\"image\":\"pho" }).unwrap();
        let done = Done(run(&output, &["--resume"]).output().unwrap());
        assert_eq!(done.status(), 1, "{}", done.stderr());
        assert_eq!(complaints(&done), bad);
        let says = format!("{} images done (", count - bad.len());
        assert!(done.stderr().contains(&says) && done.stderr().contains(" before), "), "{}", done.stderr());
        assert!(fs::read(&path).unwrap() == whole && !partial.exists(), "seed {seed}");

        // Once more there is nothing to do but what failed, and the last one to compare.
        let done = Done(run(&output, &["--resume"]).output().unwrap());
        let says = format!("{says}{} before)", count - bad.len() - 1);
        assert!(done.status() == 1 && done.stderr().contains(&says), "{}", done.stderr());
        assert!(fs::read(&path).unwrap() == whole && !partial.exists());
    }
}

#[test]
fn a_run_goes_on_in_one_process_alone() {
    let place = Place::of(PROGRAM);
    for i in 0..30 {
        place.digit(&format!("photos/{i:02}.png"));
    }
    let whole = place.classify(&["photos", "-k", "1"]).success();
    let some: String = whole.lines().take(3).map(|line| line.to_owned() + "\n").collect();
    let partial = place.file("out.jsonl.partial", &some);
    let status = Command::new("mkfifo").arg(place.path("names")).status().unwrap();
    assert!(status.success());
    let run = |more: &[&str]| {
        let arguments =
            ["classify", "photos", "--model", "demo-digits", "-k", "1", "-o", "out.jsonl", "--resume"];
        place.command(&[&arguments[..], more].concat())
    };
    // The first has looked at the file and waits for names; the second comes and wants the same.
    let first = run(&["--labels", "names"]).stderr(Stdio::piped()).spawn().unwrap();
    let open = || fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open(place.path("names"));
    let mut names = None;
    wait_until(|| {
        names = open().ok();
        names.is_some()
    });
    let mut names = names.unwrap();
    let second = Done(run(&[]).output().unwrap());
    assert!(second.stderr().contains("another process is writing it"), "{}", second.stderr());
    assert_eq!((second.status(), fs::read_to_string(&partial).unwrap()), (2, some));
    names.write_all((0..10).map(|i| format!("{i}\n")).collect::<String>().as_bytes()).unwrap();
    drop(names);
    let done = Done(first.wait_with_output().unwrap());
    assert_eq!(done.status(), 0, "{}", done.stderr());
    assert_eq!(fs::read_to_string(place.path("out.jsonl")).unwrap(), whole);
}

#[test]
fn a_resumed_run_has_the_same_options() {
    let place = Place::of(PROGRAM);
    for name in ["a.png", "b.png", "c.png"] {
        place.digit(name);
    }
    let whole = place.classify(&["a.png", "b.png", "c.png"]).success();
    let two: String = whole.lines().take(2).map(|line| line.to_owned() + "\n").collect();
    let partial = place.file("out.jsonl.partial", &two);
    let classify =
        |more: &[&str]| place.classify(&[&["a.png", "b.png", "c.png", "-o", "out.jsonl"], more].concat());

    // Without --resume nothing is lost either.
    let done = classify(&[]);
    let says = "out.jsonl.partial has the results of an interrupted run; --resume goes on with it";
    assert!(done.status() == 2 && done.stderr().contains(says), "{}", done.stderr());
    for _ in 0..3 {
        let done = classify(&["--resume", "-k", "3"]);
        assert!(
            done.status() == 2 && done.stderr().contains("comes out differently now"),
            "{}",
            done.stderr()
        );
        assert_eq!(fs::read_to_string(&partial).unwrap(), two);
    }
    // A finished image that is gone in the meantime keeps its record.
    let image = fs::read(place.path("b.png")).unwrap();
    place.file("b.png", "no image");
    let done = place.classify(&["a.png", "b.png", "-o", "out.jsonl", "--resume"]);
    assert!(done.status() == 1 && done.stderr().contains("b.png: not an image"), "{}", done.stderr());
    assert_eq!(fs::read_to_string(place.path("out.jsonl")).unwrap(), two);
    place.file("b.png", image);
    fs::rename(place.path("out.jsonl"), &partial).unwrap();
    let weights = golden::path("classify/nat-k7.pth");
    let other =
        ["classify", "a.png", "b.png", "-w", weights.to_str().unwrap(), "--resume", "-o", "out.jsonl", "-q"];
    let done = place.run(&other);
    assert!(
        done.status() == 2 && done.stderr().contains("has results of `demo-digits`, not of `nat-k7.pth"),
        "{}",
        done.stderr()
    );
    assert_eq!(fs::read_to_string(&partial).unwrap(), two);
    for (name, says) in [
        ("out.json", "--resume goes on with jsonl and csv alone"),
        ("a.jsonl", "a.jsonl.partial is there already and is no result"),
        ("-", "--resume goes on with a file"),
    ] {
        place.file("a.jsonl.partial", "{\"image\":1}\n");
        let done = place.classify(&[
            "a.png",
            "-o",
            name,
            "--resume",
            "--format",
            if name == "out.json" { "json" } else { "jsonl" },
        ]);
        assert!(done.status() == 2 && done.stderr().contains(says), "{name}: {}", done.stderr());
    }
    let done = classify(&["--resume"]);
    assert_eq!(done.status(), 0, "{}", done.stderr());
    assert_eq!(fs::read_to_string(place.path("out.jsonl")).unwrap(), whole);

    // New images are added, and those that are gone stay, with a word.
    place.digit("d.png");
    let done = place.classify(&["b.png", "d.png", "-o", "out.jsonl", "--resume"]);
    assert!(
        done.status() == 0 && done.stderr().contains("2 results of images that are not among the inputs"),
        "{}",
        done.stderr()
    );
    assert_eq!(
        images(&fs::read_to_string(place.path("out.jsonl")).unwrap()),
        ["a.png", "b.png", "c.png", "d.png"]
    );
}

/// Starts a run that takes long, and waits for its first record.
fn long_run(place: &Place, arguments: &[&str], first: &Path) -> Child {
    let slow = ["saliency", "--model", "demo-digits", "--samples", "60", "--save", "maps", "photos"];
    let mut command = place.command(&[&slow[..], arguments].concat());
    let child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait_until(|| lines(first) > 1);
    child
}

#[test]
fn an_interrupted_run_keeps_what_is_finished_and_says_where() {
    for (name, number) in [("-INT", 1), ("-TERM", 1), ("-INT", 2)] {
        let place = Place::of(PROGRAM);
        for i in 0..40 {
            place.digit(&format!("photos/{i:02}.png"));
        }
        let partial = place.path("out.json.partial");
        let child = long_run(&place, &["-o", "out.json"], &partial);
        for _ in 0..number {
            signal(&child, name);
            thread::sleep(Duration::from_millis(1));
        }
        let done = Done(child.wait_with_output().unwrap());
        assert_eq!(done.status(), 130, "{}", done.stderr());
        // However it ended, the array is closed.
        let records: Vec<Value> = serde_json::from_slice(&fs::read(&partial).unwrap()).unwrap();
        assert!(!records.is_empty() && records.len() < 40);
        assert!(!place.path("out.json").exists());
        let temporary: Vec<_> =
            place.files().into_iter().filter(|file| file.contains(".nat-infer")).collect();
        assert!(temporary.is_empty(), "{temporary:?}");
        if number == 1 {
            let says = format!("nat-infer: ended early: {} of 40 images done", records.len());
            assert!(done.stderr().contains(&says), "{}", done.stderr());
            assert!(done.stderr().contains("; results in out.json.partial"), "{}", done.stderr());
        }
    }
}

#[test]
fn an_array_on_stdout_is_closed_when_the_run_is_interrupted() {
    let place = Place::of(PROGRAM);
    for i in 0..40 {
        place.digit(&format!("photos/{i:02}.png"));
    }
    let slow = [
        "saliency",
        "photos",
        "--model",
        "demo-digits",
        "--samples",
        "60",
        "--save",
        "maps",
        "--format",
        "json",
    ];
    let mut child = place.command(&slow).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut text).unwrap();
    signal(&child, "-INT");
    std::io::Read::read_to_string(&mut stdout, &mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let records: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(!records.is_empty() && records.len() < 40);
}

#[test]
fn signals_that_were_to_be_ignored_are() {
    let place = Place::of(PROGRAM);
    for i in 0..12 {
        place.digit(&format!("photos/{i:02}.png"));
    }
    let program = env!("CARGO_BIN_EXE_nat-infer");
    let script = format!(
        "trap '' HUP INT; exec {program} saliency photos --model demo-digits --samples 40 --save maps -o out.jsonl"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(place.path("")).stdin(Stdio::null());
    command.env("HOME", place.path("home")).stderr(Stdio::piped());
    // A group of its own, as a job of a shell.
    let child = command.process_group(0).spawn().unwrap();
    wait_until(|| lines(&place.path("out.jsonl.partial")) > 1);
    signal(&child, "-HUP");
    signal(&child, "-INT");
    let done = Done(child.wait_with_output().unwrap());
    assert_eq!(done.status(), 0, "{}", done.stderr());
    assert_eq!(lines(&place.path("out.jsonl")), 12);
}

#[test]
fn a_full_disk_ends_the_run_and_keeps_what_is_there() {
    let place = Place::of(PROGRAM);
    for i in 0..30 {
        place.digit(&format!("photos/{i:02}.png"));
    }
    // A limit on file sizes stands in for a disk: 4 blocks of 512 or 1024 bytes.
    for (format, record) in [("jsonl", "}\n"), ("json", "}]\n"), ("csv", "\n")] {
        let output = format!("out.{format}");
        let script = format!(
            "ulimit -f 4; exec {} classify photos --model demo-digits -o {output}",
            env!("CARGO_BIN_EXE_nat-infer")
        );
        let mut command = Command::new("sh");
        let done = command.args(["-c", &script]).current_dir(place.path("")).stdin(Stdio::null()).output();
        let done = Done(done.unwrap());
        let stderr = done.stderr();
        assert_eq!(done.status(), 1, "{stderr}");
        assert!(
            stderr.lines().count() == 2 && stderr.contains(&format!("{output}: can't be written: ")),
            "{stderr}"
        );
        assert!(stderr.contains(&format!("results in {output}.partial")), "{stderr}");
        let text = fs::read_to_string(place.path(&format!("{output}.partial"))).unwrap();
        assert!(text.ends_with(record) && text.len() > 1000, "{text}");
        if format == "json" {
            assert!(serde_json::from_str::<Vec<Classification>>(&text).unwrap().len() > 3);
        }
    }
}

#[test]
fn what_a_detector_does_not_find_is_said_in_every_format() {
    let place = Place::of(PROGRAM);
    let set = golden::path("detect/maskrcnn_s");
    let [image, weights] = ["image.png", "model.pth"].map(|name| set.join(name).to_str().unwrap().to_owned());
    let detect = |more: &[&str]| {
        place.run(&[&["detect", &image, "-w", &weights, "-q", "--format"], more].concat()).success()
    };
    let header =
        "image,model,image_width,image_height,rank,category_id,index,label,score,left,top,width,height";
    let none = detect(&["csv", "--score-threshold", "1"]);
    let lines: Vec<&str> = none.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, header));
    let record: Detections = serde_json::from_str(&detect(&["jsonl"])).unwrap();
    assert!(lines[1].ends_with(&format!(",{},{},,,,,,,,,", record.width, record.height)), "{none}");
    let csv = detect(&["csv"]);
    assert_eq!(csv.lines().count(), 1 + record.detections.len());
    let first: Vec<&str> = csv.lines().nth(1).unwrap().split(',').collect();
    let object = &record.detections[0];
    let expected =
        ["1".to_owned(), object.category_id.to_string(), object.index.to_string(), object.label.clone()];
    assert_eq!(first[first.len() - 9..][..4], expected);
    // A person sees what is likely, and how much else there is.
    let table = detect(&["table"]);
    let clear = record.detections.iter().filter(|object| object.score > 0.3).count();
    let faint = record.detections.len() - clear;
    assert_eq!(table.lines().count(), 1 + clear + usize::from(faint > 0), "{table}");
    assert!(faint == 0 || table.contains(&format!("and {faint} of 30% or less")), "{table}");
}

#[test]
fn segments_have_the_size_of_their_image_in_csv() {
    let place = Place::of(PROGRAM);
    let set = golden::path("segment/upernet_b");
    let [image, weights] = ["image.png", "model.pth"].map(|name| set.join(name).to_str().unwrap().to_owned());
    let csv = place.run(&["segment", &image, "-w", &weights, "-q", "--format", "csv"]).success();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("image,model,width,height,index,label,pixels,fraction"));
    assert!(lines.next().unwrap().contains(",239,347,"), "{csv}");
}

#[test]
fn a_run_ends_with_a_line_and_says_more_when_asked() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    place.file("b.png", "no image");
    place.digit("c.png");
    let done = place.classify(&["."]);
    let last = done.stderr().lines().last().unwrap().to_owned();
    assert!(
        last.starts_with("nat-infer: 2 images done, 1 failed, ") && last.contains(" images/s, "),
        "{last}"
    );
    let quiet = place.classify(&[".", "-q"]).stderr();
    assert_eq!(quiet.lines().count(), 1, "{quiet}");
    let more = place.classify(&[".", "-v"]).stderr();
    assert!(more.contains("time  ") && more.contains("to prepare images, on"), "{more}");
    let saved = place.run(&["features", "a.png", "--model", "demo-digits", "--save", "out", "-o", "x.csv"]);
    assert!(saved.stderr().contains("; results in x.csv; files in out"), "{}", saved.stderr());
}

#[test]
fn images_come_from_the_web() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut request).unwrap();
            let mut line = String::from("x");
            while !line.trim().is_empty() {
                line.clear();
                reader.read_line(&mut line).unwrap();
            }
            let (status, body) = match request.split(' ').nth(1) {
                Some("/a/nine.png?size=1") => ("200 OK", fs::read(DIGIT).unwrap()),
                _ => ("404 Not Found", Vec::new()),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            // Who asked may have gone.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    let place = Place::of(PROGRAM);
    let [nine, none] = ["/a/nine.png?size=1", "/none.png"].map(|path| address.clone() + path);
    let run = |more: &[&str], offline: &str| {
        let arguments = ["features", &nine, &none, "--model", "demo-digits", "--save", "out"];
        let mut command = place.command(&[&arguments[..], more].concat());
        Done(command.env("HF_HUB_OFFLINE", offline).output().unwrap())
    };
    let done = run(&[], "0");
    assert_eq!(done.status(), 1, "{}", done.stderr());
    assert_eq!(images(&done.stdout()), [nine.as_str()]);
    assert!(place.path("out/nine.safetensors").is_file());
    assert!(
        complaints(&done)[0].contains("/none.png") && complaints(&done)[0].contains("404"),
        "{}",
        done.stderr()
    );
    for (more, variable) in [(&["--offline"][..], "0"), (&[], "1")] {
        let done = run(more, variable);
        assert!(done.status() == 1 && done.stdout().is_empty(), "{}", done.stderr());
        assert!(complaints(&done).iter().all(|line| line.contains("forbids")), "{}", done.stderr());
    }
}
