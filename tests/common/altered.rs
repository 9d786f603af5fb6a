//! Checkpoints with other tensors and another recipe.

#![allow(dead_code)] // Each test program uses its share.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use nat_convert::checkpoint::{Checkpoint, Options};
use nat_convert::metadata::Metadata;
use nat_infer::tasks::{LoadOptions, Model};
use nat_infer::weights::Weights;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};

/// Tensors by their names, f32.
pub type Tensors = BTreeMap<String, Tensor>;

/// A file of ours, kept until the program ends.
pub struct Altered {
    /// What it carries.
    pub metadata: Metadata,
    /// All of it.
    pub bytes: &'static [u8],
}

impl Altered {
    /// The network's tensors.
    pub fn weights(&self) -> Weights {
        Weights::from_bytes(self.bytes, DType::F32, Device::Cpu).unwrap()
    }

    /// The model.
    pub fn model(&self) -> Model {
        Model::from_bytes("altered", self.bytes, &LoadOptions::default()).unwrap()
    }
}

/// What `alter` makes of the checkpoint `path`.
pub fn altered(path: &Path, alter: impl FnOnce(&mut Metadata, &mut Tensors)) -> Altered {
    let checkpoint = Checkpoint::open(path, &Options::default()).unwrap();
    let mut metadata = checkpoint.metadata().clone();
    let weights = Weights::from_checkpoint(checkpoint, DType::F32, Device::Cpu).unwrap();
    let tensors = metadata.architecture.tensors().into_iter();
    let mut tensors = tensors.map(|(name, shape)| (name.clone(), weights.get(&shape, &name))).collect();
    weights.finish().unwrap();
    alter(&mut metadata, &mut tensors);
    let bytes = |x: &Tensor| -> Vec<u8> {
        let values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> =
        tensors.into_iter().map(|(name, x)| (name, x.dims().to_vec(), bytes(&x))).collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let map = metadata.to_map().unwrap().into_iter().collect();
    let bytes = Vec::leak(serialize(views, Some(map)).unwrap());
    Altered { metadata, bytes }
}

/// Replaces the tensors whose names `of` accepts by what `make` makes of them.
pub fn replace(tensors: &mut Tensors, of: impl Fn(&str) -> bool, make: impl Fn(&Tensor) -> Tensor) {
    let mut found = false;
    for (name, tensor) in tensors.iter_mut().filter(|(name, _)| of(name)) {
        *tensor = make(tensor);
        found |= !name.is_empty();
    }
    assert!(found, "no tensor is replaced");
}

/// `x` with `factors` and then `terms` for its rows, the first dimension.
pub fn rows(x: &Tensor, factors: &[f64], terms: &[f64]) -> Tensor {
    let mut shape = vec![1; x.rank()];
    shape[0] = factors.len();
    let [factors, terms] = [factors, terms].map(|values| {
        let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
        Tensor::from_vec(values, shape.clone(), &Device::Cpu).unwrap()
    });
    x.broadcast_mul(&factors).unwrap().broadcast_add(&terms).unwrap()
}
