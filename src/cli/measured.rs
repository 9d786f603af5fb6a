//! `--record FILE`: the scores that were measured, a line each, beside those that the authors published.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nat_infer::pipeline::name_of;
use nat_infer::results::Evaluation;
use serde::{Deserialize, Serialize};

use super::exit::OrFailed;

/// What was measured of a model: a line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The model.
    pub model: String,
    /// SHA-256 of its weights.
    pub weights_sha256: Option<String>,
    /// What it was asked to do.
    pub task: String,
    /// The dataset.
    pub data: String,
    /// How many of its images count.
    pub images: usize,
    /// How many of them had no answer.
    pub failed: usize,
    /// Whether they are but a part of the dataset.
    pub partial: bool,
    /// What was asked for that is not the model's own, by the options' names.
    pub changed: Vec<String>,
    /// Whether several sizes and mirror images were taken (`segment`).
    pub multi_scale: bool,
    /// The scores by name, in the units of the report.
    pub measured: BTreeMap<String, f64>,
    /// The authors' scores by the same names.
    pub published: BTreeMap<String, f64>,
    /// The program that measured.
    pub version: String,
}

impl Measured {
    /// What an evaluation measured; `None` of predictions that no model of this run made.
    pub fn of(evaluation: &Evaluation) -> Option<Self> {
        let measured = evaluation.metrics.figures().into_iter();
        Some(Self {
            model: evaluation.model.clone()?,
            weights_sha256: evaluation.weights_sha256.clone(),
            task: evaluation.task.clone(),
            data: evaluation.settings.data.clone(),
            images: evaluation.images,
            failed: evaluation.failed.len(),
            multi_scale: ["multi_scale", "flip"]
                .iter()
                .all(|name| evaluation.settings.options.get(*name) == Some(&true.into())),
            partial: evaluation.settings.limit.is_some() || evaluation.settings.shard.is_some(),
            changed: evaluation.settings.changed.clone(),
            measured: measured.filter_map(|(name, value)| Some((name, value?))).collect(),
            published: evaluation.published.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

/// Longest file that is read: a line takes a kilobyte.
const LONGEST: u64 = 64 << 20;

/// Reads a file of measured scores.
///
/// # Errors
/// When it can't be read, or a line is none of this program's.
pub fn read(path: &Path) -> Result<Vec<Measured>> {
    let named = || format!("--record {}", name_of(path));
    let found = fs::metadata(path).with_context(named)?;
    if !found.is_file() || found.len() > LONGEST {
        bail!("{}: no file of measured scores", named());
    }
    let text = fs::read_to_string(path).with_context(named)?;
    let line = |(line, number): (&str, usize)| {
        serde_json::from_str(line).with_context(|| format!("{}: line {number} is no measured score", named()))
    };
    text.lines().zip(1..).map(line).collect()
}

/// That scores can be appended to the file: it is one of measured scores, empty, or not there, in a folder that is.
///
/// # Errors
/// When it is anything else.
pub fn check(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!("--record {}: there is no folder {}", name_of(path), name_of(folder));
    }
    if path.exists() { read(path).map(|_| ()) } else { Ok(()) }
}

/// Appends a line, whole or not at all.
///
/// # Errors
/// When the file can't be written.
pub fn append(path: &Path, measured: &Measured) -> Result<()> {
    let mut line = serde_json::to_string(measured)?;
    line.push('\n');
    let write = |mut file: File| -> io::Result<()> {
        let length = file.metadata()?.len();
        // An editor may have left the last line without its end.
        let ended = length == 0 || fs::read(path)?.ends_with(b"\n");
        let line = if ended { line.clone() } else { format!("\n{line}") };
        // Nothing more can be done where cutting fails too.
        file.write_all(line.as_bytes()).inspect_err(|_| drop(file.set_len(length)))
    };
    let file = File::options().create(true).append(true).open(path);
    file.and_then(write).with_context(|| format!("--record {}: can't be written", name_of(path))).or_failed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_appended_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("measured.jsonl");
        let one = |model: &str| Measured {
            model: model.to_owned(),
            weights_sha256: None,
            task: "classify".to_owned(),
            data: "val".to_owned(),
            images: 10,
            failed: 1,
            partial: false,
            changed: Vec::new(),
            multi_scale: false,
            measured: BTreeMap::from([("top1".to_owned(), 83.25)]),
            published: BTreeMap::from([("top1".to_owned(), 83.2)]),
            version: "0.1.0".to_owned(),
        };
        check(&path).unwrap();
        append(&path, &one("a")).unwrap();
        check(&path).unwrap();
        fs::write(&path, fs::read_to_string(&path).unwrap().trim_end()).unwrap();
        append(&path, &one("b")).unwrap();
        assert_eq!(read(&path).unwrap(), [one("a"), one("b")]);
        fs::write(&path, "{\"image\":\"a\"}\n").unwrap();
        let error = format!("{:#}", check(&path).unwrap_err());
        assert!(error.contains("measured.jsonl: line 1 is no measured score"), "{error}");
        #[cfg(target_os = "linux")]
        assert!(check(Path::new("/dev/zero")).is_err());
        let error = check(&folder.path().join("none/x.jsonl")).unwrap_err().to_string();
        assert!(error.contains("there is no folder"), "{error}");
    }
}
