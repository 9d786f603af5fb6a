//! Opens files and tells containers apart, by their bytes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::bytes::ByteSource;
use super::contents::Contents;
use super::problem::Flaw;
use super::{foreign, legacy, safetensors, zip};

/// Opens a file that can be read from anywhere.
pub(super) fn open_file(path: &Path) -> Result<File, Flaw> {
    if path.is_dir() {
        return Err(Flaw::NotACheckpoint("a folder: name a file in it".into()));
    }
    // Before it is opened: that would wait for a pipe's other end.
    if !path.metadata()?.is_file() {
        let what = "a checkpoint can't be read from a pipe or a device; save it to a file";
        return Err(Flaw::Unsupported(what.into()));
    }
    Ok(File::open(path)?)
}

/// Finds out what bytes are and has the right reader read them.
pub(super) fn contents(bytes: &ByteSource) -> Result<Contents, Flaw> {
    let len = bytes.len()?;
    let mut head = Vec::new();
    bytes.reader(0).take(foreign::HEAD).read_to_end(&mut head)?;
    if zip::is_zip(&head) {
        zip::open(bytes, len)
    } else if legacy::is_legacy(&head) {
        legacy::open(bytes, len)
    } else if safetensors::is_safetensors(&head) {
        safetensors::open(bytes, len)
    } else {
        Err(Flaw::NotACheckpoint(foreign::describe(&head)))
    }
}
