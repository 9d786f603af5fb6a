//! `nat-infer eval segment`.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use nat_convert::labels::Labels;
use nat_infer::eval::DatasetError;
use nat_infer::eval::label_maps::{
    LabelImage, LabelPair, LabelRules, PixelCounts, image_iou, pairs, prediction_of, read_labels,
};
use nat_infer::eval::label_picture::label_picture;
use nat_infer::images::{Limits, Reader};
use nat_infer::pipeline::{Answer, name_of};
use nat_infer::results::{ClassScores, Evaluation, FailedImage, Metrics, SegmentedImage};
use nat_infer::tasks::segment::LabelMap;
use nat_infer::tasks::{Segment, SegmentOptions, TaskError};
use nat_infer::zoo::Task;

use super::super::exit::{Exit, one_line, say};
use super::super::images::ExifName;
use super::super::labels::LabelOptions;
use super::super::record::Record;
use super::super::settings::Settings;
use super::super::shared::{ModelOptions, at_least_one, size};
use super::super::verbosity::Verbosity;
use super::extremes::{Extremes, ShownImage};
use super::options::{DatasetOptions, OrientationOptions, PredictionOptions, ReportOptions, ResumeOptions};
use super::page::{Pictures, SHOWN, page};
use super::report::{check, evaluation, keep_time, of_model, run_of, write};
use super::score::{ImageRecord, Score};
use super::trial::{Trial, TrialOutcome, shard_run};
use super::truth::{ANNOTATIONS, portable, sha256_of, sha256_of_lines};

/// Measure mean intersection over union of label maps
///
/// As mmsegmentation's IoUMetric: mIoU, mAcc, aAcc, and both of every class; 255 is ignored. Label maps are PNG files whose
/// values are classes; Cityscapes' ids become its 19 classes. The pixels of an image that can't be read count as missed, and
/// it is named. --results scores label maps that anybody may have made, as `segment --save` writes them.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalSegmentArguments {
    /// Folder of the images; of ADE20K's, Cityscapes' and mmsegmentation's layouts the folder around them will do
    #[arg(long, value_name = "DIR", required_unless_present = "results", help_heading = "Dataset")]
    data: Option<PathBuf>,
    /// Folder of the label maps, with the same folders and names [default: beside or in --data, as datasets have them]
    #[arg(long, value_name = "DIR", help_heading = "Dataset")]
    annotations: Option<PathBuf>,
    /// Label 0 is no class, and ignored, 1 is class 0, and so on: as in ADE20K
    #[arg(long, help_heading = "Dataset")]
    reduce_zero_label: bool,
    /// How many classes there are [default: the model's, or of --results as many as --labels names]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Dataset")]
    classes: Option<usize>,
    #[command(flatten)]
    dataset: DatasetOptions,
    #[command(flatten)]
    predictions: PredictionOptions,
    #[command(flatten)]
    orientation: OrientationOptions,
    /// Bounds of the resized image's long and short side in pixels [default: the model's, 2048x512]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    scale: Option<[usize; 2]>,
    /// Take the mean over six sizes, from half to 1.75 times the scale
    #[arg(long)]
    multi_scale: bool,
    /// Take the mean with the mirror image
    #[arg(long)]
    flip: bool,
    #[command(flatten)]
    names: LabelOptions,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    report: ReportOptions,
    #[command(flatten)]
    resume: ResumeOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer eval segment --data ADEChallengeData2016 --reduce-zero-label -o nat-tiny.json
  nat-infer eval segment --data ADEChallengeData2016 --reduce-zero-label --multi-scale --flip --model upernet-dinat-base
  nat-infer eval segment --data cityscapes --weights cityscapes.pth --per-class
  nat-infer eval segment --annotations labels/ --results predicted/ --classes 19";

/// Runs the command.
pub fn run(arguments: EvalSegmentArguments, verbosity: Verbosity) -> Result<Exit> {
    let inputs = [
        arguments.data.as_deref(),
        arguments.annotations.as_deref(),
        arguments.predictions.results.as_deref(),
        arguments.names.labels.as_deref(),
        arguments.model.weights.as_deref(),
    ];
    check(&arguments.report, arguments.resume.resume, &inputs)?;
    let mut found = match (&arguments.data, &arguments.annotations, &arguments.predictions.results) {
        (Some(data), annotations, None) => pairs(data, annotations.as_deref())?,
        // Label maps are compared with label maps; images only illustrate them.
        (Some(data), Some(labels), Some(_)) => {
            pairs(data, Some(labels)).or_else(|_| pairs(labels, Some(labels)))?
        }
        (Some(data), None, Some(_)) => pairs(data, None)?,
        (None, Some(labels), _) => pairs(labels, Some(labels))?,
        (None, None, _) => bail!("--annotations DIR has the label maps to compare with"),
    };
    let mut content = HashMap::new();
    for pair in &found.pairs {
        content.insert(pair.image.name(), sha256_of(&pair.labels)?);
    }
    let line = |pair: &LabelPair| format!("{}\t{}", portable(&pair.image.below), content[&pair.image.name()]);
    let annotations = sha256_of_lines(found.pairs.iter().map(line));
    arguments.dataset.take(&mut found.pairs);
    let labelled: Arc<[LabelPair]> = found.pairs.into();
    let mut dataset = arguments.dataset.settings(arguments.data.as_deref().unwrap_or(&found.labels));
    dataset.annotations = Some(name_of(&found.labels));
    dataset.options.insert("reduce_zero_label".to_owned(), arguments.reduce_zero_label.into());
    dataset.options.insert(ANNOTATIONS.to_owned(), annotations.into());
    let (exif, called) = arguments.orientation.or(ExifName::Apply);
    let reader = Reader::new(exif, Limits::default());
    let pictures = Pictures::of(labelled.iter().map(|pair| &pair.image), reader);
    let shown = if arguments.report.report.is_some() { SHOWN } else { 0 };
    if let Some(results) = arguments.predictions.results {
        let names = arguments.names.read()?;
        let Some(classes) = arguments.classes.or_else(|| names.as_ref().map(Vec::len)) else {
            bail!(
                "--classes N says how many classes the label maps of --results have, or --labels FILE names them"
            );
        };
        let labels = names.unwrap_or_else(|| (0..classes).map(|class| class.to_string()).collect());
        dataset.results = Some(name_of(&results));
        let rules = LabelRules::new(classes, arguments.reduce_zero_label);
        let mut score = SegmentScore::new(rules, labels, labelled.clone(), shown)?;
        let found = score.predictions(&results)?;
        let exit = found.exit;
        let evaluation = evaluation("segment", None, score.scores()?, found, dataset)?;
        let predicted = |pair: &LabelPair| read_labels(&prediction_of(pair, &results).ok()?).ok();
        write(
            &evaluation,
            &arguments.report,
            || Ok(score.page(&evaluation, &pictures, predicted)),
            verbosity,
        )?;
        return Ok(exit);
    }
    let settings = Settings::resolve(arguments.model, Some(Task::Segment), verbosity)?;
    let mut options = SegmentOptions::default();
    (options.scale, options.multi_scale, options.flip) =
        (arguments.scale, arguments.multi_scale, arguments.flip);
    let task = Arc::new(Segment::new(settings.load_with(&arguments.names)?, &options)?);
    let classes = task.labels().len();
    if let Some(other) = arguments.classes.filter(|other| *other != classes) {
        bail!("--classes {other}: {} has {classes}", task.model().short_name());
    }
    if !arguments.reduce_zero_label && task.labels() == Labels::Ade20k.names() && !verbosity.quiet {
        say(
            "warning: ADE20K's label maps have 0 for what is no class; --reduce-zero-label takes them so, as the published mIoU did",
        );
    }
    task.fits().iter().for_each(|fit| verbosity.explain("input", fit));
    dataset.exif = Some(called.to_owned());
    for (name, on) in [("multi_scale", arguments.multi_scale), ("flip", arguments.flip)] {
        dataset.options.insert(name.to_owned(), on.into());
    }
    let fits: Vec<String> = task.fits().iter().map(ToString::to_string).collect();
    for (name, changed) in [("scale", arguments.scale.is_some()), ("exif", called != "apply")] {
        dataset.changed.extend(changed.then(|| name.to_owned()));
    }
    let dataset = of_model(task.model(), &settings, fits.join("; "), dataset);
    let run = run_of("segment", task.model(), &dataset, task.labels())?;
    let shard = dataset.shard;
    let recorded = shard_run(&run, shard);
    let rules = LabelRules::new(classes, arguments.reduce_zero_label);
    let mut score = SegmentScore {
        content: content.clone(),
        ..SegmentScore::new(rules, task.labels().to_vec(), labelled.clone(), shown)?
    };
    let by_name: HashMap<String, &LabelPair> =
        labelled.iter().map(|pair| (pair.image.name(), pair)).collect();
    let read = [settings.file(), arguments.names.labels.as_deref()];
    let images: Vec<_> = labelled.iter().map(|pair| Ok(pair.image.clone())).collect();
    let options = (&arguments.report, arguments.resume.resume);
    let trial = Trial::plan(&score, images, (&run, shard), options, reader, &read, verbosity)?;
    let mut counts = PixelCounts::new(rules)?;
    let found = trial.run(&task, &settings, &mut score, |image, Answer { output: map, .. }| {
        let name = image.name();
        let missing =
            || TaskError::Truth { file: name.clone(), why: "it has no label map".to_owned(), for_all: false };
        let truth = by_name.get(&name).ok_or_else(missing)?.read().map_err(unusable)?;
        let predicted = label_image(&name, &map);
        if truth.size != predicted.size {
            let ([w, h], [width, height]) = (truth.size, predicted.size);
            let why = format!("is {w}x{h}, and its image {width}x{height}; see --exif");
            return Err(TaskError::Truth { file: truth.name, why, for_all: false });
        }
        let pixels = counts.add(&truth, Some(&predicted)).map_err(unusable)?;
        let model = task.model().name().to_owned();
        let labels_sha256 = content.get(&name).cloned().unwrap_or_default();
        Ok(SegmentedImage { image: name, model, run: recorded.clone(), labels_sha256, pixels })
    })?;
    let found = match found {
        ControlFlow::Continue(found) => found,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let (exit, computed) = (found.exit, found.computed);
    let scores = score.scores()?;
    let model = Some((&**task.model(), &settings, run));
    let mut evaluation = evaluation("segment", model, scores, found, dataset)?;
    keep_time(&mut evaluation, computed, &arguments.report);
    let predicted = |pair: &LabelPair| {
        let name = pair.image.name();
        Some(label_image(&name, &task.run(&pictures.image(&name)?).ok()?))
    };
    write(&evaluation, &arguments.report, || Ok(score.page(&evaluation, &pictures, predicted)), verbosity)?;
    Ok(exit)
}

/// A label map that can't be used ends the run: without it there is no denominator, and a label that is no class shifts
/// those files in which it is not seen.
fn unusable(DatasetError { file, why, .. }: DatasetError) -> TaskError {
    TaskError::Truth { file, why, for_all: true }
}

/// A network's label map as one of a file.
fn label_image(name: &str, map: &LabelMap) -> LabelImage {
    let values = map.classes.iter().map(|&class| u16::from(class)).collect();
    LabelImage { name: name.to_owned(), size: map.size, values }
}

/// Counts pixels by their class and by what they were taken for.
pub struct SegmentScore {
    counts: PixelCounts,
    labels: Vec<String>,
    /// In the order of the run.
    pairs: Arc<[LabelPair]>,
    /// SHA-256 of the label maps by the names of the images; empty where shards are added up.
    content: HashMap<String, String>,
    extremes: Extremes,
}

impl SegmentScore {
    /// Counts by these rules.
    ///
    /// # Errors
    /// When there are too many classes.
    pub fn new(
        rules: LabelRules,
        labels: Vec<String>,
        pairs: Arc<[LabelPair]>,
        shown: usize,
    ) -> Result<Self> {
        let extremes = Extremes::of(shown);
        let (counts, content) = (PixelCounts::new(rules)?, HashMap::new());
        Ok(Self { counts, labels, pairs, content, extremes })
    }

    /// The report as a page, with the worst and best images: what `predicted` gives for them beside what there is.
    pub fn page(
        self,
        evaluation: &Evaluation,
        pictures: &Pictures,
        predicted: impl Fn(&LabelPair) -> Option<LabelImage>,
    ) -> String {
        let rules = self.counts.rules();
        let pairs: HashMap<String, &LabelPair> =
            self.pairs.iter().map(|pair| (pair.image.name(), pair)).collect();
        page(evaluation, None, self.extremes.into_images(), |shown| {
            let pair = pairs.get(&shown.name)?;
            let (image, truth) = (pictures.image(&shown.name)?, pair.read().ok()?);
            label_picture(image, predicted(pair).as_ref(), &truth, rules)
        })
    }

    /// Scores the label maps of a folder.
    fn predictions(&mut self, results: &Path) -> Result<TrialOutcome> {
        let mut failed = Vec::new();
        let pairs = self.pairs.clone();
        for (pair, number) in pairs.iter().zip(0..) {
            let truth = pair.read()?;
            let predicted = prediction_of(pair, results).and_then(|path| read_labels(&path));
            match predicted {
                Ok(predicted) => {
                    let mut one = PixelCounts::new(self.counts.rules())?;
                    let pixels = one.add(&truth, Some(&predicted))?;
                    let [model, run, labels_sha256] = [const { String::new() }; 3];
                    self.add(SegmentedImage { image: pair.image.name(), model, run, labels_sha256, pixels })?;
                }
                Err(error) => {
                    say(&error.to_string());
                    let (image, error) = (pair.image.name(), error.to_string());
                    let mut one = FailedImage { image, error, ..FailedImage::default() };
                    self.add_failed(number, &mut one)?;
                    failed.push(one);
                }
            }
        }
        if failed.len() == pairs.len() {
            bail!("{}: there is no prediction for any of the images", name_of(results));
        }
        Ok(TrialOutcome::of_predictions(pairs.len(), failed))
    }

    fn look_at(&mut self, name: &str, pixels: &[(u16, u16, u64)], answer: Option<&str>) {
        let iou = image_iou(pixels, self.counts.rules());
        let mut classes: HashMap<u16, u64> = HashMap::new();
        pixels.iter().for_each(|&(class, _, count)| *classes.entry(class).or_default() += count);
        let mut largest: Vec<_> = classes.into_iter().collect();
        largest.sort_by_key(|&(class, count)| (std::cmp::Reverse(count), class));
        let name_of =
            |&(class, _): &(u16, u64)| self.labels.get(usize::from(class)).cloned().unwrap_or_default();
        let truth: Vec<String> = largest.iter().take(NAMED).map(name_of).collect();
        let told = iou.map_or_else(|| "no pixel counts".to_owned(), |iou| format!("mIoU {iou:.3}"));
        self.extremes.add(&ShownImage {
            name: name.to_owned(),
            score: iou.unwrap_or(1.0),
            right: None,
            truth: truth.join(", "),
            answer: answer.map_or(told, str::to_owned),
        });
    }
}

/// How many of an image's classes a page names.
const NAMED: usize = 4;

impl Score for SegmentScore {
    type Record = SegmentedImage;

    fn as_of_now(&self, image: SegmentedImage) -> Option<SegmentedImage> {
        let content = self.content.get(&image.image);
        content.is_none_or(|content| *content == image.labels_sha256).then_some(image)
    }

    fn add(&mut self, image: SegmentedImage) -> Result<()> {
        self.counts.add_sparse(&image.pixels).with_context(|| image.image.clone())?;
        self.look_at(&image.image, &image.pixels, None);
        Ok(())
    }

    fn add_failed(&mut self, number: usize, failed: &mut FailedImage) -> Result<()> {
        if let Some(pair) = self.pairs.get(number) {
            failed.pixels = self.counts.add(&pair.read()?, None)?;
        }
        self.look_at(&failed.image, &failed.pixels.clone(), Some("no answer"));
        Ok(())
    }

    fn add_known_failure(&mut self, failed: &FailedImage) -> Result<()> {
        self.counts.add_sparse(&failed.pixels).with_context(|| failed.image.clone())?;
        self.look_at(&failed.image, &failed.pixels, Some("no answer"));
        Ok(())
    }

    fn scores(&mut self) -> Result<(Metrics, Vec<ClassScores>)> {
        Ok((Metrics::Segment(self.counts.metrics()), self.counts.class_scores(&self.labels)))
    }
}

impl ImageRecord for SegmentedImage {
    fn image(&self) -> &str {
        &self.image
    }

    fn run(&self) -> &str {
        &self.run
    }
}

impl Record for SegmentedImage {
    const COLUMNS: &'static [&'static str] = &["image", "model", "class", "predicted", "pixels"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |(class, predicted, pixels): &(u16, u16, u64)| {
            let lead = [self.image.clone(), self.model.clone()];
            [&lead[..], &[class.to_string(), predicted.to_string(), pixels.to_string()]].concat()
        };
        match self.pixels.is_empty() {
            true => vec![vec![
                self.image.clone(),
                self.model.clone(),
                String::new(),
                String::new(),
                "0".to_owned(),
            ]],
            false => self.pixels.iter().map(row).collect(),
        }
    }

    fn table(&self) -> String {
        let pixels: u64 = self.pixels.iter().map(|(.., pixels)| pixels).sum();
        format!("{}: {pixels} pixels\n", one_line(&self.image))
    }
}
