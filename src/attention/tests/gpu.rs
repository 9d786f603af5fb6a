//! The GPU's kernels: always on the CPU, emulated, and on a GPU where there is one.

use std::ffi::c_void;

use candle_core::{DType, Device, Shape, Tensor, Var};
use half::{bf16, f16};
use nat_cuda::attention::Launches;
use nat_cuda::emulate::Emulator;
use nat_cuda::{Element, Launch};
use nat_testing::close::relative;
use nat_testing::golden;
use nat_testing::tensors::{normal, values};

use super::shapes::{PADDED, SHAPES};
use super::tools::attention;
use crate::attention::problem::Problem;
use crate::attention::reference;

/// The types with what their kernels stay under, as [`TOLERANCES`](super::tools::TOLERANCES) and [`GRADIENT_TOLERANCES`](super::tools::GRADIENT_TOLERANCES) for scores up
/// to 10 and 200. Results, and on the matrix units probabilities, are rounded to 11 and 8 bits. In f32 a product
/// of vectors is one long chain of sums, which large scores feel: their gradients may be off by twice as much.
const TYPES: [(DType, Element, [f64; 2], [f64; 2]); 3] = [
    (DType::F32, Element::F32, [5e-7, 5e-6], [2e-6, 4e-5]),
    (DType::F16, Element::F16, [5e-4, 5e-4], [5e-4, 5e-4]),
    (DType::BF16, Element::Bf16, [4e-3, 4e-3], [4e-3, 4e-3]),
];

fn launches(problem: &Problem) -> Launches {
    let &Problem { batch, height, width, heads, dim, kernel_size, dilation, .. } = problem;
    Launches { batch, height, width, heads, dim, kernel_size, dilation }
}

/// The bytes of a tensor, in its own type.
fn bytes(x: &Tensor) -> Vec<u8> {
    match x.dtype() {
        DType::F32 => values::<f32>(x).iter().flat_map(|x| x.to_ne_bytes()).collect(),
        DType::F16 => values::<f16>(x).iter().flat_map(|x| x.to_ne_bytes()).collect(),
        DType::BF16 => values::<bf16>(x).iter().flat_map(|x| x.to_ne_bytes()).collect(),
        other => panic!("{other:?}"),
    }
}

/// A tensor in memory that begins at a multiple of 16 bytes.
struct Memory {
    words: Vec<u128>,
    dtype: DType,
    count: usize,
}

impl Memory {
    fn new(x: &Tensor) -> Self {
        let (bytes, mut memory) = (bytes(x), Self::nan(x.dtype(), x.elem_count()));
        // SAFETY: the words have room for the bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.pointer().cast(), bytes.len()) };
        memory
    }

    fn nan(dtype: DType, count: usize) -> Self {
        Self { words: vec![u128::MAX; (count * dtype.size_in_bytes()).div_ceil(16)], dtype, count }
    }

    /// An input that is not there.
    fn null(dtype: DType) -> Self {
        Self { words: Vec::new(), dtype, count: 0 }
    }

    fn pointer(&mut self) -> *mut c_void {
        if self.words.is_empty() { std::ptr::null_mut() } else { self.words.as_mut_ptr().cast() }
    }

    fn values(&self) -> Vec<f32> {
        // SAFETY: the words hold so many bytes.
        let bytes: &[u8] = unsafe {
            std::slice::from_raw_parts(self.words.as_ptr().cast(), self.count * self.dtype.size_in_bytes())
        };
        let halves = bytes.chunks_exact(2).map(|x| [x[0], x[1]]);
        match self.dtype {
            DType::F32 => {
                bytes.chunks_exact(4).map(|x| f32::from_ne_bytes([x[0], x[1], x[2], x[3]])).collect()
            }
            DType::F16 => halves.map(|x| f16::from_ne_bytes(x).to_f32()).collect(),
            _ => halves.map(|x| bf16::from_ne_bytes(x).to_f32()).collect(),
        }
    }
}

/// Runs a kernel on the tensors that its launch is for.
fn emulate<const N: usize>(launch: &Launch, tensors: [&mut Memory; N]) {
    // SAFETY: tensors of the launch's sizes and types.
    unsafe { Emulator::get().unwrap().launch(launch, &tensors.map(Memory::pointer)) };
}

/// `pad` for the kernels: nothing where no axis is padded.
fn padding(problem: &Problem, pad: &Tensor) -> Memory {
    if problem.is_padded() { Memory::new(pad) } else { Memory::null(pad.dtype()) }
}

/// What a kernel makes of qkv, rpb and pad, and of a bias that q lacks.
fn emulated(
    launch: &Launch,
    problem: &Problem,
    [qkv, rpb, pad]: [&Tensor; 3],
    query_bias: Option<&Tensor>,
) -> Vec<f32> {
    let mut out = Memory::nan(qkv.dtype(), problem.output().elem_count());
    let mut query_bias = query_bias.map_or_else(|| Memory::null(qkv.dtype()), Memory::new);
    let [mut qkv, mut rpb, mut pad] = [Memory::new(qkv), Memory::new(rpb), padding(problem, pad)];
    emulate(launch, [&mut qkv, &mut rpb, &mut pad, &mut query_bias, &mut out]);
    out.values()
}

/// The launches of all kernels that serve a problem.
fn all_launches(problem: &Problem, element: Element) -> impl Iterator<Item = Launch> {
    // Words of 16 bytes or single elements, which differ by type only in how they are read.
    let general = launches(problem).general(element, element != Element::F32).unwrap();
    let matrix_units = launches(problem).matrix_units(element).map(Result::unwrap);
    [general].into_iter().chain(matrix_units)
}

/// The gradients of qkv and rpb.
fn emulated_gradients(problem: &Problem, element: Element, inputs: [&Tensor; 4]) -> [Vec<f32>; 2] {
    let [mut grad_qkv, mut grad_rpb] = [inputs[0], inputs[1]].map(|x| Memory::nan(x.dtype(), x.elem_count()));
    let mut statistics = Memory::nan(DType::F32, problem.output().elem_count() / problem.dim * 2);
    let [qkv, rpb, pad, grad] = inputs;
    let [mut qkv, mut rpb, mut grad] = [qkv, rpb, grad].map(Memory::new);
    let (mut pad, launches) = (padding(problem, pad), launches(problem));
    // Words of 16 bytes or single elements, as in `check`.
    let aligned = element != Element::F32;
    let query = launches.query_gradients(element, aligned).unwrap();
    emulate(&query, [&mut qkv, &mut rpb, &mut pad, &mut grad, &mut grad_qkv, &mut statistics]);
    let key = launches.key_gradients(element, aligned).unwrap();
    emulate(&key, [&mut qkv, &mut rpb, &mut pad, &mut grad, &mut statistics, &mut grad_qkv]);
    let bias = launches.bias_gradients(element, aligned).unwrap();
    emulate(&bias, [&mut qkv, &mut rpb, &mut pad, &mut grad, &mut statistics, &mut grad_rpb]);
    [grad_qkv.values(), grad_rpb.values()]
}

/// Whether kernels are emulated: where a card computes, on a machine that may have neither these sources nor a compiler, they
/// need not be.
fn emulates() -> bool {
    std::env::var_os("NAT_INFER_CARD_ONLY").is_none_or(|value| value.is_empty())
}

/// The GPU, if this program is built for one and finds it.
fn device() -> Option<Device> {
    #[cfg(feature = "cuda")]
    let device = crate::cuda::open(0).ok();
    #[cfg(not(feature = "cuda"))]
    let device = None;
    if device.is_none() {
        eprintln!("skipped on the GPU: there is none, or the feature `cuda` is off");
    }
    device
}

/// Compares all kernels that serve a problem with the reference, whose inputs are rounded to each type.
fn check(problem: &Problem, inputs: [&Tensor; 3], large: bool, gpu: Option<&Device>, what: &str) {
    let attention = attention(problem.heads, problem.kernel_size, problem.dilation);
    for (dtype, element, tolerances, _) in TYPES {
        let inputs = inputs.map(|x| x.to_dtype(dtype).unwrap());
        let [qkv, rpb, pad] = inputs.each_ref().map(|x| values::<f64>(&x.to_dtype(DType::F64).unwrap()));
        let exact = reference::forward(problem, &qkv, &rpb, &pad);
        let tolerance = tolerances[usize::from(large)];
        for launch in all_launches(problem, element).filter(|_| emulates()) {
            let error = relative(&emulated(&launch, problem, inputs.each_ref(), None), &exact);
            assert!(error < tolerance, "{what}, {}: off by {error:e}", launch.function);
        }
        if let Some(gpu) = gpu {
            let [qkv, rpb, pad] = inputs.each_ref().map(|x| x.to_device(gpu).unwrap());
            let got = attention.forward_padded(&qkv, Some(&rpb), Some(&pad)).unwrap();
            let error = relative(&values::<f32>(&got.to_dtype(DType::F32).unwrap()), &exact);
            assert!(error < tolerance, "{what}, {dtype:?} on the GPU: off by {error:e}");
        }
    }
}

/// The gradients of a problem, as [`check`].
fn check_gradients(problem: &Problem, inputs: [&Tensor; 4], large: bool, gpu: Option<&Device>, what: &str) {
    let attention = attention(problem.heads, problem.kernel_size, problem.dilation);
    for (dtype, element, _, tolerances) in TYPES {
        let inputs = inputs.map(|x| x.to_dtype(dtype).unwrap());
        let [qkv, rpb, pad, grad] =
            inputs.each_ref().map(|x| values::<f64>(&x.to_dtype(DType::F64).unwrap()));
        let exact: [_; 2] = reference::backward(problem, &qkv, &rpb, &pad, &grad).into();
        let compare = |got: [Vec<f32>; 2], place: &str| {
            let errors = [relative(&got[0], &exact[0]), relative(&got[1], &exact[1])];
            let more = if problem.is_padded() { 10.0 } else { 1.0 };
            let tolerance = more * tolerances[usize::from(large)];
            assert!(
                errors.iter().all(|error| *error < tolerance),
                "{what}, {dtype:?} {place}: off by {errors:?}"
            );
        };
        if emulates() {
            compare(emulated_gradients(problem, element, inputs.each_ref()), "emulated");
        }
        if let Some(gpu) = gpu {
            let [qkv, rpb, pad, grad] = inputs.each_ref().map(|x| x.to_device(gpu).unwrap());
            let [qkv, rpb] = [&qkv, &rpb].map(|x| Var::from_tensor(x).unwrap());
            let out = attention.forward_padded(&qkv, Some(&rpb), Some(&pad)).unwrap();
            let grads = (out * grad).unwrap().sum_all().unwrap().backward().unwrap();
            let got = [&qkv, &rpb]
                .map(|x| values::<f32>(&grads.get(x.as_tensor()).unwrap().to_dtype(DType::F32).unwrap()));
            compare(got, "on the GPU");
        }
    }
}

/// Whether so many queries are few: the emulation takes seconds for more, and they show it nothing new.
fn quick(queries: usize) -> bool {
    queries < 1000 || !emulates()
}

#[test]
fn kernels_agree_with_the_reference() {
    let gpu = device();
    // More than a tile of the matrix units' kernels in every direction, and classes of unequal size.
    let more = [
        (1, 11, 19, 2, 32, 3, 1),
        (2, 17, 12, 1, 32, 5, 2),
        (1, 25, 18, 1, 32, 7, 1),
        (1, 9, 24, 1, 32, 9, 1),
        (1, 23, 13, 1, 32, 11, 1),
        (1, 27, 29, 1, 32, 13, 2),
    ];
    for (b, h, w, heads, dim, kernel_size, dilation) in SHAPES.into_iter().chain(more).chain(PADDED) {
        if !quick(b * h * w * heads) {
            continue;
        }
        let attention = attention(heads, kernel_size, dilation);
        let qkv_shape = (b, h, w, 3 * heads * dim);
        let problem = attention.problem(Shape::from(qkv_shape).dims(), true).unwrap();
        let rpb = normal((heads, problem.bias_side, problem.bias_side), 1.0);
        for (large, deviation) in [(false, 1.0), (true, 5.0)] {
            let (qkv, pad) = (normal(qkv_shape, deviation), normal(3 * heads * dim, deviation));
            let what = format!("{problem:?}, deviation {deviation}");
            check(&problem, [&qkv, &rpb, &pad], large, gpu.as_ref(), &what);
        }
    }
}

/// Maps of all kinds for the query's bias: interior and borders, classes, padded axes, wide heads.
const BIASED: [(usize, usize, usize, usize, usize, usize, usize); 8] = [
    (1, 12, 9, 2, 32, 3, 1),
    (1, 13, 16, 2, 32, 7, 1),
    (1, 14, 14, 2, 32, 7, 2),
    (1, 9, 11, 1, 33, 5, 1),
    (1, 6, 5, 2, 168, 3, 1),
    (1, 6, 7, 2, 32, 7, 1),
    (1, 9, 9, 1, 33, 5, 2),
    (2, 3, 20, 2, 24, 7, 1),
];

/// qkv [.., 3·heads·dim] or pad [3·heads·dim] in f64 with a bias [3·heads·dim] added, of which the parts q, k and v
/// are as `parts` says. `round`: to the type that holds such sums.
fn with_bias(x: &[f64], bias: &[f64], parts: [bool; 3], round: impl Fn(f64) -> f64) -> Vec<f64> {
    let part = bias.len() / 3;
    let sum = |(i, x): (usize, &f64)| {
        let channel = i % bias.len();
        if parts[channel / part] { round(x + bias[channel]) } else { *x }
    };
    x.iter().enumerate().map(sum).collect()
}

#[test]
fn a_query_bias_is_added_to_every_query() {
    if !emulates() {
        return;
    }
    for (b, h, w, heads, dim, kernel_size, dilation) in BIASED {
        let attention = attention(heads, kernel_size, dilation);
        let qkv_shape = (b, h, w, 3 * heads * dim);
        let problem = attention.problem(Shape::from(qkv_shape).dims(), true).unwrap();
        let rpb = normal((heads, problem.bias_side, problem.bias_side), 1.0);
        let (qkv, pad, bias) =
            (normal(qkv_shape, 1.0), normal(3 * heads * dim, 1.0), normal(3 * heads * dim, 1.0));
        for (dtype, element, [tolerance, _], _) in TYPES {
            let round = |x: f64| {
                let x = Tensor::new(&[x as f32], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                values::<f64>(&x.to_dtype(DType::F64).unwrap())[0]
            };
            let inputs = [&qkv, &rpb, &pad, &bias].map(|x| x.to_dtype(dtype).unwrap());
            let [qkv, rpb, pad, bias] = &inputs;
            let query_bias = bias.narrow(0, 0, heads * dim).unwrap();
            let wide = inputs.each_ref().map(|x| values::<f64>(&x.to_dtype(DType::F64).unwrap()));
            let [wide_qkv, wide_rpb, wide_pad, wide_bias] = &wide;
            let biased = |parts, round: &dyn Fn(f64) -> f64| {
                let [qkv, pad] = [wide_qkv, wide_pad].map(|x| with_bias(x, wide_bias, parts, round));
                reference::forward(&problem, &qkv, wide_rpb, &pad)
            };
            let exact = biased([true, false, false], &round);
            // A layer's whole bias: that of the keys changes nothing, and that of the values is added to the results.
            let whole = biased([true; 3], &|x| x);
            let value_bias = &wide_bias[2 * heads * dim..];
            for launch in all_launches(&problem, element) {
                let what = format!("{problem:?}, {}", launch.function);
                let got = emulated(&launch, &problem, [qkv, rpb, pad], Some(&query_bias));
                let error = relative(&got, &exact);
                assert!(error < tolerance, "{what}: off by {error:e}");
                let shifted: Vec<f32> = got
                    .iter()
                    .enumerate()
                    .map(|(i, x)| x + value_bias[i % value_bias.len()] as f32)
                    .collect();
                // Here q is not rounded again as it is in the kernel: an error of its own, of the same size.
                let error = relative(&shifted, &whole);
                assert!(error < 2.0 * tolerance, "{what}: off by {error:e} from a bias of q, k and v");
            }
        }
    }
}

#[test]
fn gradients_agree_with_the_reference() {
    let gpu = device();
    for (b, h, w, heads, dim, kernel_size, dilation) in SHAPES.into_iter().chain(PADDED) {
        // As for the CPU's launches.
        let few = b * h * w * heads * dim < 16;
        if few || !quick(b * h * w * heads) {
            continue;
        }
        let attention = attention(heads, kernel_size, dilation);
        let qkv_shape = (b, h, w, 3 * heads * dim);
        let problem = attention.problem(Shape::from(qkv_shape).dims(), true).unwrap();
        let rpb = normal((heads, problem.bias_side, problem.bias_side), 1.0);
        let grad = normal((b, h, w, heads * dim), 1.0);
        for (large, deviation) in [(false, 1.0), (true, 5.0)] {
            let (qkv, pad) = (normal(qkv_shape, deviation), normal(3 * heads * dim, deviation));
            let what = format!("{problem:?}, deviation {deviation}");
            check_gradients(&problem, [&qkv, &rpb, &pad, &grad], large, gpu.as_ref(), &what);
        }
    }
}

#[test]
fn golden_cases_are_those_of_natten() {
    let gpu = device();
    golden::each(&golden::files("attention", "safetensors"), |path| {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let field = |name| header.metadata().as_ref().unwrap()[name].parse().unwrap();
        let attention = attention(field("heads"), field("kernel_size"), field("dilation"));
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        let problem = attention.problem(tensors["qkv"].dims(), false).unwrap();
        let what = path.display().to_string();
        let [qkv, rpb, grad] = ["qkv", "rpb", "grad_out"].map(|name| &tensors[name]);
        let pad = &normal(3 * problem.heads * problem.dim, 1.0);
        check(&problem, [qkv, rpb, pad], false, gpu.as_ref(), &what);
        check_gradients(&problem, [qkv, rpb, pad, grad], false, gpu.as_ref(), &what);
    });
}
