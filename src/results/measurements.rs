//! What `bench` and `doctor` say of a machine.

use serde::{Deserialize, Serialize};

/// How fast `bench` found a network. Times are of one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkTiming {
    /// `nat-infer`, so that records of several programs can be told apart.
    pub engine: String,
    /// The model, as in [`Classification::model`](super::Classification::model).
    pub model: String,
    /// Images per forward pass.
    pub batch: usize,
    /// Width of the input in pixels.
    pub width: usize,
    /// Height of the input in pixels.
    pub height: usize,
    /// The compute type.
    pub dtype: String,
    /// Whether a pass goes back too, to the gradient of a logit with respect to the input.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gradients: bool,
    /// CPU threads.
    pub threads: usize,
    /// Instruction set of the CPU kernels: what multiplied the weights, `avx512bf16` of products in bf16. On a GPU `cuda`.
    pub isa: String,
    /// Why that one; `None` on a GPU.
    #[serde(default)]
    pub isa_reason: Option<String>,
    /// Median over the runs, milliseconds per image.
    pub median_ms: f64,
    /// Fastest run, milliseconds per image.
    pub min_ms: f64,
    /// Slowest run, milliseconds per image.
    pub max_ms: f64,
    /// Images per second at the median.
    pub images_per_second: f64,
    /// Arithmetic at the median: two operations for each multiply-accumulate of a forward pass, and with
    /// gradients as many for the way back.
    pub gflops: f64,
    /// GFLOP/s of a large product: f32, 1024x1024x1024 on the same threads; on a GPU 8192x8192x8192 in
    /// the compute type.
    pub sgemm_peak_gflops: f64,
    /// `gflops` over `sgemm_peak_gflops`.
    pub share_of_peak: f64,
    /// GFLOP/s of multiply-adds that read and write registers alone, with the same instruction set and threads: what no
    /// product exceeds. `None` on a GPU.
    #[serde(default)]
    pub fma_peak_gflops: Option<f64>,
    /// `gflops` over `fma_peak_gflops`.
    #[serde(default)]
    pub share_of_fma_peak: Option<f64>,
    /// Timed forward passes.
    pub runs: usize,
    /// Largest resident set of the program so far in MiB, where the system tells.
    pub peak_mb: Option<u64>,
    /// Share of the time of the processors that the program may have, 0 to 1, that went to other programs, or to other
    /// machines on the same host, during the timed passes. `None` where the system does not tell, of less than a second,
    /// and on a GPU.
    #[serde(default)]
    pub busy: Option<f64>,
}

/// How fast `bench --op` found the attention operator on one level's map. Times are of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorTiming {
    /// Level of the network, from 1.
    pub level: usize,
    /// Maps per call.
    pub batch: usize,
    /// Width of the map.
    pub width: usize,
    /// Height of the map.
    pub height: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Neighbours on each axis.
    pub kernel_size: usize,
    /// Distance between neighbours.
    pub dilation: usize,
    /// CPU threads.
    pub threads: usize,
    /// Median over the runs, milliseconds per call.
    pub median_ms: f64,
    /// Fastest run, milliseconds per call.
    pub min_ms: f64,
    /// Arithmetic at the median: two operations for each multiply-accumulate.
    pub gflops: f64,
    /// The least that has to move, qkv and the bias once in and the result once out, over the median.
    pub gb_per_second: f64,
    /// Timed calls, on a GPU each of 50.
    pub runs: usize,
}

/// What `bench --profile` found of one kind of layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerTiming {
    /// `convolution`, `qkv`, `attention`, `proj`, `mlp`, `norm`, `linear`; `rest` and `total`.
    pub kind: String,
    /// Images per forward pass.
    pub batch: usize,
    /// Milliseconds per image, the mean over the runs.
    pub ms: f64,
    /// Share of the total time.
    pub share: f64,
    /// Arithmetic in that time: two operations for each multiply-accumulate.
    pub gflops: f64,
}

/// What `doctor --json` says of a machine and of what this program computes on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Of the program.
    pub version: String,
    /// What was built into the program.
    pub features: Vec<String>,
    /// What it was built for: `x86_64-linux`.
    pub target: String,
    /// The processor's name, where the system tells.
    pub processor: Option<String>,
    /// Every instruction set that there are kernels for, the preferred one last.
    pub instruction_sets: Vec<InstructionSet>,
    /// The threads of a run.
    pub threads: ThreadCount,
    /// Bytes of memory that are left to this process, where the system tells.
    pub memory: Option<u64>,
    /// The GPU.
    pub gpu: GpuFacts,
    /// Where files of models are kept.
    pub caches: Vec<CacheFolder>,
    /// The variables of the environment that are set and that count, without anything secret.
    pub variables: Vec<Variable>,
    /// The self-test.
    pub checks: Vec<CheckResult>,
    /// How many of them are right.
    pub right: usize,
    /// How many are not.
    pub off: usize,
    /// How long the self-test took.
    pub seconds: f64,
}

/// An instruction set of the CPU's kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstructionSet {
    /// `portable`, `avx2`, …
    pub name: String,
    /// Whether the processor has it.
    pub found: bool,
    /// Whether a run computes with it.
    pub used: bool,
    /// Why it is used or not.
    pub why: String,
}

/// How many threads a run has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadCount {
    /// So many.
    pub used: usize,
    /// What says so.
    pub why: String,
    /// Processors of the machine, where the system tells.
    pub processors: Option<usize>,
}

/// What is known of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuFacts {
    /// Whether CUDA was built into the program.
    pub built_in: bool,
    /// Whether it computes, as far as opening it tells.
    pub usable: bool,
    /// Why it does not.
    pub why: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its compute capability, as `9.0`.
    pub compute_capability: Option<String>,
    /// Bytes of its memory.
    pub memory: Option<u64>,
    /// The driver's version, where the system tells.
    pub driver: Option<String>,
    /// The newest CUDA that the driver runs, as `13.0`.
    pub cuda: Option<String>,
    /// NVIDIA's libraries.
    pub libraries: Vec<GpuLibrary>,
}

/// A library of NVIDIA's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuLibrary {
    /// Its file, that of its newest version where none was found.
    pub name: String,
    /// Whether this machine has it.
    pub found: bool,
}

/// A folder where files of models are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheFolder {
    /// `hub` or `nat-infer`.
    pub name: String,
    /// Where it is; `None` where nothing says so.
    pub path: Option<String>,
    /// Whether it is there. It is made when it is needed.
    pub exists: bool,
    /// Whether it, or the folder that it would be made in, can be written to.
    pub writable: bool,
    /// Bytes that its disk has left, where the system tells.
    pub free: Option<u64>,
}

/// A variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What it is set to; of a token that it is `set`, of an address what is not secret.
    pub value: String,
}

/// What a check of the self-test found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// `operator`, a kind of network (`nat`, `dinat`, `dinat-s`, `isotropic`, `vit-rpb`, `mask-rcnn`, `cascade-mask-rcnn`,
    /// `upernet`), or `process` where the part of the program that checks ended early.
    pub what: String,
    /// `forward`, or `backward` for gradients; empty of a `process`.
    pub pass: String,
    /// The compute type; empty of a `process`.
    pub dtype: String,
    /// An instruction set, or `cuda`.
    pub on: String,
    /// Which of the results is furthest off.
    pub stage: String,
    /// How far that is off, ‖got − want‖ / ‖want‖; `None` of what is no number, and where nothing was computed.
    pub error: Option<f64>,
    /// How far it may be off.
    pub tolerance: f64,
    /// Whether it is not further off than that.
    pub passed: bool,
    /// Why nothing was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
