//! The modules of kernels: a file of them each, or those of one type in it and on the matrix units of one kernel size,
//! since a driver compiles a whole module for the card before the first launch out of it.

/// Kernels that are loaded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// A name that no other module has.
    pub name: &'static str,
    /// The kernels for the driver to compile.
    #[cfg(feature = "ptx")]
    pub ptx: &'static str,
}

macro_rules! module {
    ($($name:expr),+) => {
        Module {
            name: concat!("nat-infer-", $($name),+),
            #[cfg(feature = "ptx")]
            ptx: include_str!(concat!(env!("OUT_DIR"), "/", $($name),+, ".ptx")),
        }
    };
}

/// The modules of a name by [`Element`](crate::Element).
macro_rules! by_element {
    ($file:literal) => {
        [module!($file, "_f32"), module!($file, "_f16"), module!($file, "_bf16")]
    };
}

/// What the macro `$make` makes of a name with each of [`MMA_SIZES`] behind it.
macro_rules! by_size {
    ($make:ident, $name:literal) => {
        [
            $make!($name, "_3"),
            $make!($name, "_5"),
            $make!($name, "_7"),
            $make!($name, "_9"),
            $make!($name, "_11"),
            $make!($name, "_13"),
        ]
    };
}
pub(crate) use by_size;

/// Neighborhood attention for any shape.
pub(crate) const ATTENTION: [Module; 3] = by_element!("attention");
/// The gradient of neighborhood attention for any shape.
pub(crate) const ATTENTION_GRAD: [Module; 3] = by_element!("attention_grad");
/// The kernel sizes on the matrix units.
pub(crate) const MMA_SIZES: [usize; 6] = [3, 5, 7, 9, 11, 13];
/// Neighborhood attention on the matrix units (compute capability 8.0 and later), in f16.
pub(crate) const ATTENTION_MMA_F16: [Module; 6] = by_size!(module, "attention_mma_f16");
/// The same in bf16.
pub(crate) const ATTENTION_MMA_BF16: [Module; 6] = by_size!(module, "attention_mma_bf16");
/// The convolution of images.
pub(crate) const IMAGES: [Module; 3] = by_element!("images");
/// Moving the values of maps and images.
pub(crate) const MAPS: Module = module!("maps");
/// Layer norms, alone and behind what ends a layer.
pub(crate) const NORMS: [Module; 3] = by_element!("norms");
/// What stands between the matrix products of a layer.
pub(crate) const LAYERS: [Module; 3] = by_element!("layers");
/// Regions and boxes of detectors.
pub(crate) const REGIONS: Module = module!("regions");
