//! `nat-infer eval merge`.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use nat_infer::eval::coco::CocoTruth;
use nat_infer::eval::label_maps::LabelRules;
use nat_infer::pipeline::name_of;
use nat_infer::results::{Evaluation, EvaluationSettings, Metrics};
use serde_json::Value;

use super::super::exit::Exit;
use super::super::verbosity::Verbosity;
use super::classify::{ClassifyScore, MOST_CLASSES};
use super::detect::DetectScore;
use super::options::ReportOptions;
use super::page::{Pictures, SHOWN};
use super::report::{check, write};
use super::score::{ImageRecord, Score};
use super::segment::SegmentScore;
use super::trial::{each_record, records_path, shard_run};
use super::truth::ANNOTATIONS;

/// Add the reports of all shards of a run up
///
/// Each report of `eval ... --shard I/N --output REPORT` has what was found of its images beside it, in <stem>.images.jsonl;
/// the result is the report of a run without shards. Of detect the same annotations are read again. Pictures of a --report are of
/// images that are still where the shards found them.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalMergeArguments {
    /// Reports of all shards, in json
    #[arg(value_name = "REPORT", required = true)]
    reports: Vec<PathBuf>,
    /// Annotations of detect, where they are elsewhere now
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    #[command(flatten)]
    report: ReportOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer eval merge part1.json part2.json part3.json part4.json -o report.json
  nat-infer eval merge part*.json --format markdown";

/// A shard's report, and its file.
struct ShardReport {
    path: PathBuf,
    evaluation: Evaluation,
}

/// Runs the command.
pub fn run(arguments: EvalMergeArguments, verbosity: Verbosity) -> Result<Exit> {
    let records: Vec<PathBuf> = arguments.reports.iter().map(|path| records_path(path)).collect();
    let inputs = arguments.reports.iter().chain(&records).chain(&arguments.annotations);
    check(&arguments.report, false, &inputs.map(|path| Some(path.as_path())).collect::<Vec<_>>())?;
    let mut parts = arguments.reports.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    parts.sort_by_key(|part| part.evaluation.settings.shard.map(|shard| shard.index));
    all_of_one_run(&parts)?;
    let first = &parts[0].evaluation;
    let shown = if arguments.report.report.is_some() { SHOWN } else { 0 };
    let labels = labels(&parts)?;
    let pictures = Pictures::by_name();
    match &first.metrics {
        Metrics::Classify(_) => {
            let mut score = ClassifyScore::merged(labels, shown);
            let evaluation = merged(&parts, &mut score)?;
            write(&evaluation, &arguments.report, || Ok(score.page(&evaluation, &pictures)), verbosity)?;
            Ok(status(&evaluation))
        }
        Metrics::Segment(_) => {
            let reduce = first.settings.options.get("reduce_zero_label") == Some(&true.into());
            let mut score =
                SegmentScore::new(LabelRules::new(labels.len(), reduce), labels, [].into(), shown)?;
            let evaluation = merged(&parts, &mut score)?;
            write(
                &evaluation,
                &arguments.report,
                || Ok(score.page(&evaluation, &pictures, |_| None)),
                verbosity,
            )?;
            Ok(status(&evaluation))
        }
        Metrics::Detect(_) => {
            let named = first.settings.annotations.as_deref().map(PathBuf::from);
            let path =
                arguments.annotations.or(named).context("--annotations FILE has what there is to find")?;
            let truth = CocoTruth::open(&path)?;
            if first.settings.options.get(ANNOTATIONS) != Some(&truth.sha256().into()) {
                bail!(
                    "{}: is not what the shards were measured by; --resume brings each up to date",
                    name_of(&path)
                );
            }
            let limit = first.settings.limit.unwrap_or(usize::MAX);
            let ids: Vec<u64> = truth.images().iter().take(limit).map(|image| image.id).collect();
            let images = total(&parts);
            if ids.len() != images {
                bail!("{}: has {} images, the reports are of {images}", name_of(&path), ids.len());
            }
            let masks = first.settings.options.get("masks") != Some(&false.into());
            let mut score = DetectScore::new(truth.restrict(&ids), masks);
            let evaluation = merged(&parts, &mut score)?;
            write(&evaluation, &arguments.report, || score.page(&evaluation, &pictures), verbosity)?;
            Ok(status(&evaluation))
        }
        Metrics::Panoptic(_) | Metrics::Knn(_) => {
            bail!("{}: has no shards to merge", name_of(&parts[0].path))
        }
    }
}

fn read(path: &Path) -> Result<ShardReport> {
    let file = File::open(path).with_context(|| name_of(path))?;
    let evaluation = serde_json::from_reader(BufReader::new(file))
        .with_context(|| format!("{}: no report of `nat-infer eval` in json", name_of(path)))?;
    Ok(ShardReport { path: path.to_owned(), evaluation })
}

/// That the reports are of all shards of one run, each once.
fn all_of_one_run(parts: &[ShardReport]) -> Result<()> {
    let mut seen = HashSet::new();
    let Some(count) = parts[0].evaluation.settings.shard.map(|shard| shard.count) else {
        bail!("{}: is no report of a shard", name_of(&parts[0].path));
    };
    for part in parts {
        let name = name_of(&part.path);
        let Some(shard) = part.evaluation.settings.shard else { bail!("{name}: is no report of a shard") };
        if let Some(what) = differs(&parts[0].evaluation, &part.evaluation) {
            bail!(
                "{name}: {what} is another than in {}, so the two can't be added up",
                name_of(&parts[0].path)
            );
        }
        let content = |part: &ShardReport| part.evaluation.settings.options.get(ANNOTATIONS).cloned();
        if content(&parts[0]) != content(part) {
            bail!(
                "{name}: was measured by other annotations than {}; --resume brings each up to date",
                name_of(&parts[0].path)
            );
        }
        if !seen.insert(shard.index) {
            bail!("{name}: shard {}/{count} is there twice", shard.index);
        }
    }
    // As many as there are reports and one more is enough to find one that is missing.
    if let Some(missing) = (1..=count).take(parts.len() + 1).find(|index| !seen.contains(index)) {
        bail!("the report of shard {missing}/{count} is missing");
    }
    Ok(())
}

/// In what two runs differ whose scores can't be added up: the name of it in a report.
fn differs(a: &Evaluation, b: &Evaluation) -> Option<String> {
    let shape = |of: &Evaluation| (of.settings.limit, of.settings.shard.map(|shard| shard.count));
    if a.run == b.run && a.task == b.task && shape(a) == shape(b) {
        return None;
    }
    let fields = |of: &Evaluation| -> Vec<(String, Value)> {
        let settings = serde_json::to_value(&of.settings).ok().and_then(|value| value.as_object().cloned());
        let own = [
            ("task", Value::from(of.task.clone())),
            ("model", Value::from(of.model.clone())),
            ("weights_sha256", Value::from(of.weights_sha256.clone())),
            ("versions", serde_json::to_value(&of.versions).unwrap_or_default()),
            ("shards", Value::from(of.settings.shard.map(|shard| shard.count))),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value)).into_iter();
        // Where the data lie, and on which machine, is not of the scores.
        let not = ["data", "annotations", "device", "batch_size", "shard"];
        own.chain(settings.into_iter().flatten().filter(|(name, _)| !not.contains(&name.as_str()))).collect()
    };
    let (a, b) = (fields(a), fields(b));
    let name =
        a.iter().find(|field| !b.contains(field)).or_else(|| b.iter().find(|field| !a.contains(field)));
    Some(name.map_or_else(|| "names of classes".to_owned(), |(name, _)| name.clone()))
}

/// The names of the classes, as far as any shard has seen them.
fn labels(parts: &[ShardReport]) -> Result<Vec<String>> {
    let mut names = BTreeMap::new();
    for class in parts.iter().flat_map(|part| &part.evaluation.classes) {
        names.insert(class.index, class.label.clone());
    }
    let count = names.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
    if count > MOST_CLASSES {
        bail!("{}: speaks of class {}, which no network has", name_of(&parts[0].path), count - 1);
    }
    Ok((0..count).map(|index| names.get(&index).cloned().unwrap_or_else(|| index.to_string())).collect())
}

/// The report of all shards together.
fn merged<S: Score>(parts: &[ShardReport], score: &mut S) -> Result<Evaluation> {
    let mut seen = HashSet::new();
    let mut failed = Vec::new();
    for ShardReport { path, evaluation } in parts {
        let records = records_path(path);
        if !records.is_file() && evaluation.failed.len() < evaluation.images {
            bail!("{}: what the shard found of its images is wanted beside its report", name_of(&records));
        }
        let mut count = 0;
        let known: HashSet<&str> = evaluation.failed.iter().map(|failed| failed.image.as_str()).collect();
        if records.is_file() {
            let run = shard_run(&evaluation.run, evaluation.settings.shard);
            each_record::<S::Record>(&records, &run, |record| {
                if known.contains(record.image()) || !seen.insert(record.image().to_owned()) {
                    bail!("{}: {} is there twice", name_of(&records), record.image());
                }
                count += 1;
                score.add(record)
            })?;
        }
        if evaluation.failed.len().checked_add(count) != Some(evaluation.images) {
            let (name, images) = (name_of(&records), evaluation.images);
            bail!(
                "{name}: has {count} images, its report is of {images}, {} of them failed",
                evaluation.failed.len()
            );
        }
        for one in &evaluation.failed {
            score.add_known_failure(one)?;
            failed.push(one.clone());
        }
    }
    failed.sort_by(|a, b| a.image.cmp(&b.image));
    let (metrics, classes) = score.scores()?;
    let first = &parts[0].evaluation;
    let sum = |of: fn(&Evaluation) -> f64| parts.iter().map(|part| of(&part.evaluation)).sum::<f64>();
    let seconds = sum(|shard| shard.seconds);
    let computed = sum(|shard| shard.seconds * shard.images_per_second);
    Ok(Evaluation {
        metrics,
        classes,
        images: total(parts),
        failed,
        settings: EvaluationSettings { shard: None, ..first.settings.clone() },
        seconds,
        images_per_second: if seconds > 0.0 { computed / seconds } else { 0.0 },
        ..first.clone()
    })
}

/// The images of all shards.
fn total(parts: &[ShardReport]) -> usize {
    parts.iter().fold(0, |sum, part| sum.saturating_add(part.evaluation.images))
}

fn status(evaluation: &Evaluation) -> Exit {
    if evaluation.failed.is_empty() { Exit::Success } else { Exit::Failed }
}
