//! out = epilogue(rows · weightᵀ + bias): the one matrix product under every layer, with weights
//! packed at load and everything around the product done while its data is in cache.
//!
//! ```text
//!        depth, in words                     panel: two or three vectors of          the weight: panels after each other,
//!      ┌───────────────────┐                outputs                                 each [depth][columns], the last one
//!      │ row 0             │                ┌────────┬────────┐                     filled up with zeros
//! rows │ row 1             │              k │ lanes  │ lanes  │ ─┐
//!  of  │  …                │        depth ↓ │  …     │  …     │  │ load
//!  a   │ row R−1           │                └────────┴────────┘  ↓
//! block│                   │   broadcast    ┌────────┬────────┐
//!      │                   │ ─── row r, k → │ sum r0 │ sum r1 │  R x C vectors of sums: with AVX-512 9 x 3, and 13 x 2 where
//!      └───────────────────┘                │  …     │  …     │  columns are left, so that sums, weights and a broadcast
//!      in memory, or made in scratch:       └────────┴────────┘  fill 32 registers; 6 x 2 with AVX2 and NEON, 3 x 2 else
//!      normalised, gathered, rounded                 ↓ once the depth is through
//!                                           epilogue: bias, activation, scale, residual → the output's rows
//! ```
//!
//! A product runs in blocks of rows (`geometry.rs`). The rows of a block come straight from memory or through a
//! [`Rows`] source (`operands.rs`) into scratch that stays in L2; register tiles (`microkernel.rs`) run over the
//! whole depth up to [`DEPTH`](geometry::DEPTH), so no partial sums are stored; the [`Epilogue`] finishes a tile on its
//! way from L1 to the output's cells. `driver.rs` puts these together on all threads.
//!
//! While a tile computes, the next panel of a weight that the caches do not keep is asked of memory (`panels.rs`). Such
//! weights of bf16 lie there as they are where f32 is multiplied, and are widened panel by panel.
//!
//! Operands are counted in [`Word`](crate::simd::Word)s of 32 bits: one f32, or a pair of bf16 that follow each other
//! in depth, where a weight is packed for an instruction set that multiplies these. Rows are then rounded on their
//! way into scratch; sums, epilogues and outputs are f32 in any case.

mod buffers;
mod cells;
mod driver;
mod epilogue;
mod geometry;
mod microkernel;
mod operands;
mod packed;
mod panels;
#[cfg(test)]
mod tests;

pub(crate) use buffers::{Buffers, Room};
pub(crate) use cells::{Cells, OperandCells, ValueCells, filled};
pub(crate) use driver::{RowBlock, Then, product};
pub(crate) use epilogue::Epilogue;
pub(crate) use geometry::GemmBlocks;
pub(crate) use operands::{Operands, Rows, ScaledRows, StoredRows, operands, room_for};
pub(crate) use packed::{Packed, PackedLayer};
pub(crate) use panels::is_large;
