//! `nat-infer search`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use nat_infer::eval::index::FeatureIndex;
use nat_infer::eval::index_origin::IndexOrigin;
use nat_infer::eval::neighbors::{Neighbor, NeighborSearch, Vectors};
use nat_infer::images::Exif;
use nat_infer::pipeline::{Answer, name_of};
use nat_infer::results::{NearestImage, SearchResult};
use nat_infer::zoo::{self, Reference, Task};

use super::exit::{Exit, one_line};
use super::folder::Folder;
use super::images::ImageOptions;
use super::pooled::embedder;
use super::record::{Record, SIMILARITY_DIGITS};
use super::run::{Job, ResultOptions, Save};
use super::search_report::SearchReport;
use super::settings::Settings;
use super::shared::{CropOptions, ModelOptions};
use super::verbosity::Verbosity;

/// Find the images of an index that are most like others
///
/// INDEX is the features.safetensors of `nat-infer features --pooled`, with its features.txt beside it; or anybody's
/// safetensors file with a tensor `pooled`, `features` or `embeddings` of a row for each image, with names one a line
/// in the .txt of its name if there is one. Every row is compared with each query, by the cosine of the angle between
/// the two. Model, --resolution and --crop-pct are those that the index was made with; others are refused, as
/// similarities would mean nothing.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct SearchArguments {
    /// Vectors of the images to search
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// How many images to find for each query
    #[arg(short = 'k', long, value_name = "N", default_value = "5", value_parser = super::shared::at_least_one)]
    top_k: usize,
    /// Folder for search.html, one file with the queries and the images found, as small pictures; made if need be.
    /// Indexed images are looked up by their names, as they are and below the index's folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    images: ImageOptions,
    #[command(flatten)]
    crop: CropOptions,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    results: ResultOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer features photos/ -r --pooled --save index/
  nat-infer search index/features.safetensors query.jpg
  nat-infer search index/features.safetensors queries/ -k 20 --report found/
  nat-infer search embeddings.safetensors query.jpg --weights model_best.pth.tar -o nearest.csv";

/// What stands for the default model in the help.
pub const DEFAULT_MODEL: &str = "the one that INDEX names";

/// Runs the command.
pub fn run(arguments: SearchArguments, verbosity: Verbosity) -> Result<Exit> {
    let SearchArguments { index: path, images, crop, top_k, report, mut model, results } = arguments;
    let index = FeatureIndex::open(&path)?;
    let exif = images.exif.into();
    if let Some(origin) = index.origin().filter(|origin| origin.exif != exif) {
        let theirs = if origin.exif == Exif::Apply { "apply" } else { "ignore" };
        bail!("{} was made with --exif {theirs}; the queries need the same", name_of(&path));
    }
    if model.model.is_none() && model.weights.is_none() {
        model.model = Some(model_of(&index, &path)?);
    }
    if report.is_some() && results.resume {
        bail!("--report shows the queries of one run: --resume goes on without it");
    }
    let settings = Settings::resolve(model, Some(Task::Classify), verbosity)?;
    let folder = report.as_deref().map(Folder::new);
    let save = folder.as_ref().map(|folder| Save { folder, extensions: &[], draws: true });
    let names = index.names_file();
    let read = [settings.file(), Some(path.as_path()), Some(names.as_path())];
    let job = Job::plan::<SearchResult>(&images, &results, save, None, &read, verbosity)?;
    let job = match job {
        ControlFlow::Continue(job) => job,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let mut report = report.map(|folder| SearchReport::plan(&folder, exif, &results.output)).transpose()?;
    // What was asked for here comes first, and is compared below.
    let asked = |origin: &IndexOrigin| (origin.resolution, origin.crop_pct);
    let (resolution, crop_pct) = index.origin().map_or((None, None), asked);
    let (resolution, crop_pct) = (crop.resolution.or(resolution), crop.crop_pct.or(crop_pct));
    let task = Arc::new(embedder(&settings, resolution, crop_pct)?);
    verbosity.explain("input", task.crop());
    let ours = IndexOrigin::new(&task, settings.dtype(), exif, resolution, crop_pct);
    if let Some(mismatch) = index.origin().and_then(|origin| origin.mismatch(&ours)) {
        bail!("{} was made with {mismatch}: similarities between the two mean nothing", name_of(&path));
    }
    let width = task.width();
    if index.width() != width {
        let (name, model) = (name_of(&path), task.model().short_name());
        bail!(
            "{name} has vectors of {} numbers, {model} makes {width}: it is another model's",
            index.width()
        );
    }
    let search = NeighborSearch::new(index.vectors());
    let exit = job.run(&task, &settings, |image, Answer { output: vector, picture, .. }| {
        let found = search.nearest(Vectors::new(&vector, width), top_k).swap_remove(0);
        let hit = |found: Neighbor| NearestImage {
            image: index.name(found.row),
            row: found.row,
            similarity: found.similarity,
        };
        let nearest = found.into_iter().map(hit).collect();
        let (image, model) = (image.name(), task.model().name().to_owned());
        let result = SearchResult { image, model, index: name_of(&path), nearest };
        if let Some(report) = &mut report {
            report.add(&result, picture.as_ref(), &index);
        }
        Ok(result)
    })?;
    report.map_or(Ok(()), |report| report.write(&index, &path, task.model().name()))?;
    Ok(exit)
}

/// The model that an index was made with.
///
/// # Errors
/// When it does not say one that can be had by its name.
fn model_of(index: &FeatureIndex, path: &Path) -> Result<Reference> {
    let name = name_of(path);
    let Some(origin) = index.origin() else {
        bail!("{name} does not say which model made it; --model or --weights does");
    };
    match zoo::find(&origin.model) {
        Ok(entry) => Ok(Reference::Entry(entry)),
        Err(_) => bail!("{name} was made with `{}`; --model or --weights says where that is", origin.model),
    }
}

impl Record for SearchResult {
    const COLUMNS: &'static [&'static str] =
        &["image", "model", "index", "rank", "nearest", "row", "similarity"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |(rank, found): (usize, &NearestImage)| {
            vec![
                self.image.clone(),
                self.model.clone(),
                self.index.clone(),
                rank.to_string(),
                found.image.clone(),
                found.row.to_string(),
                found.similarity.to_string(),
            ]
        };
        (1..).zip(&self.nearest).map(row).collect()
    }

    fn table(&self) -> String {
        let mut text = one_line(&self.image) + "\n";
        for found in &self.nearest {
            text += &format!("  {:7.SIMILARITY_DIGITS$}  {}\n", found.similarity, one_line(&found.image));
        }
        text
    }
}
