//! A report: what was measured, of what, and with what.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::DType;
use nat_convert::arch::{Dilations, Geometry};
use nat_infer::pipeline::name_of;
use nat_infer::results::{ClassScores, Evaluation, EvaluationSettings, Metrics};
use nat_infer::simd::{Isa, IsaChoice};
use nat_infer::tasks::Model;
use nat_infer::tasks::files::NewFile;
use sha2::{Digest, Sha256};

use super::super::earlier::may_be_replaced;
use super::super::exit::{OrFailed, print, say};
use super::super::measured::{self, Measured};
use super::super::output::has_a_place;
use super::super::settings::Settings;
use super::super::shared::OutputFormat;
use super::super::verbosity::Verbosity;
use super::options::{ReportFormat, ReportOptions};
use super::text::{markdown, table};
use super::trial::{TrialOutcome, records_path, report_file};
use super::truth::{ANNOTATIONS, hex};

/// What a report's options call the file of reassessed labels.
pub const REAL: &str = "real";

/// The file in the folder of --report.
pub const PAGE: &str = "report.html";

/// Sees to it that a report can be written where it is asked for, before anything is computed for it. `inputs` are what the
/// command reads, and lose nothing; `resume` says that it goes on with what an earlier one left.
///
/// # Errors
/// When something would be lost, or there is no place for it.
pub fn check(options: &ReportOptions, resume: bool, inputs: &[Option<&Path>]) -> Result<()> {
    let file = report_file(options);
    if resume && file.is_none() {
        bail!("--resume goes on with a file; --output names it");
    }
    let records = file.map(records_path);
    let page = options.report.as_ref().map(|folder| folder.join(PAGE));
    let outputs: Vec<&Path> = [file, records.as_deref(), page.as_deref(), options.record.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    // A file that is not there yet has no place of its own but by its name.
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let places: Vec<PathBuf> = outputs.iter().map(|path| place(path)).collect();
    for (output, number) in outputs.iter().zip(0..) {
        if let Some(input) = inputs.iter().flatten().find(|input| place(input) == places[number]) {
            bail!("{} is an input of this run; what is written needs another file", name_of(input));
        }
        // A dataset's own files are in its folders.
        let within = inputs
            .iter()
            .flatten()
            .filter(|input| input.is_dir())
            .find(|input| places[number].starts_with(place(input)));
        if let Some(folder) = within
            && output.exists()
            && may_be_replaced(output, true, OutputFormat::Json).is_err()
            && options.record.as_deref() != Some(*output)
        {
            bail!(
                "{}: lies in {}, which is read; what is written needs another file",
                name_of(output),
                name_of(folder)
            );
        }
        if places[..number].contains(&places[number]) {
            bail!("{}: two things would be written to it; each needs a file of its own", name_of(output));
        }
    }
    if let Some(path) = file {
        has_a_place(path)?;
    }
    if let (Some(folder), Some(page)) = (&options.report, &page) {
        match folder.metadata() {
            Ok(found) if found.is_dir() => has_a_place(page)?,
            Ok(_) => bail!("--report {}: is a file; a folder is wanted", name_of(folder)),
            Err(_) => {}
        }
    }
    if !options.overwrite {
        // What an interrupted run left is of its images, and looked at with them.
        let files = file.into_iter().chain(page.as_deref());
        files.into_iter().try_for_each(|path| may_be_replaced(path, true, OutputFormat::Json))?;
    }
    options.record.as_deref().map_or(Ok(()), measured::check)
}

/// What decides the scores of a model beside the images, see [`Evaluation::run`]; `labels` are the names of its classes.
///
/// # Errors
/// When the weights' files are not there any more.
pub fn run_of(task: &str, model: &Model, settings: &EvaluationSettings, labels: &[String]) -> Result<String> {
    /// Digits of the hash that are kept.
    const KEPT: usize = 16;
    // Where the data lie and which part of them is done is not of the machine's, and neither is how fast.
    let mut decides = EvaluationSettings {
        data: String::new(),
        annotations: None,
        device: None,
        batch_size: None,
        limit: None,
        shard: None,
        ..settings.clone()
    };
    // By what an image's class is said to be is counted anew.
    [REAL, ANNOTATIONS].iter().for_each(|name| drop(decides.options.remove(*name)));
    let all = (task, model.name(), model.weights_sha256()?, decides, labels, versions());
    Ok(hex(&Sha256::digest(serde_json::to_vec(&all)?))[..KEPT].to_owned())
}

/// What a report says of a model and of where it computed.
pub fn of_model(
    model: &Model,
    settings: &Settings,
    preprocessing: impl std::fmt::Display,
    dataset: EvaluationSettings,
) -> EvaluationSettings {
    let isa = if settings.dtype() == DType::BF16 { IsaChoice::of_weights_in_bf16().isa } else { Isa::best() };
    let device = match settings.device().is_cpu() {
        true => format!("cpu, {}, {} threads", isa.name(), settings.threads()),
        false => "cuda".to_owned(),
    };
    let mut options = dataset.options.clone();
    let dilations = Dilations::shortest(&model.metadata().architecture.backbone.dilations);
    let preprocessing_of = &model.metadata().preprocessing;
    let resize = match preprocessing_of.geometry {
        Geometry::Crop { .. } => serde_json::to_value(preprocessing_of.filter).unwrap_or_default(),
        Geometry::Scale { .. } => "bilinear, as OpenCV".into(),
    };
    for (name, value) in [
        ("dilations", dilations.to_string().into()),
        ("resize", resize),
        ("mean", preprocessing_of.mean.to_vec().into()),
        ("std", preprocessing_of.std.to_vec().into()),
        ("channels", if preprocessing_of.bgr { "bgr" } else { "rgb" }.into()),
    ] {
        options.insert(name.to_owned(), value);
    }
    EvaluationSettings {
        preprocessing: Some(preprocessing.to_string()),
        dtype: Some(settings.dtype().as_str().to_owned()),
        device: Some(device),
        batch_size: Some(settings.batch_size),
        options,
        ..dataset
    }
}

/// What an evaluation found, as its report. `model` is what computed, where a model did.
///
/// # Errors
/// When the weights' files are not there any more.
pub fn evaluation(
    task: &str,
    model: Option<(&Model, &Settings, String)>,
    (metrics, classes): (Metrics, Vec<ClassScores>),
    found: TrialOutcome,
    settings: EvaluationSettings,
) -> Result<Evaluation> {
    let seconds = found.elapsed.as_secs_f64();
    let published = match &model {
        Some((_, of, _)) => published(of, &metrics, &settings),
        None => BTreeMap::new(),
    };
    let weights_sha256 = model.as_ref().map(|(model, ..)| model.weights_sha256()).transpose()?.flatten();
    Ok(Evaluation {
        task: task.to_owned(),
        model: model.as_ref().map(|(model, ..)| model.name().to_owned()),
        weights_sha256,
        run: model.map(|(.., run)| run).unwrap_or_default(),
        metrics,
        images: found.images,
        failed: found.failed,
        settings,
        versions: versions(),
        seconds,
        images_per_second: if seconds > 0.0 { found.computed as f64 / seconds } else { 0.0 },
        published,
        classes,
    })
}

/// What computed the scores.
fn versions() -> BTreeMap<String, String> {
    [("nat-infer", env!("CARGO_PKG_VERSION").to_owned()), ("hotcoco", nat_infer::eval::hotcoco_version())]
        .map(|(name, version)| (name.to_owned(), version))
        .into()
}

/// The authors' figures of a published model, in the units of the metrics.
fn published(settings: &Settings, metrics: &Metrics, run: &EvaluationSettings) -> BTreeMap<String, f64> {
    const PERCENT: f64 = 0.01;
    // What is not the model's own is not what was published.
    let Some(entry) = settings.entry().filter(|_| run.changed.is_empty()) else { return BTreeMap::new() };
    let reported = &entry.reported;
    let fraction = |percent: Option<f64>| percent.map(|percent| PERCENT * percent);
    let on = |name: &str| run.options.get(name).is_some_and(|value| *value == true);
    let figures = match metrics {
        Metrics::Classify(_) => vec![("top1", reported.top1)],
        Metrics::Detect(_) => {
            vec![("bbox.AP", fraction(reported.box_map)), ("segm.AP", fraction(reported.mask_map))]
        }
        Metrics::Segment(_) => vec![(
            "mIoU",
            fraction(match (on("multi_scale"), on("flip")) {
                (true, true) => reported.miou_multi_scale,
                (false, false) => reported.miou,
                _ => None,
            }),
        )],
        Metrics::Knn(_) | Metrics::Panoptic(_) => Vec::new(),
    };
    figures.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Takes the time of an earlier report over, where nothing was computed since.
pub fn keep_time(evaluation: &mut Evaluation, computed: usize, options: &ReportOptions) {
    let earlier = report_file(options).filter(|_| computed == 0).and_then(|path| std::fs::read(path).ok());
    let earlier = earlier.and_then(|bytes| serde_json::from_slice::<Evaluation>(&bytes).ok());
    if let Some(earlier) = earlier.filter(|earlier| earlier.run == evaluation.run) {
        (evaluation.seconds, evaluation.images_per_second) = (earlier.seconds, earlier.images_per_second);
    }
}

/// Writes a report where it is asked for: the report itself, its page, which `page` makes, and the record.
///
/// # Errors
/// When something can't be written.
pub fn write(
    evaluation: &Evaluation,
    options: &ReportOptions,
    page: impl FnOnce() -> Result<String>,
    verbosity: Verbosity,
) -> Result<()> {
    let file = report_file(options);
    let format = options.format.or_else(|| file.and_then(ReportFormat::of_extension)).unwrap_or(
        if file.is_none() && io::stdout().is_terminal() { ReportFormat::Table } else { ReportFormat::Json },
    );
    let text = match format {
        ReportFormat::Table => table(evaluation, options.per_class),
        ReportFormat::Markdown => markdown(evaluation, options.per_class),
        ReportFormat::Json => serde_json::to_string_pretty(evaluation)? + "\n",
    };
    let mut places: Vec<PathBuf> = Vec::new();
    if let (Some(path), Some(measured)) = (&options.record, Measured::of(evaluation)) {
        measured::append(path, &measured)?;
        places.push(path.clone());
    }
    match file {
        Some(path) => {
            put(path, &text)?;
            places.push(path.to_owned());
        }
        None => print(text)?,
    }
    if let Some(folder) = &options.report {
        let path = folder.join(PAGE);
        let made = std::fs::create_dir_all(folder);
        made.with_context(|| format!("{}: can't be made", name_of(folder))).or_failed()?;
        put(&path, &page()?)?;
        places.push(path);
    }
    if !places.is_empty() && !verbosity.quiet {
        let places: Vec<String> = places.iter().map(|path| name_of(path)).collect();
        say(&format!("report in {}", places.join(", ")));
    }
    Ok(())
}

/// Writes a file, whole or not at all.
fn put(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let mut file = NewFile::create(path)?;
        file.write_all(text.as_bytes())?;
        file.keep()
    };
    write().with_context(|| format!("{}: can't be written", name_of(path))).or_failed()
}
