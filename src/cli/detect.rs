//! `nat-infer detect`.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use nat_infer::export::{Labelled, LabelledObject, LabelledWith};
use nat_infer::images::PictureFormat;
use nat_infer::pipeline::{Answer, Source};
use nat_infer::results::{CocoResult, Detection, Detections};
use nat_infer::tasks::detect::Object;
use nat_infer::tasks::files::save_picture;
use nat_infer::tasks::{Detect, DetectOptions, DetectPicture};
use nat_infer::zoo::Task;

use super::coco::{Category, Numbers};
use super::exit::{Exit, one_line, say};
use super::export::{ExportOptions, classes_of};
use super::folder::Folder;
use super::images::ImageOptions;
use super::labels::LabelOptions;
use super::record::Record;
use super::run::{Job, ResultOptions, Save};
use super::settings::Settings;
use super::shared::{
    ModelOptions, OpacityOptions, OutputFormat, OutputOptions, PictureOptions, at_least_one, part, size,
};
use super::verbosity::Verbosity;

/// Find objects: their boxes, classes and masks
///
/// Boxes are left, top, width and height in pixels, masks COCO's compressed run lengths, categories COCO's numbers for models
/// of COCO. With --save, a picture with what was found, <stem>.png for each image, in the folders that the images are in
/// below what was named; a picture of an earlier run is replaced. Objects of a class are drawn in shades of one colour; an
/// image of few pixels is enlarged.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct DetectArguments {
    #[command(flatten)]
    images: ImageOptions,
    /// Bounds of the resized image's long and short side in pixels [default: the model's, 1333x800]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    scale: Option<[usize; 2]>,
    /// Leave out objects of this probability or less [default: the model's, 0.05]
    #[arg(long, value_name = "X", value_parser = part)]
    score_threshold: Option<f32>,
    /// Keep at most this many objects per image, the best ones [default: the model's, 100]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_detections: Option<usize>,
    /// Boxes only
    #[arg(long)]
    no_masks: bool,
    /// COCO's annotations, whose images number these by their file names: `image_id` in JSON, and --format coco
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// Folder for pictures with the objects drawn, made if need be
    #[arg(short, long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Draw objects of more than this probability, of those that are kept
    #[arg(long, value_name = "X", default_value_t = DRAWN, value_parser = part, requires = "save")]
    draw_threshold: f32,
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
  nat-infer detect photo.jpg --save drawn/
  nat-infer detect photos/ --save drawn/ --save-format jpeg --draw-threshold 0.5 --opacity 0.3
  nat-infer detect photos/ --model cascade-mask-rcnn-dinat-base --format json --output objects.json
  nat-infer detect val2017/ --annotations instances_val2017.json --format coco --output results.json
  nat-infer detect photos/ --score-threshold 0.5 --export yolo dataset/ --export label-studio tasks/
  nat-infer detect photo.jpg --weights epoch_36.pth --no-masks --score-threshold 0.5";

/// Runs the command.
pub fn run(arguments: DetectArguments, verbosity: Verbosity) -> Result<Exit> {
    let settings = Settings::resolve(arguments.model, Some(Task::Detect), verbosity)?;
    let folder = arguments.save.as_deref().map(Folder::new);
    let save_format = PictureFormat::from(arguments.pictures.save_format);
    let extensions = [save_format.extension()];
    let mut drawing = DetectPicture::default();
    (drawing.threshold, drawing.opacity) = (arguments.draw_threshold, arguments.opacity.opacity);
    let save = folder.as_ref().map(|folder| Save { folder, extensions: &extensions, draws: true });
    let read = [settings.file(), arguments.names.labels.as_deref(), arguments.annotations.as_deref()];
    let OutputOptions { format, output, overwrite } = &arguments.results.output;
    let coco = *format == Some(OutputFormat::Coco);
    if coco && arguments.annotations.is_none() && arguments.images.shard.is_some() {
        bail!("--format coco numbers the images of each shard from 1; --annotations FILE numbers them all");
    }
    let mut numbers = Numbers::new(arguments.annotations.as_deref(), coco, output.as_deref(), *overwrite)?;
    let with = if arguments.no_masks { LabelledWith::Boxes } else { LabelledWith::Masks };
    let mut exports = arguments.export.exports(with)?;
    let (images, results) = (&arguments.images, &arguments.results);
    let job = Job::plan::<Detections>(images, results, save, Some(&mut exports), &read, verbosity)?;
    let job = match job {
        ControlFlow::Continue(job) => job,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let mut options = DetectOptions::default();
    options.scale = arguments.scale;
    options.score_threshold = arguments.score_threshold;
    options.max_detections = arguments.max_detections;
    options.masks = !arguments.no_masks;
    let task = Arc::new(Detect::new(settings.load_with(&arguments.names)?, &options)?);
    verbosity.explain("input", task.fit());
    exports.open(|| classes_of(task.labels(), |index| task.category_id(index)))?;
    let exports = RefCell::new(exports);
    let record = |image: &Source, Answer { output: objects, size, picture, .. }: Answer<Vec<Object>>| {
        let (image_id, model) = (numbers.of(&image.name(), size)?, task.model().name());
        exports.borrow_mut().add(image, model, size, image_id, || Ok(labelled(&objects)))?;
        if let (Some(folder), Some(picture)) = (&folder, picture) {
            let path = folder.place(image, save_format.extension())?;
            save_picture(&drawing.draw(picture, &objects), save_format, &path)?;
        }
        let detections = objects.into_iter().map(|object| object.detection).collect();
        let (image, model, [width, height]) = (image.name(), model.to_owned(), size);
        Ok(Detections { image, model, width, height, image_id, detections })
    };
    let exit = job.exported(&task, &settings, &exports, record)?;
    if let Some(place) = numbers.save(&categories(&task))?
        && !verbosity.quiet
    {
        say(&place);
    }
    Ok(exit)
}

/// The objects as datasets have them.
fn labelled(objects: &[Object]) -> Labelled {
    let object = |object: &Object| {
        let Detection { index, category_id, label, score, bbox, .. } = &object.detection;
        LabelledObject {
            index: *index,
            category_id: *category_id,
            label: label.clone(),
            score: Some(*score),
            bbox: *bbox,
            mask: object.mask(),
        }
    };
    Labelled::Objects(objects.iter().map(object).collect())
}

/// The classes of a model as COCO lists them.
fn categories(task: &Detect) -> Vec<Category> {
    let category =
        |(index, name): (usize, &String)| Category { id: task.category_id(index), name: name.clone() };
    task.labels().iter().enumerate().map(category).collect()
}

/// Objects of more than this probability are drawn, unless another one is asked for, and shown in a table: an image has
/// up to a hundred, most of which are not there.
const DRAWN: f32 = 0.3;

impl Record for Detections {
    const COLUMNS: &'static [&'static str] = &[
        "image",
        "model",
        "image_width",
        "image_height",
        "rank",
        "category_id",
        "index",
        "label",
        "score",
        "left",
        "top",
        "width",
        "height",
    ];

    /// A row for each object; one without an object for an image without objects.
    fn rows(&self) -> Vec<Vec<String>> {
        let image = [self.image.clone(), self.model.clone(), self.width.to_string(), self.height.to_string()];
        let row = |(rank, object): (usize, &Detection)| {
            let of_object = [
                rank.to_string(),
                object.category_id.to_string(),
                object.index.to_string(),
                object.label.clone(),
                object.score.to_string(),
            ];
            [&image[..], &of_object, &object.bbox.map(|edge| edge.to_string())].concat()
        };
        if self.detections.is_empty() {
            let nothing = vec![String::new(); Self::COLUMNS.len() - image.len()];
            return vec![[&image[..], &nothing].concat()];
        }
        (1..).zip(&self.detections).map(row).collect()
    }

    const COCO: bool = true;

    fn coco(&self) -> Option<Vec<String>> {
        let image_id = self.image_id?;
        let result = |object: &Detection| {
            let Detection { category_id, score, bbox, segmentation, .. } = object.clone();
            serde_json::to_string(&CocoResult { image_id, category_id, bbox, score, segmentation }).ok()
        };
        self.detections.iter().map(result).collect()
    }

    fn table(&self) -> String {
        let count = self.detections.len();
        let mut text =
            format!("{}: {count} object{}\n", one_line(&self.image), if count == 1 { "" } else { "s" });
        let clear = |object: &&Detection| object.score > DRAWN;
        for object in self.detections.iter().filter(clear) {
            let [x, y, w, h] = object.bbox.map(f32::round);
            let label = one_line(&object.label);
            text += &format!("  {:6.2}%  {label:16} {w}x{h} at {x},{y}\n", 100.0 * object.score);
        }
        let faint = count - self.detections.iter().filter(clear).count();
        if faint > 0 {
            text +=
                &format!("  and {faint} of {:.0}% or less, which the other formats have\n", 100.0 * DRAWN);
        }
        text
    }
}
