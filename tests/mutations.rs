//! Images and models as nobody meant to make them: a seeded generator damages files, and what comes out is pixels or an
//! error of one line. No panic, no abort, no memory to speak of.

use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use nat_infer::images::Reader;
use nat_infer::tasks::classify::ClassifyOptions;
use nat_infer::tasks::{Classify, LoadOptions, Model};
use nat_testing::place::DIGIT;
use nat_testing::{checkpoint, damage, golden};

/// The files of golden folders of images.
fn images() -> Vec<PathBuf> {
    let folders = ["pillow/decode", "pillow/jpeg", "broken"].map(golden::path);
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut files: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

#[test]
fn nothing_that_is_damaged_panics_or_takes_memory() {
    /// Headers say the most in the fewest bytes.
    const HEADER: usize = 200;
    let mut random = fastrand::Rng::with_seed(20);
    let (mut read, mut refused) = (0, 0);
    for path in images() {
        let whole = fs::read(&path).unwrap();
        for round in 0..40 {
            let mut bytes = whole.clone();
            damage::bytes(&mut random, &mut bytes, HEADER);
            let name = format!("{} {round}", path.display());
            match catch_unwind(|| Reader::default().bytes("x", &bytes)) {
                Ok(Ok(image)) => {
                    read += 1;
                    assert!(image.width() > 0 && image.height() > 0, "{name}");
                }
                Ok(Err(error)) => {
                    refused += 1;
                    let text = error.to_string();
                    assert!(text.starts_with("x: ") && !text.contains('\n'), "{name}: {text}");
                }
                Err(_) => panic!("{name} panics"),
            }
        }
    }
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");

    // Our own models with metadata that is damaged: refused, or run.
    let demo = fs::read(golden::repository().join("assets/demo-digits.safetensors")).unwrap();
    let metadata = checkpoint::metadata(&demo);
    let image = image::open(DIGIT).unwrap().into_rgb8();
    let numbers = damage::numbers(&metadata);
    assert!(numbers.len() > 20, "{numbers:?}");
    let (mut ran, mut refused) = (0, 0);
    for pointer in &numbers {
        for value in ["0", "1", "2", "3", "-1", "7.5", "1e300", "4096", "65536", "18446744073709551615"] {
            let file = checkpoint::with_metadata(&demo, |metadata| {
                *metadata.pointer_mut(pointer).unwrap() = serde_json::from_str(value).unwrap();
            });
            let model = Model::from_bytes("it", file, &LoadOptions::default());
            let task = model.and_then(|model| Classify::new(model, &ClassifyOptions::default()));
            // A large input is no damage, and takes its time.
            match task.as_ref().map(|task| (task.crop().resolution(), task)) {
                Ok((..=256, task)) => {
                    let answer = task.run(std::slice::from_ref(&image));
                    ran += usize::from(answer.is_ok());
                    assert!(answer.is_ok_and(|all| all[0].iter().all(|top| top.score.is_finite())));
                }
                Ok(_) => {}
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().contains('\n'), "{pointer} {value}: {error}");
                }
            }
        }
    }
    assert!(ran > 5 && refused > 50, "{ran} ran, {refused} refused");
    if let Some(peak) = damage::peak_memory() {
        assert!(peak < 600, "{peak} MiB");
    }
}
