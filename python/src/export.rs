//! Records as datasets.

use std::fmt::Display;
use std::path::PathBuf;

use nat_infer::export::{
    Dataset, DatasetPlan, ExportClass, ExportError, ExportFormat, ImageLabels, ImagePlace, Labelled,
    LabelledWith, label_studio_task, of_detections,
};
use nat_infer::pipeline::plain;
use nat_infer::results::{Classification, Detection, Detections, Segmentation};
use nat_infer::tasks::{Detect, DetectOptions};
use nat_infer::zoo::Task;
use numpy::{PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::{PyFileExistsError, PyOSError, PyValueError};
use pyo3::prelude::*;
use serde::de::DeserializeOwned;

use crate::draw::is_in_bounds;
use crate::model::PyModel;
use crate::pool::unlocked;

/// A record as JSON, the class of every pixel if it has them, and what its image is: the path below the folder of the
/// images, where the file is, and the address.
#[derive(FromPyObject)]
pub struct RecordTuple<'py>(
    String,
    Option<PyReadonlyArray2<'py, u8>>,
    (PathBuf, Option<PathBuf>, Option<String>),
);

impl RecordTuple<'_> {
    /// The image with what the record says of it. Regions are of `classes`; without any, of those that the record names.
    fn labelled(&self, with: LabelledWith, classes: Option<&[ExportClass]>) -> PyResult<ImageLabels> {
        let Self(json, pixels, (file_name, path, url)) = self;
        // Whatever an image is called, its annotations are in the dataset's folder.
        let file_name = match plain(file_name) {
            name if name.as_os_str().is_empty() => PathBuf::from("image"),
            name => name,
        };
        let place = ImagePlace { file_name, path: path.clone(), url: url.clone() };
        let (model, size, labelled) = match with {
            LabelledWith::Choices => {
                let Classification { model, top, .. } = read(json)?;
                (model, [0; 2], Labelled::Choices(top))
            }
            LabelledWith::Boxes | LabelledWith::Masks => {
                let Detections { model, width, height, detections, .. } = read(json)?;
                for Detection { score, bbox, segmentation, .. } in &detections {
                    if !bbox.iter().chain([score]).all(|number| number.is_finite()) {
                        return Err(wrong("a box or a score is no number"));
                    }
                    let size = segmentation.as_ref().map_or([height, width], |mask| mask.size);
                    is_in_bounds(size)?;
                    if size != [height, width] {
                        return Err(wrong(format!(
                            "a mask of {size:?} is none of an image of {width}x{height}"
                        )));
                    }
                }
                (model, [width, height], of_detections(&detections).map_err(wrong)?)
            }
            LabelledWith::Regions => {
                let Segmentation { model, width, height, segments, .. } = read(json)?;
                let pixels = pixels.as_ref().filter(|pixels| pixels.shape() == [height, width]);
                let pixels = pixels.ok_or_else(|| wrong("its labels are no map of its image"))?;
                let pixels: Vec<u8> = pixels.as_array().iter().copied().collect();
                let named = |index: usize| segments.iter().find(|segment| segment.index == index);
                let of_record = |index: usize| ExportClass {
                    id: index + 1,
                    name: named(index).map_or_else(|| index.to_string(), |segment| segment.label.clone()),
                };
                let classes = classes.map_or_else(|| (0..256).map(of_record).collect(), <[_]>::to_vec);
                if let Some(class) = pixels.iter().find(|class| usize::from(**class) >= classes.len()) {
                    return Err(wrong(format!(
                        "its labels have a class {class}, the model has {}",
                        classes.len()
                    )));
                }
                (model, [width, height], Labelled::Regions { pixels, classes })
            }
        };
        if with != LabelledWith::Choices && size.contains(&0) {
            return Err(wrong("an image has no pixels"));
        }
        Ok(ImageLabels { place, size, image_id: None, model, labelled })
    }
}

/// A record of the program's JSON.
fn read<T: DeserializeOwned>(json: &str) -> PyResult<T> {
    serde_json::from_str(json).map_err(wrong)
}

fn wrong(error: impl Display) -> PyErr {
    PyValueError::new_err(format!("a record: {error}"))
}

fn with_named(name: &str) -> PyResult<LabelledWith> {
    match name {
        "choices" => Ok(LabelledWith::Choices),
        "boxes" => Ok(LabelledWith::Boxes),
        "masks" => Ok(LabelledWith::Masks),
        "regions" => Ok(LabelledWith::Regions),
        _ => Err(PyValueError::new_err(format!("{name:?} is nothing that images are labelled with"))),
    }
}

/// The classes of a model as datasets list them: numbers and names.
#[pyfunction]
pub fn export_classes(model: &Bound<'_, PyModel>) -> PyResult<Vec<(usize, String)>> {
    let model = model.get();
    let whole = model.whole();
    if model.task_of() == Some(Task::Detect) {
        let task = Detect::new(whole, &DetectOptions::default());
        let task = task.map_err(|error| PyValueError::new_err(error.to_string()))?;
        return Ok((0..).zip(task.labels()).map(|(i, name)| (task.category_id(i), name.clone())).collect());
    }
    let metadata = whole.metadata();
    let count = metadata.architecture.classes().unwrap_or(0);
    let names =
        metadata.labels.clone().unwrap_or_else(|| (0..count).map(|index| index.to_string()).collect());
    Ok((1..).zip(names).collect())
}

/// Writes records to a dataset, and gives the place where it is: `None` of no record.
#[pyfunction]
pub fn export(
    py: Python<'_>,
    records: Vec<RecordTuple<'_>>,
    with_: &str,
    format: &str,
    folder: PathBuf,
    classes: Vec<(usize, String)>,
    overwrite: bool,
) -> PyResult<Option<PathBuf>> {
    let with = with_named(with_)?;
    let format = ExportFormat::named(format).filter(|format| format.holds(with)).ok_or_else(|| {
        let names: Vec<&str> = ExportFormat::ALL
            .into_iter()
            .filter(|format| format.holds(with))
            .map(ExportFormat::name)
            .collect();
        PyValueError::new_err(format!("format {format:?}: {} can be written", names.join(", ")))
    })?;
    let classes: Vec<ExportClass> = classes.into_iter().map(|(id, name)| ExportClass { id, name }).collect();
    // All of it is looked at before anything is made; masks of all images at once would take too much memory.
    let places = records.iter().map(|record| Ok(record.labelled(with, Some(&classes))?.place));
    let places = places.collect::<PyResult<Vec<_>>>()?;
    let mut plan = DatasetPlan::new(format, &folder);
    plan.overwrite = overwrite;
    let begun = plan.tells_apart(&places).and_then(|()| plan.check(&places));
    let mut dataset = begun.and_then(|()| Dataset::open(plan, classes.clone(), with)).map_err(refused)?;
    for record in records {
        let image = record.labelled(with, Some(&classes))?;
        let added = unlocked(py, || dataset.add(&image));
        added.map_err(|error| PyOSError::new_err(error.to_string()))?;
    }
    unlocked(py, || dataset.finish(false)).map_err(refused)
}

/// The library's error with the parameter that helps.
fn refused(error: ExportError) -> PyErr {
    match error {
        ExportError::There { .. } => {
            PyFileExistsError::new_err(format!("{error}; overwrite=True replaces it"))
        }
        ExportError::Interrupted { .. } => {
            PyFileExistsError::new_err(format!("{error}; overwrite=True begins anew"))
        }
        ExportError::Shared { .. } => PyValueError::new_err(format!("{error}; export them apart")),
        _ => PyOSError::new_err(error.to_string()),
    }
}

/// A record as a task of Label Studio's, in JSON.
#[pyfunction]
pub fn label_studio(record: RecordTuple<'_>, with_: &str) -> PyResult<String> {
    let with = with_named(with_)?;
    let task = label_studio_task(&record.labelled(with, None)?, with);
    serde_json::to_string(&task).map_err(|error| PyValueError::new_err(error.to_string()))
}
