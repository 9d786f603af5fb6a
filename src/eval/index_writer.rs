//! An index of images while it is made: rows and names are appended to two files that get their names at the end.
//!
//! The rows lie behind a header of a length that any number of them leaves as it is: a safetensors header may end in
//! spaces. So what a run that was killed leaves is every row that it finished, and a run that goes on ends with the
//! bytes of one that was never interrupted.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::DatasetError;
use super::index_origin::IndexOrigin;
use super::names::{line_of, name_of_line};
use crate::pipeline::partial::{Partial, partial_path};

/// The vectors of an index, in its folder.
pub const INDEX_FILE: &str = "features.safetensors";

/// The names of its images, beside it.
pub const NAMES_FILE: &str = "features.txt";

/// The tensor of the vectors.
pub(super) const TENSOR: &str = "pooled";

/// Bytes of a value.
const VALUE: usize = size_of::<f32>();

/// The files of an index in `folder`: of its vectors, and of its names.
pub fn index_files(folder: &Path) -> [PathBuf; 2] {
    [INDEX_FILE, NAMES_FILE].map(|name| folder.join(name))
}

/// Whether the file at `path` begins as an index that this crate made, finished or not.
pub fn is_index(path: &Path) -> bool {
    matches!(FileHeader::read(path), Ok(Some(_)))
}

/// The files of an index that no other process can write any more, and what an interrupted run left in them.
pub struct ClaimedIndex {
    /// The folder's files.
    paths: [PathBuf; 2],
    rows: Partial,
    names: Partial,
    earlier: Option<Earlier>,
}

/// What an earlier run left.
struct Earlier {
    header: FileHeader,
    /// Its whole rows, of which every one has a name.
    names: Vec<String>,
    /// Where the last of these names ends.
    names_end: u64,
    last: Vec<f32>,
    /// Whether the files have their names already.
    complete: bool,
}

/// The header of an index.
struct FileHeader {
    origin: IndexOrigin,
    width: usize,
    /// Length of its JSON, with the spaces.
    length: usize,
}

/// An index that grows.
pub struct IndexWriter {
    paths: [PathBuf; 2],
    rows: Partial,
    names: Partial,
    header: FileHeader,
    count: usize,
}

impl ClaimedIndex {
    /// Begins an index in `folder`, which is there. What an interrupted run left is gone; what is there by the final
    /// names stays until the new one is whole.
    ///
    /// # Errors
    /// When the files can't be made, or another process writes them.
    pub fn begin(folder: &Path) -> Result<Self, DatasetError> {
        let claimed = Self::claim(folder)?;
        Ok(Self { earlier: None, ..claimed })
    }

    /// Goes on with what an interrupted run left in `folder`, or with an index that is whole.
    ///
    /// # Errors
    /// As [`ClaimedIndex::begin`], and when what is there is no index that this crate made.
    pub fn resume(folder: &Path) -> Result<Self, DatasetError> {
        let [rows, names] = index_files(folder);
        let [partial_rows, partial_names] = [&rows, &names].map(|path| partial_path(path));
        // It was killed between the names of the two.
        if is_index(&rows) && !names.exists() && !partial_rows.exists() && partial_names.exists() {
            fs::rename(&partial_names, &names).map_err(|error| cannot("be moved", &partial_names, &error))?;
        }
        let claimed = Self::claim(folder)?;
        let complete = claimed.rows.length() == 0 && rows.is_file();
        let (from, listed) = if complete { (rows, names) } else { (partial_rows, partial_names) };
        let unreadable = |error| cannot("be read", &from, &error);
        let header = match FileHeader::read(&from).map_err(unreadable)? {
            Some(header) => header,
            // It was killed before it had a row.
            None if !complete && claimed.names.length() == 0 => return Ok(claimed),
            None => {
                return Err(DatasetError::new(
                    &from,
                    "no index that this program made; it can't go on with it",
                ));
            }
        };
        let earlier = header.earlier(&from, &listed, complete)?;
        Ok(Self { earlier: Some(earlier), ..claimed })
    }

    fn claim(folder: &Path) -> Result<Self, DatasetError> {
        let paths = index_files(folder);
        let [rows, names] = [&paths[0], &paths[1]].map(|path| match Partial::claim(path, "") {
            Ok(partial) if partial.path().is_some() => Ok(partial),
            Ok(_) => Err(DatasetError::new(path, "no plain file, as an index has to be")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(DatasetError::new(&partial_path(path), "another process is writing it"))
            }
            Err(error) => Err(cannot("be written", path, &error)),
        });
        Ok(Self { rows: rows?, names: names?, paths, earlier: None })
    }

    /// The images whose rows are there, in order.
    pub fn names(&self) -> &[String] {
        self.earlier.as_ref().map_or(&[], |earlier| &earlier.names)
    }

    /// The last row that is there.
    pub fn last_row(&self) -> Option<&[f32]> {
        self.earlier
            .as_ref()
            .filter(|earlier| !earlier.names.is_empty())
            .map(|earlier| earlier.last.as_slice())
    }

    /// Whether an earlier run ended with these files, which nobody has to go on with.
    pub fn is_complete(&self) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| earlier.complete)
    }

    /// Begins to write rows of `width` numbers of this origin, behind those that are there.
    ///
    /// # Errors
    /// When those that are there were made otherwise, or the files can't be written.
    pub fn open(self, origin: &IndexOrigin, width: usize) -> Result<IndexWriter, DatasetError> {
        let file = self.earlier_file();
        let header = FileHeader { origin: origin.clone(), width, length: reserved(origin, width) };
        if let Some(earlier) = &self.earlier {
            let theirs = &earlier.header;
            let [a, b] = [&theirs.origin, origin].map(IndexOrigin::metadata);
            let at = (0..a.len().max(b.len())).find(|&i| a.get(i) != b.get(i));
            if let Some(i) = at {
                let said = |all: &[(&str, String)]| {
                    all.get(i).map_or("nothing more".to_owned(), |(key, value)| format!("{key} `{value}`"))
                };
                return Err(DatasetError::new(
                    &file,
                    format!("it was made with {}, not {}", said(&a), said(&b)),
                ));
            }
            if (theirs.width, theirs.length) != (header.width, header.length) {
                return Err(DatasetError::new(&file, "it was made by another version of this program"));
            }
        }
        self.write(header)
    }

    /// The same where no model is there to compare with: ends what an earlier run left, if it left something.
    ///
    /// # Errors
    /// When the files can't be written.
    pub fn reopen(self) -> Option<Result<IndexWriter, DatasetError>> {
        let FileHeader { origin, width, length } = &self.earlier.as_ref()?.header;
        let header = FileHeader { origin: origin.clone(), width: *width, length: *length };
        Some(self.write(header))
    }

    /// Where what an earlier run left is.
    fn earlier_file(&self) -> PathBuf {
        if self.is_complete() { self.paths[0].clone() } else { partial_path(&self.paths[0]) }
    }

    fn write(self, header: FileHeader) -> Result<IndexWriter, DatasetError> {
        let Self { paths, mut rows, mut names, earlier } = self;
        let file = partial_path(&paths[0]);
        let mut begin = || match &earlier {
            None => {
                rows.cut(0)?;
                names.cut(0)?;
                rows.append(header.bytes(0))
            }
            Some(Earlier { names: done, names_end, complete, .. }) => {
                if *complete {
                    rows.copy(&paths[0])?;
                    names.copy(&paths[1])?;
                }
                rows.cut(header.rows_begin() + (done.len() * header.width * VALUE) as u64)?;
                names.cut(*names_end)
            }
        };
        begin().map_err(|error| cannot("be written", &file, &error))?;
        let count = earlier.map_or(0, |earlier| earlier.names.len());
        Ok(IndexWriter { paths, rows, names, header, count })
    }
}

impl IndexWriter {
    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Appends the row of an image, whole or not at all.
    ///
    /// # Errors
    /// When it can't be written, as on a full disk. What was appended before is there.
    ///
    /// # Panics
    /// When the row is of another width.
    pub fn push(&mut self, name: &str, row: &[f32]) -> Result<(), DatasetError> {
        assert_eq!(row.len(), self.header.width, "a row of the index's width");
        let before = self.rows.length();
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        let appended = self.rows.append(bytes).map_err(|error| cannot("be written", &self.paths[0], &error));
        let named = appended.and_then(|()| {
            let line = line_of(name) + "\n";
            self.names.append(line).map_err(|error| cannot("be written", &self.paths[1], &error))
        });
        if named.is_err() {
            // A row without a name is not there for whoever goes on either.
            let _ = self.rows.cut(before);
        }
        named?;
        self.count += 1;
        Ok(())
    }

    /// Ends the index and gives its files their names.
    ///
    /// # Errors
    /// When that can't be; the rows are then where they were.
    pub fn finish(mut self) -> Result<(), DatasetError> {
        self.say_count()?;
        let [rows, names] = &self.paths;
        let synced = self.rows.sync().and_then(|()| self.names.sync());
        synced.map_err(|error| cannot("be written", rows, &error))?;
        // Vectors beside the names of others would be worse than vectors without names.
        match fs::remove_file(names.canonicalize().as_ref().unwrap_or(names)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(cannot("be replaced", names, &error));
            }
            _ => {}
        }
        self.rows.finish().map_err(|error| cannot("be written", rows, &error))?;
        self.names.finish().map_err(|error| cannot("be written", names, &error))
    }

    /// Leaves the rows for a run that goes on with them, and gives the two files: a whole index, but for their names.
    /// `None` where there is no row and nothing is left.
    ///
    /// # Errors
    /// When the header can't be written; the rows are there.
    pub fn leave(mut self) -> Result<Option<[PathBuf; 2]>, DatasetError> {
        if self.count == 0 {
            self.discard();
            return Ok(None);
        }
        self.say_count()?;
        Ok(Some(self.paths.map(|path| partial_path(&path))))
    }

    /// Takes away what was written; an index that was there before stays.
    pub fn discard(self) {
        self.rows.discard();
        self.names.discard();
    }

    /// Makes the header say how many rows there are.
    fn say_count(&mut self) -> Result<(), DatasetError> {
        let header = self.header.bytes(self.count);
        self.rows.rewrite_start(&header).map_err(|error| cannot("be written", &self.paths[0], &error))
    }
}

impl FileHeader {
    /// Reads the header of a file, whatever follows it; `None` of what is no index of ours.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        /// Bytes of a header, at most: ours says little.
        const MOST: u64 = 1 << 16;
        /// Channels, at most: no network has near as many.
        const WIDEST: usize = 1 << 20;
        #[derive(Deserialize)]
        struct Json {
            #[serde(rename = "__metadata__")]
            metadata: HashMap<String, String>,
            pooled: Info,
        }
        #[derive(Deserialize)]
        struct Info {
            dtype: String,
            shape: [usize; 2],
        }
        let mut file = File::open(path)?;
        let mut length = [0; size_of::<u64>()];
        let mut json = Vec::new();
        if let Err(error) = file.read_exact(&mut length) {
            return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
        }
        let length = u64::from_le_bytes(length);
        if length > MOST {
            return Ok(None);
        }
        file.take(length).read_to_end(&mut json)?;
        let Ok(Json { metadata, pooled }) = serde_json::from_slice(&json) else { return Ok(None) };
        let origin = IndexOrigin::of_metadata(|key| metadata.get(key).map(String::as_str));
        let width = pooled.shape[1];
        let whole = json.len() as u64 == length && pooled.dtype == "F32" && (1..=WIDEST).contains(&width);
        Ok(origin.filter(|_| whole).map(|origin| Self { origin, width, length: json.len() }))
    }

    /// Where the rows begin.
    fn rows_begin(&self) -> u64 {
        (size_of::<u64>() + self.length) as u64
    }

    /// The bytes of a file before its `count` rows.
    fn bytes(&self, count: usize) -> Vec<u8> {
        let mut json = json(&self.origin, self.width, count as u64, (count * self.width * VALUE) as u64);
        json.extend(std::iter::repeat_n(' ', self.length.saturating_sub(json.len())));
        [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
    }

    /// What an earlier run left in `rows` and `names`.
    fn earlier(self, rows: &Path, names: &Path, complete: bool) -> Result<Earlier, DatasetError> {
        let unreadable = |path, error: io::Error| cannot("be read", path, &error);
        let mut file = File::open(rows).map_err(|error| unreadable(rows, error))?;
        let length = file.metadata().map_err(|error| unreadable(rows, error))?.len();
        let row_bytes = (self.width * VALUE) as u64;
        let whole = length.saturating_sub(self.rows_begin()) / row_bytes;
        let list = File::open(names).map_err(|error| unreadable(names, error))?;
        let (mut list, mut line) = (BufReader::new(list), Vec::new());
        let (mut found, mut names_end) = (Vec::new(), 0);
        while (found.len() as u64) < whole {
            line.clear();
            list.read_until(b'\n', &mut line).map_err(|error| unreadable(names, error))?;
            // A line without its end was cut.
            if line.last() != Some(&b'\n') {
                break;
            }
            let Ok(text) = std::str::from_utf8(&line[..line.len() - 1]) else {
                let line = found.len() + 1;
                return Err(DatasetError::new(
                    names,
                    format!("line {line} is no name that this program wrote"),
                ));
            };
            found.push(name_of_line(text));
            names_end += line.len() as u64;
        }
        let mut last = vec![0; if found.is_empty() { 0 } else { self.width * VALUE }];
        let at = self.rows_begin() + (found.len() as u64).saturating_sub(1) * row_bytes;
        let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut last));
        read.map_err(|error| unreadable(rows, error))?;
        let last = last.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        Ok(Earlier { header: self, names: found, names_end, last, complete })
    }
}

/// Bytes of the header's JSON, so that it has room for any number of rows.
fn reserved(origin: &IndexOrigin, width: usize) -> usize {
    json(origin, width, u64::MAX, u64::MAX).len().next_multiple_of(size_of::<u64>())
}

/// The header's JSON without what fills it up.
fn json(origin: &IndexOrigin, width: usize, count: u64, bytes: u64) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let metadata: Vec<String> =
        origin.metadata().iter().map(|(key, value)| format!("{}:{}", text(key), text(value))).collect();
    format!(
        "{{\"__metadata__\":{{{}}},\"{TENSOR}\":{{\"dtype\":\"F32\",\"shape\":[{count},{width}],\"data_offsets\":[0,{bytes}]}}}}",
        metadata.join(",")
    )
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> DatasetError {
    DatasetError::new(path, format!("can't {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use nat_testing::checkpoint::Saved;

    use super::super::index_origin::tests::origin;
    use super::*;

    const WIDTH: usize = 3;

    fn row(i: usize) -> Vec<f32> {
        (0..WIDTH).map(|c| (i * WIDTH + c) as f32 + 0.5).collect()
    }

    fn push(writer: &mut IndexWriter, rows: std::ops::Range<usize>) {
        rows.for_each(|i| writer.push(&format!("a\n{i}.png"), &row(i)).unwrap());
    }

    fn both(folder: &Path) -> [Vec<u8>; 2] {
        index_files(folder).map(|path| fs::read(path).unwrap())
    }

    fn partials(folder: &Path) -> [PathBuf; 2] {
        index_files(folder).map(|path| partial_path(&path))
    }

    /// An index of twelve rows, so that digits are added on the way.
    fn whole() -> [Vec<u8>; 2] {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ClaimedIndex::begin(folder.path()).unwrap().open(&origin(), WIDTH).unwrap();
        push(&mut writer, 0..12);
        assert_eq!(writer.count(), 12);
        writer.finish().unwrap();
        let saved = Saved::read(folder.path().join(INDEX_FILE));
        assert_eq!((saved.names(), saved.shape(TENSOR)), (vec![TENSOR.to_owned()], vec![12, WIDTH]));
        assert_eq!(saved.floats(TENSOR), (0..12).flat_map(row).collect::<Vec<_>>());
        let names = fs::read_to_string(folder.path().join(NAMES_FILE)).unwrap();
        assert!(names.starts_with("a\\x0a0.png\na\\x0a1.png\n") && names.lines().count() == 12);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        both(folder.path())
    }

    #[test]
    fn rows_of_more_than_any_network_gives_are_none_of_ours() {
        for width in [1 << 21, 1 << 62, usize::MAX] {
            let folder = tempfile::tempdir().unwrap();
            let [mut rows, names] = whole();
            let header = json(&origin(), width, 12, 0);
            rows[..8].copy_from_slice(&(header.len() as u64).to_le_bytes());
            rows.splice(8.., header.bytes());
            let [rows_file, names_file] = index_files(folder.path());
            fs::write(rows_file, rows).unwrap();
            fs::write(names_file, names).unwrap();
            let error = ClaimedIndex::resume(folder.path()).err().unwrap().to_string();
            assert!(error.contains("features.safetensors: "), "{error}");
        }
    }

    #[test]
    fn what_goes_on_ends_as_what_was_never_interrupted() {
        let whole = whole();
        let header = 8 + reserved(&origin(), WIDTH);
        // Wherever it is killed, rows or names may be cut.
        let mut cuts = vec![(0, 0), (5, 0), (header - 1, 0), (header, 0)];
        for rows in [0, 1, 5, 11, 12] {
            let names = whole[1].iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(i, _)| i + 1);
            let end = if rows == 0 { 0 } else { names.clone().nth(rows - 1).unwrap() };
            let data = header + rows * WIDTH * 4;
            cuts.extend([
                (data, end),
                (data + 2, end),
                (data, end + 1),
                (data + 12, end),
                (data, whole[1].len()),
            ]);
        }
        for (rows, names) in cuts {
            let folder = tempfile::tempdir().unwrap();
            let [partial_rows, partial_names] = partials(folder.path());
            let mut begun = whole[0].clone();
            begun.resize(rows, 7);
            fs::write(partial_rows, begun).unwrap();
            fs::write(partial_names, &whole[1][..names.min(whole[1].len())]).unwrap();
            let claimed = ClaimedIndex::resume(folder.path()).unwrap();
            let done = claimed.names().len();
            let named = whole[1].iter().take(names).filter(|byte| **byte == b'\n').count();
            assert_eq!(done, named.min(rows.saturating_sub(header) / (WIDTH * 4)), "{rows} {names}");
            let last = done.checked_sub(1).map(row);
            assert_eq!(claimed.last_row(), last.as_deref(), "{rows} {names}");
            let mut writer = claimed.open(&origin(), WIDTH).unwrap();
            push(&mut writer, done..12);
            writer.finish().unwrap();
            assert!(both(folder.path()) == whole, "{rows} {names}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn an_index_that_is_left_is_one_and_a_whole_one_goes_on() {
        let whole = whole();
        let folder = tempfile::tempdir().unwrap();
        let begin = || ClaimedIndex::begin(folder.path()).unwrap().open(&origin(), WIDTH).unwrap();
        // Nothing is left of nothing.
        assert_eq!(begin().leave().unwrap(), None);
        begin().discard();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut writer = begin();
        push(&mut writer, 0..5);
        // Nobody else writes meanwhile.
        let error = ClaimedIndex::begin(folder.path()).err().unwrap().to_string();
        assert!(error.ends_with("features.safetensors.partial: another process is writing it"), "{error}");
        let left = writer.leave().unwrap().unwrap();
        assert_eq!(left, partials(folder.path()));
        assert_eq!(Saved::read(&left[0]).floats(TENSOR), (0..5).flat_map(row).collect::<Vec<_>>());
        let resume = || ClaimedIndex::resume(folder.path()).unwrap();
        assert!(!resume().is_complete());
        let mut writer = resume().open(&origin(), WIDTH).unwrap();
        push(&mut writer, 5..9);
        writer.finish().unwrap();
        // A whole one is as it was until the next one is whole.
        let nine = both(folder.path());
        assert!(resume().is_complete() && resume().names().len() == 9);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let mut writer = resume().open(&origin(), WIDTH).unwrap();
        push(&mut writer, 9..12);
        assert!(both(folder.path()) == nine);
        writer.finish().unwrap();
        assert!(both(folder.path()) == whole);
        // Killed between the two names.
        let [_, names] = index_files(folder.path());
        fs::rename(&names, partial_path(&names)).unwrap();
        assert!(resume().is_complete() && both(folder.path()) == whole);
        resume().reopen().unwrap().unwrap().finish().unwrap();
        assert!(both(folder.path()) == whole);
    }

    #[test]
    fn what_was_made_otherwise_does_not_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ClaimedIndex::begin(folder.path()).unwrap().open(&origin(), WIDTH).unwrap();
        push(&mut writer, 0..2);
        writer.leave().unwrap();
        let other = |change: &dyn Fn(&mut IndexOrigin)| {
            let mut origin = origin();
            change(&mut origin);
            origin
        };
        for (origin, width, says) in [
            (
                other(&|o| o.model = "b".to_owned()),
                WIDTH,
                "it was made with model `nat-\"tiny\"`, not model `b`",
            ),
            (other(&|o| o.dtype = "f16".to_owned()), WIDTH, "it was made with dtype `f32`, not dtype `f16`"),
            (other(&|o| o.crop_pct = None), WIDTH, "it was made with crop_pct `0.875`, not nothing more"),
            (origin(), 4, "another version"),
        ] {
            let error = ClaimedIndex::resume(folder.path()).unwrap().open(&origin, width).err().unwrap();
            let error = error.to_string();
            assert!(error.contains("features.safetensors.partial: ") && error.contains(says), "{error}");
        }
        let [rows, names] = partials(folder.path());
        for (file, content) in [(&rows, &b"something else"[..]), (&names, b"a\n\xff\n")] {
            let before = fs::read(file).unwrap();
            fs::write(file, content).unwrap();
            let error = ClaimedIndex::resume(folder.path()).err().unwrap().to_string();
            assert!(error.contains("this program"), "{error}");
            assert_eq!(fs::read(file).unwrap(), content);
            fs::write(file, before).unwrap();
        }
        assert!(is_index(&rows) && !is_index(&names) && !is_index(folder.path()));
    }
}
