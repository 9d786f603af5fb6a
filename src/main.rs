//! `nat-infer`: what published NAT and DiNAT networks see on images.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    keep_freed_memory();
    cli::main().into()
}

/// Lets the allocator keep the memory of a layer's output for the next one. By default glibc returns large
/// blocks to the system at once, and maps and clears every page of them again a layer later.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: no other thread exists yet.
    unsafe {
        const NEVER: libc::c_int = 1 << 30;
        libc::mallopt(libc::M_MMAP_THRESHOLD, NEVER);
        libc::mallopt(libc::M_TRIM_THRESHOLD, NEVER);
        // Other arenas than the main one cannot hold large blocks.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
