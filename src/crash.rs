//! Panics that are caught: on files from anywhere one bad file must not end a run.

use std::any::Any;

/// What a panic said, as [`std::panic::catch_unwind`] gives it.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason".to_owned())
}
