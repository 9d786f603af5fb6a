//! The inner loops, over one pair of queries or one query: where the time goes. All is inlined into the driver that
//! calls them, once for each instruction set.

mod dots;
mod softmax;
mod sums;

pub(super) use dots::{blocks, dots_of};
pub(super) use softmax::{add_bias, add_rows, exponentials, fill_masks, score_gradients};
pub(super) use sums::{mix_all, spread};
