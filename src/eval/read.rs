//! Files of datasets, read whole.

use std::path::Path;

use super::DatasetError;

/// The bytes of the file at `path`.
///
/// # Errors
/// When it can't be read.
pub fn whole_file(path: &Path) -> Result<Vec<u8>, DatasetError> {
    std::fs::read(path).map_err(|error| DatasetError::io(path, &error))
}
