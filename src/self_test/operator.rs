//! The operator, on maps of every kind.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::check::Stage;
use super::definition;
use super::exact::values;
use crate::attention::NeighborhoodAttention;

/// A map and what attends on it.
struct OperatorCase {
    height: usize,
    width: usize,
    /// Channels of a head.
    dim: usize,
    operator: NeighborhoodAttention,
}

const fn case(
    [height, width]: [usize; 2],
    [heads, dim]: [usize; 2],
    kernel_size: usize,
    dilation: usize,
) -> OperatorCase {
    OperatorCase { height, width, dim, operator: NeighborhoodAttention { heads, kernel_size, dilation } }
}

/// Heads of 32 channels have kernels of their own, on a GPU the matrix units'. Sizes are no multiples of anything.
const CASES: [OperatorCase; 6] = [
    // More columns than a tile of queries has.
    case([9, 19], [2, 32], 7, 1),
    // Residue classes of different sizes.
    case([17, 15], [1, 32], 5, 3),
    // Smaller than the window, on one axis and on both.
    case([5, 16], [2, 32], 7, 2),
    case([3, 5], [1, 32], 7, 1),
    // Heads of other widths.
    case([8, 7], [3, 20], 3, 2),
    case([6, 4], [2, 8], 5, 1),
];

/// Images of each case.
const BATCH: usize = 2;

impl OperatorCase {
    fn name(&self) -> String {
        let Self { height, width, dim, operator } = self;
        let NeighborhoodAttention { kernel_size, dilation, .. } = operator;
        format!("{height}x{width}, heads of {dim}, kernel {kernel_size}, dilation {dilation}")
    }

    /// qkv, rpb, pad and what the gradient of the output is, in f64 on the CPU.
    fn inputs(&self) -> Result<[Tensor; 4]> {
        let &Self { height, width, dim, operator: NeighborhoodAttention { heads, kernel_size, .. } } = self;
        let (channels, side) = (heads * dim, 2 * kernel_size - 1);
        Ok([
            values(1, (BATCH, height, width, 3 * channels), 1.5)?,
            values(2, (heads, side, side), 1.0)?,
            values(3, 3 * channels, 1.5)?,
            values(4, (BATCH, height, width, channels), 1.0)?,
        ])
    }
}

/// What attends: to qkv, rpb and pad.
type ComputeAttention = dyn Fn(NeighborhoodAttention, &[Tensor; 3]) -> Result<Tensor>;

/// The outputs of all cases by `attend`.
fn outputs(attend: &ComputeAttention, placed: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Stage>> {
    let output = |case: &OperatorCase| {
        let [qkv, rpb, pad, _] = case.inputs()?;
        Ok((case.name(), attend(case.operator, &[placed(&qkv)?, placed(&rpb)?, placed(&pad)?])?))
    };
    CASES.iter().map(output).collect()
}

/// The gradients of all cases by `attend` and candle's `backward`.
fn gradients(attend: &ComputeAttention, placed: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    for case in &CASES {
        let [qkv, rpb, pad, grad] = case.inputs()?;
        let [qkv, rpb] = [Var::from_tensor(&placed(&qkv)?)?, Var::from_tensor(&placed(&rpb)?)?];
        let out = attend(case.operator, &[qkv.as_tensor().clone(), rpb.as_tensor().clone(), placed(&pad)?])?;
        let mut all = (out * placed(&grad)?)?.sum_all()?.backward()?;
        for (name, x) in [("qkv", &qkv), ("rpb", &rpb)] {
            let Some(gradient) = all.remove(x) else { candle_core::bail!("no gradient of {name}") };
            stages.push((format!("{name} of {}", case.name()), gradient));
        }
    }
    Ok(stages)
}

fn defined(operator: NeighborhoodAttention, [qkv, rpb, pad]: &[Tensor; 3]) -> Result<Tensor> {
    definition::attention(operator, qkv, rpb, pad)
}

fn computed(operator: NeighborhoodAttention, [qkv, rpb, pad]: &[Tensor; 3]) -> Result<Tensor> {
    Ok(operator.forward_padded(qkv, Some(rpb), Some(pad))?)
}

/// What [`forward`] should give.
pub(super) fn forward_reference() -> Result<Vec<Stage>> {
    outputs(&defined, &|x| Ok(x.clone()))
}

/// What [`backward`] should give.
pub(super) fn backward_reference() -> Result<Vec<Stage>> {
    gradients(&defined, &|x| Ok(x.clone()))
}

/// The operator's outputs on a device, in a type.
pub(super) fn forward(device: &Device, dtype: DType) -> Result<Vec<Stage>> {
    outputs(&computed, &|x| x.to_dtype(dtype)?.to_device(device))
}

/// Its gradients.
pub(super) fn backward(device: &Device, dtype: DType) -> Result<Vec<Stage>> {
    gradients(&computed, &|x| x.to_dtype(dtype)?.to_device(device))
}
