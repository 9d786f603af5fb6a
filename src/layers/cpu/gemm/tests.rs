//! Every kernel of a product on every instruction set, met by every class of shapes: what is left of tiles, panels,
//! words and slices. A kernel is a row of [`KERNELS`], an instruction set one of `simd`'s table.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use half::bf16;
use nat_testing::naive;

use super::*;
use crate::layers::cpu::norm::{Norm, NormedRows};
use crate::layers::parts::{Activation, NormParts};
use crate::simd::Isa;

/// A product of random values in -1..1.
struct Case {
    rows: usize,
    n: usize,
    depth: usize,
    /// [rows, depth]
    a: Vec<f32>,
    /// [n, depth]
    w: Vec<f32>,
    /// `[n]`
    bias: Vec<f32>,
    gamma: Vec<f32>,
    /// [rows, n]
    residual: Vec<f32>,
    /// `[depth]`
    factors: Vec<f32>,
}

const EPSILON: f64 = 0.5;

impl Case {
    fn new([rows, n, depth]: [usize; 3]) -> Self {
        // One after the other: generators of neighbouring seeds give like numbers.
        let mut rng = fastrand::Rng::with_seed(1);
        let mut noise = |len: usize| (0..len).map(|_| rng.f32() * 2.0 - 1.0).collect::<Vec<f32>>();
        let [a, w] = [rows * depth, n * depth].map(&mut noise);
        let [bias, gamma, residual, factors] = [n, n, rows * n, depth].map(noise);
        Self { rows, n, depth, a, w, bias, gamma, residual, factors }
    }

    /// With operands as an instruction set multiplies them.
    fn rounded(mut self, isa: Isa) -> Self {
        if isa.words(2) == 1 {
            self.a.iter_mut().chain(&mut self.w).for_each(|x| *x = bf16::from_f32(*x).to_f32());
        }
        self
    }

    /// A norm of `dim` channels.
    fn norm(&self, dim: usize) -> Arc<Norm> {
        let [weight, bias] =
            norm_values(dim).map(|values| Tensor::from_vec(values, dim, &Device::Cpu).unwrap());
        Norm::new(&NormParts { weight, bias, epsilon: EPSILON })
    }

    /// The product of other rows, in f64.
    fn sums(&self, a: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let dot = |r: usize, c: usize| {
            (0..self.depth).map(|k| a(r, k) * f64::from(self.w[c * self.depth + k])).sum::<f64>()
        };
        (0..self.rows * self.n).map(|i| dot(i / self.n, i % self.n)).collect()
    }

    /// The product, in f64.
    fn plain(&self) -> Vec<f64> {
        naive::product([self.rows, self.n, self.depth], &self.a, &self.w)
    }

    /// The product with its bias, and `f` of each value, its row and its column.
    fn biased(&self, f: impl Fn(f64, usize, usize) -> f64) -> Vec<f64> {
        let biased =
            |(i, sum): (usize, f64)| f(sum + f64::from(self.bias[i % self.n]), i / self.n, i % self.n);
        self.plain().into_iter().enumerate().map(biased).collect()
    }
}

/// Weight and bias of a norm of `dim` channels.
fn norm_values(dim: usize) -> [Vec<f32>; 2] {
    [0.5, -0.5].map(|from| (0..dim).map(|i| from + (i * 7 % 5) as f32 / 4.0).collect())
}

/// Layer norm of rows of `dim` values as [`Case::norm`] makes it.
fn normed(rows: &[f64], dim: usize) -> Vec<f64> {
    let [weight, bias] = norm_values(dim).map(|values| values.into_iter().map(f64::from).collect::<Vec<_>>());
    naive::layer_norm(rows, &weight, &bias, EPSILON)
}

/// Name, the kernel, its definition in f64, and whether operands are computed, so that their rounding to bf16 may
/// fall on the other side.
type Row = (&'static str, fn(&Case, &Packed) -> Vec<f32>, fn(&Case) -> Vec<f64>, bool);

fn stored(case: &Case, weight: &Packed, epilogue: Epilogue, then: Then) -> Vec<f32> {
    product(case.rows, &StoredRows { rows: &case.a, depth: case.depth }, weight, epilogue, then)
}

const KERNELS: [Row; 10] = [
    ("plain", |c, w| stored(c, w, Epilogue::default(), Then::Nothing), Case::plain, false),
    (
        "bias",
        |c, w| stored(c, w, Epilogue { bias: Some(&c.bias), ..Epilogue::default() }, Then::Nothing),
        |c| c.biased(|x, _, _| x),
        false,
    ),
    (
        "GELU",
        |c, w| {
            let epilogue =
                Epilogue { bias: Some(&c.bias), activation: Activation::Gelu, ..Epilogue::default() };
            stored(c, w, epilogue, Then::Nothing)
        },
        |c| c.biased(|x, _, _| naive::gelu(x)),
        false,
    ),
    (
        "ReLU",
        |c, w| {
            let epilogue =
                Epilogue { bias: Some(&c.bias), activation: Activation::Relu, ..Epilogue::default() };
            stored(c, w, epilogue, Then::Nothing)
        },
        |c| c.biased(|x, _, _| x.max(0.0)),
        false,
    ),
    (
        "residual",
        |c, w| {
            let epilogue =
                Epilogue { bias: Some(&c.bias), residual: Some(&c.residual), ..Epilogue::default() };
            stored(c, w, epilogue, Then::Nothing)
        },
        |c| c.biased(|x, row, column| x + f64::from(c.residual[row * c.n + column])),
        false,
    ),
    (
        "layer scale and residual",
        |c, w| {
            let epilogue = Epilogue {
                bias: Some(&c.bias),
                residual: Some(&c.residual),
                gamma: Some(&c.gamma),
                ..Epilogue::default()
            };
            stored(c, w, epilogue, Then::Nothing)
        },
        |c| {
            c.biased(|x, row, column| {
                x * f64::from(c.gamma[column]) + f64::from(c.residual[row * c.n + column])
            })
        },
        false,
    ),
    (
        "slope of GELU, times",
        |c, w| {
            let epilogue = Epilogue {
                bias: Some(&c.bias),
                activation: Activation::Gelu,
                slope: true,
                times: Some(&c.residual),
                ..Epilogue::default()
            };
            stored(c, w, epilogue, Then::Nothing)
        },
        |c| {
            c.biased(|x, row, column| {
                let normal = 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                (normal + x * density) * f64::from(c.residual[row * c.n + column])
            })
        },
        false,
    ),
    (
        "scaled rows",
        |c, w| {
            let rows = ScaledRows { rows: &c.a, factors: &c.factors };
            product(c.rows, &rows, w, Epilogue::default(), Then::Nothing)
        },
        |c| c.sums(|r, k| f64::from(c.a[r * c.depth + k]) * f64::from(c.factors[k])),
        true,
    ),
    (
        "normalised rows",
        |c, w| {
            let rows = NormedRows { rows: &c.a, norm: &c.norm(c.depth) };
            product(c.rows, &rows, w, Epilogue::default(), Then::Nothing)
        },
        |c| {
            let a: Vec<f64> = c.a.iter().map(|&x| x.into()).collect();
            let a = normed(&a, c.depth);
            c.sums(|r, k| a[r * c.depth + k])
        },
        true,
    ),
    (
        "norm behind",
        |c, w| stored(c, w, Epilogue::default(), Then::Norm(&c.norm(c.n))),
        |c| normed(&c.plain(), c.n),
        false,
    ),
];

/// Rows: one, what is left of tiles of 3, 6 and 13, several blocks. Columns: what is left of lanes and of panels.
/// Depth: one word, half a word more, rows 2 KiB apart, slices.
fn shapes() -> Vec<[usize; 3]> {
    let mut shapes: Vec<[usize; 3]> = (1..=27).map(|rows| [rows, 33, 7]).collect();
    shapes.extend((1..=65).map(|n| [5, n, 10]));
    shapes.extend((1..=34).map(|depth| [7, 18, depth]));
    // Panels of two and of three vectors.
    shapes.extend((1..=12).map(|tenth| [40, 15 * tenth, 9]));
    shapes.extend([[1, 1000, 64], [49, 96, 40], [57, 31, 3], [200, 10, 300], [9, 20, 512], [14, 17, 1024]]);
    shapes.extend([[3, 5, 4608], [3, 5, 4609], [30, 40, 9217], [30, 100, 9217], [2, 3, 18_433]]);
    shapes
}

/// What sums of `depth` products in f32 may be off: they grow, and with them the last bit.
fn bound(depth: usize) -> f64 {
    2e-5 + 1e-7 * depth as f64
}

#[test]
fn every_kernel_agrees_with_its_definition_on_every_shape() {
    for isa in Isa::all_available() {
        for shape in shapes() {
            let case = Case::new(shape).rounded(isa);
            let weight = Packed::new(isa, case.n, case.depth, &case.w);
            for (name, kernel, exact, computed) in KERNELS {
                let (got, want) = (kernel(&case, &weight), exact(&case));
                assert_eq!(got.len(), want.len());
                // A value that bf16 rounds the other way is off by 2^-8 of itself, and all have the same chance.
                let rounding =
                    if computed && isa.words(2) == 1 { 8e-3 * (case.depth as f64).sqrt() } else { 0.0 };
                let bound = bound(case.depth) + rounding;
                for (i, (&got, want)) in got.iter().zip(want).enumerate() {
                    let off = (f64::from(got) - want).abs();
                    assert!(off < bound, "{isa:?}, {name}, {shape:?} at {i}: {got}, not {want}");
                }
            }
        }
    }
}

/// Weights in bf16 give what the same values in f32 give, to the bit, whatever is left of panels, lanes and slices.
#[test]
fn halved_weights_are_those_values() {
    for isa in Isa::all_available().filter(|isa| isa.words(2) == 2) {
        for shape in shapes() {
            let case = Case::new(shape);
            let rounded: Vec<f32> = case.w.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
            let whole = Packed::new(isa, case.n, case.depth, &rounded);
            let halved = Packed::halved(isa, case.n, case.depth, &case.w);
            for (name, kernel, _, _) in KERNELS {
                assert_eq!(kernel(&case, &halved), kernel(&case, &whole), "{isa:?}, {name}, {shape:?}");
            }
        }
    }
}

/// AVX2, AVX-512 and NEON add the same products in the same order, fused: only a norm's sums over lanes differ. The portable
/// form rounds between product and sum.
#[test]
fn instruction_sets_agree_with_each_other() {
    let run = |isa: Isa, case: &Case, kernel: fn(&Case, &Packed) -> Vec<f32>| {
        kernel(case, &Packed::new(isa, case.n, case.depth, &case.w))
    };
    for shape in shapes() {
        let case = Case::new(shape);
        for (name, kernel, _, _) in KERNELS {
            let portable = run(Isa::Portable, &case, kernel);
            let others = Isa::available().iter().map(|&isa| (isa, run(isa, &case, kernel)));
            let others: Vec<_> = others.filter(|(isa, _)| *isa != Isa::Portable).collect();
            for (isa, values) in &others {
                for (a, b) in values.iter().zip(&portable) {
                    let off = f64::from((a - b).abs());
                    assert!(off < bound(case.depth), "{isa:?}, {name}, {shape:?}: {a}, portable {b}");
                }
            }
            if !name.contains("norm") {
                for ((_, a), (isa, b)) in others.iter().zip(others.iter().skip(1)) {
                    assert_eq!(a, b, "{isa:?}, {name}, {shape:?}");
                }
            }
        }
    }
}
