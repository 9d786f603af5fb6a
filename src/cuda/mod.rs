//! NVIDIA GPUs: opening one, and this crate's kernels on candle's tensors.

mod functions;
mod open;
mod operands;
mod product;
mod record;
mod recorders;
mod run;

pub use open::{OpenError, open};
pub(crate) use operands::{Operand, aligned, all_aligned, element, on_gpu};
pub(crate) use product::product;
pub(crate) use record::RecordedGraph;
pub use record::recording_problem;
pub(crate) use run::{one_type, run, run_into, tensor, tensor_of, tensors, uninitialized};
