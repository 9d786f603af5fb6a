//! Neighborhood attention in f32 on all cores, written against [`Simd`].
//!
//! The work is cut into tiles: some columns of queries of one image, head and dilation class. A class
//! is a map of its own without dilation ([`Class`]), so the kernel knows none. Row by row, a tile
//! copies the keys and values that its windows reach into a scratch of its thread, keys transposed, and
//! takes its queries in pairs of neighbours:
//!
//! - scores with keys as lanes: the windows of two neighbouring queries start at most one key apart, so
//!   at K = 7 a row of both lies in the same eight lanes, borders included, and each load of keys
//!   serves both queries;
//! - softmax over the K² scores, which the L1 cache holds;
//! - outputs with channels as lanes, where each load of values serves both queries.
//!
//! At K = 7 a tile is as wide as one cache line of keys: no load straddles two lines, and the keys and
//! values of a window stay in the L1 cache from one row of queries to the next.
//!
//! Where a class is padded, the scratch has the padded keys too: those of a row beside its pixels, and one row for all
//! rows that are padded, since these are alike.
//!
//! Here is what the forward pass (`forward.rs`) and the gradient (`grad.rs`) share: tiles and their scratch. The
//! steps through it, which are the inner loops, are in `steps.rs`.

mod backward;
mod forward;
mod geometry;
mod microkernels;
mod packing;
mod pixels;
mod scores;

pub(super) use backward::backward;
pub(super) use forward::forward;
