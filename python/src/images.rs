//! Images as Python has them.

use std::path::PathBuf;

use nat_infer::images::SharedPixels;
use nat_infer::pipeline::Source;
use nat_infer::zoo::is_web_address;
use numpy::{PyReadonlyArray3, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

/// The memory of an array, which lives as long as this.
struct ArrayBytes {
    _array: Py<PyAny>,
    begin: *const u8,
    length: usize,
}

// SAFETY: the memory is only read. The reference to the array is only dropped, which pyo3 puts off until a thread has
// Python's lock. Whoever writes into an array while it is read gets an answer on pixels of both, as with numpy's own functions.
unsafe impl Send for ArrayBytes {}
// SAFETY: as above.
unsafe impl Sync for ArrayBytes {}

impl AsRef<[u8]> for ArrayBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: numpy's array has so many bytes there, contiguous, as long as it lives; it can't be resized while
        // another object refers to it.
        unsafe { std::slice::from_raw_parts(self.begin, self.length) }
    }
}

/// An array [H, W, 3] of uint8, contiguous, as an image; its memory is shared.
///
/// # Errors
/// When it is another array, or has no pixel.
pub fn pixels(array: &Bound<'_, PyAny>) -> PyResult<SharedPixels> {
    let array: PyReadonlyArray3<'_, u8> = array.extract()?;
    let &[height, width, 3] = array.shape() else {
        return Err(PyValueError::new_err("an image is an array [H, W, 3]"));
    };
    // A slice may be in column-major order too.
    let values = array.as_slice().ok().filter(|_| array.is_c_contiguous());
    let values = values.ok_or_else(|| PyValueError::new_err("an image is an array in row-major order"))?;
    let (begin, length) = (values.as_ptr(), values.len());
    let size = [u32::try_from(width)?, u32::try_from(height)?];
    let bytes = ArrayBytes { _array: array.as_any().clone().unbind(), begin, length };
    SharedPixels::new(size, bytes).ok_or_else(|| PyValueError::new_err("an image has at least one pixel"))
}

/// An image: a path, an address, the bytes of a file, or an array of pixels. `name` is what it is called where it has no
/// name of its own.
///
/// # Errors
/// When it is none of these.
pub fn source(name: &str, image: &Bound<'_, PyAny>) -> PyResult<Source> {
    if let Ok(text) = image.extract::<&str>()
        && is_web_address(text)
    {
        return Ok(Source::url(text));
    }
    if let Ok(path) = image.extract::<PathBuf>() {
        return Ok(Source::file(path));
    }
    if let Ok(bytes) = image.extract::<PyBackedBytes>() {
        return Ok(Source::memory(name, &*bytes));
    }
    match pixels(image) {
        Ok(pixels) => Ok(Source::pixels(name, pixels)),
        Err(error) if error.is_instance_of::<PyValueError>(image.py()) => Err(error),
        Err(_) => Err(PyTypeError::new_err(format!(
            "{name}: neither a path nor bytes nor an array [H, W, 3] of uint8"
        ))),
    }
}
