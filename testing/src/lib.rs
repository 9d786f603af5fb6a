//! What the tests of the workspace share, each thing once. A dev-dependency: no program contains it.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`golden`] | where the golden data are, and walks over every case of a folder |
//! | [`bound`] | how far results may be off: the one table of tolerances, each with its reason |
//! | [`close`] | how far two rows of numbers are apart: relative to their size, or at most |
//! | `tensors` | the same for candle's tensors (feature `candle`) |
//! | [`noise`] | values that are the same in every run |
//! | [`emulated`] | what a test asks of the emulated GPU |
//! | [`damage`] | files as nobody meant to write them, and what reading them took |
//! | [`naive`] | definitions in f64, to hold kernels against |
//! | [`place`] | a program in an empty folder of its own, and what it did |
//! | [`hub`] | a server that speaks the Hub's protocol and can misbehave |
//! | [`torch`] | checkpoints as `torch.save` writes them |
//! | [`checkpoint`] | safetensors files as somebody else would write them, and what is in one |
//! | [`shape`] | what the output of commands looks like, pinned |
//! | [`picture`] | pieces of image files that no encoder writes |
//!
//! It knows neither nat-infer nor nat-convert nor nat-cuda: the unit tests of these would meet their own types twice.
//!
//! All of it panics where something is wrong, as tests do.

pub mod bound;
pub mod checkpoint;
pub mod close;
pub mod damage;
pub mod emulated;
pub mod golden;
pub mod hub;
pub mod naive;
pub mod noise;
pub mod picture;
pub mod place;
pub mod shape;
#[cfg(feature = "candle")]
pub mod tensors;
pub mod torch;
