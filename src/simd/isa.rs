//! Which instruction sets there are, which of them this processor has, and how a kernel is run with one.

use std::sync::LazyLock;

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable::Portable;
use super::vector::Kernel;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Whatever the target's baseline is.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same with operands of products in bf16, by AVX512-BF16: for weights of that type.
    Avx512Bf16,
    /// NEON, of aarch64.
    Neon,
}

/// A set of what a processor can do beyond what the portable form asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u32);

impl Capabilities {
    /// Nothing beyond.
    pub const NONE: Self = Self(0);
    /// AVX2 and FMA.
    pub const AVX2_FMA: Self = Self(1);
    /// AVX-512 F, BW, DQ and VL.
    pub const AVX512: Self = Self(1 << 1);
    /// AVX512-BF16.
    pub const AVX512_BF16: Self = Self(1 << 2);
    /// NEON, which aarch64 has and no other architecture.
    pub const NEON: Self = Self(1 << 3);

    /// Those of this processor.
    pub fn here() -> Self {
        static HERE: LazyLock<Capabilities> = LazyLock::new(|| {
            #[cfg(target_arch = "x86_64")]
            let found = {
                use std::arch::is_x86_feature_detected as has;
                let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
                [
                    (Capabilities::AVX2_FMA, has!("avx2") && has!("fma")),
                    (Capabilities::AVX512, avx512),
                    (Capabilities::AVX512_BF16, has!("avx512bf16")),
                ]
            };
            #[cfg(target_arch = "aarch64")]
            let found = [(Capabilities::NEON, std::arch::is_aarch64_feature_detected!("neon"))];
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let found: [(Capabilities, bool); 0] = [];
            found.into_iter().filter(|(_, has)| *has).fold(Capabilities::NONE, |all, (one, _)| all.and(one))
        });
        *HERE
    }

    /// Those of either set.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among them.
    pub const fn contain(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What is known of an instruction set.
struct IsaRow {
    isa: Isa,
    name: &'static str,
    needs: Capabilities,
    /// f32 lanes of a vector.
    lanes: usize,
    /// Values in a word of a product's operands.
    word: usize,
    /// Where words are not f32: the one whose vectors it has.
    wide: Option<Isa>,
}

const AVX512: Capabilities = Capabilities::AVX2_FMA.and(Capabilities::AVX512);

/// Every instruction set; of those that a processor has, the last one is preferred.
const ROWS: [IsaRow; 5] = [
    IsaRow { isa: Isa::Portable, name: "portable", needs: Capabilities::NONE, lanes: 8, word: 1, wide: None },
    IsaRow { isa: Isa::Avx2, name: "avx2", needs: Capabilities::AVX2_FMA, lanes: 8, word: 1, wide: None },
    IsaRow { isa: Isa::Avx512, name: "avx512", needs: AVX512, lanes: 16, word: 1, wide: None },
    IsaRow {
        isa: Isa::Avx512Bf16,
        name: "avx512bf16",
        needs: AVX512.and(Capabilities::AVX512_BF16),
        lanes: 16,
        word: 2,
        wide: Some(Isa::Avx512),
    },
    IsaRow { isa: Isa::Neon, name: "neon", needs: Capabilities::NEON, lanes: 8, word: 1, wide: None },
];

static AVAILABLE: LazyLock<Vec<Isa>> =
    LazyLock::new(|| Isa::all_available().filter(|isa| isa.row().wide.is_none()).collect());

impl Isa {
    fn row(self) -> &'static IsaRow {
        // Every one has a row, which the tests hold; the first is right everywhere.
        ROWS.iter().find(|row| row.isa == self).unwrap_or(&ROWS[0])
    }

    /// Its name in lower case: `portable`, `avx2`, `avx512`, `avx512bf16`, `neon`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What a processor must be able to do to run it.
    pub fn needs(self) -> Capabilities {
        self.row().needs
    }

    /// Of an instruction set whose products take bf16 the one with the same vectors whose products take f32.
    pub fn wide(self) -> Option<Self> {
        self.row().wide
    }

    /// Of those for f32 that this processor runs the last one.
    pub(super) fn preferred() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    /// Every instruction set for f32 that this processor runs, the preferred one last.
    pub fn available() -> &'static [Self] {
        &AVAILABLE
    }

    /// Every instruction set that this processor runs, those included whose products take bf16.
    pub fn all_available() -> impl Iterator<Item = Self> {
        ROWS.iter().filter(|row| Capabilities::here().contain(row.needs)).map(|row| row.isa)
    }

    /// Every instruction set that there are kernels for, whether this processor has it or not.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.isa)
    }

    /// f32 lanes of this instruction set's vectors.
    pub(crate) fn lanes(self) -> usize {
        self.row().lanes
    }

    /// Words that `values` operands of a product take, the last one filled up.
    pub(crate) fn words(self, values: usize) -> usize {
        values.div_ceil(self.row().word)
    }

    /// Runs `kernel` compiled for this instruction set.
    ///
    /// # Panics
    /// When the processor lacks it: values come from the functions above.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        assert!(Capabilities::here().contain(self.needs()), "{self:?} is not available on this processor");
        match self {
            // SAFETY: the assertion above is the proof of each instruction set.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => unsafe { x86::run_avx512_bf16(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => unsafe { neon::run_neon(kernel) },
            _ => kernel.run(Portable::new()),
        }
    }
}
