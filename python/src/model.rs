//! A model that is loaded, once for each form in which its tasks need it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use nat_infer::candle_core::{DType, Device};
use nat_infer::tasks::{LoadOptions, Model, TaskError};
use nat_infer::zoo::{self, Access, Bars, Entry, Env, Located, Reference, Repository, Task, ZooError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::checkpoints::{Said, advice, in_full};
use crate::errors::ModelError;
use crate::pool;

/// Where a model comes from.
#[derive(Clone)]
enum FoundModel {
    Zoo(&'static Entry, Located),
    Repository(Repository, PathBuf),
    File(PathBuf),
    Bytes(Arc<PyBackedBytes>),
}

/// What a model is looked up by.
#[derive(FromPyObject)]
enum Asked {
    #[pyo3(transparent)]
    Bytes(PyBackedBytes),
    #[pyo3(transparent)]
    Name(String),
    #[pyo3(transparent)]
    Path(PathBuf),
}

/// How a network is built.
#[derive(Clone, Copy, PartialEq)]
pub enum ModelForm {
    /// As it answers.
    Whole,
    /// With gradients.
    Differentiable,
    /// The backbone alone.
    Backbone,
}

/// What is needed to load a model in another form, and those that are loaded.
pub struct Forms {
    origin: FoundModel,
    options: LoadOptions,
    labels: Option<Vec<String>>,
    loaded: Mutex<Vec<(ModelForm, Arc<Model>)>>,
}

/// A network with everything that it takes to run it on images.
#[pyclass(frozen, name = "Model", module = "nat_infer._native")]
pub struct PyModel {
    pub forms: Arc<Forms>,
    pub threads: Option<usize>,
    pub offline: bool,
    whole: Arc<Model>,
}

/// Bytes that several forms are loaded from.
struct BytesOfPython(Arc<PyBackedBytes>);

impl AsRef<[u8]> for BytesOfPython {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Forms {
    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.options.device
    }

    /// The model in this form, loaded where it was not yet.
    ///
    /// # Errors
    /// When it can't be loaded.
    pub fn get(&self, form: ModelForm) -> Result<Arc<Model>, TaskError> {
        // Held while it is loaded: of several threads that ask, one loads it.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, model)) = loaded.iter().find(|(of, _)| *of == form) {
            return Ok(Arc::clone(model));
        }
        let mut options = self.options.clone();
        options.gradients = form == ModelForm::Differentiable;
        options.backbone = form == ModelForm::Backbone;
        let model = match &self.origin {
            FoundModel::Zoo(entry, located) => Model::named(entry, located, &options),
            FoundModel::Repository(repository, path) => {
                Model::open_as(repository.to_string(), path, &options)
            }
            FoundModel::File(path) => Model::open(path, &options),
            FoundModel::Bytes(bytes) => {
                Model::from_bytes("bytes", BytesOfPython(Arc::clone(bytes)), &options)
            }
        };
        let model = match &self.labels {
            Some(labels) if form != ModelForm::Backbone => model?.with_labels(labels.clone())?,
            _ => model?,
        };
        let model = Arc::new(model);
        loaded.push((form, Arc::clone(&model)));
        Ok(model)
    }
}

impl PyModel {
    /// What the network answers; `None` of a backbone.
    pub fn task_of(&self) -> Option<Task> {
        self.whole.metadata().architecture.head.task()
    }
}

#[pymethods]
impl PyModel {
    /// Finds a model, fetches it where need be, and loads it. With it come the warnings about its file.
    #[staticmethod]
    #[allow(clippy::too_many_arguments, reason = "each is one of Python's keywords")]
    fn load(
        py: Python<'_>,
        asked: Asked,
        said: Said,
        labels: Option<Vec<String>>,
        device: &str,
        dtype: Option<&str>,
        threads: Option<usize>,
        offline: bool,
        quiet: bool,
    ) -> PyResult<(Self, Vec<String>)> {
        let mut warnings = Vec::new();
        let device = open_device(device, &mut warnings)?;
        let dtype = match dtype {
            Some("f32") => DType::F32,
            Some("f16") => DType::F16,
            Some("bf16") => DType::BF16,
            None if device.is_cpu() => DType::F32,
            None => DType::F16,
            Some(other) => {
                return Err(PyValueError::new_err(format!(
                    "dtype {other:?}: f32, f16 and bf16 are possible"
                )));
            }
        };
        let mut options = LoadOptions::on(device, dtype);
        options.dilations = said.dilations()?;
        let Said { arch, weights_key, ignore, .. } = said;
        (options.arch, options.weights_key, options.ignore) = (arch, weights_key, ignore);
        let whole = pool::run(py, threads, move |_| {
            let origin = locate(asked, &options, offline, quiet)?;
            let forms = Forms { origin, options, labels, loaded: Mutex::default() };
            let whole = forms.get(ModelForm::Whole).map_err(|error| refused(&error))?;
            Ok::<_, String>((forms, whole))
        });
        let (forms, whole) = whole?.map_err(ModelError::new_err)?;
        if !matches!(forms.origin, FoundModel::Zoo(..))
            && let Some(report) = whole.report()
        {
            let name = whole.short_name();
            warnings.extend(report.warnings.iter().map(|warning| format!("{name}: {}", in_full(warning))));
        }
        Ok((Self { forms: Arc::new(forms), threads, offline, whole }, warnings))
    }

    /// What it is called in records.
    #[getter]
    fn name(&self) -> &str {
        self.whole.name()
    }

    /// `classify`, `detect`, `segment`, or `features` for a backbone.
    #[getter]
    fn task(&self) -> &'static str {
        self.whole.metadata().architecture.head.task_name()
    }

    /// The names of its classes, where they have some.
    #[getter]
    fn labels(&self) -> Option<Vec<String>> {
        self.whole.metadata().labels.clone()
    }

    /// How many classes it tells apart.
    #[getter]
    fn classes(&self) -> Option<usize> {
        self.whole.metadata().architecture.classes()
    }

    /// Numbers that were learned.
    #[getter]
    fn parameters(&self) -> u64 {
        self.whole.metadata().architecture.parameters()
    }

    /// Architecture, preprocessing and labels as JSON, as a converted file has them.
    fn metadata(&self) -> PyResult<String> {
        let json = self.whole.metadata().to_map().and_then(|map| serde_json::to_string(&map));
        json.map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

/// The library's error with what helps.
fn refused(error: &TaskError) -> String {
    let advice = if let TaskError::Convert(error) = error { advice(error) } else { "" };
    format!("{error}{advice}")
}

/// Finds a model; a name of the zoo or of the Hub is fetched where no cache has it.
fn locate(asked: Asked, options: &LoadOptions, offline: bool, quiet: bool) -> Result<FoundModel, String> {
    let access = Access::new(offline, Env::from_process());
    let mut bars = Bars::new(&access.env, quiet);
    let advised = |error: ZooError| {
        let advice = match &error {
            ZooError::Offline { forbidden_by: zoo::OFFLINE, .. } => {
                "; load it once without offline=True, or a file instead"
            }
            ZooError::Offline { .. } => "; fetch it once without, or load a file instead",
            ZooError::Fetch { .. } => " and load that",
            _ => return error.to_string(),
        };
        format!("{error}{advice} (\"demo-digits\" is part of the package and needs no network)")
    };
    let reference: Reference = match asked {
        Asked::Bytes(bytes) => return Ok(FoundModel::Bytes(Arc::new(bytes))),
        Asked::Path(path) => return Ok(FoundModel::File(path)),
        Asked::Name(url) if zoo::is_web_address(&url) => {
            return zoo::locate_file(&url, &access, &mut bars).map(FoundModel::File).map_err(advised);
        }
        Asked::Name(name) => name.parse().map_err(|error: zoo::ReferenceError| error.to_string())?,
    };
    match reference {
        Reference::Repository(repository) => {
            let path = zoo::locate_repository(&repository, &access, &mut bars).map_err(advised)?;
            Ok(FoundModel::Repository(repository, path))
        }
        Reference::Entry(entry) => {
            let asked = [
                ("arch", options.arch.is_some()),
                ("dilations", options.dilations.is_some()),
                ("weights_key", options.weights_key.is_some()),
                ("ignore", !options.ignore.is_empty()),
            ];
            if let Some((name, _)) = asked.iter().find(|(_, given)| *given) {
                return Err(format!(
                    "{name} says what a file is; {:?} takes the published model",
                    entry.name
                ));
            }
            zoo::locate(entry, &access, &mut bars)
                .map(|located| FoundModel::Zoo(entry, located))
                .map_err(advised)
        }
    }
}

/// Opens `cpu`, `cuda`, `cuda:N` or `auto`, which takes a GPU where there is one.
fn open_device(name: &str, warnings: &mut Vec<String>) -> PyResult<Device> {
    let number = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" | "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
    };
    let Some(number) = number else {
        return Err(PyValueError::new_err(format!(
            "device {name:?}: cpu, cuda, cuda:N and auto are possible"
        )));
    };
    match open_gpu(number) {
        Ok(device) => Ok(device),
        Err((there, why)) if name == "auto" => {
            if there {
                warnings.push(format!("the GPU can't be used ({why}); computing on the CPU"));
            }
            Ok(Device::Cpu)
        }
        Err((_, why)) => {
            Err(ModelError::new_err(format!("GPU {number}: {why}; device=\"cpu\" does without")))
        }
    }
}

/// A GPU; where it can't be had, whether it is there, and why.
#[cfg(feature = "cuda")]
fn open_gpu(number: usize) -> Result<Device, (bool, String)> {
    use nat_infer::cuda::OpenError;
    nat_infer::cuda::open(number).map_err(|error| {
        (!matches!(error, OpenError::NoDevice | OpenError::Library { driver: true, .. }), error.to_string())
    })
}

#[cfg(not(feature = "cuda"))]
fn open_gpu(_: usize) -> Result<Device, (bool, String)> {
    Err((false, "CUDA was not built into this package".to_owned()))
}
