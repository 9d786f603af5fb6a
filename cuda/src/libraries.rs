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

/// NVIDIA's libraries that computing takes: of each the file that was found or is missing, and whether it was found.
/// Without the feature `lazy`, and elsewhere than on x86-64 Linux, a program that starts has them, under names that the linker
/// knows.
pub fn libraries() -> Vec<(&'static str, bool)> {
    #[cfg(all(feature = "lazy", target_arch = "x86_64", target_os = "linux"))]
    let libraries = crate::lazy::libraries();
    #[cfg(not(all(feature = "lazy", target_arch = "x86_64", target_os = "linux")))]
    let libraries = ["cuda", "cublas", "curand"].map(|name| (name, true)).into();
    libraries
}
