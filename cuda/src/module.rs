//! The files of kernels.

/// One file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// A name that no other crate's module has: candle keeps modules by it.
    pub name: &'static str,
    /// The kernels for the driver to compile.
    #[cfg(feature = "ptx")]
    pub ptx: &'static str,
}

macro_rules! modules {
    ($($(#[$doc:meta])* $module:ident, $file:literal;)*) => {
        $($(#[$doc])*
        pub const $module: Module = Module {
            name: concat!("nat-infer-", $file),
            #[cfg(feature = "ptx")]
            ptx: include_str!(concat!(env!("OUT_DIR"), "/", $file, ".ptx")),
        };)*
    };
}

modules! {
    /// Neighborhood attention for any shape.
    ATTENTION, "attention";
    /// The gradient of neighborhood attention for any shape.
    ATTENTION_GRAD, "attention_grad";
    /// Neighborhood attention on the matrix units (compute capability 8.0 and later).
    ATTENTION_MMA, "attention_mma";
    /// The convolution of images.
    IMAGES, "images";
    /// What stands between the matrix products of a layer.
    LAYERS, "layers";
    /// Moving the values of maps and images.
    MAPS, "maps";
    /// Layer norms in f32, alone and behind what ends a layer.
    NORMS_F32, "norms_f32";
    /// Those in f16.
    NORMS_F16, "norms_f16";
    /// Those in bf16.
    NORMS_BF16, "norms_bf16";
    /// Regions and boxes of detectors.
    REGIONS, "regions";
}
