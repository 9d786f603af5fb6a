//! `nat-infer doctor`: what this machine has, and whether it computes what it should.

use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nat_infer::results::{CheckResult, Diagnosis};
use nat_infer::simd::{Isa, IsaChoice};
use nat_infer::zoo::Env;

use self::trial::Place;
use super::exit::{Exit, OrFailed, print, say};
use super::settings::open_gpu;
use super::shared::{DeviceName, at_most};
use super::verbosity::Verbosity;

mod caches;
mod gpu;
mod machine;
mod text;
mod trial;
mod variables;

/// Say what this machine has, and check that it computes right
///
/// The attention operator and a small network of every kind are computed forwards and backwards, with every
/// instruction set of this processor and on the GPU, in every type, and compared with f64. It takes seconds, no file
/// and no network. The exit status is 1 if an answer is off.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArguments {
    /// auto, cpu, cuda or cuda:N: whether the self-test takes the GPU too; auto does when CUDA was built in and a GPU
    /// answers
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceName,
    /// CPU threads [default: all]
    #[arg(short, long, value_name = "N", value_parser = at_most::<1024>)]
    threads: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Run the checks of one place in this process and print each as a line of JSON: what the command starts itself with
    #[arg(long, hide = true, value_name = "DEVICE", conflicts_with_all = ["device", "json"])]
    checks_of: Option<DeviceName>,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer doctor
  nat-infer doctor --device cuda
  nat-infer doctor --json > machine.json";

/// Runs the command.
pub fn run(arguments: &DoctorArguments, verbosity: Verbosity) -> Result<Exit> {
    Isa::from_env()?;
    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|error| anyhow!("can't start the threads of --threads: {error}"))?;
    }
    if let Some(device) = arguments.checks_of {
        return trial::checks(device);
    }
    // Opened to see whether it can be; what computes on it is a process of its own.
    let number = match arguments.device {
        DeviceName::Cuda(number) => number,
        DeviceName::Auto | DeviceName::Cpu => 0,
    };
    // Not kept: some GPUs serve one process at a time.
    let opened = open_gpu(number).map(drop);
    let mut places: Vec<Place> = Isa::all_available().map(Place::Cpu).collect();
    if opened.is_ok() && arguments.device != DeviceName::Cpu {
        places.push(Place::Gpu(number));
    }
    let begin = Instant::now();
    let checks = tried(&places, arguments.threads, verbosity)?;
    let seconds = begin.elapsed().as_secs_f64();
    let right = checks.iter().filter(|check| check.passed).count();
    let off = checks.len() - right;
    let env = Env::from_process();
    let diagnosis = Diagnosis {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: machine::features(),
        target: machine::target(),
        processor: machine::processor(),
        instruction_sets: machine::instruction_sets(IsaChoice::of_f32(), IsaChoice::of_weights_in_bf16()),
        threads: machine::threads(arguments.threads),
        memory: nat_infer::memory::left(),
        gpu: gpu::facts(number, opened.as_ref().err().map(|none| none.why.clone())),
        caches: caches::folders(&env),
        variables: variables::set(),
        checks,
        right,
        off,
        seconds,
    };
    if arguments.json {
        let json = serde_json::to_string_pretty(&diagnosis).or_failed()?;
        print(json + "\n")?;
    } else {
        print(text::of(&diagnosis))?;
    }
    if let (Err(none), false) = (&opened, verbosity.quiet) {
        // What all other commands say of it, too.
        none.warning()
            .filter(|_| arguments.device == DeviceName::Auto)
            .iter()
            .for_each(|warning| say(warning));
    }
    if !verbosity.quiet {
        let checks = if right == 1 { "check" } else { "checks" };
        say(&format!("{right} {checks} right, {off} off, {seconds:.1} s"));
    }
    match (opened, arguments.device) {
        (Err(none), DeviceName::Cuda(number)) => Err(none.refused(number)),
        _ if off > 0 => Ok(Exit::Failed),
        _ => Ok(Exit::Success),
    }
}

/// The checks of all places, one place after the other.
fn tried(places: &[Place], threads: Option<usize>, verbosity: Verbosity) -> Result<Vec<CheckResult>> {
    // Drawn on stderr, where that is a terminal.
    let bar = if verbosity.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    let mut checks = Vec::new();
    for place in places {
        trial::of(*place, threads, &mut |check| {
            bar.set_message(format!("{}: {} {}", check.on, check.what, check.pass));
            bar.tick();
            checks.push(check);
        });
    }
    bar.finish_and_clear();
    Ok(checks)
}
