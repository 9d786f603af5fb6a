//! The form of every command's JSON and CSV: keys, their order, nesting, types and header lines, held against
//! `tests/golden/shapes`.

use std::fs;

use nat_infer::results::Diagnosis;
use nat_testing::golden;
use nat_testing::place::Place;
use nat_testing::shape::{Shapes, csv, json};

/// Calls of the program and what each says.
struct Calls {
    place: Place,
    shapes: Shapes,
    /// Keys and columns of which the type alone is kept.
    hide: &'static [&'static str],
}

impl Calls {
    fn of(name: &'static str, hide: &'static [&'static str]) -> Self {
        let place = Place::of(env!("CARGO_BIN_EXE_nat-infer"));
        place.digit("a.png");
        place.digit("b, c.png");
        Self { place, shapes: Shapes::of(name), hide }
    }

    /// Runs a command in every format; `weights` are of the golden data.
    fn run(&mut self, command: &str, weights: Option<&str>) -> &mut Self {
        for format in ["jsonl", "json", "csv"] {
            self.run_as(command, weights, format);
        }
        self
    }

    fn run_as(&mut self, command: &str, weights: Option<&str>, format: &str) -> &mut Self {
        let text = self.output(command, weights, format);
        self.add(command, weights, format, &text)
    }

    fn output(&self, command: &str, weights: Option<&str>, format: &str) -> String {
        let weights = weights.map(|name| golden::path(name).display().to_string());
        let mut arguments: Vec<&str> = command.split(' ').chain(["--format", format, "-q"]).collect();
        if let Some(path) = &weights {
            arguments.extend(["--weights", path]);
        }
        self.place.run(&arguments).success()
    }

    fn add(&mut self, command: &str, weights: Option<&str>, format: &str, text: &str) -> &mut Self {
        let form = match format {
            "csv" => csv(text, self.hide),
            "jsonl" => text.lines().map(|line| json(line, self.hide)).collect::<Vec<_>>().join("\n"),
            _ => json(text, self.hide),
        };
        let weights = weights.map_or(String::new(), |name| format!(" --weights {name}"));
        self.shapes.add(&format!("nat-infer {command} --format {format}{weights}"), &form);
        self
    }
}

/// Masks at a pixel's edge differ between instruction sets.
const MASKS: &[&str] = &["counts"];

#[test]
fn classify() {
    let mut calls = Calls::of("classify", &[]);
    calls.run("classify . --model demo-digits --top-k 2", None);
    calls.run_as("classify a.png --dilations 1/1/1/1 --top-k 2", Some("classify/nat-k7.pth"), "jsonl");
    calls.shapes.check();
}

#[test]
fn detect() {
    let mut calls = Calls::of("detect", MASKS);
    let weights = Some("detect/maskrcnn_s/model.pth");
    calls.run("detect a.png --scale 96x96 --max-detections 2", weights);
    calls.run("detect a.png --scale 96x96 --max-detections 1 --no-masks", weights);
    calls.place.file("truth.json", r#"{"images": [{"id": 42, "file_name": "a.png"}]}"#);
    let annotated = "detect a.png --scale 96x96 --max-detections 2 --annotations truth.json";
    calls.run_as(annotated, weights, "jsonl").run_as(annotated, weights, "coco");
    // Without annotations images are numbered, and listed beside the results.
    let counted = "detect . --scale 96x96 --max-detections 1 --output found.json";
    calls.output(counted, weights, "coco");
    let files = calls.place.files();
    let [results, images] = ["found.json", "found.images.json"].map(|name| {
        fs::read_to_string(calls.place.path(name))
            .unwrap_or_else(|error| panic!("{name}: {error} of {files:?}"))
    });
    calls.add(counted, weights, "coco", &results);
    calls.shapes.add("cat found.images.json", &json(&images, &[])).check();
}

#[test]
fn segment() {
    let mut calls = Calls::of("segment", &["pixels", "fraction"]);
    let weights = Some("segment/upernet_b/model.pth");
    calls.run("segment a.png --scale 96x96", weights).shapes.check();
}

#[test]
fn saliency() {
    let mut calls = Calls::of("saliency", &[]);
    calls.run("saliency . --model demo-digits --method grad-cam --save out", None);
    let smooth = "saliency a.png --model demo-digits --samples 2 --raw --save out --overwrite";
    calls.run_as(smooth, None, "jsonl").shapes.check();
}

#[test]
fn features() {
    let mut calls = Calls::of("features", &[]);
    calls.run("features . --model demo-digits --save out", None);
    calls.run_as("features a.png --resolution 64 --save out", Some("segment/upernet_b/model.pth"), "jsonl");
    calls.shapes.check();
}

/// What depends on the machine or the version, and what is long and measured.
const RUN: &[&str] = &[
    "annotations_sha256",
    "device",
    "hotcoco",
    "nat-infer",
    "images_per_second",
    "run",
    "seconds",
    "weights_sha256",
];

#[test]
fn eval() {
    let mut calls = Calls::of("eval", RUN);
    calls.place.digit("data/9/a.png");
    calls.place.file("data/9/b.png", "none");
    let evaluate = "eval classify --data data --model demo-digits -o r.json --overwrite";
    let done = calls.place.run(&evaluate.split(' ').collect::<Vec<_>>());
    assert_eq!(done.status(), 1, "{}", done.stderr());
    let read = |name: &str| fs::read_to_string(calls.place.path(name)).unwrap();
    let (report, images) = (read("r.json"), read("r.images.jsonl"));
    calls.add(evaluate, None, "json", &report);
    calls.shapes.add("cat r.images.jsonl", &json(images.trim_end(), RUN));
    ["good/9/a.png", "good/9/b.png"].iter().for_each(|name| drop(calls.place.digit(name)));
    calls.run_as("eval knn --data good --model demo-digits", None, "json");
    let eval = golden::path("eval");
    for (task, truth, results, more) in [
        ("detect", "coco_truth.json", "coco_detections.json", ""),
        ("segment", "segment/truth", "segment/predicted", " --classes 9"),
        ("panoptic", "panoptic/truth.json", "panoptic/predicted.json", ""),
    ] {
        // As they are named in a report.
        let [truth, results] = [truth, results].map(|name| eval.join(name).display().to_string());
        let arguments = format!("--annotations {truth} --results {results}{more}");
        let text = calls.output(&format!("eval {task} {arguments}"), None, "json");
        let text = text.replace(&*eval.display().to_string(), "golden");
        calls.add(&format!("eval {task} --annotations … --results …{more}"), None, "json", &text);
    }
    calls.shapes.check();
}

/// What depends on the machine.
const MEASURED: &[&str] = &[
    "isa",
    "isa_reason",
    "median_ms",
    "min_ms",
    "max_ms",
    "ms",
    "images_per_second",
    "gflops",
    "gb_per_second",
    "sgemm_peak_gflops",
    "share_of_peak",
    "fma_peak_gflops",
    "share_of_fma_peak",
    "share",
    "peak_mb",
];

#[test]
fn bench() {
    let mut calls = Calls::of("bench", MEASURED);
    let bench = "bench --model demo-digits --runs 1 --threads 1";
    calls.run(bench, None);
    calls.run_as(&format!("{bench} --gradients"), None, "json");
    calls.run(&format!("{bench} --op --resolution 64x32"), None);
    calls.run(&format!("{bench} --profile"), None).shapes.check();
}

/// What depends on the machine that `doctor` is run on.
const OF_THE_MACHINE: &[&str] = &[
    "version",
    "features",
    "target",
    "processor",
    "found",
    "used",
    "why",
    "processors",
    "memory",
    "path",
    "free",
    "on",
    "stage",
    "error",
    "right",
    "seconds",
];

#[test]
fn doctor() {
    let mut calls = Calls::of("doctor", OF_THE_MACHINE);
    let command = ["doctor", "--json", "--device", "cpu", "--threads", "1", "-q"];
    let text = calls.place.run(&command).success();
    let mut diagnosis: Diagnosis = serde_json::from_str(&text).unwrap();
    // No other order or form than what was printed.
    assert_eq!(serde_json::to_string_pretty(&diagnosis).unwrap() + "\n", text);
    // What not every system tells.
    diagnosis.processor.get_or_insert_default();
    diagnosis.threads.processors.get_or_insert_default();
    diagnosis.memory.get_or_insert_default();
    diagnosis.caches.iter_mut().for_each(|folder| _ = folder.free.get_or_insert_default());
    // There are more of them with every instruction set.
    diagnosis.checks.truncate(2);
    let form = json(&serde_json::to_string(&diagnosis).unwrap(), calls.hide);
    calls.shapes.add(&format!("nat-infer {}", command.join(" ")), &form).check();
}

#[test]
fn models() {
    let mut calls = Calls::of("models", &[]);
    for model in ["demo-digits", "nat-mini", "mask-rcnn-nat-mini", "upernet-nat-mini"] {
        calls.run_as(&format!("models show {model}"), None, "json");
    }
    calls.run("models show dinat-mini", None);
    // Of the list the first rows: it grows.
    for format in ["jsonl", "csv"] {
        let rows = calls.output("models", None, format);
        let first: Vec<&str> = rows.lines().take(2).collect();
        calls.add("models", None, format, &first.join("\n"));
    }
    calls.shapes.check();
}
