//! The layers on NVIDIA's GPUs: cuBLAS's matrix products, between them the fused kernels of nat-cuda. For inference:
//! networks with gradients are made of candle's operators.

mod blocks;
mod conv;
mod maps;
mod replay;
mod steps;

use super::form::{
    Backend, BatchForm, BlocksForm, ConvForm, LinearForm, MapForm, MlpForm, NormForm, PyramidForm,
};
use super::parts::{BlockParts, ConvParts, LinearParts, MlpParts, NormParts, PyramidParts};
use super::stepwise::{StepLinear, StepMlp, StepNorm, StepPyramid};
use crate::weights::{Placement, Purpose, Weights};

/// An NVIDIA GPU.
pub(super) struct Cuda;

/// Whether the layers of these weights are for inference on such a GPU.
pub(super) fn serves(placement: &Placement) -> bool {
    placement.device.is_cuda() && placement.purpose == Purpose::Inference
}

impl Backend for Cuda {
    fn linear(&self, parts: LinearParts, _: &Weights) -> Box<dyn LinearForm> {
        Box::new(StepLinear { parts, steps: steps::FusedSteps })
    }

    fn mlp(&self, parts: MlpParts, _: &Weights) -> Box<dyn MlpForm> {
        Box::new(StepMlp::new(parts, steps::FusedSteps))
    }

    fn blocks(&self, parts: &[BlockParts], weights: &Weights) -> Option<Box<dyn BlocksForm>> {
        Some(Box::new(blocks::FusedBlocks::new(parts, weights)))
    }

    fn conv(&self, parts: ConvParts, weights: &Weights) -> Box<dyn ConvForm> {
        Box::new(conv::FusedConv::new(parts, weights))
    }

    fn norm(&self, parts: NormParts, _: &Weights) -> Box<dyn NormForm> {
        Box::new(StepNorm { parts, steps: steps::FusedSteps })
    }

    fn pyramid(&self, parts: PyramidParts, weights: &Weights) -> Box<dyn PyramidForm> {
        Box::new(StepPyramid::new(parts, |conv| self.conv(conv, weights), &maps::GpuMaps))
    }

    fn batches(&self) -> Box<dyn BatchForm> {
        Box::new(replay::Replay::default())
    }

    fn maps(&self) -> &'static dyn MapForm {
        &maps::GpuMaps
    }
}
