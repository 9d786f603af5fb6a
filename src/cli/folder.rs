//! `--save DIR`: files for each image.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nat_infer::pipeline::{Location, Source, SourceError, name_of, plain};
use nat_infer::tasks::TaskError;
use nat_infer::tasks::files::is_ours;

use super::exit::{OrFailed, say};
use super::images::files;
use super::shared::OutputOptions;

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
    /// and of images in one folder their own extension. Nothing is made yet. `read` are other files that the run reads.
    ///
    /// # Errors
    /// When two images would still share a file, or a file would replace one that the run reads or writes, or one that
    /// is no earlier result.
    pub fn plan(
        &self,
        extensions: &[&str],
        sources: &mut [Result<Source, SourceError>],
        read: &[&Path],
        output: &OutputOptions,
    ) -> Result<()> {
        let mut stems: Vec<PathBuf> = sources.iter().flatten().map(|s| without_extension(&s.below)).collect();
        let mut renamed = false;
        for last in [false, true] {
            for group in shared(sources, &stems, extensions) {
                let parent = |source: &Source| whole_path(source, false).parent().map(Path::to_owned);
                let one_folder = group.iter().all(|(_, source)| parent(source) == parent(group[0].1));
                renamed |= one_folder || last;
                for (i, source) in group {
                    stems[i] = match (one_folder, last) {
                        (true, false) => source.below.clone(),
                        (false, false) => without_extension(&whole_path(source, false)),
                        (_, true) => whole_path(source, true),
                    };
                }
            }
        }
        if let Some(group) = shared(sources, &stems, extensions).first() {
            let names: Vec<String> = group.iter().take(2).map(|(_, source)| source.name()).collect();
            bail!("{} would be saved under one name; use two --save folders", names.join(" and "));
        }
        if renamed {
            let example =
                extensions.last().map_or(String::new(), |extension| format!(", as photo.jpg.{extension}"));
            say(&format!("images that differ in their extension alone are saved with it{example}"));
        }
        let place = |path: &Path| Some((path.canonicalize().ok()?, name_of(path)));
        let images: HashMap<PathBuf, String> = files(sources).filter_map(place).collect();
        let read: HashMap<PathBuf, String> = read.iter().copied().filter_map(place).collect();
        for (source, stem) in sources.iter_mut().flatten().zip(stems) {
            source.below = stem;
            for file in extensions.iter().map(|extension| self.file(source, extension)) {
                if output.output.as_ref() == Some(&file) {
                    bail!("{} would be a result and --output; use another name for one", name_of(&file));
                }
                let Ok(there) = file.canonicalize() else { continue };
                if let Some(image) = images.get(&there) {
                    bail!("{image} would be replaced by its result; use another --save folder");
                }
                if let Some(file) = read.get(&there) {
                    bail!("{file} is read by this run and would be replaced; use another --save folder");
                }
                if !output.overwrite && !is_ours(&there) {
                    bail!(
                        "{} is there already and was not made by this program; use another --save folder, or \
                         --overwrite replaces it",
                        name_of(&file)
                    );
                }
            }
        }
        Ok(())
    }

    /// Says how many of the images that an earlier run finished have no files here.
    pub fn warn_of_missing(&self, extensions: &[&str], finished: &[Source]) {
        let lacks =
            |source: &&Source| extensions.iter().any(|extension| !self.file(source, extension).exists());
        let missing = finished.iter().filter(lacks).count();
        if missing > 0 {
            let name = self.name();
            say(&format!(
                "warning: {missing} images that an earlier run finished have no files in {name}, and get none"
            ));
        }
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
        self.0.join(with_extension(&source.below, extension))
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

/// The images of different places that share a file, each with its number among the images: a list for each file.
fn shared<'a>(
    sources: &'a [Result<Source, SourceError>],
    stems: &[PathBuf],
    extensions: &[&str],
) -> Vec<Vec<(usize, &'a Source)>> {
    let mut groups: BTreeMap<OsString, Vec<(usize, &Source)>> = BTreeMap::new();
    for (i, (source, stem)) in sources.iter().flatten().zip(stems).enumerate() {
        for extension in extensions {
            groups.entry(with_extension(stem, extension)).or_default().push((i, source));
        }
    }
    let differ =
        |group: &Vec<(usize, &Source)>| group.iter().any(|(_, other)| other.place != group[0].1.place);
    groups.into_values().filter(differ).collect()
}

/// All names that lead down to an image; `real` ones where links and `..` make two of one.
pub(super) fn whole_path(source: &Source, real: bool) -> PathBuf {
    match &source.place {
        Location::File(path) if real => plain(&path.canonicalize().unwrap_or_else(|_| path.clone())),
        Location::File(path) => plain(path),
        Location::Url(address) => {
            let address = address.split(['?', '#']).next().unwrap_or(address);
            plain(Path::new(address.split_once("://").map_or(address, |(_, rest)| rest)))
        }
        Location::Memory { .. } | Location::Member { .. } | Location::Pixels { .. } => source.below.clone(),
    }
}

fn without_extension(path: &Path) -> PathBuf {
    let stem = path.file_stem().map_or_else(OsString::new, OsString::from);
    path.with_file_name(stem)
}

fn with_extension(stem: &Path, extension: &str) -> OsString {
    let mut file = stem.as_os_str().to_owned();
    file.push(".");
    file.push(extension);
    file
}
