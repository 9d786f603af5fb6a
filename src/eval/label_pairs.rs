//! Which label map belongs to which image, by the layouts of folders that people have.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

use walkdir::WalkDir;

use super::DatasetError;
use super::label_files::{LabelImage, read_labels};
use crate::pipeline::{Listing, Source, name_of};

/// What the values of label maps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelIds {
    /// The classes' numbers.
    Classes,
    /// Cityscapes' ids, 0 to 33, of which 19 are classes.
    Cityscapes,
}

/// An image and its label map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPair {
    /// The image; [`Source::below`] is its path below the images' folder.
    pub image: Source,
    /// The PNG file of its labels.
    pub labels: PathBuf,
    /// What its values are.
    pub ids: LabelIds,
    /// Whether no other image has its name in another folder.
    alone: bool,
}

/// The images of a dataset with their label maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPairs {
    /// The folder of the images.
    pub images: PathBuf,
    /// The folder of the label maps.
    pub labels: PathBuf,
    /// By the images' names.
    pub pairs: Vec<LabelPair>,
}

/// Where datasets have their images and label maps, below one folder. ADE20K, Cityscapes, mmsegmentation's own, others.
const LAYOUTS: [(&str, &str); 7] = [
    ("images/validation", "annotations/validation"),
    ("leftImg8bit/val", "gtFine/val"),
    ("img_dir/val", "ann_dir/val"),
    ("images/val", "annotations/val"),
    ("images/val", "labels/val"),
    ("images", "annotations"),
    ("images", "labels"),
];
/// The folders that stand beside each other in [`LAYOUTS`].
const BESIDE: [(&str, &str); 4] =
    [("leftImg8bit", "gtFine"), ("img_dir", "ann_dir"), ("images", "annotations"), ("images", "labels")];
/// How Cityscapes' images end.
const CITYSCAPES_IMAGE: &str = "_leftImg8bit";
/// How its label maps end, what is preferred first.
const CITYSCAPES_LABELS: [(&str, LabelIds); 2] =
    [("_gtFine_labelTrainIds", LabelIds::Classes), ("_gtFine_labelIds", LabelIds::Cityscapes)];
/// What its other maps have in their names.
const CITYSCAPES_OTHERS: &str = "_gtFine_";
/// The ids of Cityscapes' classes 0 to 18, as `cityscapesscripts.helpers.labels` has them.
const CITYSCAPES_IDS: [u16; 19] = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];
/// What is no class of Cityscapes'.
const IGNORED: u16 = 255;

impl LabelPair {
    /// The classes of the image's pixels.
    ///
    /// # Errors
    /// Those of [`read_labels`].
    pub fn read(&self) -> Result<LabelImage, DatasetError> {
        let mut image = read_labels(&self.labels)?;
        if self.ids == LabelIds::Cityscapes {
            for value in &mut image.values {
                let class = CITYSCAPES_IDS.iter().position(|id| id == value);
                *value = class.map_or(IGNORED, |class| class as u16);
            }
        }
        Ok(image)
    }
}

/// The images of the folder `data` with their label maps of the folder `annotations`, which have the same folders and
/// names; without `annotations`, of a layout that is known. `data` is the images' folder, or the dataset's of such a
/// layout.
///
/// # Errors
/// When there is no such folder or layout, and when an image or a label map is alone.
pub fn pairs(data: &Path, annotations: Option<&Path>) -> Result<LabelPairs, DatasetError> {
    for folder in [Some(data), annotations].into_iter().flatten() {
        if !folder.is_dir() {
            let why = if folder.exists() { "a file; a folder is wanted" } else { "no such folder" };
            return Err(DatasetError::new(folder, why));
        }
    }
    let (images, labels) = match annotations {
        Some(labels) => (images_of(data, labels), labels.to_owned()),
        None => layout(data).ok_or_else(|| {
            let known: Vec<String> =
                LAYOUTS.iter().map(|(images, labels)| format!("{images} + {labels}")).collect();
            let why = format!(
                "no label maps are known of this folder ({}); name their folder as annotations",
                known.join(", ")
            );
            DatasetError::new(data, why)
        })?,
    };
    let sources = sources(&images)?;
    let maps = label_maps(&labels)?;
    let has_cityscapes = sources.iter().any(|source| stem(&source.below).ends_with(CITYSCAPES_IMAGE));
    let mut names: HashMap<String, usize> = HashMap::new();
    for source in &sources {
        *names.entry(stem(&source.below)).or_default() += 1;
    }

    let mut pairs = Vec::new();
    let mut alone = Vec::new();
    let mut used = HashSet::new();
    let mut of_map: HashMap<&Path, PathBuf> = HashMap::new();
    for source in sources {
        let found = candidates(&source.below)
            .into_iter()
            .find_map(|(key, ids)| maps.get_key_value(&key).map(|(key, path)| (key, path, ids)));
        let Some((_, path, ids)) = found else {
            alone.push(source.below);
            continue;
        };
        if let Some(other) = of_map.insert(path, source.below.clone()) {
            let why = format!(
                "{} and {} would have one label map; rename one",
                name_of(&other),
                name_of(&source.below)
            );
            return Err(DatasetError::new(&images, why));
        }
        // Where both kinds are there, the other one is not alone either.
        used.extend(candidates(&source.below).into_iter().map(|(key, _)| key));
        let alone = names.get(&stem(&source.below)) == Some(&1);
        pairs.push(LabelPair { labels: path.clone(), ids, alone, image: source });
    }
    if let Some(first) = alone.first() {
        let wanted = candidates(first).first().map_or_else(PathBuf::new, |(key, _)| labels.join(png(key)));
        let why = format!(
            "{} of its images have no label map, the first is {}: there is no {}",
            alone.len(),
            name_of(first),
            name_of(&wanted)
        );
        return Err(DatasetError::new(&images, why));
    }
    let is_other = |key: &Path| has_cityscapes && stem(&png(key)).contains(CITYSCAPES_OTHERS);
    let mut left = maps.keys().filter(|key| !used.contains(*key) && (!is_other(key) || is_labels(key)));
    if let Some(first) = left.next() {
        let why = format!(
            "{} of its label maps have no image, the first is {}; use the images that they are of",
            left.count() + 1,
            name_of(&png(first))
        );
        return Err(DatasetError::new(&labels, why));
    }
    Ok(LabelPairs { images, labels, pairs })
}

/// The label map of a prediction for the image of `pair` in the folder `results`, where it is called as the image or
/// its labels are, or as `segment` saves it (`x.labels.png`), in the same folders or, where names are not used twice,
/// in none.
///
/// # Errors
/// When there is none.
pub fn prediction_of(pair: &LabelPair, results: &Path) -> Result<PathBuf, DatasetError> {
    let below = &pair.image.below;
    let stem = stem(below);
    let whole = below.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let city = stem.strip_suffix(CITYSCAPES_IMAGE).unwrap_or(&stem);
    let labels = pair.labels.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let names = [
        // Beside these `segment` saves a picture, which is called as a label map may be.
        format!("{stem}.labels.png"),
        format!("{whole}.labels.png"),
        format!("{city}.labels.png"),
        format!("{stem}.png"),
        labels,
        format!("{city}.png"),
    ];
    let folder = results.join(below.parent().unwrap_or(Path::new("")));
    let flat = pair.alone.then(|| results.to_owned());
    let mut places = [Some(&folder), flat.as_ref()]
        .into_iter()
        .flatten()
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    places.find(|place| place.is_file()).ok_or_else(|| {
        let why = format!("no such file, nor {stem}.labels.png: the image has no prediction");
        DatasetError::new(&folder.join(format!("{stem}.png")), why)
    })
}

/// The images that the folder `labels` is of: of a layout that is known those of the layout, else all of `data`.
fn images_of(data: &Path, labels: &Path) -> PathBuf {
    let is_labels = |folder: &Path| match (folder.canonicalize(), labels.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    };
    let layout =
        LAYOUTS.iter().find(|(images, maps)| data.join(images).is_dir() && is_labels(&data.join(maps)));
    layout.map_or_else(|| data.to_owned(), |(images, _)| data.join(images))
}

/// The folders of images and of label maps in or beside `data`.
fn layout(data: &Path) -> Option<(PathBuf, PathBuf)> {
    let below = LAYOUTS.iter().map(|(images, labels)| (data.join(images), data.join(labels)));
    let beside = BESIDE.iter().filter_map(|(images, labels)| {
        let parts: Vec<Component> = data.components().collect();
        let at = parts.iter().rposition(|part| part.as_os_str() == *images)?;
        let replaced = parts
            .iter()
            .enumerate()
            .map(|(i, part)| if i == at { OsStr::new(labels) } else { part.as_os_str() });
        Some((data.to_owned(), replaced.collect()))
    });
    below.chain(beside).find(|(images, labels)| images.is_dir() && labels.is_dir())
}

/// The images in a folder and all below it, by name.
fn sources(folder: &Path) -> Result<Vec<Source>, DatasetError> {
    let mut no_stdin = || Err(io::ErrorKind::Unsupported.into());
    // `-` would be standard input.
    let named = if folder == Path::new("-") { Path::new("./-") } else { folder };
    let found = Listing::expand(&[named.to_owned()], true, &mut no_stdin);
    let mut sources = found.sources.into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| {
        let text = error.to_string();
        let why = text.strip_prefix(&format!("{}: ", name_of(folder))).unwrap_or(&text).to_owned();
        DatasetError::new(folder, why)
    })?;
    sources.sort_by(|a, b| a.below.cmp(&b.below));
    Ok(sources)
}

/// The PNG files in a folder and all below it, by their paths in it without `.png`.
fn label_maps(folder: &Path) -> Result<BTreeMap<PathBuf, PathBuf>, DatasetError> {
    let is_hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
    let mut maps = BTreeMap::new();
    let walk = WalkDir::new(folder).min_depth(1).follow_links(true).into_iter();
    for entry in walk.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.file_name())) {
        let entry =
            entry.map_err(|error| DatasetError::new(error.path().unwrap_or(folder), "can't be searched"))?;
        let path = entry.path();
        if entry.file_type().is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
            let below = path.strip_prefix(folder).unwrap_or(path);
            maps.insert(below.with_file_name(below.file_stem().unwrap_or_default()), path.to_owned());
        }
    }
    Ok(maps)
}

/// What the label map of an image may be called, without `.png`, what is preferred first.
fn candidates(below: &Path) -> Vec<(PathBuf, LabelIds)> {
    let stem = stem(below);
    let mut names = Vec::new();
    if let Some(city) = stem.strip_suffix(CITYSCAPES_IMAGE) {
        names.extend(
            CITYSCAPES_LABELS.map(|(suffix, ids)| (below.with_file_name(format!("{city}{suffix}")), ids)),
        );
    }
    names.push((below.with_file_name(below.file_stem().unwrap_or_default()), LabelIds::Classes));
    names
}

/// Whether a map of Cityscapes' has labels.
fn is_labels(key: &Path) -> bool {
    CITYSCAPES_LABELS.iter().any(|(suffix, _)| key.to_string_lossy().ends_with(suffix))
}

/// The name of a file without its extension, as text.
fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A path without `.png` with it.
fn png(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".png");
    PathBuf::from(name)
}
