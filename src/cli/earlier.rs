//! Files that are there already: results of an earlier run, or somebody else's.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Result, bail};
use nat_infer::pipeline::name_of;
use nat_infer::pipeline::partial::partial_path;
use nat_infer::results::{
    Classification, Detections, LayerTiming, NetworkTiming, OperatorTiming, SavedFeatures, SavedSaliency,
    Segmentation,
};
use serde_json::{Map, Value};

use super::listing::{ListedModel, ModelDetails};
use super::record::Record;
use super::shared::OutputFormat;

/// Refuses to replace what is no earlier result, and results that an interrupted run left.
pub fn may_be_replaced(path: &Path, resume: bool, format: OutputFormat) -> Result<()> {
    let foreign = |path: &Path| path.is_file() && !is_result(path);
    let partial = partial_path(path);
    if let Some(path) = [path, &partial].into_iter().find(|path| foreign(path)) {
        let name = name_of(path);
        bail!("{name} is there already and is no result of an earlier run; --overwrite replaces it");
    }
    if !resume && partial.is_file() && has_records(&partial) {
        let on = match format {
            OutputFormat::Jsonl | OutputFormat::Csv => "--resume goes on with it",
            OutputFormat::Json | OutputFormat::Coco | OutputFormat::Table => "move it to keep it",
        };
        bail!("{} has the results of an interrupted run; {on}, --overwrite begins anew", name_of(&partial));
    }
    Ok(())
}

/// What a record of each kind has, in JSON and as the header of CSV.
const KINDS: [(&[&str], &[&str]); 10] = [
    (&["image", "model", "top"], Classification::COLUMNS),
    (&["image", "model", "width", "height", "detections"], Detections::COLUMNS),
    (&["image", "model", "width", "height", "segments"], Segmentation::COLUMNS),
    (&["image", "model", "file", "tensors"], SavedFeatures::COLUMNS),
    (&["image", "model", "method", "class", "map", "picture"], SavedSaliency::COLUMNS),
    (&["engine", "model", "batch", "median_ms"], NetworkTiming::COLUMNS),
    (&["level", "batch", "kernel_size", "median_ms"], OperatorTiming::COLUMNS),
    (&["kind", "ms", "share", "gflops"], LayerTiming::COLUMNS),
    (&["name", "task", "parameters", "macs"], ListedModel::COLUMNS),
    (&["name", "task", "parameters", "macs"], ModelDetails::COLUMNS),
];

/// What a member of COCO's list of results has.
const COCO_KEYS: &[&str] = &["image_id", "category_id", "bbox", "score"];

/// Whether a file holds what this program wrote as results, or nothing.
fn is_result(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut file = BufReader::new(file);
    let Ok(begin) = file.fill_buf() else { return false };
    match begin {
        [] => true,
        [b'{' | b'[', ..] => is_json_result(file),
        // One line of a picture or a checkpoint may be all of it.
        _ => {
            let mut lines = file.take(1 << 16).lines();
            let [first, second] = [lines.next(), lines.next()].map(|line| line.and_then(io::Result::ok));
            let Some(first) = first else { return false };
            // A kill may leave a part of the header.
            let is_header = |(_, columns): &(_, &[&str])| {
                let header = columns.join(",");
                first == header || (second.is_none() && first.len() > 10 && header.starts_with(&first))
            };
            // A table's, under the image's name: "   97.93%  nine".
            let is_score = |line: &str| {
                let rest = line.strip_prefix("  ").map(str::trim_start);
                let score = rest.and_then(|rest| rest.split_once("%  ")).map(|(score, _)| score);
                score.is_some_and(|score| score.contains('.') && score.parse::<f64>().is_ok())
            };
            KINDS.iter().any(is_header) || second.as_deref().is_some_and(is_score)
        }
    }
}

fn is_json_result(mut file: impl BufRead) -> bool {
    let mut first = [0];
    if matches!(file.fill_buf(), Ok([b'[', ..])) && file.read_exact(&mut first).is_err() {
        return false;
    }
    if matches!(file.fill_buf(), Ok([b']', ..])) {
        return true;
    }
    let begin = file.fill_buf().map(<[u8]>::to_vec).unwrap_or_default();
    let mut records = serde_json::Deserializer::from_reader(file).into_iter::<Map<String, Value>>();
    match records.next() {
        Some(Ok(record)) => {
            let keys = KINDS.iter().map(|(keys, _)| *keys).chain([COCO_KEYS]);
            keys.into_iter().any(|keys| keys.iter().all(|key| record.contains_key(*key)))
        }
        // A kill may leave a part of the first record.
        Some(Err(error)) if error.is_eof() => {
            [&b"{\"image\":\""[..], b"{\"image_id\":", b"{\"engine\":\"nat-infer\"", b"{\"level\":"]
                .iter()
                .any(|lead| begin.starts_with(lead) || lead.starts_with(&begin))
        }
        _ => false,
    }
}

/// Whether a file of results has one.
fn has_records(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut lines = BufReader::new(file).lines();
    match (lines.next(), lines.next()) {
        (Some(Ok(first)), None) => first.starts_with('{') || (first.starts_with('[') && first != "[]"),
        (Some(_), Some(_)) => true,
        _ => false,
    }
}
