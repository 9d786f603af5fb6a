//! Whether this machine computes what it should: the operator and a small network of every kind, on a device, in every type
//! of numbers, forwards and backwards, compared with f64. It takes a second or two and no file.
//!
//! [`checks`] runs it. On the CPU it computes with the instruction set that this process uses: another one is asked for
//! by [`ISA_VARIABLE`](crate::simd::ISA_VARIABLE) before the process starts. [`checks_with`] leaves out what others compute.
//!
//! What is compared with what:
//!
//! - The operator, `src/attention/`, with its definition written as candle's operators in f64 (`definition.rs`), which
//!   shares no line with it. So is the operator in f64, which the networks' reference is made of.
//! - Networks (`networks.rs`) with the same network in f64 of candle's operators. Maps that are continuous in what they
//!   are made of are compared, and no decision, which a last bit may turn: detectors look at regions that are given.
//! - Weights and images are numbers that all types hold exactly, so there is one reference for all of them and what is
//!   measured is the computation alone.
//!
//! `tolerance.rs` says how far results may be off, and why.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut wrong = Vec::new();
//! nat_infer::self_test::checks(&candle_core::Device::Cpu, &mut |check| {
//!     if !check.passed() {
//!         wrong.push(check);
//!     }
//! });
//! assert!(wrong.is_empty(), "{wrong:?}");
//! # Ok(())
//! # }
//! ```

mod check;
mod definition;
mod exact;
mod networks;
mod operator;
mod passes;
mod run;
mod tolerance;

pub use check::{Check, Direction};
pub use run::{checks, checks_with};
