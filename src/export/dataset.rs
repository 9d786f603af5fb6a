//! A folder that becomes a dataset.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::coco::{self, CocoEntry};
use super::error::ExportError;
use super::journal::Journal;
use super::label_studio::{self, LabelStudioTask};
use super::labelled::{ExportClass, ImageLabels, ImagePlace, LabelledWith};
use super::{labelme, voc, yolo};
use crate::pipeline::name_of;
use crate::pipeline::partial::partial_path;
use crate::tasks::TaskError;
use crate::tasks::files::NewFile;

/// Files that a dataset has once.
const DATA: &str = "data.yaml";
const CLASSES: &str = "classes.txt";
const CONFIG: &str = "label_config.xml";

/// How a dataset is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// `annotations.json`
    Coco,
    /// `labels/<image>.txt`, `data.yaml` and `classes.txt`
    Yolo,
    /// `Annotations/<image>.xml`
    Voc,
    /// `<image>.json`
    Labelme,
    /// `tasks.json` and `label_config.xml`
    LabelStudio,
}

/// Where a dataset will be, and what of it: chosen before work begins.
#[derive(Clone, Debug)]
pub struct DatasetPlan {
    /// How it is written.
    pub format: ExportFormat,
    /// The folder, which is made if need be.
    pub folder: PathBuf,
    /// Which share of its images are written, and how many shares there are, from 1: each has a file of its own
    /// where all images are in one.
    pub share: [usize; 2],
    /// Replaces what is there.
    pub overwrite: bool,
    /// Goes on with what an earlier run left.
    pub resume: bool,
}

/// A dataset that grows.
pub struct Dataset {
    plan: DatasetPlan,
    classes: Vec<ExportClass>,
    with: LabelledWith,
    /// Files to be written at the end, with what is in them.
    beside: Vec<(PathBuf, Vec<u8>)>,
    lines: Lines,
    images: usize,
}

/// Where the images' annotations go.
enum Lines {
    Coco(Journal<CocoEntry>),
    LabelStudio(Journal<LabelStudioTask>),
    /// A file for each.
    Files,
}

impl ExportFormat {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Coco, Self::Yolo, Self::Voc, Self::Labelme, Self::LabelStudio];

    /// As it is called on the command line and in Python.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coco => "coco",
            Self::Yolo => "yolo",
            Self::Voc => "voc",
            Self::Labelme => "labelme",
            Self::LabelStudio => "label-studio",
        }
    }

    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Whether it can hold this.
    pub fn holds(self, with: LabelledWith) -> bool {
        with != LabelledWith::Choices || self == Self::LabelStudio
    }

    /// The folder in the dataset in which the files of images are, and how their names end; `None` where one file has all.
    fn of_image(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Yolo => Some(["labels", "txt"]),
            Self::Voc => Some(["Annotations", "xml"]),
            Self::Labelme => Some(["", "json"]),
            Self::Coco | Self::LabelStudio => None,
        }
    }
}

impl DatasetPlan {
    /// A new dataset of all images.
    pub fn new(format: ExportFormat, folder: &Path) -> Self {
        Self { format, folder: folder.to_owned(), share: [1, 1], overwrite: false, resume: false }
    }

    /// The file that an image's annotations will be in.
    pub fn file(&self, image: &ImagePlace) -> PathBuf {
        let Some([folder, extension]) = self.format.of_image() else { return self.whole() };
        let mut file = self.folder.join(folder).join(&image.file_name).with_extension("").into_os_string();
        file.push(".");
        file.push(extension);
        file.into()
    }

    /// The file that has all images, of formats in which one has.
    fn whole(&self) -> PathBuf {
        let stem = if self.format == ExportFormat::LabelStudio { "tasks" } else { "annotations" };
        self.folder.join(match self.share {
            [_, 1] => format!("{stem}.json"),
            [share, shares] => format!("{stem}.{share}-of-{shares}.json"),
        })
    }

    /// The other files that the dataset has or makes, whatever its images are.
    pub fn other_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = match self.format {
            ExportFormat::Yolo => vec![DATA.into(), CLASSES.into()],
            ExportFormat::LabelStudio => vec![CONFIG.into()],
            ExportFormat::Coco | ExportFormat::Voc | ExportFormat::Labelme => Vec::new(),
        };
        files.iter_mut().for_each(|file| *file = self.folder.join(&file));
        if self.format.of_image().is_none() {
            files.extend([self.whole(), partial_path(&self.whole())]);
        }
        files
    }

    /// Refuses images that the dataset can't tell apart: those whose annotations would be in one file, or under one name.
    ///
    /// # Errors
    /// When there are two.
    pub fn tells_apart<'a>(
        &self,
        images: impl IntoIterator<Item = &'a ImagePlace>,
    ) -> Result<(), ExportError> {
        let mut taken: HashMap<PathBuf, &ImagePlace> = HashMap::new();
        for image in images {
            let file = match self.format.of_image() {
                Some(_) => self.file(image),
                None => image.file_name.clone(),
            };
            let name = name_of(&file);
            if let Some(other) = taken.insert(file, image).filter(|other| *other != image) {
                let [first, second] = [other, image].map(ImagePlace::as_given);
                return Err(ExportError::Shared { first, second, file: name });
            }
        }
        Ok(())
    }

    /// Refuses to replace what is there.
    ///
    /// # Errors
    /// When the file of an image is there already, or what an interrupted run left, and neither
    /// [`overwrite`](Self::overwrite) nor [`resume`](Self::resume) was asked for.
    pub fn check<'a>(&self, images: impl IntoIterator<Item = &'a ImagePlace>) -> Result<(), ExportError> {
        if self.overwrite || self.resume {
            return Ok(());
        }
        let is_new = |file: &Path| match file.exists() {
            true => Err(ExportError::There { file: name_of(file) }),
            false => Ok(()),
        };
        if self.format.of_image().is_some() {
            return images.into_iter().try_for_each(|image| is_new(&self.file(image)));
        }
        let partial = partial_path(&self.whole());
        if partial.exists() {
            return Err(ExportError::Interrupted { file: name_of(&partial) });
        }
        is_new(&self.whole())
    }

    /// How many of these images have no file of annotations. Of a dataset in one file all have one or none.
    pub fn lacks<'a>(&self, images: impl IntoIterator<Item = &'a ImagePlace>) -> usize {
        images.into_iter().filter(|image| !self.file(image).exists()).count()
    }
}

impl Dataset {
    /// Begins, or goes on with what an earlier run left.
    ///
    /// # Errors
    /// When the folder or a file in it can't be made, or what is there must not be replaced or is no dataset.
    pub fn open(
        plan: DatasetPlan,
        classes: Vec<ExportClass>,
        with: LabelledWith,
    ) -> Result<Self, ExportError> {
        plan.check([])?;
        let beside = files_beside(&plan, &classes, with)?;
        fs::create_dir_all(&plan.folder).map_err(ExportError::write(&plan.folder))?;
        let (file, resume) = (plan.whole(), plan.resume);
        let lines = match (plan.format, resume) {
            (ExportFormat::Coco, false) => Lines::Coco(Journal::begin(&file, &classes)?),
            (ExportFormat::Coco, true) => Lines::Coco(Journal::resume(&file, &classes)?),
            (ExportFormat::LabelStudio, false) => Lines::LabelStudio(Journal::begin(&file, &classes)?),
            (ExportFormat::LabelStudio, true) => Lines::LabelStudio(Journal::resume(&file, &classes)?),
            (ExportFormat::Yolo | ExportFormat::Voc | ExportFormat::Labelme, _) => Lines::Files,
        };
        Ok(Self { plan, classes, with, beside, lines, images: 0 })
    }

    /// How many of these images have no annotations here.
    pub fn lacks<'a>(&self, images: impl IntoIterator<Item = &'a ImagePlace>) -> usize {
        let has = |image: &&ImagePlace| match &self.lines {
            Lines::Files => self.plan.file(image).exists(),
            Lines::Coco(journal) => journal.has(&image.file_name()),
            Lines::LabelStudio(journal) => journal.has(&label_studio::address(image)),
        };
        images.into_iter().filter(|image| !has(image)).count()
    }

    /// Adds an image. One that is in a dataset that goes on stays as it is there: somebody may have corrected it.
    ///
    /// # Errors
    /// When it can't be written; what was added before is there.
    pub fn add(&mut self, image: &ImageLabels) -> Result<(), TaskError> {
        let file = self.plan.file(&image.place);
        let failed = |error| TaskError::Write { path: name_of(&file), error };
        match &mut self.lines {
            Lines::Coco(journal) => {
                journal.add(&coco::entry(image)?).map_err(failed)?;
            }
            Lines::LabelStudio(journal) => {
                journal.add(&label_studio::label_studio_task(image, self.with)).map_err(failed)?;
            }
            Lines::Files if self.plan.resume && file.exists() => {}
            Lines::Files => {
                let folder = file.parent().unwrap_or(&self.plan.folder);
                fs::create_dir_all(folder).map_err(failed)?;
                let content = match self.plan.format {
                    ExportFormat::Yolo => yolo::text(image, self.with).into_bytes(),
                    ExportFormat::Voc => voc::xml(image).map_err(failed)?,
                    _ => labelme::json(image, self.with, folder).into_bytes(),
                };
                write(&file, &content).map_err(failed)?;
            }
        }
        self.images += 1;
        Ok(())
    }

    /// Ends, and says where the dataset is, if it has an image. It is made whole, unless it `goes_on` later.
    ///
    /// # Errors
    /// When it can't be written: what was added is there.
    pub fn finish(self, goes_on: bool) -> Result<Option<PathBuf>, ExportError> {
        let Self { plan, classes, beside, lines, images, .. } = self;
        if images > 0 {
            for (file, content) in beside {
                // Another run may have made it since.
                match fs::read(&file) {
                    Ok(there) if there != content && !plan.overwrite => {
                        return Err(ExportError::There { file: name_of(&file) });
                    }
                    _ => write(&file, &content).map_err(ExportError::write(&file))?,
                }
            }
        }
        match lines {
            Lines::Coco(journal) => {
                journal.end(goes_on, |lines, file| coco::write(lines, file, &classes, plan.share))
            }
            Lines::LabelStudio(journal) => journal.end(goes_on, label_studio::write),
            Lines::Files => Ok((images > 0).then_some(plan.folder)),
        }
    }
}

/// The files that a dataset has once: what its classes are.
///
/// # Errors
/// When one is there that says something else, which neither may be replaced nor is of this dataset.
fn files_beside(
    plan: &DatasetPlan,
    classes: &[ExportClass],
    with: LabelledWith,
) -> Result<Vec<(PathBuf, Vec<u8>)>, ExportError> {
    let files: Vec<(&str, Vec<u8>)> = match plan.format {
        ExportFormat::Yolo => {
            vec![(DATA, yolo::data(classes).into()), (CLASSES, yolo::names(classes).into())]
        }
        ExportFormat::LabelStudio => {
            let config = label_studio::config(classes, with).map_err(ExportError::write(&plan.folder))?;
            vec![(CONFIG, config)]
        }
        ExportFormat::Coco | ExportFormat::Voc | ExportFormat::Labelme => Vec::new(),
    };
    let mut left = Vec::new();
    for (name, content) in files {
        let file = plan.folder.join(name);
        match fs::read(&file) {
            Ok(there) if there == content => {}
            // People add to it; a run that goes on keeps that.
            Ok(_) if plan.resume => {}
            Ok(_) if !plan.overwrite => return Err(ExportError::There { file: name_of(&file) }),
            _ => left.push((file, content)),
        }
    }
    Ok(left)
}

/// Writes a file, whole or not at all.
fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(content)?;
    file.keep()
}
