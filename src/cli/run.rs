//! Images through a task: what every command on images has in common.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use nat_infer::crash::panic_message;
use nat_infer::images::{Limits, Reader};
use nat_infer::pipeline::{Answer, Failure, Pipeline, PipelineOptions, Source, SourceError, Times};
use nat_infer::tasks::{ImageTask, TaskError, files};

use super::exit::{self, Exit, Failed, is_broken_pipe};
use super::export::{ExportRun, Exports};
use super::folder::Folder;
use super::images::{self, ImageOptions};
use super::interrupt;
use super::output::{End, Output, OutputPlan};
use super::progress::{Progress, time};
use super::record::Record;
use super::settings::Settings;
use super::shared::OutputOptions;
use super::verbosity::Verbosity;

/// How results of images are written, and where.
#[derive(Args)]
#[command(next_help_heading = "Results")]
pub struct ResultOptions {
    #[command(flatten)]
    pub output: OutputOptions,
    /// Go on with what an interrupted run left in PATH.partial: images in it are not computed again (jsonl, csv)
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
}

/// What a run leaves beside its records.
pub struct Save<'a> {
    /// Where.
    pub folder: &'a Folder,
    /// The files for each image.
    pub extensions: &'a [&'a str],
    /// Whether images are drawn on.
    pub draws: bool,
}

/// A run that is planned: nothing is loaded, made or written yet.
pub struct Job {
    sources: Vec<Result<Source, SourceError>>,
    /// Images that an earlier run finished.
    before: usize,
    plan: Option<OutputPlan>,
    folder: Option<Folder>,
    draws: bool,
    reader: Reader,
    verbosity: Verbosity,
}

/// Where what comes of images goes, one after the other.
pub trait Keep<R> {
    /// Takes what came of an image, and sends it on.
    ///
    /// # Errors
    /// When it can't be written, or is not what an interrupted run had: then the run ends.
    fn keep(&mut self, result: &R) -> Result<()>;

    /// Ends, and says where all of it is.
    ///
    /// # Errors
    /// When the last bytes can't be written.
    fn end(self, end: End) -> Result<Option<String>>;
}

/// Records are written, if they are.
impl<R: Record> Keep<R> for Option<Output> {
    fn keep(&mut self, result: &R) -> Result<()> {
        self.as_mut().map_or(Ok(()), |output| output.write(result))
    }

    fn end(self, end: End) -> Result<Option<String>> {
        Ok(self.map(|output| output.finish(end)).transpose()?.flatten())
    }
}

/// Records of images that datasets have too. These end first: a run whose records are all there has left nothing to do.
struct Exporting<'a> {
    output: Option<Output>,
    exports: &'a RefCell<Exports>,
    verbosity: Verbosity,
}

impl<R: Record> Keep<R> for Exporting<'_> {
    fn keep(&mut self, result: &R) -> Result<()> {
        self.output.keep(result)
    }

    fn end(self, end: End) -> Result<Option<String>> {
        let Self { output, exports, verbosity } = self;
        let ended = exports.borrow_mut().finish(end != End::Early, verbosity);
        let place = Keep::<R>::end(output, if ended.is_ok() { end } else { End::Early })?;
        ended.map(|()| place)
    }
}

impl Job {
    /// Names the images, and decides what is written where, for `exports` too. `read` are the other files that the command
    /// reads. Breaks with the exit status where there is nothing to compute.
    ///
    /// # Errors
    /// When options contradict each other, or something would be lost.
    pub fn plan<R: Record>(
        images: &ImageOptions,
        results: &ResultOptions,
        save: Option<Save>,
        mut exports: Option<&mut Exports>,
        read: &[Option<&Path>],
        verbosity: Verbosity,
    ) -> Result<ControlFlow<Exit, Self>> {
        let mut sources = images.list(verbosity)?;
        let list = images.files_from.as_deref();
        let read: Vec<&Path> = read.iter().copied().flatten().chain(list).collect();
        // Before the names of --save are made of those that the images have.
        if let Some(exports) = &mut exports {
            let OutputOptions { output, overwrite, .. } = &results.output;
            let (output, overwrite, resume) = (output.as_deref(), *overwrite, results.resume);
            exports
                .plan(&sources, &ExportRun { read: &read, output, shard: images.shard, overwrite, resume })?;
        }
        if let Some(Save { folder, extensions, .. }) = &save {
            folder.plan(extensions, &mut sources, &read, &results.output)?;
        }
        let inputs = images::files(&sources).chain(read);
        let leaves_files = save.is_some() || exports.as_ref().is_some_and(|exports| !exports.is_empty());
        let mut plan = OutputPlan::new::<R>(&results.output, results.resume, leaves_files, inputs)?;
        images.take_share(&mut sources);
        let finished = if results.resume { plan.resume::<R>(&mut sources)? } else { Vec::new() };
        if let Some(Save { folder, extensions, .. }) = &save {
            folder.warn_of_missing(extensions, &finished);
        }
        if let Some(exports) = exports {
            exports.left(&sources, &finished, plan.is_resumable())?;
        }
        let before = finished.len();
        let no_image = !sources.iter().any(Result::is_ok);
        if no_image {
            let exit = without_images(&sources, before, verbosity, |end| match plan.finished_before() {
                Some(place) => Ok(Some(place)),
                None => plan.open::<R>(None)?.finish(end),
            })?;
            return Ok(ControlFlow::Break(exit));
        }
        let draws = save.as_ref().is_some_and(|save| save.draws);
        let folder = save.map(|save| save.folder.clone());
        let reader = Reader::new(images.exif.into(), Limits::default());
        let plan = Some(plan);
        Ok(ControlFlow::Continue(Self { sources, before, plan, folder, draws, reader, verbosity }))
    }

    /// A run over images that are listed already, of which an earlier run finished `before` others. With a plan its records
    /// are written.
    pub fn of(
        sources: Vec<Result<Source, SourceError>>,
        before: usize,
        plan: Option<OutputPlan>,
        reader: Reader,
        verbosity: Verbosity,
    ) -> Self {
        Self { sources, before, plan, folder: None, draws: false, reader, verbosity }
    }

    /// Does the images, each through `record`, which saves what is to be saved and makes the record. What concerns one
    /// image is reported and the others are done; Ctrl-C, and what concerns them all, ends the run, and what is finished
    /// is kept.
    ///
    /// # Errors
    /// When the results can't be begun.
    pub fn run<T: ImageTask, R: Record>(
        self,
        task: &Arc<T>,
        settings: &Settings,
        record: impl FnMut(&Source, Answer<T::Output>) -> Result<R, TaskError>,
    ) -> Result<Exit> {
        Ok(self.watched(task, settings, record, |_, _| {})?.exit)
    }

    /// The same, of a run whose `record` adds to datasets.
    ///
    /// # Errors
    /// When the results can't be begun.
    pub fn exported<T: ImageTask, R: Record>(
        self,
        task: &Arc<T>,
        settings: &Settings,
        exports: &RefCell<Exports>,
        record: impl FnMut(&Source, Answer<T::Output>) -> Result<R, TaskError>,
    ) -> Result<Exit> {
        let Self { plan, verbosity, .. } = self;
        let open = || -> Result<Exporting> {
            let output = plan.map(|plan| plan.open::<R>(Some(task.model().name()))).transpose()?;
            Ok(Exporting { output, exports, verbosity })
        };
        Ok(Self { plan: None, ..self }.kept(task, settings, open, record, |_, _| {})?.exit)
    }

    /// The same, with each failure told to `failed`: what failed, and why.
    ///
    /// # Errors
    /// When the results can't be begun.
    pub fn watched<T: ImageTask, R: Record>(
        self,
        task: &Arc<T>,
        settings: &Settings,
        record: impl FnMut(&Source, Answer<T::Output>) -> Result<R, TaskError>,
        failed: impl FnMut(&Result<Source, SourceError>, &Failure),
    ) -> Result<Ended> {
        let Self { plan, .. } = self;
        let open = || plan.map(|plan| plan.open::<R>(Some(task.model().name()))).transpose();
        Self { plan: None, ..self }.kept(task, settings, open, record, failed)
    }

    /// The same without records: what comes of the images goes where `open` says.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn kept<T: ImageTask, R, K: Keep<R>>(
        self,
        task: &Arc<T>,
        settings: &Settings,
        open: impl FnOnce() -> Result<K>,
        mut record: impl FnMut(&Source, Answer<T::Output>) -> Result<R, TaskError>,
        mut failed: impl FnMut(&Result<Source, SourceError>, &Failure),
    ) -> Result<Ended> {
        let Self { sources, before, folder, draws, reader, verbosity, .. } = self;
        folder.as_ref().map_or(Ok(()), Folder::make)?;
        let stop = interrupt::catch()?;
        let mut output = open()?;
        let sources: Arc<[_]> = sources.into();
        let mut progress = Progress::new(sources.len() + before, before, task.steps(), verbosity);
        let mut options = PipelineOptions::default();
        options.batch_size = settings.batch_size;
        options.reader = reader;
        options.fetch = Some(settings.fetch());
        options.keep_pictures = draws;
        options.stop = Arc::clone(&stop);
        let readers = options.readers;
        let pipeline = Pipeline::new(Arc::clone(task), Arc::clone(&sources), options);
        let mut pipeline = pipeline.context("can't start a thread")?.on_step(progress.stepper());
        let begun = Instant::now();
        let (mut saving, mut ended) = (Duration::ZERO, None);
        for done in &mut pipeline {
            let begin = Instant::now();
            // Only what became of a source is given out.
            let result = done.result.and_then(|answer| {
                let source = sources[done.index].as_ref().map_err(Clone::clone)?;
                let failed = |error| Failure::Task { name: source.name(), error: Box::new(error) };
                // Drawing may crash on an image as decoding may.
                match panic::catch_unwind(AssertUnwindSafe(|| record(source, answer))) {
                    Ok(record) => record.map_err(failed),
                    Err(crash) => {
                        Err(Failure::Crash { name: source.name(), message: panic_message(&*crash) })
                    }
                }
            });
            saving += begin.elapsed();
            match result {
                Ok(record) => match progress.suspend(|| output.keep(&record)) {
                    Ok(()) => progress.done(),
                    Err(error) => ended = Some(error),
                },
                Err(failure) => {
                    progress.failed(&failure.to_string());
                    failed(&sources[done.index], &failure);
                    if concerns_all(&failure) {
                        ended = Some(Failed(anyhow!("no other image can be done either")).into());
                    }
                }
            }
            if ended.is_some() {
                break;
            }
        }
        let times = pipeline.times();
        drop(pipeline);
        let complete = progress.tried() == sources.len();
        let end = match (complete && ended.is_none(), progress.is_empty() && progress.has_failed()) {
            (false, _) => End::Early,
            (true, true) => End::Nothing,
            (true, false) => End::Complete,
        };
        let done = progress.tried();
        let mut exit = match (end, progress.has_failed()) {
            (End::Early, _) => Exit::Interrupted,
            (_, true) => Exit::Failed,
            (_, false) => Exit::Success,
        };
        let reader_left = ended.as_ref().is_some_and(is_broken_pipe);
        let mut place = Vec::new();
        match output.end(end) {
            Ok(results) => place.extend(results),
            Err(error) => ended = ended.or(Some(error)),
        }
        let elapsed = begun.elapsed();
        // What could not be written is not there, however many images were tried.
        let complete = end != End::Early && ended.is_none();
        if let Some(error) = ended {
            exit = progress.suspend(|| exit::report(&error));
        }
        place.extend(
            folder.filter(|_| !progress.is_empty()).map(|folder| format!("files in {}", folder.name())),
        );
        if !reader_left {
            progress.finish(end == End::Early, &place);
        }
        let Times { read, prepare, compute, wait, .. } = times;
        let [read, prepare, compute, wait, saving] = [read, prepare, compute, wait, saving].map(time);
        verbosity
            .explain("time", format!("{read} to read and {prepare} to prepare images, on {readers} threads"));
        verbosity
            .explain("", format!("{compute} to compute, {saving} to save; {wait} spent waiting for images"));
        Ok(Ended { exit, complete, done, elapsed })
    }
}

/// How a run ended.
pub struct Ended {
    /// The status that the program ends with.
    pub exit: Exit,
    /// Whether every image was tried, and every record written.
    pub complete: bool,
    /// Images that were tried.
    pub done: usize,
    /// How long it took.
    pub elapsed: Duration,
}

/// Whether what one image met is waiting for the others too.
fn concerns_all(failure: &Failure) -> bool {
    match failure {
        Failure::DeviceLost { .. } => true,
        Failure::Task { error, .. } => match &**error {
            TaskError::Write { error, .. } => files::concerns_all(error),
            TaskError::Truth { for_all, .. } => *for_all,
            _ => false,
        },
        _ => false,
    }
}

/// Ends a run in which no image is left, of which `before` were done by an earlier one: reports what gave none, and says
/// where `end` says that the results are.
///
/// # Errors
/// Those of `end`.
pub fn without_images(
    sources: &[Result<Source, SourceError>],
    before: usize,
    verbosity: Verbosity,
    end: impl FnOnce(End) -> Result<Option<String>>,
) -> Result<Exit> {
    let mut progress = Progress::new(sources.len() + before, before, 1, verbosity);
    for error in sources.iter().filter_map(|source| source.as_ref().err()) {
        progress.failed(&error.to_string());
    }
    let place = end(if sources.is_empty() || before > 0 { End::Complete } else { End::Nothing })?;
    let exit = if progress.has_failed() { Exit::Failed } else { Exit::Success };
    progress.finish(false, place.as_slice());
    Ok(exit)
}
