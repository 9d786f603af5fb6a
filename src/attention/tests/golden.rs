//! The operator against what NATTEN computed.

use candle_core::{DType, Device};
use nat_testing::close::relative;
use nat_testing::golden;
use nat_testing::tensors::values;

use super::tools::{GRADIENT_TOLERANCES, TOLERANCES, attention, gradients};
use crate::attention::{cpu, reference};
use crate::simd::Isa;

#[test]
fn golden_cases_are_those_of_natten() {
    golden::each(&golden::files("attention", "safetensors"), |path| {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let field = |name| header.metadata().as_ref().unwrap()[name].parse().unwrap();
        let attention = attention(field("heads"), field("kernel_size"), field("dilation"));
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        let (qkv, rpb) = (&tensors["qkv"], &tensors["rpb"]);

        let exact: Vec<f64> =
            values(&attention.forward(&qkv.to_dtype(DType::F64).unwrap(), Some(rpb)).unwrap());
        // The files hold what was computed in f64 rounded to f32.
        for (i, (got, want)) in exact.iter().zip(values::<f32>(&tensors["out"])).enumerate() {
            let want = f64::from(want);
            let half_ulp = want.abs() * f64::from(f32::EPSILON) / 2.0;
            assert!((got - want).abs() <= half_ulp + 1e-12, "{path:?}[{i}]: {got}, expected {want}");
        }
        let problem = attention.problem(qkv.dims(), false).unwrap();
        for &isa in Isa::available() {
            let got = cpu::forward(&problem, isa, &values::<f32>(qkv), &values::<f32>(rpb), &[]);
            let error = relative(&got, &exact);
            assert!(error < TOLERANCES[0].1, "{path:?} on {isa:?}: off by {error:e}");
        }

        let wide = |name: &str| values::<f64>(&tensors[name].to_dtype(DType::F64).unwrap());
        let [grad_qkv, grad_rpb] =
            reference::backward(&problem, &wide("qkv"), &wide("rpb"), &[], &wide("grad_out")).into();
        for (got, want) in [(&grad_qkv, "grad_qkv"), (&grad_rpb, "grad_rpb")] {
            let error = relative(&values::<f32>(&tensors[want]), got);
            assert!(error < 1e-7, "{path:?}, {want}: off by {error:e}");
        }
        let narrow = |name: &str| values::<f32>(&tensors[name]);
        for &isa in Isa::available() {
            let (got_qkv, got_rpb) =
                gradients(&problem, isa, &narrow("qkv"), &narrow("rpb"), &[], &narrow("grad_out"));
            let errors = [relative(&got_qkv, &grad_qkv), relative(&got_rpb, &grad_rpb)];
            assert!(errors.iter().all(|e| *e < GRADIENT_TOLERANCES[0].1), "{path:?} on {isa:?}: {errors:?}");
        }
    });
}
