//! The program in a folder of its own, for the suites that run it.

// No suite needs all of it.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nat_infer::results::Classification;
use tempfile::TempDir;

/// A handwritten nine.
pub const DIGIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/nine.png");

/// A file of the golden data.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

/// The program in an empty folder, without network, caches or the user's variables.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a file, and its folders.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn digit(&self, name: &str) -> PathBuf {
        self.file(name, fs::read(DIGIT).unwrap())
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nat-infer"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.env_clear().env("HOME", self.path("home")).env("HF_HUB_OFFLINE", "1");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Done {
        Done(self.command(arguments).output().unwrap())
    }

    pub fn classify(&self, arguments: &[&str]) -> Done {
        self.run(&[&["classify", "--model", "demo-digits"], arguments].concat())
    }

    /// Everything below, by its path in here.
    pub fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                match entry.is_dir() {
                    true => walk(&entry, root, found),
                    false => found.push(entry.strip_prefix(root).unwrap().display().to_string()),
                }
            }
        }
        let mut found = Vec::new();
        walk(self.0.path(), self.0.path(), &mut found);
        found.sort();
        found
    }
}

/// What the program did.
pub struct Done(pub Output);

impl Done {
    pub fn status(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.status(), 0, "{}", self.stderr());
        self.stdout()
    }

    /// The records of a run that succeeded, one a line.
    #[track_caller]
    pub fn records(self) -> Vec<Classification> {
        self.success().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
