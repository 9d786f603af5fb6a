//! `nat-infer eval` as people use it: on datasets on disk, interrupted, in shards, on predictions of others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nat_infer::results::{Evaluation, JudgedImage, Metrics};
use nat_testing::golden;
use nat_testing::place::{Done, Place};
use serde_json::Value;

mod classify;
mod detect;
mod knn;
mod reruns;
mod segment;

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

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
