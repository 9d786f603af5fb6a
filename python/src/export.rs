//! Records as datasets.

use std::path::PathBuf;

use nat_infer::export::{
    Dataset, DatasetPlan, ExportClass, ExportError, ExportFormat, ImagePlace, Labelled, LabelledImage,
    LabelledWith, label_studio_task, of_classes, of_detections,
};
use nat_infer::results::{Classification, Detections, Segmentation};
use nat_infer::tasks::{Detect, DetectOptions};
use nat_infer::zoo::Task;
use numpy::{PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::{PyFileExistsError, PyOSError, PyValueError};
use pyo3::prelude::*;

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
    /// The image with what the record says of it.
    fn labelled(self, with: LabelledWith) -> PyResult<LabelledImage> {
        let Self(json, pixels, (file_name, path, url)) = self;
        let place = ImagePlace { file_name, path, url };
        let wrong = |error: &dyn std::fmt::Display| PyValueError::new_err(format!("a record: {error}"));
        let (model, size, labelled) = match with {
            LabelledWith::Choices => {
                let Classification { model, top, .. } =
                    serde_json::from_str(&json).map_err(|error| wrong(&error))?;
                (model, [0; 2], Labelled::Choices(top))
            }
            LabelledWith::Boxes | LabelledWith::Masks => {
                let Detections { model, width, height, detections, .. } =
                    serde_json::from_str(&json).map_err(|error| wrong(&error))?;
                let sizes = detections.iter().filter_map(|found| Some(found.segmentation.as_ref()?.size));
                for size in sizes {
                    is_in_bounds(size)?;
                    if size != [height, width] {
                        return Err(wrong(&format!(
                            "a mask of {size:?} is none of an image of {width}x{height}"
                        )));
                    }
                }
                (model, [width, height], of_detections(&detections).map_err(|error| wrong(&error))?)
            }
            LabelledWith::Regions => {
                let Segmentation { model, width, height, segments, .. } =
                    serde_json::from_str(&json).map_err(|error| wrong(&error))?;
                let pixels = pixels.filter(|pixels| pixels.shape() == [height, width]);
                let pixels = pixels.ok_or_else(|| wrong(&"its labels are no map of its image"))?;
                let most = segments.iter().map(|segment| segment.index + 1).max().unwrap_or(0).min(256);
                let mut classes: Vec<ExportClass> =
                    (0..most).map(|index| ExportClass { id: index + 1, name: index.to_string() }).collect();
                for segment in segments {
                    if let Some(class) = classes.get_mut(segment.index) {
                        class.name = segment.label;
                    }
                }
                let pixels: Vec<u8> = pixels.as_array().iter().copied().collect();
                (model, [width, height], of_classes(&pixels, [width, height], &classes))
            }
        };
        Ok(LabelledImage { place, size, image_id: None, model, labelled })
    }
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
    let images: Vec<LabelledImage> =
        records.into_iter().map(|record| record.labelled(with)).collect::<PyResult<_>>()?;
    let classes = classes.into_iter().map(|(id, name)| ExportClass { id, name }).collect();
    let mut plan = DatasetPlan::new(format, &folder);
    plan.overwrite = overwrite;
    unlocked(py, || {
        plan.check(images.iter().map(|image| &image.place))?;
        let mut dataset = Dataset::open(plan, classes, with)?;
        for image in &images {
            dataset.add(image).map_err(|error| ExportError::Image { error: Box::new(error) })?;
        }
        dataset.finish(false)
    })
    .map_err(|error| match error {
        ExportError::There { .. } => {
            PyFileExistsError::new_err(format!("{error}; overwrite=True replaces it"))
        }
        ExportError::Interrupted { .. } => {
            PyFileExistsError::new_err(format!("{error}; overwrite=True begins anew"))
        }
        ExportError::Image { .. } => PyValueError::new_err(error.to_string()),
        _ => PyOSError::new_err(error.to_string()),
    })
}

/// A record as a task of Label Studio's, in JSON.
#[pyfunction]
pub fn label_studio(record: RecordTuple<'_>, with_: &str) -> PyResult<String> {
    let with = with_named(with_)?;
    let task = label_studio_task(&record.labelled(with)?, with);
    serde_json::to_string(&task).map_err(|error| PyValueError::new_err(error.to_string()))
}
