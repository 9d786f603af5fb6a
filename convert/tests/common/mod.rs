//! What the integration tests share: the golden folder, and checkpoints made on the spot.

#![allow(dead_code)] // Each test program uses its share.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub mod torch;

/// A tensor to be written: name, dtype as safetensors spells it, shape, and its bytes (zeros that
/// take no space on disk if empty).
pub type Raw = (String, &'static str, Vec<usize>, Vec<u8>);

/// The folder of golden data, or something in it.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// The files of a golden folder with this extension.
pub fn golden_files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(golden(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    assert!(!files.is_empty(), "no {extension} in {folder}");
    files.sort();
    files
}

pub fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Writes a safetensors file as somebody else would.
pub fn safetensors(path: &Path, tensors: &[Raw]) {
    let mut header = Map::new();
    let mut start = 0;
    for (name, dtype, shape, bytes) in tensors {
        let size = match *dtype {
            "F64" | "I64" => 8,
            "F32" => 4,
            "F16" | "BF16" => 2,
            other => panic!("{other}"),
        };
        let end = start + shape.iter().product::<usize>() * size;
        assert!(bytes.is_empty() || bytes.len() == end - start, "{name}");
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
        start = end;
    }
    let mut json = serde_json::to_vec(&Value::Object(header)).unwrap();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut file = File::create(path).unwrap();
    file.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&json).unwrap();
    for (_, _, _, bytes) in tensors {
        file.write_all(bytes).unwrap();
    }
    let data = 8 + json.len() + start;
    file.set_len(data as u64).unwrap();
}

/// Zeros for every tensor of a network, under the canonical names.
pub fn zeros(architecture: &nat_convert::arch::Architecture) -> Vec<Raw> {
    let tensors = architecture.tensors().into_iter();
    tensors.map(|(name, shape)| (name, "F32", shape, Vec::new())).collect()
}
