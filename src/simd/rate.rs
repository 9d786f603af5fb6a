//! How many multiply-adds a processor does with operands in registers alone: what no product can be faster than.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use super::isa::Isa;
use super::vector::{Kernel, Simd};
use super::word::Word;

/// A burst: so many rounds of a multiply-add to each of several sums. Gives operations, and what keeps them from
/// being left out.
struct Burst {
    rounds: usize,
}

/// Rounds of a short burst, some ten to fifty microseconds.
const ROUNDS: usize = 4096;

/// Sums that do not wait for each other: more than are under way in any processor's units, and few enough for the
/// registers.
const SUMS: usize = 12;

/// The same where vectors are several registers each.
const FEW_SUMS: usize = 4;

impl Kernel for Burst {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let sums = if S::REGISTERS > SUMS {
            fused(s, self.rounds);
            SUMS
        } else {
            unfused(s, self.rounds);
            FEW_SUMS
        };
        (2 * self.rounds * sums * S::LANES * S::Word::VALUES) as f64
    }
}

/// Rounds of [`SUMS`] fused multiply-adds.
#[inline(always)]
fn fused<S: Simd>(s: S, rounds: usize) {
    // Every sum begins with something else, or they would be one. None ever gets far from zero.
    let mut sums = [s.splat(0.0); SUMS];
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = s.splat(black_box(i as f32));
    }
    let a = s.splat_word(black_box(S::Word::of(&[OPERAND; 2])));
    let b = s.splat_word(black_box(S::Word::of(&[OPERAND; 2])));
    for _ in 0..black_box(rounds) {
        for sum in &mut sums {
            *sum = s.dot(a, b, *sum);
        }
    }
    black_box(sums);
}

/// Rounds of [`FEW_SUMS`] products and as many additions. One operand is read anew in each round, as products of what
/// stays the same would be taken out of it.
#[inline(always)]
fn unfused<S: Simd>(s: S, rounds: usize) {
    /// Words that are read in a round, at most.
    const WORDS: usize = 64;
    const { assert!(FEW_SUMS * S::LANES <= WORDS) };
    let words = [S::Word::of(&[OPERAND; 2]); WORDS];
    let b = s.splat_word(black_box(words[0]));
    let mut sums = [s.splat(0.0); FEW_SUMS];
    for _ in 0..black_box(rounds) {
        let words = black_box(&words);
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: so many words are there, as the assertion says.
            let a = unsafe { s.load_words(words.as_ptr().add(i * S::LANES)) };
            *sum = s.dot(a, b, *sum);
        }
    }
    black_box(sums);
}

/// What all operands are: exact in bf16, and its square times the rounds is a small number.
const OPERAND: f32 = 0.0625;

/// GFLOP/s of `operations` since `begin`.
fn rate(operations: f64, begin: Instant) -> f64 {
    1e-9 * operations / begin.elapsed().as_secs_f64().max(f64::EPSILON)
}

/// What this thread's processor does with each of two instruction sets, as [`multiply_add_rate`]: the best of a few
/// bursts in turn, some hundred microseconds in all.
pub(super) fn of_one_core(isas: [Isa; 2]) -> [f64; 2] {
    /// Bursts of each.
    const BURSTS: usize = 6;
    let mut best = [0.0; 2];
    for _ in 0..BURSTS {
        for (best, isa) in best.iter_mut().zip(isas) {
            let begin = Instant::now();
            *best = rate(isa.run(Burst { rounds: ROUNDS }), begin).max(*best);
        }
    }
    best
}

/// How fast all threads of rayon's current pool together multiply and add with `isa`, operands and sums in registers: in
/// GFLOP/s, two operations for each multiply-add, of a pair of bf16 four. It is the best of many bursts, so that neither
/// another program nor a pause of the clock shows; a few milliseconds in all, on a busy machine a tenth of a second.
///
/// # Panics
/// When the processor lacks the instruction set.
pub fn multiply_add_rate(isa: Isa) -> f64 {
    /// How often all begin together.
    const TIMES: usize = 64;
    /// For how long then: some bursts.
    const WINDOW: Duration = Duration::from_micros(50);
    let threads = rayon::current_num_threads();
    let start = Start::new();
    let of_threads = rayon::broadcast(|_| {
        let window = |i| {
            let begin = start.together(i * threads, i)?;
            let mut operations = 0.0;
            while begin.elapsed() < WINDOW {
                operations += isa.run(Burst { rounds: ROUNDS });
            }
            Some(rate(operations, begin))
        };
        (1..=TIMES).map_while(window).collect::<Vec<f64>>()
    });
    // Processors may differ, so each thread counts with its own rate. One that had to wait for its processor until the
    // window was over did nothing.
    let windows = of_threads.first().map_or(0, Vec::len);
    let of_all = |i: usize| of_threads.iter().map(|rates| rates[i]).sum();
    (0..windows).map(of_all).fold(0.0, f64::max)
}

/// No window, but the end.
const END: usize = usize::MAX;

/// Where threads wait for each other.
struct Start {
    /// Threads that came, of all windows.
    arrived: AtomicUsize,
    /// The window that has begun.
    window: AtomicUsize,
    /// When that was, in nanoseconds since `origin`.
    begin: AtomicU64,
    origin: Instant,
}

impl Start {
    fn new() -> Self {
        let (arrived, window, begin) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
        Self { arrived, window, begin, origin: Instant::now() }
    }

    /// Waits until `all` have arrived for the windows up to this one, and says when the last one did: threads may share
    /// a processor, and the time of one has to count that of the other. No thread sleeps, it would wake too late. `None`
    /// is the end for all, where other programs keep them waiting.
    fn together(&self, all: usize, window: usize) -> Option<Instant> {
        /// So many there are in any case, and no more after so long.
        const AT_LEAST: usize = 8;
        const LONG_ENOUGH: Duration = Duration::from_millis(100);
        /// Looks before another thread may have the processor, which may be the one that is waited for.
        const PATIENCE: usize = 1000;
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == all {
            let now = self.origin.elapsed();
            let is_end = window > AT_LEAST && now > LONG_ENOUGH;
            self.begin.store(now.as_nanos() as u64, Ordering::Relaxed);
            self.window.store(if is_end { END } else { window }, Ordering::Release);
        }
        let mut looks = 0;
        while self.window.load(Ordering::Acquire) < window {
            looks += 1;
            if looks % PATIENCE == 0 { yield_now() } else { spin_loop() }
        }
        let begin = self.origin + Duration::from_nanos(self.begin.load(Ordering::Relaxed));
        (self.window.load(Ordering::Acquire) != END).then_some(begin)
    }
}
