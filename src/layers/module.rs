//! Layers as modules of candle, for `Tensor::apply`, `candle_nn::seq` and whatever else takes one.

use candle_core::{Module, Result, Tensor};

use super::{Conv2d, LayerNorm, Linear, Mlp};

/// `Module` of what has a `forward` from one tensor to another.
macro_rules! modules {
    ($($layer:ty),*) => {$(
        impl Module for $layer {
            fn forward(&self, x: &Tensor) -> Result<Tensor> {
                Self::forward(self, x)
            }
        }
    )*};
}

modules!(Conv2d, LayerNorm, Linear, Mlp);
