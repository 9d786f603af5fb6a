//! How large the processor's caches are.

use std::sync::LazyLock;

/// Bytes of the second cache of a core; half a megabyte where the processor does not tell.
pub(crate) fn second_cache() -> usize {
    static BYTES: LazyLock<usize> = LazyLock::new(|| told().filter(|&bytes| bytes > 0).unwrap_or(512 << 10));
    *BYTES
}

/// What the processor says.
#[cfg(target_arch = "x86_64")]
fn told() -> Option<usize> {
    use std::arch::x86_64::__cpuid;
    /// The leaf of which Intel and AMD have the second cache's KiB in the upper half of ECX.
    const CACHES: u32 = 0x8000_0006;
    #[allow(unused_unsafe, reason = "safe in a Rust later than the oldest that builds this")]
    // SAFETY: every x86-64 processor has the instruction.
    let [last, caches] = [0x8000_0000, CACHES].map(|leaf| unsafe { __cpuid(leaf) });
    (last.eax >= CACHES).then_some(((caches.ecx >> 16) as usize) << 10)
}

#[cfg(not(target_arch = "x86_64"))]
fn told() -> Option<usize> {
    None
}
