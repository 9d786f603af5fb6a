//! `nat-infer features`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use nat_infer::results::SavedFeatures;
use nat_infer::tasks::ExtractFeatures;
use nat_infer::tasks::features::save;

use super::Verbosity;
use super::exit::{Exit, OrFailed, one_line};
use super::inputs::Input;
use super::output::{Output, Record};
use super::pipeline::Images;
use super::settings::Settings;
use super::shared::{ImageOptions, ModelOptions, OutputOptions};

/// Save what a network computes of images, as tensors
///
/// One <stem>.safetensors an image: `input` [1,3,H,W] as fed to the network, `stage1`... [1,C,H,W], of
/// classifiers `pooled` [1,C] and `logits` [1,classes]; all f32. Of a detector or a segmenter the
/// backbone is taken. Two images of one stem are an error before anything is done; a file of an
/// earlier run is replaced.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    images: ImageOptions,
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
    let settings = Settings::resolve(arguments.model, verbosity)?.backbone();
    let images = Images::expand(&arguments.images.inputs, arguments.images.exif.into());
    if images.inputs().is_empty() {
        return Ok(Exit::Failed);
    }
    distinct(images.inputs(), &arguments.save)?;
    let task =
        ExtractFeatures::new(settings.load()?, arguments.images.resolution, arguments.images.crop_pct)?;
    std::fs::create_dir_all(&arguments.save)
        .with_context(|| format!("--save {}: no such folder can be made", arguments.save.display()))
        .or_failed()?;
    verbosity.explain("input", task.crop());
    let mut output = Output::open(&arguments.output)?;
    let exit = images.run(settings.batch_size, task.crop(), |inputs, batch| {
        for (input, tensors) in inputs.iter().zip(task.run_inputs(batch)?) {
            let file = target(input, &arguments.save);
            save(&tensors, &file)?;
            output.write(&SavedFeatures {
                image: input.name(),
                model: task.model().name().to_owned(),
                file: file.display().to_string(),
                tensors: tensors.iter().map(|(name, t)| (name.clone(), t.dims().to_vec())).collect(),
            })?;
        }
        Ok(())
    })?;
    if exit != Exit::Interrupted {
        output.finish::<SavedFeatures>()?;
    }
    Ok(exit)
}

fn target(input: &Input, folder: &Path) -> PathBuf {
    let mut name = input.stem().to_owned();
    name.push(".safetensors");
    folder.join(name)
}

/// Refuses images that would overwrite each other's file.
fn distinct(inputs: &[Input], folder: &Path) -> Result<()> {
    let mut taken = HashMap::new();
    for input in inputs {
        let file = target(input, folder);
        if let Some(first) = taken.insert(file.clone(), input) {
            let (first, second, file) = (first.name(), input.name(), file.display());
            bail!("{first} and {second} would both be saved as {file}; use two --save folders");
        }
    }
    Ok(())
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
