//! `--report DIR`: the report as a page, with the worst and the best images.

use std::collections::HashMap;
use std::path::Path;

use nat_infer::eval::page::{Confusion, Page, PageImage};
use nat_infer::eval::thumbnail;
use nat_infer::image::RgbImage;
use nat_infer::images::Reader;
use nat_infer::pipeline::Source;
use nat_infer::results::Evaluation;

use super::extremes::ShownImage;

/// How many of the worst and of the best images a page shows.
pub const SHOWN: usize = 24;

/// The images of a dataset, by name.
pub struct Pictures {
    sources: HashMap<String, Source>,
    reader: Reader,
}

impl Pictures {
    /// Of these images, read like this.
    pub fn of<'a>(sources: impl IntoIterator<Item = &'a Source>, reader: Reader) -> Self {
        let sources = sources.into_iter().map(|source| (source.name(), source.clone())).collect();
        Self { sources, reader }
    }

    /// Of what lies where its name says.
    pub fn by_name() -> Self {
        Self { sources: HashMap::new(), reader: Reader::default() }
    }

    /// An image by its name where that is known, else by the end of its path.
    pub fn listed(&self, name: Option<&String>, below: &str) -> Option<RgbImage> {
        if let Some(name) = name {
            return self.image(name);
        }
        let found = self.sources.values().find(|source| source.below.ends_with(below));
        found?.read(&self.reader).ok()
    }

    /// An image, if it can be read.
    pub fn image(&self, name: &str) -> Option<RgbImage> {
        match self.sources.get(name) {
            Some(source) => source.read(&self.reader).ok(),
            None => self.reader.file(Path::new(name)).ok(),
        }
    }
}

/// The page of a report, with `shown` images as `draw` draws them. One that can't be drawn is there without its picture.
pub fn page(
    evaluation: &Evaluation,
    confusion: Option<&Confusion>,
    shown: Vec<ShownImage>,
    mut draw: impl FnMut(&ShownImage) -> Option<RgbImage>,
) -> String {
    let image = |shown: ShownImage| {
        let picture = draw(&shown).and_then(|picture| thumbnail(&picture).ok());
        let ShownImage { name, score, right, truth, answer } = shown;
        PageImage { name, score, right, truth, answer, picture }
    };
    let images: Vec<PageImage> = shown.into_iter().map(image).collect();
    Page { evaluation, confusion, images: &images }.html()
}
