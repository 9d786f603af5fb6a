//! Which instruction sets a process computes with, and why.

use std::fmt;
use std::sync::LazyLock;

use super::isa::Isa;
use super::rate::of_one_core;

/// The environment variable that asks for an instruction set.
pub const ISA_VARIABLE: &str = "NAT_INFER_ISA";

/// That [`ISA_VARIABLE`] asks for what this processor has not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ISA_VARIABLE}={asked}: possible on this processor are {}", possible.join(", "))]
pub struct IsaError {
    /// What it asks for.
    pub asked: String,
    /// What could be asked for.
    pub possible: Vec<&'static str>,
}

/// An instruction set that a process computes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IsaChoice {
    /// Which.
    pub isa: Isa,
    /// Why this one.
    pub why: IsaReason,
}

/// Why an instruction set computes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum IsaReason {
    /// Of those that the processor has it is the preferred one.
    Preferred,
    /// [`ISA_VARIABLE`] asks for this one: for it, or for the one whose products take bf16 and that has the same vectors.
    Asked(Isa),
    /// Products of bf16 were measured against those of f32. Multiply-adds of registers on one core, in GFLOP/s.
    Measured {
        /// Of the instruction set whose products take bf16.
        bf16: f64,
        /// Of the one whose products take f32.
        f32: f64,
    },
}

impl IsaReason {
    /// How many times as fast products of bf16 have to be. Processors have half the rate, the same or twice that, and
    /// measurements err.
    const CLEARLY_FASTER: f64 = 1.4;

    /// Whether products of bf16 were found to be faster.
    pub fn bf16_is_faster(self) -> bool {
        matches!(self, Self::Measured { bf16, f32 } if bf16 > Self::CLEARLY_FASTER * f32)
    }
}

impl fmt::Display for IsaReason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Preferred => f.write_str("the preferred one of this processor"),
            Self::Asked(isa) => write!(f, "{ISA_VARIABLE} asks for {}", isa.name()),
            Self::Measured { bf16, f32 } => {
                let are = if self.bf16_is_faster() { "faster" } else { "no faster" };
                write!(f, "bf16 products are {are} here ({bf16:.0} against {f32:.0} GFLOP/s a core)")
            }
        }
    }
}

/// What the variable asks for, where this processor has it.
static ASKED: LazyLock<Option<Isa>> = LazyLock::new(|| asked_by_env().unwrap_or_default());

static F32: LazyLock<IsaChoice> = LazyLock::new(|| match *ASKED {
    Some(asked) => IsaChoice { isa: asked.wide().unwrap_or(asked), why: IsaReason::Asked(asked) },
    None => IsaChoice { isa: Isa::preferred(), why: IsaReason::Preferred },
});

static BF16: LazyLock<IsaChoice> = LazyLock::new(|| {
    let bf16 = Isa::all_available().find(|isa| isa.wide() == Some(Isa::best()));
    IsaChoice::of_bf16(*ASKED, Isa::best(), bf16, of_one_core)
});

fn asked_by_env() -> Result<Option<Isa>, IsaError> {
    let name = std::env::var_os(ISA_VARIABLE).unwrap_or_default();
    asked(&name.to_string_lossy(), &Isa::all_available().collect::<Vec<_>>())
}

/// The one of `available` that `name` names; none where that is empty.
pub(super) fn asked(name: &str, available: &[Isa]) -> Result<Option<Isa>, IsaError> {
    if name.is_empty() {
        return Ok(None);
    }
    let error =
        || IsaError { asked: name.to_owned(), possible: available.iter().map(|isa| isa.name()).collect() };
    available.iter().copied().find(|isa| isa.name() == name).map(Some).ok_or_else(error)
}

impl IsaChoice {
    /// What computes in f32: the preferred instruction set of this processor, or another one that [`ISA_VARIABLE`] asks
    /// for; where that is one whose products take bf16, the one with the same vectors. What the processor can't have counts
    /// as nothing asked: [`Isa::from_env`] tells. Decided once a process.
    pub fn of_f32() -> Self {
        *F32
    }

    /// What multiplies weights of bf16: what [`ISA_VARIABLE`] asks for, else the instruction set whose products take bf16
    /// where the processor has one and it is clearly faster than the one for f32, which is measured then, within half a
    /// millisecond; else that of [`IsaChoice::of_f32`]. Decided once a process.
    pub fn of_weights_in_bf16() -> Self {
        *BF16
    }

    /// The rule of [`IsaChoice::of_weights_in_bf16`], where `rates` measures two instruction sets.
    pub(super) fn of_bf16(
        asked: Option<Isa>,
        best: Isa,
        bf16: Option<Isa>,
        rates: impl FnOnce([Isa; 2]) -> [f64; 2],
    ) -> Self {
        match (asked, bf16) {
            (Some(isa), _) => Self { isa, why: IsaReason::Asked(isa) },
            (None, None) => Self { isa: best, why: IsaReason::Preferred },
            (None, Some(isa)) => {
                let [of_bf16, of_f32] = rates([isa, best]);
                let why = IsaReason::Measured { bf16: of_bf16, f32: of_f32 };
                Self { isa: if why.bf16_is_faster() { isa } else { best }, why }
            }
        }
    }
}

impl Isa {
    /// What computes in f32: [`IsaChoice::of_f32`].
    pub fn best() -> Self {
        IsaChoice::of_f32().isa
    }

    /// What multiplies weights of bf16: [`IsaChoice::of_weights_in_bf16`].
    pub fn for_bf16() -> Self {
        IsaChoice::of_weights_in_bf16().isa
    }

    /// What the environment variable `NAT_INFER_ISA` asks for, or the preferred instruction set where it is not
    /// set or empty.
    ///
    /// # Errors
    /// When it names none, or one that this processor lacks.
    pub fn from_env() -> Result<Self, IsaError> {
        Ok(asked_by_env()?.unwrap_or(Self::preferred()))
    }
}
