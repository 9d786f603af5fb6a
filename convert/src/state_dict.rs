//! Tensors of any network: the state dict of a checkpoint, whatever the network is.
//!
//! [`StateDict`] reads the same files as [`Checkpoint`](crate::checkpoint::Checkpoint) and asks nothing of what is in
//! them: any program that wants the tensors of a `.pth` by their names begins here.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::error::{ConvertError, Mismatch, Unusable};
use crate::layout::{self, NotFound};
use crate::opened::OpenedSource;
use crate::source::{Container, ElementType, TensorRef, Value};

/// The tensors of a checkpoint of any network, by name. Their elements are still where they were:
/// [`StateDict::read`] fetches a tensor. Threads may share one and read at the same time.
///
/// It is found in whatever training saved around it: an average of the weights (EMA) is preferred, then
/// `state_dict`, `model` and other usual keys; moments of an optimizer are never taken. Names lose what training
/// wrapped around the network: `module.` (`DataParallel`, `AveragedModel`) where it stands before all of them, and
/// `_orig_mod.` (`torch.compile`), `_fsdp_wrapped_module.` and their like wherever they stand.
/// [`StateDict::with_stored_names`] undoes that.
///
/// ```no_run
/// use nat_convert::state_dict::StateDict;
///
/// let state = StateDict::open("resnet50_ema.pth".as_ref(), None)?;
/// let mut bytes = Vec::new();
/// for tensor in state.tensors() {
///     state.read(&tensor.name, &mut bytes)?;
///     println!("{} {:?} {:?}: {} bytes", tensor.name, tensor.shape, tensor.dtype, bytes.len());
/// }
/// for tensor in state.unreadable() {
///     println!("{}: {}; {}", tensor.name, tensor.what, tensor.advice);
/// }
/// # Ok::<(), nat_convert::error::ConvertError>(())
/// ```
pub struct StateDict {
    source: OpenedSource,
    key: String,
    other_keys: Vec<String>,
    tensors: Vec<StateTensor>,
    unreadable: Vec<UnreadableTensor>,
    index: HashMap<String, NamedPlace>,
}

/// A tensor of a state dict.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StateTensor {
    /// What [`StateDict::read`] takes.
    pub name: String,
    /// Its name in the file.
    pub stored_name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub dtype: ElementType,
    place: Arc<TensorRef>,
}

/// A tensor of a state dict that is there and can't be read: quantised, sparse, of 8-bit floats.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadableTensor {
    /// What it would be read by.
    pub name: String,
    /// Its name in the file.
    pub stored_name: String,
    /// What it is instead, as several of them are called: `quantised tensors`.
    pub what: String,
    /// What its owner can do.
    pub advice: &'static str,
}

/// What a name stands for, by its number.
#[derive(Clone, Copy)]
enum NamedPlace {
    Tensor(usize),
    Unreadable(usize),
}

impl StateDict {
    /// Opens a file of any container, a folder as Transformers saves it, or the index of a checkpoint in several
    /// files.
    ///
    /// `weights_key` is the key under which the file holds the weights, or keys joined by dots; what of it is no key
    /// is what the names there begin with, and only those are taken, without it (`state_dict.model` of a file of
    /// Lightning). `None` takes the preferred ones.
    ///
    /// # Errors
    /// When the file can't be read, is no checkpoint, is damaged, or holds no tensors where they are looked for.
    pub fn open(path: &Path, weights_key: Option<&str>) -> Result<StateDict, ConvertError> {
        Self::of(OpenedSource::open(path)?, weights_key)
    }

    /// The same of a checkpoint that is in memory. The bytes are kept as they are, not copied; messages call it
    /// `name`.
    ///
    /// # Errors
    /// As [`StateDict::open`].
    pub fn from_bytes(
        name: &str,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        weights_key: Option<&str>,
    ) -> Result<StateDict, ConvertError> {
        Self::of(OpenedSource::from_bytes(name, bytes)?, weights_key)
    }

    fn of(source: OpenedSource, weights_key: Option<&str>) -> Result<StateDict, ConvertError> {
        let state = layout::find(source.store.root(), weights_key).map_err(|NotFound { reason, keys }| {
            ConvertError::NoStateDict { path: source.name.clone(), reason, keys }
        })?;
        let entries: Vec<_> = state
            .entries
            .iter()
            .filter_map(|(stored, value)| match &state.asked {
                Some(asked) => Some((layout::below(stored, asked)?, stored, value)),
                None => Some((stored.as_str(), stored, value)),
            })
            .filter(|(.., value)| matches!(value, Value::Tensor(_) | Value::Opaque { .. }))
            .collect();
        let names: Vec<&str> = entries.iter().map(|(name, ..)| *name).collect();
        // A single number counts something.
        let counts = |i: usize| !matches!(entries[i].2, Value::Tensor(tensor) if tensor.shape.is_empty());
        let names = layout::unwrapped(&names, counts);
        let (mut tensors, mut unreadable) = (Vec::new(), Vec::new());
        for ((_, stored, value), name) in entries.iter().zip(&names) {
            let (name, stored_name) = (name.to_string(), (*stored).clone());
            match value {
                Value::Tensor(place) => tensors.push(StateTensor {
                    name,
                    stored_name,
                    shape: place.shape.clone(),
                    dtype: place.dtype,
                    place: Arc::clone(place),
                }),
                Value::Opaque { global, .. } => {
                    let (what, advice) = layout::unreadable(global);
                    unreadable.push(UnreadableTensor { name, stored_name, what, advice });
                }
                _ => {}
            }
        }
        let (key, other_keys) = (state.place(), state.others);
        Ok(StateDict { source, key, other_keys, tensors, unreadable, index: HashMap::new() }.indexed())
    }

    fn indexed(mut self) -> Self {
        let readable =
            self.tensors.iter().enumerate().map(|(i, tensor)| (&tensor.name, NamedPlace::Tensor(i)));
        let others =
            self.unreadable.iter().enumerate().map(|(i, one)| (&one.name, NamedPlace::Unreadable(i)));
        self.index = others.chain(readable).map(|(name, entry)| (name.clone(), entry)).collect();
        self
    }

    /// The same with every name as it is in the file.
    pub fn with_stored_names(mut self) -> StateDict {
        self.tensors.iter_mut().for_each(|tensor| tensor.name.clone_from(&tensor.stored_name));
        self.unreadable.iter_mut().for_each(|tensor| tensor.name.clone_from(&tensor.stored_name));
        self.indexed()
    }

    /// Every tensor that can be read, in the order of the file.
    pub fn tensors(&self) -> &[StateTensor] {
        &self.tensors
    }

    /// The tensors that are there and can't be read, in the order of the file.
    pub fn unreadable(&self) -> &[UnreadableTensor] {
        &self.unreadable
    }

    /// The names of the tensors that can be read, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// A tensor by its name; `None` where there is none that can be read.
    pub fn tensor(&self, name: &str) -> Option<&StateTensor> {
        match self.index.get(name) {
            Some(&NamedPlace::Tensor(i)) => Some(&self.tensors[i]),
            _ => None,
        }
    }

    /// Replaces `out` by the elements of a tensor: contiguous, row-major, little-endian, in the returned type (that
    /// of [`StateTensor::dtype`]).
    ///
    /// # Errors
    /// When there is no such tensor, it is one of [`StateDict::unreadable`], or the file can't be read any more.
    pub fn read(&self, name: &str, out: &mut Vec<u8>) -> Result<ElementType, ConvertError> {
        match self.index.get(name) {
            Some(&NamedPlace::Tensor(i)) => {
                let tensor = &self.tensors[i];
                self.source.store.read(&tensor.place, out)?;
                Ok(tensor.dtype)
            }
            Some(&NamedPlace::Unreadable(i)) => {
                let UnreadableTensor { name, what, advice, .. } = self.unreadable[i].clone();
                let unusable = vec![Unusable { name, what, advice }];
                let mismatch = Box::new(Mismatch { unusable, ..Mismatch::default() });
                Err(ConvertError::Unusable { path: self.source.name.clone(), mismatch })
            }
            None => Err(ConvertError::NoTensor(name.to_owned())),
        }
    }

    /// The keys under which the tensors were found, and what names began with where that was asked for, joined by
    /// dots; empty where the file holds nothing else.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Keys of other state dicts in the file, which `weights_key` takes.
    pub fn other_keys(&self) -> &[String] {
        &self.other_keys
    }

    /// What the file turned out to be.
    pub fn container(&self) -> Container {
        self.source.store.container()
    }

    /// The `__metadata__` of a safetensors file; empty for the other containers.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.source.store.metadata()
    }

    /// The file that was opened: in a folder, the one with the weights, or the index of several. `None` of bytes.
    pub fn path(&self) -> Option<&Path> {
        self.source.path()
    }
}
