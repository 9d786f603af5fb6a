//! Models of the zoo as records: what `models` lists and shows.

use std::path::Path;

use nat_convert::arch::{Dilations, Family, Geometry};
use nat_infer::zoo::{self, Entry, Env};
use serde::{Serialize, Serializer};

use super::exit::one_line;
use super::measured::Measured;
use super::record::Record;

/// A model in the list.
#[derive(Serialize)]
pub struct ListedModel {
    name: &'static str,
    task: &'static str,
    parameters: u64,
    /// Multiply-accumulates for one image.
    macs: u64,
    /// The bytes of its file: what is in the cache, 0 for a part of the program, else an estimate of
    /// 4 bytes for each parameter.
    download_bytes: u64,
    /// The authors' main figure: its name and its value.
    metric: Option<&'static str>,
    reported: Option<f64>,
    /// What was measured of it last, where a file has that.
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<f64>,
    licence: &'static str,
    source: &'static str,
    cached: bool,
}

impl ListedModel {
    /// What is known of a model, with what was measured of it.
    pub fn of(entry: &'static Entry, measured: &[Measured], env: &Env) -> Self {
        let [height, width] = input_size(entry);
        let (metric, reported) = metrics(entry).first().copied().unzip();
        let parameters = entry.architecture.parameters();
        let cached = zoo::is_cached(entry, env);
        let source = match (&entry.hub, &entry.url) {
            (Some(_), _) => "hub",
            (None, Some(_)) => "web",
            (None, None) => "program",
        };
        Self {
            name: &entry.name,
            task: entry.task.name(),
            parameters,
            macs: entry.architecture.macs(height, width),
            download_bytes: match (&cached, source) {
                (Some(path), _) => size_on_disk(path),
                (None, "program") => 0,
                (None, _) => 4 * parameters,
            },
            measured: metric.and_then(|metric| last_measured(entry, metric, measured)),
            metric,
            reported,
            licence: &entry.licence,
            source,
            cached: source == "program" || cached.is_some(),
        }
    }

    /// The size of the download for a person; `~` marks an estimate.
    fn download(&self) -> String {
        match (self.source, self.cached) {
            ("program", _) => "0".to_owned(),
            (_, true) => megabytes(self.download_bytes),
            (_, false) => format!("~{}", megabytes(self.download_bytes)),
        }
    }

    /// The cells of the table that people see.
    fn cells(&self) -> [String; COLUMNS.len()] {
        let reported = self.reported.zip(self.metric).map(|(value, metric)| format!("{value:.1} {metric}"));
        [
            self.name.to_owned(),
            self.task.to_owned(),
            short(self.parameters),
            short(self.macs),
            self.download(),
            reported.unwrap_or("-".to_owned()),
            self.measured.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}")),
            self.licence.to_owned(),
            self.source.to_owned(),
            if self.cached { "yes" } else { "no" }.to_owned(),
        ]
    }
}

/// The columns of [`ListedModel::cells`]: what stands over them, and whether they are aligned to the right.
const COLUMNS: [(&str, bool); 10] = [
    ("name", false),
    ("task", false),
    ("params", true),
    ("MACs", true),
    ("size", true),
    ("reported", false),
    (MEASURED, true),
    ("licence", false),
    ("source", false),
    ("cached", false),
];

/// The column that is there where something was measured.
const MEASURED: &str = "measured";

/// Columns that a narrow terminal does without, the first ones first. The name stays.
const LEFT_OUT: [&str; 9] =
    ["source", "licence", "size", "MACs", "task", "params", "cached", MEASURED, "reported"];

impl Record for ListedModel {
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "task",
        "parameters",
        "macs",
        "download_bytes",
        "metric",
        "reported",
        "licence",
        "source",
        "cached",
        MEASURED,
    ];

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.name.to_owned(),
            self.task.to_owned(),
            self.parameters.to_string(),
            self.macs.to_string(),
            self.download_bytes.to_string(),
            self.metric.unwrap_or_default().to_owned(),
            self.reported.map(|value| format!("{value:.1}")).unwrap_or_default(),
            self.licence.to_owned(),
            self.source.to_owned(),
            self.cached.to_string(),
            self.measured.map(|value| format!("{value:.2}")).unwrap_or_default(),
        ]]
    }

    fn table(&self) -> String {
        self.cells().join("  ") + "\n"
    }
}

/// Columns as wide as their widest cell, as many as `room` has place for.
pub fn aligned(rows: &[ListedModel], room: Option<usize>) -> String {
    let header = COLUMNS.map(|(name, _)| name.to_owned());
    let lines: Vec<_> = std::iter::once(header).chain(rows.iter().map(ListedModel::cells)).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].len()).max().unwrap_or(0);
    let widths: [usize; COLUMNS.len()] = std::array::from_fn(width);

    let mut shown: Vec<usize> = (0..COLUMNS.len()).collect();
    if rows.iter().all(|row| row.measured.is_none()) {
        shown.retain(|&column| COLUMNS[column].0 != MEASURED);
    }
    let mut left_out = LEFT_OUT.iter();
    let total = |shown: &[usize]| shown.iter().map(|&column| widths[column] + 2).sum::<usize>() - 2;
    while room.is_some_and(|room| total(&shown) > room)
        && let Some(name) = left_out.next()
    {
        shown.retain(|&column| COLUMNS[column].0 != *name);
    }

    let mut text = String::new();
    for cells in &lines {
        let cell = |&column: &usize| match (&cells[column], widths[column]) {
            (cell, width) if COLUMNS[column].1 => format!("{cell:>width$}"),
            (cell, width) => format!("{cell:width$}"),
        };
        text += shown.iter().map(cell).collect::<Vec<_>>().join("  ").trim_end();
        text += "\n";
    }
    text
}

/// Everything about a model.
#[derive(Serialize)]
pub struct ModelDetails {
    #[serde(flatten)]
    row: ListedModel,
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
    /// What was measured of it, by the same names.
    #[serde(serialize_with = "as_map", skip_serializing_if = "Vec::is_empty")]
    measurements: Vec<(&'static str, f64)>,
    url: Option<&'static str>,
    hub: Option<&'static str>,
    path: Option<String>,
}

impl ModelDetails {
    /// Everything that is known of a model, with what was measured of it.
    pub fn of(entry: &'static Entry, measured: &[Measured], env: &Env) -> Self {
        let backbone = &entry.architecture.backbone;
        Self {
            row: ListedModel::of(entry, measured, env),
            family: backbone.family,
            embed_dim: backbone.embed_dim,
            depths: &backbone.depths,
            num_heads: &backbone.num_heads,
            kernel_size: backbone.kernel_size,
            mlp_ratio: backbone.mlp_ratio,
            layer_scale: backbone.layer_scale,
            dilations: Dilations::shortest(&backbone.dilations).to_string(),
            classes: entry.architecture.classes(),
            input: match entry.preprocessing.geometry {
                Geometry::Crop { resolution, crop_pct } => {
                    format!("{resolution}x{resolution}, centre crop {crop_pct}")
                }
                Geometry::Scale { scale: [long, short], .. } => format!("scaled into {long}x{short}"),
            },
            measurements: metrics(entry)
                .into_iter()
                .filter_map(|(name, _)| Some((name, last_measured(entry, name, measured)?)))
                .collect(),
            metrics: metrics(entry),
            url: entry.url.as_deref(),
            hub: entry.hub.as_deref(),
            path: zoo::is_cached(entry, env).map(|path| path.display().to_string()),
        }
    }

    /// Names with values, those that there are.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let numbers = |list: &[usize]| list.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let mut fields = vec![
            ("name", self.row.name.to_owned()),
            ("task", self.row.task.to_owned()),
            ("family", self.family.name().to_owned()),
            ("parameters", self.row.parameters.to_string()),
            ("MACs", self.row.macs.to_string()),
            ("download", self.row.download()),
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
        fields.extend(self.metrics.iter().map(|&(name, value)| (name, format!("{value:.1} (reported)"))));
        fields
            .extend(self.measurements.iter().map(|&(name, value)| (name, format!("{value:.2} (measured)"))));
        fields.push(("licence", self.row.licence.to_owned()));
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

impl Record for ModelDetails {
    const COLUMNS: &'static [&'static str] = &["field", "value"];

    fn rows(&self) -> Vec<Vec<String>> {
        self.fields().into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
    }

    fn table(&self) -> String {
        // The cache's folder is what an environment variable says.
        self.fields().iter().map(|(name, value)| format!("{name:>11}  {}\n", one_line(value))).collect()
    }
}

fn as_map<S: Serializer>(
    pairs: &[(&'static str, f64)],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().copied())
}

/// The bytes of a file, or of the files in a folder. What can't be looked at counts nothing.
fn size_on_disk(path: &Path) -> u64 {
    let Ok(entries) = path.read_dir() else { return path.metadata().map_or(0, |file| file.len()) };
    // The Hub's snapshots hold links.
    entries.flatten().filter_map(|entry| entry.path().metadata().ok()).map(|file| file.len()).sum()
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

/// What was measured last of one of the authors' figures over a whole dataset, in their units.
fn last_measured(entry: &Entry, metric: &str, measured: &[Measured]) -> Option<f64> {
    // Fractions in a report are percent in the papers.
    const PERCENT: f64 = 100.0;
    let (name, scale, multi_scale) = match metric {
        "top-1" => ("top1", 1.0, None),
        "box mAP" => ("bbox.AP", PERCENT, None),
        "mask mAP" => ("segm.AP", PERCENT, None),
        "mIoU" => ("mIoU", PERCENT, Some(false)),
        "multi-scale" => ("mIoU", PERCENT, Some(true)),
        _ => return None,
    };
    let of_it = |one: &&Measured| {
        one.model == entry.name
            && one.task == entry.task.name()
            && !one.partial
            && one.failed == 0
            && one.changed.is_empty()
            && multi_scale.is_none_or(|wanted| one.multi_scale == wanted)
    };
    measured.iter().rev().filter(of_it).find_map(|one| Some(scale * one.measured.get(name)?))
}

/// A size as tables print it, in millions of bytes.
fn megabytes(bytes: u64) -> String {
    format!("{} MB", (bytes + 500_000) / 1_000_000)
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
        let rows: Vec<ListedModel> =
            zoo::entries().iter().map(|entry| ListedModel::of(entry, &[], &env)).collect();
        let table = aligned(&rows, None);
        let line = |name: &str| table.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
        let words = |name: &str| line(name).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words("name"), "name task params MACs size reported licence source cached");
        assert_eq!(words("nat-tiny"), "nat-tiny classify 27.9M 4.3G ~112 MB 83.2 top-1 MIT hub no");
        assert_eq!(
            words("dinat-iso-small"),
            "dinat-iso-small classify 22.0M 4.3G ~88 MB 80.8 top-1 MIT web no"
        );
        assert!(words("nat-iso-small").contains(" 80.0 top-1 "), "{table}");
        assert_eq!(
            words("demo-digits").split_once(" 0 ").unwrap().1,
            "98.1 top-1 CC-BY-4.0 program yes",
            "{table}"
        );
        assert_eq!(table.lines().count(), zoo::entries().len() + 1);
        let parameters = line("name").find("params").unwrap() + "params".len();
        assert!(table.lines().all(|line| line.as_bytes()[parameters - 1] != b' '), "{table}");
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns_and_no_wrapped_line() {
        let env = Env::from_vars::<String, String>([]);
        let rows: Vec<ListedModel> =
            zoo::entries().iter().map(|entry| ListedModel::of(entry, &[], &env)).collect();
        for (room, header) in [
            (120, "name task params MACs size reported licence source cached"),
            (100, "name task params MACs size reported cached"),
            (80, "name task params MACs reported cached"),
            (60, "name reported cached"),
            (35, "name"),
            (1, "name"),
        ] {
            let table = aligned(&rows, Some(room));
            let first = table.lines().next().unwrap();
            assert_eq!(first.split_whitespace().collect::<Vec<_>>().join(" "), header, "{room}");
            assert!(room < 35 || table.lines().all(|line| line.len() <= room), "{room}: {table}");
            assert_eq!(table.lines().count(), rows.len() + 1);
        }
    }

    #[test]
    fn what_was_measured_stands_beside_what_was_reported() {
        let env = Env::from_vars::<String, String>([]);
        let one = |model: &str, task: &str, name: &str, value: f64, partial, multi_scale| Measured {
            model: model.to_owned(),
            weights_sha256: None,
            task: task.to_owned(),
            data: "val".to_owned(),
            images: 1,
            failed: 0,
            partial,
            changed: Vec::new(),
            multi_scale,
            measured: [(name.to_owned(), value)].into(),
            published: [].into(),
            version: String::new(),
        };
        let measured = [
            one("nat-tiny", "classify", "top1", 83.1, false, false),
            one("nat-tiny", "classify", "top1", 83.214, false, false),
            // A part of a dataset, another task, or several sizes are another figure.
            one("nat-tiny", "classify", "top1", 99.0, true, false),
            one("nat-tiny", "knn", "top1", 98.0, false, false),
            one("upernet-nat-tiny", "segment", "mIoU", 0.4844, false, true),
            one("mask-rcnn-nat-tiny", "detect", "segm.AP", 0.4263, false, false),
        ];
        let of = |name: &str| ListedModel::of(zoo::find(name).unwrap(), &measured, &env).measured;
        assert_eq!((of("nat-tiny"), of("nat-mini"), of("upernet-nat-tiny")), (Some(83.214), None, None));
        let details = |name: &str| ModelDetails::of(zoo::find(name).unwrap(), &measured, &env).measurements;
        assert_eq!(details("upernet-nat-tiny"), [("multi-scale", 48.44)]);
        assert_eq!(details("mask-rcnn-nat-tiny"), [("mask mAP", 42.63)]);
        let rows = [ListedModel::of(zoo::find("nat-tiny").unwrap(), &measured, &env)];
        let table = aligned(&rows, None);
        assert!(
            table.contains("reported") && table.contains(" measured ") && table.contains(" 83.21 "),
            "{table}"
        );
        assert!(
            !aligned(&[ListedModel::of(zoo::find("nat-tiny").unwrap(), &[], &env)], None)
                .contains("measured")
        );
    }

    #[test]
    fn what_is_cached_has_its_real_size() {
        let folder = tempfile::tempdir().unwrap();
        let entry = zoo::find("mask-rcnn-nat-mini").unwrap();
        let env = Env::from_vars([("NAT_INFER_CACHE", folder.path().to_str().unwrap())]);
        assert_eq!(ListedModel::of(entry, &[], &env).download_bytes, 4 * entry.architecture.parameters());
        let file = env.own_cache().unwrap().join(&entry.name).join(entry.file_name().unwrap());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, vec![0; 1_234_567]).unwrap();
        let row = ListedModel::of(entry, &[], &env);
        assert_eq!((row.download_bytes, row.cached, row.download()), (1_234_567, true, "1 MB".to_owned()));
        assert_eq!(size_on_disk(file.parent().unwrap()), 1_234_567);
    }

    #[test]
    fn counts_are_shortened() {
        for (bytes, text) in [(0, "0 MB"), (499_000, "0 MB"), (500_001, "1 MB"), (111_606_328, "112 MB")] {
            assert_eq!(megabytes(bytes), text);
        }
        for (count, text) in [(999, "999"), (27_901_582, "27.9M"), (4_340_000_000, "4.3G"), (1500, "1.5k")] {
            assert_eq!(short(count), text);
        }
    }
}
