//! `nat-infer bench`.

use anyhow::{Context, Result};
use clap::Args;
use nat_convert::arch::Geometry;
use nat_infer::models::Network;
use nat_infer::results::{LayerTiming, NetworkTiming, OperatorTiming};
use nat_infer::tasks::bench::Bench;
use nat_infer::weights::Weights;
use nat_infer::zoo;

use super::Verbosity;
use super::exit::{Exit, OrFailed};
use super::output::{End, Output, Record};
use super::settings::Settings;
use super::shared::{ModelOptions, OutputOptions, at_least_one, size};

/// Time a network on this machine
///
/// With --arch, and by default of nat-tiny, the weights are random and nothing is fetched; with --model
/// or --weights they are those. Beside the times stands what share that is of the machine's own
/// large matrix products, in f32 on the CPU and in the compute type on a GPU.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Size of the input in pixels: N or WIDTHxHEIGHT [default: the model's]
    #[arg(long, value_name = "N", value_parser = size)]
    resolution: Option<[usize; 2]>,
    /// Timed passes [default: at least 5, for about 5 seconds]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    runs: Option<usize>,
    /// Time the neighborhood attention operator alone, at each level
    #[arg(long)]
    op: bool,
    /// Say where the time goes, by kind of layer
    #[arg(long, conflicts_with = "op")]
    profile: bool,
    /// Time forward and back, to the gradient of a logit with respect to the input; of classifiers
    #[arg(long, conflicts_with_all = ["op", "profile"])]
    gradients: bool,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    output: OutputOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer bench --arch nat-tiny --threads 2
  nat-infer bench --arch dinat-base --batch-size 16 --format json
  nat-infer bench --arch mask-rcnn-nat-mini --runs 3
  nat-infer bench --arch nat-mini --op
  nat-infer bench --arch nat-mini --profile
  nat-infer bench --arch nat-mini --gradients";

/// Runs the command.
pub fn run(mut arguments: Arguments, verbosity: Verbosity) -> Result<Exit> {
    // Here --arch alone is a network of random weights.
    let random = match (&arguments.model.weights, &arguments.model.model) {
        (None, None) => Some(arguments.model.arch.take().map_or_else(|| zoo::find("nat-tiny"), Ok)?),
        _ => None,
    };
    let dilations = random.and_then(|_| arguments.model.dilations.take());
    let batch_size = arguments.model.batch_size;
    let gradients = arguments.gradients;
    let settings = Settings::resolve(arguments.model, None, verbosity)?;
    let settings = if gradients { settings.gradients(batch_size) } else { settings };
    let (dtype, device) = (settings.dtype(), settings.device().clone());
    let (model, architecture, preprocessing, network) = match random {
        Some(entry) => {
            let mut architecture = entry.architecture.clone();
            if let Some(dilations) = dilations {
                architecture.backbone.dilations = dilations.expand(&architecture.backbone.depths)?;
            }
            let weights = Weights::random(0, dtype, device.clone());
            let weights = if gradients { weights.differentiable() } else { weights };
            let network = Network::new(&architecture, &weights)?;
            (entry.name.clone(), architecture, entry.preprocessing.clone(), network)
        }
        None => {
            let (name, metadata, network) = settings.load()?.into_parts();
            (name, metadata.architecture, metadata.preprocessing, network)
        }
    };
    let own = match preprocessing.geometry {
        Geometry::Crop { resolution, .. } => [resolution; 2],
        Geometry::Scale { scale, .. } => scale,
    };
    let size = arguments.resolution.unwrap_or(own);
    let batch_size = batch_size.unwrap_or(1);
    let runs = arguments.runs;
    let bench = Bench { model, architecture, size, batch_size, runs, gradients, dtype, device };
    if arguments.op {
        let mut output = Output::open::<OperatorTiming>(&arguments.output)?;
        for timing in bench.operator().context("the operator can't be timed").or_failed()? {
            output.write(&timing)?;
        }
        output.finish(End::Complete)?;
    } else if arguments.profile {
        let mut output = Output::open::<LayerTiming>(&arguments.output)?;
        for timing in bench.layers(&network).context("the network can't be timed").or_failed()? {
            output.write(&timing)?;
        }
        output.finish(End::Complete)?;
    } else {
        let mut output = Output::open::<NetworkTiming>(&arguments.output)?;
        output.write(&bench.network(&network).context("the network can't be timed").or_failed()?)?;
        output.finish(End::Complete)?;
    }
    Ok(Exit::Success)
}

impl Record for NetworkTiming {
    const COLUMNS: &'static [&'static str] = &[
        "model",
        "dtype",
        "width",
        "height",
        "batch",
        "threads",
        "isa",
        "median_ms",
        "min_ms",
        "max_ms",
        "images_per_second",
        "gflops",
        "sgemm_peak_gflops",
        "share_of_peak",
        "runs",
        "peak_mb",
        "gradients",
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.model.clone(),
            self.dtype.clone(),
            self.width.to_string(),
            self.height.to_string(),
            self.batch.to_string(),
            self.threads.to_string(),
            self.isa.clone(),
            format!("{:.3}", self.median_ms),
            format!("{:.3}", self.min_ms),
            format!("{:.3}", self.max_ms),
            format!("{:.2}", self.images_per_second),
            format!("{:.1}", self.gflops),
            format!("{:.1}", self.sgemm_peak_gflops),
            format!("{:.3}", self.share_of_peak),
            self.runs.to_string(),
            self.peak_mb.map_or_else(String::new, |mb| mb.to_string()),
            self.gradients.to_string(),
        ]]
    }

    fn table(&self) -> String {
        let Self { model, dtype, width, height, batch, threads, isa, .. } = self;
        let memory = self.peak_mb.map_or_else(String::new, |mb| format!(", {mb} MB at most"));
        let back = if self.gradients { ", forward and back" } else { "" };
        format!(
            "{model}, {width}x{height}, batch {batch}, {dtype}, {threads} thread(s), {isa}{back}\n  \
             {:.2} ms an image (median of {} runs; {:.2} to {:.2}), {:.1} images/s\n  \
             {:.1} GFLOP/s, {:.0}% of this machine's largest products ({:.1}){memory}\n",
            self.median_ms,
            self.runs,
            self.min_ms,
            self.max_ms,
            self.images_per_second,
            self.gflops,
            100.0 * self.share_of_peak,
            self.sgemm_peak_gflops,
        )
    }
}

impl Record for LayerTiming {
    const COLUMNS: &'static [&'static str] = &["kind", "ms", "share", "gflops"];

    fn rows(&self) -> Vec<Vec<String>> {
        let Self { kind, ms, share, gflops } = self;
        vec![vec![kind.clone(), format!("{ms:.4}"), format!("{share:.4}"), format!("{gflops:.1}")]]
    }

    fn table(&self) -> String {
        let Self { kind, ms, share, gflops } = self;
        format!("{kind:12} {ms:9.3} ms {:5.1}% {gflops:7.1} GFLOP/s\n", 100.0 * share)
    }
}

impl Record for OperatorTiming {
    const COLUMNS: &'static [&'static str] = &[
        "level",
        "batch",
        "width",
        "height",
        "heads",
        "head_dim",
        "kernel_size",
        "dilation",
        "threads",
        "median_ms",
        "min_ms",
        "gflops",
        "gb_per_second",
        "runs",
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        let sizes = [
            self.level,
            self.batch,
            self.width,
            self.height,
            self.heads,
            self.head_dim,
            self.kernel_size,
            self.dilation,
            self.threads,
        ];
        let mut row: Vec<String> = sizes.iter().map(usize::to_string).collect();
        row.extend([format!("{:.4}", self.median_ms), format!("{:.4}", self.min_ms)]);
        row.extend([format!("{:.1}", self.gflops), format!("{:.2}", self.gb_per_second)]);
        row.push(self.runs.to_string());
        vec![row]
    }

    fn table(&self) -> String {
        let Self { level, batch, width, height, heads, head_dim, kernel_size, dilation, .. } = self;
        format!(
            "level {level}: {width}x{height}, batch {batch}, {heads} heads of {head_dim}, kernel {kernel_size}, \
             dilation {dilation}: {:.3} ms (best {:.3}), {:.1} GFLOP/s, {:.1} GB/s\n",
            self.median_ms, self.min_ms, self.gflops, self.gb_per_second
        )
    }
}
