//! Timings of a whole network, or of the attention operator alone, beside the machine's own peak.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use nat_convert::arch::Architecture;

use self::load::{LoadWatch, MachineLoad};
use super::TaskError;
use crate::attention::NeighborhoodAttention;
use crate::layers::on_pool;
use crate::models::Network;
use crate::models::detector::{Picture, Selection};
use crate::profile::{self, Kind};
use crate::results::{LayerTiming, NetworkTiming, OperatorTiming};
use crate::simd::IsaChoice;

mod load;

/// What to time, and how.
#[non_exhaustive]
pub struct Bench {
    /// The name to print.
    pub model: String,
    /// The network.
    pub architecture: Architecture,
    /// Width and height of the input in pixels.
    pub size: [usize; 2],
    /// Images per forward pass.
    pub batch_size: usize,
    /// Timed passes; `None` goes on for about five seconds, and at least five passes.
    pub runs: Option<usize>,
    /// Go back too, to the gradient of a logit with respect to the input: of classifiers that have gradients.
    pub gradients: bool,
    /// The compute type.
    pub dtype: DType,
    /// Where to run.
    pub device: Device,
    /// Is told of every pass: of the network, or of the operator on one map.
    pub progress: Option<Box<dyn Fn(Pass) + Send + Sync>>,
    /// Is told in a sentence why times are not to be trusted, once a measurement at most: other programs were at work, or
    /// the clock changed.
    pub doubt: Option<DoubtListener>,
}

/// What is told of times that are not to be trusted, in a sentence.
pub type DoubtListener = Box<dyn Fn(&str) + Send + Sync>;

/// A pass, as [`Bench::progress`] is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// One that is about to begin and is not timed: caches and clocks have to settle first.
    WarmUp,
    /// One that was timed and is done.
    Timed,
}

impl Bench {
    /// Single images of `size`, width and height, through a network that is called `model`, there and not back.
    pub fn new(
        model: String,
        architecture: Architecture,
        size: [usize; 2],
        device: Device,
        dtype: DType,
    ) -> Self {
        let (batch_size, runs, gradients, progress, doubt) = (1, None, false, None, None);
        Self { model, architecture, size, batch_size, runs, gradients, dtype, device, progress, doubt }
    }

    /// Whether `network` can be timed like this, before anything is.
    ///
    /// # Errors
    /// [`TaskError::NoGradients`] when gradients are asked of a network that is no classifier.
    pub fn check(&self, network: &Network) -> Result<(), TaskError> {
        match network {
            Network::Detector(_) | Network::Segmenter(_) if self.gradients => {
                Err(TaskError::NoGradients { model: self.model.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Times passes of `network` on random images.
    ///
    /// # Errors
    /// Those of [`Bench::check`], and when the network refuses the size.
    pub fn network(&self, network: &Network) -> Result<NetworkTiming, TaskError> {
        self.check(network)?;
        self.time(network).map_err(|error| self.compute_error(error))
    }

    fn compute_error(&self, error: candle_core::Error) -> TaskError {
        TaskError::Compute { model: self.model.clone(), error }
    }

    fn time(&self, network: &Network) -> candle_core::Result<NetworkTiming> {
        let ([width, height], batch) = (self.size, self.batch_size);
        let images = self.images(network)?;
        let times = self.measure(|| self.pass(network, &images))?;
        self.tell(times.doubt());
        // Taken before the product below, which is no part of the network.
        let peak_mb = peak_memory().map(|bytes| bytes >> 20);
        // A product's gradient is another product.
        let macs = self.architecture.macs(height, width) * if self.gradients { 2 } else { 1 };
        let gflops = 2e-9 * macs as f64 * batch as f64 / times.median();
        let peak = self.matmul_peak()?;
        let fma_peak = times.load.peak();
        let choice = self.choice();
        let per_image = 1e3 / batch as f64;
        Ok(NetworkTiming {
            engine: "nat-infer".to_owned(),
            model: self.model.clone(),
            batch,
            width,
            height,
            dtype: self.dtype.as_str().to_owned(),
            gradients: self.gradients,
            threads: rayon::current_num_threads(),
            isa: choice.map_or("cuda", |choice| choice.isa.name()).to_owned(),
            isa_reason: choice.map(|choice| choice.why.to_string()),
            median_ms: per_image * times.median(),
            min_ms: per_image * times.min(),
            max_ms: per_image * times.max(),
            images_per_second: batch as f64 / times.median(),
            gflops,
            sgemm_peak_gflops: peak,
            share_of_peak: gflops / peak,
            fma_peak_gflops: fma_peak,
            share_of_fma_peak: fma_peak.map(|peak| gflops / peak),
            runs: times.sorted.len(),
            peak_mb,
            busy: times.load.busy,
        })
    }

    /// What multiplies the network's weights: on the CPU.
    fn choice(&self) -> Option<IsaChoice> {
        match (&self.device, self.dtype) {
            (Device::Cpu, DType::BF16) => Some(IsaChoice::of_weights_in_bf16()),
            (Device::Cpu, _) => Some(IsaChoice::of_f32()),
            _ => None,
        }
    }

    /// Says why times are not to be trusted, if there is a reason.
    fn tell(&self, doubt: Option<String>) {
        if let (Some(tell), Some(doubt)) = (&self.doubt, doubt) {
            tell(&doubt);
        }
    }

    /// Noise of the input's size, padded as the task pads.
    fn images(&self, network: &Network) -> candle_core::Result<Tensor> {
        let [width, height] = match network {
            Network::Detector(_) => self.size.map(|side| side.next_multiple_of(32)),
            _ => self.size,
        };
        Tensor::randn(0f32, 1.0, (self.batch_size, 3, height, width), &self.device)?.to_dtype(self.dtype)
    }

    /// One pass. A detector keeps as many objects as it may, so that all its heads work.
    fn pass(&self, network: &Network, images: &Tensor) -> candle_core::Result<()> {
        match network {
            Network::Classifier(network) if self.gradients => {
                network.gradients(images, &vec![0; self.batch_size])?.device().synchronize()
            }
            _ if self.gradients => candle_core::bail!("only classifiers have gradients"),
            Network::Classifier(network) => network.forward(images)?.device().synchronize(),
            Network::Segmenter(network) => network.forward(images)?.device().synchronize(),
            Network::Detector(network) => {
                let picture = Picture { size: self.size.map(|side| side as f32), scale_factor: [1.0; 2] };
                let selection = Selection { score_threshold: 0.0, ..network.selection() };
                let detected = network.forward(images, &vec![picture; self.batch_size], selection, true)?;
                if detected.iter().any(Option::is_none) {
                    candle_core::bail!("proposals or scores are no numbers, so not all of its heads work");
                }
                Ok(())
            }
        }
    }

    /// Says where the time of `network`'s forward passes goes, kind by kind of layer; `rest` is what is
    /// in none, `total` is all.
    ///
    /// # Errors
    /// As [`Bench::network`].
    pub fn layers(&self, network: &Network) -> Result<Vec<LayerTiming>, TaskError> {
        self.check(network)?;
        self.time_layers(network).map_err(|error| self.compute_error(error))
    }

    fn time_layers(&self, network: &Network) -> candle_core::Result<Vec<LayerTiming>> {
        let (images, batch) = (self.images(network)?, self.batch_size);
        // A recording is of one thread: of the one that the network itself will run on.
        let (times, totals) =
            on_pool(&self.device, || profile::record(|| self.measure(|| self.pass(network, &images))));
        let times = times?;
        self.tell(times.doubt());
        // Warm-up runs are recorded too, so everything is seen as a share of what was recorded.
        let (passes, seconds) = (times.passes as f64, times.seconds);
        let timing = |kind: &str, seconds: f64, macs: f64| LayerTiming {
            kind: kind.to_owned(),
            batch,
            ms: 1e3 * seconds / passes / batch as f64,
            share: seconds / times.seconds,
            gflops: 2e-9 * macs / seconds,
        };
        let kinds = Kind::ALL.into_iter().zip(&totals).filter(|(_, total)| total.calls > 0);
        let mut rows: Vec<_> = kinds
            .map(|(kind, total)| timing(kind.name(), total.time.as_secs_f64(), total.macs as f64))
            .collect();
        let inside: f64 = totals.iter().map(|total| total.time.as_secs_f64()).sum();
        let macs: u64 = totals.iter().map(|total| total.macs).sum();
        rows.push(timing("rest", seconds - inside, 0.0));
        rows.push(timing("total", seconds, macs as f64));
        Ok(rows)
    }

    /// Times the attention operator on each level's map, with dilation 1 and the level's largest.
    ///
    /// # Errors
    /// When a map does not suit the operator.
    pub fn operator(&self) -> Result<Vec<OperatorTiming>, TaskError> {
        self.time_operator().map_err(|error| self.compute_error(error))
    }

    fn time_operator(&self) -> candle_core::Result<Vec<OperatorTiming>> {
        let (backbone, batch) = (&self.architecture.backbone, self.batch_size);
        let [widths, heights] = self.size.map(|side| backbone.map_sides(side));
        let (mut timings, mut doubt) = (Vec::new(), None);
        for (l, dilations) in backbone.dilations.iter().enumerate() {
            let (dim, heads, kernel_size) = (backbone.dim(l), backbone.num_heads[l], backbone.kernel_size);
            let mut dilations = vec![1, dilations.iter().copied().max().unwrap_or(1)];
            dilations.dedup();
            for dilation in dilations {
                let (width, height) = (widths[l], heights[l]);
                let operator = NeighborhoodAttention { heads, kernel_size, dilation };
                let table = (heads, 2 * kernel_size - 1, 2 * kernel_size - 1);
                let qkv = Tensor::randn(0f32, 1.0, (batch, height, width, 3 * dim), &self.device)?;
                let rpb = Tensor::randn(0f32, 1.0, table, &self.device)?.to_dtype(self.dtype)?;
                let qkv = qkv.to_dtype(self.dtype)?;
                // A GPU is given many calls at once, else it would be the way to it that is timed.
                let calls = if self.device.is_cpu() { 1 } else { 50 };
                let call = || {
                    for _ in 0..calls {
                        match backbone.family.attends_whole_map() {
                            true => operator.forward(&qkv, Some(&rpb))?,
                            false => operator.forward_padded(&qkv, Some(&rpb), None)?,
                        };
                    }
                    self.device.synchronize()
                };
                let times = on_pool(&self.device, || self.measure(call))?;
                doubt = doubt.or_else(|| times.doubt());
                let [median, min] = [times.median(), times.min()].map(|seconds| seconds / f64::from(calls));
                let bytes = (qkv.elem_count() * 4 / 3 + rpb.elem_count()) * self.dtype.size_in_bytes();
                let macs = 2 * batch * height * width * kernel_size.pow(2) * dim;
                timings.push(OperatorTiming {
                    level: l + 1,
                    batch,
                    width,
                    height,
                    heads,
                    head_dim: dim / heads,
                    kernel_size,
                    dilation,
                    threads: rayon::current_num_threads(),
                    median_ms: 1e3 * median,
                    min_ms: 1e3 * min,
                    gflops: 2e-9 * macs as f64 / median,
                    gb_per_second: 1e-9 * bytes as f64 / median,
                    runs: times.sorted.len(),
                });
            }
        }
        self.tell(doubt);
        Ok(timings)
    }

    /// GFLOP/s of a large square product: what this machine can do. On the CPU in f32, by the crate `gemm`,
    /// which candle uses; on a GPU in the compute type, by cuBLAS.
    fn matmul_peak(&self) -> candle_core::Result<f64> {
        let (side, dtype) = if self.device.is_cpu() { (1024, DType::F32) } else { (8192, self.dtype) };
        let a = Tensor::randn(0f32, 1.0, (side, side), &self.device)?.to_dtype(dtype)?;
        let best =
            RunTimes::measure(Some(15), |_| (), || None, || a.matmul(&a)?.device().synchronize())?.min();
        Ok(2e-9 * (side as f64).powi(3) / best)
    }

    fn measure(&self, run: impl FnMut() -> candle_core::Result<()>) -> candle_core::Result<RunTimes> {
        let watch = || self.choice().map(|choice| LoadWatch::begin(choice.isa));
        RunTimes::measure(
            self.runs,
            |pass| self.progress.iter().for_each(|progress| progress(pass)),
            watch,
            run,
        )
    }
}

/// What was measured.
struct RunTimes {
    /// Seconds of each timed run, ascending; never empty.
    sorted: Vec<f64>,
    /// Seconds of all runs, the warm-up's too.
    seconds: f64,
    /// How many those are.
    passes: usize,
    /// What the machine did beside, where it was watched.
    load: MachineLoad,
}

impl RunTimes {
    /// Times passes of `run`; `watch` begins to watch the machine when the timed ones begin.
    fn measure(
        runs: Option<usize>,
        progress: impl Fn(Pass),
        watch: impl FnOnce() -> Option<LoadWatch>,
        mut run: impl FnMut() -> candle_core::Result<()>,
    ) -> candle_core::Result<Self> {
        const WARM_UP: usize = 2;
        const LONG_ENOUGH: Duration = Duration::from_secs(5);
        const AT_LEAST: usize = 5;
        let begin = Instant::now();
        for _ in 0..WARM_UP {
            progress(Pass::WarmUp);
            run()?;
        }
        // The clock has settled. What watching takes is no part of all passes' time.
        let (paused, watch) = (Instant::now(), watch());
        let paused = paused.elapsed();
        let mut times = Vec::new();
        let wanted = |done: usize| match runs {
            Some(runs) => done < runs.max(1),
            None => done < AT_LEAST || begin.elapsed() < LONG_ENOUGH,
        };
        while wanted(times.len()) {
            let start = Instant::now();
            run()?;
            times.push(start.elapsed().as_secs_f64());
            progress(Pass::Timed);
        }
        let (seconds, passes) = ((begin.elapsed() - paused).as_secs_f64(), WARM_UP + times.len());
        let load = watch.map(LoadWatch::end).unwrap_or_default();
        times.sort_by(f64::total_cmp);
        Ok(Self { sorted: times, seconds, passes, load })
    }

    /// Why these times are not to be trusted.
    fn doubt(&self) -> Option<String> {
        self.load.doubt(&self.sorted)
    }

    fn median(&self) -> f64 {
        self.sorted[self.sorted.len() / 2]
    }

    fn min(&self) -> f64 {
        self.sorted[0]
    }

    fn max(&self) -> f64 {
        self.sorted[self.sorted.len() - 1]
    }
}

/// The largest resident set of this process so far, in bytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
