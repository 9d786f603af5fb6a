//! Ranges that numbers out of a file are held against.

use std::fmt::Display;

/// More than any network has of channels, blocks, classes and the like: products of a few of these are far
/// from overflowing.
pub(crate) const MAX_CHANNELS: usize = 1 << 16;
pub(crate) const MAX_CLASSES: usize = 1 << 20;
pub(crate) const MAX_LIST: usize = 64;

/// What is wrong with a number.
pub(crate) type Checked = Result<(), String>;

/// From 1 to `most`.
pub(crate) fn at_least_one(name: &str, value: usize, most: usize) -> Checked {
    if (1..=most).contains(&value) { Ok(()) } else { out_of_range(name, value, 1, most) }
}

/// From 0 to `most`.
pub(crate) fn at_most(name: &str, value: usize, most: usize) -> Checked {
    if value > most { out_of_range(name, value, 0, most) } else { Ok(()) }
}

/// From `least` to `most`, which no NaN is.
pub(crate) fn number(name: &str, value: f64, least: f64, most: f64) -> Checked {
    if (least..=most).contains(&value) { Ok(()) } else { out_of_range(name, value, least, most) }
}

fn out_of_range(name: &str, value: impl Display, least: impl Display, most: impl Display) -> Checked {
    Err(format!("{name} has {value}, not from {least} to {most}"))
}
