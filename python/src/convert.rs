//! `convert` and `inspect`.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use nat_infer::nat_convert::checkpoint::{Checkpoint, Options, Part};
use nat_infer::nat_convert::error::ConvertError as Failed;
use nat_infer::nat_convert::report::Report;
use nat_infer::nat_convert::write::{FloatType, WriteOptions, check_target, write};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::checkpoints::{Said, advice, in_full};
use crate::errors::ConvertError;
use crate::pool;

/// The checkpoint at `path` as one safetensors file at `target`: the report as JSON, and its warnings.
#[pyfunction]
pub fn convert(
    py: Python<'_>,
    path: PathBuf,
    target: PathBuf,
    said: Said,
    backbone: bool,
    dtype: Option<&str>,
    overwrite: bool,
) -> PyResult<(String, Vec<String>)> {
    let mut writing = WriteOptions::default().with_overwrite(overwrite);
    writing.dtype = dtype.map(float_type).transpose()?;
    let options = options(&said, backbone)?;
    let done = pool::run(py, move |stop: &std::sync::Arc<AtomicBool>| -> Result<Report, Failed> {
        check_target(&path, &target, overwrite)?;
        let checkpoint = Checkpoint::open(&path, &options)?;
        write(&checkpoint, &target, writing, stop)?;
        Ok(checkpoint.report().clone())
    });
    in_words(done?)
}

/// What the checkpoint at `path` is, as JSON, and the warnings.
#[pyfunction]
pub fn inspect(py: Python<'_>, path: PathBuf, said: Said, backbone: bool) -> PyResult<(String, Vec<String>)> {
    let options = options(&said, backbone)?;
    let done =
        pool::run(py, move |_| Checkpoint::open(&path, &options).map(|opened| opened.report().clone()));
    in_words(done?)
}

fn options(said: &Said, backbone: bool) -> PyResult<Options> {
    let part = if backbone { Part::Backbone } else { Part::All };
    let mut options = Options::default().with_part(part).with_ignore(&said.ignore);
    options.arch.clone_from(&said.arch);
    options.weights_key.clone_from(&said.weights_key);
    options.dilations = said.dilations()?;
    Ok(options)
}

fn float_type(name: &str) -> PyResult<FloatType> {
    match name {
        "f32" => Ok(FloatType::F32),
        "f16" => Ok(FloatType::F16),
        "bf16" => Ok(FloatType::BF16),
        _ => Err(PyValueError::new_err(format!("dtype {name:?}: f32, f16 and bf16 are possible"))),
    }
}

fn in_words(done: Result<Report, Failed>) -> PyResult<(String, Vec<String>)> {
    let report = done.map_err(|error| ConvertError::new_err(format!("{error}{}", advice(&error))))?;
    let json = serde_json::to_string(&report).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    Ok((json, report.warnings.iter().map(in_full).collect()))
}
