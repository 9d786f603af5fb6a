//! `nat-infer eval detect`.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use nat_infer::eval::coco::{CategoryRule, CocoResults, CocoTruth};
use nat_infer::eval::coco_images::{annotations_of, sources};
use nat_infer::images::{Limits, Reader};
use nat_infer::pipeline::name_of;
use nat_infer::results::{
    ClassScores, CocoResult, Detection, Evaluation, FailedImage, Metrics, SearchedImage,
};
use nat_infer::tasks::{Detect, DetectOptions, TaskError};
use nat_infer::zoo::Task;

use super::super::exit::{Exit, one_line, say};
use super::super::images::ExifName;
use super::super::labels::LabelOptions;
use super::super::record::Record;
use super::super::settings::Settings;
use super::super::shared::{ModelOptions, at_least_one, part, size};
use super::super::verbosity::Verbosity;
use super::extremes::{Extremes, ShownImage};
use super::options::{DatasetOptions, OrientationOptions, PredictionOptions, ReportOptions, ResumeOptions};
use super::page::{Pictures, SHOWN, page};
use super::report::{check, evaluation, keep_time, of_model, run_of, write};
use super::score::{ImageRecord, Score};
use super::trial::{Trial, TrialOutcome, shard_run};
use super::truth::ANNOTATIONS;

/// Measure COCO's average precision of boxes and masks
///
/// The twelve numbers of pycocotools for each, over all images of the annotations. Categories are a model's classes by their
/// names, or where there are as many by their order. An image that can't be read, or is of another size than annotated, is one
/// in which nothing was found, and is named. --results scores a list of results in COCO's format, which anybody may have made,
/// or records of `detect`, whose classes become categories by their names, or by their order if the classes have no names.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalDetectArguments {
    /// Folder, tar or zip file of the images; of COCO's own layout the folder around val2017 and annotations will do
    #[arg(long, value_name = "DIR|FILE", required_unless_present = "results", help_heading = "Dataset")]
    data: Option<PathBuf>,
    /// Annotations in COCO's format [default: those of val2017 beside or in --data]
    #[arg(long, value_name = "FILE", help_heading = "Dataset")]
    annotations: Option<PathBuf>,
    #[command(flatten)]
    dataset: DatasetOptions,
    #[command(flatten)]
    predictions: PredictionOptions,
    #[command(flatten)]
    orientation: OrientationOptions,
    /// Bounds of the resized image's long and short side in pixels [default: the model's, 1333x800]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    scale: Option<[usize; 2]>,
    /// Least probability of an object that counts [default: the model's, 0.05]
    #[arg(long, value_name = "X", value_parser = part)]
    score_threshold: Option<f32>,
    /// Keep at most this many objects per image, the best ones [default: the model's, 100]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_detections: Option<usize>,
    /// Boxes only
    #[arg(long)]
    no_masks: bool,
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
  nat-infer eval detect --data coco --model mask-rcnn-nat-tiny -o nat-tiny.json --report nat-tiny/
  nat-infer eval detect --data val2017.zip --annotations instances_val2017.json --limit 100
  nat-infer eval detect --data photos/ --annotations mine.json --weights epoch_36.pth --per-class
  nat-infer eval detect --annotations instances_val2017.json --results results.json";

/// Runs the command.
pub fn run(arguments: EvalDetectArguments, verbosity: Verbosity) -> Result<Exit> {
    let inputs = [
        arguments.data.as_deref(),
        arguments.annotations.as_deref(),
        arguments.predictions.results.as_deref(),
        arguments.names.labels.as_deref(),
        arguments.model.weights.as_deref(),
    ];
    check(&arguments.report, arguments.resume.resume, &inputs)?;
    let (annotations, data) = match (arguments.annotations, arguments.data) {
        (Some(annotations), data) => (annotations, data),
        (None, Some(data)) => {
            let (annotations, images) = annotations_of(&data)?;
            (annotations, Some(images))
        }
        (None, None) => bail!("--annotations FILE says what there is to find on the images"),
    };
    let mut truth = CocoTruth::open(&annotations)?;
    let mut dataset = arguments.dataset.settings(data.as_deref().unwrap_or(&annotations));
    dataset.annotations = Some(name_of(&annotations));
    dataset.options.insert("masks".to_owned(), (!arguments.no_masks).into());
    dataset.options.insert(ANNOTATIONS.to_owned(), truth.sha256().into());
    let (exif, called) = arguments.orientation.or(ExifName::Apply);
    let reader = Reader::new(exif, Limits::default());
    let mut ids: Vec<u64> = truth.images().iter().map(|image| image.id).collect();
    let mut images = data.as_deref().map(|data| sources(&truth, data)).transpose()?.unwrap_or_default();
    if arguments.predictions.results.is_none() && images.iter().all(Result::is_err) {
        let folder = data.as_deref().map(name_of).unwrap_or_default();
        bail!("{folder}: none of the images of {} is there", name_of(&annotations));
    }
    arguments.dataset.take(&mut ids);
    arguments.dataset.take(&mut images);
    truth = truth.restrict(&ids);
    let pictures = Pictures::of(images.iter().flatten(), reader);
    if let Some(path) = &arguments.predictions.results {
        let results = truth.results(path)?;
        dataset.results = Some(name_of(path));
        if let Some(first) = results.first_other_category() {
            let (path, count) = (name_of(path), results.other_categories());
            let what = format!(
                "{count} results are of categories that the annotations do not have, the first of `{first}`"
            );
            if !results.has_known_categories() {
                bail!("{path}: {what}, and no others; use annotations that have these categories");
            }
            if !verbosity.quiet {
                say(&format!("warning: {path}: {what}"));
            }
        }
        let mut score =
            DetectScore { results: Some(results), ..DetectScore::new(truth, !arguments.no_masks) };
        let found = TrialOutcome::of_predictions(ids.len(), Vec::new());
        let evaluation = evaluation("detect", None, score.scores()?, found, dataset)?;
        write(&evaluation, &arguments.report, || score.page(&evaluation, &pictures), verbosity)?;
        return Ok(Exit::Success);
    }
    if !arguments.no_masks {
        truth.check_masks().context("masks can't be scored; --no-masks scores boxes alone")?;
    }
    let settings = Settings::resolve(arguments.model, Some(Task::Detect), verbosity)?;
    let mut options = DetectOptions::default();
    options.scale = arguments.scale;
    options.score_threshold = arguments.score_threshold;
    options.max_detections = arguments.max_detections;
    options.masks = !arguments.no_masks;
    let task = Arc::new(Detect::new(settings.load_with(&arguments.names)?, &options)?);
    let categories = truth.category_ids(task.labels())?;
    let rule = match categories.rule {
        CategoryRule::Name => "by name",
        CategoryRule::Position => "by order",
    };
    verbosity.explain("classes", rule);
    verbosity.explain("input", task.fit());
    dataset.exif = Some(called.to_owned());
    for (name, changed) in [
        ("scale", arguments.scale.is_some()),
        ("score_threshold", arguments.score_threshold.is_some()),
        ("max_detections", arguments.max_detections.is_some()),
        ("exif", called != "apply"),
    ] {
        dataset.changed.extend(changed.then(|| name.to_owned()));
    }
    let selection = task.selection();
    for (name, value) in [
        ("classes", rule.into()),
        // The shortest number that is the same f32.
        ("score_threshold", selection.score_threshold.to_string().parse::<f64>().unwrap_or_default().into()),
        ("max_detections", selection.max_detections.into()),
    ] {
        dataset.options.insert(name.to_owned(), value);
    }
    let dataset = of_model(task.model(), &settings, task.fit(), dataset);
    // Numbers of categories are in the records.
    let numbered = |(label, id): (&String, &Option<u64>)| format!("{label}\t{id:?}");
    let classes: Vec<String> = task.labels().iter().zip(&categories.ids).map(numbered).collect();
    let run = run_of("detect", task.model(), &dataset, &classes)?;
    let shard = dataset.shard;
    let recorded = shard_run(&run, shard);
    let read = [settings.file(), Some(annotations.as_path()), arguments.names.labels.as_deref()];
    let numbers: HashMap<String, (u64, [usize; 2])> = (images.iter().zip(truth.images()))
        .filter_map(|(image, listed)| {
            let size = [listed.width as usize, listed.height as usize];
            Some((image.as_ref().ok()?.name(), (listed.id, size)))
        })
        .collect();
    let options = (&arguments.report, arguments.resume.resume);
    let mut score = DetectScore { listed: numbers.clone(), ..DetectScore::new(truth, !arguments.no_masks) };
    let trial = Trial::plan(&score, images, (&run, shard), options, reader, &read, verbosity)?;
    let found = trial.run(&task, &settings, &mut score, |image, answer| {
        let name = image.name();
        let (image_id, listed) = numbers.get(&name).copied().unwrap_or_default();
        let [width, height] = answer.size;
        if !fits(answer.size, listed) {
            let [w, h] = listed;
            let why = format!("says {w}x{h}, and the image is {width}x{height}; see --exif");
            return Err(TaskError::Truth { file: name_of(&annotations), why, for_all: false });
        }
        let known = |object: nat_infer::tasks::detect::Object| {
            let id = categories.ids.get(object.detection.index).copied().flatten()?;
            Some(Detection { category_id: id as usize, ..object.detection })
        };
        let detections = answer.output.into_iter().filter_map(known).collect();
        let model = task.model().name().to_owned();
        Ok(SearchedImage { image: name, model, run: recorded.clone(), image_id, width, height, detections })
    })?;
    let found = match found {
        ControlFlow::Continue(found) => found,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let (exit, computed) = (found.exit, found.computed);
    let model = Some((&**task.model(), &settings, run));
    let mut evaluation = evaluation("detect", model, score.scores()?, found, dataset)?;
    keep_time(&mut evaluation, computed, &arguments.report);
    write(&evaluation, &arguments.report, || score.page(&evaluation, &pictures), verbosity)?;
    Ok(exit)
}

/// Whether an image can be the one that annotations say is of this size, where they say so.
fn fits(size: [usize; 2], listed: [usize; 2]) -> bool {
    listed.contains(&0) || listed == size
}

/// Collects what was found, and scores all of it at once.
pub struct DetectScore {
    truth: CocoTruth,
    masks: bool,
    /// What was found so far.
    list: Vec<CocoResult>,
    /// The same, once it is complete.
    results: Option<CocoResults>,
    /// The images' names by their numbers.
    names: HashMap<u64, String>,
    /// The images' numbers and sizes in the annotations by their names; empty where shards are added up.
    listed: HashMap<String, (u64, [usize; 2])>,
}

impl DetectScore {
    /// Scores objects against those of `truth`, with masks or boxes alone.
    pub fn new(truth: CocoTruth, masks: bool) -> Self {
        Self { truth, masks, list: Vec::new(), results: None, names: HashMap::new(), listed: HashMap::new() }
    }

    /// The report as a page, with what was found on the worst and best images beside what there is.
    ///
    /// # Errors
    /// When the images can't be ranked.
    pub fn page(&self, evaluation: &Evaluation, pictures: &Pictures) -> Result<String> {
        let Some(results) = &self.results else { return Ok(page(evaluation, None, Vec::new(), |_| None)) };
        let listed: HashMap<u64, &str> =
            self.truth.images().iter().map(|image| (image.id, image.file_name.as_str())).collect();
        let mut extremes = Extremes::of(SHOWN);
        let mut ids = HashMap::new();
        for (id, score) in self.truth.image_scores(results)? {
            let [truth, answer] = self.truth.told(id, results);
            let name = listed.get(&id).map_or_else(|| id.to_string(), |name| (*name).to_owned());
            ids.insert(name.clone(), id);
            extremes.add(&ShownImage { name, score, right: None, truth, answer });
        }
        Ok(page(evaluation, None, extremes.into_images(), |shown| {
            let id = *ids.get(&shown.name)?;
            let image = pictures.listed(self.names.get(&id), &shown.name)?;
            Some(self.truth.picture(id, image, results))
        }))
    }
}

impl Score for DetectScore {
    type Record = SearchedImage;

    fn as_of_now(&self, image: SearchedImage) -> Option<SearchedImage> {
        let same =
            |&(id, size): &(u64, [usize; 2])| id == image.image_id && fits([image.width, image.height], size);
        self.listed.get(&image.image).is_none_or(same).then_some(image)
    }

    fn add(&mut self, image: SearchedImage) -> Result<()> {
        let SearchedImage { image, image_id, detections, .. } = image;
        self.names.insert(image_id, image);
        self.list.extend(detections.into_iter().map(|object| {
            let Detection { category_id, score, bbox, segmentation, .. } = object;
            CocoResult { image_id, category_id, bbox, score, segmentation }
        }));
        Ok(())
    }

    fn add_failed(&mut self, _: usize, _: &mut FailedImage) -> Result<()> {
        // What was not found is missing without a word from us.
        Ok(())
    }

    fn add_known_failure(&mut self, _: &FailedImage) -> Result<()> {
        Ok(())
    }

    fn scores(&mut self) -> Result<(Metrics, Vec<ClassScores>)> {
        let results = match self.results.take() {
            Some(results) => results,
            None => self.truth.results_of(std::mem::take(&mut self.list))?,
        };
        let scores = self.truth.score(&results, self.masks)?;
        self.results = Some(results);
        Ok((Metrics::Detect(scores.metrics), scores.classes))
    }
}

impl ImageRecord for SearchedImage {
    fn image(&self) -> &str {
        &self.image
    }

    fn run(&self) -> &str {
        &self.run
    }
}

impl Record for SearchedImage {
    const COLUMNS: &'static [&'static str] = &["image", "model", "image_id", "objects"];

    fn rows(&self) -> Vec<Vec<String>> {
        let [id, objects] = [self.image_id.to_string(), self.detections.len().to_string()];
        vec![vec![self.image.clone(), self.model.clone(), id, objects]]
    }

    fn table(&self) -> String {
        format!("{}: {} objects\n", one_line(&self.image), self.detections.len())
    }
}
