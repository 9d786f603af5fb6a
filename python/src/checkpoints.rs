//! What a checkpoint is asked for beside its path: the options of `load`, `convert` and `inspect`.

use nat_infer::nat_convert::arch::Dilations;
use nat_infer::nat_convert::error::ConvertError;
use nat_infer::nat_convert::report::{Remedy, Warning};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// What a file can't say of itself.
#[derive(Clone, FromPyObject)]
#[pyo3(from_item_all)]
pub struct Said {
    pub arch: Option<String>,
    dilations: Option<String>,
    pub weights_key: Option<String>,
    pub ignore: Vec<String>,
}

impl Said {
    /// The dilations.
    ///
    /// # Errors
    /// When they are not written as such.
    pub fn dilations(&self) -> PyResult<Option<Dilations>> {
        let dilations = self.dilations.as_deref().map(str::parse).transpose();
        dilations
            .map_err(|error: <Dilations as std::str::FromStr>::Err| PyValueError::new_err(error.to_string()))
    }
}

/// What helps with an error of the library, in words of this package.
pub fn advice(error: &ConvertError) -> &'static str {
    match error {
        ConvertError::Exists(_) => "; overwrite=True replaces it",
        ConvertError::Range { .. } => "; use dtype=\"bf16\" or \"f32\"",
        ConvertError::NoStateDict { keys, .. } if !keys.is_empty() => "; weights_key takes one of them",
        ConvertError::Tensors { mismatch, .. } if mismatch.is_only_unknown() => {
            "; ignore leaves out what is no part of the network"
        }
        _ => "",
    }
}

/// A warning with what helps against it.
pub fn in_full(Warning { text, remedy, .. }: &Warning) -> String {
    let advice = match remedy {
        Some(Remedy::Dilations) => "; arch or dilations states them if it is a DiNAT",
        Some(Remedy::WeightsKey) => "; weights_key takes the other",
        Some(Remedy::Ignore) => "; ignore leaves the former out",
        _ => "",
    };
    format!("{text}{advice}")
}
