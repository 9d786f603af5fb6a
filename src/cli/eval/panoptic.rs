//! `nat-infer eval panoptic`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use nat_infer::eval::panoptic;
use nat_infer::pipeline::name_of;
use nat_infer::results::{EvaluationSettings, Metrics};

use super::super::exit::Exit;
use super::super::shared::at_least_one;
use super::super::verbosity::Verbosity;
use super::options::ReportOptions;
use super::page::page;
use super::report::{check, evaluation, write};
use super::trial::TrialOutcome;

/// Measure panoptic quality of predictions
///
/// PQ and its factors SQ and RQ over all classes, things and stuff, as panopticapi has them. Annotations and results are
/// COCO's panoptic JSON, each with its PNG files in the folder of its name without .json. Anybody may have made the results;
/// the models of this program do not predict panoptic segments yet.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalPanopticArguments {
    /// Annotations in COCO's panoptic format
    #[arg(long, value_name = "FILE", help_heading = "Dataset")]
    annotations: PathBuf,
    /// Score these predictions in the same format
    #[arg(long, value_name = "FILE", help_heading = "Dataset")]
    results: Option<PathBuf>,
    /// Folder of the images, of which nothing but its name is used
    #[arg(long, value_name = "DIR", help_heading = "Dataset")]
    data: Option<PathBuf>,
    /// Take the first N images alone
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Dataset")]
    limit: Option<usize>,
    #[command(flatten)]
    report: ReportOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer eval panoptic --annotations panoptic_val2017.json --results predictions.json --per-class
  nat-infer eval panoptic --annotations panoptic_val2017.json --results predictions.json -o pq.json --report page/";

/// Runs the command.
pub fn run(arguments: EvalPanopticArguments, verbosity: Verbosity) -> Result<Exit> {
    let EvalPanopticArguments { annotations, results, data, limit, report } = arguments;
    let Some(results) = results else {
        bail!(
            "no model here predicts panoptic segments yet; --results FILE scores predictions that are there"
        );
    };
    check(&report, false, &[Some(&annotations), Some(&results)])?;
    let scores = panoptic::score(&annotations, &results, limit)?;
    let settings = EvaluationSettings {
        data: name_of(data.as_ref().unwrap_or(&annotations)),
        annotations: Some(name_of(&annotations)),
        results: Some(name_of(&results)),
        limit,
        ..EvaluationSettings::default()
    };
    let found = TrialOutcome::of_predictions(scores.images, Vec::new());
    let metrics = (Metrics::Panoptic(scores.metrics), scores.classes);
    let evaluation = evaluation("panoptic", None, metrics, found, settings)?;
    write(&evaluation, &report, || Ok(page(&evaluation, None, Vec::new(), |_| None)), verbosity)?;
    Ok(Exit::Success)
}
