//! Every instruction set against the definition.

use super::*;

#[derive(Clone, Copy)]
enum Function {
    Exp,
    Gelu,
    GeluDerivative,
}

/// A function of each value.
struct Map<'a>(&'a mut [f32], Function);

impl Kernel for Map<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for chunk in self.0.chunks_mut(S::LANES) {
            let n = chunk.len();
            // SAFETY: the chunk holds `n` values.
            let x = unsafe { s.load_first(chunk.as_ptr(), n) };
            let y = match self.1 {
                Function::Exp => s.exp(x),
                Function::Gelu => s.gelu(x),
                Function::GeluDerivative => s.gelu_derivative(x),
            };
            // SAFETY: as above.
            unsafe { s.store_first(chunk.as_mut_ptr(), y, n) };
        }
    }
}

struct Reduce<'a>(&'a [f32]);

impl Kernel for Reduce<'_> {
    type Output = (f32, f32);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f32, f32) {
        assert!(self.0.len() >= S::LANES);
        // SAFETY: just checked.
        let v = unsafe { s.load(self.0.as_ptr()) };
        (s.reduce_sum(v), s.reduce_max(v))
    }
}

struct Weighted<'a>(&'a [i16], usize, [&'a [i16]; 2]);

impl Kernel for Weighted<'_> {
    type Output = [i32; 4];
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [i32; 4] {
        let Self(rows, stride, [high, low]) = self;
        s.weighted_sums(rows, stride, high, low)
    }
}

#[test]
fn weighted_sums_are_exact_on_every_instruction_set() {
    let mut rng = fastrand::Rng::with_seed(3);
    for length in [0, 16, 32, 48, 160, 4096] {
        let stride = length + 5;
        let rows: Vec<i16> = (0..4 * stride).map(|_| rng.i16(0..256)).collect();
        let high: Vec<i16> = (0..length).map(|_| rng.i16(-17_000..17_000)).collect();
        let low: Vec<i16> = (0..length).map(|_| rng.i16(0..256)).collect();
        let exact = [0, 1, 2, 3].map(|r| {
            let weight = |i: usize| 256 * i64::from(high[i]) + i64::from(low[i]);
            (0..length).map(|i| i64::from(rows[r * stride + i]) * weight(i)).sum::<i64>() as i32
        });
        for &isa in Isa::available() {
            assert_eq!(isa.run(Weighted(&rows, stride, [&high, &low])), exact, "{isa:?}, {length}");
        }
    }
}

#[test]
fn weighted_sums_wrap_on_every_instruction_set() {
    const ENDS: [i16; 4] = [i16::MIN, i16::MAX, -1, i16::MIN];
    for length in [16, 48, 4096] {
        let rows: Vec<i16> = (0..4 * length).map(|i| ENDS[(i / length + i / 7) % 4]).collect();
        for (high, low) in [(i16::MIN, i16::MIN), (i16::MIN, i16::MAX), (i16::MAX, -1), (0, i16::MIN)] {
            let weight = 256 * i64::from(high) + i64::from(low);
            let exact = [0, 1, 2, 3].map(|r| {
                let row = &rows[r * length..(r + 1) * length];
                row.iter().map(|&x| i64::from(x) * weight).sum::<i64>() as i32
            });
            let (highs, lows) = (vec![high; length], vec![low; length]);
            for &isa in Isa::available() {
                let sums = isa.run(Weighted(&rows, length, [&highs, &lows]));
                assert_eq!(sums, exact, "{isa:?}, {length} of {high} and {low}");
            }
        }
    }
}

/// What each lane of two or three vectors becomes.
#[derive(Clone, Copy, Debug)]
enum Lanewise {
    Add,
    Sub,
    Mul,
    Div,
    Fma,
    Max,
    Min,
}

/// It of a vector of these values.
struct Combined<'a>(Lanewise, [&'a [f32]; 3]);

impl Kernel for Combined<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let Self(what, [a, b, c]) = self;
        let mut result = vec![0.0; S::LANES];
        assert!(a.len() == S::LANES && b.len() == S::LANES && c.len() == S::LANES);
        // SAFETY: just checked.
        let (a, b, c) = unsafe { (s.load(a.as_ptr()), s.load(b.as_ptr()), s.load(c.as_ptr())) };
        let v = match what {
            Lanewise::Add => s.add(a, b),
            Lanewise::Sub => s.sub(a, b),
            Lanewise::Mul => s.mul(a, b),
            Lanewise::Div => s.div(a, b),
            Lanewise::Fma => s.fma(a, b, c),
            Lanewise::Max => s.max(a, b),
            Lanewise::Min => s.min(a, b),
        };
        // SAFETY: it has LANES values.
        unsafe { s.store(result.as_mut_ptr(), v) };
        result
    }
}

#[test]
fn arithmetic_is_that_of_each_lane() {
    let mut rng = fastrand::Rng::with_seed(5);
    for &isa in Isa::available() {
        let [a, b, c] = [(); 3].map(|()| (0..isa.lanes()).map(|_| rng.f32() - 0.5).collect::<Vec<f32>>());
        let fused = |a: f32, b: f32, c: f32| a.mul_add(b, c);
        // Fusing shows where a product and its rounded value cancel.
        let rounded: Vec<f32> = a.iter().zip(&b).map(|(a, b)| -(a * b)).collect();
        let apart = |a: f32, b: f32, c: f32| a * b + c;
        let fma = if isa == Isa::Portable { apart } else { fused };
        for (what, c, exact) in [
            (Lanewise::Add, &c, (|a, b, _| a + b) as fn(f32, f32, f32) -> f32),
            (Lanewise::Sub, &c, |a, b, _| a - b),
            (Lanewise::Mul, &c, |a, b, _| a * b),
            (Lanewise::Div, &c, |a, b, _| a / b),
            (Lanewise::Fma, &c, fma),
            (Lanewise::Fma, &rounded, fma),
        ] {
            let exact: Vec<f32> = (0..isa.lanes()).map(|i| exact(a[i], b[i], c[i])).collect();
            assert_eq!(isa.run(Combined(what, [&a, &b, c])), exact, "{isa:?} {what:?}");
        }
    }
}

#[test]
fn maxima_and_minima_take_the_second_operand_where_either_is_no_number() {
    const NAN: f32 = f32::NAN;
    const INFINITY: f32 = f32::INFINITY;
    // Operands, then which of them is the maximum and which the minimum.
    for (a, b, maximum, minimum) in [
        (1.0, 2.0, 2.0, 1.0),
        (2.0, -1.0, 2.0, -1.0),
        (-INFINITY, INFINITY, INFINITY, -INFINITY),
        (INFINITY, 3.0, INFINITY, 3.0),
        (NAN, 1.0, 1.0, 1.0),
        (NAN, -INFINITY, -INFINITY, -INFINITY),
        (1.0, NAN, NAN, NAN),
        (INFINITY, NAN, NAN, NAN),
        (NAN, NAN, NAN, NAN),
    ] {
        for &isa in Isa::available() {
            for at in 0..isa.lanes() {
                let [mut left, mut right] = [vec![4.0; isa.lanes()], vec![5.0; isa.lanes()]];
                (left[at], right[at]) = (a, b);
                for (what, exact, other) in [(Lanewise::Max, maximum, 5.0), (Lanewise::Min, minimum, 4.0)] {
                    let mut result = isa.run(Combined(what, [&left, &right, &right]));
                    let value = std::mem::replace(&mut result[at], other);
                    let same = value == exact || value.is_nan() && exact.is_nan();
                    assert!(same, "{isa:?} {what:?} of {a} and {b} in lane {at}: {value}, not {exact}");
                    assert_eq!(result, vec![other; isa.lanes()], "{isa:?} {what:?} beside lane {at}");
                }
            }
        }
    }
}

/// The first so many values of one slice as a vector, and its first so many in the other.
struct First<'a>(&'a [f32], &'a mut [f32], [usize; 2]);

impl Kernel for First<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self(from, to, [loaded, stored]) = self;
        assert!(loaded <= from.len() && loaded <= S::LANES && stored <= to.len() && stored <= S::LANES);
        // SAFETY: just checked.
        unsafe {
            let v = s.load_first(from.as_ptr(), loaded);
            s.store_first(to.as_mut_ptr(), v, stored);
        }
    }
}

#[test]
fn parts_of_vectors_are_read_and_written_alone() {
    for &isa in Isa::available() {
        let lanes = isa.lanes();
        for loaded in 0..=lanes {
            let from: Vec<f32> = (0..loaded).map(|i| 1.0 + i as f32).collect();
            for stored in 0..=lanes {
                let mut to = vec![-1.0; lanes + 1];
                isa.run(First(&from, &mut to, [loaded, stored]));
                let exact = |i: usize| match i {
                    _ if i >= stored => -1.0,
                    _ if i < loaded => 1.0 + i as f32,
                    _ => 0.0,
                };
                let exact: Vec<f32> = (0..=lanes).map(exact).collect();
                assert_eq!(to, exact, "{isa:?}, {loaded} read and {stored} written");
            }
        }
    }
}

/// 2^n of each value, of which there are whole vectors.
struct Powers<'a>(&'a mut [f32]);

impl Kernel for Powers<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for chunk in self.0.chunks_exact_mut(S::LANES) {
            // SAFETY: the chunk is a vector.
            unsafe {
                let n = s.load(chunk.as_ptr());
                s.store(chunk.as_mut_ptr(), s.exp2_whole(n));
            }
        }
    }
}

#[test]
fn whole_powers_of_two_are_exact() {
    for &isa in Isa::available() {
        // -126..=127, and a few of them again to fill the last vector.
        let whole = |i: i32| (i % 254 - 126) as f32;
        let mut powers: Vec<f32> = (0..256).map(whole).collect();
        isa.run(Powers(&mut powers));
        for (i, &power) in (0..).zip(&powers) {
            assert_eq!(power, whole(i).exp2(), "{isa:?}: 2^{}", whole(i));
        }
    }
}

#[test]
fn exp_is_exact_to_two_ulp_on_every_instruction_set() {
    for &isa in Isa::available() {
        let x: Vec<f32> = (0..40_003).map(|i| -87.0 + i as f32 * (174.0 / 40_000.0)).collect();
        let mut y = x.clone();
        isa.run(Map(&mut y, Function::Exp));
        for (x, y) in x.iter().zip(&y) {
            let exact = (*x as f64).exp();
            let error = (*y as f64 - exact).abs() / exact;
            assert!(error < 2.0 * f64::from(f32::EPSILON), "{isa:?}: exp({x}) = {y}, off by {error:e}");
        }
        let mut ends = [-1e30, f32::NEG_INFINITY];
        isa.run(Map(&mut ends, Function::Exp));
        assert!(ends.iter().all(|&e| e < 1.3e-38), "{isa:?} {ends:?}");
        let mut ends = [1e30, f32::INFINITY];
        isa.run(Map(&mut ends, Function::Exp));
        assert!(ends.iter().all(|&e| e > 1.6e38 && e.is_finite()), "{isa:?} {ends:?}");
        let mut nan = [f32::NAN];
        isa.run(Map(&mut nan, Function::Exp));
        assert!(nan[0].is_nan(), "{isa:?} {nan:?}");
    }
}

#[test]
fn gelu_and_its_derivative_are_exact_to_1e_6_on_every_instruction_set() {
    let normal = |x: f64| 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
    let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    for (function, exact) in [
        (Function::Gelu, &(|x| x * normal(x)) as &dyn Fn(f64) -> f64),
        (Function::GeluDerivative, &|x| normal(x) + x * density(x)),
    ] {
        for &isa in Isa::available() {
            let x: Vec<f32> = (0..40_003).map(|i| -10.0 + i as f32 * (20.0 / 40_000.0)).collect();
            let mut y = x.clone();
            isa.run(Map(&mut y, function));
            for (&x, &y) in x.iter().zip(&y) {
                let exact = exact(f64::from(x));
                // Half a unit in the last place of large results is beyond 1e-6 by itself.
                let bound = 1e-6 + exact.abs() * 2e-7;
                assert!((f64::from(y) - exact).abs() < bound, "{isa:?}: f({x}) = {y}, not {exact}");
            }
        }
    }
}

/// Eight rows of these values, transposed.
struct Transpose<'a>(&'a [Vec<f32>; 8], &'a mut [f32], usize);

impl Kernel for Transpose<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self(rows, to, stride) = self;
        assert!(stride >= 8 && to.len() >= rows[0].len() * stride);
        let from = [0, 1, 2, 3, 4, 5, 6, 7].map(|r| rows[r].as_ptr());
        // SAFETY: rows are of one length, and `to` has so many of `stride`.
        unsafe { s.transpose(from, rows[0].len(), to.as_mut_ptr(), stride) };
    }
}

#[test]
fn transpose_moves_every_value() {
    for &isa in Isa::available() {
        for (n, stride) in [(0, 8), (1, 8), (4, 8), (7, 9), (8, 8), (12, 8), (32, 16), (37, 11)] {
            let rows = [0, 1, 2, 3, 4, 5, 6, 7].map(|r| (0..n).map(|c| (100 * r + c) as f32).collect());
            let mut to = vec![-1.0; n * stride];
            isa.run(Transpose(&rows, &mut to, stride));
            for (i, &x) in to.iter().enumerate() {
                let (c, r) = (i / stride, i % stride);
                assert_eq!(
                    x,
                    if r < 8 { (100 * r + c) as f32 } else { -1.0 },
                    "{isa:?} n {n} row {r} column {c}"
                );
            }
        }
    }
}

#[test]
fn reductions_see_every_lane() {
    for &isa in Isa::available() {
        let lanes = isa.lanes();
        for at in 0..lanes {
            let mut x = vec![-1.0; lanes];
            x[at] = 2.0;
            assert_eq!(isa.run(Reduce(&x)), (3.0 - lanes as f32, 2.0), "{isa:?} lane {at}");
        }
        let nothing = vec![f32::NEG_INFINITY; lanes];
        assert_eq!(isa.run(Reduce(&nothing)), (f32::NEG_INFINITY, f32::NEG_INFINITY), "{isa:?}");
    }
}

#[test]
fn every_instruction_set_has_its_row() {
    let all = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Neon];
    assert_eq!(Isa::all().collect::<Vec<_>>(), all);
    assert_eq!(all.map(Isa::name), ["portable", "avx2", "avx512", "avx512bf16", "neon"]);
    assert_eq!(all.map(Isa::lanes), [8, 8, 16, 16, 8]);
    assert_eq!(all.map(|isa| isa.words(7)), [7, 7, 7, 4, 7]);
    assert!(
        Isa::Avx512.needs().contain(Isa::Avx2.needs()) && !Isa::Avx2.needs().contain(Isa::Avx512.needs())
    );
    assert_eq!(Isa::available()[0], Isa::Portable);
    let has = |isa| Isa::all_available().any(|other| other == isa);
    // Every aarch64 processor that an operating system runs on has it, and no other.
    assert_eq!(has(Isa::Neon), cfg!(target_arch = "aarch64"));
    assert!(cfg!(target_arch = "x86_64") || !(has(Isa::Avx2) || has(Isa::Avx512) || has(Isa::Avx512Bf16)));
    assert!(Isa::all_available().all(|isa| Capabilities::here().contain(isa.needs())));
    assert_eq!(all.map(Isa::wide), [None, None, None, Some(Isa::Avx512), None]);
}

#[test]
fn an_instruction_set_is_asked_for_by_its_name() {
    let all = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];
    for (name, available, isa) in [
        ("portable", &all[..], Some(Some(Isa::Portable))),
        ("avx2", &all, Some(Some(Isa::Avx2))),
        ("avx512", &all, Some(Some(Isa::Avx512))),
        ("avx512bf16", &all, Some(Some(Isa::Avx512Bf16))),
        ("", &all, Some(None)),
        ("avx512bf16", &all[..3], None),
        ("avx512", &all[..2], None),
        ("avx2", &all[..1], None),
        ("AVX2", &all, None),
        ("typo", &all, None),
    ] {
        assert_eq!(choice::asked(name, available).ok(), isa, "{name} of {available:?}");
    }
    let error = choice::asked("typo", &all[..2]).unwrap_err().to_string();
    assert_eq!(error, "NAT_INFER_ISA=typo: possible on this processor are portable, avx2");
}

#[test]
fn bf16_is_multiplied_where_that_is_faster_or_asked_for() {
    let (avx2, avx512, bf16) = (Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16);
    let preferred = "the preferred one of this processor";
    for (asked, best, has, rates, isa, why) in [
        (
            None,
            avx512,
            Some(bf16),
            [340.4, 170.2],
            bf16,
            "bf16 products are faster here (340 against 170 GFLOP/s a core)",
        ),
        (
            None,
            avx512,
            Some(bf16),
            [168.0, 178.0],
            avx512,
            "bf16 products are no faster here (168 against 178 GFLOP/s a core)",
        ),
        // What a measurement may err by.
        (
            None,
            avx512,
            Some(bf16),
            [130.0, 100.0],
            avx512,
            "bf16 products are no faster here (130 against 100 GFLOP/s a core)",
        ),
        (None, avx512, None, [2.0, 1.0], avx512, preferred),
        (None, avx2, None, [2.0, 1.0], avx2, preferred),
        // Whatever was measured.
        (Some(bf16), avx512, Some(bf16), [1.0, 2.0], bf16, "NAT_INFER_ISA asks for avx512bf16"),
        (Some(avx512), avx512, Some(bf16), [2.0, 1.0], avx512, "NAT_INFER_ISA asks for avx512"),
        (Some(avx2), avx2, None, [2.0, 1.0], avx2, "NAT_INFER_ISA asks for avx2"),
    ] {
        let measured = |isas| {
            assert_eq!((asked, isas), (None, [bf16, best]));
            rates
        };
        let choice = IsaChoice::of_bf16(asked, best, has, measured);
        assert_eq!((choice.isa, choice.why.to_string().as_str()), (isa, why), "{asked:?}, {rates:?}");
    }
}

#[test]
fn what_computes_is_what_was_asked_for_or_the_widest() {
    let (f32, bf16) = (IsaChoice::of_f32(), IsaChoice::of_weights_in_bf16());
    assert_eq!([f32.isa, bf16.isa], [Isa::best(), Isa::for_bf16()]);
    assert!(Isa::available().contains(&f32.isa), "{f32:?}");
    assert!(bf16.isa == f32.isa || bf16.isa.wide() == Some(f32.isa), "{bf16:?}");
    // It is decided once.
    assert_eq!(IsaChoice::of_weights_in_bf16(), bf16);
    match std::env::var(ISA_VARIABLE).unwrap_or_default().as_str() {
        "" => assert_eq!(Some(&f32.isa), Isa::available().last()),
        name => assert_eq!(([f32.why, bf16.why], bf16.isa.name()), ([IsaReason::Asked(bf16.isa); 2], name)),
    }
}

/// No time is held against anything: rates are numbers, also of more threads than there are processors.
#[test]
fn every_instruction_set_has_a_rate() {
    for threads in [1, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for isa in Isa::all_available() {
            let rate = pool.install(|| multiply_add_rate(isa));
            assert!(rate > 0.0 && rate.is_finite(), "{isa:?}, {threads} threads: {rate}");
        }
    }
    for isa in Isa::all_available() {
        let rates = rate::of_one_core([isa, Isa::Portable]);
        assert!(rates.into_iter().all(|rate| rate > 0.0 && rate.is_finite()), "{isa:?}: {rates:?}");
    }
}
