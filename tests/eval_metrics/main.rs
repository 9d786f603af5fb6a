//! Scores on datasets are those of the programs that the papers used: pycocotools, mmsegmentation, panopticapi.

mod coco;
mod labels;
mod panoptic;

use std::fs;
use std::path::PathBuf;

use nat_testing::golden;
use serde_json::Value;
use tempfile::TempDir;

/// Sums of another order differ by less.
const TOLERANCE: f64 = 1e-9;

#[track_caller]
fn assert_close(got: f64, wanted: &Value, what: &str) {
    let wanted = wanted.as_f64().unwrap();
    assert!((got - wanted).abs() < TOLERANCE, "{what}: {got}, not {wanted}");
}

#[track_caller]
fn assert_all_close(got: &[Option<f64>], wanted: &Value, what: &str) {
    let wanted = wanted.as_array().unwrap();
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        match got {
            None => assert!(wanted.is_null(), "{what} {i}"),
            Some(got) => assert_close(*got, wanted, &format!("{what} {i}")),
        }
    }
}

fn expected() -> Value {
    golden::json(&golden::path("eval/expected.json"))
}

/// A folder with files in it.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn json_file(value: &Value) -> (TempDir, PathBuf) {
    let folder = folder(&[("file.json", value.to_string().as_bytes())]);
    let path = folder.path().join("file.json");
    (folder, path)
}

/// A grey PNG of 8 bits.
fn grey(size: [u32; 2], values: &[u8]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::GrayImage::from_raw(size[0], size[1], values.to_vec()).unwrap();
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}
