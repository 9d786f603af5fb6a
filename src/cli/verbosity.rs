//! `--quiet` and `--verbose`.

use std::fmt::Display;
use std::io::{self, Write};

use clap::{ArgAction, Args};

use super::exit::one_line;

/// How much is said on stderr.
#[derive(Args, Clone, Copy)]
pub struct Verbosity {
    /// Say less: errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more: what was resolved, from arguments, environment and files
    #[arg(short, long, global = true, action = ArgAction::SetTrue)]
    pub verbose: bool,
}

impl Verbosity {
    /// With `--verbose`, one line on stderr about something that was resolved.
    pub fn explain(self, name: &str, value: impl Display) {
        if self.verbose {
            // stderr may be closed; the results are elsewhere.
            writeln!(io::stderr(), "{name:>12}  {}", one_line(&value.to_string())).ok();
        }
    }
}
