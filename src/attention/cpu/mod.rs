//! Neighborhood attention in f32 on all cores, written against the vectors of every instruction set.
//!
//! The work is cut into tiles: some columns of queries of one image, head and dilation class. A class
//! is a map of its own without dilation ([`Class`](super::window::Class)), so the kernel knows none. Row by row, a tile
//! copies the keys and values that its windows reach into a scratch of its thread, keys transposed, and
//! takes its queries in pairs of neighbours:
//!
//! - scores with keys as lanes: the windows of two neighbouring queries start at most one key apart, so
//!   at K = 7 a row of both lies in the same eight lanes, borders included, and each load of keys
//!   serves both queries;
//! - softmax over the K² scores, which the L1 cache holds;
//! - outputs with channels as lanes, where each load of values serves both queries.
//!
//! What a tile holds at K = 7, dilation 1, in the middle of a map, with 32 channels and vectors of 16 lanes:
//!
//! ```text
//! the map, columns from the tile's first one
//!                   0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
//!     y - 3         k  k  k  k  k  k  k  k  k  k  k  k  k  k  k  k      k  keys that the tile reaches: 16 columns,
//!     ...           k  k  k  k  k  k  k  k  k  k  k  k  k  k  k  k         one cache line of f32
//!     y             k  k  k  Q  Q  Q  Q  Q  Q  Q  Q  Q  Q  k  k  k      Q  keys that are its queries too: 10 columns
//!     ...           k  k  k  k  k  k  k  k  k  k  k  k  k  k  k  k         of at most 64 rows, in 5 pairs a row
//!     y + 3         k  k  k  k  k  k  k  k  k  k  k  k  k  k  k  k
//!
//! keys, transposed: [row][channel][column], a row of a channel padded to the pitch of 16
//!     row 0  channel  0   |k0 k1 k2 ... k15|         64 bytes, from a multiple of 64 on
//!            channel  1   |k0 k1 k2 ... k15|
//!            ...                                     key_row = 32 channels x 16 = 512 values to the next row
//!            channel 31   |k0 k1 k2 ... k15|
//!     row 1  channel  0   |k0 ...
//!
//! values, as they are: [row][column][channel], the channels of a column padded to whole vectors, here 32
//!     row 0  column  0    |c0 c1 ... c15|c16 ... c31|
//!            column  1    |c0 c1 ... c15|c16 ... c31|
//!            ...                                     value_row = 16 columns x 32 = 512 values to the next row
//!            column 15    |c0 c1 ... c15|c16 ... c31|
//!     row 1  column  0    |c0 ...
//!
//! scores of a pair: [query][row][lane], 2 x 7 x 8; lane 0 is the first query's first key
//!                   lane   0  1  2  3  4  5  6  7
//!     query 0  row 0       s  s  s  s  s  s  s  -    s  in the window
//!              ...         s  s  s  s  s  s  s  -    -  outside: the mask makes -inf of it, and e^x then as good as 0
//!              row 6       s  s  s  s  s  s  s  -
//!     query 1  row 0       -  s  s  s  s  s  s  s    its window starts a key further right. At a border, where windows
//!              ...         -  s  s  s  s  s  s  s    shift no more, both start at lane 0; and a query without a partner
//!              row 6       -  s  s  s  s  s  s  s    stands for both
//! ```
//!
//! At a border the windows of a tile start at the same key, and it has more queries: of a map of 14 columns one tile
//! holds all. Where K fills its vectors, as 8 does, there is no lane for a second window, and pairs are those whose
//! windows start together.
//!
//! Where a class is padded, the scratch has the padded keys too: those of a row beside its pixels, and one row for all
//! rows that are padded, since these are alike. For a map of 5x5:
//!
//! ```text
//!     column        0  1  2  3  4  5  6    7
//!     row 0         k  k  k  k  k  p  p   (p)     k  keys and values of pixels
//!     ...                                         p  of a padded position, all the same
//!     row 4         k  k  k  k  k  p  p   (p)    (p) in keys alone: the lane beyond the last window, masked
//!     row 5         p  p  p  p  p  p  p   (p)     the rows 5 and 6 of every window
//! ```
//!
//! At K = 7 a tile is as wide as one cache line of keys: no load straddles two lines, and the keys and
//! values of a window stay in the L1 cache from one row of queries to the next.
//!
//! Files, each of which imports only those above it: `geometry.rs` cuts maps into tiles and pairs, `pixels.rs` knows
//! where these lie in tensors, `packing.rs` how a tile lies in its scratch, `microkernels/` are the inner loops,
//! `scores.rs` is the softmax of a batch of pairs, and `forward.rs` and `backward.rs` drive them over all threads.

mod backward;
mod forward;
mod geometry;
mod microkernels;
mod packing;
mod pixels;
mod scores;
#[cfg(test)]
mod tests;

pub(super) use backward::backward;
pub(super) use forward::forward;
