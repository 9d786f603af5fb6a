//! `nat-infer bench`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use indicatif::{ProgressBar, ProgressStyle};
use nat_convert::arch::Geometry;
use nat_infer::models::Network;
use nat_infer::results::{LayerTiming, NetworkTiming, OperatorTiming};
use nat_infer::tasks::bench::{Bench, Pass};
use nat_infer::weights::Weights;
use nat_infer::zoo::{self, Reference, Task};

use super::exit::{Exit, OrFailed, one_line, say};
use super::output::{End, Output};
use super::record::Record;
use super::settings::{Settings, default_model};
use super::shared::{ModelOptions, OutputFormat, OutputOptions, at_least_one, size};
use super::verbosity::Verbosity;

/// Time a network on this machine
///
/// With --arch, and by default, the weights are random and nothing is fetched; --model and --weights time
/// their own. The times are compared with this machine's own large matrix products, in f32 on the CPU and in
/// the compute type on a GPU, and on the CPU with multiply-adds of registers alone, which no product exceeds.
/// Where others were at work meanwhile, a line on stderr says so. GFLOP/s count two operations per
/// multiply-accumulate (MAC); `nat-infer models` lists the MACs of a network.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArguments {
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
    /// Time forward and back, to the gradient of a logit with respect to the input; classifiers only
    #[arg(long, conflicts_with_all = ["op", "profile"])]
    gradients: bool,
    #[command(flatten)]
    timed: TimedOptions,
    #[command(flatten)]
    output: OutputOptions,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer bench --arch nat-tiny --threads 2
  nat-infer bench --arch dinat-base --batch-size 1,8,16 --format json
  nat-infer bench --arch mask-rcnn-nat-mini --runs 3
  nat-infer bench --arch nat-mini --op
  nat-infer bench --arch nat-mini --profile
  nat-infer bench --arch nat-mini --gradients";

/// [`ModelOptions`] with what is different here: --arch needs no file, and --batch-size takes several numbers.
struct TimedOptions {
    /// Its batch size is the first of [`Self::batch_sizes`].
    model: ModelOptions,
    /// In the order of the command line; empty where none was given.
    batch_sizes: Vec<usize>,
}

impl FromArgMatches for TimedOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        // Before the options of a model take the first one out.
        let batch_sizes = matches.get_many(BATCH_SIZE).into_iter().flatten().copied().collect();
        Ok(Self { model: ModelOptions::from_arg_matches_mut(matches)?, batch_sizes })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for TimedOptions {
    fn augment_args(command: Command) -> Command {
        ModelOptions::augment_args(command).mut_args(|arg| match arg.get_id().as_str() {
            BATCH_SIZE => arg
                .value_name("N,...")
                .value_delimiter(',')
                .help("Images per forward pass; of several numbers each is timed [default: 1]"),
            "model" => arg.help(
                "Model by name, see `nat-infer models`, with its published weights; fetched on first use",
            ),
            "arch" => arg.help(format!(
                "Network to time with random weights, by the name of a model [default: {}]; or what \
                 --weights is",
                default_model(None)
            )),
            _ => arg,
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The name of [`ModelOptions::batch_size`] among clap's matches.
const BATCH_SIZE: &str = "batch_size";

/// Runs the command.
pub fn run(arguments: BenchArguments, verbosity: Verbosity) -> Result<Exit> {
    let TimedOptions { model: mut options, mut batch_sizes } = arguments.timed;
    // Here --arch alone is a network of random weights.
    let random = match (&options.weights, &options.model) {
        (None, None) => Some(options.arch.take().map_or_else(|| zoo::find(default_model(None)), Ok)?),
        _ => None,
    };
    let published = match &options.model {
        Some(Reference::Entry(entry)) => Some(*entry),
        _ => random,
    };
    let gradients = arguments.gradients;
    if let Some(entry) = published.filter(|entry| gradients && entry.task != Task::Classify) {
        bail!("--gradients times classifiers, `{}` is made to {}", entry.name, entry.task.name());
    }
    // Of a network with random weights these are not the model's own.
    let dilations = random.and_then(|_| options.dilations.take());
    let asked = options.batch_size;
    let settings = Settings::resolve(options, None, verbosity)?;
    let settings = if gradients { settings.gradients(asked) } else { settings };
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
    let (size, runs) = (arguments.resolution.unwrap_or(own), arguments.runs);
    if batch_sizes.is_empty() {
        batch_sizes.push(1);
    }
    let mut bench = Bench::new(model, architecture, size, device, dtype);
    (bench.runs, bench.gradients) = (runs, gradients);
    bench.check(&network)?;
    let watch = Stopwatch::new(verbosity);
    let bar = watch.bar.clone();
    bench.doubt = Some(Box::new(move |doubt| {
        if !verbosity.quiet {
            bar.suspend(|| say(&format!("note: {doubt}")));
        }
    }));
    let mut output = match (arguments.op, arguments.profile) {
        (true, _) => Output::open::<OperatorTiming>(&arguments.output)?,
        (_, true) => Output::open::<LayerTiming>(&arguments.output)?,
        _ => Output::open::<NetworkTiming>(&arguments.output)?,
    };
    let several = batch_sizes.len() > 1;
    let timed = batch_sizes.into_iter().try_for_each(|batch_size| {
        bench.batch_size = batch_size;
        bench.progress = Some(watch.of_batch(batch_size));
        if arguments.op {
            let timings = bench.operator().context("the operator can't be timed").or_failed()?;
            watch.without_bar(|| timings.iter().try_for_each(|timing| output.write(timing)))
        } else if arguments.profile {
            let timings = bench.layers(&network).context("the network can't be timed").or_failed()?;
            watch.without_bar(|| {
                if several && output.format() == OutputFormat::Table {
                    output.text(&format!("batch {batch_size}\n"))?;
                }
                timings.iter().try_for_each(|timing| output.write(timing))
            })
        } else {
            let timing = bench.network(&network).context("the network can't be timed").or_failed()?;
            watch.without_bar(|| output.write(&timing))
        }
    });
    output.finish(if timed.is_ok() { End::Complete } else { End::Early })?;
    timed?;
    #[cfg(feature = "cuda")]
    if let Some(problem) = nat_infer::cuda::recording_problem() {
        say(&format!("note: launches were timed one by one, as they could not be recorded: {problem}"));
    }
    watch.close(if arguments.op { ["call", "calls"] } else { ["pass", "passes"] }, verbosity);
    Ok(Exit::Success)
}

/// What is seen on stderr of a measurement: how far it is, on a terminal and while it lasts, and what it took.
struct Stopwatch {
    bar: ProgressBar,
    begin: Instant,
    /// Timed passes of all that was measured.
    passes: Arc<AtomicUsize>,
}

impl Stopwatch {
    fn new(verbosity: Verbosity) -> Self {
        // A new bar is drawn on stderr, where that is a terminal.
        let bar = if verbosity.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        let style = ProgressStyle::with_template("{spinner} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        // Seldom, so that drawing is nothing beside what is timed.
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, begin: Instant::now(), passes: Arc::default() }
    }

    /// What follows the passes on batches of this size.
    fn of_batch(&self, batch_size: usize) -> Box<dyn Fn(Pass) + Send + Sync> {
        let (bar, passes) = (self.bar.clone(), Arc::clone(&self.passes));
        let before = passes.load(Ordering::Relaxed);
        Box::new(move |pass| match pass {
            Pass::WarmUp => bar.set_message(format!("batch {batch_size}: warming up")),
            Pass::Timed => {
                let done = passes.fetch_add(1, Ordering::Relaxed) + 1 - before;
                bar.set_message(format!("batch {batch_size}: {done} timed"));
            }
        })
    }

    /// Lets `write` have the terminal.
    fn without_bar<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the bar away and says what was done, of what is called so where it is one and where it is several.
    fn close(&self, [pass, passes]: [&str; 2], verbosity: Verbosity) {
        self.bar.finish_and_clear();
        if !verbosity.quiet {
            let (count, seconds) = (self.passes.load(Ordering::Relaxed), self.begin.elapsed().as_secs_f64());
            let passes = if count == 1 { pass } else { passes };
            say(&format!("{count} {passes} timed in {seconds:.1} s"));
        }
    }
}

impl Drop for Stopwatch {
    /// Leaves no bar behind an error's line.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
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
        "isa_reason",
        "fma_peak_gflops",
        "share_of_fma_peak",
        "busy",
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        let known = |share: Option<f64>| share.map_or_else(String::new, |share| format!("{share:.3}"));
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
            self.isa_reason.clone().unwrap_or_default(),
            self.fma_peak_gflops.map_or_else(String::new, |peak| format!("{peak:.1}")),
            known(self.share_of_fma_peak),
            known(self.busy),
        ]]
    }

    fn table(&self) -> String {
        let Self { model, dtype, width, height, batch, threads, isa, .. } = self;
        let memory = self.peak_mb.map_or_else(String::new, |mb| format!(", {mb} MB at most"));
        let back = if self.gradients { ", forward and back" } else { "" };
        let share = |part: f64, of: &str, peak: f64| format!(", {:.0}% of {of} ({peak:.1})", 100.0 * part);
        let (of_fma, whose) = match (self.share_of_fma_peak, self.fma_peak_gflops) {
            (Some(part), Some(peak)) => (share(part, "this machine's multiply-adds", peak), "its"),
            _ => (String::new(), "this machine's"),
        };
        let of_product =
            share(self.share_of_peak, &format!("{whose} largest products"), self.sgemm_peak_gflops);
        let reason =
            self.isa_reason.as_ref().map_or_else(String::new, |reason| format!("  {isa}: {reason}\n"));
        // A checkpoint is called as its file.
        let model = one_line(model);
        format!(
            "{model}, {width}x{height}, batch {batch}, {dtype}, {threads} thread(s), {isa}{back}\n  \
             {:.2} ms per image (median of {} runs; {:.2} to {:.2}), {:.1} images/s{memory}\n  \
             {:.1} GFLOP/s{of_fma}{of_product}\n{reason}",
            self.median_ms, self.runs, self.min_ms, self.max_ms, self.images_per_second, self.gflops,
        )
    }
}

impl Record for LayerTiming {
    const COLUMNS: &'static [&'static str] = &["kind", "ms", "share", "gflops", "batch"];

    fn rows(&self) -> Vec<Vec<String>> {
        let Self { kind, batch, ms, share, gflops } = self;
        let numbers = [format!("{ms:.4}"), format!("{share:.4}"), format!("{gflops:.1}"), batch.to_string()];
        vec![std::iter::once(kind.clone()).chain(numbers).collect()]
    }

    fn table(&self) -> String {
        let Self { kind, ms, share, gflops, .. } = self;
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
