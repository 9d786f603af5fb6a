//! `nat-infer classify`.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use nat_infer::export::{Labelled, LabelledWith};
use nat_infer::pipeline::{Answer, Source};
use nat_infer::results::{Classification, Scored};
use nat_infer::tasks::Classify;
use nat_infer::tasks::classify::ClassifyOptions;
use nat_infer::zoo::Task;

use super::exit::{Exit, one_line};
use super::export::{ExportOptions, classes_of};
use super::images::ImageOptions;
use super::labels::LabelOptions;
use super::record::Record;
use super::run::{Job, ResultOptions};
use super::settings::Settings;
use super::shared::{CropOptions, ModelOptions};
use super::verbosity::Verbosity;

/// Say what is on images: the most probable classes of each
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ClassifyArguments {
    #[command(flatten)]
    images: ImageOptions,
    #[command(flatten)]
    crop: CropOptions,
    /// How many classes to name for each image
    #[arg(short = 'k', long, value_name = "N", default_value = "5", value_parser = super::shared::at_least_one)]
    top_k: usize,
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
  nat-infer classify --model demo-digits digit.png
  nat-infer classify photos/ 'more/*.jpg' --model dinat-base --format csv
  nat-infer classify photo.jpg --weights model_best.pth.tar --dilations 1,8/1,4/1,2/1
  nat-infer classify photo.jpg --weights last.ckpt --weights-key state_dict.teacher --ignore 'projector.*'
  nat-infer classify photos/ --export label-studio tasks/
  curl -s https://example.org/photo.jpg | nat-infer classify -";

/// Runs the command.
pub fn run(arguments: ClassifyArguments, verbosity: Verbosity) -> Result<Exit> {
    let settings = Settings::resolve(arguments.model, Some(Task::Classify), verbosity)?;
    let read = [settings.file(), arguments.names.labels.as_deref()];
    let mut exports = arguments.export.exports(LabelledWith::Choices)?;
    let (images, results) = (&arguments.images, &arguments.results);
    let job = Job::plan::<Classification>(images, results, None, Some(&mut exports), &read, verbosity)?;
    let job = match job {
        ControlFlow::Continue(job) => job,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let mut options = ClassifyOptions::default();
    options.resolution = arguments.crop.resolution;
    options.crop_pct = arguments.crop.crop_pct;
    options.labels = arguments.names.read()?;
    options.top_k = Some(arguments.top_k);
    let task = Arc::new(Classify::new(settings.load()?, &options)?);
    settings.say_names(&task);
    verbosity.explain("input", task.crop());
    exports.open(|| classes_of(task.labels(), |index| index + 1))?;
    let exports = RefCell::new(exports);
    let record = |image: &Source, Answer { output: top, size, .. }: Answer<Vec<Scored>>| {
        let model = task.model().name();
        exports.borrow_mut().add(image, model, size, None, || Ok(Labelled::Choices(top.clone())))?;
        Ok(Classification { image: image.name(), model: model.to_owned(), top })
    };
    job.exported(&task, &settings, &exports, record)
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
