//! Python's literals: what OpenMMLab's configurations, which travel in checkpoints as Python text, say in
//! numbers, names and `dict(…)`. Nothing is run: what is no literal is kept as the text that it is.
//!
//! Assignments at the start of a line give names to values, and a name stands for its value; `+` joins lists
//! and adds numbers, `*` repeats lists and multiplies. JSON is understood too, as its objects and lists are
//! written alike.

mod cursor;
mod parser;
mod value;

pub(crate) use parser::assignments;
pub(crate) use value::Py;
