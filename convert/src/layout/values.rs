//! Values for tests, as files have them.

use std::sync::Arc;

use crate::source::{ElementType, TensorRef, Value};

pub(super) fn tensor(dtype: ElementType, shape: &[usize]) -> Value {
    let stride = |i: usize| shape[i + 1..].iter().product();
    let strides = (0..shape.len()).map(stride).collect();
    Value::Tensor(Arc::new(TensorRef { dtype, shape: shape.to_vec(), strides, offset: 0, storage: 0 }))
}

pub(super) fn weight() -> Value {
    tensor(ElementType::F32, &[2])
}

pub(super) fn dict(entries: &[(&str, Value)]) -> Value {
    let entry = |(key, value): &(&str, Value)| (Value::Str((*key).into()), value.clone());
    Value::Dict(Arc::new(entries.iter().map(entry).collect()))
}

pub(super) fn opaque(global: &str) -> Value {
    Value::Opaque { global: global.into(), state: None }
}
