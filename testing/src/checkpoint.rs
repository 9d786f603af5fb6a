//! Safetensors files as somebody else would write them, and what is in one.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

/// A tensor to be written: name, dtype as safetensors spells it, shape, and its bytes (zeros that take no space on
/// disk if empty).
pub type Raw = (String, &'static str, Vec<usize>, Vec<u8>);

/// Zeros in f32 for tensors of these names and shapes, as a network lists them.
pub fn zeros(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> Vec<Raw> {
    tensors.into_iter().map(|(name, shape)| (name, "F32", shape, Vec::new())).collect()
}

/// Writes a safetensors file.
pub fn save(path: &Path, tensors: &[Raw]) {
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
    let mut json = serde_json::to_vec(&header).unwrap();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut file = File::create(path).unwrap();
    file.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&json).unwrap();
    let data = 8 + json.len() as u64;
    for (name, _, _, bytes) in tensors {
        let offset = header[name]["data_offsets"][0].as_u64().unwrap();
        file.seek(SeekFrom::Start(data + offset)).unwrap();
        file.write_all(bytes).unwrap();
    }
    file.set_len(data + start as u64).unwrap();
}

/// What `change` makes of the metadata `nat` of a file of ours.
pub fn with_metadata(file: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (length, rest) = file.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let (header, data) = rest.split_at(length);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let text = header["__metadata__"]["nat"].as_str().expect("a file of ours");
    let mut metadata = serde_json::from_str(text).unwrap();
    change(&mut metadata);
    header["__metadata__"]["nat"] = metadata.to_string().into();
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// The metadata `nat` of a file of ours.
pub fn metadata(file: &[u8]) -> Value {
    let mut found = Value::Null;
    with_metadata(file, |metadata| found = metadata.clone());
    found
}

/// Little-endian bytes as f32.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    let (values, rest) = bytes.as_chunks();
    assert!(rest.is_empty(), "{} bytes", bytes.len());
    values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// A safetensors file in memory.
pub struct Saved(Vec<u8>);

impl Saved {
    /// Reads a file.
    #[track_caller]
    pub fn read(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        Self(std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<String> {
        let tensors = self.tensors();
        let mut names: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    /// A tensor's shape.
    #[track_caller]
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap_or_else(|error| panic!("{name}: {error}")).shape().to_vec()
    }

    /// A tensor's values, of f32.
    #[track_caller]
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
        floats(tensor.data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let values = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut tensors = zeros([("b".to_owned(), vec![2, 3])]);
        tensors.push(("a".to_owned(), "F32", vec![2], values));
        save(&path, &tensors);
        let saved = Saved::read(&path);
        assert_eq!(saved.names(), ["a", "b"]);
        assert_eq!((saved.shape("b"), saved.floats("b")), (vec![2, 3], vec![0.0; 6]));
        assert_eq!(saved.floats("a"), [1.5, -2.0]);
    }

    #[test]
    fn metadata_changes_alone() {
        let demo = std::fs::read(crate::golden::repository().join("assets/demo-digits.safetensors")).unwrap();
        let changed = with_metadata(&demo, |metadata| metadata["labels"] = json!("none"));
        assert_eq!(metadata(&changed)["labels"], "none");
        let weights = |file: &[u8]| {
            SafeTensors::deserialize(file).unwrap().tensor("norm.weight").unwrap().data().to_vec()
        };
        assert_eq!(weights(&changed), weights(&demo));
    }
}
