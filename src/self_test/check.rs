//! A comparison and what comes of it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{DType, Result, Tensor};

use crate::crash::panic_message;
use crate::tensors::{in_words, wide_values};

/// Which way through a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the input to the results.
    Forward,
    /// Back to the gradient with respect to the input.
    Backward,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
        })
    }
}

/// What one comparison with f64 found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Check {
    /// What was computed: `operator`, or a network (`nat`, `upernet`, …); `recording`, whether the GPU took the networks' launches
    /// as graphs.
    pub what: &'static str,
    /// Which way.
    pub pass: Direction,
    /// The type of weights and input.
    pub dtype: DType,
    /// What computed: an instruction set by its name, or `cuda`.
    pub on: &'static str,
    /// Of all that was compared what is furthest off.
    pub stage: String,
    /// How far that is off, ‖got − want‖ / ‖want‖; infinite of what is no number.
    pub error: f64,
    /// How far it may be off.
    pub tolerance: f64,
    /// Why nothing could be compared: an error or a panic.
    pub problem: Option<String>,
}

impl Check {
    /// Whether the answer is right.
    pub fn passed(&self) -> bool {
        self.problem.is_none() && self.error <= self.tolerance
    }
}

/// A result by name.
pub(super) type Stage = (String, Tensor);

/// What a check is about.
#[derive(Clone, Copy)]
pub(super) struct Subject {
    pub(super) what: &'static str,
    pub(super) pass: Direction,
    pub(super) dtype: DType,
    pub(super) on: &'static str,
    pub(super) tolerance: f64,
}

impl Subject {
    /// Compares what `compute` gives with the reference, stage by stage. An error or a panic is the check's problem.
    pub(super) fn compare(
        self,
        want: &std::result::Result<Vec<Stage>, String>,
        compute: impl FnOnce() -> Result<Vec<Stage>>,
    ) -> Check {
        let found = match want {
            Ok(want) => caught(compute).and_then(|got| furthest(&got, want)),
            Err(problem) => Err(format!("no reference: {problem}")),
        };
        let Self { what, pass, dtype, on, tolerance } = self;
        let (stage, error, problem) = match found {
            Ok((stage, error)) => (stage, error, None),
            Err(problem) => (String::new(), f64::INFINITY, Some(problem)),
        };
        Check { what, pass, dtype, on, stage, error, tolerance, problem }
    }
}

/// What `compute` gives; of an error or a panic the words.
pub(super) fn caught<T>(compute: impl FnOnce() -> Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(compute)) {
        Ok(done) => done.map_err(|error| in_words(&error)),
        Err(panic) => Err(format!("it panicked: {}", panic_message(&*panic))),
    }
}

/// Of all stages the one that is furthest off, with its distance.
fn furthest(got: &[Stage], want: &[Stage]) -> std::result::Result<(String, f64), String> {
    let names = |stages: &[Stage]| stages.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    if names(got) != names(want) || want.is_empty() {
        return Err(format!("it gave {:?}, not {:?}", names(got), names(want)));
    }
    let mut furthest = (String::new(), f64::NEG_INFINITY);
    for ((name, got), (_, want)) in got.iter().zip(want) {
        if got.dims() != want.dims() {
            return Err(format!("{name} is {:?}, not {:?}", got.dims(), want.dims()));
        }
        let values = |x: &Tensor| wide_values(x).map_err(|error| in_words(&error));
        let error = distance(&values(got)?, &values(want)?);
        if error > furthest.1 {
            furthest = (name.clone(), error);
        }
    }
    Ok(furthest)
}

/// ‖got − want‖ / ‖want‖. What is no number is infinitely far from everything, and so is a reference of zeros, which
/// would prove nothing.
fn distance(got: &[f64], want: &[f64]) -> f64 {
    let error: f64 = got.iter().zip(want).map(|(a, b)| (a - b).powi(2)).sum();
    let size: f64 = want.iter().map(|b| b.powi(2)).sum();
    let off = (error / size).sqrt();
    if off.is_finite() && size > 0.0 { off } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn subject(tolerance: f64) -> Subject {
        Subject { what: "nat", pass: Direction::Forward, dtype: DType::F32, on: "portable", tolerance }
    }

    fn stages(values: &[(&str, &[f32])]) -> Result<Vec<Stage>> {
        values
            .iter()
            .map(|(name, values)| Ok(((*name).to_owned(), Tensor::new(*values, &Device::Cpu)?)))
            .collect()
    }

    #[test]
    fn what_is_wrong_fails() {
        let want = caught(|| stages(&[("maps", &[3.0, 4.0]), ("logits", &[1.0, 0.0])]));
        let compare = |got: &[(&str, &[f32])]| subject(0.1).compare(&want, || stages(got));
        let right = compare(&[("maps", &[3.0, 4.0]), ("logits", &[1.01, 0.0])]);
        assert!(right.passed() && right.stage == "logits" && (right.error - 0.01).abs() < 1e-6, "{right:?}");
        let wrong = compare(&[("maps", &[3.0, 3.0]), ("logits", &[1.0, 0.01])]);
        assert!(!wrong.passed() && wrong.stage == "maps" && wrong.error == 0.2, "{wrong:?}");
        for value in [f32::NAN, f32::INFINITY] {
            let check = compare(&[("maps", &[3.0, value]), ("logits", &[1.0, 0.0])]);
            assert!(!check.passed() && check.error == f64::INFINITY && check.stage == "maps", "{check:?}");
        }
        for (got, says) in [
            (&[("maps", &[3.0, 4.0][..])][..], "it gave [\"maps\"], not [\"maps\", \"logits\"]"),
            (&[("maps", &[3.0]), ("logits", &[1.0, 0.0])], "maps is [1], not [2]"),
        ] {
            let check = compare(got);
            assert!(!check.passed() && check.problem.as_deref() == Some(says), "{check:?}");
        }
        // Nothing is like nothing.
        for nothing in [&[("maps", &[0.0][..])][..], &[]] {
            assert!(!subject(0.1).compare(&caught(|| stages(nothing)), || stages(nothing)).passed());
        }
    }

    #[test]
    fn what_fails_is_said() {
        let failed = || Err(candle_core::Error::Msg("no memory".to_owned()));
        let want = caught(|| stages(&[("maps", &[1.0])]));
        let check = subject(1.0).compare(&want, failed);
        assert_eq!((check.passed(), check.problem.as_deref()), (false, Some("no memory")));
        let check = subject(1.0).compare(&caught(failed), || stages(&[("maps", &[1.0])]));
        assert_eq!(check.problem.as_deref(), Some("no reference: no memory"));
        let check = subject(1.0).compare(&want, || panic!("index 7"));
        assert_eq!(check.problem.as_deref(), Some("it panicked: index 7"));
    }
}
