//! From what was typed to what it means on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use nat_convert::arch::Dilations;
use nat_convert::error::ConvertError;
use nat_convert::report::{Remedy, Warning};
use nat_infer::models::classifier::MOST_GRADIENTS;
use nat_infer::pipeline::Fetch;
use nat_infer::simd::Isa;
use nat_infer::tasks::{Classify, LoadOptions, Model, TaskError, usual_batch_size};
use nat_infer::zoo::{self, Bars, Entry, Env, Located, Reference, Repository, Task, ZooError};

use super::exit::say;
use super::labels::LabelOptions;
use super::shared::{DTypeName, DeviceName, ModelOptions};
use super::verbosity::Verbosity;

/// The model of a task where none is named.
pub(super) fn default_model(task: Option<Task>) -> &'static str {
    match task {
        Some(Task::Detect) => "mask-rcnn-nat-tiny",
        Some(Task::Segment) => "upernet-nat-tiny",
        _ => "nat-tiny",
    }
}

/// The model that is part of the program.
const EMBEDDED_MODEL: &str = "demo-digits";

/// Where a model comes from.
enum ModelOrigin {
    Zoo(&'static Entry),
    Repository(Repository),
    Checkpoint(PathBuf),
    /// A checkpoint of the web, by its address.
    Web(String),
}

/// A model that is chosen but not loaded, and how it will compute.
pub struct Settings {
    origin: ModelOrigin,
    load: LoadOptions,
    /// What the model is for; `None` takes any.
    task: Option<Task>,
    offline: bool,
    threads: usize,
    /// Images per forward pass.
    pub batch_size: usize,
    verbosity: Verbosity,
}

impl Settings {
    /// Looks names up, opens the device and starts the threads, for a model of `task`.
    ///
    /// # Errors
    /// When options contradict each other, or there is no such device.
    pub fn resolve(options: ModelOptions, task: Option<Task>, verbosity: Verbosity) -> Result<Self> {
        if options.weights.as_deref() == Some(Path::new("-")) {
            bail!("--weights -: a checkpoint can't be read from a pipe; save it to a file");
        }
        let origin = match (options.weights, options.model) {
            (Some(path), _) => match path.to_str().filter(|text| zoo::is_web_address(text)) {
                Some(url) => ModelOrigin::Web(url.to_owned()),
                None => ModelOrigin::Checkpoint(path),
            },
            (None, Some(Reference::Repository(repository))) => ModelOrigin::Repository(repository),
            (None, Some(Reference::Entry(entry))) => ModelOrigin::Zoo(entry),
            (None, None) => ModelOrigin::Zoo(zoo::find(default_model(task))?),
        };
        if let ModelOrigin::Zoo(Entry { name, .. }) = &origin {
            if let Some(arch) = options.arch {
                bail!(
                    "--arch says what a file of --weights is; --model {} takes the published one",
                    arch.name
                );
            }
            if options.dilations.is_some() {
                bail!("--dilations says what a file of --weights is; --model {name} has its own");
            }
            if options.weights_key.is_some() || !options.ignore.is_empty() {
                bail!(
                    "--weights-key and --ignore say what to take of a file of --weights; --model {name} takes all"
                );
            }
        }
        Isa::from_env()?;
        let device = open_device(options.device, verbosity)?;
        let dtype = match options.dtype {
            Some(DTypeName::F32) => DType::F32,
            Some(DTypeName::F16) => DType::F16,
            Some(DTypeName::Bf16) => DType::BF16,
            None if device.is_cpu() => DType::F32,
            None => DType::F16,
        };
        if let Some(threads) = options.threads {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build_global()
                .context("can't start the threads of --threads")?;
        }
        let threads = rayon::current_num_threads();
        let default_batch = usual_batch_size(task, &device, threads);
        let mut load = LoadOptions::on(device, dtype);
        load.arch = options.arch.map(|entry| entry.name.clone());
        load.dilations = options.dilations;
        load.weights_key = options.weights_key.filter(|key| key != "auto");
        load.ignore = options.ignore;
        Ok(Self {
            origin,
            load,
            task,
            offline: options.offline,
            threads,
            batch_size: options.batch_size.unwrap_or(default_batch),
            verbosity,
        })
    }

    /// The file or folder of --weights.
    pub fn file(&self) -> Option<&Path> {
        match &self.origin {
            ModelOrigin::Checkpoint(path) => Some(path),
            ModelOrigin::Web(_) | ModelOrigin::Repository(_) | ModelOrigin::Zoo(_) => None,
        }
    }

    /// Reads images from the web, where that is not forbidden.
    pub fn fetch(&self) -> Arc<Fetch> {
        let settings = zoo::Access::new(self.offline, Env::from_process());
        Arc::new(move |url, limit| zoo::fetch_image(url, &settings, limit).map_err(|error| error.to_string()))
    }

    /// The same for images that go through the network one by one.
    #[must_use]
    pub fn one_by_one(mut self) -> Self {
        self.batch_size = 1;
        self
    }

    /// The published model, if it is one.
    pub fn entry(&self) -> Option<&'static Entry> {
        match &self.origin {
            ModelOrigin::Zoo(entry) => Some(entry),
            _ => None,
        }
    }

    /// How many CPU threads compute.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Where to compute.
    pub fn device(&self) -> &Device {
        &self.load.device
    }

    /// In which type to compute.
    pub fn dtype(&self) -> DType {
        self.load.dtype
    }

    /// Takes the backbone alone of a network that is no classifier.
    #[must_use]
    pub fn backbone(mut self) -> Self {
        self.load.backbone = true;
        self
    }

    /// Builds a network that has gradients. On a CPU, unless --batch-size is `asked`, as many copies of an image
    /// are computed together as there are threads.
    #[must_use]
    pub fn gradients(mut self, asked: Option<usize>) -> Self {
        self.load.gradients = true;
        if self.load.device.is_cpu() && asked.is_none() {
            self.batch_size = self.threads.min(MOST_GRADIENTS);
        }
        self
    }

    /// Says how classes get names, where nothing names them.
    pub fn say_names(&self, task: &Classify) {
        if !task.has_names() && !self.verbosity.quiet {
            let (model, classes) = (task.model().short_name(), task.labels().len());
            say(&format!(
                "warning: {model} does not name its {classes} classes, they are shown as numbers; \
                 --labels FILE names them, or --arch NAME if they are those of a published model"
            ));
        }
    }

    /// As [`Settings::load`], with the names of classes that are given.
    ///
    /// # Errors
    /// As [`Settings::load`], and when there are not as many as classes.
    pub fn load_with(&self, names: &LabelOptions) -> Result<Model> {
        // Read before a model is fetched for nothing.
        let labels = names.read()?;
        let model = self.load()?;
        Ok(match labels {
            Some(labels) => model.with_labels(labels)?,
            None => model,
        })
    }

    /// Says what was found in a checkpoint that nobody published here: its warnings, and with -v the rest.
    fn say_report(&self, model: &Model) {
        let Some(report) = model.report().filter(|_| !matches!(self.origin, ModelOrigin::Zoo(_))) else {
            return;
        };
        for Warning { text, remedy, .. } in &report.warnings {
            let advice = match remedy {
                Some(Remedy::Dilations) => "; --arch or --dilations states them if it is a DiNAT",
                Some(Remedy::WeightsKey) => "; --weights-key takes the other",
                Some(Remedy::Ignore) => "; --ignore leaves the former out",
                _ => "",
            };
            if !self.verbosity.quiet {
                say(&format!("warning: {}: {text}{advice}", model.short_name()));
            }
        }
        for note in &report.notes {
            self.verbosity.explain("note", note);
        }
        for (reason, count) in report.left_out() {
            self.verbosity.explain("left out", format!("{reason} ({count})"));
        }
    }

    /// Finds the model, fetches it if need be, and loads it.
    ///
    /// # Errors
    /// When it can't be had or does not hold what it should.
    pub fn load(&self) -> Result<Model> {
        let (offline, verbosity) = (self.offline, self.verbosity);
        let (model, from) = match &self.origin {
            ModelOrigin::Checkpoint(path) => {
                (Model::open(path, &self.load).map_err(unreadable)?, path.display().to_string())
            }
            ModelOrigin::Web(url) => {
                let path = locate_file(url, offline, verbosity)?;
                (Model::open(&path, &self.load).map_err(unreadable)?, path.display().to_string())
            }
            ModelOrigin::Repository(repository) => {
                let path = locate_repository(repository, offline, verbosity)?;
                let opened = Model::open_as(repository.to_string(), &path, &self.load).map_err(unreadable);
                let model = opened.with_context(|| format!("the repository {repository} can't be used"))?;
                (model, path.display().to_string())
            }
            ModelOrigin::Zoo(entry) => {
                // Said before hundreds of megabytes are fetched for nothing.
                if let Some(wanted) = self.task.filter(|task| !self.load.backbone && entry.task != *task) {
                    let (model, task) = (entry.name.clone(), entry.task.name());
                    return Err(TaskError::OtherTask { model, task, wanted: wanted.name() }.into());
                }
                let located = locate(entry, offline, verbosity)?;
                let from = match &located {
                    Located::Embedded => "part of the program".to_owned(),
                    Located::At(path) => path.display().to_string(),
                };
                (Model::named(entry, &located, &self.load)?, from)
            }
        };
        self.say_report(&model);
        let architecture = &model.metadata().architecture;
        let device = if self.load.device.is_cpu() { "cpu" } else { "cuda" };
        let computes = format!("{device}, {:?}, {} threads", self.load.dtype, self.threads).to_lowercase();
        self.verbosity.explain("model", model.name());
        self.verbosity.explain("weights", from);
        self.verbosity.explain("parameters", architecture.parameters());
        self.verbosity.explain("dilations", Dilations::shortest(&architecture.backbone.dilations));
        self.verbosity.explain("device", computes);
        self.verbosity.explain("batch size", self.batch_size);
        Ok(model)
    }
}

/// The library's error with the option that helps.
fn unreadable(error: TaskError) -> anyhow::Error {
    let advice = match &error {
        TaskError::Convert(ConvertError::NoStateDict { keys, .. }) if !keys.is_empty() => {
            "; --weights-key takes one of them"
        }
        TaskError::Convert(ConvertError::Tensors { mismatch, .. }) if mismatch.is_only_unknown() => {
            "; --ignore leaves out what is no part of the network"
        }
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}{advice}")
}

/// The weights of a published model, fetched if they are in no cache.
///
/// # Errors
/// When they can't be had; the message says what does without them.
pub fn locate(entry: &Entry, offline: bool, verbosity: Verbosity) -> Result<Located> {
    let (settings, mut bars) = fetching(offline, verbosity);
    zoo::locate(entry, &settings, &mut bars).map_err(|error| advised(error, ""))
}

/// What can be loaded of a repository of the Hub, fetched if it is not in the cache.
///
/// # Errors
/// When it can't be had; the message says what does without it.
pub fn locate_repository(repository: &Repository, offline: bool, verbosity: Verbosity) -> Result<PathBuf> {
    let (settings, mut bars) = fetching(offline, verbosity);
    zoo::locate_repository(repository, &settings, &mut bars).map_err(|error| {
        let is_path = repository.is_main() && Path::new(repository.name()).exists();
        advised(error, if is_path { "; --model takes names, this path here is for --weights" } else { "" })
    })
}

/// A checkpoint of the web, fetched if it is not in the cache.
fn locate_file(url: &str, offline: bool, verbosity: Verbosity) -> Result<PathBuf> {
    let (settings, mut bars) = fetching(offline, verbosity);
    zoo::locate_file(url, &settings, &mut bars).map_err(|error| advised(error, ""))
}

fn fetching(offline: bool, verbosity: Verbosity) -> (zoo::Access, Bars) {
    let settings = zoo::Access::new(offline, Env::from_process());
    let bars = Bars::new(&settings.env, verbosity.quiet);
    (settings, bars)
}

/// The library's error with the options that help.
fn advised(error: ZooError, more: &str) -> anyhow::Error {
    let embedded = format!(" (--model {EMBEDDED_MODEL} is part of the program and needs no network)");
    let advice = match &error {
        ZooError::Offline { forbidden_by: zoo::OFFLINE, .. } => {
            "; run once without --offline, or pass a file with --weights"
        }
        ZooError::Offline { .. } => "; fetch it once without, or pass a file with --weights",
        ZooError::Fetch { .. } => " and pass it with --weights",
        _ => return anyhow::anyhow!("{error}{more}"),
    };
    anyhow::anyhow!("{error}{advice}{more}{embedded}")
}

/// Why no GPU computes.
pub(super) struct NoGpu {
    /// Whether one is there, so that somebody may expect it to be used.
    pub(super) there: bool,
    pub(super) why: String,
}

#[cfg(feature = "cuda")]
pub(super) fn open_gpu(number: usize) -> Result<Device, NoGpu> {
    use nat_infer::cuda::OpenError;
    nat_infer::cuda::open(number).map_err(|error| NoGpu {
        there: !matches!(error, OpenError::NoDevice | OpenError::Library { driver: true, .. }),
        why: error.to_string(),
    })
}

#[cfg(not(feature = "cuda"))]
pub(super) fn open_gpu(_: usize) -> Result<Device, NoGpu> {
    Err(NoGpu { there: false, why: "CUDA was not built into this program".to_owned() })
}

fn open_device(name: DeviceName, verbosity: Verbosity) -> Result<Device> {
    match name {
        DeviceName::Cpu => Ok(Device::Cpu),
        DeviceName::Auto => Ok(open_gpu(0).unwrap_or_else(|none| {
            match none.warning().filter(|_| !verbosity.quiet) {
                Some(warning) => say(&warning),
                None => verbosity.explain("gpu", none.why),
            }
            Device::Cpu
        })),
        DeviceName::Cuda(number) => open_gpu(number).map_err(|none| none.refused(number)),
    }
}

impl NoGpu {
    /// What is said where this GPU and no other was asked for.
    pub(super) fn refused(&self, number: usize) -> anyhow::Error {
        anyhow::anyhow!("GPU {number}: {}; --device cpu does without", self.why)
    }

    /// What is said where the CPU computes instead; nothing of a machine that has no GPU.
    pub(super) fn warning(&self) -> Option<String> {
        let why = &self.why;
        self.there.then(|| format!("warning: the GPU can't be used ({why}); computing on the CPU"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_can_not_be_used_is_said_and_none_is_not() {
        let none = |there| NoGpu { there, why: "the driver is too old".to_owned() };
        assert_eq!(none(false).warning(), None);
        assert_eq!(
            none(true).warning().as_deref(),
            Some("warning: the GPU can't be used (the driver is too old); computing on the CPU")
        );
    }
}
