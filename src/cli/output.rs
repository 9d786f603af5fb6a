//! Results, in four formats, to stdout or a file.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nat_infer::tasks::files::NewFile;
use serde::Serialize;

use super::exit::OrFailed;
use super::shared::{Format, OutputOptions};

/// A result that every format can hold.
pub trait Record: Serialize {
    /// Names of the columns.
    const COLUMNS: &'static [&'static str];

    /// Rows of a CSV file.
    fn rows(&self) -> Vec<Vec<String>>;

    /// Lines for a person.
    fn table(&self) -> String;
}

/// Where the records of one command go, one after the other.
pub struct Output {
    format: Format,
    sink: Sink,
    path: Option<PathBuf>,
    records: usize,
}

enum Sink {
    Stdout(BufWriter<Stdout>),
    File(NewFile),
}

impl Output {
    /// Chooses format and place. A file is in place only after [`Output::finish`].
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn open(options: &OutputOptions) -> Result<Self> {
        let path = options.output.clone();
        let sink = match &path {
            Some(path) => Sink::File(NewFile::create(path).with_context(|| cannot_write(path))?),
            None => Sink::Stdout(BufWriter::new(io::stdout())),
        };
        let for_a_person = path.is_none() && io::stdout().is_terminal();
        let format = options.format.unwrap_or(if for_a_person { Format::Table } else { Format::Jsonl });
        Ok(Self { format, sink, path, records: 0 })
    }

    /// The format that was asked for or chosen.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Writes one record, and sends it on.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write<R: Record>(&mut self, record: &R) -> Result<()> {
        let text = match self.format {
            Format::Table => record.table(),
            Format::Json => {
                let before = if self.records == 0 { "[" } else { ",\n" };
                before.to_owned() + &serde_json::to_string(record)?
            }
            Format::Jsonl => serde_json::to_string(record)? + "\n",
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(Vec::new());
                if self.records == 0 {
                    writer.write_record(R::COLUMNS)?;
                }
                record.rows().iter().try_for_each(|row| writer.write_record(row))?;
                String::from_utf8(writer.into_inner()?)?
            }
        };
        self.records += 1;
        self.text(&text)
    }

    /// Writes what is no record.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn text(&mut self, text: &str) -> Result<()> {
        let written = match &mut self.sink {
            Sink::Stdout(out) => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
            Sink::File(file) => file.write_all(text.as_bytes()),
        };
        self.context(written)
    }

    /// Writes what follows the last record and puts a file in place.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish<R: Record>(mut self) -> Result<()> {
        match (self.format, self.records) {
            (Format::Json, 0) => self.text("[]\n")?,
            (Format::Json, _) => self.text("]\n")?,
            (Format::Csv, 0) => self.text(&(R::COLUMNS.join(",") + "\n"))?,
            _ => {}
        }
        match self.sink {
            Sink::Stdout(_) => Ok(()),
            Sink::File(file) => {
                let path = self.path.unwrap_or_default();
                file.keep().with_context(|| cannot_write(&path)).or_failed()
            }
        }
    }

    fn context(&self, written: io::Result<()>) -> Result<()> {
        let place = self.path.as_ref().map_or("can't write to stdout".to_owned(), |path| cannot_write(path));
        written.context(place).or_failed()
    }
}

fn cannot_write(path: &Path) -> String {
    format!("{}: can't be written", path.display())
}
