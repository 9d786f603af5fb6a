//! NVIDIA's libraries, as far as this machine has them.

/// The first of NVIDIA's libraries that computing takes which this machine lacks: the driver's or the CUDA
/// runtime's. Without the feature `lazy`, and elsewhere than on x86-64 Linux, a program that starts has them.
pub fn missing_library() -> Option<&'static str> {
    #[cfg(all(feature = "lazy", target_arch = "x86_64", target_os = "linux"))]
    let missing = crate::lazy::missing_library();
    #[cfg(not(all(feature = "lazy", target_arch = "x86_64", target_os = "linux")))]
    let missing = None;
    missing
}
