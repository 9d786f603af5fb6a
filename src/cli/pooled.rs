//! `nat-infer features --pooled`: one file with a vector for each image.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use nat_infer::eval::index_origin::IndexOrigin;
use nat_infer::eval::index_writer::{
    ClaimedIndex, INDEX_FILE, IndexWriter, NAMES_FILE, index_files, is_index,
};
use nat_infer::images::{Limits, Reader};
use nat_infer::pipeline::name_of;
use nat_infer::pipeline::partial::partial_path;
use nat_infer::tasks::files::is_ours;
use nat_infer::tasks::{Embed, TaskError};

use super::exit::{Exit, OrFailed};
use super::folder::Folder;
use super::images::{self, ImageOptions};
use super::output::End;
use super::resume::{Resumed, near};
use super::run::{Job, Keep, ResultOptions, without_images};
use super::settings::Settings;
use super::shared::CropOptions;
use super::verbosity::Verbosity;

/// What helps where files can't be gone on with.
const BEGINS_ANEW: &str = "--overwrite without --resume begins anew";

/// Runs the command.
pub fn run(
    settings: &Settings,
    images: &ImageOptions,
    crop: &CropOptions,
    save: &Path,
    results: &ResultOptions,
    verbosity: Verbosity,
) -> Result<Exit> {
    let ResultOptions { output, resume } = results;
    if output.output.is_some() || output.format.is_some() {
        bail!(
            "--pooled writes {INDEX_FILE} and {NAMES_FILE} and no records: leave --output and --format out"
        );
    }
    let mut sources = images.list(verbosity)?;
    let read = settings.file().into_iter().chain(images.files_from.as_deref());
    nothing_read(save, images::files(&sources).chain(read))?;
    if !output.overwrite {
        nothing_lost(save, *resume)?;
    }
    images.take_share(&mut sources);
    let claimed = if *resume && save.is_dir() { Some(ClaimedIndex::resume(save)?) } else { None };
    let place = IndexPlace { rows: save.join(INDEX_FILE) };
    let (mut before, mut again) = (0, None);
    if let Some(claimed) = &claimed {
        let mut earlier = Resumed::of_images(place.rows.clone(), claimed.names().to_vec());
        before = earlier.take_from(&mut sources, claimed.is_complete()).len();
        let row = claimed.last_row().map(<[f32]>::to_vec);
        again = earlier.last.zip(row).map(|(last, row)| (last.image, row));
    }
    if !sources.iter().any(Result::is_ok) {
        return without_images(&sources, before, verbosity, |end| match claimed {
            Some(claimed) if claimed.is_complete() => Ok(Some(place.whole())),
            claimed => match claimed.and_then(ClaimedIndex::reopen) {
                Some(writer) => IndexRows { writer: writer.or_failed()?, again: None, place }.end(end),
                None => Ok(Some(place.unwritten())),
            },
        });
    }
    let task = Arc::new(embedder(settings, crop.resolution, crop.crop_pct)?);
    verbosity.explain("input", task.crop());
    let exif = images.exif.into();
    let origin = IndexOrigin::new(&task, settings.dtype(), exif, crop.resolution, crop.crop_pct);
    let open = || {
        Folder::new(save).make()?;
        let claimed = claimed.map_or_else(|| ClaimedIndex::begin(save), Ok)?;
        let resumed = !claimed.names().is_empty();
        let writer = claimed.open(&origin, task.width());
        let writer = writer.map_err(|error| match resumed {
            true => anyhow!("{error}; {BEGINS_ANEW}"),
            false => error.into(),
        })?;
        Ok(IndexRows { writer, again, place })
    };
    let reader = Reader::new(exif, Limits::default());
    let job = Job::of(sources, before, None, reader, verbosity);
    let ended =
        job.kept(&task, settings, open, |image, answer| Ok((image.name(), answer.output)), |_, _| {})?;
    Ok(ended.exit)
}

/// A model's pooled features, loaded.
///
/// # Errors
/// When the model can't be had, or is no classifier.
pub fn embedder(settings: &Settings, resolution: Option<usize>, crop_pct: Option<f64>) -> Result<Embed> {
    let model = settings.load().map_err(|error| match error.downcast_ref() {
        Some(TaskError::OtherTask { model, .. }) => TaskError::NoPooled { model: model.clone() }.into(),
        _ => error,
    })?;
    Ok(Embed::new(model, resolution, crop_pct)?)
}

/// Where the rows are, as messages call it.
struct IndexPlace {
    rows: PathBuf,
}

impl IndexPlace {
    fn whole(&self) -> String {
        format!("features in {}", name_of(&self.rows))
    }

    fn unwritten(&self) -> String {
        let name = name_of(&self.rows);
        if self.rows.exists() {
            format!("{name} is left as it was")
        } else {
            format!("{name} is not written")
        }
    }
}

/// IndexRows on their way into the index.
struct IndexRows {
    writer: IndexWriter,
    /// The last image of an interrupted run and its row: it is computed again and has to come out the same.
    again: Option<(String, Vec<f32>)>,
    place: IndexPlace,
}

impl Keep<(String, Vec<f32>)> for IndexRows {
    fn keep(&mut self, (name, row): &(String, Vec<f32>)) -> Result<()> {
        // Images that failed before come first, if they do not fail again.
        if let Some((_, before)) = self.again.take_if(|(image, _)| image == name) {
            let alike = |(&a, &b): (&f32, &f32)| near(a.into(), b.into());
            if before.len() != row.len() || !before.iter().zip(row).all(alike) {
                bail!(
                    "{}: its last row comes out differently now: options, weights or the image have changed; \
                     {BEGINS_ANEW}",
                    name_of(&self.place.rows)
                );
            }
            return Ok(());
        }
        self.writer.push(name, row).or_failed()
    }

    fn end(self, end: End) -> Result<Option<String>> {
        let Self { writer, place, .. } = self;
        if end == End::Early {
            return Ok(Some(match writer.leave().or_failed()? {
                Some([rows, _]) => format!("features in {}, --resume goes on there", name_of(&rows)),
                None => place.unwritten(),
            }));
        }
        if writer.count() == 0 {
            writer.discard();
            return Ok(Some(place.unwritten()));
        }
        writer.finish().or_failed()?;
        Ok(Some(place.whole()))
    }
}

/// Refuses to write what the run reads.
fn nothing_read<'a>(save: &Path, mut read: impl Iterator<Item = &'a Path>) -> Result<()> {
    let written = index_files(save).into_iter().flat_map(|path| [partial_path(&path), path]);
    let written: Vec<PathBuf> = written.filter_map(|path| path.canonicalize().ok()).collect();
    if let Some(folder) = written.iter().find(|path| path.is_dir()) {
        bail!("{}: can't be written: it is a folder; use another --save folder", name_of(folder));
    }
    let is_written = |path: &&Path| path.canonicalize().is_ok_and(|path| written.contains(&path));
    if !written.is_empty()
        && let Some(path) = read.find(is_written)
    {
        bail!("{} is read by this run and would be replaced; use another --save folder", name_of(path));
    }
    Ok(())
}

/// Refuses to replace what is no earlier result, and what an interrupted run left.
fn nothing_lost(save: &Path, resume: bool) -> Result<()> {
    let [rows, names] = index_files(save);
    let [partial_rows, partial_names] = [&rows, &names].map(|path| partial_path(path));
    let ours = [
        (&rows, is_ours(&rows)),
        (&names, is_index(&rows)),
        (&partial_rows, is_ours(&partial_rows)),
        // As a run leaves it that is killed between the names of its two files.
        (&partial_names, is_index(&partial_rows) || is_index(&rows)),
    ];
    let has_content = |path: &Path| fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0);
    if let Some((path, _)) = ours.into_iter().find(|(path, ours)| !ours && has_content(path)) {
        bail!(
            "{} is there already and was not made by this program; use another --save folder, or --overwrite replaces it",
            name_of(path)
        );
    }
    if !resume && has_content(&partial_names) {
        bail!(
            "{} has the rows of an interrupted run; --resume goes on with them, --overwrite begins anew",
            name_of(&partial_rows)
        );
    }
    Ok(())
}
