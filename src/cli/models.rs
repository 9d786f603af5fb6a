//! `nat-infer models`: the zoo, from the terminal.

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use nat_convert::arch::{Dilations, Family, Geometry, Head};
use nat_infer::zoo::{self, Entry, Env, Located};
use serde::{Serialize, Serializer};

use super::Verbosity;
use super::exit::{Exit, OrFailed, print, say};
use super::output::{End, Output, Record};
use super::settings::locate;
use super::shared::{Format, OutputOptions, known_model};

/// List the published models, or see to their files
#[derive(Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

const EXAMPLES: &str = "\
Examples:
  nat-infer models
  nat-infer models show dinat-large-384
  nat-infer models pull nat-tiny dinat-tiny
  nat-convert $(nat-infer models path nat-tiny) -o nat-tiny.safetensors";

#[derive(Subcommand)]
enum Command {
    /// List every model [default]
    #[command(after_help = "Example:\n  nat-infer models list --format csv --output models.csv")]
    List(List),
    /// Say everything about one model
    #[command(after_help = "Example:\n  nat-infer models show dinat-large-384")]
    Show(Show),
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
struct List {
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Args)]
struct Show {
    /// Model
    #[arg(value_name = "NAME", value_parser = known_model)]
    name: &'static Entry,
    #[command(flatten)]
    output: OutputOptions,
}

/// Runs the command.
pub fn run(arguments: Arguments, verbosity: Verbosity) -> Result<Exit> {
    let env = Env::from_process();
    match arguments.command.unwrap_or(Command::List(arguments.list)) {
        Command::List(List { output }) => list(&output, &env),
        Command::Show(Show { name, output }) => show(name, &output, &env),
        Command::Pull { names, offline } => pull(&names, offline, verbosity),
        Command::Path { name } => path(name, &env),
    }
}

/// A model in the list.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    task: &'static str,
    parameters: u64,
    /// Multiply-accumulates of one image, where they can be counted.
    flops: u64,
    /// The authors' main figure: its name and its value.
    metric: Option<&'static str>,
    reported: Option<f64>,
    source: &'static str,
    cached: bool,
}

impl Row {
    fn of(entry: &'static Entry, env: &Env) -> Self {
        let [height, width] = input_size(entry);
        let (metric, reported) = metrics(entry).first().copied().unzip();
        Self {
            name: &entry.name,
            task: entry.task.name(),
            parameters: entry.architecture.parameters(),
            flops: entry.architecture.macs(height, width),
            metric,
            reported,
            source: match (&entry.hub, &entry.url) {
                (Some(_), _) => "hub",
                (None, Some(_)) => "web",
                (None, None) => "program",
            },
            cached: is_here(entry, env),
        }
    }

    /// The cells of the table that people see.
    fn cells(&self) -> [String; 7] {
        let reported = self.reported.zip(self.metric).map(|(value, metric)| format!("{value} {metric}"));
        [
            self.name.to_owned(),
            self.task.to_owned(),
            short(self.parameters),
            short(self.flops),
            reported.unwrap_or("-".to_owned()),
            self.source.to_owned(),
            if self.cached { "yes" } else { "no" }.to_owned(),
        ]
    }
}

/// What stands over [`Row::cells`].
const HEADER: [&str; 7] = ["name", "task", "params", "flops", "reported", "source", "cached"];

impl Record for Row {
    const COLUMNS: &'static [&'static str] =
        &["name", "task", "parameters", "flops", "metric", "reported", "source", "cached"];

    fn rows(&self) -> Vec<Vec<String>> {
        fn text(value: Option<impl ToString>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        vec![vec![
            self.name.to_owned(),
            self.task.to_owned(),
            self.parameters.to_string(),
            self.flops.to_string(),
            text(self.metric),
            text(self.reported),
            self.source.to_owned(),
            self.cached.to_string(),
        ]]
    }

    fn table(&self) -> String {
        self.cells().join("  ") + "\n"
    }
}

fn list(options: &OutputOptions, env: &Env) -> Result<Exit> {
    let rows: Vec<Row> = zoo::entries().iter().map(|entry| Row::of(entry, env)).collect();
    let mut output = Output::open::<Row>(options)?;
    if output.format() == Format::Table {
        output.text(&aligned(&rows))?;
    } else {
        rows.iter().try_for_each(|row| output.write(row))?;
    }
    output.finish(End::Complete)?;
    Ok(Exit::Success)
}

/// Columns as wide as their widest cell; numbers to the right.
fn aligned(rows: &[Row]) -> String {
    let header = HEADER.map(str::to_owned);
    let lines: Vec<_> = std::iter::once(header).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].len()).max().unwrap_or(0);
    let widths: [usize; HEADER.len()] = std::array::from_fn(width);
    let mut text = String::new();
    for cells in &lines {
        let cell = |(column, cell): (usize, &String)| match (column, widths[column]) {
            (2 | 3, width) => format!("{cell:>width$}"),
            (_, width) => format!("{cell:width$}"),
        };
        let line = cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
        text += line.trim_end();
        text += "\n";
    }
    text
}

/// Everything about a model.
#[derive(Serialize)]
struct Details {
    #[serde(flatten)]
    row: Row,
    family: Family,
    embed_dim: usize,
    depths: &'static [usize],
    num_heads: &'static [usize],
    kernel_size: usize,
    mlp_ratio: f64,
    layer_scale: bool,
    dilations: String,
    classes: Option<usize>,
    input: String,
    #[serde(serialize_with = "as_map")]
    metrics: Vec<(&'static str, f64)>,
    url: Option<&'static str>,
    hub: Option<&'static str>,
    path: Option<String>,
}

impl Details {
    fn of(entry: &'static Entry, env: &Env) -> Self {
        let backbone = &entry.architecture.backbone;
        Self {
            row: Row::of(entry, env),
            family: backbone.family,
            embed_dim: backbone.embed_dim,
            depths: &backbone.depths,
            num_heads: &backbone.num_heads,
            kernel_size: backbone.kernel_size,
            mlp_ratio: backbone.mlp_ratio,
            layer_scale: backbone.layer_scale,
            dilations: Dilations::shortest(&backbone.dilations).to_string(),
            classes: match &entry.architecture.head {
                Head::Features => None,
                Head::Classifier { classes } | Head::Upernet { classes, .. } => Some(*classes),
                Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector) => Some(detector.classes),
            },
            input: match entry.preprocessing.geometry {
                Geometry::Crop { resolution, crop_pct } => {
                    format!("{resolution}x{resolution}, centre crop {crop_pct}")
                }
                Geometry::Scale { scale: [long, short], .. } => format!("scaled into {long}x{short}"),
            },
            metrics: metrics(entry),
            url: entry.url.as_deref(),
            hub: entry.hub.as_deref(),
            path: zoo::is_cached(entry, env).map(|path| path.display().to_string()),
        }
    }

    /// Names with values, those that there are.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let numbers = |list: &[usize]| list.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let family = match self.family {
            Family::Nat => "NAT and DiNAT",
            Family::DinatS => "DiNAT_s",
            Family::Isotropic => "isotropic",
            Family::VitRpb => "ViT-rpb",
        };
        let mut fields = vec![
            ("name", self.row.name.to_owned()),
            ("task", self.row.task.to_owned()),
            ("family", family.to_owned()),
            ("parameters", self.row.parameters.to_string()),
            ("flops", self.row.flops.to_string()),
        ];
        fields.extend([
            ("embed dim", self.embed_dim.to_string()),
            ("depths", numbers(self.depths)),
            ("heads", numbers(self.num_heads)),
            ("kernel", self.kernel_size.to_string()),
            ("dilations", self.dilations.clone()),
            ("mlp ratio", self.mlp_ratio.to_string()),
            ("layer scale", if self.layer_scale { "yes" } else { "no" }.to_owned()),
        ]);
        fields.extend(self.classes.map(|classes| ("classes", classes.to_string())));
        fields.push(("input", self.input.clone()));
        fields.extend(self.metrics.iter().map(|&(name, value)| (name, format!("{value} (reported)"))));
        fields.extend(self.hub.map(|hub| ("hub", hub.to_owned())));
        fields.extend(self.url.map(|url| ("url", url.to_owned())));
        let cached = match (&self.path, self.row.source) {
            (Some(path), _) => path.clone(),
            (None, "program") => "part of the program".to_owned(),
            (None, _) => "no".to_owned(),
        };
        fields.push(("cached", cached));
        fields
    }
}

impl Record for Details {
    const COLUMNS: &'static [&'static str] = &["field", "value"];

    fn rows(&self) -> Vec<Vec<String>> {
        self.fields().into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
    }

    fn table(&self) -> String {
        self.fields().iter().map(|(name, value)| format!("{name:>11}  {value}\n")).collect()
    }
}

fn as_map<S: Serializer>(
    pairs: &[(&'static str, f64)],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().copied())
}

fn show(entry: &'static Entry, options: &OutputOptions, env: &Env) -> Result<Exit> {
    let mut output = Output::open::<Details>(options)?;
    output.write(&Details::of(entry, env))?;
    output.finish(End::Complete)?;
    Ok(Exit::Success)
}

fn pull(entries: &[&'static Entry], offline: bool, verbosity: Verbosity) -> Result<Exit> {
    let mut exit = Exit::Success;
    for entry in entries {
        match locate(entry, offline, verbosity) {
            Ok(Located::At(path)) => print(&format!("{}\n", path.display()))?,
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
    print(&format!("{}\n", path.or_failed()?.display()))?;
    Ok(Exit::Success)
}

fn is_here(entry: &Entry, env: &Env) -> bool {
    zoo::origin(entry).is_none() || zoo::is_cached(entry, env).is_some()
}

/// Height and width at which the authors count.
fn input_size(entry: &Entry) -> [usize; 2] {
    match (entry.preprocessing.geometry, entry.task) {
        (Geometry::Crop { resolution, .. }, _) => [resolution; 2],
        (Geometry::Scale { .. }, zoo::Task::Detect) => [800, 1280],
        (Geometry::Scale { scale: [long, short], .. }, _) => [short, long],
    }
}

/// The authors' figures, the one that counts most first.
fn metrics(entry: &Entry) -> Vec<(&'static str, f64)> {
    let reported = &entry.reported;
    [
        ("top-1", reported.top1),
        ("box mAP", reported.box_map),
        ("mask mAP", reported.mask_map),
        ("mIoU", reported.miou),
        ("multi-scale", reported.miou_multi_scale),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// A count as tables print it: `27.9M`, `4.3G`.
fn short(count: u64) -> String {
    let count = count as f64;
    [(1e9, "G"), (1e6, "M"), (1e3, "k")]
        .into_iter()
        .find(|(unit, _)| count >= *unit)
        .map_or(count.to_string(), |(unit, letter)| format!("{:.1}{letter}", count / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_every_model() {
        let env = Env::from_vars::<String, String>([]);
        let rows: Vec<Row> = zoo::entries().iter().map(|entry| Row::of(entry, &env)).collect();
        let table = aligned(&rows);
        let line = |name: &str| table.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
        let words = |name: &str| line(name).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words("nat-tiny"), "nat-tiny classify 27.9M 4.3G 83.2 top-1 hub no");
        assert_eq!(words("demo-digits").rsplit_once(' ').unwrap().1, "yes");
        assert_eq!(table.lines().count(), zoo::entries().len() + 1);
        let parameters = line("name").find("params").unwrap() + "params".len();
        assert!(table.lines().all(|line| line.as_bytes()[parameters - 1] != b' '), "{table}");
    }

    #[test]
    fn counts_are_shortened() {
        for (count, text) in [(999, "999"), (27_901_582, "27.9M"), (4_340_000_000, "4.3G"), (1500, "1.5k")] {
            assert_eq!(short(count), text);
        }
    }
}
