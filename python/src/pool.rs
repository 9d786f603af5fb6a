//! Where work is done: on threads of this module's own, while Python goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nat_infer::crash::panic_message;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::errors::NatInferError;

/// Threads that compute, of one process and by their number.
struct ProcessPool {
    process: u32,
    threads: Option<usize>,
    pool: Arc<ThreadPool>,
}

/// Python forks processes, and threads stay with the one that started them: those of another process are no use, and are
/// left alone.
static POOLS: Mutex<Vec<ProcessPool>> = Mutex::new(Vec::new());

/// So many threads, or one for each core.
///
/// # Errors
/// When they can't be started.
pub fn pool(threads: Option<usize>) -> PyResult<Arc<ThreadPool>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = process::id();
    if let Some(found) = pools.iter().find(|pool| pool.process == process && pool.threads == threads) {
        return Ok(Arc::clone(&found.pool));
    }
    let pool = ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build();
    let pool = pool.map_err(|error| PyRuntimeError::new_err(format!("can't start threads: {error}")))?;
    let pool = Arc::new(pool);
    pools.push(ProcessPool { process, threads, pool: Arc::clone(&pool) });
    Ok(pool)
}

/// Starts candle's own pool of threads, as large as its variable says now.
#[pyfunction]
pub fn start_candles_pool() {
    nat_infer::candle_core::utils::barrier_pool();
}

/// Does `work` on a thread of its own, with `threads` to compute on and without Python's lock, and waits for it. It is told
/// to stop when Ctrl-C comes, and is not waited for then.
///
/// # Errors
/// The exception that Ctrl-C raises; when there are no threads, or the work panics.
pub fn run<R: Send + 'static>(
    py: Python<'_>,
    threads: Option<usize>,
    work: impl FnOnce(&Arc<AtomicBool>) -> R + Send + 'static,
) -> PyResult<R> {
    /// How long Ctrl-C may wait to be seen.
    const LOOK: Duration = Duration::from_millis(50);
    let pool = pool(threads)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (send, receive) = sync_channel(1);
    // Python's lock is given back only around what threads may share.
    let receive = Mutex::new(receive);
    let stopped = Arc::clone(&stop);
    let work = move || {
        let done = catch_unwind(AssertUnwindSafe(|| pool.install(|| work(&stopped))));
        // Whoever asked may have gone.
        send.send(done.map_err(|panic| panic_message(&*panic))).ok();
    };
    let failed = |error| PyRuntimeError::new_err(format!("can't start a thread: {error}"));
    thread::Builder::new().name("nat-infer".to_owned()).spawn(work).map_err(failed)?;
    loop {
        match py.detach(|| receive.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LOOK)) {
            Ok(done) => {
                return done.map_err(|words| {
                    NatInferError::new_err(format!(
                        "nat-infer failed ({words}); please report it with the call"
                    ))
                });
            }
            Err(RecvTimeoutError::Timeout) => {
                py.check_signals().inspect_err(|_| stop.store(true, Ordering::Relaxed))?
            }
            Err(RecvTimeoutError::Disconnected) => return Err(PyRuntimeError::new_err("the thread ended")),
        }
    }
}
