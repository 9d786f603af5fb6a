//! Images and models as nobody meant to make them: a seeded generator damages files, and what comes out is pixels or an
//! error of one line. No panic, no abort, no memory to speak of.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use nat_infer::images::Reader;
use nat_infer::tasks::classify::ClassifyOptions;
use nat_infer::tasks::{Classify, LoadOptions, Model};

/// The files of golden folders of images.
fn images() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folders = ["pillow/decode", "pillow/jpeg", "broken"].map(|folder| golden.join(folder));
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut files: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Changes a few bytes.
fn damage(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=random.usize(..6) {
        let length = bytes.len();
        // Headers say the most in the fewest bytes.
        let end = if random.bool() { length.min(200) } else { length };
        let at = random.usize(..end);
        match random.u8(..6) {
            0 => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xd9, 0xff]).unwrap_or(&0),
            2 => drop(bytes.drain(at..(at + 1 + random.usize(..20)).min(length))),
            3 => bytes.truncate(at.max(1)),
            4 => {
                let end = (at + 1 + random.usize(..4)).min(length);
                bytes[at..end].fill(*random.choice(&[0, 0x10, 0xff]).unwrap_or(&0));
            }
            _ => bytes.insert(at, random.u8(..)),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

/// The most memory that this process has had, in MiB.
fn peak() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok().map(|kib| kib >> 10)
}

#[test]
fn nothing_that_is_damaged_panics_or_takes_memory() {
    let mut random = fastrand::Rng::with_seed(20);
    let (mut read, mut refused) = (0, 0);
    for path in images() {
        let whole = fs::read(&path).unwrap();
        for round in 0..40 {
            let mut bytes = whole.clone();
            damage(&mut random, &mut bytes);
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
    let demo = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo-digits.safetensors")).unwrap();
    let (length, header) = demo.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let (header, data) = header.split_at(length);
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let metadata: serde_json::Value =
        serde_json::from_str(header["__metadata__"]["nat"].as_str().unwrap()).unwrap();
    let image = image::open(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/nine.png")).unwrap().into_rgb8();
    let numbers = pointers(&metadata, "");
    assert!(numbers.len() > 20, "{numbers:?}");
    let (mut ran, mut refused) = (0, 0);
    for pointer in &numbers {
        for value in ["0", "1", "2", "3", "-1", "7.5", "1e300", "4096", "65536", "18446744073709551615"] {
            let mut changed = metadata.clone();
            *changed.pointer_mut(pointer).unwrap() = serde_json::from_str(value).unwrap();
            let mut header = header.clone();
            header["__metadata__"]["nat"] = changed.to_string().into();
            let header = header.to_string();
            let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
            let model = Model::embedded("it", file.leak(), &LoadOptions::default());
            let task = model.and_then(|model| Classify::new(model, ClassifyOptions::default()));
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
    if let Some(peak) = peak() {
        assert!(peak < 600, "{peak} MiB");
    }
}

/// Where the numbers of a tree are.
fn pointers(value: &serde_json::Value, at: &str) -> Vec<String> {
    match value {
        serde_json::Value::Number(_) => vec![at.to_owned()],
        serde_json::Value::Array(items) => {
            items.iter().enumerate().flat_map(|(i, item)| pointers(item, &format!("{at}/{i}"))).collect()
        }
        serde_json::Value::Object(pairs) => {
            pairs.iter().flat_map(|(key, value)| pointers(value, &format!("{at}/{key}"))).collect()
        }
        _ => Vec::new(),
    }
}
