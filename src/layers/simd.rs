//! Vectors of f32 for the CPU kernels: one trait, three instruction sets, chosen at run time.
//!
//! A kernel is written once against [`Simd`] as a [`Kernel`]; [`Isa::run`] compiles it for AVX-512,
//! AVX2 with FMA, and a portable form that is right everywhere (LLVM makes SSE2 or NEON of it).
//! Kernels get a token of their instruction set; holding one is the proof that the processor has it.
//!
//! A fourth is AVX-512 whose products take bf16: vectors stay f32, but the operands of
//! [`Simd::dot`] are pairs of bf16 in the place of one f32, and a sum takes both products at once.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
use std::sync::LazyLock;

use candle_core::DType;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Whatever the target's baseline is.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same with operands of products in bf16, by AVX512-BF16: for weights of that type.
    Avx512Bf16,
}

/// The environment variable that asks for an instruction set.
pub const ISA_VARIABLE: &str = "NAT_INFER_ISA";

static BEST: LazyLock<Isa> = LazyLock::new(|| Isa::from_env().unwrap_or(Isa::widest(Isa::available())));

/// That [`ISA_VARIABLE`] asks for what this processor has not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ISA_VARIABLE}={asked}: possible on this processor are {}", possible.join(", "))]
pub struct IsaError {
    /// What it asks for.
    pub asked: String,
    /// What could be asked for.
    pub possible: Vec<&'static str>,
}

impl Isa {
    /// The widest instruction set of this processor that computes in f32, or a narrower one that the
    /// environment variable `NAT_INFER_ISA` asks for by its [name](Isa::name). What it can't have counts as
    /// nothing asked: [`Isa::from_env`] tells. Decided once.
    pub fn best() -> Self {
        *BEST
    }

    /// What the environment variable `NAT_INFER_ISA` asks for, or the widest instruction set where it is not
    /// set or empty.
    ///
    /// # Errors
    /// When it names none, or one that this processor lacks.
    pub fn from_env() -> Result<Self, IsaError> {
        match std::env::var_os(ISA_VARIABLE) {
            Some(name) => Self::asked(&name.to_string_lossy(), Self::available()),
            None => Ok(Self::widest(Self::available())),
        }
    }

    /// The one of `available` that `name` names.
    fn asked(name: &str, available: &[Self]) -> Result<Self, IsaError> {
        if name.is_empty() {
            return Ok(Self::widest(available));
        }
        let error = || IsaError {
            asked: name.to_owned(),
            possible: available.iter().map(|isa| isa.name()).collect(),
        };
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(error)
    }

    /// The last of `available`.
    fn widest(available: &[Self]) -> Self {
        available.last().copied().unwrap_or(Self::Portable)
    }

    /// Its name in lower case: `portable`, `avx2`, `avx512`, `avx512bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
        }
    }

    /// The instruction set for products with weights of type `dtype`: [`Isa::best`], unless they are
    /// bf16 and the processor multiplies that.
    pub fn for_weights(dtype: DType) -> Self {
        match Self::bf16() {
            Some(bf16) if dtype == DType::BF16 && Self::best() == Self::Avx512 => bf16,
            _ => Self::best(),
        }
    }

    /// [`Isa::Avx512Bf16`] where the processor has it.
    pub fn bf16() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if Self::available().contains(&Self::Avx512) && std::arch::is_x86_feature_detected!("avx512bf16") {
            return Some(Self::Avx512Bf16);
        }
        None
    }

    /// Every instruction set for f32 that this processor runs, narrowest first.
    pub fn available() -> &'static [Self] {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma");
            if avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
                return &[Self::Portable, Self::Avx2, Self::Avx512];
            }
            if avx2 {
                return &[Self::Portable, Self::Avx2];
            }
        }
        &[Self::Portable]
    }

    /// f32 lanes of this instruction set's vectors.
    pub fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 => Avx512::<false>::LANES,
            _ => 8,
        }
    }

    /// Words that `values` operands of a product take: [`Simd::WORD`] in each, the last one filled up.
    pub fn words(self, values: usize) -> usize {
        match self {
            Self::Avx512Bf16 => values.div_ceil(2),
            _ => values,
        }
    }

    /// Runs `kernel` compiled for this instruction set.
    ///
    /// # Panics
    /// When the processor lacks it: values come from the functions above.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        assert!(self <= *WIDEST, "{self:?} is not available on this processor");
        match self {
            // SAFETY: the assertion above is the proof of each instruction set.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => unsafe { run_avx512_bf16(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { run_avx2(kernel) },
            _ => kernel.run(Portable(())),
        }
    }
}

static WIDEST: LazyLock<Isa> = LazyLock::new(|| Isa::bf16().unwrap_or_else(|| Isa::widest(Isa::available())));

/// A computation that [`Isa::run`] compiles for each instruction set: its inputs are its fields.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// The computation. Implementations and everything generic that they call are
    /// `#[inline(always)]` and call no vector method from a closure, or they lose the instruction set:
    /// every operation becomes a function call.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn run_avx512_bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<true>(()))
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<false>(()))
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// Vectors of [`Simd::LANES`] f32 values. Loads and stores need no alignment.
pub trait Simd: Copy + Send + Sync + 'static {
    /// One vector.
    type V: Copy;
    /// The same instruction set with vectors of eight lanes.
    type Narrow: Simd;
    /// Values in a vector.
    const LANES: usize;
    /// Vectors that fit into the registers.
    const REGISTERS: usize;
    /// Values that a word of a product's operand holds: one f32, or two bf16.
    const WORD: usize = 1;

    /// The eight-lane form.
    fn narrow(self) -> Self::Narrow;
    /// Runs `kernel` in a function of its own: inlined at every call, a large one would multiply.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;
    /// Asks for the cache line of `p`, which need not be valid.
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint: it never faults.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast())
        };
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }
    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Reads LANES values.
    ///
    /// # Safety
    /// `p` is valid for reads of LANES values.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// Reads the first `n` values (n <= LANES), other lanes are 0.
    ///
    /// # Safety
    /// `p` is valid for reads of `n` values.
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V;
    /// Writes LANES values.
    ///
    /// # Safety
    /// `p` is valid for writes of LANES values.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Writes the first `n` values (n <= LANES).
    ///
    /// # Safety
    /// `p` is valid for writes of `n` values.
    unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize);
    /// a + b
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c, fused where the instruction set fuses.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger of each lane; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of each lane; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// 2^n for whole numbers n in -126..=127.
    fn exp2_whole(self, n: Self::V) -> Self::V;
    /// Writes the transpose of eight rows of `n` values: `to[c·stride + r] = rows[r][c]`.
    ///
    /// # Safety
    /// Each row is valid for reads of `n` values, and `to` for writes of eight values at every multiple
    /// of `stride` below `n`·`stride`.
    #[inline(always)]
    unsafe fn transpose(self, rows: [*const f32; 8], n: usize, to: *mut f32, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe { transpose_from(0, rows, n, to, stride) };
    }
    /// c + a · b, where each lane of a and b is a word of operands.
    #[inline(always)]
    fn dot(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.fma(a, b, c)
    }
    /// Writes the first `n` lanes (n <= LANES) as operands of a product, from the `at`-th of `words` on.
    ///
    /// # Safety
    /// `words` is valid for writes of that many operands.
    #[inline(always)]
    unsafe fn store_operands(self, words: *mut f32, at: usize, v: Self::V, n: usize) {
        // SAFETY: a word is a value; the rest is the caller's promise.
        unsafe { self.store_first(words.add(at), v, n) }
    }
    /// `Σ rows[r·stride + i] · (256·high[i] + low[i])` of four rows, modulo 2^32: fixed-point weights of more bits than
    /// the 16 that integer products are fast with.
    ///
    /// # Panics
    /// When `high` and `low` differ in length, that is no multiple of 16, or `rows` ends before the fourth row does.
    #[inline(always)]
    fn weighted_sums(self, rows: &[i16], stride: usize, high: &[i16], low: &[i16]) -> [i32; 4] {
        check_weights(rows, stride, high, low);
        std::array::from_fn(|r| {
            let products =
                rows[r * stride..].iter().zip(high).zip(low).map(|((&x, &high), &low)| {
                    i32::from(x).wrapping_mul(256 * i32::from(high) + i32::from(low))
                });
            products.fold(0, i32::wrapping_add)
        })
    }
    /// Sum of the lanes.
    fn reduce_sum(self, v: Self::V) -> f32;
    /// Largest of the lanes.
    fn reduce_max(self, v: Self::V) -> f32;

    /// e^x to 2 ulp on -87.3..=88; outside, its value at the nearer end. NaN stays NaN.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        // Adding 1.5 * 2^23 rounds to a whole number; the split of ln 2 keeps x - n ln 2 exact.
        const ROUND: f32 = 12_582_912.0;
        let x = self.max(self.splat(-87.3), self.min(self.splat(88.0), x));
        let n =
            self.sub(self.fma(x, self.splat(std::f32::consts::LOG2_E), self.splat(ROUND)), self.splat(ROUND));
        let r = self.fma(n, self.splat(-0.693_359_4), x);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        // Taylor's terms, the last three bent so that the error is even over |r| <= ln 2 / 2 (Cephes).
        let mut p = self.splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1, 1.0, 1.0] {
            p = self.fma(p, r, self.splat(c));
        }
        self.mul(p, self.exp2_whole(n))
    }

    /// GELU in its exact form, x Φ(x), to 1e-6 absolute.
    #[inline(always)]
    fn gelu(self, x: Self::V) -> Self::V {
        let half = self.mul(x, self.splat(0.5));
        self.fma(half, self.erf_half(x), half)
    }

    /// The derivative of [`Simd::gelu`], Φ(x) + x φ(x), to 1e-6 absolute.
    #[inline(always)]
    fn gelu_derivative(self, x: Self::V) -> Self::V {
        let half = self.splat(0.5);
        let normal = self.fma(half, self.erf_half(x), half);
        let density = self.exp(self.mul(self.mul(x, x), self.splat(-0.5)));
        self.fma(self.mul(x, self.splat(FRAC_2_SQRT_PI * FRAC_1_SQRT_2 / 2.0)), density, normal)
    }

    /// erf(x / √2), as a rational function of degrees 11 and 10, fitted to 1e-8 on |x / √2| <= 3.8, beyond
    /// which f32 has 1.
    #[inline(always)]
    fn erf_half(self, x: Self::V) -> Self::V {
        let limit = 3.8;
        let z = self.mul(x, self.splat(FRAC_1_SQRT_2));
        let z = self.max(self.min(z, self.splat(limit)), self.splat(-limit));
        let t = self.mul(z, z);
        let mut p = self.splat(2.132_134_1e-6);
        for c in [2.879_997_8e-4, 3.693_618_8e-3, 5.254_735_4e-2, 0.188_116_28, FRAC_2_SQRT_PI] {
            p = self.fma(p, t, self.splat(c));
        }
        let mut q = self.splat(3.909_789_3e-5);
        for c in [1.153_746_9e-3, 1.482_293_9e-2, 0.113_254_94, 0.500_045_96, 1.0] {
            q = self.fma(q, t, self.splat(c));
        }
        self.div(self.mul(z, p), q)
    }
}

/// [`Simd::transpose`] of the columns from `first` on, one value at a time.
#[inline(always)]
unsafe fn transpose_from(first: usize, rows: [*const f32; 8], n: usize, to: *mut f32, stride: usize) {
    for c in first..n {
        for (r, row) in rows.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *to.add(c * stride + r) = *row.add(c) };
        }
    }
}

/// Token of [`Isa::Portable`].
#[derive(Clone, Copy)]
pub struct Portable(());

impl Portable {
    #[inline(always)]
    fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
        std::array::from_fn(|i| f(a[i], b[i]))
    }
}

/// What [`Simd::weighted_sums`] asks of its operands.
#[inline(always)]
fn check_weights(rows: &[i16], stride: usize, high: &[i16], low: &[i16]) {
    let n = high.len();
    assert!(
        low.len() == n && n.is_multiple_of(16) && 3 * stride + n <= rows.len(),
        "weights do not fit their rows"
    );
}

impl Simd for Portable {
    type V = [f32; 8];
    type Narrow = Self;
    const LANES: usize = 8;
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn narrow(self) -> Self {
        self
    }
    #[inline(never)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; 8] {
        // SAFETY: the caller's promise; unaligned reads are allowed for.
        unsafe { p.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> [f32; 8] {
        // SAFETY: only the first `n` values are touched.
        std::array::from_fn(|i| if i < n { unsafe { *p.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: [f32; 8]) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: [f32; 8], n: usize) {
        for (i, x) in v.into_iter().enumerate().take(n) {
            // SAFETY: only the first `n` values are touched.
            unsafe { *p.add(i) = x };
        }
    }
    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        Self::zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        Self::zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        Self::zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        Self::zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn max(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        Self::zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        Self::zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn exp2_whole(self, n: [f32; 8]) -> [f32; 8] {
        n.map(|n| f32::from_bits(((n as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    fn reduce_sum(self, v: [f32; 8]) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
    #[inline(always)]
    fn reduce_max(self, v: [f32; 8]) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests {
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
            for (n, stride) in [(1, 8), (8, 8), (32, 16), (37, 11)] {
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
        }
    }

    #[test]
    fn an_instruction_set_is_asked_for_by_its_name() {
        let all = [Isa::Portable, Isa::Avx2, Isa::Avx512];
        for (name, available, isa) in [
            ("portable", &all[..], Some(Isa::Portable)),
            ("avx2", &all, Some(Isa::Avx2)),
            ("avx512", &all, Some(Isa::Avx512)),
            ("", &all, Some(Isa::Avx512)),
            ("", &all[..1], Some(Isa::Portable)),
            ("avx512", &all[..2], None),
            ("avx2", &all[..1], None),
            ("AVX2", &all, None),
            ("typo", &all, None),
        ] {
            assert_eq!(Isa::asked(name, available).ok(), isa, "{name} of {available:?}");
        }
        let error = Isa::asked("typo", &all[..2]).unwrap_err().to_string();
        assert_eq!(error, "NAT_INFER_ISA=typo: possible on this processor are portable, avx2");
    }
}
