//! `nat-infer segment`.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use nat_convert::recipe::SlidingWindow;
use nat_infer::export::{Labelled, LabelledWith};
use nat_infer::images::PictureFormat;
use nat_infer::pipeline::{Answer, Source};
use nat_infer::results::Segmentation;
use nat_infer::tasks::files::save_picture;
use nat_infer::tasks::segment::LabelMap;
use nat_infer::tasks::{Segment, SegmentOptions, SegmentPicture};

use nat_infer::zoo::Task;

use super::exit::{Exit, one_line};
use super::export::{ExportOptions, classes_of};
use super::folder::Folder;
use super::images::ImageOptions;
use super::labels::LabelOptions;
use super::record::Record;
use super::run::{Job, ResultOptions, Save};
use super::settings::Settings;
use super::shared::{LegendOptions, ModelOptions, OpacityOptions, PictureOptions, size};
use super::verbosity::Verbosity;

/// Name every pixel: what covers an image, and how much of it
///
/// With --save, two files for each image: <stem>.labels.png, whose 8-bit values are class indices, at the image's size,
/// and <stem>.png, the image in the classes' colours with borders between them and a legend, an image of few pixels
/// enlarged; in the folders that the images are in below what was named;
/// files of an earlier run are replaced.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct SegmentArguments {
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
    legend: LegendOptions,
    #[command(flatten)]
    opacity: OpacityOptions,
    #[command(flatten)]
    pictures: PictureOptions,
    #[command(flatten)]
    names: LabelOptions,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    results: ResultOptions,
    #[command(flatten)]
    export: ExportOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer segment photo.jpg --save drawn/ --palette
  nat-infer segment photos/ --save drawn/ --save-format jpeg --legend inside --opacity 0.7
  nat-infer segment photos/ --model upernet-dinat-base --multi-scale --flip --format json
  nat-infer segment photos/ --export labelme annotations/
  nat-infer segment photo.jpg --weights iter_160000.pth";

/// Runs the command.
pub fn run(arguments: SegmentArguments, verbosity: Verbosity) -> Result<Exit> {
    let settings = Settings::resolve(arguments.model, Some(Task::Segment), verbosity)?;
    let folder = arguments.save.as_deref().map(Folder::new);
    let format = PictureFormat::from(arguments.pictures.save_format);
    let extensions = ["labels.png", format.extension()];
    let mut drawing = SegmentPicture::default();
    (drawing.legend, drawing.opacity) = (arguments.legend.legend.into(), arguments.opacity.opacity);
    let save = folder.as_ref().map(|folder| Save { folder, extensions: &extensions, draws: true });
    let read = [settings.file(), arguments.names.labels.as_deref()];
    let mut exports = arguments.export.exports(LabelledWith::Regions)?;
    let (images, results) = (&arguments.images, &arguments.results);
    let job = Job::plan::<Segmentation>(images, results, save, Some(&mut exports), &read, verbosity)?;
    let job = match job {
        ControlFlow::Continue(job) => job,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let mut options = SegmentOptions::default();
    (options.scale, options.multi_scale, options.flip) =
        (arguments.scale, arguments.multi_scale, arguments.flip);
    let task = Arc::new(Segment::new(settings.load_with(&arguments.names)?, &options)?);
    task.fits().iter().for_each(|fit| verbosity.explain("input", fit));
    if let Some(SlidingWindow { crop, stride }) = task.model().metadata().architecture.recipe.segmenter.window
    {
        let [crop, stride] = [crop, stride].map(|[height, width]| format!("{width}x{height}"));
        verbosity.explain("window", format!("{crop} pixels in steps of {stride}"));
    }
    let classes = classes_of(task.labels(), |index| index + 1);
    exports.open(|| classes.clone())?;
    let exports = RefCell::new(exports);
    let record = |image: &Source, Answer { output: map, picture, .. }: Answer<LabelMap>| {
        let (segments, model) = (task.shares(&map), task.model().name());
        exports.borrow_mut().add(image, model, map.size, None, || {
            Ok(Labelled::Regions { pixels: map.classes.clone(), classes: classes.clone() })
        })?;
        if let (Some(folder), Some(picture)) = (&folder, picture) {
            task.save_labels(&map, arguments.palette, &folder.place(image, "labels.png")?)?;
            let picture = task.picture(picture, &map, &segments, &drawing);
            save_picture(&picture, format, &folder.place(image, format.extension())?)?;
        }
        let [width, height] = map.size;
        Ok(Segmentation { image: image.name(), model: model.to_owned(), width, height, segments })
    };
    job.exported(&task, &settings, &exports, record)
}

impl Record for Segmentation {
    const COLUMNS: &'static [&'static str] =
        &["image", "model", "width", "height", "index", "label", "pixels", "fraction"];

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |segment: &nat_infer::results::ClassShare| {
            vec![
                self.image.clone(),
                self.model.clone(),
                self.width.to_string(),
                self.height.to_string(),
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
