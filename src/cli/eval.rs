//! `nat-infer eval`: a model's scores on a dataset.

use anyhow::Result;
use clap::{Args, Subcommand};

use super::exit::Exit;
use super::verbosity::Verbosity;

mod classify;
mod detect;
mod extremes;
mod knn;
mod merge;
mod options;
mod page;
mod panoptic;
mod report;
mod score;
mod segment;
mod text;
mod trial;
mod truth;

/// Measure a model on a dataset, as the published tables do: accuracy, COCO's AP, mean IoU, panoptic quality
///
/// A report says the scores and what they depend on: model, hash of the weights, preprocessing, type, device, versions. An
/// image without an answer counts as wrong and is named. `nat-infer models` lists the published scores.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalArguments {
    #[command(subcommand)]
    command: EvalCommand,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer eval classify --data imagenet/val --model nat-tiny -o report.json
  nat-infer eval detect --data coco/val2017 --annotations coco/annotations/instances_val2017.json
  nat-infer eval segment --data ADEChallengeData2016 --reduce-zero-label --report page/
  nat-infer eval panoptic --annotations panoptic_val2017.json --results predictions.json
  nat-infer eval merge part1.json part2.json -o report.json";

#[derive(Subcommand)]
enum EvalCommand {
    Classify(Box<classify::EvalClassifyArguments>),
    Detect(Box<detect::EvalDetectArguments>),
    Segment(Box<segment::EvalSegmentArguments>),
    Panoptic(panoptic::EvalPanopticArguments),
    Knn(Box<knn::EvalKnnArguments>),
    Merge(merge::EvalMergeArguments),
}

/// Runs the command.
pub fn run(arguments: EvalArguments, verbosity: Verbosity) -> Result<Exit> {
    match arguments.command {
        EvalCommand::Classify(arguments) => classify::run(*arguments, verbosity),
        EvalCommand::Detect(arguments) => detect::run(*arguments, verbosity),
        EvalCommand::Segment(arguments) => segment::run(*arguments, verbosity),
        EvalCommand::Panoptic(arguments) => panoptic::run(arguments, verbosity),
        EvalCommand::Knn(arguments) => knn::run(*arguments, verbosity),
        EvalCommand::Merge(arguments) => merge::run(arguments, verbosity),
    }
}
