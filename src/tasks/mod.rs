//! What a library user calls: a model that is loaded, images in, results out. No arguments, no
//! printing, no network: a name is looked up and fetched by [`crate::zoo`].

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use nat_convert::arch::{Dilations, Family, Geometry, Head};
use nat_convert::checkpoint::{Checkpoint, Options, Part};
use nat_convert::error::ConvertError;
use nat_convert::metadata::Metadata;
use nat_convert::zoo::Task;

use self::fingerprint::Fingerprint;
use crate::images::mask::MaskError;
use crate::images::preprocess::CropError;
use crate::images::{CenterCrop, KeepRatio};
use crate::layers::in_words;
use crate::models::Network;
use crate::models::classifier::Classifier;
use crate::weights::{LoadError, Weights};
use crate::zoo::{Entry, Located};

pub use classify::Classify;
pub use detect::Detect;
pub use features::ExtractFeatures;
pub use image_task::ImageTask;
pub use saliency::Saliency;
pub use segment::Segment;

pub mod bench;
pub mod classify;
pub mod detect;
pub mod features;
pub mod files;
mod fingerprint;
mod image_task;
pub mod saliency;
pub mod segment;

/// The small model that is part of the program: `demo-digits`, handwritten digits.
static DEMO: &[u8] = include_bytes!("../../assets/demo-digits.safetensors");

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// A name from weights.toml that supplies what the file does not say.
    pub arch: Option<String>,
    /// Dilations, preferred to all others.
    pub dilations: Option<Dilations>,
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
        let (device, dtype) = (Device::Cpu, DType::F32);
        Self { arch: None, dilations: None, backbone: false, gradients: false, device, dtype }
    }
}

/// A network with everything that is needed to run it on an image.
pub struct Model {
    name: String,
    metadata: Metadata,
    network: Network,
    device: Device,
    dtype: DType,
}

/// Why a model can't be loaded or a task not be done: one line each.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum TaskError {
    #[error(transparent)]
    Convert(#[from] ConvertError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Crop(#[from] CropError),
    #[error("`{model}` is made to {task}, it can't {wanted}")]
    OtherTask { model: String, task: &'static str, wanted: &'static str },
    #[error("{given} labels are given and `{model}` has {classes} classes")]
    Labels { model: String, given: usize, classes: usize },
    #[error("`{model}` carries {own} labels and has {classes} classes")]
    OwnLabels { model: String, own: usize, classes: usize },
    #[error("`{model}` can't compute in {}: f32, f16 and bf16 are possible", dtype.as_str())]
    DType { model: String, dtype: DType },
    #[error("`{model}`: {error}")]
    Dilations { model: String, error: nat_convert::arch::DilationsError },
    #[error("the weights in the program can't be used: {0}")]
    Embedded(String),
    #[error("`{model}` has no resolution of its own to crop to: `resolution` has to be given")]
    NoCrop { model: String },
    #[error("`{model}` has {classes} classes, a label map holds up to 256")]
    Classes { model: String, classes: usize },
    #[error("`{model}` is fed by a crop, it has no scale")]
    NoScale { model: String },
    #[error(transparent)]
    Mask(#[from] MaskError),
    #[error("`{model}` has the classes 0 to {}, {class} is none", classes - 1)]
    Class { model: String, class: usize, classes: usize },
    #[error("`{model}` has no class `{name}`{}", instead(nearest, *classes))]
    ClassName { model: String, name: String, classes: usize, nearest: Vec<String> },
    #[error("`{name}` is the name of the classes {} of `{model}`: an index is one class", listed(indices))]
    Ambiguous { model: String, name: String, indices: Vec<usize> },
    #[error("`{model}` has no gradients: only classifiers have")]
    NoGradients { model: String },
    #[error("`{model}` answers with what is no number; a wider compute type helps if it is f16")]
    NotFinite { model: String },
    #[error("`{model}` can't be computed: {}", in_words(error))]
    Compute { model: String, error: candle_core::Error },
    #[error("stopped before it was done")]
    Stopped,
    #[error("{path}: can't be written: {error}")]
    Write { path: String, error: std::io::Error },
}

/// What a name that is no class's should have been.
fn instead(nearest: &[String], classes: usize) -> String {
    match nearest {
        [] => format!(": its classes have no names, only indices from 0 to {}", classes - 1),
        nearest => format!("; the nearest names are {}", nearest.join(", ")),
    }
}

/// The first of some indices in words.
fn listed(indices: &[usize]) -> String {
    const SHOWN: usize = 8;
    let shown = indices.iter().take(SHOWN).map(usize::to_string).collect::<Vec<_>>().join(", ");
    if indices.len() > SHOWN { shown + " …" } else { shown }
}

impl Model {
    /// Loads a checkpoint of any kind that the converter reads, file or folder. It is named after the file or folder
    /// and what is in it, `model.pth@1a2b3c4d`: the beginning of the weights' SHA-256 tells two of one name apart.
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
        let checkpoint = Self::checkpoint(&file, path, options)?;
        let fingerprint = Fingerprint::of(checkpoint.path());
        let model = Self::of(file, checkpoint, options)?;
        let name = format!("{}@{}", model.name, fingerprint.beginning()?);
        Ok(Self { name, ..model })
    }

    /// Opens the checkpoint of a model that is called `name`.
    fn checkpoint(name: &str, path: &Path, options: &LoadOptions) -> Result<Checkpoint, TaskError> {
        options.check(name)?;
        let open = |part| {
            let (arch, dilations) = (options.arch.clone(), options.dilations.clone());
            Checkpoint::open(path, &Options { arch, dilations, part, weights_key: None })
        };
        let mut checkpoint = open(Part::All)?;
        let head = &checkpoint.metadata().architecture.head;
        if options.backbone && !matches!(head, Head::Classifier { .. } | Head::Features) {
            checkpoint = open(Part::Backbone)?;
        }
        Ok(checkpoint)
    }

    fn of(name: String, checkpoint: Checkpoint, options: &LoadOptions) -> Result<Self, TaskError> {
        let metadata = checkpoint.metadata().clone();
        let weights = Weights::from_checkpoint(checkpoint, options.dtype, options.device.clone())?;
        Self::new(name, metadata, weights, options)
    }

    /// Loads a model of the zoo from where [`crate::zoo::locate`] found it.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn named(entry: &Entry, located: &Located, options: &LoadOptions) -> Result<Self, TaskError> {
        match located {
            Located::Embedded => Self::embedded(&entry.name, DEMO, options),
            Located::At(path) => {
                let arch = Some(entry.name.clone());
                let options = LoadOptions { arch, ..options.clone() };
                let checkpoint = Self::checkpoint(&entry.name, path, &options)?;
                Self::of(entry.name.clone(), checkpoint, &options)
            }
        }
    }

    /// Loads a safetensors file of ours that is part of a program.
    ///
    /// # Errors
    /// When it was not written by the converter.
    pub fn embedded(name: &str, bytes: &'static [u8], options: &LoadOptions) -> Result<Self, TaskError> {
        options.check(name)?;
        let unusable = |e: &dyn std::fmt::Display| TaskError::Embedded(e.to_string());
        let (_, header) = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| unusable(&e))?;
        let map = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let metadata = Metadata::from_map(&map).map_err(|e| unusable(&e))?;
        let mut metadata = metadata.ok_or_else(|| unusable(&"they carry no architecture"))?;
        if let Some(dilations) = &options.dilations {
            let backbone = &mut metadata.architecture.backbone;
            backbone.dilations = dilations
                .expand(&backbone.depths)
                .map_err(|error| TaskError::Dilations { model: name.to_owned(), error })?;
            metadata.dilations_known = true;
        }
        let weights = Weights::embedded(bytes, options.dtype, options.device.clone())?;
        Self::new(name.to_owned(), metadata, weights, options)
    }

    fn new(
        name: String,
        metadata: Metadata,
        weights: Weights,
        options: &LoadOptions,
    ) -> Result<Self, TaskError> {
        let classes = match &metadata.architecture.head {
            &Head::Classifier { classes } | &Head::Upernet { classes, .. } => Some(classes),
            Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector) => Some(detector.classes),
            Head::Features => None,
        };
        if let (Some(labels), Some(classes)) = (&metadata.labels, classes)
            && labels.len() != classes
        {
            return Err(TaskError::OwnLabels { model: name, own: labels.len(), classes });
        }
        let weights = if options.gradients { weights.differentiable() } else { weights };
        let network = Network::new(&metadata.architecture, &weights)?;
        Ok(Self { name, metadata, network, device: options.device.clone(), dtype: options.dtype })
    }

    /// The model's name, what it is, and the network itself.
    pub fn into_parts(self) -> (String, Metadata, Network) {
        (self.name, self.metadata, self.network)
    }

    /// The name in the zoo, or that of [`Model::open`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the device still answers: it is sent a few numbers and has to add them up. After a computation that
    /// failed, this tells a device that is lost from an image that can't be computed.
    pub fn works(&self) -> bool {
        let answers = || {
            let sum = Tensor::new(&[1f32, 2.0, 3.0], &self.device)?.sum_all()?;
            self.device.synchronize()?;
            sum.to_scalar::<f32>()
        };
        self.device.is_cpu() || matches!(answers(), Ok(6.0))
    }

    /// Architecture, labels and preprocessing.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether the dilations are only assumed to be 1: nothing in the file says otherwise.
    pub fn dilations_assumed(&self) -> bool {
        !self.metadata.dilations_known && self.metadata.architecture.backbone.family != Family::VitRpb
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
        Ok(CenterCrop::new(resolution, crop_pct, preprocessing)?)
    }

    /// The preprocessing of a detector or a segmenter, with the bounds that are given preferred to its own.
    ///
    /// # Errors
    /// When the bounds are out of range, or the model is a classifier.
    pub fn keep_ratio(&self, scale: Option<[usize; 2]>) -> Result<KeepRatio, TaskError> {
        let preprocessing = &self.metadata.preprocessing;
        let Geometry::Scale { scale: own, divisor } = preprocessing.geometry else {
            return Err(TaskError::NoScale { model: self.name.clone() });
        };
        Ok(KeepRatio::new(scale.unwrap_or(own), divisor, preprocessing)?)
    }

    /// The network of a classifier or a backbone, which is `wanted`.
    fn classifier(&self, wanted: Task) -> Result<&Classifier, TaskError> {
        match &self.network {
            Network::Classifier(network) => Ok(network),
            _ => Err(self.other_task(wanted)),
        }
    }

    /// That the model is made for another task than is `wanted` of it.
    fn other_task(&self, wanted: Task) -> TaskError {
        let task = match self.metadata.architecture.head {
            Head::Features => "give features",
            Head::Classifier { .. } => Task::Classify.name(),
            Head::MaskRcnn(_) | Head::CascadeMaskRcnn(_) => Task::Detect.name(),
            Head::Upernet { .. } => Task::Segment.name(),
        };
        TaskError::OtherTask { model: self.name.clone(), task, wanted: wanted.name() }
    }

    /// Preprocessed images, each [3, height, width], as one tensor [B, 3, height, width] of the compute type.
    fn stack(&self, inputs: &[&[f32]], [width, height]: [usize; 2]) -> candle_core::Result<Tensor> {
        let values = inputs.concat();
        Tensor::from_vec(values, (inputs.len(), 3, height, width), &self.device)?.to_dtype(self.dtype)
    }

    fn compute_error(&self, error: candle_core::Error) -> TaskError {
        TaskError::Compute { model: self.name.clone(), error }
    }
}
