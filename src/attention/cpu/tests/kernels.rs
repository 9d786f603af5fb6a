//! The table of kernels, and what all of them have to hold.

use nat_testing::close::relative;

use super::inputs::{Inputs, ShapeOf};
use super::steps::{self, Step};
use crate::attention::cpu::geometry::{ANY, KernelSize};
use crate::attention::cpu::{backward, forward};
use crate::attention::reference;
use crate::attention::tests::shapes::{PADDED, SHAPES};
use crate::attention::tests::tools::{GRADIENT_TOLERANCES, TOLERANCES, bits, widen};
use crate::simd::Isa;

/// A kernel, and how exact it is.
struct Tested {
    name: &'static str,
    /// Its results on an instruction set.
    made: fn(&Inputs, Isa) -> Vec<Vec<f32>>,
    /// The same in f64.
    exact: fn(&Inputs) -> Vec<Vec<f64>>,
    /// ‖made − exact‖ / ‖exact‖ of each result stays under this, for scores up to 10 and up to 200; 0 for results
    /// that are equal.
    bounds: [f64; 2],
    /// How many times as much it may be where keys are padded.
    padded: f64,
    /// Problems with fewer outputs are left out.
    fewest: usize,
}

impl Tested {
    const fn step(
        name: &'static str,
        made: fn(&Inputs, Isa) -> Vec<Vec<f32>>,
        exact: fn(&Inputs) -> Vec<Vec<f64>>,
        bounds: [f64; 2],
    ) -> Self {
        Self { name, made, exact, bounds, padded: 1.0, fewest: 0 }
    }

    /// What it may be off at this problem by, if it is for this problem.
    fn bound(&self, inputs: &Inputs, large: bool) -> Option<f64> {
        let more = if inputs.problem.is_padded() { self.padded } else { 1.0 };
        (inputs.grad.len() >= self.fewest).then_some(self.bounds[usize::from(large)] * more)
    }
}

/// The step of a name.
macro_rules! step {
    ($step:ident, $bounds:expr) => {
        Tested::step(
            stringify!($step),
            |inputs, isa| steps::made(Step::$step, inputs, isa),
            |inputs| steps::exact(Step::$step, inputs),
            $bounds,
        )
    };
}

const OUTPUTS: [f64; 2] = [TOLERANCES[0].1, TOLERANCES[1].1];
const GRADIENTS: [f64; 2] = [GRADIENT_TOLERANCES[0].1, GRADIENT_TOLERANCES[1].1];

/// Every kernel: the steps alone, and the drivers.
const KERNELS: [Tested; 12] = [
    step!(TransposeRow, [0.0, 0.0]),
    step!(CopyRow, [0.0, 0.0]),
    step!(Dots, OUTPUTS),
    step!(AddBias, OUTPUTS),
    step!(Exponentials, OUTPUTS),
    step!(Mix, OUTPUTS),
    step!(ScoreGradients, OUTPUTS),
    step!(AddRows, OUTPUTS),
    step!(Spread, OUTPUTS),
    Tested::step("forward", whole_forward, exact_forward, OUTPUTS),
    // Of few values all probabilities may be near 0 or 1, where nothing is left but rounding.
    Tested {
        name: "gradient on one thread",
        made: |inputs, isa| whole_gradient(inputs, isa, 1),
        exact: exact_gradient,
        bounds: GRADIENTS,
        padded: 10.0,
        fewest: 16,
    },
    // The map is cut into more parts.
    Tested {
        name: "gradient on five threads",
        made: |inputs, isa| whole_gradient(inputs, isa, 5),
        exact: exact_gradient,
        bounds: GRADIENTS,
        padded: 10.0,
        fewest: 16,
    },
];

fn whole_forward(inputs: &Inputs, isa: Isa) -> Vec<Vec<f32>> {
    vec![forward(&inputs.problem, isa, &inputs.qkv, &inputs.rpb, &inputs.pad)]
}

fn exact_forward(inputs: &Inputs) -> Vec<Vec<f64>> {
    let [qkv, rpb, pad] = [&inputs.qkv, &inputs.rpb, &inputs.pad].map(|x| widen(x));
    vec![reference::forward(&inputs.problem, &qkv, &rpb, &pad)]
}

/// Both gradients; that of qkv is the same by itself.
fn whole_gradient(inputs: &Inputs, isa: Isa, threads: usize) -> Vec<Vec<f32>> {
    let Inputs { problem, qkv, rpb, pad, grad, .. } = inputs;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let run = |rpb_too| pool.install(|| backward(problem, isa, qkv, rpb, pad, grad, rpb_too));
    let (grad_qkv, grad_rpb) = run(true);
    let (alone, none) = run(false);
    assert!(none.is_none() && bits(&alone) == bits(&grad_qkv), "{problem:?}");
    vec![grad_qkv, grad_rpb.unwrap()]
}

fn exact_gradient(inputs: &Inputs) -> Vec<Vec<f64>> {
    let [qkv, rpb, pad, grad] = [&inputs.qkv, &inputs.rpb, &inputs.pad, &inputs.grad].map(|x| widen(x));
    let (grad_qkv, grad_rpb) = reference::backward(&inputs.problem, &qkv, &rpb, &pad, &grad);
    vec![grad_qkv, grad_rpb]
}

/// Every shape with small and with large scores.
fn all_inputs() -> impl Iterator<Item = (Inputs, bool)> {
    let large = |shape| [(Inputs::new(shape, 1.0), false), (Inputs::new(shape, 5.0), true)];
    SHAPES.into_iter().chain(PADDED).flat_map(large)
}

#[test]
fn every_kernel_agrees_with_f64_on_every_instruction_set() {
    for (inputs, large) in all_inputs() {
        for kernel in &KERNELS {
            let Some(bound) = kernel.bound(&inputs, large) else { continue };
            let exact = (kernel.exact)(&inputs);
            for &isa in Isa::available() {
                for (made, exact) in (kernel.made)(&inputs, isa).iter().zip(&exact) {
                    let (error, name, problem) = (relative(made, exact), kernel.name, &inputs.problem);
                    let what = format!("{name} on {isa:?}, {problem:?}, large scores: {large}");
                    assert!(error <= bound, "{what}: off by {error:e}");
                }
            }
        }
    }
}

/// Whether an instruction set rounds once in a·b + c.
fn fuses(isa: Isa) -> bool {
    isa != Isa::Portable
}

/// Those that fuse products with sums agree to the bit: vectors hold eight scores on all of them, and of wider vectors
/// of channels each lane goes its own way. Those that do not are as far from them as from f64.
#[test]
fn instruction_sets_agree_with_each_other() {
    for (inputs, large) in all_inputs() {
        for kernel in &KERNELS {
            let Some(bound) = kernel.bound(&inputs, large) else { continue };
            let all = Isa::available().iter().map(|&isa| (isa, (kernel.made)(&inputs, isa)));
            let all: Vec<(Isa, Vec<Vec<f32>>)> = all.collect();
            for pair in all.windows(2) {
                let [(narrow, first), (wide, second)] = pair else { unreachable!("pairs") };
                for (first, second) in first.iter().zip(second) {
                    let (name, problem) = (kernel.name, &inputs.problem);
                    let what = format!("{name} on {narrow:?} and {wide:?}, {problem:?}, large: {large}");
                    if fuses(*narrow) == fuses(*wide) {
                        assert!(bits(first) == bits(second), "{what}: not the same bits");
                    } else {
                        let apart = relative(first, &widen(second));
                        assert!(apart <= bound, "{what}: {apart:e} apart");
                    }
                }
            }
        }
    }
}

/// A kernel that is right at these shapes has met everything that its loops tell apart.
#[test]
fn the_shapes_are_of_every_class() {
    type Is = fn(&ShapeOf) -> bool;
    let classes: [(&str, Is); 27] = [
        ("channels in whole vectors of 16", |s| s.4 % 16 == 0),
        ("channels in whole vectors of 8 alone", |s| s.4 % 16 == 8),
        ("channels that fill no vector", |s| s.4 < 8),
        ("a channel beyond vectors", |s| s.4 > 16 && s.4 % 8 == 1),
        ("channels of more than four vectors", |s| s.4 > 4 * 16),
        ("heads", |s| s.3 > 1),
        ("images", |s| s.0 > 1),
        ("K = 1", |s| s.5 == 1),
        ("K = 3", |s| s.5 == 3),
        ("K = 5", |s| s.5 == 5),
        ("K = 7", |s| s.5 == 7),
        ("K = 13, of two vectors a row", |s| s.5 == 13),
        ("K of three vectors a row", |s| s.5 > 16),
        ("windows as wide as their lanes, which no pair shares", |s| s.5.is_multiple_of(8)),
        ("an even window, the whole map", |s| s.5 % 2 == 0 && s.1 == s.5 && s.2 == s.5),
        ("an odd window, the whole map", |s| s.5 == 7 && s.1 == 7 && s.2 == 7),
        ("borders alone: no window in the middle of a row", |s| s.5 == 7 && s.2 == 8),
        ("a map of one strip", |s| s.5 == 7 && s.6 == 1 && (8..=12).contains(&s.2)),
        ("a last strip that is narrower", |s| s.5 == 7 && s.6 == 1 && s.2 == 31 || s.2 == 40),
        ("a last query without a partner", |s| s.5 == 7 && s.2 % 2 == 1),
        ("more rows than a tile has", |s| s.1 > 2 * 64),
        ("dilation, classes of one size", |s| s.6 > 1 && s.1 % s.6 == 0 && s.2 % s.6 == 0),
        ("dilation, classes of two sizes", |s| s.6 > 1 && s.1 % s.6 != 0 && s.2 % s.6 != 0),
        ("padded rows alone", |s| s.1 < s.5 * s.6 && s.2 >= s.5 * s.6),
        ("padded columns alone", |s| s.1 >= s.5 * s.6 && s.2 < s.5 * s.6),
        ("padded rows and columns", |s| s.1 < s.5 * s.6 && s.2 < s.5 * s.6),
        ("a dilation beyond the map", |s| s.6 > s.1.max(s.2)),
    ];
    for (class, is) in classes {
        assert!(SHAPES.iter().chain(&PADDED).any(is), "no shape has {class}");
    }
    assert_eq!(KernelSize::<ANY>::new(8).slack(), 0);
}
