//! Images through a task: what every command on images has in common.

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
use super::folder::Folder;
use super::images::{self, ImageOptions};
use super::interrupt;
use super::output::{End, OutputPlan};
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
    #[arg(long, requires = "output", conflicts_with = "overwrite")]
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
    plan: OutputPlan,
    folder: Option<Folder>,
    draws: bool,
    reader: Reader,
    verbosity: Verbosity,
}

impl Job {
    /// Names the images, and decides what is written where. `read` are the other files that the command reads. Breaks
    /// with the exit status where there is nothing to compute.
    ///
    /// # Errors
    /// When options contradict each other, or something would be lost.
    pub fn plan<R: Record>(
        images: &ImageOptions,
        results: &ResultOptions,
        save: Option<Save>,
        read: &[Option<&Path>],
        verbosity: Verbosity,
    ) -> Result<ControlFlow<Exit, Self>> {
        let mut sources = images.list(verbosity)?;
        let list = images.files_from.as_deref();
        let read: Vec<&Path> = read.iter().copied().flatten().chain(list).collect();
        if let Some(Save { folder, extensions, .. }) = &save {
            folder.plan(extensions, &mut sources, &read, &results.output)?;
        }
        let inputs = images::files(&sources).chain(read);
        let mut plan = OutputPlan::new::<R>(&results.output, results.resume, save.is_some(), inputs)?;
        images.take_share(&mut sources);
        let finished = if results.resume { plan.resume::<R>(&mut sources)? } else { Vec::new() };
        if let Some(Save { folder, extensions, .. }) = &save {
            folder.warn_of_missing(extensions, &finished);
        }
        let before = finished.len();
        let no_image = !sources.iter().any(Result::is_ok);
        if no_image {
            return Ok(ControlFlow::Break(plan.end_without_images::<R>(&sources, before, verbosity)?));
        }
        let draws = save.as_ref().is_some_and(|save| save.draws);
        let folder = save.map(|save| save.folder.clone());
        let reader = Reader::new(images.exif.into(), Limits::default());
        Ok(ControlFlow::Continue(Self { sources, before, plan, folder, draws, reader, verbosity }))
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
        mut record: impl FnMut(&Source, Answer<T::Output>) -> Result<R, TaskError>,
    ) -> Result<Exit> {
        let Self { sources, before, plan, folder, draws, reader, verbosity } = self;
        folder.as_ref().map_or(Ok(()), Folder::make)?;
        let stop = interrupt::catch()?;
        let mut output = plan.open::<R>(Some(task.model().name()))?;
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
                Ok(record) => match progress.suspend(|| output.write(&record)) {
                    Ok(()) => progress.done(),
                    Err(error) => ended = Some(error),
                },
                Err(failure) => {
                    progress.failed(&failure.to_string());
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
        let mut exit = match (end, progress.has_failed()) {
            (End::Early, _) => Exit::Interrupted,
            (_, true) => Exit::Failed,
            (_, false) => Exit::Success,
        };
        let reader_left = ended.as_ref().is_some_and(is_broken_pipe);
        let mut place = Vec::new();
        match output.finish(end) {
            Ok(results) => place.extend(results),
            Err(error) => ended = ended.or(Some(error)),
        }
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
        Ok(exit)
    }
}

/// Whether what one image met is waiting for the others too.
fn concerns_all(failure: &Failure) -> bool {
    match failure {
        Failure::DeviceLost { .. } => true,
        Failure::Task { error, .. } => {
            matches!(&**error, TaskError::Write { error, .. } if files::concerns_all(error))
        }
        _ => false,
    }
}

impl OutputPlan {
    /// Ends a run in which no image is left: reports what gave none.
    fn end_without_images<R: Record>(
        self,
        sources: &[Result<Source, SourceError>],
        before: usize,
        verbosity: Verbosity,
    ) -> Result<Exit> {
        let mut progress = Progress::new(sources.len() + before, before, 1, verbosity);
        for error in sources.iter().filter_map(|source| source.as_ref().err()) {
            progress.failed(&error.to_string());
        }
        let end = if sources.is_empty() || before > 0 { End::Complete } else { End::Nothing };
        let place = match self.finished_before() {
            Some(place) => Some(place),
            None => self.open::<R>(None)?.finish(end)?,
        };
        let exit = if progress.has_failed() { Exit::Failed } else { Exit::Success };
        progress.finish(false, place.as_slice());
        Ok(exit)
    }
}
