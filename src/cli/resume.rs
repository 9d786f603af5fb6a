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
use super::record::csv_lines;
use super::shared::OutputFormat;

/// The finished records of a file.
///
/// Of the last of them the image is computed once more: what comes out shows whether options, weights and image are
/// still the same.
pub struct Resumed {
    /// The file.
    pub path: PathBuf,
    /// Length of all whole records.
    pub whole: u64,
    /// How many they are.
    pub records: usize,
    /// The model that made them.
    pub model: Option<String>,
    /// The last of them, if its image is computed once more.
    pub last: Option<Last>,
    /// The images of all of them, in order.
    images: Vec<String>,
}

/// The last record of a file.
pub struct Last {
    /// Its image.
    pub image: String,
    /// Where it begins.
    start: u64,
    /// Its lines.
    text: String,
    /// Whether rows may be missing at its end.
    cut: bool,
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
    pub fn read(path: PathBuf, format: OutputFormat, columns: &[&str]) -> Result<Self> {
        let file = File::open(&path).with_context(|| name_of(&path))?;
        let empty = Self { path, whole: 0, records: 0, model: None, last: None, images: Vec::new() };
        let resumed = match format {
            OutputFormat::Csv => empty.csv(file, columns),
            _ => empty.jsonl(file),
        }?;
        Ok(Self { records: resumed.images.len(), ..resumed })
    }

    /// What a file has of these images, in order.
    pub fn of_images(path: PathBuf, images: Vec<String>) -> Self {
        let last = images.last().cloned();
        let last = last.map(|image| Last { image, start: 0, text: String::new(), cut: false });
        Self { path, whole: 0, records: images.len(), model: None, last, images }
    }

    fn jsonl(mut self, file: File) -> Result<Self> {
        let (mut file, mut line) = (BufReader::new(file), Vec::new());
        loop {
            line.clear();
            file.read_until(b'\n', &mut line).with_context(|| name_of(&self.path))?;
            // A line without its end is a record that was cut.
            if line.last() != Some(&b'\n') {
                return Ok(self);
            }
            let number = self.images.len() + 1;
            let Ok(Lead { image, model }) = serde_json::from_slice(&line) else {
                return Err(self.no_record(number));
            };
            let text = String::from_utf8_lossy(&line).into_owned();
            self.last = Some(Last { image: image.clone(), start: self.whole, text, cut: false });
            self.whole += line.len() as u64;
            self.images.push(image);
            self.model = Some(model);
        }
    }

    fn csv(mut self, file: File, columns: &[&str]) -> Result<Self> {
        let length = file.metadata().with_context(|| name_of(&self.path))?.len();
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(BufReader::new(file));
        // A header alone may be cut as well.
        if length < columns.iter().map(|column| column.len() as u64 + 1).sum::<u64>() {
            return Ok(self);
        }
        if reader.headers().is_ok_and(|header| header != columns) {
            bail!(
                "{} has other columns than this command writes; --overwrite begins anew",
                name_of(&self.path)
            );
        }
        self.whole = reader.position().byte();
        let mut row = csv::StringRecord::new();
        // The first row of the image that is being read, where it begins, and the rows so far.
        let (mut first, mut start, mut rows) = (csv::StringRecord::new(), self.whole, Vec::new());
        while reader.read_record(&mut row).with_context(|| name_of(&self.path))? {
            let at = row.position().map_or(length, csv::Position::byte);
            if row.len() != columns.len() {
                // The last row may be cut, no other one.
                if reader.position().byte() < length {
                    return Err(self.no_record(row.position().map_or(0, |at| at.line() as usize)));
                }
                // It may belong to the image before it, which is not whole then.
                let image = self.images.last().map_or("", String::as_str);
                let same = if row.len() > 1 { row.get(0) == Some(image) } else { image.starts_with(&row[0]) };
                if same && self.images.pop().is_some() {
                    rows.clear();
                    self.whole = start;
                }
                break;
            }
            // No two rows of an image are the same: a second one like the first begins it once more.
            if first.get(0) != row.get(0) || first == row {
                start = at;
                self.images.push(row[0].to_owned());
                self.model = Some(row[1].to_owned());
                first.clone_from(&row);
                rows.clear();
            }
            rows.push(row.iter().map(str::to_owned).collect::<Vec<_>>());
            self.whole = reader.position().byte();
        }
        if let Some(image) = self.images.last().filter(|_| !rows.is_empty()) {
            // A write that a kill cuts ends with a page: only then whole rows may be missing.
            let cut = length.is_multiple_of(4096);
            self.last = Some(Last { image: image.clone(), start, text: csv_lines(&rows)?, cut });
        }
        Ok(self)
    }

    fn no_record(&self, number: usize) -> anyhow::Error {
        let name = name_of(&self.path);
        anyhow::anyhow!("{name}: line {number} is no result of this program; --overwrite begins anew")
    }

    /// Takes the images that are finished out of `sources` and gives them. One that was named twice is done when it was
    /// finished twice; the last one stays, to be computed once more. With `complete` the file is one that a run ended
    /// with, which stays as it is if it has all of them.
    pub fn take_from(
        &mut self,
        sources: &mut Vec<Result<Source, SourceError>>,
        complete: bool,
    ) -> Vec<Source> {
        let names: HashSet<String> = sources.iter().flatten().map(Source::name).collect();
        let images: HashSet<&String> = self.images.iter().collect();
        let nothing_new = complete && names.iter().all(|name| images.contains(name));
        self.last.take_if(|last| nothing_new || !names.contains(&last.image));
        let mut finished: HashMap<&String, usize> = HashMap::new();
        let again = usize::from(self.last.is_some());
        let done = &self.images[..self.images.len() - again];
        done.iter().for_each(|image| *finished.entry(image).or_default() += 1);
        let (taken, left): (Vec<_>, Vec<_>) = std::mem::take(sources).into_iter().partition(|source| {
            let times = source.as_ref().ok().and_then(|source| finished.get_mut(&source.name()));
            times.filter(|times| **times > 0).map(|times| *times -= 1).is_some()
        });
        *sources = left;
        let foreign: usize = finished.values().sum();
        if foreign > 0 {
            let name = name_of(&self.path);
            say(&format!(
                "warning: {name} has {foreign} results of images that are not among the inputs; they stay"
            ));
        }
        taken.into_iter().flatten().collect()
    }
}

impl Last {
    /// Where the record has to be written again: where rows of it may be missing.
    pub fn start_if_cut(&self) -> Option<u64> {
        self.cut.then_some(self.start)
    }

    /// Whether a new record of the image says the same.
    pub fn is_like(&self, text: &str, format: OutputFormat) -> bool {
        let rows = if self.cut { self.text.lines().count() } else { usize::MAX };
        let text: String = text.split_inclusive('\n').take(rows).collect();
        alike(&self.text, &text, format)
    }
}

/// Whether two numbers are the same but for their last digits, which differ between processors.
pub fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-3 * (1.0 + b.abs())
}

/// Whether two records say the same but for the last digits of their numbers.
fn alike(a: &str, b: &str, format: OutputFormat) -> bool {
    fn values(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => {
                a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| near(a, b))
            }
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| values(a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                // A mask's runs move where a pixel is undecided.
                let same =
                    |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| key == "counts" || values(a, b));
                a.len() == b.len() && a.iter().all(same)
            }
            (a, b) => a == b,
        }
    }
    if a == b {
        return true;
    }
    let parsed: [Option<Value>; 2] = match format {
        OutputFormat::Csv => [a, b].map(csv_values),
        _ => [a, b].map(|text| serde_json::from_str(text).ok()),
    };
    matches!(parsed, [Some(a), Some(b)] if values(&a, &b))
}

/// The fields of a CSV text, numbers as numbers.
fn csv_values(text: &str) -> Option<Value> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let field = |field: &str| field.parse::<f64>().map_or_else(|_| Value::from(field), Value::from);
    let rows: Result<Vec<Value>, csv::Error> =
        reader.records().map(|row| Ok(row?.iter().map(field).collect())).collect();
    rows.ok().map(Value::from)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const COLUMNS: [&str; 4] = ["image", "model", "rank", "score"];

    fn read(text: &str, format: OutputFormat) -> Result<Resumed> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, text).unwrap();
        Resumed::read(path, format, &COLUMNS)
    }

    fn sources(names: &[&str]) -> Vec<Result<Source, SourceError>> {
        names.iter().map(|name| Ok(Source::file(*name))).collect()
    }

    fn left(sources: &[Result<Source, SourceError>]) -> Vec<String> {
        sources.iter().flatten().map(Source::name).collect()
    }

    #[test]
    fn what_is_whole_stays_and_the_last_is_done_again() {
        let line = |image: &str| format!("{{\"image\":\"{image}\",\"model\":\"m\",\"top\":[]}}\n");
        let header = "image,model,rank,score\n".to_owned();
        let rows = |image: &str| format!("{image},m,1,0.5\n{image},m,2,0.25\n");
        let lines = [line("a"), line("b"), line("c")].concat();
        let table = [header.clone(), rows("a"), rows("b"), rows("c")].concat();
        for (text, format, whole, records, last) in [
            (lines.clone(), OutputFormat::Jsonl, lines.clone(), 3, Some("c")),
            (lines.clone() + "{\"ima", OutputFormat::Jsonl, lines.clone(), 3, Some("c")),
            (line("a"), OutputFormat::Jsonl, line("a"), 1, Some("a")),
            (lines.clone() + &line("gone"), OutputFormat::Jsonl, lines.clone() + &line("gone"), 4, None),
            ("{\"im".to_owned(), OutputFormat::Jsonl, String::new(), 0, None),
            (String::new(), OutputFormat::Jsonl, String::new(), 0, None),
            (table.clone(), OutputFormat::Csv, table.clone(), 3, Some("c")),
            // Of c or of the next: what is not known to be whole is done again.
            (
                table.clone() + "c,m,",
                OutputFormat::Csv,
                [header.clone(), rows("a"), rows("b")].concat(),
                2,
                None,
            ),
            (
                table.clone() + "c",
                OutputFormat::Csv,
                [header.clone(), rows("a"), rows("b")].concat(),
                2,
                None,
            ),
            (table.clone() + "d", OutputFormat::Csv, table.clone(), 3, Some("c")),
            (table.clone() + "\"d\nd", OutputFormat::Csv, table.clone(), 3, Some("c")),
            (
                [header.clone(), rows("a")].concat(),
                OutputFormat::Csv,
                [header.clone(), rows("a")].concat(),
                1,
                Some("a"),
            ),
            (header.clone(), OutputFormat::Csv, header.clone(), 0, None),
            ("image,mo".to_owned(), OutputFormat::Csv, String::new(), 0, None),
        ] {
            let mut resumed = read(&text, format).unwrap();
            let mut sources = sources(&["a", "x", "b", "c", "d"]);
            let done = resumed.take_from(&mut sources, false).len();
            assert_eq!(&text[..resumed.whole as usize], whole, "{text}");
            let foreign = usize::from(text.contains("gone"));
            let again = usize::from(last.is_some());
            assert_eq!((resumed.records, done), (records, records - again - foreign), "{text}");
            assert_eq!(left(&sources).len(), 5 - done, "{text}");
            assert_eq!(resumed.last.map(|last| last.image).as_deref(), last, "{text}");
        }
        for (text, format) in [
            (line("a") + "no record\n", OutputFormat::Jsonl),
            (line("a") + "\n" + &line("b"), OutputFormat::Jsonl),
            ("image,model,pixels,score\n".to_owned(), OutputFormat::Csv),
            (header + "a,m\n" + &rows("b"), OutputFormat::Csv),
        ] {
            assert!(read(&text, format).is_err(), "{text}");
        }
    }

    #[test]
    fn an_image_that_was_named_twice_is_done_twice() {
        let line = |image: &str| format!("{{\"image\":\"{image}\",\"model\":\"m\"}}\n");
        let row = |image: &str| format!("{image},m,1,0.5\n{image},m,2,0.25\n");
        let lines = ["a", "a", "b"].map(line).concat();
        let rows = "image,model,rank,score\n".to_owned() + &["a", "a", "b"].map(row).concat();
        for (text, format) in [(&lines, OutputFormat::Jsonl), (&rows, OutputFormat::Csv)] {
            for (names, done, rest) in [
                (&["a", "a", "b", "c"][..], 2, &["b", "c"][..]),
                (&["a", "a", "a", "b"], 2, &["a", "b"]),
                (&["a", "b"], 1, &["b"]),
                (&["a", "a"], 2, &[]),
            ] {
                let mut sources = sources(names);
                assert_eq!(read(text, format).unwrap().take_from(&mut sources, false).len(), done);
                assert_eq!(left(&sources), rest);
            }
            // Of a run that ended nothing is done again, unless there is something new.
            let mut sources = sources(&["a", "a", "b"]);
            assert_eq!(read(text, format).unwrap().take_from(&mut sources, true).len(), 3);
            assert!(sources.is_empty());
        }
    }

    #[test]
    fn records_are_alike_up_to_their_last_digits() {
        for (a, b, like) in [
            (r#"{"image":"a","score":0.5}"#, r#"{"image":"a","score":0.50001}"#, true),
            (r#"{"image":"a","score":0.5}"#, r#"{"image":"a","score":0.6}"#, false),
            (r#"{"image":"a","top":[1,2]}"#, r#"{"image":"a","top":[1]}"#, false),
            (r#"{"label":"a"}"#, r#"{"label":"b"}"#, false),
            (r#"{"counts":"a","x":1}"#, r#"{"counts":"b","x":1}"#, true),
            (r#"{"x":1}"#, r#"{"y":1}"#, false),
        ] {
            assert_eq!(alike(a, b, OutputFormat::Jsonl), like, "{a} {b}");
        }
        for (a, b, like) in [
            ("a,m,1,0.5\n", "a,m,1,0.5000001\n", true),
            ("a,m,1,0.5\n", "a,m,1,0.6\n", false),
            ("a,m,1,0.5\n", "a,m,1,0.5\na,m,2,0.1\n", false),
        ] {
            assert_eq!(alike(a, b, OutputFormat::Csv), like, "{a} {b}");
        }
        let last = |cut| Last { image: "a".into(), start: 0, text: "a,m,1,0.5\n".into(), cut };
        assert!(last(true).is_like("a,m,1,0.5\na,m,2,0.1\n", OutputFormat::Csv));
        assert!(!last(false).is_like("a,m,1,0.5\na,m,2,0.1\n", OutputFormat::Csv));
    }
}
