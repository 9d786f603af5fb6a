//! Neighborhood attention in a network of one's own: it learns to blur, which takes the pixels around each pixel.
//!
//! ```sh
//! cargo run --release --example operator
//! ```

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{AdamW, Init, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap, linear, loss};
use nat_infer::attention::NeighborhoodAttention;

const KERNEL: usize = 3;

/// Values [B, H, W, 1] to channels, attention over the pixels around each pixel, and back to values.
struct Blur {
    qkv: Linear,
    /// The position bias [heads, 2K-1, 2K-1], which the published weights have too.
    rpb: Tensor,
    attention: NeighborhoodAttention,
    out: Linear,
}

impl Blur {
    fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        let attention = NeighborhoodAttention { heads: 2, kernel_size: KERNEL, dilation: 1 };
        let side = 2 * KERNEL - 1;
        Ok(Self {
            qkv: linear(1, 3 * channels, vb.pp("qkv"))?,
            rpb: vb.get_with_hints((attention.heads, side, side), "rpb", Init::Const(0.0))?,
            out: linear(channels, 1, vb.pp("out"))?,
            attention,
        })
    }
}

impl Module for Blur {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let qkv = self.qkv.forward(x)?; // [B, H, W, 3C]
        let mixed = self.attention.forward(&qkv, Some(&self.rpb))?; // [B, H, W, C]
        self.out.forward(&mixed)
    }
}

/// The mean of 3x3 pixels around each pixel of maps [B, H, W, 1], with the window moved inside at the borders as
/// neighborhood attention moves it.
fn blurred(x: &Tensor) -> Result<Tensor> {
    let inside = x.permute((0, 3, 1, 2))?.avg_pool2d_with_stride(KERNEL, 1)?;
    inside.pad_with_same(2, 1, 1)?.pad_with_same(3, 1, 1)?.permute((0, 2, 3, 1))
}

/// Trains for `steps` and returns the mean squared error before and after.
pub fn train(steps: usize) -> Result<[f32; 2]> {
    let variables = VarMap::new();
    let network = Blur::new(8, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    let mut optimizer = AdamW::new(variables.all_vars(), ParamsAdamW { lr: 0.02, ..Default::default() })?;
    let error = |network: &Blur| {
        let x = Tensor::rand(-1f32, 1.0, (4, 16, 16, 1), &Device::Cpu)?;
        loss::mse(&network.forward(&x)?, &blurred(&x)?)
    };
    let before = error(&network)?.to_scalar()?;
    for _ in 0..steps {
        optimizer.backward_step(&error(&network)?)?;
    }
    Ok([before, error(&network)?.to_scalar()?])
}

fn main() -> Result<()> {
    let [before, after] = train(200)?;
    println!("mean squared error: {before:.4} before, {after:.4} after 200 steps");
    Ok(())
}
