//! The published models.

use nat_infer::zoo::{self, Env, Task};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::ModelError;

/// Whether weights.toml has a model of this name.
#[pyfunction]
pub fn is_model_name(name: &str) -> bool {
    zoo::find(name).is_ok()
}

/// The names of the models, of one task if it is named.
#[pyfunction]
#[pyo3(signature = (task=None))]
pub fn list_models(task: Option<&str>) -> PyResult<Vec<&'static str>> {
    const TASKS: [Task; 3] = [Task::Classify, Task::Detect, Task::Segment];
    if let Some(task) = task.filter(|task| TASKS.iter().all(|known| known.name() != *task)) {
        let tasks = TASKS.map(Task::name).join(", ");
        return Err(PyValueError::new_err(format!("no model is for {task:?}: the tasks are {tasks}")));
    }
    let wanted = zoo::entries().iter().filter(|entry| task.is_none_or(|task| entry.task.name() == task));
    Ok(wanted.map(|entry| entry.name.as_str()).collect())
}

/// What is known of a model without its weights.
#[pyfunction]
pub fn model_info<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyDict>> {
    let entry = zoo::find(name).map_err(|error| ModelError::new_err(error.to_string()))?;
    let path = zoo::is_cached(entry, &Env::from_process());
    let info = PyDict::new(py);
    info.set_item("name", &entry.name)?;
    info.set_item("task", entry.task.name())?;
    info.set_item("parameters", entry.architecture.parameters())?;
    info.set_item("classes", entry.architecture.classes())?;
    info.set_item("labels", entry.labels.names())?;
    info.set_item("licence", &entry.licence)?;
    info.set_item("hub", &entry.hub)?;
    info.set_item("url", &entry.url)?;
    info.set_item("path", path)?;
    let reported = PyDict::new(py);
    let of = &entry.reported;
    for (name, value) in [
        ("top1", of.top1),
        ("box_map", of.box_map),
        ("mask_map", of.mask_map),
        ("miou", of.miou),
        ("miou_multi_scale", of.miou_multi_scale),
    ] {
        if let Some(value) = value {
            reported.set_item(name, value)?;
        }
    }
    info.set_item("reported", reported)?;
    Ok(info)
}
