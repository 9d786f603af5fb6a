//! `nat-infer search --report DIR`: what was found, as one page.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nat_infer::eval::gallery::{Gallery, GalleryHit, GalleryQuery};
use nat_infer::eval::index::FeatureIndex;
use nat_infer::eval::thumbnail;
use nat_infer::images::{Exif, Limits, Reader, RgbImage};
use nat_infer::pipeline::name_of;
use nat_infer::results::SearchResult;
use nat_infer::tasks::files::NewFile;

use super::earlier::may_be_replaced;
use super::exit::OrFailed;
use super::output::has_a_place;
use super::shared::{OutputFormat, OutputOptions};

/// The page in the folder of --report.
const PAGE: &str = "search.html";

/// A page that grows in memory, some ten kilobytes a picture.
pub struct SearchReport {
    file: PathBuf,
    reader: Reader,
    queries: Vec<GalleryQuery>,
    /// Pictures of indexed images by their rows, each read once; `None` of what is not there or no image any more.
    pictures: HashMap<usize, Option<String>>,
}

impl SearchReport {
    /// One in `folder`, whose images are turned as the queries are.
    ///
    /// # Errors
    /// When something would be lost.
    pub fn plan(folder: &Path, exif: Exif, output: &OutputOptions) -> Result<Self> {
        let file = folder.join(PAGE);
        if folder.is_dir() {
            has_a_place(&file)?;
        }
        if !output.overwrite {
            may_be_replaced(&file, true, OutputFormat::Json)?;
        }
        let reader = Reader::new(exif, Limits::default());
        Ok(Self { file, reader, queries: Vec::new(), pictures: HashMap::new() })
    }

    /// Adds what was found for a query, which looks like `picture`.
    pub fn add(&mut self, found: &SearchResult, picture: Option<&RgbImage>, index: &FeatureIndex) {
        let Self { reader, queries, pictures, .. } = self;
        let mut hit = |row: usize| {
            let read = || thumbnail(&reader.file(&index.picture(row)?).ok()?).ok();
            pictures.entry(row).or_insert_with(read).clone()
        };
        let nearest = found.nearest.iter().map(|found| GalleryHit {
            name: found.image.clone(),
            similarity: found.similarity,
            picture: hit(found.row),
        });
        let picture = picture.and_then(|picture| thumbnail(picture).ok());
        queries.push(GalleryQuery { name: found.image.clone(), picture, nearest: nearest.collect() });
    }

    /// Writes the page, if a query was answered.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(self, index: &FeatureIndex, path: &Path, model: &str) -> Result<()> {
        let Self { file, queries, .. } = self;
        if queries.is_empty() {
            return Ok(());
        }
        let details = [
            ("Index", name_of(path)),
            ("Images in it", index.count().to_string()),
            ("Model", model.to_owned()),
        ];
        let details = details.map(|(what, value)| (what.to_owned(), value)).into();
        let html = Gallery { title: "Nearest images".to_owned(), details, queries }.html();
        let write = || {
            let mut page = NewFile::create(&file)?;
            page.write_all(html.as_bytes())?;
            page.keep()
        };
        write().with_context(|| format!("{}: can't be written", name_of(&file))).or_failed()
    }
}
