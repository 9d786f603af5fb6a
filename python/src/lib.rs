//! The wheel `nat-infer`: what its Python, in `python/nat_infer`, takes from the library. Functions here are for that
//! alone; what they are called with was checked there, or is refused in the library's words.

use pyo3::prelude::*;

mod answers;
mod attention;
mod checkpoints;
mod convert;
mod draw;
mod errors;
mod export;
mod images;
mod in_pool;
mod listing;
mod model;
mod pool;

#[pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::answers::{classify, detect, embed, features, saliency, segment};
    #[pymodule_export]
    use super::attention::{na2d, na2d_backward, na2d_bias_gradient, na2d_mix, na2d_scores};
    #[pymodule_export]
    use super::convert::{convert, inspect};
    #[pymodule_export]
    use super::draw::{decode_mask, draw_heat, draw_labels, draw_objects, read_image};
    #[pymodule_export]
    use super::errors::{ConvertError, ImageError, ModelError, NatInferError};
    #[pymodule_export]
    use super::export::{export, export_classes, label_studio};
    #[pymodule_export]
    use super::listing::{is_model_name, list_models, model_info};
    #[pymodule_export]
    use super::model::PyModel;

    #[pymodule_export]
    use super::pool::{python_ends, start_candles_pool};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // What crashes on one image is reported with its name where it is caught; a trace helps no user.
        std::panic::set_hook(Box::new(|_| {}));
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
