//! The operator against golden data, and the CPU kernels against the reference.

use std::path::Path;

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};

use super::*;

/// Relative error of f32 kernels, ‖a − b‖ / ‖b‖.
const TOLERANCE: f64 = 1e-6;

fn relative(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    (error / want.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

struct Golden {
    name: String,
    attention: NeighborhoodAttention,
    qkv: Tensor,
    rpb: Tensor,
    out: Tensor,
}

fn golden() -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/attention");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let field = |name| header.metadata().as_ref().unwrap()[name].parse().unwrap();
        // SAFETY: nothing writes the test data.
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        cases.push(Golden {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            attention: NeighborhoodAttention {
                heads: field("heads"),
                kernel_size: field("kernel_size"),
                dilation: field("dilation"),
            },
            qkv: tensors["qkv"].clone(),
            rpb: tensors["rpb"].clone(),
            out: tensors["out"].clone(),
        });
    }
    assert!(!cases.is_empty());
    cases
}

fn vector<T: candle_core::WithDType>(x: &Tensor) -> Vec<T> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}
#[test]
fn the_reference_is_natten() {
    for case in golden() {
        let qkv = case.qkv.to_dtype(DType::F64).unwrap();
        let out: Vec<f64> = vector(&case.attention.forward(&qkv, Some(&case.rpb)).unwrap());
        let want: Vec<f32> = vector(&case.out);
        let err = relative(&want, &out);
        println!("{} {err:e}", case.name);
        for isa in Isa::available() {
            let problem = case.attention.problem(case.qkv.dims()).unwrap();
            let got = cpu::forward(&problem, *isa, &vector::<f32>(&case.qkv), &vector::<f32>(&case.rpb));
            println!("{} {isa:?} {:e}", case.name, relative(&got, &out));
        }
    }
}
