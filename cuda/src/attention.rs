//! Launches of neighborhood attention: qkv [batch, height, width, 3 · heads · dim], rpb [heads, 2K−1, 2K−1], pad
//! [3 · heads · dim] and query bias [heads · dim] to out [batch, height, width, heads · dim], all of one type.
//!
//! pad is what qkv has of a padded position, on an axis shorter than K · dilation; where none is, it may be null.
//!
//! The query bias may be null. It is added to each q, and the sum rounded to the type, as if qkv held it: so a layer
//! whose qkv comes of a matrix product need not add the product's bias in a pass of its own. Of that the keys' part adds
//! the same to all scores of a query and cancels in the softmax, and the values' part is added to each output, where the
//! next product's bias can hold it.
//!
//! The gradient takes no query bias. It takes several: [`Launches::query_gradients`], and then [`Launches::key_gradients`] and
//! [`Launches::bias_gradients`] where theirs are wanted, which read the statistics that the first one writes,
//! [batch, height, width, heads, 2] in f32.

use crate::module::{ATTENTION, ATTENTION_GRAD, ATTENTION_MMA_BF16, ATTENTION_MMA_F16, MMA_SIZES, by_size};
use crate::{Element, Launch, Module, TooLarge};

/// The launches of a computation, by its sizes.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Launches {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub heads: usize,
    /// Channels of a head.
    pub dim: usize,
    pub kernel_size: usize,
    pub dilation: usize,
}

/// Warps of a block of the general kernels.
const WARPS: usize = 4;
/// Channels that the kernels for narrow heads sum up in one pass over the window.
const NARROW: usize = 32;
/// Rows and columns of the queries of a warp on the matrix units.
const QUERIES: [usize; 2] = [2, 8];
/// Warps of a block on the matrix units, by [`MMA_SIZES`].
const MMA_WARPS: [usize; 6] = [4, 4, 4, 4, 3, 1];
/// The kernel size that has a kernel for whole maps.
const WHOLE_SIZE: usize = 7;
/// Channels of a head on the matrix units.
const MMA_DIM: usize = 32;

/// The kernels of a name: for each [`Element`], for narrow heads and for wide ones.
macro_rules! by_type {
    ($name:literal) => {
        [
            [concat!($name, "_f32"), concat!($name, "_wide_f32")],
            [concat!($name, "_f16"), concat!($name, "_wide_f16")],
            [concat!($name, "_bf16"), concat!($name, "_wide_bf16")],
        ]
    };
}

impl Launches {
    /// The launch for any problem: from (qkv, rpb, pad, query bias) to (out). `aligned`: whether the tensors begin at
    /// a multiple of 16 bytes.
    ///
    /// # Errors
    /// When the problem is too large for a launch.
    pub fn general(&self, element: Element, aligned: bool) -> Result<Launch, TooLarge> {
        self.warps(ATTENTION[element as usize], by_type!("attention"), element, aligned)
    }

    /// The gradient of q, and statistics for the other launches: from (qkv, rpb, pad, gradient of out) to (gradient
    /// of qkv, statistics). `aligned`: whether the inputs begin at a multiple of 16 bytes.
    ///
    /// # Errors
    /// When the problem is too large for a launch.
    pub fn query_gradients(&self, element: Element, aligned: bool) -> Result<Launch, TooLarge> {
        self.warps(ATTENTION_GRAD[element as usize], by_type!("attention_grad_query"), element, aligned)
    }

    /// The gradients of k and v: from (qkv, rpb, pad, gradient of out, statistics) to (gradient of qkv).
    ///
    /// # Errors
    /// When the problem is too large for a launch.
    pub fn key_gradients(&self, element: Element, aligned: bool) -> Result<Launch, TooLarge> {
        self.warps(ATTENTION_GRAD[element as usize], by_type!("attention_grad_key"), element, aligned)
    }

    /// The gradient of rpb: from (qkv, rpb, pad, gradient of out, statistics) to it.
    ///
    /// # Errors
    /// When the problem is too large for a launch.
    pub fn bias_gradients(&self, element: Element, aligned: bool) -> Result<Launch, TooLarge> {
        let function = match element {
            Element::F32 => "attention_grad_bias_f32",
            Element::F16 => "attention_grad_bias_f16",
            Element::Bf16 => "attention_grad_bias_bf16",
        };
        let biases = self.heads * (2 * self.kernel_size - 1).pow(2);
        Launch::linear(
            ATTENTION_GRAD[element as usize],
            function,
            biases,
            32 * WARPS as u32,
            &self.sizes(element, aligned)?,
        )
    }

    /// The launch of a warp for each head of each pixel.
    fn warps(
        &self,
        module: Module,
        functions: [[&'static str; 2]; 3],
        element: Element,
        aligned: bool,
    ) -> Result<Launch, TooLarge> {
        let function = functions[element as usize][usize::from(self.dim > NARROW)];
        let blocks = (self.batch * self.height * self.width * self.heads).div_ceil(WARPS);
        Launch::linear(module, function, blocks, 32 * WARPS as u32, &self.sizes(element, aligned)?)
    }

    /// The parameters of the general kernels behind their pointers.
    fn sizes(&self, element: Element, aligned: bool) -> Result<[usize; 8], TooLarge> {
        let &Self { batch, height, width, heads, dim, kernel_size, dilation } = self;
        // The places of a window, and of the widest padded axis, are counted in i32.
        let span = kernel_size.checked_mul(kernel_size.max(height).max(width)).ok_or(TooLarge)?;
        i32::try_from(span).map_err(|_| TooLarge)?;
        let vectors = aligned && (dim * element.bytes()).is_multiple_of(16);
        Ok([batch, height, width, heads, dim, kernel_size, dilation, vectors.into()])
    }

    /// The launch on the matrix units, for the problems and types that they serve, of tensors that begin
    /// at a multiple of 16 bytes on a card of compute capability 8.0 or later: from (qkv, rpb, pad, query bias) to (out).
    ///
    /// # Errors
    /// When the problem is too large for a launch.
    pub fn matrix_units(&self, element: Element) -> Option<Result<Launch, TooLarge>> {
        let &Self { batch, height, width, heads, dim, kernel_size, dilation } = self;
        if dim != MMA_DIM {
            return None;
        }
        let (height_class, width_class) = (height.div_ceil(dilation), width.div_ceil(dilation));
        let whole = kernel_size == WHOLE_SIZE && height_class.max(width_class) <= kernel_size;
        let size = MMA_SIZES.iter().position(|&size| size == kernel_size)?;
        let (modules, functions, whole_map) = match element {
            Element::F16 => {
                (ATTENTION_MMA_F16, by_size!(concat, "attention_mma_f16"), "attention_mma_f16_7_whole")
            }
            Element::Bf16 => {
                (ATTENTION_MMA_BF16, by_size!(concat, "attention_mma_bf16"), "attention_mma_bf16_7_whole")
            }
            Element::F32 => return None,
        };
        let function = if whole { whole_map } else { functions[size] };
        let warps = MMA_WARPS[size];
        let [query_rows, query_columns] = [QUERIES[0] * warps, QUERIES[1]];
        let tiles = height_class.div_ceil(query_rows) * width_class.div_ceil(query_columns);
        let (dilation_y, dilation_x) = (dilation.min(height), dilation.min(width));
        let blocks = batch * dilation_y * dilation_x * tiles * heads;
        // As `Tile` of the kernels: the keys and values of a halo, and each column's biases.
        let [halo_rows, halo_columns] = match whole {
            true => [kernel_size, kernel_size + 1],
            false => [query_rows + kernel_size - 1, query_columns + kernel_size - 1],
        };
        let bias_rows = (2 * kernel_size - 1).min(query_rows + kernel_size - 1);
        let biases = query_columns * ((bias_rows * halo_columns + 7) / 16 * 16 + 8);
        let key_bytes = element.bytes() * MMA_DIM;
        let shared_bytes = (2 * halo_rows * halo_columns * key_bytes + 4 * biases) as u32;
        let sizes = [height, width, heads, dilation_y, dilation_x, height_class, width_class];
        let launch = Launch::linear(modules[size], function, blocks, 32 * warps as u32, &sizes);
        Some(launch.map(|launch| Launch { shared_bytes, ..launch }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELEMENTS: [Element; 3] = [Element::F32, Element::F16, Element::Bf16];

    /// Launches on the matrix units of all kernel sizes, for maps with borders and whole ones.
    fn on_matrix_units() -> Vec<Launch> {
        let mut launches = Vec::new();
        for element in ELEMENTS {
            for kernel_size in 1..20 {
                for side in [kernel_size, 100] {
                    let (batch, heads, dim, dilation) = (2, 3, MMA_DIM, 1);
                    let problem =
                        Launches { batch, height: side, width: side, heads, dim, kernel_size, dilation };
                    launches.extend(problem.matrix_units(element).map(Result::unwrap));
                }
            }
        }
        launches
    }

    #[test]
    fn shared_memory_is_what_every_card_has() {
        // What a kernel gets without asking the driver for more.
        let most = 48 << 10;
        let launches = on_matrix_units();
        assert_eq!(launches.len(), 2 * 2 * MMA_SIZES.len());
        for launch in launches {
            assert!(
                (1..=most).contains(&launch.shared_bytes),
                "{}: {}",
                launch.function,
                launch.shared_bytes
            );
        }
    }

    #[test]
    fn whole_maps_have_their_own_kernel() {
        let function = |height, width, dilation| {
            let problem = Launches { batch: 1, height, width, heads: 1, dim: 32, kernel_size: 7, dilation };
            problem.matrix_units(Element::F16).unwrap().unwrap().function
        };
        for (height, width, dilation) in [(7, 7, 1), (14, 14, 2), (56, 49, 8), (3, 5, 1), (13, 14, 2)] {
            assert_eq!(function(height, width, dilation), "attention_mma_f16_7_whole");
        }
        for (height, width, dilation) in [(7, 8, 1), (15, 14, 2), (56, 57, 8)] {
            assert_eq!(function(height, width, dilation), "attention_mma_f16_7");
        }
    }

    #[cfg(feature = "ptx")]
    #[test]
    fn every_kernel_is_in_the_module_of_its_launch() {
        let mut launches = on_matrix_units();
        for element in ELEMENTS {
            for dim in [NARROW, 2 * NARROW] {
                let (batch, height, width, heads, kernel_size, dilation) = (1, 9, 9, 1, 3, 1);
                let problem = Launches { batch, height, width, heads, dim, kernel_size, dilation };
                launches.push(problem.general(element, true).unwrap());
                launches.push(problem.query_gradients(element, true).unwrap());
                launches.push(problem.key_gradients(element, true).unwrap());
                launches.push(problem.bias_gradients(element, true).unwrap());
            }
        }
        for launch in launches {
            if launch.module.ptx.is_empty() {
                eprintln!("skipped: the kernels were compiled by what stands in for nvcc");
                return;
            }
            let entry = format!(".entry {}(", launch.function);
            assert!(launch.module.ptx.contains(&entry), "{} has no {}", launch.module.name, launch.function);
        }
    }
}
