//! `nat-infer classify`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use nat_infer::results::Classification;
use nat_infer::tasks::Classify;
use nat_infer::tasks::classify::ClassifyOptions;
use nat_infer::zoo::Task;

use super::exit::{Exit, one_line};
use super::output::{Output, Record};
use super::pipeline::Images;
use super::settings::Settings;
use super::shared::{CropOptions, ImageOptions, ModelOptions, OutputOptions};
use super::{Verbosity, labels};

/// Say what is on images: the most probable classes of each
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    images: ImageOptions,
    #[command(flatten)]
    crop: CropOptions,
    /// How many classes to name for each image
    #[arg(short = 'k', long, value_name = "N", default_value = "5", value_parser = super::shared::at_least_one)]
    top_k: usize,
    /// Names of the classes: one per line, or a JSON list [default: the model's]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    output: OutputOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer classify --model demo-digits digit.png
  nat-infer classify photos/ 'more/*.jpg' --model dinat-base --format csv
  nat-infer classify photo.jpg --weights model_best.pth.tar --dilations 1,8/1,4/1,2/1
  curl -s https://example.org/photo.jpg | nat-infer classify -";

/// Runs the command.
pub fn run(arguments: Arguments, verbosity: Verbosity) -> Result<Exit> {
    let settings = Settings::resolve(arguments.model, Some(Task::Classify), verbosity)?;
    let labels = arguments.labels.as_deref().map(labels::read).transpose()?;
    let images = Images::expand(&arguments.images.inputs, arguments.images.exif.into());
    if images.inputs().is_empty() {
        return Ok(Exit::Failed);
    }
    let options = ClassifyOptions {
        resolution: arguments.crop.resolution,
        crop_pct: arguments.crop.crop_pct,
        labels,
        top_k: Some(arguments.top_k),
    };
    let task = Classify::new(settings.load()?, options)?;
    verbosity.explain("input", task.crop());
    let mut output = Output::open(&arguments.output)?;
    let exit = images.run(
        settings.batch_size,
        |image| task.crop().apply(&image),
        |inputs, batch| {
            inputs.iter().zip(task.run_inputs(&batch)?).try_for_each(|(input, top)| {
                output.write(&Classification {
                    image: input.name(),
                    model: task.model().name().to_owned(),
                    top,
                })
            })
        },
    )?;
    if exit != Exit::Interrupted {
        output.finish::<Classification>()?;
    }
    Ok(exit)
}

impl Record for Classification {
    const COLUMNS: &'static [&'static str] = &["image", "model", "rank", "index", "label", "score"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |(rank, scored): (usize, &nat_infer::results::Scored)| {
            vec![
                self.image.clone(),
                self.model.clone(),
                rank.to_string(),
                scored.index.to_string(),
                scored.label.clone(),
                scored.score.to_string(),
            ]
        };
        (1..).zip(&self.top).map(row).collect()
    }

    fn table(&self) -> String {
        let mut text = one_line(&self.image) + "\n";
        for scored in &self.top {
            text += &format!("  {:6.2}%  {}\n", 100.0 * scored.score, one_line(&scored.label));
        }
        text
    }
}
