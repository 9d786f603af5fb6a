//! What kernels are written against.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use half::bf16;

use super::word::Word;

/// A computation that [`Isa::run`](super::Isa::run) compiles for each instruction set: its inputs are its fields.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// The computation. Implementations and everything generic that they call are
    /// `#[inline(always)]` and call no vector method from a closure, or they lose the instruction set:
    /// every operation becomes a function call.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// A [`Kernel`], or what is one with the vectors and words of one instruction set alone.
pub trait KernelFor<S: Simd> {
    /// What it returns.
    type Output;
    /// The computation, as [`Kernel::run`].
    fn run(self, s: S) -> Self::Output;
}

impl<S: Simd, K: Kernel> KernelFor<S> for K {
    type Output = K::Output;

    #[inline(always)]
    fn run(self, s: S) -> K::Output {
        Kernel::run(self, s)
    }
}

/// Vectors of [`Simd::LANES`] f32 values. Loads and stores need no alignment.
pub trait Simd: Copy + Send + Sync + 'static {
    /// One vector.
    type V: Copy;
    /// The same instruction set with vectors of eight lanes.
    type Narrow: Simd;
    /// What the operands of [`Simd::dot`] come in.
    type Word: Word;
    /// One vector of words.
    type Words: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// Vectors that fit into the registers.
    const REGISTERS: usize;

    /// The eight-lane form.
    fn narrow(self) -> Self::Narrow;
    /// Runs `kernel` in a function of its own: inlined at every call, a large one would multiply.
    fn call<K: KernelFor<Self>>(self, kernel: K) -> K::Output;
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
    /// Asks for the cache line of `p`, which need not be valid, to be in the second cache soon.
    #[inline(always)]
    fn prefetch_second(self, p: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint: it never faults.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast())
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
    /// All lanes `word`.
    fn splat_word(self, word: Self::Word) -> Self::Words;
    /// Reads LANES words.
    ///
    /// # Safety
    /// `p` is valid for reads of LANES words.
    unsafe fn load_words(self, p: *const Self::Word) -> Self::Words;
    /// Reads LANES values of bf16.
    ///
    /// # Safety
    /// `p` is valid for reads of LANES values.
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V {
        const { assert!(Self::LANES <= 16) };
        let mut values = [0f32; 16];
        for (lane, value) in values.iter_mut().enumerate().take(Self::LANES) {
            // SAFETY: the caller's promise.
            *value = unsafe { *p.add(lane) }.to_f32();
        }
        // SAFETY: there are at least LANES values.
        unsafe { self.load(values.as_ptr()) }
    }
    /// c + a · b, of which each lane is the sum of its word's products.
    fn dot(self, a: Self::Words, b: Self::Words, c: Self::V) -> Self::V;
    /// The vector as it is, before anything that follows is read from memory: compilers reorder.
    #[inline(always)]
    fn in_order(self, v: Self::V) -> Self::V {
        v
    }
    /// Writes the first `n` lanes (n <= LANES) as operands of a product, from the `at`-th value of `words` on.
    ///
    /// # Safety
    /// `words` is valid for writes of that many operands.
    unsafe fn store_operands(self, words: *mut Self::Word, at: usize, v: Self::V, n: usize);
    /// `Σ rows[r·stride + i] · (256·high[i] + low[i])` of four rows, modulo 2^32: fixed-point weights of more bits than
    /// the 16 that integer products are fast with.
    ///
    /// # Panics
    /// When `high` and `low` differ in length, that is no multiple of 16, or `rows` ends before the fourth row does.
    #[inline(always)]
    #[cfg_attr(not(feature = "images"), allow(dead_code, reason = "resizing uses it"))]
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

/// What [`Simd`] asks of words where they are f32: vectors `$v` of them are vectors of values.
macro_rules! words_are_values {
    ($v:ty) => {
        #[inline(always)]
        fn splat_word(self, word: f32) -> $v {
            self.splat(word)
        }
        #[inline(always)]
        unsafe fn load_words(self, p: *const f32) -> $v {
            // SAFETY: the caller's promise on `p`.
            unsafe { self.load(p) }
        }
        #[inline(always)]
        fn dot(self, a: $v, b: $v, c: $v) -> $v {
            self.fma(a, b, c)
        }
        #[inline(always)]
        unsafe fn store_operands(self, words: *mut f32, at: usize, v: $v, n: usize) {
            // SAFETY: a word is a value; the rest is the caller's promise.
            unsafe { self.store_first(words.add(at), v, n) }
        }
    };
}
pub(super) use words_are_values;

/// [`Simd::transpose`] of the columns from `first` on, one value at a time.
#[inline(always)]
pub(super) unsafe fn transpose_from(
    first: usize,
    rows: [*const f32; 8],
    n: usize,
    to: *mut f32,
    stride: usize,
) {
    for c in first..n {
        for (r, row) in rows.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *to.add(c * stride + r) = *row.add(c) };
        }
    }
}

/// What [`Simd::weighted_sums`] asks of its operands.
#[inline(always)]
#[cfg_attr(not(feature = "images"), allow(dead_code, reason = "resizing uses it"))]
pub(super) fn check_weights(rows: &[i16], stride: usize, high: &[i16], low: &[i16]) {
    let n = high.len();
    assert!(
        low.len() == n && n.is_multiple_of(16) && 3 * stride + n <= rows.len(),
        "weights do not fit their rows"
    );
}
