//! `nat-infer eval knn`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use nat_infer::eval::image_folder::ImageFolder;
use nat_infer::eval::neighbors::{KnnOptions, Vectors, knn_classify, knn_leave_one_out};
use nat_infer::eval::page::Confusion;
use nat_infer::images::{Limits, Reader};
use nat_infer::pipeline::{Source, name_of};
use nat_infer::results::{ClassScores, FailedImage, KnnAccuracy, Metrics};
use nat_infer::tasks::Embed;
use nat_infer::zoo::Task;
use serde::Serialize;

use super::super::exit::{Exit, say};
use super::super::images::ExifName;
use super::super::pooled::embedder;
use super::super::record::Record;
use super::super::run::Job;
use super::super::settings::Settings;
use super::super::shared::{CropOptions, ModelOptions, at_least_one};
use super::super::verbosity::Verbosity;
use super::extremes::{Extremes, ShownImage};
use super::options::{OrientationOptions, ReportOptions};
use super::page::{Pictures, SHOWN, page};
use super::report::{check, evaluation, of_model, run_of, write};
use super::trial::TrialOutcome;

/// Measure how well pooled features tell classes apart, without training: k nearest neighbors
///
/// Each image gets the class that its k nearest neighbors by cosine choose, which count exp(similarity / temperature), as in
/// DINO (arXiv 2104.14294). The neighbors are the images of --train, or without it the other images of --data
/// (leave-one-out). Folders are classes; the model need not know them. Vectors are kept in memory: 4 bytes for each of a
/// model's channels and image.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalKnnArguments {
    /// Folder, tar or zip file with a folder of images for each class
    #[arg(long, value_name = "DIR|FILE", help_heading = "Dataset")]
    data: PathBuf,
    /// The same with the images that choose [default: the others of --data]
    #[arg(long, value_name = "DIR|FILE", help_heading = "Dataset")]
    train: Option<PathBuf>,
    /// How many neighbors choose
    #[arg(short = 'k', long, value_name = "K", default_value_t = KnnOptions::default().neighbors, value_parser = at_least_one)]
    neighbors: usize,
    /// How much less a neighbor counts that is further away
    #[arg(long, value_name = "T", default_value_t = KnnOptions::default().temperature, value_parser = above_zero)]
    temperature: f64,
    #[command(flatten)]
    orientation: OrientationOptions,
    #[command(flatten)]
    crop: CropOptions,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    report: ReportOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer eval knn --data photos/ --model dinat-base
  nat-infer eval knn --train imagenet/train --data imagenet/val -k 20 -o knn.json";

fn above_zero(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|x: &f64| *x > 0.0 && x.is_finite()).ok_or("a number above 0 is wanted")
}

/// The vectors of a dataset's images.
struct Embedded {
    /// One after the other.
    values: Vec<f32>,
    /// The class of each, by its number among the names.
    classes: Vec<usize>,
    /// Their names.
    images: Vec<String>,
    /// Images without a vector, with their classes.
    failed: Vec<(FailedImage, usize)>,
    elapsed: Duration,
}

/// An image whose vector is kept in memory.
#[derive(Serialize)]
struct EmbeddedImage {
    image: String,
}

impl Record for EmbeddedImage {
    const COLUMNS: &'static [&'static str] = &["image"];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec![self.image.clone()]]
    }

    fn table(&self) -> String {
        format!("{}\n", self.image)
    }
}

/// Runs the command.
pub fn run(arguments: EvalKnnArguments, verbosity: Verbosity) -> Result<Exit> {
    let inputs =
        [Some(arguments.data.as_path()), arguments.train.as_deref(), arguments.model.weights.as_deref()];
    check(&arguments.report, false, &inputs)?;
    let mut folder = ImageFolder::open(&arguments.data)?;
    let train = arguments.train.as_deref().map(ImageFolder::open).transpose()?;
    if !verbosity.quiet {
        train.iter().chain([&folder]).flat_map(|folder| &folder.passed_over).for_each(|line| say(line));
    }
    let names = train.as_ref().map_or(&folder.names, |train| &train.names).clone();
    let numbers: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
    if let Some(name) = folder.names.iter().find(|name| !numbers.contains_key(name.as_str())) {
        let train = arguments.train.as_deref().unwrap_or(Path::new(""));
        bail!("{}: has no class `{name}`, which {} has", name_of(train), name_of(&arguments.data));
    }
    for image in &mut folder.images {
        image.class = numbers[folder.names[image.class].as_str()];
    }
    let settings = Settings::resolve(arguments.model, Some(Task::Classify), verbosity)?;
    let task = Arc::new(embedder(&settings, arguments.crop.resolution, arguments.crop.crop_pct)?);
    verbosity.explain("input", task.crop());
    let (exif, called) = arguments.orientation.or(ExifName::Ignore);
    let reader = Reader::new(exif, Limits::default());
    let embed = |folder: &ImageFolder| embedded(folder, &task, &settings, reader, verbosity);
    let trained = train.as_ref().map(embed).transpose()?;
    let (trained, tested) = match (trained, embed(&folder)?) {
        (None, Ok(tested)) => (None, tested),
        (Some(Ok(trained)), Ok(tested)) => (Some(trained), tested),
        (Some(Err(exit)), _) | (_, Err(exit)) => return Ok(exit),
    };
    let mut options = KnnOptions::default();
    (options.neighbors, options.temperature) = (arguments.neighbors, arguments.temperature);
    let rows = Vectors::new(&tested.values, task.width());
    let answers = match &trained {
        Some(trained) => {
            let train = Vectors::new(&trained.values, task.width());
            knn_classify(rows, train, &trained.classes, &options)
        }
        None => knn_leave_one_out(rows, &tested.classes, &options),
    };
    let judged = tested.images.iter().zip(&tested.classes).zip(answers);
    let judged = judged.map(|((image, class), answer)| (image.as_str(), *class, answer));
    let failed = tested.failed.iter().map(|(failed, class)| (failed.image.as_str(), *class, None));
    let mut counts: HashMap<usize, [u64; 2]> = HashMap::new();
    let mut pairs: HashMap<(usize, usize), u64> = HashMap::new();
    let mut extremes = Extremes::of(if arguments.report.report.is_some() { SHOWN } else { 0 });
    for (image, class, answer) in judged.chain(failed) {
        let right = answer == Some(class);
        let [images, told] = counts.entry(class).or_default();
        (*images, *told) = (*images + 1, *told + u64::from(right));
        *pairs.entry((class, answer.unwrap_or(names.len()))).or_default() += 1;
        extremes.add(&ShownImage {
            name: image.to_owned(),
            score: f64::from(u8::from(right)),
            right: Some(right),
            truth: names[class].clone(),
            answer: answer.map_or_else(|| "no answer".to_owned(), |answer| names[answer].clone()),
        });
    }
    const PERCENT: f64 = 100.0;
    let share = |[images, told]: [u64; 2]| PERCENT * told as f64 / images as f64;
    let mut classes: Vec<ClassScores> = counts
        .iter()
        .map(|(&index, &[images, told])| ClassScores {
            index,
            label: names[index].clone(),
            count: images,
            scores: [("knn_top1".to_owned(), Some(share([images, told])))].into(),
        })
        .collect();
    classes.sort_by_key(|class| class.index);
    let all = counts.values().fold([0, 0], |[a, b], [images, told]| [a + images, b + told]);
    let metrics = Metrics::Knn(KnnAccuracy { knn_top1: share(all), neighbors: options.neighbors });
    let mut dataset = nat_infer::results::EvaluationSettings {
        data: name_of(&arguments.data),
        exif: Some(called.to_owned()),
        ..Default::default()
    };
    dataset.options.insert("temperature".to_owned(), options.temperature.into());
    let train_name = arguments.train.as_deref().map_or_else(|| "leave-one-out".to_owned(), name_of);
    dataset.options.insert("train".to_owned(), train_name.into());
    // Of those that choose one that failed does not choose: no answer is wrong for it, but others may be.
    let train_failed = trained.as_ref().map_or(0, |trained| trained.failed.len());
    if train_failed > 0 {
        dataset.options.insert("train_failed".to_owned(), train_failed.into());
    }
    let dataset = of_model(task.model(), &settings, task.crop(), dataset);
    let failed: Vec<FailedImage> = tested.failed.iter().map(|(failed, _)| failed.clone()).collect();
    let exit = if failed.is_empty() && train_failed == 0 { Exit::Success } else { Exit::Failed };
    let before =
        trained.as_ref().map_or((0, Duration::ZERO), |trained| (trained.images.len(), trained.elapsed));
    let found = TrialOutcome {
        exit,
        images: all[0] as usize,
        failed,
        computed: tested.images.len() + before.0,
        elapsed: tested.elapsed + before.1,
    };
    let model = Some((&**task.model(), &settings, run_of("knn", task.model(), &dataset, &names)?));
    let evaluation = evaluation("knn", model, (metrics, classes), found, dataset)?;
    let mut counts: Vec<(usize, usize, u64)> =
        pairs.into_iter().map(|((class, answer), images)| (class, answer, images)).collect();
    counts.sort_unstable();
    let confusion = Confusion { labels: names, counts };
    let pictures = Pictures::of(folder.images.iter().flat_map(|image| &image.source), reader);
    let shown = extremes.into_images();
    let draw = || Ok(page(&evaluation, Some(&confusion), shown, |shown| pictures.image(&shown.name)));
    write(&evaluation, &arguments.report, draw, verbosity)?;
    Ok(exit)
}

/// The vectors of a dataset; the exit status where a run over it ended early.
fn embedded(
    folder: &ImageFolder,
    task: &Arc<Embed>,
    settings: &Settings,
    reader: Reader,
    verbosity: Verbosity,
) -> Result<Result<Embedded, Exit>> {
    let named =
        folder.images.iter().filter_map(|image| Some((image.source.as_ref().ok()?.name(), image.class)));
    let classes: HashMap<String, usize> = named.collect();
    let class_of = |name: &str| classes.get(name).copied().unwrap_or_default();
    let sources = folder.images.iter().map(|image| image.source.clone()).collect();
    let (mut values, mut of_rows, mut images, mut failed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let ended = Job::of(sources, 0, None, reader, verbosity).watched(
        task,
        settings,
        |image, answer| {
            let name = image.name();
            values.extend(answer.output);
            of_rows.push(class_of(&name));
            images.push(name.clone());
            Ok(EmbeddedImage { image: name })
        },
        |image, failure| {
            let text = failure.to_string();
            let name = image.as_ref().map_or_else(|error| error.name().to_owned(), Source::name);
            let error = text.strip_prefix(&format!("{name}: ")).unwrap_or(&text).to_owned();
            let known = folder.images.iter().find(|known| known.source == *image);
            let class = known.map_or(0, |known| known.class);
            failed.push((
                FailedImage { image: name, error, class: Some(class), ..FailedImage::default() },
                class,
            ));
        },
    )?;
    Ok(if ended.complete {
        Ok(Embedded { values, classes: of_rows, images, failed, elapsed: ended.elapsed })
    } else {
        Err(ended.exit)
    })
}
