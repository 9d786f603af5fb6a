//! Why a model can't be loaded or a task not be done.

use candle_core::DType;
use nat_convert::error::ConvertError;

use crate::images::mask::MaskError;
use crate::images::preprocess::CropError;
use crate::layers::in_words;
use crate::weights::LoadError;

/// Why a model can't be loaded or a task not be done: one line each.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum TaskError {
    #[error(transparent)]
    Convert(#[from] ConvertError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Crop(#[from] CropError),
    #[error("`{model}` is made to {task}, it can't {wanted}")]
    OtherTask { model: String, task: &'static str, wanted: &'static str },
    #[error("{given} labels are given and `{model}` has {classes} classes")]
    Labels { model: String, given: usize, classes: usize },
    #[error("`{model}` can't compute in {}: f32, f16 and bf16 are possible", dtype.as_str())]
    DType { model: String, dtype: DType },
    #[error("`{model}` has no resolution of its own to crop to: `resolution` has to be given")]
    NoCrop { model: String },
    #[error("`{model}` has {classes} classes, a label map holds up to 256")]
    Classes { model: String, classes: usize },
    #[error("`{model}` is fed by a crop, it has no scale")]
    NoScale { model: String },
    #[error(transparent)]
    Mask(#[from] MaskError),
    #[error("`{model}` has the classes 0 to {}, {class} is none", classes - 1)]
    Class { model: String, class: usize, classes: usize },
    #[error("`{model}` has no class `{name}`{}", instead(nearest, *classes))]
    ClassName { model: String, name: String, classes: usize, nearest: Vec<String> },
    #[error("`{name}` is the name of the classes {} of `{model}`: an index is one class", listed(indices))]
    Ambiguous { model: String, name: String, indices: Vec<usize> },
    /// What an image is compared with can't be; `for_all` says that the same is so of others.
    #[error("{file}: {why}")]
    Truth { file: String, why: String, for_all: bool },
    #[error("`{model}` has no gradients: only classifiers have")]
    NoGradients { model: String },
    #[error("`{model}` has no pooled features: only classifiers have, which norm and average their last map")]
    NoPooled { model: String },
    #[error("`{model}` answers with what is no number; a wider compute type helps if it is f16")]
    NotFinite { model: String },
    #[error("`{model}`: {what}")]
    Memory { model: String, what: String },
    #[error("`{model}` can't be computed: {}", in_words(error))]
    Compute { model: String, error: candle_core::Error },
    #[error("{what} in {file}, so that it has no number")]
    NotAnnotated { file: String, what: &'static str },
    #[error("stopped before it was done")]
    Stopped,
    #[error("{path}: can't be written: {error}")]
    Write { path: String, error: std::io::Error },
}

/// What a name that is no class's should have been.
fn instead(nearest: &[String], classes: usize) -> String {
    match nearest {
        [] => format!(": its classes have no names, only indices from 0 to {}", classes - 1),
        nearest => format!("; the nearest names are {}", nearest.join(", ")),
    }
}

/// The first of some indices in words.
fn listed(indices: &[usize]) -> String {
    const SHOWN: usize = 8;
    let shown = indices.iter().take(SHOWN).map(usize::to_string).collect::<Vec<_>>().join(", ");
    if indices.len() > SHOWN { shown + " …" } else { shown }
}
