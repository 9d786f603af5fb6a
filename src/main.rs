//! `nat-infer`: what published NAT and DiNAT networks see on images.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    keep_freed_memory();
    let_idle_threads_sleep();
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

/// candle adds gradients up on threads of its own, which spin when they have nothing to do: a third of the time of
/// a pass back, on two cores, that our layers then lack.
fn let_idle_threads_sleep() {
    const SPIN_LIMIT: &str = "CANDLE_BARRIER_POOL_SPIN_LIMIT";
    if std::env::var_os(SPIN_LIMIT).is_none() {
        // SAFETY: no other thread exists yet.
        unsafe { std::env::set_var(SPIN_LIMIT, "1") };
    }
}
