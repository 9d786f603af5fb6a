//! `nat-infer saliency`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use nat_infer::images::PictureFormat;
use nat_infer::images::draw::Legend;
use nat_infer::pipeline::{Answer, name_of};
use nat_infer::results::SavedSaliency;
use nat_infer::tasks::files::save_picture;
use nat_infer::tasks::saliency::{Method, SmoothGrad};
use nat_infer::tasks::{Saliency, SaliencyOptions};
use nat_infer::zoo::Task;

use super::exit::{Exit, one_line};
use super::folder::Folder;
use super::images::ImageOptions;
use super::labels::LabelOptions;
use super::record::Record;
use super::run::{Job, ResultOptions, Save};
use super::settings::Settings;
use super::shared::{CropOptions, LegendOptions, ModelOptions, PictureOptions, at_most};
use super::verbosity::Verbosity;

/// Show which pixels of an image speak for a class
///
/// Two files for each image: <stem>.saliency.png, the map in grey at the size of the network's input, its
/// smallest value black, its 99th percentile white; and <stem>.png, the map over the image in grey, smoothed a
/// little, from purple to yellow the larger it is, with the class, its probability and a bar of the colours. What the
/// network did not see is darkened there, an image of few pixels enlarged. Files are in the folders that the images
/// are in below what was named; those of an earlier run are replaced.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct SaliencyArguments {
    #[command(flatten)]
    images: ImageOptions,
    #[command(flatten)]
    crop: CropOptions,
    /// Folder for the maps and pictures, made if need be
    #[arg(short, long, value_name = "DIR")]
    save: PathBuf,
    /// Class that the map is about, by its index or name [default: the most probable one]
    #[arg(long, value_name = "INDEX|NAME")]
    class: Option<String>,
    #[command(flatten)]
    names: LabelOptions,
    /// How the map is made
    #[arg(long, value_enum, default_value = "smooth-grad")]
    method: MethodName,
    /// Add <stem>.saliency.safetensors: the tensor `saliency` [H, W], f32, as it was before it was scaled
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    smooth_grad: SmoothGradOptions,
    #[command(flatten)]
    legend: LegendOptions,
    #[command(flatten)]
    pictures: PictureOptions,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    results: ResultOptions,
}

/// `--method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// The gradient of the class's score, averaged over noisy copies of the image (arXiv 1706.03825): fine
    SmoothGrad,
    /// The last level's map, its channels weighed by their gradients (arXiv 1610.02391): coarse, and quick
    GradCam,
}

/// What SmoothGrad alone has.
#[derive(Args)]
#[command(next_help_heading = "SmoothGrad")]
struct SmoothGradOptions {
    /// Noisy copies, of which up to --batch-size are computed together [default: 25]
    #[arg(long, value_name = "N", value_parser = at_most::<100_000>)]
    samples: Option<usize>,
    /// Standard deviation of the noise, as a share of the range of the input's values; 0 gives the input's own
    /// gradient [default: 0.15]
    #[arg(long, value_name = "X", value_parser = share, allow_negative_numbers = true)]
    noise: Option<f32>,
    /// Number that the noise is made from [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Show where more of a colour speaks for the class, not where any change matters
    #[arg(long)]
    signed: bool,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer saliency photo.jpg --save maps/
  nat-infer saliency photos/ --save maps/ --model dinat-base --method grad-cam --save-format jpeg
  nat-infer saliency digit.png --model demo-digits --save maps/ --class 4 --samples 50 --raw";

/// Runs the command.
pub fn run(arguments: SaliencyArguments, verbosity: Verbosity) -> Result<Exit> {
    let asked = arguments.model.batch_size;
    let settings = Settings::resolve(arguments.model, Some(Task::Classify), verbosity)?.gradients(asked);
    let method = method(arguments.method, &arguments.smooth_grad, asked, settings.batch_size)?;
    let format = PictureFormat::from(arguments.pictures.save_format);
    let legend = Legend::from(arguments.legend.legend);
    let extensions = ["saliency.png", format.extension(), "saliency.safetensors"];
    let extensions = &extensions[..if arguments.raw { 3 } else { 2 }];
    let folder = Folder::new(&arguments.save);
    let save = Some(Save { folder: &folder, extensions, draws: true });
    let read = [settings.file(), arguments.names.labels.as_deref()];
    let job =
        Job::plan::<SavedSaliency>(&arguments.images, &arguments.results, save, None, &read, verbosity)?;
    let job = match job {
        ControlFlow::Continue(job) => job,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let mut options = SaliencyOptions::default();
    options.resolution = arguments.crop.resolution;
    options.crop_pct = arguments.crop.crop_pct;
    options.labels = arguments.names.read()?;
    let task = Saliency::new(settings.load()?, method, &options)?;
    let task = Arc::new(match &arguments.class {
        Some(name) => task.about(name)?,
        None => task,
    });
    settings.say_names(task.classify());
    verbosity.explain("input", task.crop());
    // The copies of one image are the batch.
    let settings = settings.one_by_one();
    job.run(&task, &settings, |image, Answer { output: map, picture, .. }| {
        let file = |extension| folder.place(image, extension);
        let [grey, drawn, tensor] =
            [file("saliency.png")?, file(format.extension())?, file("saliency.safetensors")?];
        map.save_grey(&grey)?;
        if let Some(picture) = picture {
            save_picture(&map.picture(picture, task.crop(), legend), format, &drawn)?;
        }
        if arguments.raw {
            map.save_tensor(&tensor)?;
        }
        Ok(SavedSaliency {
            image: image.name(),
            model: task.model().name().to_owned(),
            method: arguments.method.name().to_owned(),
            class: map.class,
            map: name_of(&grey),
            picture: name_of(&drawn),
            tensor: arguments.raw.then(|| name_of(&tensor)),
        })
    })
}

/// What was typed as what it means. `asked` is the number of --batch-size, `together` what came of it.
fn method(
    name: MethodName,
    chosen: &SmoothGradOptions,
    asked: Option<usize>,
    together: usize,
) -> Result<Method> {
    let &SmoothGradOptions { samples, noise, seed, signed } = chosen;
    if name == MethodName::GradCam {
        let given = [
            ("--samples", samples.is_some()),
            ("--noise", noise.is_some()),
            ("--seed", seed.is_some()),
            ("--signed", signed),
            ("--batch-size", asked.is_some()),
        ];
        return match given.iter().find(|(_, given)| *given) {
            Some((option, _)) => bail!("{option} is for --method smooth-grad: grad-cam has no noisy copies"),
            None => Ok(Method::GradCam),
        };
    }
    if let (Some(0.0), Some(samples @ 2..)) = (noise, samples) {
        bail!("--samples {samples} with --noise 0 would be {samples} times the same: leave one of them out");
    }
    if let (Some(0.0), Some(_)) = (noise, seed) {
        bail!("--seed with --noise 0 changes nothing: leave one of them out");
    }
    let mut smooth_grad = SmoothGrad::default();
    smooth_grad.samples = samples.unwrap_or(smooth_grad.samples);
    smooth_grad.noise = noise.unwrap_or(smooth_grad.noise);
    smooth_grad.seed = seed.unwrap_or(smooth_grad.seed);
    smooth_grad.signed = signed;
    smooth_grad.together = together;
    Ok(Method::SmoothGrad(smooth_grad))
}

/// A share of something, 0 or more.
fn share(text: &str) -> Result<f32, &'static str> {
    text.parse().ok().filter(|x: &f32| x.is_finite() && *x >= 0.0).ok_or("a number from 0 is wanted")
}

impl MethodName {
    /// Its name in records and on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::SmoothGrad => "smooth-grad",
            Self::GradCam => "grad-cam",
        }
    }
}

impl Record for SavedSaliency {
    const COLUMNS: &'static [&'static str] =
        &["image", "model", "method", "index", "label", "score", "map", "picture", "tensor"];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.image.clone(),
            self.model.clone(),
            self.method.clone(),
            self.class.index.to_string(),
            self.class.label.clone(),
            self.class.score.to_string(),
            self.map.clone(),
            self.picture.clone(),
            self.tensor.clone().unwrap_or_default(),
        ]]
    }

    fn table(&self) -> String {
        let files = [Some(&self.map), Some(&self.picture), self.tensor.as_ref()];
        let files: Vec<String> = files.into_iter().flatten().map(|file| one_line(file)).collect();
        let (image, label) = (one_line(&self.image), one_line(&self.class.label));
        format!("{image}\n  {:6.2}%  {label} -> {}\n", 100.0 * self.class.score, files.join(", "))
    }
}
