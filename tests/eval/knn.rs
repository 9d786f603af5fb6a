//! `eval knn`.

use std::fs;

use nat_infer::results::{Evaluation, Metrics};

use super::{digits, with_digits};

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
    // One that can't choose is named, and no answer of its own is wrong.
    for digit in 0..10 {
        place.digit(&format!("chosen/{digit}/a.png"));
        place.digit(&format!("asked/{digit}/a.png"));
    }
    place.file("chosen/3/zz.png", "none");
    let done = place.run(&[
        "eval",
        "knn",
        "--model",
        "demo-digits",
        "--data",
        "asked",
        "--train",
        "chosen",
        "--format",
        "json",
    ]);
    let evaluation: Evaluation = serde_json::from_str(&done.stdout()).unwrap();
    assert_eq!((done.status(), evaluation.images, evaluation.failed.len()), (1, 10, 0));
    assert_eq!(evaluation.settings.options["train_failed"], 1);
    assert!(done.stderr().contains("chosen/3/zz.png: "), "{}", done.stderr());
    place.digit("train/3/a.png");
    let done = place.run(&["eval", "knn", "--model", "demo-digits", "--data", "data", "--train", "train"]);
    assert!(done.status() == 2 && done.stderr().contains("train: has no class `0`"), "{}", done.stderr());
}
