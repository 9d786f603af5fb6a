//! All checks of a device.

use candle_core::{DType, Device, Result, Tensor};
use nat_convert::arch::Head;

use super::check::{Check, Direction, Stage, Subject, caught};
use super::networks::NetworkCase;
use super::{exact, networks, operator, passes, tolerance};
use crate::simd::Isa;
use crate::weights::Weights;

/// The types that networks compute in.
const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Images of a network.
const BATCH: usize = 2;

/// Runs every check on `device`, one after the other, and gives each to `report` as it is done. Nothing fails: what can't
/// be computed is a check that did not pass.
pub fn checks(device: &Device, report: &mut dyn FnMut(Check)) {
    checks_on(device, &|_| true, report);
}

/// Runs those of the CPU's [`checks`] that compute with `isa` in this process: none where it computes with others.
pub fn checks_with(isa: Isa, report: &mut dyn FnMut(Check)) {
    checks_on(&Device::Cpu, &|on| on == isa.name(), report);
}

/// Those that are `wanted` by what computes.
fn checks_on(device: &Device, wanted: &dyn Fn(&str) -> bool, report: &mut dyn FnMut(Check)) {
    check_operator(device, wanted, report);
    for case in networks::all() {
        check_network(&case, device, wanted, report);
    }
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        report(recorded());
    }
}

/// Whether the GPU recorded the networks before: what it computes is the same if it did not.
#[cfg(feature = "cuda")]
fn recorded() -> Check {
    let (what, pass, dtype) = ("recording", Direction::Forward, DType::F32);
    let problem = crate::cuda::recording_problem();
    let stage = "classifiers".to_owned();
    Check { what, pass, dtype, on: "cuda", stage, error: 0.0, tolerance: 0.0, problem }
}

fn check_operator(device: &Device, wanted: &dyn Fn(&str) -> bool, report: &mut dyn FnMut(Check)) {
    let on = on(device, None);
    if !wanted(on) {
        return;
    }
    type Compute = fn(&Device, DType) -> Result<Vec<Stage>>;
    let passes: [(Direction, Compute, _); 2] = [
        (Direction::Forward, operator::forward, caught(operator::forward_reference)),
        (Direction::Backward, operator::backward, caught(operator::backward_reference)),
    ];
    // What the networks' reference is made of.
    let double = device.is_cpu().then_some(DType::F64);
    for (pass, compute, want) in passes {
        for dtype in double.into_iter().chain(TYPES) {
            let tolerance = tolerance::operator(device, dtype);
            let subject = Subject { what: "operator", pass, dtype, on, tolerance };
            report(subject.compare(&want, || compute(device, dtype)));
        }
    }
}

fn check_network(
    case: &NetworkCase,
    device: &Device,
    wanted: &dyn Fn(&str) -> bool,
    report: &mut dyn FnMut(Check),
) {
    let types = TYPES.into_iter().map(|dtype| (dtype, on(device, Some(dtype))));
    let types: Vec<_> = types.filter(|(_, on)| wanted(on)).collect();
    if types.is_empty() {
        return;
    }
    let [height, width] = case.size;
    // A failure is that of the reference.
    let inputs = exact::tensors(&case.architecture)
        .and_then(|tensors| Ok((tensors, exact::values(0, (BATCH, 3, height, width), 2.0)?)));
    type Compute = fn(&NetworkCase, &Weights, &Tensor) -> Result<Vec<Stage>>;
    type Form = fn(Weights) -> Weights;
    let run = |compute: Compute, form: Form, device: &Device, dtype| {
        let (tensors, images) =
            inputs.as_ref().map_err(|error| candle_core::Error::Msg(error.to_string()))?;
        let weights = form(Weights::from_tensors(tensors.iter().cloned(), dtype, device.clone()));
        compute(case, &weights, &images.to_dtype(dtype)?.to_device(device)?)
    };
    let passes: [(Direction, Compute, Form); 2] = [
        (Direction::Forward, passes::forward, |weights| weights),
        (Direction::Backward, passes::backward, Weights::differentiable),
    ];
    for (pass, compute, form) in passes {
        if pass == Direction::Backward && !matches!(case.architecture.head, Head::Classifier(_)) {
            continue;
        }
        let want = caught(|| run(compute, Weights::plain, &Device::Cpu, DType::F64));
        for &(dtype, on) in &types {
            let multiplies_bf16 = Isa::for_bf16().wide().is_some();
            let tolerance = tolerance::network(device, dtype, pass, multiplies_bf16);
            let subject = Subject { what: case.name, pass, dtype, on, tolerance };
            report(subject.compare(&want, || run(compute, form, device, dtype)));
        }
    }
}

/// What computes there: on the CPU the instruction set of layers with weights of a type, or of the operator.
fn on(device: &Device, weights: Option<DType>) -> &'static str {
    match (device, weights) {
        (Device::Cpu, Some(DType::BF16)) => Isa::for_bf16().name(),
        (Device::Cpu, _) => Isa::best().name(),
        _ => "cuda",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_right_and_everything_is_looked_at() {
        let mut found = Vec::new();
        checks(&Device::Cpu, &mut |check| found.push(check));
        for check in &found {
            assert!(check.passed(), "{check:?}");
        }
        let mut seen: Vec<_> = found.iter().map(|check| (check.what, check.pass, check.dtype)).collect();
        let operator = [DType::F64].into_iter().chain(TYPES).map(|dtype| ("operator", dtype));
        let networks = networks::all();
        let of_networks = networks.iter().flat_map(|case| TYPES.map(|dtype| (case.name, dtype)));
        for (what, dtype) in operator.chain(of_networks) {
            let classifier = !["mask-rcnn", "cascade-mask-rcnn", "upernet"].contains(&what);
            for pass in
                [Some(Direction::Forward), classifier.then_some(Direction::Backward)].into_iter().flatten()
            {
                let place = seen.iter().position(|seen| *seen == (what, pass, dtype));
                seen.remove(place.unwrap_or_else(|| panic!("{what} {pass} in {dtype:?}")));
            }
        }
        assert!(seen.is_empty(), "{seen:?}");
        // Of an instruction set alone no others, in their order.
        for isa in Isa::all() {
            let mut own = Vec::new();
            checks_with(isa, &mut |check| own.push((check.what, check.pass, check.dtype, check.on)));
            let all = found.iter().map(|check| (check.what, check.pass, check.dtype, check.on));
            assert_eq!(own, all.filter(|check| check.3 == isa.name()).collect::<Vec<_>>(), "{isa:?}");
        }
        // Rounding is seen: f32 is no f64.
        assert!(found.iter().all(|check| check.dtype == DType::F64 || check.error > 1e-9), "{found:?}");
    }
}
