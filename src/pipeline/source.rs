//! One image: where its bytes are, and what it is called.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::ImageArchive;
use super::names::name_of;
use crate::images::SharedPixels;

/// One image: where it is, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where its bytes are.
    pub place: Location,
    /// Its path below the folder, the glob's first folder or the list that it came from; of a file that was named
    /// itself the file's name.
    pub below: PathBuf,
}

/// Where the bytes of an image are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a file.
    File(PathBuf),
    /// At an address, `http://…` or `https://…`.
    Url(String),
    /// In a tar or zip file.
    Member {
        /// The file.
        archive: Arc<ImageArchive>,
        /// The image's number among its members.
        number: usize,
    },
    /// Decoded already, in memory that others hold too.
    Pixels {
        /// What records and messages call it.
        name: String,
        /// The image, upright.
        pixels: SharedPixels,
    },
    /// In memory, as of an image that came through standard input.
    Memory {
        /// What records and messages call it.
        name: String,
        /// The bytes of the file.
        bytes: Arc<[u8]>,
    },
}

impl Source {
    /// An image in a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            below: path.file_name().map_or_else(|| path.clone(), PathBuf::from),
            place: Location::File(path),
        }
    }

    /// An image in memory: the bytes of a file of any format, under the name that records and messages use.
    pub fn memory(name: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self {
            place: Location::Memory { name: name.to_owned(), bytes: bytes.into() },
            below: PathBuf::from(name),
        }
    }

    /// An image that is decoded already, under the name that records and messages use.
    pub fn pixels(name: &str, pixels: SharedPixels) -> Self {
        Self { place: Location::Pixels { name: name.to_owned(), pixels }, below: PathBuf::from(name) }
    }

    /// An image at an address, `http://…` or `https://…`.
    pub fn url(address: &str) -> Self {
        let path = address.split(['?', '#']).next().unwrap_or(address);
        let path =
            path.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
        let name = Path::new(path).file_name().unwrap_or(OsStr::new("image"));
        Self { place: Location::Url(address.to_owned()), below: PathBuf::from(name) }
    }

    /// As records and messages call it; two images never have the same name by accident, see [`name_of`].
    pub fn name(&self) -> String {
        match &self.place {
            Location::File(path) => name_of(path),
            Location::Url(address) => without_login(address),
            Location::Memory { name, .. } | Location::Pixels { name, .. } => name.clone(),
            Location::Member { archive, number } => archive.member_name(*number),
        }
    }
}

/// An address without the name and password that may stand before its host: records go to others.
fn without_login(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match host.rsplit_once('@') {
        Some((login, _)) => format!("{scheme}://{}", &rest[login.len() + 1..]),
        None => address.to_owned(),
    }
}
