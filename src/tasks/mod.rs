//! What a library user calls: a model that is loaded, images in, results out. No arguments, no
//! printing, no network: a name is looked up and fetched by [`crate::zoo`].

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use nat_convert::arch::{Dilations, Family, Geometry, Head};
use nat_convert::checkpoint::{Checkpoint, Options, Part};
use nat_convert::error::ConvertError;
use nat_convert::metadata::Metadata;
use nat_convert::report::Report;
use nat_convert::zoo::Task;

use self::fingerprint::Fingerprint;
use crate::images::mask::MaskError;
use crate::images::preprocess::CropError;
use crate::images::{CenterCrop, KeepRatio};
use crate::layers::in_words;
use crate::memory;
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
    name: String,
    /// Whether the last of the name is a fingerprint.
    fingerprinted: bool,
    metadata: Metadata,
    /// Of a checkpoint that was opened.
    report: Option<Box<Report>>,
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
    #[error("`{model}`: {what}")]
    Memory { model: String, what: String },
    #[error("`{model}` can't be computed: {}", in_words(error))]
    Compute { model: String, error: candle_core::Error },
    #[error("{what} in {file}, so that it has no number")]
    NotAnnotated { file: String, what: &'static str },
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
        let checkpoint = Self::checkpoint(&name, path, options)?;
        let fingerprint = Fingerprint::of(checkpoint.files());
        let model = Self::of(name, checkpoint, options)?;
        let name = format!("{}@{}", model.name, fingerprint.beginning()?);
        Ok(Self { name, fingerprinted: true, ..model })
    }

    /// Opens the checkpoint of a model that is called `name`.
    fn checkpoint(name: &str, path: &Path, options: &LoadOptions) -> Result<Checkpoint, TaskError> {
        options.check(name)?;
        let open = |part| {
            let LoadOptions { arch, dilations, weights_key, ignore, .. } = options.clone();
            Checkpoint::open(path, &Options { arch, dilations, part, weights_key, ignore })
        };
        let mut checkpoint = open(Part::All)?;
        let head = &checkpoint.metadata().architecture.head;
        if options.backbone && !matches!(head, Head::Classifier { .. } | Head::Features) {
            checkpoint = open(Part::Backbone)?;
        }
        Ok(checkpoint)
    }

    fn of(name: String, checkpoint: Checkpoint, options: &LoadOptions) -> Result<Self, TaskError> {
        let (metadata, report) = (checkpoint.metadata().clone(), checkpoint.report().clone());
        let weights = Weights::from_checkpoint(checkpoint, options.dtype, options.device.clone())?;
        let model = Self::new(name, metadata, weights, options)?;
        Ok(Self { report: Some(Box::new(report)), ..model })
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
        if let (Some(labels), Some(classes)) = (&metadata.labels, metadata.architecture.classes())
            && labels.len() != classes
        {
            return Err(TaskError::OwnLabels { model: name, own: labels.len(), classes });
        }
        let weights = if options.gradients { weights.differentiable() } else { weights };
        let network = Network::new(&metadata.architecture, &weights)?;
        let LoadOptions { device, dtype, .. } = options.clone();
        Ok(Self { name, fingerprinted: false, metadata, report: None, network, device, dtype })
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

    fn compute_error(&self, error: candle_core::Error) -> TaskError {
        TaskError::Compute { model: self.name.clone(), error }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicBool;

    use nat_convert::write::{WriteOptions, write};
    use nat_testing::checkpoint::with_metadata;
    use nat_testing::golden;
    use serde_json::Value;

    use super::bench::Bench;
    use super::classify::ClassifyOptions;
    use super::detect::DetectOptions;
    use super::saliency::{Method, SaliencyOptions};
    use super::segment::SegmentOptions;
    use super::*;
    use crate::zoo;

    fn digits(options: &LoadOptions) -> Result<Model, TaskError> {
        Model::named(zoo::find("demo-digits").unwrap(), &Located::Embedded, options)
    }

    /// A file of ours with other metadata.
    fn altered(file: &[u8], alter: impl FnOnce(&mut Value)) -> &'static [u8] {
        Vec::leak(with_metadata(file, alter))
    }

    fn converted(checkpoint: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("ours.safetensors");
        let checkpoint = Checkpoint::open(&golden::path(checkpoint), &Options::default()).unwrap();
        write(&checkpoint, &target, WriteOptions::default(), &AtomicBool::new(false)).unwrap();
        fs::read(target).unwrap()
    }

    #[test]
    fn labels_are_as_many_as_classes() {
        let networks = [
            DEMO.to_vec(),
            converted("detect/maskrcnn_s/model.pth"),
            converted("segment/upernet_b/model.pth"),
        ];
        for file in &networks {
            for count in [0, 1, 500] {
                let labels = vec!["x"; count];
                let bytes = altered(file, |metadata| metadata["labels"] = labels.into());
                let error = Model::embedded("it", bytes, &LoadOptions::default()).err().unwrap();
                assert!(
                    matches!(error, TaskError::OwnLabels { own, .. } if own == count),
                    "{count} labels: {error}"
                );
                // From a file they are left out, which its report says.
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("ours.safetensors");
                fs::write(&path, bytes).unwrap();
                let labels = Model::open(&path, &LoadOptions::default()).unwrap().metadata.labels;
                assert!(labels.is_none_or(|labels| labels.len() != count));
            }
            let bytes = altered(file, |metadata| metadata["labels"] = Value::Null);
            Model::embedded("it", bytes, &LoadOptions::default()).unwrap();
        }
    }

    #[test]
    fn types_that_nothing_computes_in_are_refused() {
        let checkpoint = golden::path("classify/nat-k7.pth");
        for (dtype, fits) in [
            (DType::F32, true),
            (DType::F16, true),
            (DType::BF16, true),
            (DType::F64, false),
            (DType::U8, false),
            (DType::U32, false),
            (DType::I64, false),
        ] {
            let options = LoadOptions { dtype, ..LoadOptions::default() };
            for model in [digits(&options), Model::open(&checkpoint, &options)] {
                let error = model.err().map(|error| error.to_string());
                assert_eq!(error.is_none(), fits, "{dtype:?}: {error:?}");
                let says = format!("can't compute in {}: f32, f16 and bf16", dtype.as_str());
                assert!(error.is_none_or(|error| error.contains(&says)));
            }
        }
    }

    /// Whatever a file is said to be, what is in it counts.
    #[test]
    fn files_are_named_after_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, beside) = (folder.path().join("run"), folder.path().join("model.safetensors"));
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("model.safetensors"), DEMO).unwrap();
        // Another file, by a space.
        fs::write(&beside, altered(DEMO, |_| ())).unwrap();
        assert_ne!(fs::read(&beside).unwrap(), DEMO);
        let of_file = |path: &Path| {
            use sha2::{Digest, Sha256};
            let hash = Sha256::digest(fs::read(path).unwrap());
            hash[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let named = LoadOptions { arch: Some("demo-digits".to_owned()), ..LoadOptions::default() };
        for options in [LoadOptions::default(), named] {
            for (path, file, weights) in [
                (&inside, "run", &inside.join("model.safetensors")),
                (&inside.join("model.safetensors"), "model.safetensors", &inside.join("model.safetensors")),
                (&inside.join("../run/."), "run", &inside.join("model.safetensors")),
                (&inside.join(".."), folder.path().file_name().unwrap().to_str().unwrap(), &beside),
                (&beside, "model.safetensors", &beside),
            ] {
                let model = Model::open(path, &options).unwrap();
                assert_eq!(model.name(), format!("{file}@{}", of_file(weights)), "{}", path.display());
                assert_eq!(model.short_name(), file);
            }
        }
        let entry = zoo::find("demo-digits").unwrap();
        for located in [Located::Embedded, Located::At(inside)] {
            let model = Model::named(entry, &located, &LoadOptions::default()).unwrap();
            assert_eq!((model.name(), model.short_name()), ("demo-digits", "demo-digits"));
        }
        assert!(Model::open(&folder.path().join("none"), &LoadOptions::default()).is_err());
    }

    #[test]
    fn classes_are_found_by_index_or_name() {
        let labels = ["crane", "Tabby cat", "tiger cat", "CRANE", "3", "stork", "stork", "nine", "a", "b"];
        let labels = Some(labels.map(str::to_owned).to_vec());
        let model = || digits(&LoadOptions::default()).unwrap();
        let task = Classify::new(model(), ClassifyOptions { labels, ..ClassifyOptions::default() }).unwrap();
        assert!(task.has_names());
        for (name, wanted) in [
            ("0", Ok(0)),
            ("9", Ok(9)),
            // An index comes before the label of another class.
            ("3", Ok(3)),
            ("10", Err("has the classes 0 to 9, 10 is none")),
            ("crane", Ok(0)),
            ("CRANE", Ok(3)),
            ("Crane", Err("`Crane` is the name of the classes 0, 3 of `demo-digits`: an index is one class")),
            ("stork", Err("`stork` is the name of the classes 5, 6")),
            ("tabby CAT", Ok(1)),
            ("cat", Err("has no class `cat`; the nearest names are Tabby cat, tiger cat, ")),
            ("nien", Err("has no class `nien`; the nearest names are nine, ")),
            ("-1", Err("has no class `-1`; ")),
            ("", Err("has no class ``; ")),
        ] {
            match (task.class_named(name), wanted) {
                (Ok(index), Ok(wanted)) => assert_eq!(index, wanted, "{name}"),
                (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{name}: {error}"),
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
        // No name is so long that it can't be compared.
        assert!(task.class_named(&"x".repeat(1 << 20)).is_err());

        let bytes = altered(DEMO, |metadata| metadata["labels"] = Value::Null);
        let nameless = Model::embedded("it", bytes, &LoadOptions::default()).unwrap();
        let task = Classify::new(nameless, ClassifyOptions::default()).unwrap();
        assert!(!task.has_names() && task.class_named("7").unwrap() == 7);
        let error = task.class_named("nine").unwrap_err().to_string();
        assert_eq!(error, "`it` has no class `nine`: its classes have no names, only indices from 0 to 9");
    }

    #[test]
    fn a_map_is_about_the_class_that_is_named() {
        let model = digits(&LoadOptions { gradients: true, ..LoadOptions::default() }).unwrap();
        let labels = "zero one two three four five six seven eight nine".split(' ').map(str::to_owned);
        let options = SaliencyOptions { labels: Some(labels.collect()), ..SaliencyOptions::default() };
        let task = Saliency::new(model, Method::GradCam, options).unwrap().about("Four").unwrap();
        let image = image::open("assets/nine.png").unwrap().into_rgb8();
        let map = task.run(&image, |_| std::ops::ControlFlow::Continue(())).unwrap();
        assert_eq!((map.class.index, map.class.label.as_str()), (4, "four"));
        assert!(matches!(task.about("ten"), Err(TaskError::ClassName { .. })));
    }

    #[test]
    fn only_classifiers_are_timed_with_gradients() {
        for (path, fits) in [
            ("classify/nat-k7.pth", true),
            ("detect/maskrcnn_s/model.pth", false),
            ("segment/upernet_b/model.pth", false),
        ] {
            let options = LoadOptions { gradients: true, ..LoadOptions::default() };
            let (model, metadata, network) = Model::open(&golden::path(path), &options).unwrap().into_parts();
            let (architecture, size, device, dtype) =
                (metadata.architecture, [64; 2], Device::Cpu, DType::F32);
            let bench = |gradients| Bench {
                model: model.clone(),
                architecture: architecture.clone(),
                size,
                batch_size: 2,
                runs: Some(1),
                gradients,
                dtype,
                device: device.clone(),
                progress: None,
            };
            assert!(bench(false).check(&network).is_ok());
            for error in [
                bench(true).check(&network).err(),
                bench(true).network(&network).err(),
                bench(true).layers(&network).err(),
            ] {
                let error = error.map(|error| error.to_string());
                let says = (!fits).then(|| format!("`{model}` has no gradients: only classifiers have"));
                assert_eq!(error, says);
            }
        }
    }

    #[test]
    fn tasks_and_errors_name_parameters_and_no_options() {
        let open = |path: &str| Model::open(&golden::path(path), &LoadOptions::default()).unwrap();
        let detector = open("detect/maskrcnn_s/model.pth");
        let error = detector.center_crop(None, None).unwrap_err().to_string();
        assert!(error.contains("`resolution` has to be given") && !error.contains("--"), "{error}");
        assert!(detector.works());

        // No images are no error, and no task takes another's model.
        let detect = Detect::new(detector, &DetectOptions::default()).unwrap();
        assert!(detect.infer(&[], &mut image_task::unwatched).unwrap().is_empty());
        let error =
            Segment::new(open("detect/maskrcnn_s/model.pth"), &SegmentOptions::default()).err().unwrap();
        assert!(matches!(error, TaskError::OtherTask { .. }), "{error}");

        let error = candle_core::Error::Msg("no memory".to_owned());
        let backtrace = Box::new(std::backtrace::Backtrace::force_capture());
        let error = candle_core::Error::WithBacktrace { inner: Box::new(error), backtrace };
        let error = TaskError::Compute { model: "it".to_owned(), error };
        assert_eq!(error.to_string(), "`it` can't be computed: no memory");
    }
}
