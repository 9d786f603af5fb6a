//! What travels in the `__metadata__` of a safetensors file that this crate wrote: everything that
//! is needed to run it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arch::{Architecture, Preprocessing};

/// The key under which [`Metadata`] lies, as JSON, in a safetensors file's `__metadata__`.
pub const KEY: &str = "nat";

/// Architecture, labels, preprocessing and origin of a converted checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// What to build.
    pub architecture: Architecture,
    /// How to feed it.
    pub preprocessing: Preprocessing,
    /// Class names in index order, when the checkpoint has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
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
    /// When the entry is there but can't be understood (a newer converter wrote it, or it is damaged).
    pub fn from_map(map: &BTreeMap<String, String>) -> serde_json::Result<Option<Self>> {
        map.get(KEY).map(|json| serde_json::from_str(json)).transpose()
    }
}
