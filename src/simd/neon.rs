//! NEON, the vectors that every aarch64 processor has: two registers of four lanes are one vector of eight.

use std::arch::aarch64::*;

use super::vector::{KernelFor, Simd, check_weights, transpose_from, words_are_values};

/// Token of [`Isa::Neon`](super::Isa::Neon).
#[derive(Clone, Copy)]
pub struct Neon(());

/// Lanes 0..4 and 4..8.
type Lanes = [float32x4_t; 2];

/// Runs `kernel` compiled for NEON.
#[inline(never)]
#[target_feature(enable = "neon")]
pub(super) fn run_neon<K: KernelFor<Neon>>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

/// The same intrinsic on both halves of every operand.
macro_rules! arithmetic {
    ($($name:ident($($arg:ident),*) = $intrinsic:ident($($operand:ident),*);)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Lanes),*) -> Lanes {
            // SAFETY: the token proves NEON.
            unsafe { [$intrinsic($($operand[0]),*), $intrinsic($($operand[1]),*)] }
        }
    )*};
}

impl Neon {
    /// `a` where `chosen` has all bits set, else `b`. NEON's own maximum is NaN where either operand is.
    #[inline(always)]
    fn select(self, chosen: [uint32x4_t; 2], a: Lanes, b: Lanes) -> Lanes {
        // SAFETY: the token proves NEON.
        unsafe { [vbslq_f32(chosen[0], a[0], b[0]), vbslq_f32(chosen[1], a[1], b[1])] }
    }

    /// Reads the first `n` values (n <= 4), other lanes are 0.
    ///
    /// # Safety
    /// `p` is valid for reads of `n` values.
    #[inline(always)]
    unsafe fn load_half(self, p: *const f32, n: usize) -> float32x4_t {
        debug_assert!(n <= 4);
        // SAFETY: only the first `n` values are read; the token proves NEON.
        unsafe {
            let zero = vdup_n_f32(0.0);
            match n {
                0 => vcombine_f32(zero, zero),
                1 => vcombine_f32(vld1_lane_f32::<0>(p, zero), zero),
                2 => vcombine_f32(vld1_f32(p), zero),
                3 => vcombine_f32(vld1_f32(p), vld1_lane_f32::<0>(p.add(2), zero)),
                _ => vld1q_f32(p),
            }
        }
    }

    /// Writes the first `n` values (n <= 4).
    ///
    /// # Safety
    /// `p` is valid for writes of `n` values.
    #[inline(always)]
    unsafe fn store_half(self, p: *mut f32, v: float32x4_t, n: usize) {
        debug_assert!(n <= 4);
        // SAFETY: only the first `n` values are written; the token proves NEON.
        unsafe {
            match n {
                0 => {}
                1 => vst1q_lane_f32::<0>(p, v),
                2 => vst1_f32(p, vget_low_f32(v)),
                3 => {
                    vst1_f32(p, vget_low_f32(v));
                    vst1q_lane_f32::<2>(p.add(2), v);
                }
                _ => vst1q_f32(p, v),
            }
        }
    }
}

impl Simd for Neon {
    type V = Lanes;
    type Narrow = Self;
    type Word = f32;
    type Words = Lanes;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    words_are_values! { Lanes }
    arithmetic! {
        add(a, b) = vaddq_f32(a, b);
        sub(a, b) = vsubq_f32(a, b);
        mul(a, b) = vmulq_f32(a, b);
        div(a, b) = vdivq_f32(a, b);
        fma(a, b, c) = vfmaq_f32(c, a, b);
    }
    #[inline(always)]
    fn narrow(self) -> Self {
        self
    }
    #[inline(always)]
    fn call<K: KernelFor<Self>>(self, kernel: K) -> K::Output {
        // SAFETY: the token proves NEON.
        unsafe { run_neon(kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Lanes {
        // SAFETY: the token proves NEON.
        unsafe { [vdupq_n_f32(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Lanes {
        // SAFETY: the caller's promise on `p`; the token proves NEON.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Lanes {
        let low = n.min(4);
        // SAFETY: the caller's promise on `p`: the halves read `n` values together, and none lies behind them.
        unsafe { [self.load_half(p, low), self.load_half(p.add(low), n - low)] }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Lanes) {
        // SAFETY: the caller's promise on `p`; the token proves NEON.
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: Lanes, n: usize) {
        let low = n.min(4);
        // SAFETY: the caller's promise on `p`: the halves write `n` values together.
        unsafe {
            self.store_half(p, v[0], low);
            self.store_half(p.add(low), v[1], n - low);
        }
    }
    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        // SAFETY: the token proves NEON.
        let larger = unsafe { [vcgtq_f32(a[0], b[0]), vcgtq_f32(a[1], b[1])] };
        self.select(larger, a, b)
    }
    #[inline(always)]
    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        // SAFETY: the token proves NEON.
        let smaller = unsafe { [vcltq_f32(a[0], b[0]), vcltq_f32(a[1], b[1])] };
        self.select(smaller, a, b)
    }
    #[inline(always)]
    fn exp2_whole(self, n: Lanes) -> Lanes {
        // SAFETY: the token proves NEON.
        unsafe {
            let bias = vdupq_n_s32(127);
            let biased = [vaddq_s32(vcvtnq_s32_f32(n[0]), bias), vaddq_s32(vcvtnq_s32_f32(n[1]), bias)];
            [
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased[0])),
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased[1])),
            ]
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, rows: [*const f32; 8], n: usize, to: *mut f32, stride: usize) {
        let whole = n - n % 4;
        for c in (0..whole).step_by(4) {
            for half in [0, 4] {
                // SAFETY: the caller's promise; the token proves NEON.
                unsafe {
                    let mut x = [vdupq_n_f32(0.0); 4];
                    for (r, x) in x.iter_mut().enumerate() {
                        *x = vld1q_f32(rows[half + r].add(c));
                    }
                    // Columns 0 and 2 of two rows, then 1 and 3; as pairs, of four.
                    let (a, b) = (vtrn1q_f32(x[0], x[1]), vtrn1q_f32(x[2], x[3]));
                    let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
                    let even = [vtrn1q_f64(a, b), vtrn2q_f64(a, b)];
                    let (a, b) = (vtrn2q_f32(x[0], x[1]), vtrn2q_f32(x[2], x[3]));
                    let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
                    let odd = [vtrn1q_f64(a, b), vtrn2q_f64(a, b)];
                    let to = to.add(c * stride + half);
                    vst1q_f32(to, vreinterpretq_f32_f64(even[0]));
                    vst1q_f32(to.add(stride), vreinterpretq_f32_f64(odd[0]));
                    vst1q_f32(to.add(2 * stride), vreinterpretq_f32_f64(even[1]));
                    vst1q_f32(to.add(3 * stride), vreinterpretq_f32_f64(odd[1]));
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { transpose_from(whole, rows, n, to, stride) };
    }
    #[inline(always)]
    fn weighted_sums(self, rows: &[i16], stride: usize, high: &[i16], low: &[i16]) -> [i32; 4] {
        check_weights(rows, stride, high, low);
        // SAFETY: the token proves NEON; every load ends where its row's last weight does or before, which was checked.
        unsafe {
            let mut sums = [[vdupq_n_s32(0); 2]; 4];
            for i in (0..high.len()).step_by(8) {
                let weights = [vld1q_s16(high.as_ptr().add(i)), vld1q_s16(low.as_ptr().add(i))];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = vld1q_s16(rows.as_ptr().add(r * stride + i));
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = vmlal_s16(*sum, vget_low_s16(x), vget_low_s16(weights));
                        *sum = vmlal_high_s16(*sum, x, weights);
                    }
                }
            }
            sums.map(|[high, low]| vaddvq_s32(vaddq_s32(vshlq_n_s32::<8>(high), low)))
        }
    }
    #[inline(always)]
    fn reduce_sum(self, v: Lanes) -> f32 {
        // SAFETY: the token proves NEON.
        unsafe {
            let h = vaddq_f32(v[0], v[1]);
            vpadds_f32(vadd_f32(vget_low_f32(h), vget_high_f32(h)))
        }
    }
    #[inline(always)]
    fn reduce_max(self, v: Lanes) -> f32 {
        // SAFETY: the token proves NEON.
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(v[0], v[1])) }
    }
}
