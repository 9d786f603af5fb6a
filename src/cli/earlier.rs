//! Files that are there already: results of an earlier run, or somebody else's.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Result, bail};
use nat_infer::pipeline::name_of;
use nat_infer::pipeline::partial::partial_path;
use nat_infer::results::{
    Classification, Detections, JudgedImage, LayerTiming, NetworkTiming, OperatorTiming, SavedFeatures,
    SavedSaliency, SearchResult, SearchedImage, Segmentation, SegmentedImage,
};
use serde_json::{Map, Value};

use super::listing::{ListedModel, ModelDetails};
use super::record::{Record, SIMILARITY_DIGITS};
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
const KINDS: [(&[&str], &[&str]); 15] = [
    (&["image", "model", "top"], Classification::COLUMNS),
    (&["image", "model", "width", "height", "detections"], Detections::COLUMNS),
    (&["image", "model", "width", "height", "segments"], Segmentation::COLUMNS),
    (&["image", "model", "file", "tensors"], SavedFeatures::COLUMNS),
    (&["image", "model", "method", "class", "map", "picture"], SavedSaliency::COLUMNS),
    (&["image", "model", "index", "nearest"], SearchResult::COLUMNS),
    (&["engine", "model", "batch", "median_ms"], NetworkTiming::COLUMNS),
    (&["level", "batch", "kernel_size", "median_ms"], OperatorTiming::COLUMNS),
    (&["kind", "ms", "share", "gflops"], LayerTiming::COLUMNS),
    (&["name", "task", "parameters", "macs"], ListedModel::COLUMNS),
    (&["name", "task", "parameters", "macs"], ModelDetails::COLUMNS),
    (&["image", "model", "class", "right", "top"], JudgedImage::COLUMNS),
    (&["image", "model", "image_id", "detections"], SearchedImage::COLUMNS),
    (&["image", "model", "pixels"], SegmentedImage::COLUMNS),
    // Of a report, which has no columns.
    (&["task", "model", "metrics", "images", "settings"], &[REPORT]),
];

/// How a report for people begins.
pub const REPORT: &str = "nat-infer eval ";

/// What says which program wrote a page.
const PAGE_MARK: &[u8] = b"<meta name=\"generator\" content=\"nat-infer ";

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
        [b'<', ..] => begin.windows(PAGE_MARK.len()).any(|part| part == PAGE_MARK),
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
            // A table's, under the image's name: "   97.93%  nine", or of a search "   0.9793  nine.png".
            let is_score = |line: &str| {
                let rest = line.strip_prefix("  ").map_or("", str::trim_start);
                let share =
                    rest.split_once("%  ").is_some_and(|(share, _)| share.contains('.') && is_number(share));
                let similarity = rest.split_once("  ").is_some_and(|(number, _)| {
                    number.rsplit_once('.').is_some_and(|(_, digits)| digits.len() == SIMILARITY_DIGITS)
                        && is_number(number)
                });
                share || similarity
            };
            let is_report = first.trim_start_matches("# ").starts_with(REPORT);
            is_report || KINDS.iter().any(is_header) || second.as_deref().is_some_and(is_score)
        }
    }
}

fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok()
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
