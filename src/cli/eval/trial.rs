//! A model over a dataset: planned, resumed, run, and added up.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nat_infer::images::Reader;
use nat_infer::pipeline::partial::{Partial, partial_path};
use nat_infer::pipeline::{Answer, Source, SourceError, name_of};
use nat_infer::results::{FailedImage, ShardNumber};
use nat_infer::tasks::files::NewFile;
use nat_infer::tasks::{ImageTask, TaskError};

use super::super::exit::{Exit, OrFailed, say};
use super::super::images::files;
use super::super::output::{End, OutputPlan, claimed, jsonl};
use super::super::run::{Ended, Job};
use super::super::settings::Settings;
use super::super::shared::{OutputFormat, OutputOptions};
use super::super::verbosity::Verbosity;
use super::options::{ReportFormat, ReportOptions};
use super::score::{ImageRecord, Score};

/// Where the records of a report's images are: `report.images.jsonl` beside `report.json`, and beside any other name that
/// name with `.images.jsonl`.
pub fn records_path(report: &Path) -> PathBuf {
    match ReportFormat::of_extension(report) {
        Some(_) => report.with_extension("images.jsonl"),
        None => {
            let mut name = report.as_os_str().to_owned();
            name.push(".images.jsonl");
            name.into()
        }
    }
}

/// The file of a report, if it is one.
pub fn report_file(options: &ReportOptions) -> Option<&Path> {
    options.output.as_deref().filter(|path| *path != Path::new("-"))
}

/// A run over a dataset that is planned: nothing is computed or written yet.
pub struct Trial {
    /// All images of the run.
    images: Vec<Result<Source, SourceError>>,
    /// Those that are to be computed.
    left: Vec<Result<Source, SourceError>>,
    before: usize,
    plan: Option<OutputPlan>,
    records: Option<PathBuf>,
    /// What decides what is found.
    run: String,
    reader: Reader,
    verbosity: Verbosity,
}

/// What a run over a dataset found.
pub struct TrialOutcome {
    /// The status that the program ends with.
    pub exit: Exit,
    /// Images that count.
    pub images: usize,
    /// Those without an answer, by name.
    pub failed: Vec<FailedImage>,
    /// How many were computed in this run.
    pub computed: usize,
    /// How long that took.
    pub elapsed: Duration,
}

impl TrialOutcome {
    /// What was found by somebody else: nothing was computed.
    pub fn of_predictions(images: usize, failed: Vec<FailedImage>) -> Self {
        let exit = if failed.is_empty() { Exit::Success } else { Exit::Failed };
        Self { exit, images, failed, computed: 0, elapsed: Duration::ZERO }
    }
}

impl Trial {
    /// Plans a run over `images`, or a shard of it, and takes out what an interrupted one finished that was the same `run`, by
    /// what `score` says of it now. `read` are the other files that the command reads.
    ///
    /// # Errors
    /// When an image is there twice, something would be lost, or there is nothing to go on with.
    pub fn plan<S: Score>(
        score: &S,
        images: Vec<Result<Source, SourceError>>,
        (run, shard): (&str, Option<ShardNumber>),
        (options, resume): (&ReportOptions, bool),
        reader: Reader,
        read: &[Option<&Path>],
        verbosity: Verbosity,
    ) -> Result<Self> {
        let run = shard_run(run, shard);
        let mut names = HashSet::new();
        if let Some(twice) =
            images.iter().flatten().map(Source::name).find(|name| !names.insert(name.clone()))
        {
            bail!("{twice}: is there twice; an image counts once");
        }
        let records = report_file(options).map(records_path);
        let (mut left, mut before, mut plan) = (images.clone(), 0, None);
        if let Some(path) = &records {
            let to = OutputOptions {
                format: Some(OutputFormat::Jsonl),
                output: Some(path.clone()),
                overwrite: options.overwrite,
            };
            let inputs = files(&images).chain(read.iter().copied().flatten());
            // Beside a report stand its own records, be there none.
            let mut planned = OutputPlan::new::<S::Record>(&to, resume, false, inputs)?.kept_empty();
            if resume {
                let images = shard.map(|_| &names);
                if (Refresh { score, run: &run, images, quiet: verbosity.quiet }).of(path)? {
                    before = planned.resume::<S::Record>(&mut left)?.len();
                }
            }
            plan = Some(planned);
        }
        Ok(Self { images, left, before, plan, records, run, reader, verbosity })
    }

    /// Computes the images through `record`, and adds them up. Breaks with the exit status where the run ended early;
    /// what is finished is kept then.
    ///
    /// # Errors
    /// When the records can't be written or read.
    pub fn run<T: ImageTask, S: Score>(
        self,
        task: &Arc<T>,
        settings: &Settings,
        score: &mut S,
        mut record: impl FnMut(&Source, Answer<T::Output>) -> Result<S::Record, TaskError>,
    ) -> Result<ControlFlow<Exit, TrialOutcome>> {
        let Self { images, left, before, plan, records, run, reader, verbosity } = self;
        let mut why: HashMap<String, String> = HashMap::new();
        let mut seen = HashSet::new();
        let mut problem = None;
        let ended = if left.iter().any(Result::is_ok) {
            let job = Job::of(left, before, plan, reader, verbosity);
            job.watched(
                task,
                settings,
                |source, answer| {
                    let record = record(source, answer)?;
                    if records.is_none() && problem.is_none() {
                        seen.insert(source.name());
                        problem = score.add(record.clone()).err();
                    }
                    Ok(record)
                },
                |image, failure| {
                    why.insert(key(image), failure.to_string());
                },
            )?
        } else {
            // What is finished may have no name yet.
            if let Some(plan) = plan.filter(|plan| plan.finished_before().is_none()) {
                plan.open::<S::Record>(Some(task.model().name()))?.finish(End::Complete)?;
            }
            left.iter().filter_map(|image| image.as_ref().err()).for_each(|error| {
                say(&error.to_string());
                why.insert(error.to_string(), error.to_string());
            });
            let exit = if left.is_empty() { Exit::Success } else { Exit::Failed };
            Ended { exit, complete: true, done: 0, elapsed: Duration::ZERO }
        };
        if let Some(problem) = problem {
            return Err(problem);
        }
        if !ended.complete {
            return Ok(ControlFlow::Break(ended.exit));
        }
        if let Some(path) = records.filter(|path| path.is_file()) {
            let known: HashSet<String> = images.iter().flatten().map(Source::name).collect();
            each_record::<S::Record>(&path, &run, |record| {
                match known.contains(record.image()) && seen.insert(record.image().to_owned()) {
                    true => score.add(record),
                    false => Ok(()),
                }
            })?;
        }
        let mut failed = Vec::new();
        for (image, number) in images.iter().zip(0..) {
            let name = key(image);
            if !seen.contains(&name) {
                let error = why.remove(&name).unwrap_or_else(|| "no answer".to_owned());
                let image = image.as_ref().map_or_else(|error| error.name().to_owned(), Source::name);
                let error = error.strip_prefix(&format!("{image}: ")).unwrap_or(&error).to_owned();
                let mut one = FailedImage { image, error, ..FailedImage::default() };
                score.add_failed(number, &mut one)?;
                failed.push(one);
            }
        }
        // Of shards the order is another one.
        failed.sort_by(|a, b| a.image.cmp(&b.image));
        let Ended { exit, done, elapsed, .. } = ended;
        let exit = if failed.is_empty() { exit } else { Exit::Failed };
        Ok(ControlFlow::Continue(TrialOutcome {
            exit,
            images: images.len(),
            failed,
            computed: done,
            elapsed,
        }))
    }
}

/// What an image is known by: its name, or what is said where it is nowhere.
fn key(image: &Result<Source, SourceError>) -> String {
    image.as_ref().map_or_else(ToString::to_string, Source::name)
}

/// What the records of a run say that is a shard of `run`.
pub fn shard_run(run: &str, shard: Option<ShardNumber>) -> String {
    shard.map_or_else(|| run.to_owned(), |shard| format!("{run} {}/{}", shard.index, shard.count))
}

/// What is said where records are of another run.
const OTHER_RUN: &str =
    "is of another run: weights, settings, names of classes or categories, the shard or the program differ";

/// What records of an earlier run are compared with.
struct Refresh<'a, S> {
    score: &'a S,
    run: &'a str,
    /// The images of a shard, which counts no others.
    images: Option<&'a HashSet<String>>,
    quiet: bool,
}

impl<S: Score> Refresh<'_, S> {
    /// Brings what an interrupted or finished run left for `path` up to date, and says whether there is something to go on
    /// with: records that the dataset says something else of now are corrected, and those are taken out that have to be
    /// computed again. What is finished stays where it is until the run ends.
    ///
    /// # Errors
    /// When they are of another run, another process is at them, or they can't be read or written.
    fn of(&self, path: &Path) -> Result<bool> {
        let claim = claimed(path, Partial::claim(path, ""))?;
        let partial = partial_path(path);
        let file = if claim.length() > 0 { partial.clone() } else { path.to_owned() };
        if !file.is_file() {
            return Ok(true);
        }
        let [mut same, mut changed, mut gone] = [0; 3];
        self.each(&file, |_, line| {
            match line {
                Refreshed::Same => same += 1,
                Refreshed::Changed(_) => changed += 1,
                Refreshed::Gone => gone += 1,
            }
            Ok(())
        })?;
        if gone > 0 && !self.quiet {
            let name = name_of(&file);
            say(&format!(
                "{name}: the annotations of {gone} images have changed since; they are computed again"
            ));
        }
        if same + changed == 0 {
            return Ok(gone == 0);
        }
        if changed + gone == 0 {
            return Ok(true);
        }
        let write = || {
            let mut new = NewFile::create(if gone > 0 { &partial } else { &file })?;
            self.each(&file, |text, line| match line {
                Refreshed::Same => Ok(new.write_all(text)?),
                Refreshed::Changed(record) => Ok(new.write_all(jsonl(&record)?.as_bytes())?),
                Refreshed::Gone => Ok(()),
            })?;
            // A file that is open can't be replaced everywhere.
            drop(claim);
            anyhow::Ok(new.keep()?)
        };
        write().with_context(|| format!("{}: can't be brought up to date", name_of(&file))).or_failed()?;
        Ok(true)
    }

    /// Gives each line of a file of records to `each`, with what becomes of it.
    fn each(
        &self,
        file: &Path,
        mut each: impl FnMut(&[u8], Refreshed<S::Record>) -> Result<()>,
    ) -> Result<()> {
        let named = || name_of(file);
        let mut reader = BufReader::new(File::open(file).with_context(named)?);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).with_context(named)? > 0 {
            let refreshed = match serde_json::from_slice::<S::Record>(&line) {
                Ok(record) if record.run() != self.run => {
                    bail!("{}: {OTHER_RUN}; --overwrite without --resume begins anew", named())
                }
                Ok(record) if self.images.is_some_and(|images| !images.contains(record.image())) => {
                    Refreshed::Gone
                }
                Ok(record) => match self.score.as_of_now(record.clone()) {
                    Some(now) if now == record => Refreshed::Same,
                    Some(now) => Refreshed::Changed(now),
                    None => Refreshed::Gone,
                },
                // What is cut, or no record, is told of where it is gone on with.
                Err(_) => Refreshed::Same,
            };
            each(&line, refreshed)?;
            line.clear();
        }
        Ok(())
    }
}

/// What becomes of a line of records.
enum Refreshed<R> {
    /// It is as it was.
    Same,
    /// The dataset says something else of its image now.
    Changed(R),
    /// Its image is computed again, or is of another shard now.
    Gone,
}

/// Gives each record of a file to `each`.
///
/// # Errors
/// When the file can't be read, a line is no such record or of another `run`, or `each` fails.
pub fn each_record<R: ImageRecord>(
    path: &Path,
    run: &str,
    mut each: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    let file = File::open(path).with_context(|| name_of(path)).or_failed()?;
    for (line, number) in BufReader::new(file).lines().zip(1..) {
        let line = line.with_context(|| name_of(path)).or_failed()?;
        match serde_json::from_str::<R>(&line) {
            Ok(record) if record.run() != run => bail!("{}: line {number} {OTHER_RUN}", name_of(path)),
            Ok(record) => each(record)?,
            Err(_) => bail!("{}: line {number} is no record of this evaluation", name_of(path)),
        }
    }
    Ok(())
}
