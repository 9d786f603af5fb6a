//! Ctrl-C and its kin.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use nat_infer::tasks::files;

use super::exit::Exit;

/// What becomes true with the first Ctrl-C, or when the system asks the program to end. A second one ends it at once,
/// with no file half written.
///
/// # Errors
/// When the system refuses.
pub fn catch() -> Result<Arc<AtomicBool>> {
    // A command that runs over several sets of images asks for each.
    static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(stop) = STOP.get() {
        return Ok(Arc::clone(stop));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            let _nothing_is_being_written = files::settle();
            process::exit(Exit::Interrupted as i32);
        }
    };
    let ignored = ignored();
    ctrlc::set_handler(handler).context("can't catch Ctrl-C")?;
    ignore_again(&ignored);
    Ok(Arc::clone(STOP.get_or_init(|| stop)))
}

/// The signals that whoever started the program wants ignored: `nohup` a hang-up, a shell Ctrl-C for what it runs in the
/// background.
#[cfg(unix)]
fn ignored() -> Vec<libc::c_int> {
    let is_ignored = |signal: &libc::c_int| {
        // SAFETY: with no new action the call only fills the old one, for which zeros are a valid value.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(*signal, std::ptr::null(), &raw mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
        }
    };
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP].into_iter().filter(is_ignored).collect()
}

#[cfg(unix)]
fn ignore_again(signals: &[libc::c_int]) {
    for &signal in signals {
        // SAFETY: to ignore a signal runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

#[cfg(not(unix))]
fn ignored() -> Vec<i32> {
    Vec::new()
}

#[cfg(not(unix))]
fn ignore_again(_: &[i32]) {}
