//! `nat-infer eval classify`.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use nat_convert::labels::Labels;
use nat_infer::eval::image_folder::{ClassRule, ImageFolder, LabelledImage};
use nat_infer::eval::page::Confusion;
use nat_infer::eval::top_k::{ReassessedLabels, TOP, TopCounts};
use nat_infer::images::{Limits, Reader};
use nat_infer::pipeline::{Source, name_of};
use nat_infer::results::{
    ClassScores, Classification, Evaluation, FailedImage, JudgedImage, Metrics, Scored,
};
use nat_infer::tasks::classify::ClassifyOptions;
use nat_infer::tasks::{Classify, TaskError};
use nat_infer::zoo::Task;

use super::super::exit::{Exit, one_line, say};
use super::super::images::ExifName;
use super::super::labels::LabelOptions;
use super::super::record::Record;
use super::super::settings::Settings;
use super::super::shared::{CropOptions, ModelOptions};
use super::super::verbosity::Verbosity;
use super::extremes::{Extremes, ShownImage};
use super::options::{DatasetOptions, OrientationOptions, PredictionOptions, ReportOptions, ResumeOptions};
use super::page::{Pictures, SHOWN, page};
use super::report::{REAL, check, evaluation, keep_time, of_model, run_of, write};
use super::score::{ImageRecord, Score};
use super::trial::{Trial, TrialOutcome, shard_run};
use super::truth::{ANNOTATIONS, sha256_of_lines};

/// Measure top-1 and top-5 accuracy on images in a folder for each class
///
/// --data is the folder, or a tar or zip file of one: DIR/<class>/**/<image>. Folders are a model's classes by their names
/// (--labels), by their WordNet ids where these are ImageNet-1K's, so that a part of it is scored rightly too, or where there
/// are as many by their order, numbers by their value, as timm has them. The camera's orientation is ignored, as the
/// published accuracies were measured. An image that can't be read counts as wrong, and is named.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalClassifyArguments {
    /// Folder, tar or zip file with a folder of images for each class; with --annotations of images
    #[arg(long, value_name = "DIR|FILE", help_heading = "Dataset")]
    data: PathBuf,
    /// List of images with their classes, a line each: path below --data, a space, comma or tab, and the class's number,
    /// WordNet id or name
    #[arg(long, value_name = "FILE", help_heading = "Dataset")]
    annotations: Option<PathBuf>,
    /// Reassessed labels (ReaL, arXiv 2006.07159) to count by as well: real.json of ImageNet's validation images, or an
    /// object of file names and lists of classes
    #[arg(long, value_name = "FILE", help_heading = "Dataset")]
    real: Option<PathBuf>,
    #[command(flatten)]
    dataset: DatasetOptions,
    #[command(flatten)]
    predictions: PredictionOptions,
    #[command(flatten)]
    orientation: OrientationOptions,
    #[command(flatten)]
    crop: CropOptions,
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
  nat-infer eval classify --data imagenet/val --model nat-tiny -o nat-tiny.json --report nat-tiny/
  nat-infer eval classify --data imagenet_val.tar --model dinat-base --real real.json
  nat-infer eval classify --data imagenet/val --shard 1/4 -o part1.json
  nat-infer eval classify --data photos/ --weights model_best.pth.tar --labels class_to_idx.json
  nat-infer eval classify --data imagenet/val --results classes.jsonl --labels imagenet.txt";

/// Runs the command.
pub fn run(arguments: EvalClassifyArguments, verbosity: Verbosity) -> Result<Exit> {
    let data = arguments.data.as_path();
    let inputs = [
        Some(data),
        arguments.annotations.as_deref(),
        arguments.real.as_deref(),
        arguments.predictions.results.as_deref(),
        arguments.names.labels.as_deref(),
        arguments.model.weights.as_deref(),
    ];
    check(&arguments.report, arguments.resume.resume, &inputs)?;
    let folder = match &arguments.annotations {
        Some(list) => ImageFolder::listed(data, list)?,
        None => ImageFolder::open(data)?,
    };
    if !verbosity.quiet {
        folder.passed_over.iter().for_each(|line| say(line));
    }
    let numbered = arguments.annotations.is_some();
    let real =
        arguments.real.as_deref().map(|path| ReassessedLabels::open(path).map(|labels| (path, labels)));
    let real = real.transpose()?;
    let mut dataset = arguments.dataset.settings(data);
    dataset.annotations = arguments.annotations.as_deref().map(name_of);
    let mut chosen = |name: &str, value: serde_json::Value| {
        dataset.options.insert(name.to_owned(), value);
    };
    if let Some((path, _)) = &real {
        chosen(REAL, name_of(path).into());
    }
    if folder.images.iter().all(|image| image.source.is_err()) {
        bail!("{}: none of the images is there", name_of(data));
    }
    let shown = if arguments.report.report.is_some() { SHOWN } else { 0 };
    if let Some(results) = &arguments.predictions.results {
        let answers = read_classifications(results)?;
        let labels = match arguments.names.read()? {
            Some(labels) => labels,
            None => labels_of(&answers, &folder.names, results)?,
        };
        let (mut images, rule) = folder.of_classes(&labels, numbered)?;
        chosen("classes", rule.name().into());
        chosen(ANNOTATIONS, content_of(&images, real.as_ref()).into());
        dataset.results = Some(name_of(results));
        arguments.dataset.take(&mut images);
        let mut score = ClassifyScore::new(&images, labels, real, shown)?;
        let found = score.predictions(&images, answers, results)?;
        let scores = score.scores()?;
        let exit = found.exit;
        let evaluation = evaluation("classify", None, scores, found, dataset)?;
        let (exif, _) = arguments.orientation.or(ExifName::Ignore);
        let pictures =
            Pictures::of(images.iter().flat_map(|image| &image.source), Reader::new(exif, Limits::default()));
        write(&evaluation, &arguments.report, || Ok(score.page(&evaluation, &pictures)), verbosity)?;
        return Ok(exit);
    }
    let settings = Settings::resolve(arguments.model, Some(Task::Classify), verbosity)?;
    let mut options = ClassifyOptions::default();
    options.resolution = arguments.crop.resolution;
    options.crop_pct = arguments.crop.crop_pct;
    options.labels = arguments.names.read()?;
    options.top_k = Some(TOP);
    let task = Arc::new(Classify::new(settings.load()?, &options)?);
    let (mut images, rule) = folder.of_classes(task.labels(), numbered)?;
    if rule == ClassRule::Order && !verbosity.quiet {
        let first = task.labels().first().map_or("", String::as_str);
        say(&format!(
            "warning: {}: its folders are taken for classes by their order, the first for `{first}`; --labels FILE names them",
            name_of(data)
        ));
    }
    verbosity.explain("classes", rule.name());
    chosen("classes", rule.name().into());
    chosen(ANNOTATIONS, content_of(&images, real.as_ref()).into());
    let (exif, called) = arguments.orientation.or(ExifName::Ignore);
    dataset.exif = Some(called.to_owned());
    for (name, changed) in [
        ("resolution", arguments.crop.resolution.is_some()),
        ("crop_pct", arguments.crop.crop_pct.is_some()),
        ("exif", called != "ignore"),
    ] {
        dataset.changed.extend(changed.then(|| name.to_owned()));
    }
    verbosity.explain("input", task.crop());
    let report_settings = of_model(task.model(), &settings, task.crop(), dataset);
    let run = run_of("classify", task.model(), &report_settings, task.labels())?;
    let shard = report_settings.shard;
    let recorded = shard_run(&run, shard);
    arguments.dataset.take(&mut images);
    let reader = Reader::new(exif, Limits::default());
    let read = [settings.file(), arguments.annotations.as_deref(), arguments.real.as_deref()];
    let sources: Vec<_> = images.iter().map(|image| image.source.clone()).collect();
    let options = (&arguments.report, arguments.resume.resume);
    let mut score = ClassifyScore::new(&images, task.labels().to_vec(), real, shown)?;
    let trial = Trial::plan(&score, sources, (&run, shard), options, reader, &read, verbosity)?;
    let truths = score.truths.clone();
    let found = trial.run(&task, &settings, &mut score, |image, answer| {
        let name = image.name();
        let (class, real) = truths.get(&name).cloned().unwrap_or_default();
        Ok::<_, TaskError>(judged(name, [task.model().name(), &recorded], class, answer.output, real))
    })?;
    let found = match found {
        ControlFlow::Continue(found) => found,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let (exit, computed) = (found.exit, found.computed);
    let scores = score.scores()?;
    let model = Some((&**task.model(), &settings, run));
    let mut evaluation = evaluation("classify", model, scores, found, report_settings)?;
    keep_time(&mut evaluation, computed, &arguments.report);
    let pictures = Pictures::of(images.iter().flat_map(|image| &image.source), reader);
    write(&evaluation, &arguments.report, || Ok(score.page(&evaluation, &pictures)), verbosity)?;
    Ok(exit)
}

/// The SHA-256 of a line for each image: its file's name, its class and its reassessed labels. Where images lie, and which of
/// them are there, is of one machine alone.
fn content_of(images: &[LabelledImage], real: Option<&(&Path, ReassessedLabels)>) -> String {
    let line = |image: &LabelledImage| {
        let path = image.source.as_ref().map_or_else(|error| Path::new(error.name()), |source| &source.below);
        let file = Path::new(path.file_name().unwrap_or_default());
        let real = real.and_then(|(path, real)| real.of(path, file).ok());
        format!("{}\t{}\t{real:?}", name_of(file), image.class)
    };
    sha256_of_lines(images.iter().map(line))
}

fn judged(
    image: String,
    [model, run]: [&str; 2],
    class: usize,
    top: Vec<Scored>,
    real: Option<Vec<usize>>,
) -> JudgedImage {
    let right = top.first().is_some_and(|first| first.index == class);
    JudgedImage { image, model: model.to_owned(), run: run.to_owned(), class, right, top, real }
}

/// An image's class, and its classes by reassessed labels.
type Truth = (usize, Option<Vec<usize>>);

/// Counts the images whose class is among the first.
pub struct ClassifyScore {
    counts: TopCounts,
    labels: Vec<String>,
    /// By the image's name.
    truths: HashMap<String, Truth>,
    /// In the order of the images.
    order: Vec<Truth>,
    extremes: Extremes,
}

impl ClassifyScore {
    fn new(
        images: &[LabelledImage],
        labels: Vec<String>,
        real: Option<(&Path, ReassessedLabels)>,
        shown: usize,
    ) -> Result<Self> {
        let truth = |image: &LabelledImage| -> Result<Truth> {
            let name = image.source.as_ref().map_or_else(|error| error.name().into(), |s| s.below.clone());
            let real =
                real.as_ref().map(|(path, real)| real.of(path, &name).map(<[usize]>::to_vec)).transpose()?;
            Ok((image.class, real))
        };
        let order = images.iter().map(truth).collect::<Result<Vec<_>>>()?;
        let named = images.iter().zip(&order).filter_map(|(image, truth)| {
            let name = image.source.as_ref().map(Source::name).ok()?;
            Some((name, truth.clone()))
        });
        let truths = named.collect();
        Ok(Self { counts: TopCounts::default(), labels, truths, order, extremes: Extremes::of(shown) })
    }

    /// A score without a dataset, of what shards found.
    pub fn merged(labels: Vec<String>, shown: usize) -> Self {
        let extremes = Extremes::of(shown);
        Self { counts: TopCounts::default(), labels, truths: HashMap::new(), order: Vec::new(), extremes }
    }

    /// Learns the name of a class that nobody has named.
    fn know(&mut self, index: usize, label: &str) -> Result<()> {
        if index >= MOST_CLASSES {
            bail!("a record speaks of class {index}, which no network has");
        }
        while self.labels.len() <= index {
            self.labels.push(self.labels.len().to_string());
        }
        if self.labels[index] == index.to_string() {
            self.labels[index] = label.to_owned();
        }
        Ok(())
    }

    /// The report as a page: which classes were taken for which, and the worst and best images.
    pub fn page(self, evaluation: &Evaluation, pictures: &Pictures) -> String {
        let none = self.labels.len();
        let counts =
            self.counts.pairs().map(|(class, answer, images)| (class, answer.unwrap_or(none), images));
        let confusion = Confusion { counts: counts.collect(), labels: self.labels };
        page(evaluation, Some(&confusion), self.extremes.into_images(), |shown| pictures.image(&shown.name))
    }

    /// Scores records that `classify` wrote, or that look like them, of the images of a dataset.
    fn predictions(
        &mut self,
        images: &[LabelledImage],
        answers: Vec<Classification>,
        results: &Path,
    ) -> Result<TrialOutcome> {
        let file = name_of(results);
        let few = |answer: &Classification| answer.top.len() < TOP.min(self.labels.len());
        if answers.iter().any(few) {
            say(&format!("warning: {file}: some records have fewer than {TOP} classes, so there is no top5"));
            self.counts.has_fewer();
        }
        let mut by_name: HashMap<String, Classification> = HashMap::new();
        for mut answer in answers {
            // The sort is stable: of equal scores the first stays first.
            answer.top.sort_by(|a, b| b.score.total_cmp(&a.score));
            if let Some(twice) = by_name.insert(plain_name(&answer.image).to_owned(), answer) {
                bail!("{file}: has two records of {}", twice.image);
            }
        }
        let records = by_name.len();
        let last = |name: &str| name.rsplit(['/', '\\']).next().unwrap_or(name).to_owned();
        let mut by_end: HashMap<String, Vec<&str>> = HashMap::new();
        by_name.keys().for_each(|name| by_end.entry(last(name)).or_default().push(name));
        // A record is of the image of its name, or of the only one whose path ends as its own does.
        let mut matched: Vec<Option<(&str, bool)>> = Vec::new();
        let mut images_of: HashMap<&str, usize> = HashMap::new();
        for image in images {
            let Ok(source) = &image.source else {
                matched.push(None);
                continue;
            };
            let (name, below) = (source.name(), name_of(&source.below));
            let alike = by_end.get(&last(&name)).map_or(&[][..], Vec::as_slice).iter().copied();
            let alike: Vec<&str> =
                alike.filter(|other| ends_with(&name, other) || ends_with(other, &below)).collect();
            alike.iter().for_each(|record| *images_of.entry(record).or_default() += 1);
            let exact = by_name.get_key_value(plain_name(&name)).map(|(exact, _)| (exact.as_str(), true));
            let only = || if let [only] = alike[..] { Some((only, false)) } else { None };
            matched.push(exact.or_else(only));
        }
        let sure = |(record, exact): (&str, bool)| exact || images_of.get(record) == Some(&1);
        let matched: Vec<Option<&str>> = matched
            .into_iter()
            .map(|found| found.filter(|found| sure(*found)).map(|(record, _)| record))
            .collect();
        let taken = matched.iter().flatten().count();
        if taken == 0 {
            bail!("{file}: none of its records is of an image of the dataset");
        }
        let mut failed = Vec::new();
        for ((image, number), found) in images.iter().zip(0..).zip(matched) {
            let truth = &self.order[number];
            let name = image.source.as_ref().map_or_else(|error| error.name().to_owned(), Source::name);
            if let Some(answer) = found.and_then(|found| by_name.get(found)) {
                let record = judged(name, [&answer.model, ""], truth.0, answer.top.clone(), truth.1.clone());
                self.add(record)?;
                continue;
            }
            let error = "no prediction".to_owned();
            let mut one = FailedImage { image: name, error, ..FailedImage::default() };
            say(&format!("{}: no prediction in {file}", one.image));
            self.add_failed(number, &mut one)?;
            failed.push(one);
        }
        if taken < records {
            say(&format!(
                "warning: {file}: {} of its {records} records are of no image that counts",
                records - taken
            ));
        }
        Ok(TrialOutcome::of_predictions(images.len(), failed))
    }
}

/// A path as it is without `./` before it.
fn plain_name(name: &str) -> &str {
    let plain = name.trim_start_matches("./");
    if plain.is_empty() { name } else { plain }
}

/// Whether a path ends with the names of another one.
fn ends_with(path: &str, end: &str) -> bool {
    let rest = path.strip_suffix(plain_name(end));
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(['/', '\\']))
}

/// The names of the classes that records speak of, where nobody names them: ImageNet-1K's where folders are called by its
/// WordNet ids, those of the records where these have the folders' names, or the folders' own in their order.
fn labels_of(answers: &[Classification], names: &[String], results: &Path) -> Result<Vec<String>> {
    let synsets = Labels::Imagenet1k.synsets().unwrap_or_default();
    if names.iter().all(|name| synsets.binary_search(&name.as_str()).is_ok()) {
        return Ok(Labels::Imagenet1k.names().into_iter().map(str::to_owned).collect());
    }
    let known: BTreeMap<usize, &str> = answers
        .iter()
        .flat_map(|answer| &answer.top)
        .map(|class| (class.index, class.label.as_str()))
        .collect();
    let count = known.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
    if count > MOST_CLASSES {
        bail!("{}: speaks of class {}, which no network has", name_of(results), count - 1);
    }
    let labels: Vec<String> = (0..count)
        .map(|index| known.get(&index).map_or_else(|| index.to_string(), |label| (*label).to_owned()))
        .collect();
    match names.iter().filter(|name| labels.contains(name)).count() {
        all if all == names.len() => Ok(labels),
        // Folders whose names nobody speaks of may be classes by their order.
        0 if count <= names.len() => Ok(names.to_vec()),
        _ => bail!(
            "{}: does not name the classes of all {} folders; --labels FILE names them as the folders are called",
            name_of(results),
            names.len()
        ),
    }
}

/// More classes than any network has: a record that speaks of them is none of a classifier.
pub const MOST_CLASSES: usize = 1 << 20;

/// The records of a file of JSON lines, or of a JSON list.
fn read_classifications(path: &Path) -> Result<Vec<Classification>> {
    let named = || format!("--results {}", name_of(path));
    let text = std::fs::read_to_string(path).with_context(named)?;
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text).with_context(|| format!("{}: no records of `classify`", named()));
    }
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let record = |(line, number): (&str, usize)| {
        serde_json::from_str(line)
            .with_context(|| format!("{}: line {number} is no record of `classify` (json or jsonl)", named()))
    };
    lines.map(record).collect()
}

impl Score for ClassifyScore {
    type Record = JudgedImage;

    fn as_of_now(&self, image: JudgedImage) -> Option<JudgedImage> {
        let Some((class, real)) = self.truths.get(&image.image).cloned() else { return Some(image) };
        Some(judged(image.image, [&image.model, &image.run], class, image.top, real))
    }

    fn add(&mut self, image: JudgedImage) -> Result<()> {
        image.top.iter().try_for_each(|scored| self.know(scored.index, &scored.label))?;
        self.counts.add(&image);
        let name = |index: usize| self.labels.get(index).cloned().unwrap_or_else(|| index.to_string());
        let first = image.top.first();
        let sure = first.map_or(1.0, |first| f64::from(first.score));
        self.extremes.add(&ShownImage {
            truth: name(image.class),
            answer: first.map_or_else(
                || "no answer".to_owned(),
                |first| format!("{} {:.1} %", first.label, 100.0 * first.score),
            ),
            // Of the wrong ones the sure ones are worst, of the right ones best.
            score: 0.5 + 0.5 * if image.right { sure } else { -sure },
            right: Some(image.right),
            name: image.image,
        });
        Ok(())
    }

    fn add_failed(&mut self, number: usize, failed: &mut FailedImage) -> Result<()> {
        let (class, real) = self.order.get(number).cloned().unwrap_or_default();
        (failed.class, failed.real) = (Some(class), real.clone());
        self.add(judged(failed.image.clone(), ["", ""], class, Vec::new(), real))
    }

    fn add_known_failure(&mut self, failed: &FailedImage) -> Result<()> {
        let class =
            failed.class.with_context(|| format!("{}: its class is missing in the report", failed.image))?;
        self.add(judged(failed.image.clone(), ["", ""], class, Vec::new(), failed.real.clone()))
    }

    fn scores(&mut self) -> Result<(Metrics, Vec<ClassScores>)> {
        Ok((Metrics::Classify(self.counts.accuracy()), self.counts.class_scores(&self.labels)))
    }
}

impl ImageRecord for JudgedImage {
    fn image(&self) -> &str {
        &self.image
    }

    fn run(&self) -> &str {
        &self.run
    }
}

impl Record for JudgedImage {
    const COLUMNS: &'static [&'static str] = &["image", "model", "class", "right", "rank", "index", "score"];

    fn rows(&self) -> Vec<Vec<String>> {
        let lead = [self.image.clone(), self.model.clone(), self.class.to_string(), self.right.to_string()];
        let row = |(rank, scored): (usize, &Scored)| {
            let of_class = [rank.to_string(), scored.index.to_string(), scored.score.to_string()];
            [&lead[..], &of_class].concat()
        };
        (1..).zip(&self.top).map(row).collect()
    }

    fn table(&self) -> String {
        format!("{} {}\n", if self.right { "right" } else { "wrong" }, one_line(&self.image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_name_the_classes_that_folders_do_not() {
        let answer = |classes: &[(usize, &str)]| Classification {
            image: String::new(),
            model: String::new(),
            top: classes
                .iter()
                .map(|(index, label)| Scored { index: *index, label: (*label).to_owned(), score: 0.5 })
                .collect(),
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let answers = [answer(&[(2, "cat"), (0, "dog")]), answer(&[(0, "dog")])];
        let of = |folders: &[&str]| labels_of(&answers, &names(folders), Path::new("r.jsonl"));
        // Two folders of ImageNet are no classes 0 and 1.
        let imagenet = of(&["n01440764", "n15075141"]).unwrap();
        assert_eq!((imagenet.len(), imagenet[0].as_str()), (1000, "tench"));
        assert_eq!(of(&["cat", "dog"]).unwrap(), names(&["dog", "1", "cat"]));
        assert_eq!(of(&["a", "b", "c"]).unwrap(), names(&["a", "b", "c"]));
        // One that is spoken of, or more classes than folders: the others' order is no rule.
        for folders in [&["a", "b"][..], &["a", "b", "cat"]] {
            let error = of(folders).unwrap_err().to_string();
            assert!(error.contains("r.jsonl: does not name the classes of all"), "{error}");
        }
        let far = [answer(&[(usize::MAX, "cat")])];
        let error = labels_of(&far, &names(&["cat"]), Path::new("r.jsonl")).unwrap_err().to_string();
        assert!(error.contains("which no network has"), "{error}");
    }
}
