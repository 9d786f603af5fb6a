//! An index of images: their pooled features in one safetensors file, which images they are in a text file.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::DatasetError;
use super::index_origin::IndexOrigin;
use super::index_writer::TENSOR;
use super::names::{name_of_line, path_of};
use super::neighbors::Vectors;
use crate::weights::{LoadError, SafetensorsFile};

/// Vectors of images, one a row, and the images' names.
///
/// [`IndexWriter`](super::index_writer::IndexWriter) makes one. Anybody else's file will do that has a tensor of two
/// dimensions called `pooled`, `features` or `embeddings`, with its rows' names one a line in the `.txt` of its name
/// or without any.
pub struct FeatureIndex {
    path: PathBuf,
    file: SafetensorsFile,
    tensor: &'static str,
    /// The values where they do not lie in the file as f32.
    converted: Option<Vec<f32>>,
    width: usize,
    /// `None` where nothing names the rows.
    names: Option<Vec<String>>,
    origin: Option<IndexOrigin>,
}

/// The tensors that are taken, the first that is there.
const TENSORS: [&str; 3] = [TENSOR, "features", "embeddings"];

impl FeatureIndex {
    /// Opens the index whose vectors are in the file at `path`, which is mapped. It has a row at least, and finite
    /// numbers alone.
    ///
    /// # Errors
    /// When it can't be read, is none, or has not as many names as rows.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let error = |why: String| DatasetError::new(path, why);
        if path.is_dir() {
            return Err(error("a folder, no index; name the safetensors file in it".to_owned()));
        }
        let file = SafetensorsFile::open(path).map_err(|failed| match failed {
            LoadError::File { why, .. } => error(why),
            other => error(other.to_string()),
        })?;
        let there = |name: &&'static str| Some((*name, file.shape(name)?));
        let Some((tensor, shape)) = TENSORS.iter().find_map(there) else {
            let wanted = TENSORS.map(|name| format!("`{name}`")).join(", ");
            return Err(error(format!(
                "no index of images: it has none of the tensors {wanted}{}",
                held(&file)
            )));
        };
        let [count, width] = *shape else {
            return Err(error(format!(
                "`{tensor}` is {shape:?}; an index has a row for each image, of two dimensions"
            )));
        };
        if count == 0 || width == 0 {
            return Err(error(format!("`{tensor}` is {shape:?}: there is no image in it")));
        }
        let Some(values) = file.floats(tensor) else {
            return Err(error(format!("`{tensor}` has no floating point numbers")));
        };
        if let Some(row) = values.par_chunks(width).position_first(|row| !row.iter().all(|x| x.is_finite())) {
            return Err(error(format!("row {row} of `{tensor}` has what is no number")));
        }
        let converted = match values {
            std::borrow::Cow::Borrowed(_) => None,
            std::borrow::Cow::Owned(values) => Some(values),
        };
        let origin = IndexOrigin::of_metadata(|key| file.says(key));
        let names = names(path, count, origin.is_some())?;
        Ok(Self { path: path.to_owned(), tensor, converted, width, names, origin, file })
    }

    /// The vectors.
    pub fn vectors(&self) -> Vectors<'_> {
        let mapped = || match self.file.floats(self.tensor) {
            Some(std::borrow::Cow::Borrowed(values)) => values,
            _ => unreachable!("what is not f32 was converted"),
        };
        Vectors::new(self.converted.as_deref().unwrap_or_else(mapped), self.width)
    }

    /// How many images there are, 1 at least.
    pub fn count(&self) -> usize {
        self.vectors().count()
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The name of a row's image, or the row's number where nothing names it.
    ///
    /// # Panics
    /// When there are not so many rows.
    pub fn name(&self, row: usize) -> String {
        self.names.as_ref().map_or_else(|| row.to_string(), |names| names[row].clone())
    }

    /// How the vectors were made; `None` of what somebody else made.
    pub fn origin(&self) -> Option<&IndexOrigin> {
        self.origin.as_ref()
    }

    /// The file of the names, whether it is there or not.
    pub fn names_file(&self) -> PathBuf {
        self.path.with_extension("txt")
    }

    /// The file of a row's image, if it is still there: by its name as it is, then below the index's folder.
    ///
    /// # Panics
    /// When there are not so many rows.
    pub fn picture(&self, row: usize) -> Option<PathBuf> {
        let name = &self.names.as_ref()?[row];
        let path = if self.origin.is_some() { path_of(name) } else { PathBuf::from(name) };
        let beside = self.path.parent().unwrap_or(Path::new("")).join(&path);
        [path, beside].into_iter().find(|path| path.is_file())
    }
}

/// The tensors of a file, for a message.
fn held(file: &SafetensorsFile) -> String {
    /// So many tell enough.
    const SHOWN: usize = 5;
    let names = file.names();
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match (shown.is_empty(), names.len() > SHOWN) {
        (true, _) => ", nor any other".to_owned(),
        (false, more) => format!(", but {}{}", shown.join(", "), if more { ", …" } else { "" }),
    }
}

/// The names of an index's rows. One of `ours` has them, and lines that are names.
fn names(path: &Path, count: usize, ours: bool) -> Result<Option<Vec<String>>, DatasetError> {
    let list = path.with_extension("txt");
    let text = match fs::read(&list) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !ours => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(DatasetError::new(&list, "not there: it names the images of the index beside it"));
        }
        Err(error) => return Err(DatasetError::io(&list, &error)),
    };
    let Ok(text) = String::from_utf8(text) else {
        return Err(DatasetError::new(
            &list,
            "no text in UTF-8, as the names of an index's images have to be",
        ));
    };
    let names: Vec<String> = match ours {
        true => text.split_terminator('\n').map(name_of_line).collect(),
        false => text.lines().map(str::to_owned).collect(),
    };
    if names.len() != count {
        let why =
            format!("{} names, and the index beside it has {count} rows: they are of two runs", names.len());
        return Err(DatasetError::new(&list, why));
    }
    Ok(Some(names))
}

#[cfg(test)]
mod tests {
    use nat_testing::checkpoint::{Raw, save};

    use super::super::index_origin::tests::origin;
    use super::super::index_writer::{ClaimedIndex, INDEX_FILE, NAMES_FILE};
    use super::*;

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn tensor(name: &str, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Raw {
        (name.to_owned(), dtype, shape.to_vec(), bytes)
    }

    #[test]
    fn an_index_of_ours_has_names_and_an_origin() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ClaimedIndex::begin(folder.path()).unwrap().open(&origin(), 2).unwrap();
        let names = ["a\nb.png", r"c\xe9.png", "https://x.org/y.png"];
        for (i, name) in names.iter().enumerate() {
            writer.push(name, &[i as f32, -1.5]).unwrap();
        }
        writer.finish().unwrap();
        let path = folder.path().join(INDEX_FILE);
        let index = FeatureIndex::open(&path).unwrap();
        assert_eq!((index.count(), index.width(), index.origin()), (3, 2, Some(&origin())));
        assert_eq!([0, 1, 2].map(|row| index.name(row)), names);
        assert_eq!(index.vectors().row(2), [2.0, -1.5]);
        assert!(index.converted.is_none());
        // Pictures are below the index's folder, whatever bytes their names have.
        fs::write(folder.path().join("a\nb.png"), "").unwrap();
        assert_eq!(index.picture(0), Some(folder.path().join("a\nb.png")));
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::ffi::OsStrExt;
            let other = folder.path().join(std::ffi::OsStr::from_bytes(b"c\xe9.png"));
            fs::write(&other, "").unwrap();
            assert_eq!(index.picture(1), Some(other));
        }
        assert_eq!(index.picture(2), None);

        let list = folder.path().join(NAMES_FILE);
        let text = fs::read(&list).unwrap();
        for (text, says) in [
            (None, "features.txt: not there"),
            (Some(&b"a\nb\n"[..]), "features.txt: 2 names, and the index beside it has 3 rows"),
            (Some(b"a\n\xff\nb\n"), "features.txt: no text in UTF-8"),
            (Some(&text), ""),
        ] {
            fs::remove_file(&list).ok();
            text.iter().for_each(|text| fs::write(&list, text).unwrap());
            let error = FeatureIndex::open(&path).err().map_or(String::new(), |error| error.to_string());
            assert!(error.contains(says) && error.is_empty() == says.is_empty(), "{error}");
        }
    }

    #[test]
    fn an_index_of_somebody_else_will_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("theirs.safetensors");
        let values = [1.5f32, -2.0, 0.25, 8.0];
        let halves = values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect();
        let brain = values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect();
        let wide = values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
        for (name, dtype, bytes) in [
            ("pooled", "F32", floats(&values)),
            ("features", "F16", halves),
            ("embeddings", "BF16", brain),
            ("embeddings", "F64", wide),
        ] {
            save(&path, &[tensor(name, dtype, &[2, 2], bytes), tensor("other", "I64", &[1], vec![0; 8])]);
            let index = FeatureIndex::open(&path).unwrap();
            assert_eq!((index.vectors().row(0), index.vectors().row(1)), (&values[..2], &values[2..]));
            assert_eq!((index.name(1).as_str(), index.picture(1), index.origin()), ("1", None, None));
        }
        // Not aligned.
        save(
            &path,
            &[tensor("a", "F16", &[1], vec![0; 2]), tensor("pooled", "F32", &[2, 2], floats(&values))],
        );
        assert_eq!(FeatureIndex::open(&path).unwrap().vectors().row(1), &values[2..]);
        fs::write(path.with_extension("txt"), "x.png\r\nb\\x0a.png").unwrap();
        let index = FeatureIndex::open(&path).unwrap();
        assert_eq!([0, 1].map(|row| index.name(row)), ["x.png", "b\\x0a.png"]);
        fs::write(folder.path().join("x.png"), "").unwrap();
        assert_eq!(index.picture(0), Some(folder.path().join("x.png")));
    }

    #[test]
    fn what_is_no_index_is_said_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let many: Vec<Raw> = (0..9).map(|i| tensor(&i.to_string(), "F32", &[1], Vec::new())).collect();
        for (tensors, says) in [
            (vec![], "it has none of the tensors `pooled`, `features`, `embeddings`, nor any other"),
            (many, "`embeddings`, but `0`, `1`, `2`, `3`, `4`, …"),
            (
                vec![tensor("pooled", "F32", &[4], Vec::new())],
                "`pooled` is [4]; an index has a row for each image",
            ),
            (vec![tensor("pooled", "F32", &[1, 2, 2], Vec::new())], "`pooled` is [1, 2, 2]; "),
            (
                vec![tensor("pooled", "F32", &[0, 4], Vec::new())],
                "`pooled` is [0, 4]: there is no image in it",
            ),
            (
                vec![tensor("pooled", "F32", &[4, 0], Vec::new())],
                "`pooled` is [4, 0]: there is no image in it",
            ),
            (
                vec![tensor("features", "I64", &[1, 2], Vec::new())],
                "`features` has no floating point numbers",
            ),
            (
                vec![tensor("pooled", "F32", &[2, 2], floats(&[0.0, 1.0, 2.0, f32::NAN]))],
                "row 1 of `pooled` has what is no number",
            ),
        ] {
            save(&path, &tensors);
            let error = FeatureIndex::open(&path).err().unwrap().to_string();
            assert!(
                error.contains("x.safetensors: ") && error.contains(says) && error.lines().count() == 1,
                "{error}"
            );
        }
        for content in [&b""[..], b"12345678", b"not a safetensors file at all", &[255; 64]] {
            fs::write(&path, content).unwrap();
            let error = FeatureIndex::open(&path).err().unwrap().to_string();
            assert!(error.contains("x.safetensors: not a safetensors file ("), "{error}");
        }
        for (path, says) in
            [(folder.path().to_owned(), "a folder, no index"), (folder.path().join("none"), "No such file")]
        {
            let error = FeatureIndex::open(&path).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
