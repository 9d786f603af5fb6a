//! `nat-convert`: checkpoints in, safetensors out.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use nat_convert::arch::Dilations;
use nat_convert::checkpoint::{Checkpoint, Options, Part};
use nat_convert::error::ConvertError;
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
    /// Key under which the file holds the weights (state_dict, state_dict_ema, …); auto prefers an
    /// average (EMA) if there is one
    #[arg(long, value_name = "KEY", default_value = "auto")]
    weights_key: String,
    /// Write nothing; print what was found and every tensor's name, shape and dtype
    #[arg(long)]
    inspect: bool,
    /// How --inspect prints
    #[arg(long, value_enum, default_value = "text", requires = "inspect")]
    format: Format,
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
enum Format {
    Text,
    Json,
}

/// The exit status of a program that a signal ended, as shells give it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let args = Args::parse();
    let Err(error) = run(&args) else { return ExitCode::SUCCESS };
    if let Some(io) = error.root_cause().downcast_ref::<io::Error>()
        && io.kind() == io::ErrorKind::BrokenPipe
    {
        // Whoever read the output has seen enough.
        return ExitCode::SUCCESS;
    }
    // stderr may be gone too; the exit status remains.
    writeln!(io::stderr(), "nat-convert: {error:#}").ok();
    match error.downcast_ref() {
        Some(ConvertError::Interrupted) => ExitCode::from(INTERRUPTED),
        _ => ExitCode::FAILURE,
    }
}

fn run(args: &Args) -> Result<()> {
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output(&args.checkpoint)?,
    };
    if !args.inspect {
        check_target(&args.checkpoint, &output, args.overwrite)?;
    }
    let options = Options {
        arch: args.arch.clone(),
        dilations: args.dilations.clone(),
        part: match args.part {
            PartArg::All => Part::All,
            PartArg::Backbone => Part::Backbone,
        },
        weights_key: Some(args.weights_key.clone()).filter(|key| key != "auto"),
    };
    let checkpoint = Checkpoint::open(&args.checkpoint, &options)?;
    if args.inspect {
        return inspect(&checkpoint, args.format).context("can't write to stdout");
    }
    // Nobody listening is no reason not to convert.
    let say = |text: &str| if args.quiet { None } else { io::stderr().write_all(text.as_bytes()).ok() };
    say(&checkpoint.report().to_string());
    let dtype = args.dtype.map(|dtype| match dtype {
        DTypeArg::F32 => FloatType::F32,
        DTypeArg::F16 => FloatType::F16,
        DTypeArg::Bf16 => FloatType::BF16,
    });
    // Until here there is nothing to undo and Ctrl-C ends the program at once.
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || handler.store(true, Ordering::Relaxed)).context("can't catch Ctrl-C")?;
    write(&checkpoint, &output, WriteOptions { dtype, overwrite: args.overwrite }, &stop)?;
    say(&format!("wrote {}\n", output.display()));
    Ok(())
}

fn inspect(checkpoint: &Checkpoint, format: Format) -> Result<()> {
    let report = checkpoint.report();
    let mut out = io::BufWriter::new(io::stdout().lock());
    match format {
        Format::Text => write!(out, "{report}{}", report.tensor_table())?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, report).map_err(io::Error::from)?;
            writeln!(out)?;
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
