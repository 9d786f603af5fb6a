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
    for sum in sums {
        black_box(s.reduce_sum(sum));
    }
}

/// Rounds of [`FEW_SUMS`] products and as many additions. Operands are read anew in each round, as products of what
/// stays the same would be taken out of it.
#[inline(always)]
fn unfused<S: Simd>(s: S, rounds: usize) {
    let mut words = [S::Word::of(&[OPERAND; 2]); FEW_SUMS];
    let b = s.splat_word(black_box(words[0]));
    let mut sums = [s.splat(0.0); FEW_SUMS];
    for _ in 0..black_box(rounds) {
        words = black_box(words);
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = s.dot(s.splat_word(word), b, *sum);
        }
    }
    for sum in sums {
        black_box(s.reduce_sum(sum));
    }
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
/// another program nor a pause of the clock shows; a few milliseconds in all.
///
/// # Panics
/// When the processor lacks the instruction set.
pub fn multiply_add_rate(isa: Isa) -> f64 {
    /// Bursts of each thread.
    const BURSTS: usize = 64;
    /// Rounds of one: long enough that it does not count how late a thread sees that all are there.
    const LONG: usize = 4 * ROUNDS;
    let threads = rayon::current_num_threads();
    let start = Start::new();
    let of_threads = rayon::broadcast(|_| {
        let burst = |i| {
            let begin = start.together(i * threads, i);
            rate(isa.run(Burst { rounds: LONG }), begin)
        };
        (1..=BURSTS).map(burst).collect::<Vec<f64>>()
    });
    // Processors may differ, so each thread counts with its own rate.
    let of_all = |i: usize| of_threads.iter().map(|rates| rates[i]).sum();
    (0..BURSTS).map(of_all).fold(0.0, f64::max)
}

/// Where threads wait for each other.
struct Start {
    /// Threads that came, of all bursts.
    arrived: AtomicUsize,
    /// The burst that has begun.
    burst: AtomicUsize,
    /// When that was, in nanoseconds since `origin`.
    begin: AtomicU64,
    origin: Instant,
}

impl Start {
    fn new() -> Self {
        let (arrived, burst, begin) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
        Self { arrived, burst, begin, origin: Instant::now() }
    }

    /// Waits until `all` have arrived in all bursts up to this one, and says when the last one did: of threads that share a processor
    /// one begins when the other is done, and its time has to count that. No thread sleeps, it would wake too late.
    fn together(&self, all: usize, burst: usize) -> Instant {
        /// Looks before another thread may have the processor, which may be the one that is waited for.
        const PATIENCE: usize = 1000;
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == all {
            self.begin.store(self.origin.elapsed().as_nanos() as u64, Ordering::Relaxed);
            self.burst.store(burst, Ordering::Release);
        }
        let mut looks = 0;
        while self.burst.load(Ordering::Acquire) < burst {
            looks += 1;
            if looks % PATIENCE == 0 { yield_now() } else { spin_loop() }
        }
        self.origin + Duration::from_nanos(self.begin.load(Ordering::Relaxed))
    }
}
