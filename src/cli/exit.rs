//! Exit statuses, and which error has which.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
pub use nat_convert::terminal::one_line;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done, or the reader of our output wanted no more.
    Success = 0,
    /// An input failed, or a result could not be written.
    Failed = 1,
    /// Wrong usage, or no model. clap ends the program with the same status.
    Usage = 2,
    /// Ctrl-C: 128 and the signal's number, as shells have it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error of the work itself: [`Exit::Failed`]. All others are [`Exit::Usage`].
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Failed(pub anyhow::Error);

/// Marks the errors of work that has begun.
pub trait OrFailed<T> {
    /// The error becomes [`Failed`].
    fn or_failed(self) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrFailed<T> for Result<T, E> {
    fn or_failed(self) -> anyhow::Result<T> {
        self.map_err(|error| {
            let error = error.into();
            // Who reads our output may close it: that is the one error that is none.
            if is_broken_pipe(&error) { error } else { Failed(error).into() }
        })
    }
}

/// Says what went wrong and gives the status.
pub fn report(error: &anyhow::Error) -> Exit {
    if is_broken_pipe(error) {
        return Exit::Success;
    }
    say(&format!("{error:#}"));
    if error.is::<Failed>() { Exit::Failed } else { Exit::Usage }
}

/// Writes to stdout what is no record.
///
/// # Errors
/// When it can't be written.
pub fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref()).and_then(|()| out.flush()).context("can't write to stdout").or_failed()
}

/// One line on stderr.
pub fn say(message: &str) {
    // stderr may be closed; the exit status remains.
    writeln!(io::stderr(), "nat-infer: {}", one_line(without_backtrace(message))).ok();
}

/// candle's texts end with a backtrace where `RUST_BACKTRACE` asks for one: that is for its developers.
fn without_backtrace(message: &str) -> &str {
    message.split_once("\n   0: ").map_or(message, |(message, _)| message)
}

/// Whether whoever read our output wants no more of it.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn every_error_has_its_status() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        for (error, exit) in [
            (anyhow!("no such model"), Exit::Usage),
            (Err::<(), _>(anyhow!("disk full")).or_failed().unwrap_err(), Exit::Failed),
            (anyhow!(pipe()), Exit::Success),
            (Err::<(), _>(anyhow!(pipe()).context("writing")).or_failed().unwrap_err(), Exit::Success),
        ] {
            assert_eq!(report(&error), exit, "{error:#}");
        }
        assert_eq!(
            [0, 1, 2, 130],
            [Exit::Success, Exit::Failed, Exit::Usage, Exit::Interrupted].map(|e| e as u8)
        );
    }

    #[test]
    fn a_message_ends_where_a_backtrace_begins() {
        let backtrace = std::backtrace::Backtrace::force_capture();
        for (text, message) in [
            (format!("shape mismatch\n{backtrace}"), "shape mismatch"),
            ("a\nb 0: c".to_owned(), "a\nb 0: c"),
        ] {
            assert_eq!(without_backtrace(&text), message);
        }
    }
}
