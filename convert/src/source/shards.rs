//! Checkpoints that Transformers split into several files: an index, `model.safetensors.index.json` or
//! `pytorch_model.bin.index.json`, says which file has which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::bytes::ByteSource;
use super::contents::Contents;
use super::detect::{contents, open_file};
use super::problem::{Flaw, StoreError, quoted};
use super::value::Value;

/// Longest index in bytes: a name and a file for each of more tensors than a network here has.
const MAX_INDEX: u64 = 16 << 20;

/// Most files of one checkpoint. All of them are open at a time.
const MAX_SHARDS: usize = 256;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens all files that an index names.
pub(super) fn open(path: &Path) -> Result<(Vec<(PathBuf, ByteSource)>, Contents), StoreError> {
    let wrong = |problem| StoreError { path: path.to_owned(), problem };
    let index = read(path).map_err(wrong)?;
    let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(wrong(damaged(format!("{} files instead of 1 to {MAX_SHARDS}", names.len()))));
    }
    if let Some(name) = names.iter().find(|name| !is_beside(name)) {
        return Err(wrong(damaged(format!("{} is not the name of a file beside it", quoted(name)))));
    }
    let mut files = Vec::new();
    let mut whole: Option<Contents> = None;
    let mut entries = Vec::new();
    for (number, name) in names.into_iter().enumerate() {
        let shard = path.with_file_name(name);
        let wrong = |problem| StoreError { path: shard.clone(), problem };
        let file = open_file(&shard).map_err(|problem| wrong(missing(problem, path)))?;
        let file = ByteSource::File(file);
        let mut found = contents(&file).map_err(wrong)?;
        let Value::Dict(root) = &found.root else {
            return Err(wrong(Flaw::Unsupported("a part of a checkpoint that holds no dictionary".into())));
        };
        let there: BTreeSet<_> = root.iter().filter_map(|(key, _)| text(key)).collect();
        let promised = index.weight_map.iter().filter(|(_, file)| *file == name);
        if let Some((tensor, _)) = promised.into_iter().find(|(tensor, _)| !there.contains(tensor.as_str())) {
            let what = format!("{} is not in it, though {} says so", quoted(tensor), file_name(path));
            return Err(wrong(Flaw::Damaged { place: "names".into(), what }));
        }
        let first = whole.as_ref().map_or(0, |whole| whole.storages.len());
        entries.extend(root.iter().map(|(key, value)| (key.clone(), moved(value, first))));
        found.storages.iter_mut().for_each(|place| place.file = number);
        match &mut whole {
            None => whole = Some(found),
            Some(whole) => whole.storages.append(&mut found.storages),
        }
        files.push((shard, file));
    }
    let root = Value::Dict(Arc::new(entries));
    let whole = whole.ok_or_else(|| wrong(damaged("no files".into())))?;
    Ok((files, Contents { root, metadata: BTreeMap::new(), ..whole }))
}

fn read(path: &Path) -> Result<Index, Flaw> {
    let mut bytes = Vec::new();
    open_file(path)?.take(MAX_INDEX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_INDEX {
        return Err(damaged(format!("longer than {MAX_INDEX} bytes")));
    }
    // The parser quotes the text as it is.
    serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string().replace(char::is_control, " ")))
}

fn damaged(what: String) -> Flaw {
    Flaw::Damaged { place: "index of files".into(), what }
}

/// What is said of a file that the index names and that is not there.
fn missing(problem: Flaw, index: &Path) -> Flaw {
    match problem {
        Flaw::Io(error) if error.kind() == std::io::ErrorKind::NotFound => Flaw::Unsupported(format!(
            "no such file, but {} names it: download all parts of the checkpoint",
            file_name(index)
        )),
        other => other,
    }
}

/// Whether a name is that of a file in the same folder, on every system.
fn is_beside(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    plain && !name.contains(['/', '\\', ':', '\0'])
}

/// A value whose storages are counted from another one on.
fn moved(value: &Value, first: usize) -> Value {
    match value {
        Value::Tensor(tensor) => {
            let mut tensor = (**tensor).clone();
            tensor.storage += first;
            Value::Tensor(Arc::new(tensor))
        }
        other => other.clone(),
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Str(text) => Some(text),
        _ => None,
    }
}

fn file_name(path: &Path) -> String {
    quoted(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
}
