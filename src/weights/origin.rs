//! Where tensors come from.

use std::collections::HashMap;

use candle_core::{Device, Error, Tensor};
use candle_nn::{Init, VarBuilder};
use nat_convert::checkpoint::Checkpoint;

use super::elements::tensor;
use super::problem::TensorProblem;
use super::safetensors_file::SafetensorsFile;
use crate::tensors::in_words;

/// A source of tensors by name.
pub(super) enum Origin {
    Safetensors(SafetensorsFile),
    Checkpoint(Box<Checkpoint>),
    Tensors(HashMap<String, Tensor>),
    Builder(VarBuilder<'static>),
    Random(u64),
}

impl Origin {
    /// The names of all tensors that it has; of what can't list them, none.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Safetensors(file) => file.names(),
            Self::Checkpoint(file) => file.tensors().iter().map(|tensor| tensor.name.clone()).collect(),
            Self::Tensors(tensors) => tensors.keys().cloned().collect(),
            Self::Builder(_) | Self::Random(_) => Vec::new(),
        }
    }

    /// Whether it makes what it is asked for, so that nothing can be compared before.
    pub(super) fn makes_tensors(&self) -> bool {
        // A builder may stand on candle's `VarMap`.
        matches!(self, Self::Builder(_) | Self::Random(_))
    }

    /// The shape of a tensor that it has.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        match self {
            Self::Safetensors(file) => file.shape(name),
            Self::Checkpoint(file) => {
                file.tensors().iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.as_slice())
            }
            Self::Tensors(tensors) => tensors.get(name).map(Tensor::dims),
            Self::Builder(_) | Self::Random(_) => None,
        }
    }

    /// The tensor `name` of this shape, as it is stored.
    pub(super) fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor, TensorProblem> {
        match self {
            Self::Random(seed) => random(*seed, name, shape),
            Self::Builder(builder) => build(builder, name, shape),
            Self::Safetensors(file) => file.read(name, shape),
            Self::Checkpoint(file) => {
                self.check(name, shape)?;
                read(file, name, shape)
            }
            Self::Tensors(tensors) => {
                self.check(name, shape)?;
                tensors.get(name).cloned().ok_or_else(|| missing(name))
            }
        }
    }

    fn check(&self, name: &str, expected: &[usize]) -> Result<(), TensorProblem> {
        match self.shape(name) {
            None => Err(missing(name)),
            Some(got) if got == expected => Ok(()),
            Some(got) => Err(TensorProblem::Shape {
                name: name.to_owned(),
                got: got.to_vec(),
                expected: expected.to_vec(),
            }),
        }
    }
}

fn missing(name: &str) -> TensorProblem {
    TensorProblem::Missing { name: name.to_owned(), nearest: None }
}

/// Reads one tensor of a checkpoint, whose architecture names all of them with their shapes.
fn read(file: &Checkpoint, name: &str, shape: &[usize]) -> Result<Tensor, TensorProblem> {
    let unreadable = |why: String| TensorProblem::Unreadable { name: name.to_owned(), why };
    let mut bytes = Vec::new();
    let elements = file.read(name, &mut bytes).map_err(|e| unreadable(e.to_string()))?;
    tensor(&bytes, elements, shape).map_err(|e| unreadable(in_words(&e)))
}

/// Asks a builder, which on a `VarMap` begins a variable as the authors begin to train.
fn build(builder: &VarBuilder<'static>, name: &str, shape: &[usize]) -> Result<Tensor, TensorProblem> {
    builder.get_with_hints(shape, name, beginning(name, shape)).map_err(|error| {
        if !builder.contains_tensor(name) {
            return missing(name);
        }
        let name = name.to_owned();
        match plain(&error) {
            Error::UnexpectedShape { got, expected, .. } => {
                TensorProblem::Shape { name, got: got.dims().to_vec(), expected: expected.dims().to_vec() }
            }
            _ => TensorProblem::Unreadable { name, why: in_words(&error) },
        }
    })
}

/// An error of candle without what it was wrapped in.
fn plain(error: &Error) -> &Error {
    match error {
        Error::WithBacktrace { inner, .. } | Error::WithPath { inner, .. } | Error::Context { inner, .. } => {
            plain(inner)
        }
        other => other,
    }
}

/// What training begins with (`_init_weights` of the original code): norms at 1, biases at 0, matrices and position
/// biases normal with a deviation of 0.02, convolutions as PyTorch has them.
fn beginning(name: &str, shape: &[usize]) -> Init {
    match shape.len() {
        0 | 1 if name.ends_with("weight") || name.ends_with("running_var") => Init::Const(1.0),
        0 | 1 if is_scale(name) => Init::Const(1e-5),
        0 | 1 => Init::Const(0.0),
        2 => Init::Randn { mean: 0.0, stdev: 0.02 },
        _ if name.ends_with("rpb") => Init::Randn { mean: 0.0, stdev: 0.02 },
        _ => candle_nn::init::DEFAULT_KAIMING_UNIFORM,
    }
}

/// Whether a vector scales a residual branch (arXiv 2103.17239).
fn is_scale(name: &str) -> bool {
    ["gamma1", "gamma2"].iter().any(|scale| name.ends_with(scale))
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
