//! `nat-infer`: what published NAT and DiNAT networks see on images.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    keep_freed_memory();
    let_large_files_be_errors();
    let_idle_threads_sleep();
    cli::main().into()
}

/// Lets the allocator keep the memory of a layer's output for the next one. By default glibc returns large
/// blocks to the system at once, and maps and clears every page of them again a layer later.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const NEVER: libc::c_int = 1 << 30;
        // What glibc before 2.35 takes at most: half of a heap of another arena.
        const OF_OLD: libc::c_int = 32 << 20;
        // SAFETY: no other thread exists yet.
        let set = |what, value| unsafe { libc::mallopt(what, value) } == 1;
        // With one of these set, glibc adapts neither to the program any more: both or none.
        if [NEVER, OF_OLD].into_iter().any(|size| set(libc::M_MMAP_THRESHOLD, size)) {
            set(libc::M_TRIM_THRESHOLD, NEVER);
            // Other arenas than the main one cannot hold large blocks.
            set(libc::M_ARENA_MAX, 1);
        }
    }
}

/// Lets a write beyond the limit of a file's size (`ulimit -f`) fail as any other, where the signal that it
/// sends would end the program.
fn let_large_files_be_errors() {
    #[cfg(unix)]
    // SAFETY: no handler is installed, the signal is ignored.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
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
