//! AVX2 and AVX-512: each method is a few instructions; holding the token is the proof that they exist.

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::transmute;

use half::bf16;

use super::vector::{KernelFor, Simd, check_weights, transpose_from, words_are_values};
use super::word::{Pair, Word};

/// Token of [`Isa::Avx2`](super::Isa::Avx2).
#[derive(Clone, Copy)]
pub struct Avx2(());

/// Token of [`Isa::Avx512`](super::Isa::Avx512), and with [`Pair`]s of
/// [`Isa::Avx512Bf16`](super::Isa::Avx512Bf16).
#[derive(Clone, Copy)]
pub struct Avx512<W>(PhantomData<W>);

/// Runs `kernel` compiled for AVX-512 with AVX512-BF16.
#[inline(never)]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) fn run_avx512_bf16<K: KernelFor<Avx512<Pair>>>(kernel: K) -> K::Output {
    kernel.run(Avx512(PhantomData))
}

/// Runs `kernel` compiled for AVX-512.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) fn run_avx512<K: KernelFor<Avx512<f32>>>(kernel: K) -> K::Output {
    kernel.run(Avx512(PhantomData))
}

/// Runs `kernel` compiled for AVX2 with FMA.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
pub(super) fn run_avx2<K: KernelFor<Avx2>>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// Eight lanes from the `8 - n`-th on are the mask of the first `n` for `vmaskmov`.
static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

impl Avx2 {
    #[inline(always)]
    fn first(self, n: usize) -> __m256i {
        debug_assert!(n <= 8);
        // SAFETY: 8 - n .. 16 - n lies inside the table; the token proves AVX2.
        unsafe { _mm256_loadu_si256(FIRST.as_ptr().add(8 - n).cast()) }
    }
}

/// [`Simd::in_order`].
#[inline]
#[target_feature(enable = "avx2")]
fn in_order_256(mut v: __m256) -> __m256 {
    // SAFETY: a comment alone, which the compiler has to believe reads memory.
    unsafe { asm!("/* {0} */", inout(ymm_reg) v, options(nostack, preserves_flags)) };
    v
}

/// [`Simd::in_order`].
#[inline]
#[target_feature(enable = "avx512f")]
fn in_order_512(mut v: __m512) -> __m512 {
    // SAFETY: a comment alone, which the compiler has to believe reads memory.
    unsafe { asm!("/* {0} */", inout(zmm_reg) v, options(nostack, preserves_flags)) };
    v
}

/// Safe wrappers of arithmetic intrinsics.
macro_rules! arithmetic {
    ($v:ty, $($name:ident($($arg:ident),*) = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $v),*) -> $v {
            // SAFETY: the token proves the instruction set.
            unsafe { $intrinsic($($arg),*) }
        }
    )*};
}

impl Simd for Avx2 {
    type V = __m256;
    type Narrow = Self;
    type Word = f32;
    type Words = __m256;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    words_are_values! { __m256 }
    arithmetic! { __m256,
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        fma(a, b, c) = _mm256_fmadd_ps;
        max(a, b) = _mm256_max_ps;
        min(a, b) = _mm256_min_ps;
    }
    #[inline(always)]
    fn narrow(self) -> Self {
        self
    }
    #[inline(always)]
    fn call<K: KernelFor<Self>>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves AVX2.
        unsafe { run_avx2(kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: the caller's promise on `p`.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m256 {
        // SAFETY: masked lanes are not read.
        unsafe { if n == Self::LANES { self.load(p) } else { _mm256_maskload_ps(p, self.first(n)) } }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: the caller's promise on `p`.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: __m256, n: usize) {
        // SAFETY: masked lanes are not written.
        unsafe { if n == Self::LANES { self.store(p, v) } else { _mm256_maskstore_ps(p, self.first(n), v) } }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> __m256 {
        // SAFETY: the caller's promise on `p`; a bf16 is the upper half of its f32.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    fn in_order(self, v: __m256) -> __m256 {
        // SAFETY: the token proves the instruction set.
        unsafe { in_order_256(v) }
    }
    #[inline(always)]
    fn exp2_whole(self, n: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, rows: [*const f32; 8], n: usize, to: *mut f32, stride: usize) {
        let whole = n - n % 8;
        for c in (0..whole).step_by(8) {
            // SAFETY: the caller's promise; the token proves AVX2.
            unsafe {
                // Rows r and r + 4 of four columns share a register: no lane is crossed later.
                let mut low = [_mm256_setzero_ps(); 4];
                let mut high = low;
                for r in 0..4 {
                    let (a, b) = (rows[r].add(c), rows[r + 4].add(c));
                    low[r] = _mm256_loadu2_m128(b, a);
                    high[r] = _mm256_loadu2_m128(b.add(4), a.add(4));
                }
                for (half, x) in [low, high].into_iter().enumerate() {
                    let to = to.add((c + 4 * half) * stride);
                    let (a, b) = (_mm256_unpacklo_ps(x[0], x[1]), _mm256_unpacklo_ps(x[2], x[3]));
                    _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(a, b));
                    _mm256_storeu_ps(to.add(stride), _mm256_shuffle_ps::<0xee>(a, b));
                    let (a, b) = (_mm256_unpackhi_ps(x[0], x[1]), _mm256_unpackhi_ps(x[2], x[3]));
                    _mm256_storeu_ps(to.add(2 * stride), _mm256_shuffle_ps::<0x44>(a, b));
                    _mm256_storeu_ps(to.add(3 * stride), _mm256_shuffle_ps::<0xee>(a, b));
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { transpose_from(whole, rows, n, to, stride) };
    }
    #[inline(always)]
    fn weighted_sums(self, rows: &[i16], stride: usize, high: &[i16], low: &[i16]) -> [i32; 4] {
        check_weights(rows, stride, high, low);
        // SAFETY: the token proves AVX2; every load ends where its row's last weight does, which was checked.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); 2]; 4];
            for i in (0..high.len()).step_by(16) {
                let weights = [high, low].map(|part| _mm256_loadu_si256(part.as_ptr().add(i).cast()));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_loadu_si256(rows.as_ptr().add(r * stride + i).cast());
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, weights));
                    }
                }
            }
            let [a, b, c, d] = sums.map(|[high, low]| _mm256_add_epi32(_mm256_slli_epi32::<8>(high), low));
            let all = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
            transmute(_mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all)))
        }
    }
    #[inline(always)]
    fn reduce_sum(self, v: __m256) -> f32 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let h = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let h = _mm_add_ps(h, _mm_movehl_ps(h, h));
            _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)))
        }
    }
    #[inline(always)]
    fn reduce_max(self, v: __m256) -> f32 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let h = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let h = _mm_max_ps(h, _mm_movehl_ps(h, h));
            _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)))
        }
    }
}

/// What AVX-512 multiplies: words of f32, or with AVX512-BF16 of bf16.
pub trait Operand512: Word {
    /// Sixteen of them.
    type Vector: Copy;

    /// Runs `kernel` in a function of its own.
    fn call<K: KernelFor<Avx512<Self>>>(token: Avx512<Self>, kernel: K) -> K::Output;
    /// All lanes `self`.
    fn splat(self, token: Avx512<Self>) -> Self::Vector;
    /// Reads sixteen words.
    ///
    /// # Safety
    /// `p` is valid for reads of them.
    unsafe fn load(token: Avx512<Self>, p: *const Self) -> Self::Vector;
    /// c + a · b
    fn dot(token: Avx512<Self>, a: Self::Vector, b: Self::Vector, c: __m512) -> __m512;
    /// Writes the first `n` lanes as operands, from the `at`-th value of `words` on.
    ///
    /// # Safety
    /// `words` is valid for writes of that many operands.
    unsafe fn store(token: Avx512<Self>, words: *mut Self, at: usize, v: __m512, n: usize);
}

impl Operand512 for f32 {
    type Vector = __m512;

    #[inline(always)]
    fn call<K: KernelFor<Avx512<f32>>>(_: Avx512<f32>, kernel: K) -> K::Output {
        // SAFETY: the token proves AVX-512.
        unsafe { run_avx512(kernel) }
    }
    #[inline(always)]
    fn splat(self, token: Avx512<f32>) -> __m512 {
        Simd::splat(token, self)
    }
    #[inline(always)]
    unsafe fn load(token: Avx512<f32>, p: *const f32) -> __m512 {
        // SAFETY: the caller's promise on `p`.
        unsafe { Simd::load(token, p) }
    }
    #[inline(always)]
    fn dot(token: Avx512<f32>, a: __m512, b: __m512, c: __m512) -> __m512 {
        token.fma(a, b, c)
    }
    #[inline(always)]
    unsafe fn store(token: Avx512<f32>, words: *mut f32, at: usize, v: __m512, n: usize) {
        // SAFETY: a word is a value; the rest is the caller's promise.
        unsafe { token.store_first(words.add(at), v, n) }
    }
}

impl Operand512 for Pair {
    type Vector = __m512bh;

    #[inline(always)]
    fn call<K: KernelFor<Avx512<Pair>>>(_: Avx512<Pair>, kernel: K) -> K::Output {
        // SAFETY: the token proves AVX-512 and AVX512-BF16.
        unsafe { run_avx512_bf16(kernel) }
    }
    #[inline(always)]
    fn splat(self, _: Avx512<Pair>) -> __m512bh {
        // SAFETY: the token proves AVX-512; a pair is any 32 bits, and the vectors are any 512.
        unsafe { transmute(_mm512_set1_epi32(transmute::<Pair, i32>(self))) }
    }
    #[inline(always)]
    unsafe fn load(_: Avx512<Pair>, p: *const Pair) -> __m512bh {
        // SAFETY: the caller's promise on `p`; the vectors are any 512 bits.
        unsafe { transmute(_mm512_loadu_si512(p.cast())) }
    }
    #[inline(always)]
    fn dot(_: Avx512<Pair>, a: __m512bh, b: __m512bh, c: __m512) -> __m512 {
        // SAFETY: the token proves AVX512-BF16.
        unsafe { _mm512_dpbf16_ps(c, a, b) }
    }
    #[inline(always)]
    unsafe fn store(_: Avx512<Pair>, words: *mut Pair, at: usize, v: __m512, n: usize) {
        debug_assert!(n <= 16);
        // SAFETY: the token proves AVX512-BF16; masked lanes are not written.
        unsafe {
            let rounded = transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
            let to = words.cast::<i16>().add(at);
            if n == 16 {
                _mm256_storeu_si256(to.cast(), rounded);
            } else {
                _mm256_mask_storeu_epi16(to, ((1u32 << n) - 1) as u16, rounded);
            }
        }
    }
}

impl<W: Operand512> Simd for Avx512<W> {
    type V = __m512;
    type Narrow = Avx2;
    type Word = W;
    type Words = W::Vector;
    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    arithmetic! { __m512,
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        fma(a, b, c) = _mm512_fmadd_ps;
        max(a, b) = _mm512_max_ps;
        min(a, b) = _mm512_min_ps;
    }
    #[inline(always)]
    fn narrow(self) -> Avx2 {
        Avx2(())
    }
    #[inline(always)]
    fn call<K: KernelFor<Self>>(self, kernel: K) -> K::Output {
        W::call(self, kernel)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller's promise on `p`.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m512 {
        debug_assert!(n <= 16);
        // SAFETY: masked lanes are not read.
        unsafe {
            if n == Self::LANES { self.load(p) } else { _mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, p) }
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: the caller's promise on `p`.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: __m512, n: usize) {
        debug_assert!(n <= 16);
        // SAFETY: masked lanes are not written.
        unsafe {
            if n == Self::LANES {
                self.store(p, v);
            } else {
                _mm512_mask_storeu_ps(p, ((1u32 << n) - 1) as u16, v);
            }
        }
    }
    #[inline(always)]
    fn splat_word(self, word: W) -> W::Vector {
        word.splat(self)
    }
    #[inline(always)]
    unsafe fn load_words(self, p: *const W) -> W::Vector {
        // SAFETY: the caller's promise on `p`.
        unsafe { W::load(self, p) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> __m512 {
        // SAFETY: the caller's promise on `p`; a bf16 is the upper half of its f32.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    fn dot(self, a: W::Vector, b: W::Vector, c: __m512) -> __m512 {
        W::dot(self, a, b, c)
    }
    #[inline(always)]
    fn in_order(self, v: __m512) -> __m512 {
        // SAFETY: the token proves the instruction set.
        unsafe { in_order_512(v) }
    }
    #[inline(always)]
    unsafe fn store_operands(self, words: *mut W, at: usize, v: __m512, n: usize) {
        // SAFETY: the caller's promise on `words`.
        unsafe { W::store(self, words, at, v, n) }
    }
    #[inline(always)]
    fn exp2_whole(self, n: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
    }
    #[inline(always)]
    unsafe fn transpose(self, rows: [*const f32; 8], n: usize, to: *mut f32, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe { Avx2(()).transpose(rows, n, to, stride) };
    }
    #[inline(always)]
    fn weighted_sums(self, rows: &[i16], stride: usize, high: &[i16], low: &[i16]) -> [i32; 4] {
        check_weights(rows, stride, high, low);
        // SAFETY: the token proves AVX-512; every load ends where its row's last weight does, which was checked.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); 2]; 4];
            for i in (0..high.len()).step_by(32) {
                let mask = if high.len() - i < 32 { 0xFFFF } else { 0xFFFF_FFFF };
                let load = |p: *const i16| _mm512_maskz_loadu_epi16(mask, p.add(i));
                let weights = [high, low].map(|part| load(part.as_ptr()));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = load(rows.as_ptr().add(r * stride));
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(x, weights));
                    }
                }
            }
            let [a, b, c, d] = sums.map(|[high, low]| _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low));
            // Two rows' lanes are added pair by pair until each lane of a quarter is a row's.
            let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
            transmute(_mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half)))
        }
    }
    #[inline(always)]
    fn reduce_sum(self, v: __m512) -> f32 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_reduce_add_ps(v) }
    }
    #[inline(always)]
    fn reduce_max(self, v: __m512) -> f32 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_reduce_max_ps(v) }
    }
}
