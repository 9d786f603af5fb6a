//! The words of keys and names.

/// Words in the keys and names of averages of the weights. They are preferred: the published figures were
/// measured with them.
const AVERAGES: [&str; 5] = ["ema", "averaged", "avg", "swa", "polyak"];

/// The words of a key: `ema_state_dict` has three.
pub(super) fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split(['_', '.', '-'])
}

/// Whether a key or a name's component is that of an average.
pub(super) fn is_average(key: &str) -> bool {
    words(key).any(|word| AVERAGES.iter().any(|average| word.eq_ignore_ascii_case(average)))
}
