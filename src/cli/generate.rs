//! `nat-infer completions` and `nat-infer man`: both made of the arguments' own definitions.

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, Command};
use clap_complete::Shell;
use nat_infer::zoo;

use super::exit::{Exit, print};

/// Print a shell's completions, of options and of model names
#[derive(Args)]
#[command(
    after_help = "Example:\n  nat-infer completions bash > ~/.local/share/bash-completion/completions/nat-infer"
)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Print a manual page
#[derive(Args)]
#[command(
    after_help = "Examples:\n  nat-infer man > nat-infer.1\n  nat-infer man classify > nat-infer-classify.1"
)]
pub struct Man {
    /// Command that the page is about [default: the program]
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

/// Runs `completions`.
pub fn completions(arguments: &Completions, program: Command) -> Result<Exit> {
    let mut text = Vec::new();
    let name = program.get_name().to_owned();
    clap_complete::generate(arguments.shell, &mut with_model_names(program), name, &mut text);
    let text = String::from_utf8(text).context("the completions are no text")?;
    print(match arguments.shell {
        // clap_complete 4.6 writes a name with a hyphen in two ways and then finds no command again.
        Shell::Bash => text.replace("nat__subcmd__infer", "nat__infer"),
        Shell::Fish => text + &fish_positionals(),
        _ => text,
    })?;
    Ok(Exit::Success)
}

/// What clap leaves out for fish: values of arguments that are no options.
fn fish_positionals() -> String {
    let names: Vec<_> = zoo::entries().iter().map(|entry| entry.name.as_str()).collect();
    format!(
        "complete -c nat-infer -n \"__fish_nat_infer_using_subcommand models; \
         and __fish_seen_subcommand_from show pull path\" -f -a \"{}\"\n",
        names.join(" ")
    )
}

/// The arguments that take the name of a published model, in every command.
const MODEL_NAMES: [&str; 4] = ["model", "arch", "name", "names"];

/// Lets a command and those below it offer the names of the published models. For completions alone: help would
/// list them all, and an unknown name has a better message than clap's.
fn with_model_names(command: Command) -> Command {
    let names = || zoo::entries().iter().map(|entry| entry.name.as_str());
    command.mut_subcommands(with_model_names).mut_args(|arg| {
        let takes_names = MODEL_NAMES.contains(&arg.get_id().as_str()) && arg.get_action().takes_values();
        if takes_names { arg.value_parser(PossibleValuesParser::new(names())) } else { arg }
    })
}

/// Runs `man`.
pub fn man(arguments: &Man, mut program: Command) -> Result<Exit> {
    // Gives subcommands the names and the global options that they have when they run.
    program.build();
    let page = match &arguments.command {
        None => program,
        Some(name) => match program.find_subcommand(name) {
            Some(command) => command.clone(),
            None => bail!("there is no command `{name}`; `nat-infer --help` lists them"),
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    print(&text)?;
    Ok(Exit::Success)
}
