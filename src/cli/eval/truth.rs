//! Which annotations a run was measured by: where files have another content, what was found is compared anew.

use std::path::Path;

use anyhow::{Context, Result};
use nat_infer::pipeline::name_of;
use sha2::{Digest, Sha256};

/// What a report's options call the content of the annotations.
pub const ANNOTATIONS: &str = "annotations_sha256";

/// The SHA-256 of a file's bytes, in small hexadecimal digits.
///
/// # Errors
/// When it can't be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    Ok(hex(&Sha256::digest(std::fs::read(path).with_context(|| name_of(path))?)))
}

/// One of many files: of the lines that `sha256sum` would write, with these names.
pub fn sha256_of_all<'a>(files: impl Iterator<Item = (String, &'a Path)>) -> String {
    let mut hash = Sha256::new();
    for (name, path) in files {
        // Those that can't be read are told of where they are wanted.
        let content = sha256_of(path).unwrap_or_default();
        hash.update(format!("{content}  {name}\n"));
    }
    hex(&hash.finalize())
}

/// Bytes in small hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
