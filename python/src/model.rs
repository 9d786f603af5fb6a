//! A model that is loaded, once for each form in which its tasks need it.

use std::io;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nat_infer::candle_core::{DType, Device};
use nat_infer::tasks::{LoadOptions, Model, TaskError};
use nat_infer::zoo::{self, Access, Bars, Entry, Env, Located, Reference, Repository, Task, Watch, ZooError};
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

/// Why no image can be done.
pub enum Wrong {
    /// The task can't be done, or the model not be loaded.
    Task(TaskError),
    /// The model's file is another one than it was, in words.
    Changed(String),
    /// No thread can be started.
    Threads(io::Error),
}

impl From<TaskError> for Wrong {
    fn from(error: TaskError) -> Self {
        Self::Task(error)
    }
}

/// A model, and what is needed to load it in another form.
pub struct Forms {
    origin: FoundModel,
    options: LoadOptions,
    labels: Option<Vec<String>>,
    whole: Arc<Model>,
    /// Those that are made when they are needed.
    differentiable: OnceLock<Arc<Model>>,
    backbone: OnceLock<Arc<Model>>,
    /// Held while one is loaded, in the process that may have threads which hold it.
    loading: Mutex<()>,
    process: u32,
}

/// A network with everything that it takes to run it on images.
#[pyclass(frozen, name = "Model", module = "nat_infer._native")]
pub struct PyModel {
    pub forms: Arc<Forms>,
    pub threads: Option<usize>,
    pub offline: bool,
}

/// Bytes that several forms are loaded from.
struct BytesOfPython(Arc<PyBackedBytes>);

impl AsRef<[u8]> for BytesOfPython {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FoundModel {
    /// Loads the model in this form.
    fn load(
        &self,
        form: ModelForm,
        options: &LoadOptions,
        labels: Option<&Vec<String>>,
    ) -> Result<Arc<Model>, TaskError> {
        let mut options = options.clone();
        options.gradients = form == ModelForm::Differentiable;
        options.backbone = form == ModelForm::Backbone;
        let model = match self {
            Self::Zoo(entry, located) => Model::named(entry, located, &options),
            Self::Repository(repository, path) => Model::open_as(repository.to_string(), path, &options),
            Self::File(path) => Model::open(path, &options),
            Self::Bytes(bytes) => Model::from_bytes("bytes", BytesOfPython(Arc::clone(bytes)), &options),
        };
        Ok(Arc::new(match labels {
            Some(labels) if form != ModelForm::Backbone => model?.with_labels(labels.clone())?,
            _ => model?,
        }))
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
    /// When it can't be loaded, or its file is another one by now.
    pub fn get(&self, form: ModelForm) -> Result<Arc<Model>, Wrong> {
        let place = match form {
            ModelForm::Whole => return Ok(Arc::clone(&self.whole)),
            ModelForm::Differentiable => &self.differentiable,
            ModelForm::Backbone => &self.backbone,
        };
        // Of several threads that ask, one loads it. A process that was forked meanwhile has not got that thread.
        let here = process::id() == self.process;
        let _loading = here.then(|| self.loading.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(model) = place.get() {
            return Ok(Arc::clone(model));
        }
        let model = self.origin.load(form, &self.options, self.labels.as_ref())?;
        // The name of a file ends with what is in it.
        if model.name() != self.whole.name() {
            let (name, was) = (model.name(), self.whole.name());
            return Err(Wrong::Changed(format!("{was} is {name} by now: load the model again")));
        }
        Ok(Arc::clone(place.get_or_init(|| model)))
    }
}

impl PyModel {
    /// The network as it answers.
    pub fn whole(&self) -> Arc<Model> {
        Arc::clone(&self.forms.whole)
    }

    /// What the network answers; `None` of a backbone.
    pub fn task_of(&self) -> Option<Task> {
        self.forms.whole.metadata().architecture.head.task()
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
        let pool = pool::pool(threads)?;
        let forms = pool::run(py, move |stop| {
            let origin = locate(asked, &options, offline, quiet, stop)?;
            let load = || origin.load(ModelForm::Whole, &options, labels.as_ref());
            let whole = pool.install(load).map_err(|error| refused(&error))?;
            let (differentiable, backbone) = (OnceLock::new(), OnceLock::new());
            let (loading, process) = (Mutex::default(), process::id());
            Ok::<_, String>(Forms {
                origin,
                options,
                labels,
                whole,
                differentiable,
                backbone,
                loading,
                process,
            })
        });
        let forms = forms?.map_err(ModelError::new_err)?;
        if !matches!(forms.origin, FoundModel::Zoo(..))
            && let Some(report) = forms.whole.report()
        {
            let name = forms.whole.short_name();
            warnings.extend(report.warnings.iter().map(|warning| format!("{name}: {}", in_full(warning))));
        }
        Ok((Self { forms: Arc::new(forms), threads, offline }, warnings))
    }

    /// What it is called in records.
    #[getter]
    fn name(&self) -> &str {
        self.forms.whole.name()
    }

    /// `classify`, `detect`, `segment`, or `features` for a backbone.
    #[getter]
    fn task(&self) -> &'static str {
        self.forms.whole.metadata().architecture.head.task_name()
    }

    /// The names of its classes, where they have some.
    #[getter]
    fn labels(&self) -> Option<Vec<String>> {
        self.forms.whole.metadata().labels.clone()
    }

    /// How many classes it tells apart.
    #[getter]
    fn classes(&self) -> Option<usize> {
        self.forms.whole.metadata().architecture.classes()
    }

    /// Numbers that were learned.
    #[getter]
    fn parameters(&self) -> u64 {
        self.forms.whole.metadata().architecture.parameters()
    }

    /// Architecture, preprocessing and labels as JSON, as a converted file has them.
    fn metadata(&self) -> PyResult<String> {
        let json = self.forms.whole.metadata().to_map().and_then(|map| serde_json::to_string(&map));
        json.map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

/// What shows a download, until Ctrl-C comes.
struct StoppableBars {
    bars: Bars,
    stop: Arc<AtomicBool>,
}

impl Watch for StoppableBars {
    fn begin(&mut self, name: &str, size: Option<u64>, url: &str) {
        self.bars.begin(name, size, url);
    }

    fn advance(&mut self, bytes: u64) {
        self.bars.advance(bytes);
    }

    fn finish(&mut self) {
        self.bars.finish();
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn waiting(&mut self, name: &str) {
        self.bars.waiting(name);
    }
}

/// The library's error with what helps.
fn refused(error: &TaskError) -> String {
    let advice = if let TaskError::Convert(error) = error { advice(error) } else { "" };
    format!("{error}{advice}")
}

/// Finds a model; a name of the zoo or of the Hub is fetched where no cache has it.
fn locate(
    asked: Asked,
    options: &LoadOptions,
    offline: bool,
    quiet: bool,
    stop: &Arc<AtomicBool>,
) -> Result<FoundModel, String> {
    let access = Access::new(offline, Env::from_process());
    let mut bars = StoppableBars { bars: Bars::new(&access.env, quiet), stop: Arc::clone(stop) };
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
