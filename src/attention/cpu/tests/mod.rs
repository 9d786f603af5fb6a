//! Every kernel on every instruction set at every class of shapes, against f64 and against each other.

mod inputs;
mod kernels;
mod steps;
