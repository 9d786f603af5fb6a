//! What the tests of networks share.

use std::path::{Path, PathBuf};

use candle_core::Device;

/// The golden data: `tests/golden`, or `$NAT_INFER_GOLDEN`.
pub fn golden() -> PathBuf {
    std::env::var_os("NAT_INFER_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from)
}

/// The GPU, if this program is built for one and finds it.
pub fn gpu() -> Option<Device> {
    #[cfg(feature = "cuda")]
    let device = nat_infer::cuda::open(0).ok();
    #[cfg(not(feature = "cuda"))]
    let device = None;
    if device.is_none() {
        eprintln!("skipped on the GPU: there is none, or the feature `cuda` is off");
    }
    device
}
