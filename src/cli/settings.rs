//! From what was typed to what it means on this machine.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use nat_convert::arch::Dilations;
use nat_infer::models::classifier::MOST_GRADIENTS;
use nat_infer::tasks::{LoadOptions, Model, TaskError};
use nat_infer::zoo::{self, Entry, Task};

use super::Verbosity;
use super::exit::say;
use super::shared::{DTypeName, DeviceName, ModelOptions};

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
enum Origin {
    Zoo(&'static Entry),
    Checkpoint(PathBuf),
}

/// A model that is chosen but not loaded, and how it will compute.
pub struct Settings {
    origin: Origin,
    load: LoadOptions,
    /// What the model is for; `None` takes any.
    task: Option<Task>,
    offline: bool,
    threads: usize,
    /// Images a forward pass.
    pub batch_size: usize,
    verbosity: Verbosity,
}

impl Settings {
    /// Looks names up, opens the device and starts the threads, for a model of `task`.
    ///
    /// # Errors
    /// When options contradict each other, or there is no such device.
    pub fn resolve(options: ModelOptions, task: Option<Task>, verbosity: Verbosity) -> Result<Self> {
        let origin = match (options.weights, options.model) {
            (Some(path), _) => Origin::Checkpoint(path),
            (None, Some(entry)) => Origin::Zoo(entry),
            (None, None) => Origin::Zoo(zoo::find(default_model(task))?),
        };
        if let (Origin::Zoo(_), Some(arch)) = (&origin, options.arch) {
            bail!("--arch says what a file of --weights is; --model {} takes the published one", arch.name);
        }
        let device = open_device(options.device)?;
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
        // A batch costs memory, and on few threads one image keeps all of them busy.
        let default_batch = if device.is_cpu() { threads.div_ceil(4).min(8) } else { 32 };
        Ok(Self {
            origin,
            load: LoadOptions {
                arch: options.arch.map(|entry| entry.name.clone()),
                dilations: options.dilations,
                backbone: false,
                gradients: false,
                device,
                dtype,
            },
            task,
            offline: options.offline,
            threads,
            batch_size: options.batch_size.unwrap_or(default_batch),
            verbosity,
        })
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

    /// Finds the model, fetches it if need be, and loads it.
    ///
    /// # Errors
    /// When it can't be had or does not hold what it should.
    pub fn load(&self) -> Result<Model> {
        let (model, from) = match &self.origin {
            Origin::Checkpoint(path) => (Model::open(path, &self.load)?, path.display().to_string()),
            Origin::Zoo(entry) => {
                // Said before hundreds of megabytes are fetched for nothing.
                if let Some(wanted) = self.task.filter(|task| !self.load.backbone && entry.task != *task) {
                    let (model, task) = (entry.name.clone(), entry.task.name());
                    return Err(TaskError::OtherTask { model, task, wanted: wanted.name() }.into());
                }
                let located = locate(entry, self.offline, self.verbosity)?;
                let from = match &located {
                    zoo::Located::Embedded => "part of the program".to_owned(),
                    zoo::Located::At(path) => path.display().to_string(),
                };
                (Model::named(entry, &located, &self.load)?, from)
            }
        };
        if model.dilations_assumed() && !self.verbosity.quiet {
            say(&format!(
                "warning: {} does not say its dilations, 1 is assumed (NAT); \
                 --arch or --dilations says them if it is a DiNAT",
                model.name()
            ));
        }
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

/// The weights of a published model, fetched if they are in no cache.
///
/// # Errors
/// When they can't be had; the message says what does without them.
pub fn locate(entry: &Entry, offline: bool, verbosity: Verbosity) -> Result<zoo::Located> {
    let settings = zoo::Settings { offline, env: zoo::Env::from_process() };
    let mut bars = zoo::Bars::new(&settings.env, verbosity.quiet);
    zoo::locate(entry, &settings, &mut bars).map_err(|error| {
        anyhow::anyhow!("{error} (--model {EMBEDDED_MODEL} is part of the program and needs no network)")
    })
}

fn open_device(name: DeviceName) -> Result<Device> {
    #[cfg(feature = "cuda")]
    let open = |number| nat_infer::cuda::open(number).map_err(|error| anyhow::anyhow!("{error}"));
    #[cfg(not(feature = "cuda"))]
    let open = |_| Err(anyhow::anyhow!("CUDA was not built into this program"));
    match name {
        DeviceName::Cpu => Ok(Device::Cpu),
        DeviceName::Auto => Ok(open(0).unwrap_or(Device::Cpu)),
        DeviceName::Cuda(number) => {
            open(number).map_err(|error| anyhow::anyhow!("GPU {number}: {error}; --device cpu does without"))
        }
    }
}
