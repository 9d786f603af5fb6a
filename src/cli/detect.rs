//! `nat-infer detect`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use nat_infer::results::Detections;
use nat_infer::tasks::Detect;
use nat_infer::tasks::detect::{DetectOptions, save};
use nat_infer::zoo::Task;

use super::Verbosity;
use super::exit::{Exit, one_line};
use super::folder::Folder;
use super::output::{Output, Record};
use super::pipeline::Images;
use super::settings::Settings;
use super::shared::{ImageOptions, ModelOptions, OutputOptions, at_least_one, size};

/// Find objects: their boxes, classes and masks
///
/// Records are COCO's result format. With --save, pictures with what was found: <stem>.png for each image; two
/// images of one stem are an error before anything is done, a file of an earlier run is replaced.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    images: ImageOptions,
    /// Bounds of the resized image's long and short side in pixels [default: the model's, 1333x800]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    scale: Option<[usize; 2]>,
    /// Leave out objects of this probability or less
    #[arg(long, value_name = "X", default_value = "0.05", value_parser = probability)]
    score_threshold: f32,
    /// Keep at most this many objects per image, the best ones
    #[arg(long, value_name = "N", default_value = "100", value_parser = at_least_one)]
    max_detections: usize,
    /// Boxes only
    #[arg(long)]
    no_masks: bool,
    /// Folder for pictures with the objects drawn, made if need be
    #[arg(short, long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Draw objects of more than this probability, of those that are kept
    #[arg(long, value_name = "X", default_value = "0.3", value_parser = probability, requires = "save")]
    draw_threshold: f32,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    output: OutputOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer detect photo.jpg --save drawn/
  nat-infer detect photos/ --model cascade-mask-rcnn-dinat-base --format json --output objects.json
  nat-infer detect photo.jpg --weights epoch_36.pth --no-masks --score-threshold 0.5";

/// Runs the command.
pub fn run(arguments: Arguments, verbosity: Verbosity) -> Result<Exit> {
    let settings = Settings::resolve(arguments.model, Some(Task::Detect), verbosity)?;
    let images = Images::expand(&arguments.images.inputs, arguments.images.exif.into());
    if images.inputs().is_empty() {
        return Ok(Exit::Failed);
    }
    let folder = match &arguments.save {
        Some(path) => Some(Folder::new(path, &["png"], images.inputs())?),
        None => None,
    };
    let options = DetectOptions {
        scale: arguments.scale,
        score_threshold: arguments.score_threshold,
        max_detections: arguments.max_detections,
        masks: !arguments.no_masks,
    };
    let task = Detect::new(settings.load()?, &options)?;
    verbosity.explain("input", task.fit());
    folder.as_ref().map_or(Ok(()), Folder::make)?;
    let mut output = Output::open(&arguments.output)?;
    // The picture itself is needed again only to be drawn on.
    let prepare = |image| (task.fit().apply(&image), folder.is_some().then_some(image));
    let exit = images.run(settings.batch_size, prepare, |inputs, batch| {
        for (input, (fitted, image)) in inputs.iter().zip(batch) {
            let objects = task.run_input(&fitted)?;
            if let (Some(folder), Some(image)) = (&folder, image) {
                save(image, &objects, arguments.draw_threshold, &folder.file(input, "png"))?;
            }
            let [width, height] = fitted.original;
            output.write(&Detections {
                image: input.name(),
                model: task.model().name().to_owned(),
                width,
                height,
                detections: objects.into_iter().map(|object| object.detection).collect(),
            })?;
        }
        Ok(())
    })?;
    if exit != Exit::Interrupted {
        output.finish::<Detections>()?;
    }
    Ok(exit)
}

/// A number from 0 to 1.
fn probability(text: &str) -> Result<f32, &'static str> {
    text.parse().ok().filter(|x| (0.0..=1.0).contains(x)).ok_or("a number from 0 to 1 is wanted")
}

impl Record for Detections {
    const COLUMNS: &'static [&'static str] =
        &["image", "model", "rank", "category_id", "label", "score", "left", "top", "width", "height"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |(rank, object): (usize, &nat_infer::results::Detection)| {
            let mut row = vec![
                self.image.clone(),
                self.model.clone(),
                rank.to_string(),
                object.category_id.to_string(),
                object.label.clone(),
                object.score.to_string(),
            ];
            row.extend(object.bbox.map(|edge| edge.to_string()));
            row
        };
        (1..).zip(&self.detections).map(row).collect()
    }

    fn table(&self) -> String {
        let count = self.detections.len();
        let mut text =
            format!("{}: {count} object{}\n", one_line(&self.image), if count == 1 { "" } else { "s" });
        for object in &self.detections {
            let [x, y, w, h] = object.bbox.map(f32::round);
            let label = one_line(&object.label);
            text += &format!("  {:6.2}%  {label:16} {w}x{h} at {x},{y}\n", 100.0 * object.score);
        }
        text
    }
}
