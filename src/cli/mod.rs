//! The command line: one file per command, and what they share. Arguments go through two stages: what was
//! typed (clap's structs, pure) becomes settings (names looked up, device opened, inputs expanded,
//! writer chosen). The library knows neither.

use std::borrow::Cow;
use std::io::{self, Write};
use std::panic;
use std::process;

use anyhow::{Result, anyhow};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use nat_convert::terminal;
use nat_infer::crash::panic_message;
use nat_infer::zoo::Task;

mod bench;
mod classify;
mod coco;
mod detect;
mod doctor;
mod earlier;
mod eval;
mod exit;
mod export;
mod features;
mod folder;
mod generate;
mod images;
mod interrupt;
mod labels;
mod listing;
mod measured;
mod models;
mod output;
mod pooled;
mod progress;
mod record;
mod resume;
mod run;
mod saliency;
mod search;
mod search_report;
mod segment;
mod settings;
mod shared;
mod verbosity;

use self::exit::Exit;
use self::verbosity::Verbosity;

/// Neighborhood Attention Transformers (NAT, DiNAT) on images
///
/// Results go to stdout, everything else to stderr. The exit status is 0 on success, 1 if an input
/// failed (the others are done), 2 for wrong usage or a model that can't be loaded, 130 if interrupted.
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
  nat-infer features photos/ --pooled --save index/
  nat-infer search index/features.safetensors query.jpg
  nat-infer eval classify --data imagenet/val --model nat-tiny
  nat-infer doctor
  nat-infer models";

#[derive(Subcommand)]
enum Command {
    Classify(classify::ClassifyArguments),
    Detect(detect::DetectArguments),
    Segment(segment::SegmentArguments),
    Saliency(saliency::SaliencyArguments),
    Features(features::FeaturesArguments),
    Search(search::SearchArguments),
    Eval(eval::EvalArguments),
    Bench(bench::BenchArguments),
    Doctor(doctor::DoctorArguments),
    Models(models::ModelsArguments),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// What clap knows of the program: [`Cli`], with each command's own default model in its help.
fn program() -> clap::Command {
    let with_default = |command: clap::Command| {
        let Some(model) = default_model_of(command.get_name()) else { return command };
        command.mut_args(|arg| match arg.get_help().filter(|_| arg.get_id() == "model") {
            Some(help) => {
                let help = format!("{help} [default: {model}]");
                arg.help(help)
            }
            None => arg,
        })
    };
    // The evaluations are called as the commands that they evaluate.
    Cli::command().mut_subcommands(|command| with_default(command).mut_subcommands(with_default))
}

/// The model that a command takes where none is named. `bench` has its own words for it.
fn default_model_of(command: &str) -> Option<&'static str> {
    let task = match command {
        "classify" | "features" | "knn" | "saliency" => Task::Classify,
        "detect" => Task::Detect,
        "segment" => Task::Segment,
        "search" => return Some(search::DEFAULT_MODEL),
        _ => return None,
    };
    Some(settings::default_model(Some(task)))
}

/// Parses the arguments. What is wrong with them, or the help that they ask for, ends the program.
fn parse() -> Cli {
    let mut program = program();
    let parsed = program
        .try_get_matches_from_mut(std::env::args_os())
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    parsed.unwrap_or_else(|error| {
        let error = error.format(&mut program);
        // A glob's names are arguments too, and clap's message repeats the one that it does not know.
        let hostile = |text: &str| matches!(terminal::lines(text), Cow::Owned(_));
        if !std::env::args_os().any(|argument| hostile(&argument.to_string_lossy())) {
            error.exit();
        }
        // stderr may be closed; the exit status remains.
        io::stderr().write_all(terminal::lines(&error.render().to_string()).as_bytes()).ok();
        process::exit(error.exit_code())
    })
}

/// Parses the arguments, runs the command, reports its error.
pub fn main() -> Exit {
    let Cli { command, verbosity } = parse();
    // What crashes on one image is reported with its name where it is caught; a trace helps no user.
    panic::set_hook(Box::new(|_| {}));
    let done = panic::catch_unwind(|| run(command, verbosity)).unwrap_or_else(|crash| {
        let words = panic_message(&*crash);
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
        Command::Search(arguments) => search::run(arguments, verbosity),
        Command::Eval(arguments) => eval::run(arguments, verbosity),
        Command::Bench(arguments) => bench::run(arguments, verbosity),
        Command::Doctor(arguments) => doctor::run(&arguments, verbosity),
        Command::Models(arguments) => models::run(arguments, verbosity),
        Command::Completions(arguments) => generate::completions(&arguments, program()),
        Command::Man(arguments) => generate::man(&arguments, program()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        program().debug_assert();
    }

    #[test]
    fn help_names_the_default_model_of_its_command_alone() {
        let defaults = [None, Some(Task::Detect), Some(Task::Segment)].map(settings::default_model);
        let mut seen = 0;
        let mut program = program();
        let mut commands: Vec<&mut clap::Command> = Vec::new();
        for command in program.get_subcommands_mut() {
            match command.get_name() {
                "eval" => commands.extend(command.get_subcommands_mut()),
                _ => commands.push(command),
            }
        }
        for command in commands {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            let wanted = match name.as_str() {
                "detect" => "mask-rcnn-nat-tiny",
                "segment" => "upernet-nat-tiny",
                "search" => search::DEFAULT_MODEL,
                _ => "nat-tiny",
            };
            if command.get_arguments().any(|arg| arg.get_id() == "model") {
                seen += 1;
                assert!(help.contains(&format!("[default: {wanted}")), "{name}: {help}");
                let others = defaults.iter().filter(|model| help.contains(&format!("default: {model}")));
                let own = [&wanted];
                let own = if name == "search" { &[] } else { own.as_slice() };
                assert_eq!(others.collect::<Vec<_>>(), own, "{name}");
            }
        }
        assert_eq!(seen, 11);
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
        check(&program(), "nat-infer");
    }
}
