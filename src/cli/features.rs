//! `nat-infer features`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use nat_infer::results::SavedFeatures;
use nat_infer::tasks::ExtractFeatures;
use nat_infer::tasks::features::save;
use nat_infer::zoo::Task;

use super::Verbosity;
use super::exit::{Exit, one_line};
use super::folder::Folder;
use super::output::{Output, Record};
use super::pipeline::Images;
use super::settings::Settings;
use super::shared::{CropOptions, ImageOptions, ModelOptions, OutputOptions};

/// Save what a network computes of images, as tensors
///
/// One <stem>.safetensors for each image: `input` [1,3,H,W] as fed to the network, `stage1`... [1,C,H,W], for
/// classifiers also `pooled` [1,C] and `logits` [1,classes]; all f32. Of a detector or a segmenter only the
/// backbone is used, fed by that task's resize unless --resolution asks for a crop. Two images of one stem
/// are an error before anything is done; a file of an earlier run is replaced.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    images: ImageOptions,
    #[command(flatten)]
    crop: CropOptions,
    /// Folder for the files, made if need be
    #[arg(short, long, value_name = "DIR")]
    save: PathBuf,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    output: OutputOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer features photo.jpg --save features/
  nat-infer features photos/ --save features/ --weights backbone.safetensors --resolution 384";

/// Runs the command.
pub fn run(arguments: Arguments, verbosity: Verbosity) -> Result<Exit> {
    let settings = Settings::resolve(arguments.model, Some(Task::Classify), verbosity)?.backbone();
    let images = Images::expand(&arguments.images.inputs, arguments.images.exif.into());
    if images.inputs().is_empty() {
        return Ok(Exit::Failed);
    }
    let folder = Folder::new(&arguments.save, &["safetensors"], images.inputs())?;
    let task = ExtractFeatures::new(settings.load()?, arguments.crop.resolution, arguments.crop.crop_pct)?;
    folder.make()?;
    verbosity.explain("input", task.preparation());
    let mut output = Output::open(&arguments.output)?;
    let exit = images.run(
        settings.batch_size,
        |image| task.preparation().apply(&image),
        |inputs, batch| {
            for (input, tensors) in inputs.iter().zip(task.run_inputs(&batch)?) {
                let file = folder.file(input, "safetensors");
                save(&tensors, &file)?;
                output.write(&SavedFeatures {
                    image: input.name(),
                    model: task.model().name().to_owned(),
                    file: file.display().to_string(),
                    tensors: tensors.iter().map(|(name, t)| (name.clone(), t.dims().to_vec())).collect(),
                })?;
            }
            Ok(())
        },
    )?;
    if exit != Exit::Interrupted {
        output.finish::<SavedFeatures>()?;
    }
    Ok(exit)
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
