//! Results, in four formats, to stdout or a file.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nat_convert::terminal::{escape_json, lines};
use nat_infer::pipeline::partial::{Partial, partial_path};
use nat_infer::pipeline::{Source, SourceError, name_of};

use super::earlier::may_be_replaced;
use super::exit::OrFailed;
use super::record::{Record, csv_lines};
use super::resume::{Last, Resumed};
use super::shared::{OutputFormat, OutputOptions};

/// Why nothing can go on.
const NO_FILE: &str = "--resume goes on with a file; --output names it";

/// Where the records of a command will go: chosen before work begins, opened when it does.
pub struct OutputPlan {
    format: OutputFormat,
    path: Option<PathBuf>,
    resumed: Option<(Resumed, Partial)>,
    kept_empty: bool,
}

/// Where the records of a command go, one after the other.
pub struct Output {
    format: OutputFormat,
    sink: Sink,
    records: usize,
    /// Whether a file without a record takes the place of an earlier one.
    kept_empty: bool,
    /// Members of the array that has been begun.
    members: usize,
    /// The last record of an interrupted run, with its file: it is computed again and has to come out the same.
    expected: Option<(Last, PathBuf)>,
}

enum Sink {
    Stdout(BufWriter<Stdout>),
    File { file: Partial, path: PathBuf },
}

/// How far a run came, which decides what becomes of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything was tried.
    Complete,
    /// Everything was tried, and everything failed.
    Nothing,
    /// The rest was not tried.
    Early,
}

impl OutputPlan {
    /// Chooses format and place, and sees to it that nothing is lost: of `inputs` none is ever replaced, and a file that
    /// is no earlier result only if that was asked for. `saves` says whether the command leaves other files too.
    ///
    /// # Errors
    /// When the file must not be replaced, its folder is not there, or an interrupted run's results are.
    pub fn new<'a, R: Record>(
        options: &OutputOptions,
        resume: bool,
        saves: bool,
        inputs: impl IntoIterator<Item = &'a Path>,
    ) -> Result<Self> {
        let path = options.output.clone().filter(|path| path != Path::new("-"));
        let for_a_person = path.is_none() && io::stdout().is_terminal();
        let by_extension = path.as_deref().and_then(OutputFormat::of_extension);
        let otherwise = if for_a_person { OutputFormat::Table } else { OutputFormat::Jsonl };
        let format = options.format.or(by_extension).unwrap_or(otherwise);
        if format == OutputFormat::Coco && !R::COCO {
            bail!("--format coco is of the objects that `detect` finds");
        }
        if resume && path.is_none() {
            bail!("{NO_FILE}");
        }
        if resume && !matches!(format, OutputFormat::Jsonl | OutputFormat::Csv) {
            bail!(
                "--resume goes on with jsonl and csv alone; --format chooses one, or an --output of that extension"
            );
        }
        if options.overwrite && path.is_none() && !saves {
            bail!("--overwrite has nothing to replace: there is no file to write");
        }
        if let Some(path) = &path {
            has_a_place(path)?;
            let own: Vec<PathBuf> = [path.clone(), partial_path(path)]
                .into_iter()
                .filter_map(|p| p.canonicalize().ok())
                .collect();
            let replaced = inputs.into_iter().find(|input| {
                !own.is_empty() && input.canonicalize().is_ok_and(|input| own.contains(&input))
            });
            if let Some(input) = replaced {
                bail!("{} is an input of this run; --output needs another file", name_of(input));
            }
            if !options.overwrite {
                may_be_replaced(path, resume, format)?;
            }
        }
        Ok(Self { format, path, resumed: None, kept_empty: false })
    }

    /// Whether `--resume` goes on with what an interruption leaves.
    pub fn is_resumable(&self) -> bool {
        // A pipe or a device is written as it is.
        let is_file = self.path.as_ref().is_some_and(|path| !path.exists() || path.is_file());
        is_file && matches!(self.format, OutputFormat::Jsonl | OutputFormat::Csv)
    }

    /// With a file even where everything fails: what stands there is then of an earlier run no more.
    pub fn kept_empty(self) -> Self {
        Self { kept_empty: true, ..self }
    }

    /// Reads what an interrupted run finished, takes its images out of `sources` and gives them. From now on no other
    /// process can go on with it.
    ///
    /// # Errors
    /// When the file is none of ours, there is nowhere to look, or another process is at it.
    pub fn resume<R: Record>(
        &mut self,
        sources: &mut Vec<Result<Source, SourceError>>,
    ) -> Result<Vec<Source>> {
        let Some(path) = self.path.as_deref().filter(|path| !path.exists() || path.is_file()) else {
            bail!("{NO_FILE}");
        };
        let partial = claimed(path, Partial::claim(path, self.format.closing()))?;
        // A run that was complete goes on with what its inputs have become.
        let complete = partial.length() == 0 && path.exists();
        let from = if complete { path.to_owned() } else { partial_path(path) };
        let mut resumed = Resumed::read(from, self.format, R::COLUMNS)?;
        let finished = resumed.take_from(sources, complete);
        self.resumed = Some((resumed, partial));
        Ok(finished)
    }

    /// Where the results are, if an earlier run finished them all.
    pub fn finished_before(&self) -> Option<String> {
        let path = self.path.as_ref()?;
        let complete = self.resumed.as_ref().filter(|(resumed, _)| resumed.path == *path);
        complete.map(|_| format!("results in {}", name_of(path)))
    }

    /// Begins to write.
    ///
    /// # Errors
    /// When the file can't be made, another process writes it, or what it is to go on with was made by another model
    /// than `model`.
    pub fn open<R: Record>(self, model: Option<&str>) -> Result<Output> {
        let Self { format, path, resumed, kept_empty } = self;
        let Some(path) = path else {
            let sink = Sink::Stdout(BufWriter::new(io::stdout()));
            let mut output = Output { format, sink, records: 0, kept_empty, members: 0, expected: None };
            output.text(&format.opening(R::COLUMNS))?;
            return Ok(output);
        };
        let (mut records, mut expected) = (0, None);
        let file = match resumed {
            None => claimed(&path, Partial::begin(&path, format.closing()))?,
            Some((resumed, mut partial)) => {
                if let Some((theirs, ours)) = resumed.model.as_deref().zip(model).filter(|(a, b)| a != b) {
                    let from = name_of(&resumed.path);
                    bail!(
                        "{from} has results of `{theirs}`, not of `{ours}`; --overwrite without --resume begins anew"
                    );
                }
                let copied = if resumed.path == path { partial.copy(&path) } else { Ok(()) };
                copied
                    .and_then(|()| partial.cut(resumed.whole))
                    .with_context(|| cannot_write(&path))
                    .or_failed()?;
                records = resumed.records;
                expected = resumed.last.map(|last| (last, resumed.path));
                partial
            }
        };
        let begins = file.length() == 0;
        let mut output = Output {
            format,
            sink: Sink::File { file, path },
            records,
            kept_empty,
            members: records,
            expected,
        };
        if begins {
            output.text(&format.opening(R::COLUMNS))?;
        }
        Ok(output)
    }
}

/// A file of results that this process has, or why it has not.
///
/// # Errors
/// When it has not.
pub fn claimed(path: &Path, partial: io::Result<Partial>) -> Result<Partial> {
    match partial {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("{}: another process is writing it", name_of(&partial_path(path)))
        }
        partial => partial.with_context(|| cannot_write(path)),
    }
}

/// A record as a line of JSON.
///
/// # Errors
/// When it can't be one.
pub fn jsonl<R: Record>(record: &R) -> Result<String> {
    // Read by a machine it is the same, and a terminal is not moved by it.
    Ok(escape_json(&serde_json::to_string(record)?).into_owned() + "\n")
}

impl Output {
    /// Begins to write the records of a command that has no images.
    ///
    /// # Errors
    /// As [`OutputPlan::new`] and [`OutputPlan::open`].
    pub fn open<R: Record>(options: &OutputOptions) -> Result<Self> {
        OutputPlan::new::<R>(options, false, false, [])?.open::<R>(None)
    }

    /// The format that was asked for or chosen.
    pub fn format(&self) -> OutputFormat {
        self.format
    }

    /// Writes one record, and sends it on.
    ///
    /// # Errors
    /// When it can't be written, or is not what an interrupted run had.
    pub fn write<R: Record>(&mut self, record: &R) -> Result<()> {
        let text = match self.format {
            OutputFormat::Table => record.table(),
            OutputFormat::Json => self.member(&serde_json::to_string(record)?),
            OutputFormat::Coco => {
                let members = record.coco().unwrap_or_default();
                members.iter().map(|member| self.member(member)).collect()
            }
            OutputFormat::Jsonl => jsonl(record)?,
            OutputFormat::Csv => csv_lines(&record.rows())?,
        };
        // Images that failed before come first, if they do not fail again.
        let is_it = |(last, _): &mut (Last, PathBuf)| record.rows()[0].first() == Some(&last.image);
        if let Some((last, from)) = self.expected.take_if(is_it) {
            if !last.is_like(&text, self.format) {
                bail!(
                    "{}: its last result comes out differently now: options, weights or the image have changed; \
                     --overwrite without --resume begins anew",
                    name_of(&from)
                );
            }
            return match (&mut self.sink, last.start_if_cut()) {
                (Sink::File { file, path }, Some(start)) => file
                    .cut(start)
                    .and_then(|()| file.append(&text))
                    .with_context(|| cannot_write(path))
                    .or_failed(),
                _ => Ok(()),
            };
        }
        self.records += 1;
        self.text(&text)
    }

    /// The next member of an array.
    fn member(&mut self, json: &str) -> String {
        self.members += 1;
        let before = if self.members == 1 { "" } else { ",\n" };
        before.to_owned() + &escape_json(json)
    }

    /// Writes what is no record.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn text(&mut self, text: &str) -> Result<()> {
        match &mut self.sink {
            Sink::Stdout(out) => {
                let harmless = if out.get_ref().is_terminal() { lines(text) } else { text.into() };
                let written = out.write_all(harmless.as_bytes()).and_then(|()| out.flush());
                written.context("can't write to stdout").or_failed()
            }
            Sink::File { file, path } => file.append(text).with_context(|| cannot_write(path)).or_failed(),
        }
    }

    /// Ends the results, puts a file in place unless the run ended early, and says where they are.
    ///
    /// # Errors
    /// When the last bytes can't be written.
    pub fn finish(mut self, end: End) -> Result<Option<String>> {
        if matches!(self.sink, Sink::Stdout(_)) {
            self.text(self.format.closing())?;
        }
        let Sink::File { file, path } = self.sink else { return Ok(None) };
        let name = name_of(&path);
        let partial = file.path().map(name_of);
        match (end, partial) {
            (End::Early, Some(partial)) if self.records > 0 => {
                let on = if matches!(self.format, OutputFormat::Jsonl | OutputFormat::Csv) {
                    ", --resume goes on there"
                } else {
                    ""
                };
                Ok(Some(format!("results in {partial}{on}")))
            }
            (End::Early | End::Nothing, Some(_))
                if self.records == 0 && !(self.kept_empty && end == End::Nothing) =>
            {
                file.discard();
                Ok(Some(if path.exists() {
                    format!("{name} is left as it was")
                } else {
                    format!("{name} is not written")
                }))
            }
            _ => {
                file.finish().with_context(|| cannot_write(&path)).or_failed()?;
                Ok(Some(format!("results in {name}")))
            }
        }
    }
}

impl OutputFormat {
    /// The format that a file's name asks for.
    fn of_extension(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    /// What stands before the first record.
    fn opening(self, columns: &[&str]) -> String {
        match self {
            Self::Json | Self::Coco => "[".to_owned(),
            Self::Csv => columns.join(",") + "\n",
            Self::Jsonl | Self::Table => String::new(),
        }
    }

    /// What stands behind the last record.
    fn closing(self) -> &'static str {
        if matches!(self, Self::Json | Self::Coco) { "]\n" } else { "" }
    }
}

/// Refuses a path at which no file can be, in words.
///
/// # Errors
/// When it does.
pub fn has_a_place(path: &Path) -> Result<()> {
    let (name, folder) = (name_of(path), path.parent().filter(|folder| !folder.as_os_str().is_empty()));
    if path.is_dir() {
        bail!("{name}: can't be written: it is a folder; name a file in it");
    }
    match folder {
        Some(folder) if !folder.exists() => {
            bail!("{name}: can't be written: there is no folder {}", name_of(folder))
        }
        Some(folder) if !folder.is_dir() => {
            bail!("{name}: can't be written: {} is no folder", name_of(folder))
        }
        _ => Ok(()),
    }
}

fn cannot_write(path: &Path) -> String {
    format!("{}: can't be written", name_of(path))
}
