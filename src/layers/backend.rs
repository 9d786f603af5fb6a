//! The table of backends: the one place where it is decided what computes a layer.

#[cfg(feature = "cuda")]
use super::cuda;
use super::form::Backend;
use super::{candle, cpu};
use crate::weights::{Placement, Weights};

/// A backend, and which weights it serves.
struct BackendRow {
    serves: fn(&Placement) -> bool,
    backend: &'static dyn Backend,
}

/// In order: the first that serves the weights makes the layers.
const ROWS: &[BackendRow] = &[
    BackendRow { serves: Placement::is_packed, backend: &cpu::Cpu },
    #[cfg(feature = "cuda")]
    BackendRow { serves: cuda::serves, backend: &cuda::Cuda },
    BackendRow { serves: |_| true, backend: &candle::Operators },
];

/// What computes the layers of these weights.
pub(crate) fn of(weights: &Weights) -> &'static dyn Backend {
    let placement = weights.placement();
    ROWS.iter().find(|row| (row.serves)(&placement)).map_or(&candle::Operators, |row| row.backend)
}
