//! `nat-infer features`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use nat_infer::pipeline::{Answer, name_of};
use nat_infer::results::SavedFeatures;
use nat_infer::tasks::ExtractFeatures;
use nat_infer::tasks::features::save;
use nat_infer::zoo::Task;

use super::exit::{Exit, one_line};
use super::folder::Folder;
use super::images::ImageOptions;
use super::pooled;
use super::record::Record;
use super::run::{Job, ResultOptions, Save};
use super::settings::Settings;
use super::shared::{CropOptions, ModelOptions};
use super::verbosity::Verbosity;

/// Save what a network computes of images, as tensors
///
/// One <stem>.safetensors for each image: `input` [1,3,H,W] as fed to the network, `stage1`... [1,C,H,W], for
/// classifiers also `pooled` [1,C] and `logits` [1,classes]; all f32. Of a detector or a segmenter only the
/// backbone is used, fed by that task's resize unless --resolution asks for a crop. Files are in the folders that
/// the images are in below what was named; those of an earlier run are replaced.
///
/// With --pooled one features.safetensors for the whole run instead: `pooled` [N,C], f32, of classifiers, a row for
/// each image that could be done, in the order of the inputs, and features.txt with the images' names, one a line, as
/// records have them (a line feed or carriage return in a name is `\x0a` or `\x0d`). It says how it was made, and
/// `nat-infer search` finds images in it. The files grow as features.safetensors.partial and features.txt.partial,
/// with which --resume goes on. There are no records: --output and --format are refused, and of shards each has a
/// folder of its own.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct FeaturesArguments {
    #[command(flatten)]
    images: ImageOptions,
    #[command(flatten)]
    crop: CropOptions,
    /// Folder for the files, made if need be
    #[arg(short, long, value_name = "DIR")]
    save: PathBuf,
    /// One file with a vector for each image: `pooled`, the last map normed and averaged (classifiers)
    #[arg(long)]
    pooled: bool,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    results: ResultOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer features photo.jpg --save features/
  nat-infer features photos/ --save features/ --weights backbone.safetensors --resolution 384
  nat-infer features photos/ -r --pooled --save index/
  nat-infer features photos/ -r --pooled --save index-1/ --shard 1/4 --resume";

/// Runs the command.
pub fn run(arguments: FeaturesArguments, verbosity: Verbosity) -> Result<Exit> {
    if arguments.pooled {
        let FeaturesArguments { images, crop, save, model, results, .. } = arguments;
        let settings = Settings::resolve(model, Some(Task::Classify), verbosity)?;
        return pooled::run(&settings, &images, &crop, &save, &results, verbosity);
    }
    let settings = Settings::resolve(arguments.model, Some(Task::Classify), verbosity)?.backbone();
    let folder = Folder::new(&arguments.save);
    let files = Save { folder: &folder, extensions: &["safetensors"], draws: false };
    let read = [settings.file()];
    let job = Job::plan::<SavedFeatures>(
        &arguments.images,
        &arguments.results,
        Some(files),
        None,
        &read,
        verbosity,
    )?;
    let job = match job {
        ControlFlow::Continue(job) => job,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let task = ExtractFeatures::new(settings.load()?, arguments.crop.resolution, arguments.crop.crop_pct)?;
    let task = Arc::new(task);
    verbosity.explain("input", task.preparation());
    job.run(&task, &settings, |image, Answer { output: tensors, .. }| {
        let file = folder.place(image, "safetensors")?;
        save(&tensors, &file)?;
        let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.dims().to_vec())).collect();
        let (image, model) = (image.name(), task.model().name().to_owned());
        Ok(SavedFeatures { image, model, file: name_of(&file), tensors })
    })
}

impl Record for SavedFeatures {
    const COLUMNS: &'static [&'static str] = &["image", "model", "file", "tensor", "shape"];

    fn rows(&self) -> Vec<Vec<String>> {
        let shape = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let row = |(name, dims): (&String, &Vec<usize>)| {
            vec![self.image.clone(), self.model.clone(), self.file.clone(), name.clone(), shape(dims)]
        };
        self.tensors.iter().map(row).collect()
    }

    fn table(&self) -> String {
        format!("{} -> {}\n", one_line(&self.image), one_line(&self.file))
    }
}
