//! PackedLinear layers on the CPU, with the layer norm before and the activation, layer scale and residual after.

use std::sync::Arc;

use candle_core::{Result, Shape, Tensor};

use super::gemm::{Epilogue, PackedLayer, ScaledRows, StoredRows, Then, product};
use super::norm::{Norm, NormedRows};
use super::operator::{Layer, apply};
use super::packing::Packing;
use crate::layers::form::LinearForm;
use crate::layers::parts::{Activation, LinearParts};
use crate::tensors::vector;

/// residual + gamma · activation(linear(norm(x))), of which each part but linear may be absent.
pub(super) struct PackedLinear {
    layer: PackedLayer,
    inputs: usize,
    norm: Option<Arc<Norm>>,
    activation: Activation,
    /// Only beside a residual.
    gamma: Option<Vec<f32>>,
}

impl PackedLinear {
    pub(super) fn new(parts: &LinearParts, packing: Packing) -> Arc<Self> {
        Arc::new(Self {
            layer: packing.layer(
                [parts.outputs(), parts.inputs()],
                &vector(&parts.weight),
                parts.bias.as_ref(),
            ),
            inputs: parts.inputs(),
            norm: parts.norm.as_ref().map(Norm::new),
            activation: parts.activation,
            gamma: parts.gamma.as_ref().map(vector),
        })
    }
}

impl LinearForm for Arc<PackedLinear> {
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, shape: &Shape) -> Result<Tensor> {
        apply(self.clone(), x, residual, shape)
    }
}

impl Layer for Arc<PackedLinear> {
    const NAME: &'static str = "linear";

    fn forward(&self, x: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let PackedLinear { layer, inputs, norm, activation, gamma } = &**self;
        let epilogue = Epilogue { residual, gamma: gamma.as_deref(), ..Epilogue::of(layer, *activation) };
        let rows = x.len() / inputs;
        match norm {
            Some(norm) => {
                product(rows, &NormedRows { rows: x, norm }, &layer.weight, epilogue, Then::Nothing)
            }
            None => {
                product(rows, &StoredRows { rows: x, depth: *inputs }, &layer.weight, epilogue, Then::Nothing)
            }
        }
    }

    fn backward(&self, x: &[f32], grad: &[f32]) -> Result<Vec<f32>> {
        let PackedLinear { layer, inputs, norm, activation, gamma } = &**self;
        if *activation != Activation::None {
            candle_core::bail!("a linear layer with an activation of its own has no gradient");
        }
        let (rows, weight) = (x.len() / inputs, layer.transposed()?);
        let then = norm.as_ref().map_or(Then::Nothing, |norm| Then::NormGradient { norm, x });
        let depth = layer.weight.n();
        Ok(match gamma {
            Some(factors) => {
                product(rows, &ScaledRows { rows: grad, factors }, weight, Epilogue::default(), then)
            }
            None => product(rows, &StoredRows { rows: grad, depth }, weight, Epilogue::default(), then),
        })
    }
}
