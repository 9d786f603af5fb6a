//! SHA-256, which tells one file from another.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 16;

/// The SHA-256 of a file's bytes, in small hexadecimal digits.
///
/// # Errors
/// When it can't be read.
#[cfg(feature = "hub")]
pub(crate) fn digest(path: &Path) -> io::Result<String> {
    digest_while(path, || true)
}

/// The same of the bytes that are read while `goes_on` holds.
///
/// # Errors
/// When it can't be read.
pub(crate) fn digest_while(path: &Path, goes_on: impl Fn() -> bool) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; CHUNK];
    while goes_on() {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Bytes in small hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
