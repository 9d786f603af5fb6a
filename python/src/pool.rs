//! Where work is done: on threads of this module's own, while Python goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use nat_infer::crash::panic_message;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::errors::NatInferError;

/// Threads at most.
const MOST: usize = 1024;

/// The threads of a process, and those of one that was forked from it: threads stay with the process that started them. It
/// is read without a lock, which might be one that a thread held when the process was forked.
struct ProcessPool {
    process: u32,
    pool: ThreadPool,
    forked: OnceLock<Box<ProcessPool>>,
}

/// By the number of threads; 0 is one for each core. They are kept: a pool is as large as whoever asks for it.
static POOLS: [OnceLock<Box<ProcessPool>>; MOST + 1] = [const { OnceLock::new() }; MOST + 1];

/// So many threads, or one for each core.
///
/// # Errors
/// When they are more than [`MOST`], or can't be started.
pub fn pool(threads: Option<usize>) -> PyResult<&'static ThreadPool> {
    let threads = threads.unwrap_or(0);
    let process = process::id();
    let many = || PyValueError::new_err(format!("{threads} threads are more than {MOST}"));
    let mut place = POOLS.get(threads).ok_or_else(many)?;
    loop {
        match place.get() {
            Some(found) if found.process == process => return Ok(&found.pool),
            Some(other) => place = &other.forked,
            None => {
                let pool = ThreadPoolBuilder::new().num_threads(threads).build();
                let failed = |error| PyRuntimeError::new_err(format!("can't start threads: {error}"));
                let pool = pool.map_err(failed)?;
                // Of two that make one at once the first is kept, and the loop finds it.
                place.set(Box::new(ProcessPool { process, pool, forked: OnceLock::new() })).ok();
            }
        }
    }
}

/// Starts candle's own pool of threads, as large as its variable says now.
#[pyfunction]
pub fn start_candles_pool() {
    nat_infer::candle_core::utils::barrier_pool();
}

/// The thread that ends Python, once it does.
static ENDS: OnceLock<ThreadId> = OnceLock::new();

/// Says that this thread is about to end Python.
#[pyfunction]
pub fn python_ends() {
    ENDS.set(thread::current().id()).ok();
}

/// Does `work` without Python's lock. A thread that would take the lock again when Python is gone is ended by Python in a way
/// that goes badly through code that is not C: it waits for the end of the process instead.
pub fn unlocked<R: Send>(py: Python<'_>, work: impl FnOnce() -> R + Send) -> R {
    py.detach(|| {
        let done = work();
        while ENDS.get().is_some_and(|ending| *ending != thread::current().id()) {
            thread::park();
        }
        done
    })
}

/// Does `work` on a thread of its own and without Python's lock, and waits for it. It is told to stop when Ctrl-C comes, and is
/// not waited for then.
///
/// # Errors
/// The exception that Ctrl-C raises; when there is no thread, or the work panics.
pub fn run<R: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&Arc<AtomicBool>) -> R + Send + 'static,
) -> PyResult<R> {
    /// How long Ctrl-C may wait to be seen.
    const LOOK: Duration = Duration::from_millis(50);
    let stop = Arc::new(AtomicBool::new(false));
    let (send, receive) = sync_channel(1);
    // Python's lock is given back only around what threads may share.
    let receive = Mutex::new(receive);
    let stopped = Arc::clone(&stop);
    let work = move || {
        let done = catch_unwind(AssertUnwindSafe(|| work(&stopped)));
        // Whoever asked may have gone.
        send.send(done.map_err(|panic| panic_message(&*panic))).ok();
    };
    let failed = |error| PyRuntimeError::new_err(format!("can't start a thread: {error}"));
    thread::Builder::new().name("nat-infer".to_owned()).spawn(work).map_err(failed)?;
    loop {
        match unlocked(py, || receive.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LOOK)) {
            Ok(done) => {
                return done.map_err(|words| {
                    let words = format!("nat-infer failed ({words}); please report it with the call");
                    NatInferError::new_err(words)
                });
            }
            Err(RecvTimeoutError::Timeout) => {
                py.check_signals().inspect_err(|_| stop.store(true, Ordering::Relaxed))?
            }
            Err(RecvTimeoutError::Disconnected) => return Err(PyRuntimeError::new_err("the thread ended")),
        }
    }
}
