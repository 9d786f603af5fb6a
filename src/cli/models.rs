//! `nat-infer models`: the zoo, from the terminal.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use nat_infer::zoo::{self, Entry, Env, Located};

use super::exit::{Exit, OrFailed, one_line, print, say};
use super::listing::{ListedModel, ModelDetails, aligned};
use super::measured::{self, Measured};
use super::output::{End, Output};
use super::settings::locate;
use super::shared::{OutputFormat, OutputOptions, known_model};
use super::verbosity::Verbosity;

/// List the published models, or see to their files
#[derive(Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct ModelsArguments {
    #[command(subcommand)]
    command: Option<ModelsCommand>,
    #[command(flatten)]
    list: ListArguments,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer models
  nat-infer models --task segment
  nat-infer models --task classify --record measured.jsonl
  nat-infer models show dinat-large-384
  nat-infer models pull nat-tiny dinat-tiny
  nat-convert $(nat-infer models path nat-tiny) -o nat-tiny.safetensors";

#[derive(Subcommand)]
enum ModelsCommand {
    /// List the models [default]
    #[command(
        after_help = "Example:\n  nat-infer models list --task detect --format csv --output models.csv"
    )]
    List(ListArguments),
    /// Say everything about one model
    #[command(after_help = "Example:\n  nat-infer models show dinat-large-384")]
    Show(ShowArguments),
    /// Fetch models into the cache and print where they are
    #[command(after_help = "Example:\n  nat-infer models pull nat-tiny dinat-tiny")]
    Pull {
        /// Models
        #[arg(required = true, value_name = "NAME", value_parser = known_model)]
        names: Vec<&'static Entry>,
        /// Use what is in the cache and make no request
        #[arg(long)]
        offline: bool,
    },
    /// Print where the cache has a model
    #[command(
        after_help = "Example:\n  nat-convert $(nat-infer models path nat-tiny) -o nat-tiny.safetensors"
    )]
    Path {
        /// Model
        #[arg(value_name = "NAME", value_parser = known_model)]
        name: &'static Entry,
    },
}

#[derive(Args)]
struct ListArguments {
    /// Only the models that do this
    #[arg(long, value_parser = ["classify", "detect", "segment"])]
    task: Option<String>,
    /// Show what was measured too: a file that `nat-infer eval --record FILE` wrote
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Args)]
struct ShowArguments {
    /// Model
    #[arg(value_name = "NAME", value_parser = known_model)]
    name: &'static Entry,
    /// Show what was measured too: a file that `nat-infer eval --record FILE` wrote
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    output: OutputOptions,
}

/// Runs the command.
pub fn run(arguments: ModelsArguments, verbosity: Verbosity) -> Result<Exit> {
    let env = Env::from_process();
    match arguments.command.unwrap_or(ModelsCommand::List(arguments.list)) {
        ModelsCommand::List(ListArguments { task, record, output }) => {
            list(task.as_deref(), &measured_of(record.as_deref())?, &output, &env)
        }
        ModelsCommand::Show(ShowArguments { name, record, output }) => {
            show(name, &measured_of(record.as_deref())?, &output, &env)
        }
        ModelsCommand::Pull { names, offline } => pull(&names, offline, verbosity),
        ModelsCommand::Path { name } => path(name, &env),
    }
}

/// What was measured, where a file has it.
fn measured_of(record: Option<&Path>) -> Result<Vec<Measured>> {
    record.map_or(Ok(Vec::new()), measured::read)
}

fn list(task: Option<&str>, measured: &[Measured], options: &OutputOptions, env: &Env) -> Result<Exit> {
    let wanted = zoo::entries().iter().filter(|entry| task.is_none_or(|task| entry.task.name() == task));
    let rows: Vec<ListedModel> = wanted.map(|entry| ListedModel::of(entry, measured, env)).collect();
    let mut output = Output::open::<ListedModel>(options)?;
    if output.format() == OutputFormat::Table {
        let to_stdout = options.output.as_deref().is_none_or(|path| path == Path::new("-"));
        output.text(&aligned(&rows, terminal_columns().filter(|_| to_stdout)))?;
    } else {
        rows.iter().try_for_each(|row| output.write(row))?;
    }
    output.finish(End::Complete)?;
    Ok(Exit::Success)
}

/// How wide the terminal on stdout is; `None` where there is none.
fn terminal_columns() -> Option<usize> {
    /// What is assumed of a terminal that does not say.
    const USUAL: usize = 80;
    #[cfg(unix)]
    let known = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
    #[cfg(not(unix))]
    let known = 0;
    io::stdout().is_terminal().then_some(if known > 0 { known } else { USUAL })
}

fn show(entry: &'static Entry, measured: &[Measured], options: &OutputOptions, env: &Env) -> Result<Exit> {
    let mut output = Output::open::<ModelDetails>(options)?;
    output.write(&ModelDetails::of(entry, measured, env))?;
    output.finish(End::Complete)?;
    Ok(Exit::Success)
}

fn pull(entries: &[&'static Entry], offline: bool, verbosity: Verbosity) -> Result<Exit> {
    let mut exit = Exit::Success;
    for entry in entries {
        match locate(entry, offline, verbosity) {
            Ok(Located::At(path)) => print_path(&path)?,
            Ok(Located::Embedded) => say(&format!("`{}` is part of the program", entry.name)),
            Err(error) => {
                say(&format!("{error:#}"));
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}

fn path(entry: &Entry, env: &Env) -> Result<Exit> {
    let name = &entry.name;
    let path = match zoo::is_cached(entry, env) {
        Some(path) => Ok(path),
        None if zoo::origin(entry).is_none() => Err(anyhow!("`{name}` is part of the program, not a file")),
        None => Err(anyhow!("`{name}` is not in the cache; `nat-infer models pull {name}` fetches it")),
    };
    print_path(&path.or_failed()?)?;
    Ok(Exit::Success)
}

/// A line on stdout: the path byte for byte, so that another command can take it, or fit for a terminal.
fn print_path(path: &Path) -> Result<()> {
    let mut line = match io::stdout().is_terminal() {
        true => one_line(&path.display().to_string()).into_bytes(),
        false => path.as_os_str().as_encoded_bytes().to_owned(),
    };
    line.push(b'\n');
    print(line)
}
