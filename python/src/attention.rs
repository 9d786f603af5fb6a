//! Neighborhood attention on numpy's arrays, for `nat_infer.torch`. The arrays of a call are of one type, float32 or
//! float64, and row-major: they are read where they are, while the interpreter is free for other threads. `threads` of
//! this module compute, or one for each core.

use nat_infer::attention::{AttentionError, AttentionHalves, AttentionNumber, NeighborhoodAttention};
use numpy::{
    Element, PyArray1, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray,
    PyUntypedArrayMethods, dtype,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::pool::{pool, unlocked};

/// An array as Python has it: of any type.
type AnyArray<'py> = Bound<'py, PyUntypedArray>;

/// Runs a generic function for the type of an array; what is neither of the two types fails where it is read.
macro_rules! for_type_of {
    ($array:ident, $function:ident($($argument:expr),*)) => {
        if $array.dtype().is_equiv_to(&dtype::<f64>($array.py())) {
            $function::<f64>($array.py(), $($argument),*)
        } else {
            $function::<f32>($array.py(), $($argument),*)
        }
    };
}

/// The operator on qkv [B, H, W, 3·C] and, unless it is None, rpb [heads, 2K−1, 2K−1]: [B, H, W, C].
/// `sizes` are heads, K and dilation.
#[pyfunction]
pub fn na2d<'py>(
    qkv: AnyArray<'py>,
    rpb: Option<AnyArray<'py>>,
    sizes: (usize, usize, usize),
    threads: Option<usize>,
) -> PyResult<AnyArray<'py>> {
    let (heads, kernel_size, dilation) = sizes;
    let attention = NeighborhoodAttention { heads, kernel_size, dilation };
    for_type_of!(qkv, forward(&attention, &qkv, rpb.as_ref(), threads))
}

fn forward<'py, T: AttentionNumber + Element>(
    py: Python<'py>,
    attention: &NeighborhoodAttention,
    qkv: &AnyArray<'py>,
    rpb: Option<&AnyArray<'py>>,
    threads: Option<usize>,
) -> PyResult<AnyArray<'py>> {
    let (qkv, rpb) = (Borrowed::<T>::new("qkv", qkv)?, Borrowed::optional("rpb", rpb)?);
    let shape @ [batch, height, width, channels] = qkv.shape()?;
    let (qkv, rpb) = (qkv.values()?, rpb.as_ref().map(Borrowed::values).transpose()?);
    let out = computed(py, threads, || attention.forward_slices(shape, qkv, rpb))?;
    array(py, out, [batch, height, width, channels / 3])
}

/// The gradients of qkv and, if `rpb_too` and there is one, of rpb, from `grad` [B, H, W, C], that of the output.
#[pyfunction]
pub fn na2d_backward<'py>(
    qkv: AnyArray<'py>,
    rpb: Option<AnyArray<'py>>,
    grad: AnyArray<'py>,
    sizes: (usize, usize, usize),
    rpb_too: bool,
    threads: Option<usize>,
) -> PyResult<(AnyArray<'py>, Option<AnyArray<'py>>)> {
    let (heads, kernel_size, dilation) = sizes;
    let attention = NeighborhoodAttention { heads, kernel_size, dilation };
    for_type_of!(qkv, backward(&attention, &qkv, rpb.as_ref(), &grad, rpb_too, threads))
}

fn backward<'py, T: AttentionNumber + Element>(
    py: Python<'py>,
    attention: &NeighborhoodAttention,
    qkv: &AnyArray<'py>,
    rpb: Option<&AnyArray<'py>>,
    grad: &AnyArray<'py>,
    rpb_too: bool,
    threads: Option<usize>,
) -> PyResult<(AnyArray<'py>, Option<AnyArray<'py>>)> {
    let (qkv, rpb) = (Borrowed::<T>::new("qkv", qkv)?, Borrowed::optional("rpb", rpb)?);
    let (shape, grad) = (qkv.shape()?, Borrowed::new("grad", grad)?);
    let (qkv, rpb) = (qkv.values()?, rpb.as_ref().map(Borrowed::values).transpose()?);
    let grad = grad.values()?;
    let (grad_qkv, grad_rpb) =
        computed(py, threads, || attention.backward_slices(shape, qkv, rpb, grad, rpb_too))?;
    let side = 2 * attention.kernel_size - 1;
    let grad_rpb = grad_rpb.map(|grad| array(py, grad, [attention.heads, side, side])).transpose()?;
    Ok((array(py, grad_qkv, shape)?, grad_rpb))
}

/// The products of the vectors of a [B, heads, H, W, dim] with their neighbours in b, of the same shape, and the biases rpb
/// [heads, 2K−1, 2K−1] unless it is None: [B, heads, H, W, K²].
#[pyfunction]
pub fn na2d_scores<'py>(
    a: AnyArray<'py>,
    b: AnyArray<'py>,
    rpb: Option<AnyArray<'py>>,
    kernel_size: usize,
    dilation: usize,
    threads: Option<usize>,
) -> PyResult<AnyArray<'py>> {
    for_type_of!(a, scores(&a, &b, rpb.as_ref(), kernel_size, dilation, threads))
}

fn scores<'py, T: AttentionNumber + Element>(
    py: Python<'py>,
    a: &AnyArray<'py>,
    b: &AnyArray<'py>,
    rpb: Option<&AnyArray<'py>>,
    kernel_size: usize,
    dilation: usize,
    threads: Option<usize>,
) -> PyResult<AnyArray<'py>> {
    let (a, b) = (Borrowed::<T>::new("a", a)?, Borrowed::new("b", b)?);
    let rpb = Borrowed::optional("rpb", rpb)?;
    let shape @ [batch, heads, height, width, _] = a.shape()?;
    let (a, b, rpb) = (a.values()?, b.values()?, rpb.as_ref().map(Borrowed::values).transpose()?);
    let out =
        computed(py, threads, || AttentionHalves::new(shape, kernel_size, dilation)?.scores(a, b, rpb))?;
    array(py, out, [batch, heads, height, width, kernel_size * kernel_size])
}

/// The sums of the neighbours in x [B, heads, H, W, dim] of each pixel with its weights w [B, heads, H, W, K²], of x's
/// shape. With `transposed`, of the pixels that each is a neighbour of, with their weights for it.
#[pyfunction]
pub fn na2d_mix<'py>(
    w: AnyArray<'py>,
    x: AnyArray<'py>,
    kernel_size: usize,
    dilation: usize,
    transposed: bool,
    threads: Option<usize>,
) -> PyResult<AnyArray<'py>> {
    for_type_of!(x, mix(&w, &x, kernel_size, dilation, transposed, threads))
}

fn mix<'py, T: AttentionNumber + Element>(
    py: Python<'py>,
    w: &AnyArray<'py>,
    x: &AnyArray<'py>,
    kernel_size: usize,
    dilation: usize,
    transposed: bool,
    threads: Option<usize>,
) -> PyResult<AnyArray<'py>> {
    let (w, x) = (Borrowed::<T>::new("w", w)?, Borrowed::new("x", x)?);
    let shape = x.shape()?;
    let (w, x) = (w.values()?, x.values()?);
    let out = computed(py, threads, || {
        let halves = AttentionHalves::new(shape, kernel_size, dilation)?;
        if transposed { halves.spread(w, x) } else { halves.mix(w, x) }
    })?;
    array(py, out, shape)
}

/// The gradient of rpb, [heads, 2K−1, 2K−1], from grad [B, heads, H, W, K²], that of the scores.
#[pyfunction]
pub fn na2d_bias_gradient(
    grad: AnyArray<'_>,
    kernel_size: usize,
    dilation: usize,
    threads: Option<usize>,
) -> PyResult<AnyArray<'_>> {
    for_type_of!(grad, bias_gradient(&grad, kernel_size, dilation, threads))
}

fn bias_gradient<'py, T: AttentionNumber + Element>(
    py: Python<'py>,
    grad: &AnyArray<'py>,
    kernel_size: usize,
    dilation: usize,
    threads: Option<usize>,
) -> PyResult<AnyArray<'py>> {
    let grad = Borrowed::<T>::new("grad", grad)?;
    let [batch, heads, height, width, _] = grad.shape()?;
    let grad = grad.values()?;
    let out = computed(py, threads, || {
        // The channels of a head are summed up in the scores.
        AttentionHalves::new([batch, heads, height, width, 1], kernel_size, dilation)?.bias_gradient(grad)
    })?;
    let side = 2 * kernel_size - 1;
    array(py, out, [heads, side, side])
}

/// An array that is read where it is.
struct Borrowed<'py, T: Element> {
    name: &'static str,
    array: PyReadonlyArrayDyn<'py, T>,
}

impl<'py, T: Element> Borrowed<'py, T> {
    fn new(name: &'static str, array: &AnyArray<'py>) -> PyResult<Self> {
        let wrong = |_| {
            let (expected, got) = (dtype::<T>(array.py()), array.dtype());
            PyValueError::new_err(format!("{name} is an array of {got}, not of {expected}"))
        };
        Ok(Self { name, array: array.extract().map_err(wrong)? })
    }

    fn optional(name: &'static str, array: Option<&AnyArray<'py>>) -> PyResult<Option<Self>> {
        array.map(|array| Self::new(name, array)).transpose()
    }

    fn shape<const N: usize>(&self) -> PyResult<[usize; N]> {
        let wrong = |_| {
            let (name, axes) = (self.name, self.array.ndim());
            PyValueError::new_err(format!("{name} has {axes} axes, expected {N}"))
        };
        self.array.shape().try_into().map_err(wrong)
    }

    fn values(&self) -> PyResult<&[T]> {
        let wrong = || PyValueError::new_err(format!("{} is not in row-major order", self.name));
        if !self.array.is_c_contiguous() {
            return Err(wrong());
        }
        self.array.as_slice().map_err(|_| wrong())
    }
}

/// What `work` computes while the interpreter is free for other threads.
fn computed<R: Send>(
    py: Python<'_>,
    threads: Option<usize>,
    work: impl FnOnce() -> Result<R, AttentionError> + Send,
) -> PyResult<R> {
    let pool = pool(threads)?;
    unlocked(py, || pool.install(work)).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// An array of this shape that takes the values over.
fn array<'py, T: Element, const N: usize>(
    py: Python<'py>,
    values: Vec<T>,
    shape: [usize; N],
) -> PyResult<AnyArray<'py>> {
    Ok(PyArray1::from_vec(py, values).reshape(shape.to_vec())?.as_untyped().clone())
}
