//! The command line: one file a command, and what they share. Arguments go through two stages: what was
//! typed (clap's structs, pure) becomes settings (names looked up, device opened, inputs expanded,
//! writer chosen). The library knows neither.

use std::fmt::Display;
use std::io::{self, Write};
use std::panic;

use anyhow::{Result, anyhow};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

mod bench;
mod classify;
mod detect;
mod exit;
mod features;
mod folder;
mod generate;
mod images;
mod interrupt;
mod labels;
mod models;
mod output;
mod progress;
mod resume;
mod run;
mod saliency;
mod segment;
mod settings;
mod shared;

use exit::Exit;

/// Neighborhood Attention Transformers (NAT, DiNAT) on images
///
/// Results go to stdout, everything else to stderr. The exit status is 0 on success, 1 if an input
/// failed (the others are done), 2 for wrong usage or a model that can't be loaded.
#[derive(Parser)]
#[command(name = "nat-infer", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    verbosity: Verbosity,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer classify --model demo-digits digit.png
  nat-infer classify photos/ --model dinat-base --format csv --output classes.csv
  nat-infer detect photo.jpg --save drawn/
  nat-infer segment photo.jpg --save drawn/
  nat-infer saliency photo.jpg --save maps/
  nat-infer features photo.jpg --save features/
  nat-infer models";

#[derive(Subcommand)]
enum Command {
    Classify(classify::Arguments),
    Detect(detect::Arguments),
    Segment(segment::Arguments),
    Saliency(saliency::Arguments),
    Features(features::Arguments),
    Bench(bench::Arguments),
    Models(models::Arguments),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// How much is said on stderr.
#[derive(Args, Clone, Copy)]
struct Verbosity {
    /// Say less: errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more: what was resolved, from arguments, environment and files
    #[arg(short, long, global = true, action = ArgAction::SetTrue)]
    verbose: bool,
}

impl Verbosity {
    /// With `--verbose`, one line on stderr about something that was resolved.
    fn explain(self, name: &str, value: impl Display) {
        if self.verbose {
            // stderr may be closed; the results are elsewhere.
            writeln!(io::stderr(), "{name:>12}  {}", exit::one_line(&value.to_string())).ok();
        }
    }
}

/// Parses the arguments, runs the command, reports its error.
pub fn main() -> Exit {
    let Cli { command, verbosity } = Cli::parse();
    // What crashes on one image is reported with its name where it is caught; a trace helps no user.
    panic::set_hook(Box::new(|_| {}));
    let done = panic::catch_unwind(|| run(command, verbosity)).unwrap_or_else(|crash| {
        let words = crash.downcast_ref::<String>().cloned();
        let words = words.or_else(|| crash.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        let words = words.unwrap_or_default();
        Err(exit::Failed(anyhow!("the program failed ({words}); please report it with the command")).into())
    });
    done.unwrap_or_else(|error| exit::report(&error))
}

fn run(command: Command, verbosity: Verbosity) -> Result<Exit> {
    match command {
        Command::Classify(arguments) => classify::run(arguments, verbosity),
        Command::Detect(arguments) => detect::run(arguments, verbosity),
        Command::Segment(arguments) => segment::run(arguments, verbosity),
        Command::Saliency(arguments) => saliency::run(arguments, verbosity),
        Command::Features(arguments) => features::run(arguments, verbosity),
        Command::Bench(arguments) => bench::run(arguments, verbosity),
        Command::Models(arguments) => models::run(arguments, verbosity),
        Command::Completions(arguments) => generate::completions(&arguments, &mut Cli::command()),
        Command::Man(arguments) => generate::man(&arguments, &mut Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself_with_an_example() {
        fn check(command: &clap::Command, parent: &str) {
            for command in command.get_subcommands() {
                let name = format!("{parent} {}", command.get_name());
                assert!(command.get_about().is_some(), "{name}");
                let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(examples.contains(&name), "{name}: {examples}");
                check(command, &name);
            }
        }
        check(&Cli::command(), "nat-infer");
    }
}
