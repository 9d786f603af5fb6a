//! How many multiply-adds a processor does with operands in registers alone: what no product can be faster than.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::yield_now;
use std::time::Instant;

use super::isa::Isa;
use super::vector::{Kernel, Simd};
use super::word::Word;

/// Multiply-adds of registers alone, in GFLOP/s: two operations for each, of a pair of bf16 four.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MultiplyAddRate {
    /// Of the fastest burst, which neither another program nor a pause of the clock hit.
    pub best: f64,
    /// Of the median one.
    pub median: f64,
}

/// A burst: so many rounds of a multiply-add to each of several sums. Gives operations, and what keeps them from
/// being left out.
struct Burst {
    rounds: usize,
}

/// Rounds of a burst, some ten to fifty microseconds.
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

/// What all operands are: exact in bf16, and its square times [`ROUNDS`] is a small number.
const OPERAND: f32 = 0.0625;

/// GFLOP/s of one burst on this thread.
fn burst(isa: Isa) -> f64 {
    let begin = Instant::now();
    let operations = isa.run(Burst { rounds: ROUNDS });
    1e-9 * operations / begin.elapsed().as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Bursts of each instruction set that [`of_one_core`] takes.
const SHORT: usize = 6;

/// What this thread's processor does with each of two instruction sets, in GFLOP/s: the best of a few bursts in turn,
/// some hundred microseconds in all.
pub(super) fn of_one_core(isas: [Isa; 2]) -> [f64; 2] {
    let mut best = [0.0; 2];
    for _ in 0..SHORT {
        for (best, isa) in best.iter_mut().zip(isas) {
            *best = burst(isa).max(*best);
        }
    }
    best
}

/// Bursts of every thread that [`MultiplyAddRate::of_pool`] takes, some milliseconds in all.
const LONG: usize = 128;

impl MultiplyAddRate {
    /// What the processors do with `isa` when all threads of the current pool of rayon's are at it at the same time.
    ///
    /// # Panics
    /// When the processor lacks the instruction set.
    pub fn of_pool(isa: Isa) -> Self {
        let threads = rayon::current_num_threads();
        let arrived = AtomicUsize::new(0);
        let of_threads = rayon::broadcast(|_| {
            let mut rates = Vec::with_capacity(LONG);
            for i in 1..=LONG {
                together(&arrived, i * threads);
                rates.push(burst(isa));
            }
            rates
        });
        // Processors may differ, so each counts with its own rate.
        let mut rates: Vec<f64> = (0..LONG).map(|i| of_threads.iter().map(|rates| rates[i]).sum()).collect();
        rates.sort_by(f64::total_cmp);
        Self { best: rates[LONG - 1], median: rates[LONG / 2] }
    }
}

/// Waits until `arrived` counts `all`. A thread that slept would come too late for a burst.
fn together(arrived: &AtomicUsize, all: usize) {
    /// Looks at the counter before another thread may have the processor, which may be the one that is waited for.
    const PATIENCE: usize = 1000;
    arrived.fetch_add(1, Ordering::Relaxed);
    let mut looks = 0;
    while arrived.load(Ordering::Relaxed) < all {
        looks += 1;
        if looks % PATIENCE == 0 { yield_now() } else { spin_loop() }
    }
}
