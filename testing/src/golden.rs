//! The golden data: what the original programs computed, in `tests/golden`.
//!
//! Files that a test names are taken from the repository ([`path`]). Walks over all cases of a folder ([`files`],
//! [`folders`], [`each`]) take another copy of the data, with more cases, where `$NAT_INFER_GOLDEN` names one.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A file or folder of the golden data, by its path in `tests/golden`.
pub fn path(name: impl AsRef<Path>) -> PathBuf {
    repository().join("tests/golden").join(name)
}

/// The bytes of a file of the golden data.
#[track_caller]
pub fn bytes(name: impl AsRef<Path>) -> Vec<u8> {
    let path = path(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The JSON in a file.
#[track_caller]
pub fn json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The root of what is walked: `tests/golden`, or `$NAT_INFER_GOLDEN`.
fn root() -> PathBuf {
    std::env::var_os("NAT_INFER_GOLDEN").map_or_else(|| path(""), PathBuf::from)
}

#[track_caller]
fn entries(folder: &str, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let folder = root().join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| wanted(path)).collect();
    found.sort();
    assert!(!found.is_empty(), "no golden data of this kind in {}", folder.display());
    found
}

/// The files of a golden folder with this extension, sorted. There is at least one.
#[track_caller]
pub fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    entries(folder, |path| path.is_file() && path.extension().is_some_and(|e| e == extension))
}

/// The folders in a golden folder, sorted. There is at least one.
#[track_caller]
pub fn folders(folder: &str) -> Vec<PathBuf> {
    entries(folder, Path::is_dir)
}

/// Checks every case. All are checked; if any fail, what fails at last is one message with their names.
#[track_caller]
pub fn each<'a>(cases: impl IntoIterator<Item = &'a PathBuf>, mut check: impl FnMut(&Path)) {
    let (mut count, mut failed) = (0, Vec::new());
    for case in cases {
        count += 1;
        if catch_unwind(AssertUnwindSafe(|| check(case))).is_err() {
            failed.push(case.strip_prefix(root()).unwrap_or(case).display().to_string());
        }
    }
    assert!(count > 0, "there are no golden cases");
    assert!(failed.is_empty(), "{} of {count} golden cases fail: {}", failed.len(), failed.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(check: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(check)).unwrap_err();
        *panic.downcast::<String>().unwrap()
    }

    #[test]
    fn every_case_is_found_and_named_where_it_fails() {
        let found = files("pickle", "pth");
        assert!(found.len() == 12 && found.is_sorted(), "{found:?}");
        let mut seen = Vec::new();
        let text = message(|| {
            each(&found, |path| {
                seen.push(path.to_owned());
                assert!(!path.ends_with("zip-protocol3.pth") && !path.ends_with("legacy-protocol0.pth"));
            });
        });
        assert_eq!(seen, found);
        assert_eq!(text, "2 of 12 golden cases fail: pickle/legacy-protocol0.pth, pickle/zip-protocol3.pth");
    }

    #[test]
    fn a_folder_without_cases_is_a_failure() {
        assert!(message(|| drop(files("pickle", "jpeg"))).contains("no golden data of this kind"));
        assert!(message(|| drop(folders("pickle"))).contains("no golden data of this kind"));
        assert!(message(|| drop(folders("nothing"))).contains("nothing: "));
    }

    /// What comes in comes with the script that makes it, or with a word on why there is none.
    #[test]
    fn every_folder_has_its_generator() {
        let text = fs::read_to_string(path("make/README.md")).unwrap();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.split(" | ").collect())
            .collect();
        let named: Vec<&str> = rows.iter().map(|row| row[0].trim_matches(['|', ' ', '`'])).collect();
        let mut there: Vec<String> = fs::read_dir(path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "make")
            .collect();
        there.sort();
        assert_eq!(named, there, "rows of tests/golden/make/README.md, and what is in tests/golden");
        for row in rows {
            for script in row[1].split('`').filter(|part| part.ends_with(".py")) {
                assert!(path("make").join(script).is_file(), "{}: there is no {script}", row[0]);
            }
        }
    }
}
