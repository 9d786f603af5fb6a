//! `--save DIR`: files for each image.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nat_infer::pipeline::{Place, Source, SourceError, name_of};
use nat_infer::tasks::TaskError;

use super::exit::{OrFailed, say};
use super::images::files;

/// A folder for files that are called as their images, in the folders in which these are below what was named.
#[derive(Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`, which need not be there.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Plans a file of each of `extensions` for each of `sources`, and makes [`Source::below`] the name of these files
    /// without their extension. Where two images would share a file, the folders that they are in belong to the name,
    /// and of images in one folder their own extension. Nothing is made yet.
    ///
    /// # Errors
    /// When two images would still share a file, or a file would replace an image.
    pub fn plan(&self, extensions: &[&str], sources: &mut [Result<Source, SourceError>]) -> Result<()> {
        let mut stems: Vec<PathBuf> = sources.iter().flatten().map(|s| without_extension(&s.below)).collect();
        let mut renamed = false;
        for last in [false, true] {
            for group in shared(sources, &stems) {
                let parent = |source: &Source| whole_path(source).parent().map(Path::to_owned);
                let one_folder = group.iter().all(|(_, source)| parent(source) == parent(group[0].1));
                renamed |= one_folder || last;
                for (i, source) in group {
                    stems[i] = match (one_folder, last) {
                        (true, _) => source.below.clone(),
                        (false, false) => without_extension(&whole_path(source)),
                        (false, true) => whole_path(source),
                    };
                }
            }
        }
        if let Some(group) = shared(sources, &stems).first() {
            let names: Vec<String> = group.iter().take(2).map(|(_, source)| source.name()).collect();
            bail!("{} would be saved under one name; use two --save folders", names.join(" and "));
        }
        if renamed {
            say("images that differ in their extension alone are saved with it, as photo.jpg.png");
        }
        let images: HashMap<PathBuf, String> =
            files(sources).filter_map(|path| Some((path.canonicalize().ok()?, name_of(path)))).collect();
        for (source, stem) in sources.iter_mut().flatten().zip(stems) {
            source.below = stem;
            let mut planned = extensions.iter().map(|extension| self.file(source, extension));
            if let Some(image) = planned.find_map(|file| images.get(&file.canonicalize().ok()?)) {
                bail!("{image} would be replaced by its result; use another --save folder");
            }
        }
        Ok(())
    }

    /// Makes the folder if need be.
    ///
    /// # Errors
    /// When that can't be.
    pub fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.0)
            .with_context(|| format!("--save {}: no such folder can be made", self.0.display()))
            .or_failed()
    }

    /// The file for an image with this extension.
    fn file(&self, source: &Source, extension: &str) -> PathBuf {
        let mut path = self.0.join(&source.below).into_os_string();
        path.push(".");
        path.push(extension);
        path.into()
    }

    /// The file for an image with this extension, whose folder is there.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn place(&self, source: &Source, extension: &str) -> Result<PathBuf, TaskError> {
        let file = self.file(source, extension);
        let parent = file.parent().unwrap_or(&self.0);
        let failed = |error| TaskError::Write { path: name_of(parent), error };
        fs::create_dir_all(parent).map_err(failed)?;
        Ok(file)
    }

    /// As messages call it.
    pub fn name(&self) -> String {
        name_of(&self.0)
    }
}

/// The images of different places that share a stem, each with its number among the images: a list for each stem.
fn shared<'a>(
    sources: &'a [Result<Source, SourceError>],
    stems: &[PathBuf],
) -> Vec<Vec<(usize, &'a Source)>> {
    let mut groups: BTreeMap<&PathBuf, Vec<(usize, &Source)>> = BTreeMap::new();
    for (i, (source, stem)) in sources.iter().flatten().zip(stems).enumerate() {
        groups.entry(stem).or_default().push((i, source));
    }
    let differ =
        |group: &Vec<(usize, &Source)>| group.iter().any(|(_, source)| source.place != group[0].1.place);
    groups.into_values().filter(differ).collect()
}

/// All names that lead down to an image.
fn whole_path(source: &Source) -> PathBuf {
    match &source.place {
        Place::File(path) => path.components().filter(|c| matches!(c, Component::Normal(_))).collect(),
        Place::Url(_) | Place::Memory { .. } => source.below.clone(),
    }
}

fn without_extension(path: &Path) -> PathBuf {
    let stem = path.file_stem().map_or_else(OsString::new, OsString::from);
    path.with_file_name(stem)
}
