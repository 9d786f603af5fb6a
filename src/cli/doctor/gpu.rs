//! The GPU, its driver and NVIDIA's libraries.

use nat_infer::results::GpuFacts;

/// What is known of the GPU of this number, which does not compute where there is a reason `why`.
#[cfg(not(feature = "cuda"))]
pub fn facts(_: usize, why: Option<String>) -> GpuFacts {
    GpuFacts { why, ..GpuFacts::default() }
}

/// What is known of the GPU of this number, which does not compute where there is a reason `why`.
#[cfg(feature = "cuda")]
pub fn facts(number: usize, why: Option<String>) -> GpuFacts {
    use candle_core::cuda_backend::cudarc::driver::result::{device, init};
    use candle_core::cuda_backend::cudarc::driver::sys::{self, CUdevice_attribute};
    use nat_infer::results::GpuLibrary;

    let libraries: Vec<GpuLibrary> = nat_cuda::libraries()
        .into_iter()
        .map(|(name, found)| GpuLibrary { name: name.to_owned(), found })
        .collect();
    let facts = GpuFacts { built_in: true, usable: why.is_none(), why, libraries, ..GpuFacts::default() };
    // The first one is the driver's.
    if facts.libraries.first().is_none_or(|driver| !driver.found) || init().is_err() {
        return facts;
    }
    let mut version = 0;
    // SAFETY: the driver's library is there and writes one number.
    let answered = unsafe { sys::cuDriverGetVersion(&raw mut version) } == sys::CUresult::CUDA_SUCCESS;
    let cuda = (answered && version > 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10));
    let facts = GpuFacts { driver: driver(), cuda, ..facts };
    let Some(gpu) = i32::try_from(number).ok().and_then(|number| device::get(number).ok()) else {
        return facts;
    };
    // SAFETY: the driver has given this device.
    let (memory, capability) = unsafe {
        use CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        let [major, minor] = [MAJOR, MINOR].map(|attribute| device::get_attribute(gpu, attribute).ok());
        (device::total_mem(gpu).ok(), major.zip(minor))
    };
    GpuFacts {
        name: device::get_name(gpu).ok(),
        memory: memory.map(|bytes| bytes as u64),
        compute_capability: capability.map(|(major, minor)| format!("{major}.{minor}")),
        ..facts
    }
}

/// The version of the driver, as Linux tells it.
#[cfg(feature = "cuda")]
fn driver() -> Option<String> {
    version(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

/// The version in what the driver says of itself, in one of two forms.
#[cfg(any(test, feature = "cuda"))]
fn version(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_version_is_found() {
        for (text, expected) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\nGCC version: 12.2",
                Some("535.129.03"),
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
                Some("580.65.06"),
            ),
            ("something else\n1.2", None),
            ("", None),
        ] {
            assert_eq!(version(text).as_deref(), expected, "{text}");
        }
    }
}
