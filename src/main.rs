//! `nat-infer`: what published NAT and DiNAT networks see on images.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main().into()
}
