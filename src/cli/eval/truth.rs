//! Which annotations a run was measured by. What was found does not depend on them, but the scores do: shards are added up
//! that were measured by the same ones.

use std::path::Path;

use anyhow::{Context, Result};
use nat_infer::pipeline::name_of;
use sha2::{Digest, Sha256};

/// What a report's options call the SHA-256 of the annotations: of the file, or of a line for each image.
pub const ANNOTATIONS: &str = "annotations_sha256";

/// The SHA-256 of a file's bytes.
///
/// # Errors
/// When it can't be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    Ok(hex(&Sha256::digest(std::fs::read(path).with_context(|| name_of(path))?)))
}

/// The SHA-256 of lines.
pub fn sha256_of_lines(lines: impl Iterator<Item = String>) -> String {
    let mut hash = Sha256::new();
    lines.for_each(|line| hash.update(line + "\n"));
    hex(&hash.finalize())
}

/// A path as it is called on every system.
pub fn portable(path: &Path) -> String {
    name_of(path).replace('\\', "/")
}

/// Bytes in small hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
