//! `nat-convert`: checkpoints in, safetensors out.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use nat_convert::arch::Dilations;
use nat_convert::checkpoint::{Checkpoint, Options, Part};
use nat_convert::error::ConvertError;
use nat_convert::report::{Remedy, Report};
use nat_convert::terminal::{self, one_line};
use nat_convert::write::{FloatType, WriteOptions, check_target, write};
use nat_convert::zoo::{self, UnknownModel};

/// Convert a NAT or DiNAT checkpoint to safetensors, without Python
///
/// Reads PyTorch files (zip and legacy), safetensors and Transformers folders, of classifiers,
/// detectors and segmenters. Nothing in a file is ever run. The result carries architecture, labels
/// and preprocessing, so that nat-infer runs it as it is.
#[derive(Parser)]
#[command(name = "nat-convert", version, after_help = EXAMPLES)]
struct Args {
    /// Checkpoint: a file of any container, or a Transformers folder
    #[arg(value_name = "CKPT")]
    checkpoint: PathBuf,
    /// File to write [default: CKPT's stem + .safetensors in the current folder]
    #[arg(short, long, value_name = "OUT", conflicts_with = "inspect")]
    output: Option<PathBuf>,
    /// What the checkpoint is, as `nat-infer models` names it: its dilations and preprocessing are
    /// taken, its sizes compared with the tensors
    #[arg(long, value_name = "NAME", value_parser = known_model)]
    arch: Option<String>,
    /// Dilations: levels split by `/`, a level's list repeats along it, e.g. 1,8/1,4/1,2/1
    #[arg(long, value_name = "LEVELS")]
    dilations: Option<Dilations>,
    /// Type of the written tensors [default: as in the checkpoint; 64 bits become f32]
    #[arg(long, conflicts_with = "inspect")]
    dtype: Option<DTypeArg>,
    /// How much of the network to keep; a backbone is ready for `nat-infer features`
    #[arg(long, value_enum, default_value = "all")]
    part: PartArg,
    /// Key under which the file holds the weights (state_dict, state_dict_ema, …), or what the names of
    /// one of several networks begin with (teacher); auto prefers an average (EMA) if there is one
    #[arg(long, value_name = "KEY", default_value = "auto")]
    weights_key: String,
    /// Leave out the tensors whose names in the file are like this (`*` any characters, `?` one); may be
    /// repeated
    #[arg(long, value_name = "GLOB")]
    ignore: Vec<String>,
    /// Write nothing; print what was found and every tensor's name, shape and dtype
    #[arg(long)]
    inspect: bool,
    /// How --inspect prints
    #[arg(long, value_enum, default_value = "text", requires = "inspect")]
    format: InspectFormat,
    /// Replace OUT if it exists
    #[arg(long, conflicts_with = "inspect")]
    overwrite: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  nat-convert nat_tiny.pth
  nat-convert dinat_tiny_in1k_224.pth -o dinat-tiny.safetensors --dtype f16
  nat-convert work_dirs/epoch_36.pth --arch mask-rcnn-dinat-mini --part backbone
  nat-convert last.ckpt --weights-key state_dict.teacher --ignore 'projector.*'
  nat-convert model_best.pth.tar --inspect";

#[derive(Clone, Copy, ValueEnum)]
enum DTypeArg {
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum PartArg {
    All,
    Backbone,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum InspectFormat {
    Text,
    Json,
}

/// The exit status of a program that a signal ended, as shells give it.
const INTERRUPTED: u8 = 130;

/// The exit status of a program that was called in a wrong way, as clap gives it.
const USAGE: u8 = 2;

/// What no conversion can do, whatever the files.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUsage(&'static str);

fn main() -> ExitCode {
    let Err(error) = run(&parse()) else { return ExitCode::SUCCESS };
    if let Some(io) = error.root_cause().downcast_ref::<io::Error>()
        && io.kind() == io::ErrorKind::BrokenPipe
    {
        // Whoever read the output has seen enough.
        return ExitCode::SUCCESS;
    }
    let convert = error.downcast_ref::<ConvertError>();
    let advice = convert.and_then(advice).map(|advice| format!("; {advice}")).unwrap_or_default();
    // stderr may be gone too; the exit status remains.
    writeln!(io::stderr(), "nat-convert: {}", one_line(&format!("{error:#}{advice}"))).ok();
    match convert {
        Some(ConvertError::Interrupted) => ExitCode::from(INTERRUPTED),
        _ if error.is::<WrongUsage>() => ExitCode::from(USAGE),
        _ => ExitCode::FAILURE,
    }
}

/// Parses the arguments. What is wrong with them, or the help that they ask for, ends the program.
fn parse() -> Args {
    Args::try_parse().unwrap_or_else(|error| {
        // A glob's names are arguments too, and clap's message repeats the one that it does not know.
        let hostile = |text: &str| matches!(terminal::lines(text), Cow::Owned(_));
        if !std::env::args_os().any(|argument| hostile(&argument.to_string_lossy())) {
            error.exit();
        }
        // stderr may be gone; the exit status remains.
        io::stderr().write_all(terminal::lines(&error.render().to_string()).as_bytes()).ok();
        process::exit(error.exit_code())
    })
}

/// The option that helps with an error of the library, which knows none.
fn advice(error: &ConvertError) -> Option<&'static str> {
    Some(match error {
        ConvertError::Exists(_) => "--overwrite replaces it",
        ConvertError::Target { .. } => "-o names the file to write",
        ConvertError::Range { .. } => "use --dtype bf16 or f32",
        ConvertError::NoStateDict { keys, .. } if !keys.is_empty() => "--weights-key takes one of them",
        ConvertError::Tensors { mismatch, .. } if mismatch.is_only_unknown() => {
            "--ignore leaves out what is no part of the network"
        }
        _ => return None,
    })
}

/// The option that helps against a warning of the library, which knows none.
fn remedy(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Dilations => "; --arch or --dilations states them if it is a DiNAT",
        Remedy::WeightsKey => "; --weights-key takes the other",
        Remedy::Ignore => "; --ignore leaves the former out",
        _ => "",
    }
}

/// The report with its warnings.
fn in_full(report: &Report) -> String {
    let mut text = report.to_string();
    for warning in &report.warnings {
        let advice = warning.remedy.map_or("", remedy);
        text += &format!("  warning    {}{advice}\n", one_line(&warning.text));
    }
    text
}

fn run(args: &Args) -> Result<()> {
    let is_dash = |path: &Path| path == Path::new("-");
    if args.output.as_deref().is_some_and(is_dash) {
        bail!(WrongUsage("-o -: the result is read back and compared, which stdout can't be; name a file"));
    }
    if is_dash(&args.checkpoint) {
        bail!(WrongUsage("-: a checkpoint can't be read from a pipe; save it to a file"));
    }
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output(&args.checkpoint)?,
    };
    if !args.inspect {
        check_target(&args.checkpoint, &output, args.overwrite)?;
    }
    let mut options = Options::default().with_ignore(&args.ignore).with_part(match args.part {
        PartArg::All => Part::All,
        PartArg::Backbone => Part::Backbone,
    });
    options.arch.clone_from(&args.arch);
    options.dilations.clone_from(&args.dilations);
    options.weights_key = Some(args.weights_key.clone()).filter(|key| key != "auto");
    let checkpoint = Checkpoint::open(&args.checkpoint, &options)?;
    if args.inspect {
        return inspect(&checkpoint, args.format).context("can't write to stdout");
    }
    // Nobody listening is no reason not to convert.
    let say = |text: &str| if args.quiet { None } else { io::stderr().write_all(text.as_bytes()).ok() };
    say(&in_full(checkpoint.report()));
    let mut writing = WriteOptions::default().with_overwrite(args.overwrite);
    writing.dtype = args.dtype.map(|dtype| match dtype {
        DTypeArg::F32 => FloatType::F32,
        DTypeArg::F16 => FloatType::F16,
        DTypeArg::Bf16 => FloatType::BF16,
    });
    // Until here there is nothing to undo and Ctrl-C ends the program at once.
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || handler.store(true, Ordering::Relaxed)).context("can't catch Ctrl-C")?;
    write(&checkpoint, &output, writing, &stop)?;
    say(&format!("wrote {}\n", one_line(&output.display().to_string())));
    Ok(())
}

fn inspect(checkpoint: &Checkpoint, format: InspectFormat) -> Result<()> {
    let report = checkpoint.report();
    let mut out = io::BufWriter::new(io::stdout().lock());
    match format {
        InspectFormat::Text => write!(out, "{}{}", in_full(report), report.tensor_table())?,
        InspectFormat::Json => {
            let json = serde_json::to_string_pretty(report).map_err(io::Error::from)?;
            writeln!(out, "{}", terminal::escape_json(&json))?;
        }
    }
    out.flush()?;
    Ok(())
}

/// CKPT's stem + `.safetensors` in the current folder.
fn default_output(checkpoint: &Path) -> Result<PathBuf> {
    // A folder such as `.` has a name only in full.
    let full = if checkpoint.is_dir() { checkpoint.canonicalize()? } else { checkpoint.to_owned() };
    let stem = if checkpoint.is_dir() { full.file_name() } else { full.file_stem() };
    let Some(stem) = stem else { bail!("{}: has no name; -o names the output", checkpoint.display()) };
    let mut name = stem.to_owned();
    name.push(".safetensors");
    Ok(PathBuf::from(name))
}

/// Refuses a wrong name as the wrong usage that it is, before any file is opened.
fn known_model(name: &str) -> Result<String, UnknownModel> {
    zoo::find(name).map(|entry| entry.name.clone())
}
