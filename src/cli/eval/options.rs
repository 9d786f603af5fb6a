//! What the evaluations have in common on the command line.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nat_infer::images::Exif;
use nat_infer::pipeline::name_of;
use nat_infer::results::{EvaluationSettings, ShardNumber};

use super::super::images::{ExifName, Shard};
use super::super::shared::at_least_one;

/// What is evaluated.
#[derive(Args)]
#[command(next_help_heading = "Dataset")]
pub struct DatasetOptions {
    /// Take the first N images alone
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Do share I of N: images I, I+N, I+2N, ... in their order; `nat-infer eval merge` adds the reports up
    #[arg(long, value_name = "I/N", requires = "output")]
    pub shard: Option<Shard>,
}

impl DatasetOptions {
    /// Leaves the first images where there is a limit, then the share of a shard.
    pub fn take<T>(&self, all: &mut Vec<T>) {
        self.take_first(all);
        let mut number = 0;
        all.retain(|_| {
            number += 1;
            self.shard.is_none_or(|shard| shard.has(number - 1))
        });
    }

    /// Leaves the first images where there is a limit.
    pub fn take_first<T>(&self, all: &mut Vec<T>) {
        all.truncate(self.limit.unwrap_or(usize::MAX));
    }

    /// What a report says of it, with the dataset at `data`.
    pub fn settings(&self, data: &Path) -> EvaluationSettings {
        let shard = self.shard.map(|shard| ShardNumber { index: shard.index(), count: shard.count() });
        EvaluationSettings { data: name_of(data), limit: self.limit, shard, ..EvaluationSettings::default() }
    }
}

/// What is done with a camera's orientation.
#[derive(Args)]
#[command(next_help_heading = "Images")]
pub struct OrientationOptions {
    // The default, which is each task's own, is in its help.
    /// What to do with the orientation that a camera wrote into the file [default: as the original did: ignore for
    /// classify and knn, apply for detect and segment]
    #[arg(long, value_enum)]
    pub exif: Option<ExifName>,
}

impl OrientationOptions {
    /// What to do, and what a report calls it.
    pub fn or(&self, default: ExifName) -> (Exif, &'static str) {
        let name = self.exif.unwrap_or(default);
        let called = match name {
            ExifName::Apply => "apply",
            ExifName::Ignore => "ignore",
        };
        (name.into(), called)
    }
}

/// How a report is written, and where.
#[derive(Args)]
#[command(next_help_heading = "Report")]
pub struct ReportOptions {
    /// How the report is written [default: by the extension of --output, else table on a terminal and json otherwise]
    #[arg(short, long, value_enum)]
    pub format: Option<ReportFormat>,
    /// File for the report, - for stdout. What classify, detect and segment found of each image stands beside it in
    /// <stem>.images.jsonl, which grows as <stem>.images.jsonl.partial
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Replace a file that is no earlier report, or what an interrupted run left
    #[arg(long)]
    pub overwrite: bool,
    /// Show the scores of every class (json has them always)
    #[arg(long)]
    pub per_class: bool,
    /// Folder for report.html: scores, classes, confusions, the worst and the best images, in one file that needs no
    /// other; the folder is made if need be
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Append the main scores, with the published ones, to a file of JSON lines that `nat-infer models --record` shows
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// How a run over images goes on.
#[derive(Args)]
#[command(next_help_heading = "Report")]
pub struct ResumeOptions {
    /// Go on with what an interrupted run left in <stem>.images.jsonl.partial: images in it are not computed again unless
    /// their annotations have changed
    #[arg(long, requires = "output", conflicts_with = "overwrite")]
    pub resume: bool,
}

/// `--format` of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people
    Table,
    /// One object
    Json,
    /// For an issue or a README
    Markdown,
}

impl ReportFormat {
    /// The format that a file's name asks for.
    pub fn of_extension(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "md" | "markdown" => Some(Self::Markdown),
            "txt" => Some(Self::Table),
            _ => None,
        }
    }
}

/// Predictions that are scored instead of a model's.
#[derive(Args)]
#[command(next_help_heading = "Dataset")]
pub struct PredictionOptions {
    /// Score these predictions, which anybody may have made, without a model
    #[arg(long, value_name = "FILE|DIR", conflicts_with_all = ["model", "weights", "shard"])]
    pub results: Option<PathBuf>,
}
