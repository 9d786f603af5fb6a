//! What Python catches.

use pyo3::create_exception;
use pyo3::exceptions::PyException;

create_exception!(
    nat_infer,
    NatInferError,
    PyException,
    "What this package can't do, in one line: what, which file, what to do."
);
create_exception!(
    nat_infer,
    ModelError,
    NatInferError,
    "A model that can't be had or loaded, or is made for another task than is asked of it."
);
create_exception!(
    nat_infer,
    ImageError,
    NatInferError,
    "An image that has no answer: it can't be read, or the network gives no number for it."
);
create_exception!(nat_infer, ConvertError, NatInferError, "A checkpoint that can't be read or converted.");
