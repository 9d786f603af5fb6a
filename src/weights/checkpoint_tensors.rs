//! Checkpoints of any network for candle's programs.

use std::path::Path;

use candle_core::{DType, Device, Error, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use nat_convert::error::ConvertError;
use nat_convert::state_dict::StateDict;

use super::elements::tensor;

/// The tensors of a checkpoint of any network, as candle's `VarBuilder` takes them: what PyTorch saved since 1.6 and
/// before, of any pickle protocol, safetensors, folders of Transformers. Of what training saved around the weights an
/// average (EMA) is preferred, and `module.` before all names is left out; [`StateDict`] says it all.
///
/// Where candle's own reader of `.pth` leaves out what it does not know, everything here is read, or an error when it
/// is asked for. Each tensor is read when it is asked for, by any number of threads.
///
/// ```no_run
/// use candle_core::{DType, Device};
/// use nat_infer::weights::CheckpointTensors;
///
/// let tensors = CheckpointTensors::open("resnet50_ema.pth".as_ref(), None)?;
/// let builder = tensors.into_var_builder(DType::F32, &Device::Cpu);
/// let linear = candle_nn::linear(2048, 1000, builder.pp("fc"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CheckpointTensors(StateDict);

impl CheckpointTensors {
    /// Opens a checkpoint, see [`StateDict::open`].
    ///
    /// # Errors
    /// When it can't be read, or has no weights under `weights_key`.
    pub fn open(path: &Path, weights_key: Option<&str>) -> Result<Self, ConvertError> {
        StateDict::open(path, weights_key).map(Self)
    }

    /// The same of a checkpoint in memory, which errors call `name`.
    ///
    /// # Errors
    /// As [`CheckpointTensors::open`].
    pub fn from_bytes(
        name: &str,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        weights_key: Option<&str>,
    ) -> Result<Self, ConvertError> {
        StateDict::from_bytes(name, bytes, weights_key).map(Self)
    }

    /// What was found: names, shapes, types, and what can't be read.
    pub fn state_dict(&self) -> &StateDict {
        &self.0
    }

    /// A builder on these tensors, which gives them in `dtype` on `device`.
    pub fn into_var_builder(self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self), dtype, device.clone())
    }

    /// A tensor on the CPU, as it is stored.
    fn read(&self, name: &str, shape: &[usize]) -> candle_core::Result<Tensor> {
        let mut bytes = Vec::new();
        let elements = self.0.read(name, &mut bytes).map_err(Error::wrap)?;
        tensor(&bytes, elements, shape)
    }

    /// The shape of a tensor, of one that can't be read none.
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.0.tensor(name).map(|tensor| tensor.shape.as_slice())
    }
}

impl SimpleBackend for CheckpointTensors {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        match self.shape(name) {
            Some(got) if got != shape.dims() => Err(Error::UnexpectedShape {
                msg: format!("shape mismatch for {name}"),
                expected: shape,
                got: Shape::from(got),
            }),
            _ => self.get_unchecked(name, dtype, device),
        }
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        match self.shape(name) {
            Some(shape) => self.read(name, shape)?.to_dtype(dtype)?.to_device(device),
            // Reading says why.
            None if self.contains_tensor(name) => self.read(name, &[]),
            None => Err(Error::CannotFindTensor { path: name.to_owned() }),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.tensor(name).is_some() || self.0.unreadable().iter().any(|tensor| tensor.name == name)
    }
}
