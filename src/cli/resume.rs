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
use super::output::csv_lines;
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
    /// The last record, which stands behind the bytes that stay.
    pub last: Option<Last>,
    /// The images of all records, in order, the last one's too.
    images: Vec<String>,
    /// Length of all whole records.
    whole: u64,
}

/// The last record of a file.
pub struct Last {
    /// Its image.
    pub image: String,
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
            let text = String::from_utf8_lossy(&line).into_owned();
            resumed.last = Some(Last { image: image.clone(), text, cut: false });
            resumed.images.push(image);
            resumed.model = Some(model);
        }
        resumed.records = resumed.images.len().saturating_sub(1);
        Ok(resumed)
    }

    fn csv(path: PathBuf, file: File, columns: &[&str]) -> Result<Self> {
        let mut resumed = Self::empty(path);
        let length = file.metadata().with_context(|| name_of(&resumed.path))?.len();
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(BufReader::new(file));
        // A header alone may be cut as well.
        let header_length = columns.iter().map(|column| column.len() as u64 + 1).sum::<u64>();
        if length < header_length {
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
        if let Some(image) = resumed.images.last().filter(|_| !rows.is_empty()) {
            // A write that a kill cuts ends with a page: only then rows may be missing.
            let cut = length.is_multiple_of(4096);
            resumed.last = Some(Last { image: image.clone(), text: csv_lines(&rows)?, cut });
        }
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

impl Last {
    /// Whether a new record of the image says the same.
    pub fn is_like(&self, text: &str, format: Format) -> bool {
        let rows = if self.cut { self.text.lines().count() } else { usize::MAX };
        let text: String = text.split_inclusive('\n').take(rows).collect();
        alike(&self.text, &text, format)
    }
}

/// Whether two records say the same but for the last digits of their numbers, which differ between processors.
fn alike(a: &str, b: &str, format: Format) -> bool {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const COLUMNS: [&str; 4] = ["image", "model", "rank", "score"];

    fn read(text: &str, format: Format) -> Result<Resumed> {
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
        for (text, format, kept, records) in [
            (lines.clone(), Format::Jsonl, [line("a"), line("b")].concat(), 2),
            (lines.clone() + "{\"ima", Format::Jsonl, [line("a"), line("b")].concat(), 2),
            (line("a"), Format::Jsonl, String::new(), 0),
            ("{\"im".to_owned(), Format::Jsonl, String::new(), 0),
            (String::new(), Format::Jsonl, String::new(), 0),
            (table.clone(), Format::Csv, [header.clone(), rows("a"), rows("b")].concat(), 2),
            (table.clone() + "c,m,", Format::Csv, [header.clone(), rows("a"), rows("b")].concat(), 2),
            (table.clone() + "\"d\nd", Format::Csv, [header.clone(), rows("a"), rows("b")].concat(), 2),
            ([header.clone(), rows("a")].concat(), Format::Csv, header.clone(), 0),
            (header.clone(), Format::Csv, header.clone(), 0),
            ("image,mo".to_owned(), Format::Csv, String::new(), 0),
        ] {
            let mut resumed = read(&text, format).unwrap();
            let mut sources = sources(&["a", "x", "b", "c", "d"]);
            let done = resumed.take_from(&mut sources, false);
            assert_eq!((resumed.records, done), (records, records), "{text}");
            assert_eq!(&text[..resumed.kept as usize], kept, "{text}");
            assert_eq!(left(&sources).len(), 5 - records, "{text}");
        }
        for (text, format) in [
            (line("a") + "no record\n", Format::Jsonl),
            (line("a") + "\n" + &line("b"), Format::Jsonl),
            ("image,model,pixels,score\n".to_owned(), Format::Csv),
            (header + "a,m\n" + &rows("b"), Format::Csv),
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
        for (text, format) in [(&lines, Format::Jsonl), (&rows, Format::Csv)] {
            for (names, done, rest) in [
                (&["a", "a", "b", "c"][..], 2, &["b", "c"][..]),
                (&["a", "a", "a", "b"], 2, &["a", "b"]),
                (&["a", "b"], 1, &["b"]),
                (&["a", "a"], 2, &[]),
            ] {
                let mut sources = sources(names);
                assert_eq!(read(text, format).unwrap().take_from(&mut sources, false), done);
                assert_eq!(left(&sources), rest);
            }
            // Of a run that ended nothing is done again, unless there is something new.
            let mut sources = sources(&["a", "a", "b"]);
            assert_eq!(read(text, format).unwrap().take_from(&mut sources, true), 3);
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
            assert_eq!(alike(a, b, Format::Jsonl), like, "{a} {b}");
        }
        for (a, b, like) in [
            ("a,m,1,0.5\n", "a,m,1,0.5000001\n", true),
            ("a,m,1,0.5\n", "a,m,1,0.6\n", false),
            ("a,m,1,0.5\n", "a,m,1,0.5\na,m,2,0.1\n", false),
        ] {
            assert_eq!(alike(a, b, Format::Csv), like, "{a} {b}");
        }
        let last = |cut| Last { image: "a".into(), text: "a,m,1,0.5\n".into(), cut };
        assert!(last(true).is_like("a,m,1,0.5\na,m,2,0.1\n", Format::Csv));
        assert!(!last(false).is_like("a,m,1,0.5\na,m,2,0.1\n", Format::Csv));
    }
}
