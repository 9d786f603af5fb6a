//! `--resume`: what an interrupted run finished.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nat_infer::pipeline::{Source, SourceError, name_of};
use serde::Deserialize;
use serde_json::Value;

use super::exit::say;
use super::shared::Format;

/// The finished records of a file.
///
/// The last of them counts as unfinished: it is computed again, which shows whether the options are still the same, and
/// a CSV file does not tell whether all rows of an image are there.
pub struct Resumed {
    /// The file.
    pub path: PathBuf,
    /// How many bytes of it stay.
    pub kept: u64,
    /// How many records these are.
    pub records: usize,
    /// The model that made them.
    pub model: Option<String>,
    /// The text behind the bytes that stay: what the last record was, if it is whole.
    pub last: Option<String>,
    /// The images of all records, in order, the last one's too.
    images: Vec<String>,
    /// Length of all whole records.
    whole: u64,
}

/// What every record begins with.
#[derive(Deserialize)]
struct Lead {
    image: String,
    model: String,
}

impl Resumed {
    /// Reads a file of results.
    ///
    /// # Errors
    /// When it can't be read, or something in it is no record.
    pub fn read(path: PathBuf, format: Format, columns: &[&str]) -> Result<Self> {
        let file = File::open(&path).with_context(|| name_of(&path))?;
        match format {
            Format::Csv => Self::csv(path, file, columns),
            _ => Self::jsonl(path, file),
        }
    }

    fn empty(path: PathBuf) -> Self {
        Self { path, kept: 0, records: 0, model: None, last: None, images: Vec::new(), whole: 0 }
    }

    fn jsonl(path: PathBuf, file: File) -> Result<Self> {
        let mut resumed = Self::empty(path);
        let (mut file, mut line) = (BufReader::new(file), Vec::new());
        loop {
            line.clear();
            file.read_until(b'\n', &mut line).with_context(|| name_of(&resumed.path))?;
            // A line without its end is a record that was cut.
            if line.last() != Some(&b'\n') {
                break;
            }
            let number = resumed.images.len() + 1;
            let Ok(Lead { image, model }) = serde_json::from_slice(&line) else {
                return Err(resumed.no_record(number));
            };
            resumed.kept = resumed.whole;
            resumed.whole += line.len() as u64;
            resumed.images.push(image);
            resumed.model = Some(model);
            resumed.last = Some(String::from_utf8_lossy(&line).into_owned());
        }
        resumed.records = resumed.images.len().saturating_sub(1);
        Ok(resumed)
    }

    fn csv(path: PathBuf, file: File, columns: &[&str]) -> Result<Self> {
        let mut resumed = Self::empty(path);
        let length = file.metadata().with_context(|| name_of(&resumed.path))?.len();
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(BufReader::new(file));
        if length == 0 {
            return Ok(resumed);
        }
        if reader.headers().is_ok_and(|header| header != columns) {
            bail!(
                "{} has other columns than this command writes; --overwrite begins anew",
                name_of(&resumed.path)
            );
        }
        resumed.kept = reader.position().byte();
        // The first row of the image that is being read, and the rows so far.
        let (mut first, mut rows) = (csv::StringRecord::new(), Vec::new());
        let mut row = csv::StringRecord::new();
        while reader.read_record(&mut row).with_context(|| name_of(&resumed.path))? {
            let (Some(image), Some(model)) = (row.get(0), row.get(1).filter(|_| row.len() == columns.len()))
            else {
                // The last row may be cut, no other one.
                if reader.position().byte() < length {
                    return Err(resumed.no_record(reader.position().line() as usize - 1));
                }
                rows.clear();
                break;
            };
            // No two rows of an image are the same: a second one like the first begins it once more.
            if first.get(0) != Some(image) || first == row {
                resumed.kept = row.position().map_or(resumed.kept, csv::Position::byte);
                resumed.images.push(image.to_owned());
                resumed.model = Some(model.to_owned());
                first.clone_from(&row);
                rows.clear();
            }
            rows.push(row.iter().map(str::to_owned).collect::<Vec<_>>());
        }
        resumed.whole = length;
        resumed.records = resumed.images.len().saturating_sub(1);
        resumed.last = (!rows.is_empty()).then(|| super::output::csv_lines(&rows)).transpose()?;
        Ok(resumed)
    }

    fn no_record(&self, number: usize) -> anyhow::Error {
        let name = name_of(&self.path);
        anyhow::anyhow!("{name}: line {number} is no result of this program; --overwrite begins anew")
    }

    /// Takes the images that are finished out of `sources` and gives their number. One that was named twice is done
    /// when it was finished twice. With `complete` the file is one that a run ended with: it stays as it is if it has
    /// them all.
    pub fn take_from(&mut self, sources: &mut Vec<Result<Source, SourceError>>, complete: bool) -> usize {
        let names: HashSet<String> = sources.iter().flatten().map(Source::name).collect();
        let images: HashSet<&String> = self.images.iter().collect();
        let nothing_new = complete && names.iter().all(|name| images.contains(name));
        // Of an image that is not among the inputs any more the record stays, the last one's too.
        if self.images.last().is_some_and(|last| names.contains(last)) && !nothing_new {
            self.images.pop();
        } else if self.last.take().is_some() {
            (self.kept, self.records) = (self.whole, self.images.len());
        }
        let mut finished: HashMap<&String, usize> = HashMap::new();
        self.images.iter().for_each(|image| *finished.entry(image).or_default() += 1);
        let before = sources.len();
        sources.retain(|source| {
            let Ok(source) = source else { return true };
            match finished.get_mut(&source.name()) {
                Some(times @ 1..) => {
                    *times -= 1;
                    false
                }
                _ => true,
            }
        });
        let foreign: usize = finished.values().sum();
        if foreign > 0 {
            let name = name_of(&self.path);
            say(&format!(
                "warning: {name} has {foreign} results of images that are not among the inputs; they stay"
            ));
        }
        before - sources.len()
    }
}

/// Whether two records say the same but for the last digits of their numbers, which differ between processors.
pub fn alike(a: &str, b: &str, format: Format) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * (1.0 + b.abs());
    fn values(near: &dyn Fn(f64, f64) -> bool, a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => {
                a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| near(a, b))
            }
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| values(near, a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                // A mask's runs move where a pixel is undecided.
                let same = |(key, a): (&String, &Value)| {
                    b.get(key).is_some_and(|b| key == "counts" || values(near, a, b))
                };
                a.len() == b.len() && a.iter().all(same)
            }
            (a, b) => a == b,
        }
    }
    if a == b {
        return true;
    }
    let parsed: [Option<Value>; 2] = match format {
        Format::Csv => [a, b].map(csv_values),
        _ => [a, b].map(|text| serde_json::from_str(text).ok()),
    };
    matches!(parsed, [Some(a), Some(b)] if values(&near, &a, &b))
}

/// The fields of a CSV text, numbers as numbers.
fn csv_values(text: &str) -> Option<Value> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let field = |field: &str| field.parse::<f64>().map_or_else(|_| Value::from(field), Value::from);
    let rows: Result<Vec<Value>, csv::Error> =
        reader.records().map(|row| Ok(row?.iter().map(field).collect())).collect();
    rows.ok().map(Value::from)
}
