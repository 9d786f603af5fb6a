//! One image: where its bytes are, and what it is called.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

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

    /// An image at an address.
    pub(super) fn url(address: &str) -> Self {
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
            Location::Memory { name, .. } => name.clone(),
        }
    }
}

/// A path as text. Most paths are text. On Unix a byte that is part of no character becomes `\xNN`, and backslashes
/// right before something that reads like `xNN` are doubled, so that two paths never become the same text.
pub fn name_of(path: &Path) -> String {
    if cfg!(not(unix)) {
        return path.display().to_string();
    }
    let mut text = String::new();
    // Backslashes that have been read and not been written yet: what follows says how.
    let mut backslashes = 0;
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        let valid = chunk.valid();
        for (at, c) in valid.char_indices() {
            if c == '\\' {
                backslashes += 1;
                continue;
            }
            let like_an_escape = match valid.as_bytes()[at..] {
                [b'x', a, b, ..] => a.is_ascii_hexdigit() && b.is_ascii_hexdigit(),
                _ => false,
            };
            text.extend(std::iter::repeat_n(
                '\\',
                if like_an_escape { 2 * backslashes } else { backslashes },
            ));
            text.push(c);
            backslashes = 0;
        }
        for byte in chunk.invalid() {
            text.extend(std::iter::repeat_n('\\', 2 * backslashes));
            text += &format!("\\x{byte:02x}");
            backslashes = 0;
        }
    }
    text.extend(std::iter::repeat_n('\\', backslashes));
    text
}

/// The names of a path that lead down: without the root and `..`.
pub fn plain(path: &Path) -> PathBuf {
    path.components().filter(|component| matches!(component, Component::Normal(_))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn two_names_never_become_one() {
        use std::os::unix::ffi::OsStrExt;
        let name = |bytes: &[u8]| name_of(Path::new(OsStr::from_bytes(bytes)));
        for (bytes, text) in [
            (&b"caf\xe9.png"[..], r"caf\xe9.png"),
            (br"caf\xe9.png", r"caf\\xe9.png"),
            (b"\\\xe9", r"\\\xe9"),
            (br"\\xe9", r"\\\\xe9"),
            ("é\\x".as_bytes(), "é\\x"),
            (br"a\b\", r"a\b\"),
            (b"\xff\xfe", r"\xff\xfe"),
        ] {
            assert_eq!(name(bytes), text);
        }
        // All short names over the bytes that matter.
        let bytes = [b'\\', b'x', b'e', b'9', 0xe9];
        let mut seen = std::collections::HashSet::new();
        for mut number in 0..5usize.pow(6) {
            let mut all = Vec::new();
            for _ in 0..6 {
                all.push(bytes[number % 5]);
                number /= 5;
            }
            assert!(seen.insert(name(&all)), "{all:?}");
        }
    }
}
