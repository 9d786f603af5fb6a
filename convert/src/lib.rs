//! Reads the checkpoints that NAT and DiNAT were published in and writes safetensors.
//!
//! A file passes through three rooms: [`source`] opens the container and reads values without
//! running anything; `layout` maps tensor names to the canonical ones and infers the
//! [`arch::Architecture`]; `write` streams the tensors into one safetensors file.

pub mod arch;
pub mod labels;
pub mod metadata;
pub mod source;
pub mod zoo;
