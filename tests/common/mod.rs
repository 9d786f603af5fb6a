//! What the tests of networks share.

use candle_core::Device;

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
