//! What travels in the `__metadata__` of a safetensors file that this crate wrote: everything that
//! is needed to run it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arch::{Architecture, Preprocessing};
use crate::check;
use crate::limits::{Checked, MAX_CLASSES, at_most};

/// The key under which [`Metadata`] lies, as JSON, in a safetensors file's `__metadata__`.
pub const KEY: &str = "nat";

/// Longest metadata in bytes; the labels of ImageNet-22K take half a megabyte.
const MAX_BYTES: usize = 16 << 20;

/// Longest name of a class in bytes.
const MAX_NAME: usize = 1 << 12;

/// Architecture, labels, preprocessing and origin of a converted checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metadata {
    /// What to build.
    pub architecture: Architecture,
    /// How to feed it.
    pub preprocessing: Preprocessing,
    /// Class names in index order, when the checkpoint has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// The colour of each class on pictures, red, green and blue, when the checkpoint has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub palette: Option<Vec<[u8; 3]>>,
    /// Name in weights.toml, when `--arch`, a known file name or a Hub repository gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether the dilations were stated (by name, by config.json, by the user) or assumed to be 1.
    pub dilations_known: bool,
    /// The file it was converted from.
    pub source: SourceFile,
    /// Version of the converter that wrote the file.
    pub converter: String,
}

/// Identity of the file that was converted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SourceFile {
    /// File name without its folder.
    pub file: String,
    /// SHA-256 of its bytes (of all parts, one behind the other, if it was split), in hexadecimal; a written file has it, a checkpoint that was only
    /// opened does not (hashing takes as long as reading).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Metadata {
    /// The `__metadata__` map that carries this (with the `format` key that other readers expect).
    pub fn to_map(&self) -> serde_json::Result<BTreeMap<String, String>> {
        let format = ("format".to_owned(), "pt".to_owned());
        Ok([format, (KEY.to_owned(), serde_json::to_string(self)?)].into())
    }

    /// What a file of ours carries; `None` for somebody else's safetensors.
    ///
    /// # Errors
    /// When the entry is there but can't be understood (a newer converter wrote it, or it is damaged), or has
    /// numbers with which nothing can be computed.
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<Option<Self>, MetadataError> {
        let Some(json) = map.get(KEY) else { return Ok(None) };
        if json.len() > MAX_BYTES {
            return Err(MetadataError::Length { bytes: json.len() });
        }
        let metadata: Self = serde_json::from_str(json)?;
        metadata.check().map_err(MetadataError::Invalid)?;
        Ok(Some(metadata))
    }

    /// # Errors
    /// What the first number is that nothing can be computed with.
    pub(crate) fn check(&self) -> Checked {
        check::architecture(&self.architecture)?;
        check::preprocessing(&self.preprocessing)?;
        if let Some(labels) = &self.labels {
            at_most("labels", labels.len(), MAX_CLASSES)?;
            if let Some(label) = labels.iter().find(|label| label.len() > MAX_NAME) {
                return Err(format!("a label has {} bytes, more than {MAX_NAME}", label.len()));
            }
        }
        if let Some(palette) = &self.palette {
            at_most("palette", palette.len(), MAX_CLASSES)?;
        }
        Ok(())
    }
}

/// Why a file's metadata can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// It is not what this version writes.
    #[error("metadata that this version can't read ({0}); convert the original file again")]
    Json(#[from] serde_json::Error),
    /// It is longer than the labels of any network.
    #[error("its metadata has {bytes} bytes, more than the {MAX_BYTES} that are read")]
    Length {
        /// How long it is.
        bytes: usize,
    },
    /// A number in it is out of its range.
    #[error("its metadata can't be used: {0}; convert the original file again")]
    Invalid(String),
}
