//! The options that several commands have, as they are typed.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use nat_convert::arch::Dilations;
use nat_infer::images::PictureFormat;
use nat_infer::images::draw::Legend;
use nat_infer::images::preprocess::MAX_SIDE;
use nat_infer::zoo::{self, Entry, Reference, UnknownModel};

/// Which model, and where and how it computes.
#[derive(Args)]
#[command(next_help_heading = "Model")]
pub struct ModelOptions {
    // The default, which is each command's own, is added where the commands are put together.
    /// Model by name, see `nat-infer models`, or a repository of the Hub, user/repo[@revision];
    /// fetched on first use
    #[arg(short, long, value_name = "NAME", conflicts_with = "weights")]
    pub model: Option<Reference>,
    /// Checkpoint instead: a file or folder of ours, of PyTorch or of Transformers, or the address of
    /// a file, which is fetched on first use
    #[arg(short, long, value_name = "PATH|URL")]
    pub weights: Option<PathBuf>,
    /// What --weights or a repository is, by the name of a model: supplies what the file can't say
    #[arg(long, value_name = "NAME", value_parser = known_model)]
    pub arch: Option<&'static Entry>,
    /// Dilations: levels split by `/`, a level's list repeats along it, e.g. 1,8/1,4/1,2/1
    #[arg(long, value_name = "LEVELS")]
    pub dilations: Option<Dilations>,
    /// Key under which the file of --weights holds the weights (state_dict, state_dict_ema, …), or what the
    /// names of one of several networks begin with (teacher) [default: an average (EMA) if there is one]
    #[arg(long, value_name = "KEY")]
    pub weights_key: Option<String>,
    /// Leave out the tensors whose names in the file are like this (`*` any characters, `?` one); may be
    /// repeated
    #[arg(long, value_name = "GLOB")]
    pub ignore: Vec<String>,
    /// auto, cpu, cuda or cuda:N; auto takes CUDA when it was built in and a GPU answers
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
    /// Type to compute in [default: f32 on the CPU, f16 on CUDA]
    #[arg(long, value_enum)]
    pub dtype: Option<DTypeName>,
    /// CPU threads [default: all]
    #[arg(short, long, value_name = "N", value_parser = at_most::<1024>)]
    pub threads: Option<usize>,
    /// Images per forward pass [default: chosen for the device]
    #[arg(short, long, value_name = "N", value_parser = at_most::<1024>)]
    pub batch_size: Option<usize>,
    /// Use what is in the cache and make no request
    #[arg(long)]
    pub offline: bool,
}

/// How images become a classifier's inputs.
#[derive(Args)]
#[command(next_help_heading = "Images")]
pub struct CropOptions {
    /// Side of the square input in pixels [default: the model's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub resolution: Option<usize>,
    /// Share of the resized short side that the crop keeps, up to 1 [default: the model's]
    #[arg(long, value_name = "X")]
    pub crop_pct: Option<f64>,
}

/// How pictures are saved.
#[derive(Args)]
#[command(next_help_heading = "Pictures")]
pub struct PictureOptions {
    /// Format of the pictures
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "png", requires = "save")]
    pub save_format: SaveFormat,
}

/// Where what explains a picture stands.
#[derive(Args)]
#[command(next_help_heading = "Pictures")]
pub struct LegendOptions {
    /// Where the picture is explained
    #[arg(long, value_enum, value_name = "PLACE", default_value = "beside", requires = "save")]
    pub legend: LegendPlace,
}

/// How much of masks and classes covers the image.
#[derive(Args)]
#[command(next_help_heading = "Pictures")]
pub struct OpacityOptions {
    /// How much of a mask's or class's colour its pixels take in pictures, from 0 (edges alone) to 1 (nothing shines
    /// through)
    #[arg(long, value_name = "X", default_value_t = 0.5, value_parser = part, requires = "save")]
    pub opacity: f32,
}

/// `--save-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SaveFormat {
    /// Exact
    Png,
    /// A third of the size or less, not quite exact, up to 65500 pixels a side
    Jpeg,
    /// Exact (lossless), smaller than png, up to 16383 pixels a side
    Webp,
}

impl From<SaveFormat> for PictureFormat {
    fn from(format: SaveFormat) -> Self {
        match format {
            SaveFormat::Png => Self::Png,
            SaveFormat::Jpeg => Self::Jpeg,
            SaveFormat::Webp => Self::Webp,
        }
    }
}

/// `--legend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LegendPlace {
    /// On the picture
    Inside,
    /// To its right or below, where it covers no pixel
    Beside,
    /// Nowhere
    Off,
}

impl From<LegendPlace> for Legend {
    fn from(place: LegendPlace) -> Self {
        match place {
            LegendPlace::Inside => Self::Inside,
            LegendPlace::Beside => Self::Beside,
            LegendPlace::Off => Self::Off,
        }
    }
}

/// How results are written, and where.
#[derive(Args)]
#[command(next_help_heading = "Results")]
pub struct OutputOptions {
    /// How results are written [default: by the extension of --output, else table on a terminal and jsonl otherwise]
    #[arg(short, long, value_enum)]
    pub format: Option<OutputFormat>,
    /// File for the results, - for stdout; it grows as PATH.partial and gets its name when the run ends
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Replace a file that is no earlier result, or what an interrupted run left; never an input
    #[arg(long)]
    pub overwrite: bool,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Table,
    /// One array
    Json,
    /// One object per line
    Jsonl,
    /// With a header
    Csv,
    /// COCO's list of results (detect)
    Coco,
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum DTypeName {
    F32,
    F16,
    Bf16,
}

/// `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// CUDA if there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl FromStr for DeviceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None => match text {
                "auto" => Ok(Self::Auto),
                "cpu" => Ok(Self::Cpu),
                "cuda" => Ok(Self::Cuda(0)),
                _ => Err("auto, cpu, cuda and cuda:N are devices"),
            },
            Some(("cuda", number)) => {
                number.parse().map(Self::Cuda).map_err(|_| "the GPU's number follows `cuda:`")
            }
            Some(_) => Err("auto, cpu, cuda and cuda:N are devices"),
        }
    }
}

/// A count that is not 0.
pub fn at_least_one(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|&n| n > 0).ok_or("a whole number from 1 is wanted")
}

/// A count that a machine can serve: what is far beyond only exhausts its memory.
pub fn at_most<const MOST: usize>(text: &str) -> Result<usize, String> {
    at_least_one(text)
        .ok()
        .filter(|&n| n <= MOST)
        .ok_or_else(|| format!("a whole number from 1 to {MOST} is wanted"))
}

/// A number from 0 to 1.
pub fn part(text: &str) -> Result<f32, &'static str> {
    text.parse().ok().filter(|x| (0.0..=1.0).contains(x)).ok_or("a number from 0 to 1 is wanted")
}

/// Side of an input in pixels.
fn side(text: &str) -> Result<usize, String> {
    at_most::<MAX_SIDE>(text)
}

/// `224`, or `1333x800` as width and height.
pub fn size(text: &str) -> Result<[usize; 2], String> {
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    Ok([side(width)?, side(height)?])
}

/// The entry of a model's name.
pub fn known_model(name: &str) -> Result<&'static Entry, UnknownModel> {
    zoo::find(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_promised() {
        for (text, device) in [
            ("auto", Some(DeviceName::Auto)),
            ("cpu", Some(DeviceName::Cpu)),
            ("cuda", Some(DeviceName::Cuda(0))),
            ("cuda:3", Some(DeviceName::Cuda(3))),
            ("cuda:", None),
            ("cuda:-1", None),
            ("cpu:0", None),
            ("gpu", None),
        ] {
            assert_eq!(text.parse().ok(), device, "{text}");
        }
        assert_eq!(["0", "1", "-1", "x"].map(|n| at_least_one(n).ok()), [None, Some(1), None, None]);
        assert_eq!(size("224"), Ok([224, 224]));
        assert_eq!(size("1333x800"), Ok([1333, 800]));
        assert!(["", "0", "x", "2x", "ax3", "9000"].iter().all(|text| size(text).is_err()));
        assert_eq!(["0", "0.25", "1"].map(part), [Ok(0.0), Ok(0.25), Ok(1.0)]);
        assert!(["-0.1", "1.1", "NaN", "half", ""].iter().all(|text| part(text).is_err()));
        assert_eq!(["0", "1024", "1025"].map(|n| at_most::<1024>(n).ok()), [None, Some(1024), None]);
    }
}
