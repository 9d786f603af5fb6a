//! Tensors by name, as layers take them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use nat_convert::arch::Weight;
use nat_convert::checkpoint::Checkpoint;

use super::origin::Origin;
use super::problem::{LoadError, SHOWN, TensorProblem};
use super::safetensors_file::SafetensorsFile;
use crate::tensors::in_words;

/// Tensors by name, seen from one prefix of the names.
#[derive(Clone)]
pub struct Weights {
    shared: Arc<Shared>,
    prefix: String,
    /// Of this view: layers that take their tensors of another one may be for something else.
    purpose: Purpose,
}

struct Shared {
    origin: Origin,
    device: Device,
    dtype: DType,
    state: Mutex<Tally>,
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

#[derive(Default)]
struct Tally {
    used: BTreeSet<String>,
    problems: Vec<TensorProblem>,
    parameters: u64,
}

impl Weights {
    /// Maps a safetensors file.
    ///
    /// # Errors
    /// When it can't be read or is not safetensors.
    pub fn open(path: &Path, dtype: DType, device: Device) -> Result<Self, LoadError> {
        Ok(Self::new(Origin::Safetensors(SafetensorsFile::open(path)?), dtype, device))
    }

    /// Takes tensors from the bytes of a safetensors file: a `Vec<u8>`, or what is part of a program.
    ///
    /// # Errors
    /// When they are not safetensors.
    pub fn from_bytes(
        bytes: impl Into<Cow<'static, [u8]>>,
        dtype: DType,
        device: Device,
    ) -> Result<Self, LoadError> {
        Ok(Self::new(Origin::Safetensors(SafetensorsFile::from_bytes(bytes.into())?), dtype, device))
    }

    /// Takes tensors that are there, by their names. [`Weights::plain`] layers use them as they are where type and
    /// device are these, so that gradients of variables among them are theirs.
    pub fn from_tensors(
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        dtype: DType,
        device: Device,
    ) -> Self {
        Self::new(Origin::Tensors(tensors.into_iter().collect()), dtype, device)
    }

    /// Takes tensors from candle's own builder below the prefix that it is at, in its type and on its device: whatever
    /// that reads, and variables to train where it stands on a `VarMap` (see [`Weights::plain`]; they begin as the
    /// authors begin). What a builder has and a network does not take goes unnoticed: it can't be listed.
    pub fn from_var_builder(builder: VarBuilder<'static>) -> Self {
        let (dtype, device) = (builder.dtype(), builder.device().clone());
        Self::new(Origin::Builder(builder), dtype, device)
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

    /// Random weights, the same for the same seed, name and shape: for benches and tests.
    pub fn random(seed: u64, dtype: DType, device: Device) -> Self {
        Self::new(Origin::Random(seed), dtype, device)
    }

    fn new(origin: Origin, dtype: DType, device: Device) -> Self {
        let state = Mutex::default();
        let shared = Arc::new(Shared { origin, device, dtype, state });
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
        let tensor = self.shared.origin.read(&name, shape);
        let placed = tensor.and_then(|tensor| {
            let unreadable =
                |e: candle_core::Error| TensorProblem::Unreadable { name: name.clone(), why: in_words(&e) };
            let (dtype, packed) = (self.shared.dtype, self.placement().is_packed());
            tensor
                .to_dtype(dtype)
                .and_then(|t| if packed { t.to_dtype(DType::F32) } else { Ok(t) })
                // A caller's tensor may be a view of another.
                .and_then(|t| t.contiguous())
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
        let origin = &self.shared.origin;
        if origin.makes_tensors() {
            return Ok(());
        }
        let names = origin.names();
        let problem = |(name, expected): &(String, Vec<usize>)| match origin.shape(name) {
            None => Some(TensorProblem::Missing { name: name.clone(), nearest: nearest(name, &names) }),
            Some(got) if got == *expected => None,
            Some(got) => Some(TensorProblem::Shape {
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

    /// Ends the loading of a model.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] with every tensor that was missing, had another shape or was not used.
    pub fn finish(&self) -> Result<(), LoadError> {
        let mut problems = self.state(|state| std::mem::take(&mut state.problems));
        let names = self.shared.origin.names();
        // For those alone that are shown: a file may have very many names, and very long ones.
        for problem in problems.iter_mut().take(SHOWN) {
            if let TensorProblem::Missing { name, nearest: near } = problem {
                *near = nearest(name, &names);
            }
        }
        let unused = |name: &String| self.state(|state| !state.used.contains(name));
        problems.extend(
            names.iter().filter(|name| unused(name)).cloned().map(|name| TensorProblem::Unused { name }),
        );
        if problems.is_empty() { Ok(()) } else { Err(LoadError::Mismatch(problems)) }
    }

    fn state<T>(&self, f: impl FnOnce(&mut Tally) -> T) -> T {
        f(&mut self.shared.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
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
