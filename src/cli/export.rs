//! `--export FORMAT DIR`: what was found, as datasets for labelling and training.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use nat_infer::export::{
    Dataset, DatasetPlan, ExportClass, ExportError, ExportFormat, ImageLabels, ImagePlace, Labelled,
    LabelledWith,
};
use nat_infer::pipeline::{Location, Source, SourceError, name_of};
use nat_infer::tasks::TaskError;

use super::exit::{OrFailed, say};
use super::folder::whole_path;
use super::images::{self, Shard};
use super::verbosity::Verbosity;

/// Datasets of the results.
#[derive(Args)]
#[command(next_help_heading = "Results")]
pub struct ExportOptions {
    /// Write what was found as a dataset too, to a folder that is made if need be: coco, yolo, voc, labelme or label-studio,
    /// the last alone of what `classify` finds; may be given several times. Images are not copied. Nothing that is there is replaced without --overwrite: it may have
    /// been corrected by hand
    #[arg(long, num_args = 2, value_names = ["FORMAT", "DIR"])]
    export: Vec<PathBuf>,
}

/// The datasets of a run, and what they call its images.
pub struct Exports {
    plans: Vec<DatasetPlan>,
    with: LabelledWith,
    /// The places of images by their names.
    places: HashMap<String, ImagePlace>,
    /// Those that an earlier run finished.
    finished: Vec<ImagePlace>,
    datasets: Vec<Dataset>,
    /// Whether what an interruption leaves can be gone on with.
    resumable: bool,
}

impl ExportOptions {
    /// The datasets that are asked for.
    ///
    /// # Errors
    /// When a format is none, can't hold what images are labelled `with`, or two would be in one folder.
    pub fn exports(&self, with: LabelledWith) -> Result<Exports> {
        let mut plans: Vec<DatasetPlan> = Vec::new();
        for pair in self.export.chunks_exact(2) {
            let names: Vec<&str> = ExportFormat::ALL
                .into_iter()
                .filter(|format| format.holds(with))
                .map(ExportFormat::name)
                .collect();
            let format = pair[0].to_str().and_then(ExportFormat::named).filter(|format| format.holds(with));
            let Some(format) = format else {
                let what = if with == LabelledWith::Choices { "classes of images" } else { "datasets" };
                bail!("--export {}: {what} are written as {}", name_of(&pair[0]), names.join(", "));
            };
            if plans.iter().any(|plan| plan.folder == pair[1] && plan.format == format) {
                bail!("--export {} {} is asked for twice", format.name(), name_of(&pair[1]));
            }
            plans.push(DatasetPlan::new(format, &pair[1]));
        }
        Ok(Exports {
            plans,
            with,
            places: HashMap::new(),
            finished: Vec::new(),
            datasets: Vec::new(),
            resumable: false,
        })
    }
}

/// What of a run decides what becomes of a dataset's files.
pub struct ExportRun<'a> {
    /// Other files that the run reads.
    pub read: &'a [&'a Path],
    /// The file of its records.
    pub output: Option<&'a Path>,
    /// `--shard`.
    pub shard: Option<Shard>,
    /// `--overwrite`.
    pub overwrite: bool,
    /// `--resume`.
    pub resume: bool,
}

impl Exports {
    /// Whether none is asked for.
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// Names the images, and sees to it that nothing is lost. Nothing is made yet.
    ///
    /// # Errors
    /// When two images would share a file, or a file would replace one that may not be.
    pub fn plan(&mut self, list: &[Result<Source, SourceError>], run: &ExportRun) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        for plan in &mut self.plans {
            (plan.overwrite, plan.resume) = (run.overwrite, run.resume);
            plan.share = run.shard.map_or([1, 1], |shard| [shard.index(), shard.count()]);
        }
        let sources: Vec<&Source> = list.iter().flatten().collect();
        let mut places: Vec<ImagePlace> =
            sources.iter().map(|source| place(source, source.below.clone())).collect();
        // Of files that were named themselves only the names are below anything.
        for i in shared(&sources, &places, |place| place.file_name.clone()).into_iter().flatten() {
            places[i].file_name = whole_path(sources[i], false);
        }
        let mut taken: HashMap<PathBuf, &DatasetPlan> = HashMap::new();
        for plan in &self.plans {
            let call =
                |plan: &DatasetPlan| format!("--export {} {}", plan.format.name(), name_of(&plan.folder));
            plan.tells_apart(&places)
                .map_err(|error| anyhow!("{}: {error}; export them apart", call(plan)))?;
            let files = places.iter().map(|place| plan.file(place)).chain(plan.other_files());
            let files: HashSet<PathBuf> = files.map(|file| absolute(&file)).collect();
            if let Some(output) = run.output.filter(|output| files.contains(&absolute(output))) {
                bail!("{} would be a dataset's file and --output; use another name for one", name_of(output));
            }
            for file in &files {
                if let Some(other) = taken.insert(file.clone(), plan) {
                    let [a, b] = [other, plan].map(call);
                    bail!("{} would be a file of {a} and of {b}; use another folder for one", name_of(file));
                }
            }
            if !(plan.overwrite || plan.resume) {
                continue;
            }
            let there: HashSet<PathBuf> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
            let is_there = |path: &&Path| path.canonicalize().is_ok_and(|path| there.contains(&path));
            if let Some(read) = images::files(list).chain(run.read.iter().copied()).find(is_there) {
                bail!(
                    "{} is read by this run and would be replaced; use another --export folder",
                    name_of(read)
                );
            }
        }
        self.places = sources.iter().map(|source| source.name()).zip(places).collect();
        Ok(())
    }

    /// Learns which images are left, what an earlier run finished, and whether one that ends early can be gone on with. Where none
    /// is left it says what the datasets lack.
    ///
    /// # Errors
    /// When a file of an image that is left is there already.
    pub fn left(
        &mut self,
        sources: &[Result<Source, SourceError>],
        finished: &[Source],
        resumable: bool,
    ) -> Result<()> {
        self.resumable = resumable;
        let place = |source: &Source| self.places.get(&source.name());
        for plan in &self.plans {
            plan.check(sources.iter().flatten().filter_map(place)).map_err(advised)?;
        }
        self.finished = finished.iter().filter_map(place).cloned().collect();
        if !sources.iter().any(Result::is_ok) {
            self.plans.iter().for_each(|plan| warn_of_missing(plan, plan.lacks(&self.finished)));
        }
        Ok(())
    }

    /// Makes the datasets, of these classes.
    ///
    /// # Errors
    /// When one can't be made.
    pub fn open(&mut self, classes: impl FnOnce() -> Vec<ExportClass>) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let classes = classes();
        for plan in &self.plans {
            let dataset = Dataset::open(plan.clone(), classes.clone(), self.with).map_err(advised)?;
            warn_of_missing(plan, dataset.lacks(&self.finished));
            self.datasets.push(dataset);
        }
        Ok(())
    }

    /// Adds an image with what `labelled` says is on it.
    ///
    /// # Errors
    /// When that can't be said or written.
    pub fn add(
        &mut self,
        source: &Source,
        model: &str,
        size: [usize; 2],
        image_id: Option<u64>,
        labelled: impl FnOnce() -> Result<Labelled, TaskError>,
    ) -> Result<(), TaskError> {
        if self.is_empty() {
            return Ok(());
        }
        let found = self.places.get(&source.name()).cloned();
        let place = found.unwrap_or_else(|| place(source, source.below.clone()));
        let (model, labelled) = (model.to_owned(), labelled()?);
        let image = ImageLabels { place, size, image_id, model, labelled };
        self.datasets.iter_mut().try_for_each(|dataset| dataset.add(&image))
    }

    /// Ends the datasets of a run and says where they are. Those of a run that ended early stay as they are where `--resume` goes
    /// on with them.
    ///
    /// # Errors
    /// When one can't be written; the others are.
    pub fn finish(&mut self, complete: bool, verbosity: Verbosity) -> Result<()> {
        let goes_on = !complete && self.resumable;
        let mut ended = Ok(());
        for (dataset, plan) in self.datasets.drain(..).zip(&self.plans) {
            match dataset.finish(goes_on).map_err(advised) {
                Ok(Some(place)) if !verbosity.quiet => {
                    say(&format!("{} annotations in {}", plan.format.name(), name_of(&place)));
                }
                Ok(_) => {}
                Err(error) => ended = ended.and(Err(error).or_failed()),
            }
        }
        ended
    }
}

/// Says how many images that an earlier run finished are not in a dataset.
fn warn_of_missing(plan: &DatasetPlan, missing: usize) {
    if missing > 0 {
        let folder = name_of(&plan.folder);
        say(&format!(
            "warning: {missing} images that an earlier run finished have no annotations in {folder}, and get none"
        ));
    }
}

/// A model's classes as datasets list them.
pub fn classes_of(labels: &[String], category_id: impl Fn(usize) -> usize) -> Vec<ExportClass> {
    let class = |(index, name): (usize, &String)| ExportClass { id: category_id(index), name: name.clone() };
    labels.iter().enumerate().map(class).collect()
}

/// Where an image is, under the name that datasets have for it.
fn place(source: &Source, file_name: PathBuf) -> ImagePlace {
    let (path, url) = match &source.place {
        Location::File(path) => (Some(path.clone()), None),
        Location::Url(_) => (None, Some(source.name())),
        Location::Member { .. } | Location::Memory { .. } | Location::Pixels { .. } => (None, None),
    };
    ImagePlace { file_name, path, url }
}

/// The images that share something with an image of another place, in groups: an image that was named twice is one.
fn shared<K: Eq + std::hash::Hash>(
    sources: &[&Source],
    places: &[ImagePlace],
    key: impl Fn(&ImagePlace) -> K,
) -> Vec<Vec<usize>> {
    let mut groups: HashMap<K, Vec<usize>> = HashMap::new();
    for (i, place) in places.iter().enumerate() {
        groups.entry(key(place)).or_default().push(i);
    }
    let differ = |group: &Vec<usize>| group.iter().any(|i| sources[*i].place != sources[group[0]].place);
    let mut groups: Vec<_> = groups.into_values().filter(differ).collect();
    groups.sort_unstable();
    groups
}

/// A path that is the same however it was typed; where there is no current folder, as it was typed.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The library's error with the option that helps.
fn advised(error: ExportError) -> anyhow::Error {
    match error {
        ExportError::There { .. } => {
            anyhow!("{error}; use another --export folder, or --overwrite replaces it")
        }
        ExportError::Interrupted { .. } => {
            anyhow!("{error}; --resume goes on with it where --output was given, --overwrite begins anew")
        }
        ExportError::Foreign { .. } => anyhow!("{error}; use another --export folder"),
        _ => error.into(),
    }
}
