//! A published backbone out of a `VarBuilder`, below a head of one's own: here the nearest of a few pictures by the mean
//! of its last map.
//!
//! ```sh
//! cargo run --release --example backbone                       # the digits model, which is part of the repository
//! cargo run --release --example backbone nat_mini.pth nat-mini
//! ```

use std::error::Error;
use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use nat_infer::models::Backbone;
use nat_infer::nat_convert::arch::Scope;
use nat_infer::weights::{CheckpointTensors, Weights};
use nat_infer::zoo;

/// Any checkpoint's tensors as candle takes them, and of these a backbone that is called `name` in weights.toml.
pub fn backbone(checkpoint: &Path, name: &str) -> Result<Backbone, Box<dyn Error>> {
    let vb = CheckpointTensors::open(checkpoint, None)?.into_var_builder(DType::F32, &Device::Cpu);
    // Any builder does: `VarBuilder::from_mmaped_safetensors`, one on a `VarMap` to train (with `weights.plain()`).
    let weights = Weights::from_var_builder(vb);
    let architecture = &zoo::find(name)?.architecture;
    let scope = Scope::default(); // Names that begin with `backbone.` would be `vb.pp("backbone")`.
    let backbone = Backbone::new(&architecture.backbone, &architecture.recipe, &scope, &weights);
    // All that was missing or misshapen, at once.
    weights.finish()?;
    Ok(backbone)
}

/// Vectors [B, C] of length 1 of normalised images [B, 3, H, W].
fn embed(backbone: &Backbone, images: &Tensor) -> candle_core::Result<Tensor> {
    let maps = backbone.forward(images)?; // of each level [B, H, W, C], the last one smallest
    let pooled = backbone.pool(&maps[maps.len() - 1])?; // [B, C]
    pooled.broadcast_div(&pooled.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
}

/// The cosine similarities [B, B] of some pictures: noise, the same with a little more noise, other noise.
pub fn similarities(backbone: &Backbone) -> candle_core::Result<Tensor> {
    let one = Tensor::randn(0f32, 1.0, (1, 3, 64, 64), &Device::Cpu)?;
    let near = (&one + (one.randn_like(0.0, 1.0)? * 0.1)?)?;
    let images = Tensor::cat(&[&one, &near, &one.randn_like(0.0, 1.0)?], 0)?;
    let vectors = embed(backbone, &images)?;
    vectors.matmul(&vectors.t()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (checkpoint, name) = match arguments.as_slice() {
        [checkpoint, name] => (checkpoint.as_str(), name.as_str()),
        _ => ("assets/demo-digits.safetensors", "demo-digits"),
    };
    println!("{}", similarities(&backbone(checkpoint.as_ref(), name)?)?);
    Ok(())
}
