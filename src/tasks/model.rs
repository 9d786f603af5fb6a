//! A network that is loaded, with everything that it takes to run it on an image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use nat_convert::arch::{Dilations, Geometry};
use nat_convert::checkpoint::{Checkpoint, Options, Part};
use nat_convert::error::ConvertError;
use nat_convert::metadata::Metadata;
use nat_convert::report::Report;
use nat_convert::zoo::Task;
use sha2::{Digest, Sha256};

use super::error::TaskError;
use super::fingerprint::Fingerprint;
use crate::digest::hex;
use crate::images::{CenterCrop, KeepRatio};
use crate::memory;
use crate::models::Network;
use crate::models::classifier::Classifier;
use crate::weights::Weights;
use crate::zoo::{Entry, Located};

/// The small model that is part of the program: `demo-digits`, handwritten digits.
pub(super) static DEMO: &[u8] = include_bytes!("../../assets/demo-digits.safetensors");

/// How many digits of the weights' hash tell models of one name apart.
const FINGERPRINT: usize = 8;

/// How a model is loaded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadOptions {
    /// A name from weights.toml that supplies what the file does not say.
    pub arch: Option<String>,
    /// Dilations, preferred to all others.
    pub dilations: Option<Dilations>,
    /// The key under which a file holds the weights, see [`Options::weights_key`].
    pub weights_key: Option<String>,
    /// Tensors to leave out, see [`Options::ignore`].
    pub ignore: Vec<String>,
    /// Take the backbone alone of a network that is no classifier.
    pub backbone: bool,
    /// Build a network that has gradients, see [`Weights::differentiable`].
    pub gradients: bool,
    /// Where to compute.
    pub device: Device,
    /// In which type to compute: f32, f16 or bf16.
    pub dtype: DType,
}

impl LoadOptions {
    /// What the file says, computed on `device` in `dtype`.
    pub fn on(device: Device, dtype: DType) -> Self {
        Self { device, dtype, ..Self::default() }
    }

    /// # Errors
    /// When the model, which is called `model`, can't be computed like this.
    fn check(&self, model: &str) -> Result<(), TaskError> {
        match self.dtype {
            DType::F32 | DType::F16 | DType::BF16 => Ok(()),
            dtype => Err(TaskError::DType { model: model.to_owned(), dtype }),
        }
    }
}

impl Default for LoadOptions {
    /// The CPU in f32, and what the file says.
    fn default() -> Self {
        Self {
            arch: None,
            dilations: None,
            weights_key: None,
            ignore: Vec::new(),
            backbone: false,
            gradients: false,
            device: Device::Cpu,
            dtype: DType::F32,
        }
    }
}

/// A network with everything that is needed to run it on an image.
pub struct Model {
    pub(super) name: String,
    /// Whether the last of the name is a fingerprint.
    fingerprinted: bool,
    weights: WeightsPlace,
    pub(super) metadata: Metadata,
    /// Of a checkpoint that was opened.
    report: Option<Box<Report>>,
    pub(super) network: Network,
    pub(super) device: Device,
    pub(super) dtype: DType,
}

impl Model {
    /// Loads a checkpoint of any kind that the converter reads, file or folder. It is named after the file
    /// or folder and what is in it, `model.pth@1a2b3c4d`: the beginning of the weights' SHA-256 tells two of
    /// one name apart.
    ///
    /// # Errors
    /// When it can't be read or its tensors are not those of one of our networks.
    pub fn open(path: &Path, options: &LoadOptions) -> Result<Self, TaskError> {
        let file = match path.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            // `.` or `..`
            None => match path.canonicalize() {
                Ok(whole) => whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned(),
                Err(_) => path.display().to_string(),
            },
        };
        Self::open_as(file, path, options)
    }

    /// The same of a checkpoint that has a better name than its file, as the repository that it came from.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_as(name: String, path: &Path, options: &LoadOptions) -> Result<Self, TaskError> {
        let checkpoint = opened(&name, options, |said| Checkpoint::open(path, said))?;
        let fingerprint = Fingerprint::of(checkpoint.files());
        let model = Self::of(name, checkpoint, options)?;
        let hash = fingerprint.whole()?;
        let name = format!("{}@{}", model.name, &hash[..FINGERPRINT]);
        Ok(Self { name, fingerprinted: true, weights: WeightsPlace::Hashed(hash), ..model })
    }

    /// Loads a checkpoint of any kind that the converter reads from memory: what a server was sent, what a program
    /// includes. It is called `name`.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(
        name: &str,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        options: &LoadOptions,
    ) -> Result<Self, TaskError> {
        let bytes = SharedBytes(Arc::new(bytes));
        let checkpoint = opened(name, options, |said| Checkpoint::from_bytes(name, bytes.clone(), said))?;
        Self::of(name.to_owned(), checkpoint, options)
    }

    fn of(name: String, checkpoint: Checkpoint, options: &LoadOptions) -> Result<Self, TaskError> {
        let (metadata, report) = (checkpoint.metadata().clone(), checkpoint.report().clone());
        let weights = Weights::from_checkpoint(checkpoint, options.dtype, options.device.clone())?;
        let model = Self::new(name, metadata, weights, options)?;
        Ok(Self { report: Some(Box::new(report)), ..model })
    }

    /// Loads a model of the zoo from where [`crate::zoo`] found it.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn named(entry: &Entry, located: &Located, options: &LoadOptions) -> Result<Self, TaskError> {
        match located {
            Located::Embedded => {
                let model = Self::from_bytes(&entry.name, DEMO, options)?;
                Ok(Self { weights: WeightsPlace::Embedded, ..model })
            }
            Located::At(path) => {
                let arch = Some(entry.name.clone());
                let options = LoadOptions { arch, ..options.clone() };
                let checkpoint = opened(&entry.name, &options, |said| Checkpoint::open(path, said))?;
                let weights = WeightsPlace::Files(checkpoint.files().map(Path::to_owned).collect());
                let model = Self::of(entry.name.clone(), checkpoint, &options)?;
                Ok(Self { weights, ..model })
            }
        }
    }

    fn new(
        name: String,
        metadata: Metadata,
        weights: Weights,
        options: &LoadOptions,
    ) -> Result<Self, TaskError> {
        let weights = if options.gradients { weights.differentiable() } else { weights };
        let network = Network::new(&metadata.architecture, &weights)?;
        let LoadOptions { device, dtype, .. } = options.clone();
        let weights = WeightsPlace::Elsewhere;
        Ok(Self { name, fingerprinted: false, weights, metadata, report: None, network, device, dtype })
    }

    /// The model's name, what it is, and the network itself.
    pub fn into_parts(self) -> (String, Metadata, Network) {
        (self.name, self.metadata, self.network)
    }

    /// The name in the zoo, or that of [`Model::open`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name without what tells files of one name apart: for messages.
    pub fn short_name(&self) -> &str {
        match self.name.rsplit_once('@') {
            Some((file, _)) if self.fingerprinted => file,
            _ => &self.name,
        }
    }

    /// The SHA-256 of the weights in small hexadecimal digits: of the file that they came from, or of the hashes of several
    /// files one after the other. `None` of a model that came from a caller's memory.
    ///
    /// # Errors
    /// When a file that was not read for it yet is not there any more.
    pub fn weights_sha256(&self) -> Result<Option<String>, TaskError> {
        Ok(match &self.weights {
            WeightsPlace::Hashed(hash) => Some(hash.clone()),
            WeightsPlace::Files(files) => Some(Fingerprint::of(files.iter().map(PathBuf::as_path)).whole()?),
            WeightsPlace::Embedded => Some(hex(&Sha256::digest(DEMO))),
            WeightsPlace::Elsewhere => None,
        })
    }

    /// Whether the device still answers: it is sent a few numbers and has to add them up. After a
    /// computation that failed, this tells a device that is lost from an image that can't be computed.
    pub fn works(&self) -> bool {
        let answers = || {
            let sum = Tensor::new(&[1f32, 2.0, 3.0], &self.device)?.sum_all()?;
            self.device.synchronize()?;
            sum.to_scalar::<f32>()
        };
        self.device.is_cpu() || matches!(answers(), Ok(6.0))
    }

    /// The model with other names of its classes.
    ///
    /// # Errors
    /// When there are not as many as classes.
    pub fn with_labels(mut self, labels: Vec<String>) -> Result<Self, TaskError> {
        let (given, classes) = (labels.len(), self.metadata.architecture.classes().unwrap_or(0));
        if given != classes {
            return Err(TaskError::Labels { model: self.name, given, classes });
        }
        self.metadata.labels = Some(labels);
        Ok(self)
    }

    /// Architecture, labels and preprocessing.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What was found in the checkpoint, of one that was opened: among it the warnings, which tell what can make
    /// an answer another one than was meant.
    pub fn report(&self) -> Option<&Report> {
        self.report.as_deref()
    }

    /// Whether the dilations are only assumed to be 1: nothing in the file says otherwise.
    pub fn dilations_assumed(&self) -> bool {
        !self.metadata.dilations_known && !self.metadata.architecture.backbone.family.attends_whole_map()
    }

    /// The preprocessing of the model, with the numbers that are given preferred to its own; for a
    /// detector's or a segmenter's backbone a resolution has to be given.
    ///
    /// # Errors
    /// When the numbers are out of range, or neither given nor the model's.
    pub fn center_crop(
        &self,
        resolution: Option<usize>,
        crop_pct: Option<f64>,
    ) -> Result<CenterCrop, TaskError> {
        let preprocessing = &self.metadata.preprocessing;
        let (own_resolution, own_crop_pct) = match preprocessing.geometry {
            Geometry::Crop { resolution, crop_pct } => (Some(resolution), crop_pct),
            Geometry::Scale { .. } => (None, 0.875),
        };
        let Some(resolution) = resolution.or(own_resolution) else {
            return Err(TaskError::NoCrop { model: self.name.clone() });
        };
        let crop_pct = crop_pct.unwrap_or(own_crop_pct);
        let crop = CenterCrop::new(resolution, crop_pct, preprocessing)?;
        let model = || self.name.clone();
        self.has_room([resolution; 2]).map_err(|what| TaskError::Memory { model: model(), what })?;
        Ok(crop)
    }

    /// The preprocessing of a detector or a segmenter, with the bounds that are given preferred to its own.
    ///
    /// # Errors
    /// When the bounds are out of range, or the model is a classifier.
    pub fn keep_ratio(&self, scale: Option<[usize; 2]>) -> Result<KeepRatio, TaskError> {
        let preprocessing = &self.metadata.preprocessing;
        let Geometry::Scale { scale: own, divisor, .. } = preprocessing.geometry else {
            return Err(TaskError::NoScale { model: self.name.clone() });
        };
        Ok(KeepRatio::new(scale.unwrap_or(own), divisor, preprocessing)?)
    }

    /// The network of a classifier or a backbone, which is `wanted`.
    pub(super) fn classifier(&self, wanted: Task) -> Result<&Classifier, TaskError> {
        match &self.network {
            Network::Classifier(network) => Ok(network),
            _ => Err(self.other_task(wanted)),
        }
    }

    /// That the model is made for another task than is `wanted` of it.
    pub(super) fn other_task(&self, wanted: Task) -> TaskError {
        let task = self.metadata.architecture.head.task().map_or("give features", Task::name);
        TaskError::OtherTask { model: self.name.clone(), task, wanted: wanted.name() }
    }

    /// Preprocessed images, each [3, height, width], as one tensor [B, 3, height, width] of the compute type.
    pub(super) fn stack(
        &self,
        inputs: &[&[f32]],
        [width, height]: [usize; 2],
    ) -> candle_core::Result<Tensor> {
        if let Err(too_large) = self.has_room([width, height]) {
            candle_core::bail!("{too_large}");
        }
        let values = inputs.concat();
        Tensor::from_vec(values, (inputs.len(), 3, height, width), &self.device)?.to_dtype(self.dtype)
    }

    /// Whether there is memory for an input of so many pixels; where there is not, in words. On a GPU its own allocator
    /// says so.
    fn has_room(&self, [width, height]: [usize; 2]) -> Result<(), String> {
        if !self.device.is_cpu() {
            return Ok(());
        }
        let needed = self.metadata.architecture.backbone.least_bytes(height, width);
        match memory::left() {
            Some(left) if left < needed => {
                let [needed, left] = [needed, left].map(|bytes| bytes.div_ceil(1 << 20));
                Err(format!("an input of {width}x{height} takes {needed} MiB at least, and {left} are left"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn compute_error(&self, error: candle_core::Error) -> TaskError {
        TaskError::Compute { model: self.name.clone(), error }
    }
}

/// Where weights came from.
enum WeightsPlace {
    /// Files with this hash.
    Hashed(String),
    /// Files.
    Files(Vec<PathBuf>),
    /// The program.
    Embedded,
    /// A caller's memory.
    Elsewhere,
}

/// Opens the checkpoint of a model that is called `name`, or of a network that is no classifier the backbone if that is
/// wanted.
fn opened(
    name: &str,
    options: &LoadOptions,
    open: impl Fn(&Options) -> Result<Checkpoint, ConvertError>,
) -> Result<Checkpoint, TaskError> {
    options.check(name)?;
    let open = |part| {
        let LoadOptions { arch, dilations, weights_key, ignore, .. } = options.clone();
        let mut said = Options::default().with_part(part).with_ignore(ignore);
        (said.arch, said.dilations, said.weights_key) = (arch, dilations, weights_key);
        open(&said)
    };
    let checkpoint = open(Part::All)?;
    let task = checkpoint.metadata().architecture.head.task();
    match task.is_some_and(|task| task != Task::Classify) && options.backbone {
        true => Ok(open(Part::Backbone)?),
        false => Ok(checkpoint),
    }
}

/// Bytes that a checkpoint may be opened of twice.
#[derive(Clone)]
struct SharedBytes(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}
