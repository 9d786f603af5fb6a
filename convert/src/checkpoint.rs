//! A checkpoint of any kind, opened: what it computes, and its tensors under canonical names.

use std::collections::HashMap;
use std::path::Path;

use crate::arch::shapes::InferError;
use crate::arch::{Architecture, Task, heads};
use crate::error::{ConvertError, Mismatch, quoted};
use crate::infer::{self, Hints};
use crate::known::{BesideTensors, Known};
use crate::layout::{self, Canonical, Dropped, Layout, Mapped, NotFound};
use crate::likeness::{looks_like, resembles};
use crate::metadata::{Metadata, SourceFile};
use crate::opened::OpenedSource;
pub use crate::options::{Options, Part};
use crate::report::{self, Report, TensorLine};
use crate::source::{Container, ElementType, TensorRef};
use crate::warning::{Remedy, Warning};
use crate::zoo;

/// An opened checkpoint. Its elements are still where they were: [`Checkpoint::read`] fetches a tensor. Threads may
/// share one and read at the same time.
pub struct Checkpoint {
    source: OpenedSource,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    index: HashMap<String, usize>,
    report: Report,
}

/// A tensor of an opened checkpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tensor {
    /// Canonical name.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Type of the elements that [`Checkpoint::read`] gives: F32, F16 or BF16.
    pub dtype: ElementType,
    parts: Vec<TensorRef>,
}

impl Checkpoint {
    /// Opens a file of any container and layout, or a folder as Transformers saves it, finds out
    /// what network it holds and compares every tensor with that network's.
    ///
    /// # Errors
    /// When the file can't be read, holds another network or not all of this one, or contradicts
    /// the options.
    pub fn open(path: &Path, options: &Options) -> Result<Checkpoint, ConvertError> {
        // A wrong name is told before anything is read.
        let arch = options.arch.as_deref().map(zoo::find).transpose()?;
        Self::of(OpenedSource::open(path)?, arch, options)
    }

    /// Opens a checkpoint that is in memory, of any container and layout: what a server was sent, what a program
    /// includes. The bytes are kept as they are, not copied. Messages call it `name`, and a published checkpoint is
    /// known by it as by a file's name (`nat_tiny.pth`). There is nothing beside bytes: what a `config.json` would
    /// state, [`Options::arch`] and [`Options::dilations`] do.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    ///
    /// ```no_run
    /// use nat_convert::checkpoint::{Checkpoint, Options};
    ///
    /// let received: Vec<u8> = std::fs::read("nat_tiny.pth")?;
    /// let checkpoint = Checkpoint::from_bytes("nat_tiny.pth", received, &Options::default())?;
    /// println!("{}", checkpoint.report());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_bytes(
        name: &str,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        options: &Options,
    ) -> Result<Checkpoint, ConvertError> {
        let arch = options.arch.as_deref().map(zoo::find).transpose()?;
        Self::of(OpenedSource::from_bytes(name, bytes)?, arch, options)
    }

    fn of(
        source: OpenedSource,
        arch: Option<&'static zoo::Entry>,
        options: &Options,
    ) -> Result<Checkpoint, ConvertError> {
        let (path, store) = (source.name.clone(), &source.store);
        let ours = Metadata::from_map(store.metadata())
            .map_err(|error| ConvertError::Config { path: path.clone(), reason: error.to_string() })?;
        let mut state = layout::find(store.root(), options.weights_key.as_deref()).map_err(
            |NotFound { reason, keys }| ConvertError::NoStateDict { path: path.clone(), reason, keys },
        )?;
        let (mut notes, mut warnings) = (Vec::new(), Vec::new());
        let (ignored, unused) = layout::ignore(&mut state.entries, &options.ignore);
        warnings.extend(
            unused.iter().map(|glob| format!("no tensor is called like {} to leave out", quoted(glob))),
        );
        let mut mapped = layout::map(&state.entries, state.scope.as_deref());
        mapped.dropped.extend(ignored.into_iter().map(|name| Dropped { name, reason: "left out as asked" }));
        if ours.is_some() {
            mapped.layout = Layout::Converted;
        }
        let beside = BesideTensors::of(&source, &mapped)?;
        let part_of = if options.part == Part::Backbone { keep_backbone(&mut mapped) } else { None };
        let hints = hints(arch, ours.as_ref(), &beside);
        let mut found = found_architecture(&path, &mapped, ours.as_ref(), &hints)?;
        let known = Known { arch, options, beside: &beside, ours: ours.as_ref(), file: &path, part_of };
        let (recipe, trained) = known.recipe(&found, &mapped, &mut warnings)?;
        found.recipe = recipe;
        let mismatch = infer::compare(&found, &mapped);
        if !mismatch.is_empty() {
            let network = report::in_words(&found, false);
            return Err(ConvertError::Tensors { path, network, mismatch: Box::new(mismatch) });
        }
        if let Some(entry) = arch.filter(|entry| !resembles(&found, &entry.architecture)) {
            let found = match looks_like(&found).as_slice() {
                [] => format!("a {}", report::in_words(&found, false)),
                names => format!("a {}; looks like {}", report::in_words(&found, false), names.join(" or ")),
            };
            return Err(ConvertError::Arch { path, name: entry.name.clone(), found });
        }

        let (architecture, stated) = known.dilations(found, &mut warnings)?;
        let entry = known.entry(&architecture);
        let labels = known.labels(&architecture, entry, &mut warnings)?;
        let metadata = Metadata {
            preprocessing: known.preprocessing(&architecture, entry, trained, &mut notes)?,
            palette: known.palette(architecture.classes()),
            labels,
            model: entry.filter(|e| e.architecture == architecture).map(|e| e.name.clone()),
            dilations_known: stated.is_some(),
            source: SourceFile { file: report::file_name(&path), sha256: None },
            converter: env!("CARGO_PKG_VERSION").to_owned(),
            architecture,
        };
        metadata.check().map_err(|reason| ConvertError::Config { path: path.clone(), reason })?;
        let tensors = tensors(&metadata.architecture, &mut mapped, &mut notes);
        let mut warnings: Vec<Warning> = warnings.into_iter().map(Warning::from).collect();
        warnings.append(&mut mapped.warnings);
        warnings.extend(other_weights(&state.key, &state.others));
        if stated.is_none() {
            let text = "dilations are not in the file and taken as 1, as NAT's are".to_owned();
            warnings.push(Warning { text, remedy: Some(Remedy::Dilations) });
        }
        let index = tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        let line = |tensor: &Tensor| TensorLine {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype: tensor.dtype,
        };
        let report = Report::new(report::ReportParts {
            path: &path,
            container: store.container(),
            layout: mapped.layout,
            weights_key: state.place(),
            other_keys: state.others,
            metadata: &metadata,
            dilations_from: stated,
            looks_like: looks_like(&metadata.architecture),
            tensors: tensors.iter().map(line).collect(),
            dropped: mapped.dropped,
            notes,
            warnings,
        });
        Ok(Checkpoint { source, metadata, tensors, index, report })
    }

    /// The file that was opened: in a folder, the one with the weights, or the index of several. `None` of bytes.
    pub fn path(&self) -> Option<&Path> {
        self.source.path()
    }

    /// The files that the tensors are read from, in the order of their names: one, unless the checkpoint was
    /// split; none of bytes.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.source.store.files()
    }

    /// All bytes of a checkpoint that was opened from memory; `None` of files.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.source.store.bytes()
    }

    /// What the file turned out to be.
    pub fn container(&self) -> Container {
        self.source.store.container()
    }

    /// Whether the file is one that this crate wrote and all of it is taken: its tensors are these,
    /// under these names. Of a detector's file the backbone alone has other names.
    pub fn is_converted(&self) -> bool {
        self.report.layout == Layout::Converted && self.report.dropped.is_empty()
    }

    /// What is needed to run the network. The hash of the source is not known yet.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Every tensor, in the order in which the network declares them.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// What was found in the file.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Replaces `out` by the elements of a tensor: contiguous, row-major, little-endian, in the
    /// returned type (that of [`Tensor::dtype`]).
    ///
    /// # Errors
    /// When there is no such tensor, or the file can't be read any more.
    pub fn read(&self, name: &str, out: &mut Vec<u8>) -> Result<ElementType, ConvertError> {
        let tensor = self.index.get(name).map(|&i| &self.tensors[i]);
        let tensor = tensor.ok_or_else(|| ConvertError::NoTensor(name.to_owned()))?;
        match tensor.parts.as_slice() {
            [whole] => self.source.store.read(whole, out)?,
            parts => {
                out.clear();
                let mut piece = Vec::new();
                for part in parts {
                    self.source.store.read(part, &mut piece)?;
                    out.extend_from_slice(&piece);
                }
            }
        }
        if tensor.parts.iter().any(|part| part.dtype == ElementType::F64) {
            narrow(out);
        }
        Ok(tensor.dtype)
    }
}

/// Rounds 64-bit floats to 32 bits in place.
fn narrow(bytes: &mut Vec<u8>) {
    for i in 0..bytes.len() / 8 {
        let mut wide = [0; 8];
        wide.copy_from_slice(&bytes[8 * i..8 * i + 8]);
        bytes[4 * i..4 * i + 4].copy_from_slice(&(f64::from_le_bytes(wide) as f32).to_le_bytes());
    }
    bytes.truncate(bytes.len() / 2);
}

/// What the tensors of a network without position bias do not tell, by who says it: the named architecture, our
/// metadata, the configuration beside the weights.
fn hints(arch: Option<&zoo::Entry>, ours: Option<&Metadata>, beside: &BesideTensors) -> Hints {
    let of = |architecture: &Architecture| {
        let (heads, kernel) = (&architecture.backbone.num_heads, architecture.backbone.kernel_size);
        Hints { num_heads: Some(heads.clone()), kernel_size: Some(kernel) }
    };
    let arch = arch.map(|entry| of(&entry.architecture));
    let ours = ours.map(|ours| of(&ours.architecture));
    [arch, ours, Some(beside.hints())].into_iter().flatten().fold(Hints::default(), Hints::or)
}

/// That a file has other weights than those that are taken.
fn other_weights(key: &str, others: &[String]) -> Option<Warning> {
    const SHOWN: usize = 4;
    let listed: Vec<_> = others.iter().take(SHOWN).map(|other| quoted(other)).collect();
    let taken = if key.is_empty() { "those of no key".to_owned() } else { quoted(key) };
    let text = format!("{taken} is taken; there are other weights under {}", listed.join(", "));
    (!others.is_empty()).then_some(Warning { text, remedy: Some(Remedy::WeightsKey) })
}

/// Why what stands on a backbone is dropped where that alone is wanted.
const NOT_BACKBONE: &str = "not of the backbone";

/// Drops what stands on the backbone, and says what it was made for.
fn keep_backbone(mapped: &mut Mapped) -> Option<Task> {
    let has = |prefix: &str| mapped.tensors.keys().any(|name| name.starts_with(prefix));
    let task = heads::task_told(has);
    let prefixed = mapped.tensors.keys().any(|name| name.starts_with("backbone."));
    for (name, tensor) in std::mem::take(&mut mapped.tensors) {
        let kept = match name.strip_prefix("backbone.") {
            Some(rest) => Some(rest.to_owned()),
            None if prefixed || name.starts_with("head.") => None,
            None => Some(name),
        };
        match kept {
            Some(name) => drop(mapped.tensors.insert(name, tensor)),
            None => {
                let from = tensor.from;
                mapped.dropped.push(Dropped { name: from, reason: NOT_BACKBONE });
            }
        }
    }
    // What can't be read matters only in the backbone.
    for (unusable, mut names) in std::mem::take(&mut mapped.unusable) {
        for name in &mut names {
            if let Some(rest) = name.strip_prefix("backbone.") {
                *name = rest.to_owned();
            } else if prefixed || name.starts_with("head.") {
                name.clear();
            }
        }
        match names.iter().all(String::is_empty) {
            true => mapped.dropped.push(Dropped { name: unusable.name, reason: NOT_BACKBONE }),
            false => mapped.unusable.push((unusable, names)),
        }
    }
    task
}

/// The network that the tensors make. Metadata of ours is not believed either: it adds to the
/// tensors what is not in them.
fn found_architecture(
    path: &Path,
    mapped: &Mapped,
    ours: Option<&Metadata>,
    hints: &Hints,
) -> Result<Architecture, ConvertError> {
    let shapes =
        mapped.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())).collect();
    let buffers = mapped.dropped.iter().any(|dropped| dropped.name.ends_with("relative_position_index"));
    let global = buffers || ours.is_some_and(|ours| ours.architecture.backbone.family.attends_whole_map());
    infer::architecture(&shapes, global, hints).map_err(|error| {
        let path = path.to_owned();
        let unusable: Vec<_> = mapped.unusable.iter().map(|(unusable, _)| unusable.clone()).collect();
        // Without prefixes, which say nothing about a network.
        let names = mapped.tensors.keys().chain(mapped.unusable.iter().flat_map(|(_, names)| names));
        let looks_like = layout::looks_like(&names.map(String::as_str).collect::<Vec<_>>());
        let names: Vec<_> = mapped.tensors.values().map(|tensor| tensor.from.as_str()).collect();
        match (error, looks_like) {
            (_, Some(what)) => ConvertError::OtherNetwork { path, found: format!("looks like {what}") },
            // A size may be told by what is there and can't be read.
            _ if !unusable.is_empty() => ConvertError::Unusable {
                path,
                mismatch: Box::new(Mismatch { unusable, ..Mismatch::default() }),
            },
            (InferError::Unclear(reason), None) => ConvertError::Unclear { path, reason },
            (InferError::OtherNetwork, None) => {
                let first: Vec<_> = names.iter().take(3).map(|name| quoted(name)).collect();
                let found = format!("{} tensors, the first {}", names.len(), first.join(", "));
                ConvertError::OtherNetwork { path, found }
            }
        }
    })
}

/// The tensors in the network's order. Every one is there: they were compared.
fn tensors(architecture: &Architecture, mapped: &mut Mapped, notes: &mut Vec<String>) -> Vec<Tensor> {
    let mut wide = 0;
    let mut take = |(name, _): (String, _)| {
        let Canonical { dtype, shape, parts, .. } = mapped.tensors.remove(&name)?;
        wide += usize::from(dtype == ElementType::F64);
        let dtype = if dtype == ElementType::F64 { ElementType::F32 } else { dtype };
        Some(Tensor { name, shape, dtype, parts })
    };
    let tensors = architecture.tensors().into_iter().filter_map(&mut take).collect();
    if wide > 0 {
        notes.push(format!("{wide} tensors of 64-bit floats are rounded to 32 bits"));
    }
    tensors
}
