//! Where models take their tensors from: a safetensors file, a checkpoint converted in memory, or
//! random numbers. The one place that holds a mapping of a file.
//!
//! Loading is total. A model is built by calls of [`Weights::get`], which always give a tensor of
//! the shape asked for; what was missing, misshapen or left over is collected and
//! [`Weights::finish`] reports all of it in one error.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;

use candle_core::{DType, Device, Shape, Tensor};
use memmap2::{Mmap, UncheckedAdvice};
use nat_convert::arch::Weight;
use nat_convert::checkpoint::Checkpoint;
use nat_convert::source;
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;

use crate::tensors::in_words;

/// Tensors by name, seen from one prefix of the names.
#[derive(Clone)]
pub struct Weights {
    shared: Rc<Shared>,
    prefix: String,
    /// Of this view: layers that take their tensors of another one may be for something else.
    purpose: Purpose,
}

struct Shared {
    origin: Origin,
    device: Device,
    dtype: DType,
    state: RefCell<Tally>,
}

/// What layers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The fastest inference.
    Inference,
    /// The same, and gradients back to the input.
    Differentiable,
    /// Anything that candle's operators can do.
    Plain,
}

/// Where the layers of some weights compute, in what and what for: what a backend is chosen by.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub(crate) device: Device,
    /// The type that weights are rounded to.
    pub(crate) dtype: DType,
    pub(crate) purpose: Purpose,
}

impl Placement {
    /// Whether layers pack their weights for the CPU's kernels, which take them as f32.
    pub(crate) fn is_packed(&self) -> bool {
        self.device.is_cpu() && self.purpose != Purpose::Plain
    }

    /// Whether what takes gradients back is kept.
    pub(crate) fn is_differentiable(&self) -> bool {
        self.purpose == Purpose::Differentiable
    }
}

enum Origin {
    Safetensors(SafetensorsFile),
    Checkpoint(Box<Checkpoint>),
    Random(u64),
}

/// A safetensors file whose header has been read.
struct SafetensorsFile {
    bytes: Bytes,
    header: Metadata,
    /// Where the data begins.
    data: usize,
}

enum Bytes {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

#[derive(Default)]
struct Tally {
    used: BTreeSet<String>,
    problems: Vec<TensorProblem>,
    parameters: u64,
}

/// One tensor that does not fit the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TensorProblem {
    #[error("{name} is missing{}", .nearest.as_ref().map(|n| format!(" (nearest: {n})")).unwrap_or_default())]
    Missing { name: String, nearest: Option<String> },
    #[error("{name} has shape {got:?}, expected {expected:?}")]
    Shape { name: String, got: Vec<usize>, expected: Vec<usize> },
    #[error("{name}: {why}")]
    Unreadable { name: String, why: String },
    #[error("{name} is not used")]
    Unused { name: String },
}

/// Why weights could not be taken.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LoadError {
    #[error("{path}: {why}")]
    File { path: String, why: String },
    #[error("the weights do not fit the model: {}", list(.0))]
    Mismatch(Vec<TensorProblem>),
    /// The architecture is of no network that can be built.
    #[error("the model can't be built: {0}")]
    Architecture(String),
}

/// Problems that a message lists.
const SHOWN: usize = 12;

/// The first problems in words, and how many more there are.
fn list(problems: &[TensorProblem]) -> String {
    let mut text = problems.iter().take(SHOWN).map(TensorProblem::to_string).collect::<Vec<_>>().join("; ");
    if problems.len() > SHOWN {
        text += &format!("; and {} more", problems.len() - SHOWN);
    }
    text
}

impl Weights {
    /// Maps a safetensors file.
    ///
    /// # Errors
    /// When it can't be read or is not safetensors.
    pub fn open(path: &Path, dtype: DType, device: Device) -> Result<Self, LoadError> {
        let error = |why: String| LoadError::File { path: path.display().to_string(), why };
        let file = File::open(path).map_err(|e| error(e.to_string()))?;
        // SAFETY: a file that another process changes while it is mapped would change under us; that
        // is accepted for weights, as everywhere in this field, and never written through.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| error(e.to_string()))?;
        let container = SafetensorsFile::new(Bytes::Mapped(map))
            .map_err(|e| error(format!("not a safetensors file ({e})")))?;
        Ok(Self::new(Origin::Safetensors(container), dtype, device))
    }

    /// Takes tensors from an opened checkpoint: a file that the converter wrote is mapped, of any other
    /// each tensor is read when it is asked for.
    ///
    /// # Errors
    /// When the file can't be mapped.
    pub fn from_checkpoint(checkpoint: Checkpoint, dtype: DType, device: Device) -> Result<Self, LoadError> {
        if let Some(path) = checkpoint.path().filter(|_| checkpoint.is_converted()) {
            return Self::open(path, dtype, device);
        }
        Ok(Self::new(Origin::Checkpoint(Box::new(checkpoint)), dtype, device))
    }

    /// Takes tensors from a safetensors file that is part of the program.
    ///
    /// # Errors
    /// When it is not safetensors.
    pub fn embedded(bytes: &'static [u8], dtype: DType, device: Device) -> Result<Self, LoadError> {
        let container = SafetensorsFile::new(Bytes::Embedded(bytes))
            .map_err(|e| LoadError::File { path: "embedded weights".to_owned(), why: e.to_string() })?;
        Ok(Self::new(Origin::Safetensors(container), dtype, device))
    }

    /// Random weights, the same for the same seed, name and shape: for benches and tests.
    pub fn random(seed: u64, dtype: DType, device: Device) -> Self {
        Self::new(Origin::Random(seed), dtype, device)
    }

    fn new(origin: Origin, dtype: DType, device: Device) -> Self {
        let state = RefCell::default();
        let shared = Rc::new(Shared { origin, device, dtype, state });
        Self { shared, prefix: String::new(), purpose: Purpose::Inference }
    }

    /// The same weights for a network that candle's `backward` goes through, from its results to its input:
    /// on the CPU of the same fused layers, which then keep their weights twice, on a GPU of candle's own
    /// operators. Gradients of the weights themselves are not computed, and of the CPU's layers those that only
    /// detectors and segmenters have refuse to be differentiated.
    ///
    /// candle adds gradients up on threads that spin between two sums, and keep the layers' own threads from their
    /// work where there are few cores: with the environment variable `CANDLE_BARRIER_POOL_SPIN_LIMIT=1`, set before
    /// the first pass, a pass there and back is a quarter faster on two.
    #[must_use]
    pub fn differentiable(self) -> Self {
        Self { purpose: Purpose::Differentiable, ..self }
    }

    /// The same weights for layers made of plain candle operators: any device, any float type, with
    /// gradients.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { purpose: Purpose::Plain, ..self }
    }

    /// Where layers of these weights compute, in what and what for.
    pub(crate) fn placement(&self) -> Placement {
        let Shared { device, dtype, .. } = &*self.shared;
        Placement { device: device.clone(), dtype: *dtype, purpose: self.purpose }
    }

    /// The weights below `name`: `name.` goes before every name that is asked for.
    #[must_use]
    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// Learnable values given out so far (BatchNorm's running statistics are not learnt).
    pub fn parameters(&self) -> u64 {
        self.state(|state| state.parameters)
    }

    /// The tensor `name` below the prefix, of this shape, as [`Weights::take`] gives it.
    pub fn get(&self, shape: &[usize], name: &str) -> Tensor {
        self.take(&Weight { name: name.to_owned(), shape: shape.to_vec(), learnt: true })
    }

    /// A tensor of a network, its name below the prefix, on the device of these weights and rounded to
    /// their type: in that type for plain layers, as f32 for packed ones. A problem is noted for
    /// [`Weights::finish`], and zeros stand in.
    pub fn take(&self, Weight { name, shape, learnt }: &Weight) -> Tensor {
        let name = format!("{}{name}", self.prefix);
        let tensor = match &self.shared.origin {
            Origin::Random(seed) => random(*seed, &name, shape),
            Origin::Safetensors(file) => file.read(&name, shape),
            Origin::Checkpoint(file) => read(file, &name, shape),
        };
        let placed = tensor.and_then(|tensor| {
            let unreadable =
                |e: candle_core::Error| TensorProblem::Unreadable { name: name.clone(), why: in_words(&e) };
            let (dtype, packed) = (self.shared.dtype, self.placement().is_packed());
            tensor
                .to_dtype(dtype)
                .and_then(|t| if packed { t.to_dtype(DType::F32) } else { Ok(t) })
                .and_then(|t| t.to_device(&self.shared.device))
                .map_err(unreadable)
        });
        self.state(|state| {
            state.used.insert(name.clone());
            if *learnt {
                state.parameters += shape.iter().product::<usize>() as u64;
            }
            placed.unwrap_or_else(|problem| {
                state.problems.push(problem);
                zeros(shape, self.shared.dtype, &self.shared.device)
            })
        })
    }

    /// `tensor` of `shape`, made of the tensor `name`; a failure is noted for [`Weights::finish`], and
    /// zeros stand in.
    pub(crate) fn made(&self, shape: &[usize], name: &str, tensor: candle_core::Result<Tensor>) -> Tensor {
        tensor.unwrap_or_else(|error| {
            let name = format!("{}{name}", self.prefix);
            self.state(|state| {
                state.problems.push(TensorProblem::Unreadable { name, why: in_words(&error) })
            });
            zeros(shape, self.shared.dtype, &self.shared.device)
        })
    }

    /// Holds names and shapes against the `tensors` of a network, before memory is taken for any of them: what
    /// stands in for a tensor that is not there is as large as the network says.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] with every tensor that is missing or has another shape.
    pub(crate) fn compare(&self, tensors: &[(String, Vec<usize>)]) -> Result<(), LoadError> {
        let names = self.names();
        let problem = |(name, expected): &(String, Vec<usize>)| match (&self.shared.origin, self.shape(name))
        {
            (Origin::Random(_), _) => None,
            (_, None) => Some(TensorProblem::Missing { name: name.clone(), nearest: nearest(name, &names) }),
            (_, Some(got)) if got == *expected => None,
            (_, Some(got)) => Some(TensorProblem::Shape {
                name: name.clone(),
                got: got.to_vec(),
                expected: expected.clone(),
            }),
        };
        // So many tell enough.
        const MOST: usize = 256;
        let problems: Vec<_> = tensors.iter().filter_map(problem).take(MOST).collect();
        if problems.is_empty() { Ok(()) } else { Err(LoadError::Mismatch(problems)) }
    }

    /// The names of all tensors that the source has.
    fn names(&self) -> Vec<String> {
        match &self.shared.origin {
            Origin::Safetensors(file) => file.names(),
            Origin::Checkpoint(file) => file.tensors().iter().map(|tensor| tensor.name.clone()).collect(),
            Origin::Random(_) => Vec::new(),
        }
    }

    /// The shape of a tensor that the source has.
    fn shape(&self, name: &str) -> Option<&[usize]> {
        match &self.shared.origin {
            Origin::Safetensors(file) => file.header.info(name).map(|info| info.shape.as_slice()),
            Origin::Checkpoint(file) => {
                file.tensors().iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.as_slice())
            }
            Origin::Random(_) => None,
        }
    }

    /// Ends the loading of a model.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] with every tensor that was missing, had another shape or was not used.
    pub fn finish(&self) -> Result<(), LoadError> {
        let mut problems = self.state(|state| std::mem::take(&mut state.problems));
        let names = self.names();
        // For those alone that are shown: a file may have very many names, and very long ones.
        for problem in problems.iter_mut().take(SHOWN) {
            if let TensorProblem::Missing { name, nearest: near } = problem {
                *near = nearest(name, &names);
            }
        }
        let unused = |name: &String| self.state(|state| !state.used.contains(name));
        problems.extend(self.names().into_iter().filter(unused).map(|name| TensorProblem::Unused { name }));
        if problems.is_empty() { Ok(()) } else { Err(LoadError::Mismatch(problems)) }
    }

    fn state<T>(&self, f: impl FnOnce(&mut Tally) -> T) -> T {
        f(&mut self.shared.state.borrow_mut())
    }
}

impl SafetensorsFile {
    fn new(bytes: Bytes) -> Result<Self, safetensors::SafeTensorError> {
        let (length, header) = SafeTensors::read_metadata(bytes.all())?;
        Ok(Self { data: size_of::<u64>() + length, header, bytes })
    }

    fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor, TensorProblem> {
        let unreadable = |why: String| TensorProblem::Unreadable { name: name.to_owned(), why };
        let Some(info) = self.header.info(name) else {
            return Err(TensorProblem::Missing { name: name.to_owned(), nearest: None });
        };
        if info.shape != shape {
            let (got, expected) = (info.shape.clone(), shape.to_vec());
            return Err(TensorProblem::Shape { name: name.to_owned(), got, expected });
        }
        let (start, end) = info.data_offsets;
        let values = &self.bytes.all()[self.data + start..self.data + end];
        let dtype = DType::try_from(info.dtype).map_err(|e| unreadable(in_words(&e)))?;
        let tensor = Tensor::from_raw_buffer(values, dtype, shape, &Device::Cpu);
        self.bytes.release(values);
        tensor.map_err(|e| unreadable(in_words(&e)))
    }
}

impl Bytes {
    fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
        }
    }

    /// Lets go of the pages that `part` lies in: packed layers keep their own copy, and a page that
    /// is read again comes back from the file.
    fn release(&self, part: &[u8]) {
        if let Self::Mapped(map) = self {
            let offset = part.as_ptr() as usize - map.as_ptr() as usize;
            // SAFETY: the mapping is shared and read-only, so dropping pages loses nothing. A refusal
            // costs memory, not correctness.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, part.len()) };
        }
    }
}

/// Reads one tensor of a checkpoint, whose architecture names all of them with their shapes.
fn read(file: &Checkpoint, name: &str, shape: &[usize]) -> Result<Tensor, TensorProblem> {
    let unreadable = |why: String| TensorProblem::Unreadable { name: name.to_owned(), why };
    let Some(info) = file.tensors().iter().find(|tensor| tensor.name == name) else {
        return Err(TensorProblem::Missing { name: name.to_owned(), nearest: None });
    };
    if info.shape != shape {
        let (got, expected) = (info.shape.clone(), shape.to_vec());
        return Err(TensorProblem::Shape { name: name.to_owned(), got, expected });
    }
    let mut bytes = Vec::new();
    let dtype = match file.read(name, &mut bytes).map_err(|e| unreadable(e.to_string()))? {
        source::ElementType::F32 => DType::F32,
        source::ElementType::F16 => DType::F16,
        source::ElementType::BF16 => DType::BF16,
        other => return Err(unreadable(format!("elements of type {other:?}"))),
    };
    Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu).map_err(|e| unreadable(in_words(&e)))
}

/// The name with the longest common beginning and end.
fn nearest(name: &str, names: &[String]) -> Option<String> {
    let common = |other: &String| {
        // Bounded by the length of `name`, which is one of ours.
        let ahead = name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let behind = name.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count();
        ahead + behind
    };
    names.iter().max_by_key(|other| common(other)).cloned()
}

/// Uniform values whose spread keeps activations near 1: norms around 1, matrices by fan-in.
fn random(seed: u64, name: &str, shape: &[usize]) -> Result<Tensor, TensorProblem> {
    let hash = name
        .bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut rng = fastrand::Rng::with_seed(hash);
    let fan_in: usize = shape.iter().skip(1).product();
    let (centre, spread) = match shape.len() {
        0 | 1 if name.ends_with("weight") || name.ends_with("running_var") => (1.0, 0.2),
        0 | 1 => (0.0, 0.2),
        _ if name.ends_with("rpb") => (0.0, 0.5),
        _ => (0.0, (3.0 / fan_in as f32).sqrt()),
    };
    let values = (0..shape.iter().product()).map(|_| centre + spread * (2.0 * rng.f32() - 1.0)).collect();
    Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu)
        .map_err(|e| TensorProblem::Unreadable { name: name.to_owned(), why: in_words(&e) })
}

/// Zeros stand in for a tensor that could not be taken; the model is never run with them.
fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Tensor {
    let zeros = |device| Tensor::zeros(Shape::from(shape), dtype, device);
    zeros(device).or_else(|_| zeros(&Device::Cpu)).expect("zeros on the CPU")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_for_what_was_asked_of_it() {
        let weights = Weights::random(1, DType::F32, Device::Cpu);
        let below = weights.pp("head");
        let (plain, differentiable) = (weights.clone().plain(), weights.clone().differentiable());
        let purpose = |weights: &Weights| weights.pp("head").placement().purpose;
        assert_eq!(
            [&plain, &differentiable, &weights, &below].map(purpose),
            [Purpose::Plain, Purpose::Differentiable, Purpose::Inference, Purpose::Inference]
        );
        assert!(!plain.placement().is_packed() && differentiable.placement().is_packed());
        // They remain the same weights.
        let values = |weights: &Weights| weights.get(&[3], "bias").to_vec1::<f32>().unwrap();
        assert_eq!(values(&plain.pp("head")), values(&below));
        assert_eq!(weights.parameters(), 6);
    }
}
