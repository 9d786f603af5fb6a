//! Images read ahead of the network: several threads decode and prepare, one takes what they made, in order.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use image::RgbImage;
use rayon::ThreadPoolBuilder;

use super::failure::Failure;

/// What one image became: its input, and the picture itself where it is wanted again.
pub(super) struct PreparedImage<I> {
    pub input: I,
    pub picture: Option<RgbImage>,
    /// Width and height of the picture.
    pub size: [usize; 2],
    /// Bytes of both.
    pub bytes: u64,
}

/// What there may be ahead of the network.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Images, decoded or being decoded.
    pub images: usize,
    /// Bytes of what was prepared and of what is being decoded; the image that is waited for may take more.
    pub bytes: u64,
}

/// The threads' end and the taker's end of the queue.
pub(super) struct Queue<I> {
    state: Mutex<QueueState<I>>,
    changed: Condvar,
    bounds: Bounds,
    count: usize,
    /// Set by the user.
    stop: Arc<AtomicBool>,
    /// Nanoseconds that threads spent to read and decode, and to prepare.
    times: [AtomicU64; 2],
}

/// What a thread knows of the image that it makes.
pub(super) struct Worker<'a, I> {
    queue: &'a Queue<I>,
    index: usize,
    admitted: Cell<u64>,
}

impl<I: Send + 'static> Worker<'_, I> {
    /// Waits until there is room for so many bytes while the image is made.
    pub fn admit(&self, bytes: u64) {
        let Queue { changed, bounds, .. } = self.queue;
        let mut state = self.queue.state();
        while !state.closed && self.index != state.taken && state.bytes + bytes > bounds.bytes {
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes += bytes;
        self.admitted.set(self.admitted.get() + bytes);
    }

    /// Says how long it took to read and decode, and to prepare.
    pub fn took(&self, times: [Duration; 2]) {
        for (total, time) in self.queue.times.iter().zip(times) {
            total.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        }
    }
}

struct QueueState<I> {
    /// The image that a thread takes up next.
    next: usize,
    /// The image that is taken next.
    taken: usize,
    ready: BTreeMap<usize, Result<PreparedImage<I>, Failure>>,
    /// Bytes of what is ready, of what was taken and not given back, and of what is being decoded.
    bytes: u64,
    closed: bool,
}

impl<I: Send + 'static> Queue<I> {
    /// Starts `threads` threads that make `count` images with `make`.
    ///
    /// # Errors
    /// When not even one thread can be started.
    pub fn start(
        threads: usize,
        count: usize,
        bounds: Bounds,
        stop: Arc<AtomicBool>,
        make: impl Fn(usize, &Worker<I>) -> Result<PreparedImage<I>, Failure> + Send + Sync + 'static,
    ) -> io::Result<Arc<Self>> {
        let state = QueueState { next: 0, taken: 0, ready: BTreeMap::new(), bytes: 0, closed: false };
        let queue = Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            bounds,
            count,
            stop,
            times: Default::default(),
        });
        let make = Arc::new(make);
        for started in 0..threads.clamp(1, count.max(1)) {
            let (queue, make) = (Arc::clone(&queue), Arc::clone(&make));
            let work = move || {
                while let Some(index) = queue.claim() {
                    let worker = Worker { queue: &queue, index, admitted: Cell::new(0) };
                    let made = make(index, &worker);
                    queue.put(index, made, worker.admitted.get());
                }
            };
            // As every core has a thread like this one, a thread does an image on its own: it is all of its pool, which ends
            // with its work. It is not waited for: one that hangs in a read must not keep the program from ending.
            let alone =
                ThreadPoolBuilder::new().num_threads(1).thread_name(move |_| format!("images {started}"));
            match alone.build() {
                Ok(alone) => alone.spawn(work),
                Err(error) if started == 0 => return Err(io::Error::other(error)),
                // With fewer threads it takes longer.
                Err(_) => break,
            }
        }
        Ok(queue)
    }

    /// The next image to make, once there is room for it; `None` when there is no more to do.
    fn claim(&self) -> Option<usize> {
        let mut state = self.state();
        loop {
            if state.closed || state.next == self.count {
                return None;
            }
            // What the taker waits for is always made.
            let room = state.next < state.taken + self.bounds.images && state.bytes < self.bounds.bytes;
            if room || state.next == state.taken {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn put(&self, index: usize, made: Result<PreparedImage<I>, Failure>, admitted: u64) {
        let mut state = self.state();
        state.bytes += made.as_ref().map_or(0, |made| made.bytes);
        state.bytes -= admitted;
        state.ready.insert(index, made);
        self.changed.notify_all();
    }

    /// The next image in order, with how long it was waited for; `None` after the last, or when the user stops.
    pub fn take(&self) -> Option<(Result<PreparedImage<I>, Failure>, Duration)> {
        // A signal's handler sets the flag and nothing else: it is looked at again and again.
        const LOOK: Duration = Duration::from_millis(50);
        let begin = Instant::now();
        let mut state = self.state();
        loop {
            if state.taken == self.count || self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let index = state.taken;
            if let Some(made) = state.ready.remove(&index) {
                state.taken += 1;
                self.changed.notify_all();
                return Some((made, begin.elapsed()));
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives the bytes of what was taken back.
    pub fn release(&self, bytes: u64) {
        self.state().bytes -= bytes;
        self.changed.notify_all();
    }

    /// Whether what was prepared takes all the memory that it may.
    pub fn is_full(&self) -> bool {
        self.state().bytes >= self.bounds.bytes
    }

    /// Time that threads spent to read and decode, and to prepare.
    pub fn times(&self) -> [Duration; 2] {
        [0, 1].map(|i| Duration::from_nanos(self.times[i].load(Ordering::Relaxed)))
    }

    /// Lets the threads end.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, QueueState<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    fn prepared(index: usize) -> Result<PreparedImage<usize>, Failure> {
        Ok(PreparedImage { input: index, picture: None, size: [1, 1], bytes: 10 })
    }

    /// What is ahead never exceeds either bound, whatever the threads do, and comes in order.
    #[test]
    fn what_is_ahead_is_bounded_and_in_order() {
        for (threads, images, bytes) in [(1, 4, 1000), (4, 4, 1000), (4, 100, 35), (3, 1, 1), (4, 100, 0)] {
            let (begun, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let most = Arc::new(AtomicUsize::new(0));
            let make = {
                let (begun, done, most) = (Arc::clone(&begun), Arc::clone(&done), Arc::clone(&most));
                move |index: usize, worker: &Worker<usize>| {
                    worker.admit(10);
                    let ahead = begun.fetch_add(1, Ordering::SeqCst) + 1 - done.load(Ordering::SeqCst);
                    most.fetch_max(ahead, Ordering::SeqCst);
                    thread::sleep(Duration::from_micros(fastrand::u64(0..300)));
                    prepared(index)
                }
            };
            let bounds = Bounds { images, bytes };
            let queue = Queue::start(threads, 200, bounds, Arc::default(), make).unwrap();
            for index in 0..200 {
                let (made, _) = queue.take().unwrap();
                assert_eq!(made.unwrap_or_else(|error| panic!("{error}")).input, index);
                done.fetch_add(1, Ordering::SeqCst);
                queue.release(10);
            }
            assert!(queue.take().is_none());
            // One may have been taken and not counted yet.
            let allowed = images.min(bytes as usize / 10 + 1).max(1) + threads + 1;
            assert!(most.load(Ordering::SeqCst) <= allowed, "{} of {allowed}", most.load(Ordering::SeqCst));
        }
    }

    #[test]
    fn a_stop_is_seen_while_an_image_hangs() {
        let stop = Arc::new(AtomicBool::new(false));
        let hang = |_, _: &Worker<usize>| {
            thread::sleep(Duration::from_secs(600));
            prepared(0)
        };
        let bounds = Bounds { images: 2, bytes: 100 };
        let queue = Queue::start(2, 5, bounds, Arc::clone(&stop), hang).unwrap();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            stop.store(true, Ordering::Relaxed);
        });
        let begin = Instant::now();
        assert!(queue.take().is_none() && begin.elapsed() < Duration::from_secs(10));
    }
}
