//! `nat-infer completions` and `nat-infer man`: both made of the arguments' own definitions.

use anyhow::{Result, bail};
use clap::{Args, Command};
use clap_complete::Shell;

use super::exit::{Exit, print};

/// Print a shell's completions
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
pub fn completions(arguments: &Completions, program: &mut Command) -> Result<Exit> {
    let mut text = Vec::new();
    let name = program.get_name().to_owned();
    clap_complete::generate(arguments.shell, program, name, &mut text);
    print(&text)?;
    Ok(Exit::Success)
}

/// Runs `man`.
pub fn man(arguments: &Man, program: &mut Command) -> Result<Exit> {
    // Gives subcommands the names and the global options that they have when they run.
    program.build();
    let page = match &arguments.command {
        None => program.clone(),
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
