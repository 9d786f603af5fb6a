//! `nat-infer segment`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use nat_infer::results::Segmentation;
use nat_infer::tasks::Segment;
use nat_infer::tasks::segment::SegmentOptions;
use nat_infer::zoo::Task;

use super::Verbosity;
use super::exit::{Exit, one_line};
use super::folder::Folder;
use super::output::{Output, Record};
use super::pipeline::Images;
use super::settings::Settings;
use super::shared::{ImageOptions, ModelOptions, OutputOptions, size};

/// Name every pixel: what covers an image, and how much of it
///
/// With --save, two files for each image: <stem>.labels.png, whose 8-bit values are class indices, and <stem>.png,
/// the image in the classes' colours with a legend; files of an earlier run are replaced.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    images: ImageOptions,
    /// Bounds of the resized image's long and short side in pixels [default: the model's, 2048x512]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    scale: Option<[usize; 2]>,
    /// Take the mean over six sizes, from half to 1.75 times the scale
    #[arg(long)]
    multi_scale: bool,
    /// Take the mean with the mirror image
    #[arg(long)]
    flip: bool,
    /// Folder for label maps and pictures, made if need be
    #[arg(short, long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Put the classes' colours into the label maps, so that any viewer shows them
    #[arg(long, requires = "save")]
    palette: bool,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    output: OutputOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer segment photo.jpg --save drawn/ --palette
  nat-infer segment photos/ --model upernet-dinat-base --multi-scale --flip --format json
  nat-infer segment photo.jpg --weights iter_160000.pth";

/// Runs the command.
pub fn run(arguments: Arguments, verbosity: Verbosity) -> Result<Exit> {
    let settings = Settings::resolve(arguments.model, Some(Task::Segment), verbosity)?;
    let images = Images::expand(&arguments.images.inputs, arguments.images.exif.into());
    if images.inputs().is_empty() {
        return Ok(Exit::Failed);
    }
    let folder = match &arguments.save {
        Some(path) => Some(Folder::new(path, &["labels.png", "png"], images.inputs())?),
        None => None,
    };
    let options =
        SegmentOptions { scale: arguments.scale, multi_scale: arguments.multi_scale, flip: arguments.flip };
    let task = Segment::new(settings.load()?, &options)?;
    task.fits().iter().for_each(|fit| verbosity.explain("input", fit));
    folder.as_ref().map_or(Ok(()), Folder::make)?;
    let mut output = Output::open(&arguments.output)?;
    let exit = images.run(
        1,
        |image| image,
        |inputs, batch| {
            for (input, image) in inputs.iter().zip(batch) {
                let map = task.run(&image)?;
                let segments = task.shares(&map);
                if let Some(folder) = &folder {
                    task.save_labels(&map, arguments.palette, &folder.file(input, "labels.png"))?;
                    task.save_picture(image, &map, &segments, &folder.file(input, "png"))?;
                }
                let [width, height] = map.size;
                let (image, model) = (input.name(), task.model().name().to_owned());
                output.write(&Segmentation { image, model, width, height, segments })?;
            }
            Ok(())
        },
    )?;
    if exit != Exit::Interrupted {
        output.finish::<Segmentation>()?;
    }
    Ok(exit)
}

impl Record for Segmentation {
    const COLUMNS: &'static [&'static str] = &["image", "model", "index", "label", "pixels", "fraction"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |segment: &nat_infer::results::Segment| {
            vec![
                self.image.clone(),
                self.model.clone(),
                segment.index.to_string(),
                segment.label.clone(),
                segment.pixels.to_string(),
                segment.fraction.to_string(),
            ]
        };
        self.segments.iter().map(row).collect()
    }

    fn table(&self) -> String {
        let mut text = one_line(&self.image) + "\n";
        for segment in &self.segments {
            text += &format!("  {:6.2}%  {}\n", 100.0 * segment.fraction, one_line(&segment.label));
        }
        text
    }
}
