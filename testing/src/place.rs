//! A program in an empty folder of its own, and what it did.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::de::DeserializeOwned;
use tempfile::TempDir;

/// A handwritten nine, 128 x 128.
pub const DIGIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/nine.png");

/// A program in an empty folder, without network, caches or the user's variables.
pub struct Place {
    folder: TempDir,
    program: &'static str,
}

impl Place {
    /// An empty folder for this program: `env!("CARGO_BIN_EXE_...")`.
    pub fn of(program: &'static str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), program }
    }

    /// The path of something in it; of `""` its own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a file, and its folders.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Makes a file, a copy of [`DIGIT`], and its folders.
    pub fn digit(&self, name: &str) -> PathBuf {
        self.file(name, fs::read(DIGIT).unwrap())
    }

    /// The program with these arguments, in the folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_clear().env("HOME", self.path("home")).env("HF_HUB_OFFLINE", "1");
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Done {
        Done(self.command(arguments).output().unwrap())
    }

    /// Runs `classify` with the embedded model.
    pub fn classify(&self, arguments: &[&str]) -> Done {
        self.run(&[&["classify", "--model", "demo-digits"], arguments].concat())
    }

    /// Everything below, by its path in here, sorted.
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
        walk(self.folder.path(), self.folder.path(), &mut found);
        found.sort();
        found
    }
}

/// The names in a folder, sorted.
#[track_caller]
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What a program did.
pub struct Done(pub Output);

impl Done {
    /// Its exit status; fails where a signal ended it.
    #[track_caller]
    pub fn status(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    /// What it wrote to stdout.
    #[track_caller]
    pub fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    /// What it wrote to stderr.
    #[track_caller]
    pub fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// What a run that succeeded wrote to stdout.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.status(), 0, "{}", self.stderr());
        self.stdout()
    }

    /// The records of a run that succeeded, one a line.
    #[track_caller]
    pub fn records<T: DeserializeOwned>(self) -> Vec<T> {
        self.success().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
