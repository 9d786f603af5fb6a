//! What was found in a checkpoint, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Serialize, Serializer};

use crate::arch::{Architecture, Dilations, Geometry, Preprocessing};
use crate::layout::{Dropped, Layout};
use crate::metadata::Metadata;
use crate::source::{Container, ElementType};
use crate::terminal::one_line;
pub use crate::warning::{Remedy, Warning};

/// What was found in a checkpoint. [`fmt::Display`] gives the short form, one fact per line, without the warnings,
/// with which a caller says what can be done; [`Report::tensor_table`] the tensors. Both are fit for a terminal, whatever the file holds; the fields
/// are as they were found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// File name without its folder.
    pub file: String,
    /// How the bytes are packed.
    #[serde(serialize_with = "container_name")]
    pub container: Container,
    /// How the tensors were named.
    pub layout: Layout,
    /// The key under which the weights were found; `None` for a bare state dict.
    pub weights_key: Option<String>,
    /// Keys of other weights in the file.
    pub other_weights: Vec<String>,
    /// `classify`, `detect`, `segment`, or `features` for a bare backbone.
    pub task: &'static str,
    /// The network in words.
    pub description: String,
    /// The published models with the same sizes.
    pub looks_like: Vec<&'static str>,
    /// Learnable parameters.
    pub parameters: u64,
    /// The network, exactly.
    pub architecture: Architecture,
    /// Dilations as [`Dilations`] are written.
    pub dilations: String,
    /// Who stated the dilations; `None` when they are assumed.
    pub dilations_from: Option<String>,
    /// How images are fed.
    pub preprocessing: Preprocessing,
    /// Class names.
    pub labels: Option<Vec<String>>,
    /// Tensors that are kept, under canonical names.
    pub tensors: Vec<TensorLine>,
    /// Tensors that are not, and why.
    pub dropped: Vec<Dropped>,
    /// What else was done.
    pub notes: Vec<String>,
    /// What can make an answer another one than was meant.
    pub warnings: Vec<Warning>,
}

/// A kept tensor.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TensorLine {
    /// Canonical name.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// `F32`, `F16` or `BF16`.
    #[serde(serialize_with = "dtype_name")]
    pub dtype: ElementType,
}

/// What a report is made of.
pub(crate) struct ReportParts<'a> {
    pub path: &'a Path,
    pub container: Container,
    pub layout: Layout,
    pub weights_key: String,
    pub other_keys: Vec<String>,
    pub metadata: &'a Metadata,
    pub dilations_from: Option<String>,
    pub looks_like: Vec<&'static str>,
    pub tensors: Vec<TensorLine>,
    pub dropped: Vec<Dropped>,
    pub notes: Vec<String>,
    pub warnings: Vec<Warning>,
}

impl Report {
    pub(crate) fn new(f: ReportParts) -> Self {
        let architecture = &f.metadata.architecture;
        Self {
            file: file_name(f.path),
            container: f.container,
            layout: f.layout,
            weights_key: Some(f.weights_key).filter(|key| !key.is_empty()),
            other_weights: f.other_keys,
            task: architecture.head.task_name(),
            description: in_words(architecture, f.metadata.dilations_known),
            looks_like: f.looks_like,
            parameters: architecture.parameters(),
            dilations: Dilations::shortest(&architecture.backbone.dilations).to_string(),
            dilations_from: f.dilations_from,
            preprocessing: f.metadata.preprocessing.clone(),
            labels: f.metadata.labels.clone(),
            tensors: f.tensors,
            dropped: f.dropped,
            notes: f.notes,
            warnings: f.warnings,
            architecture: architecture.clone(),
        }
    }

    /// Why tensors were left out, and how many for each reason.
    pub fn left_out(&self) -> BTreeMap<&'static str, usize> {
        let mut reasons = BTreeMap::new();
        self.dropped.iter().for_each(|dropped| *reasons.entry(dropped.reason).or_default() += 1);
        reasons
    }

    /// Every tensor's name, shape and dtype, one per line, then the dropped ones with the reasons.
    pub fn tensor_table(&self) -> TensorTable<'_> {
        TensorTable(self)
    }
}

/// The tensors of a report, for a terminal.
pub struct TensorTable<'a>(&'a Report);

impl fmt::Display for TensorTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { tensors, dropped, .. } = self.0;
        let width = tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
        for TensorLine { name, shape, dtype } in tensors {
            // Padding looks at the width only of text that is not formatted further.
            writeln!(f, "{:width$}  {:4}  {shape:?}", one_line(name), format!("{dtype:?}"))?;
        }
        dropped.iter().try_for_each(|Dropped { name, reason }| {
            writeln!(f, "{:width$}  dropped: {reason}", one_line(name))
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let container = container(self.container);
        writeln!(f, "{}: {container}, {} names", one_line(&self.file), self.layout)?;
        if let Some(key) = &self.weights_key {
            let others = self.other_weights.join(", ");
            let others = if others.is_empty() { others } else { format!(" (also there: {others})") };
            writeln!(f, "  weights    {}", one_line(&format!("{key}{others}")))?;
        }
        writeln!(f, "  task       {}", self.task)?;
        let alike = self.looks_like.join(" or ");
        let alike = if alike.is_empty() { alike } else { format!(" (looks like {alike})") };
        writeln!(f, "  network    {}{alike}", self.description)?;
        let from = self.dilations_from.as_deref().map_or("assumed".into(), |from| format!("from {from}"));
        writeln!(f, "  dilations  {} ({})", self.dilations, one_line(&from))?;
        match self.preprocessing.geometry {
            Geometry::Crop { resolution, crop_pct } => {
                writeln!(f, "  input      {resolution}x{resolution}, crop {crop_pct}")?;
            }
            Geometry::Scale { scale: [long, short], .. } => {
                writeln!(f, "  input      scaled into {long}x{short}")?;
            }
        }
        if let Some(labels) = &self.labels {
            writeln!(f, "  labels     {}", labels.len())?;
        }
        let (kept, parameters) = (self.tensors.len(), self.parameters);
        write!(f, "  tensors    {kept} kept ({parameters} parameters), {} dropped", self.dropped.len())?;
        for (i, (reason, count)) in self.left_out().iter().enumerate() {
            write!(f, "{}{reason} ({count})", if i == 0 { ": " } else { "; " })?;
        }
        writeln!(f)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  note       {}", one_line(note)))
    }
}

/// A network in words: family, head, sizes.
pub(crate) fn in_words(architecture: &Architecture, dilations_known: bool) -> String {
    let b = &architecture.backbone;
    let dilated = if b.is_dilated() { Some(true) } else { dilations_known.then_some(false) };
    let (family, head) = (b.family.kind().called(dilated), architecture.head.in_words());
    let list = |list: &[usize]| list.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let kernel = match b.family.attends_whole_map() {
        true => format!("{0}x{0} map", b.kernel_size),
        false => format!("kernel {}", b.kernel_size),
    };
    format!(
        "{family}{head}: embed {}, depths {}, heads {}, {kernel}, MLP ratio {}{}",
        b.embed_dim,
        list(&b.depths),
        list(&b.num_heads),
        b.mlp_ratio,
        if b.layer_scale { ", layer scale" } else { "" }
    )
}

/// The last part of a path, for messages and metadata.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn container(container: Container) -> &'static str {
    match container {
        Container::TorchZip => "PyTorch zip",
        Container::TorchLegacy => "PyTorch legacy",
        Container::Safetensors => "safetensors",
    }
}

fn container_name<S: Serializer>(value: &Container, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match value {
        Container::TorchZip => "torch_zip",
        Container::TorchLegacy => "torch_legacy",
        Container::Safetensors => "safetensors",
    })
}

fn dtype_name<S: Serializer>(value: &ElementType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:?}"))
}
