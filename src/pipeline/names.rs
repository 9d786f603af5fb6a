//! Paths as text, and what names tell of files.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::source_error::EXTENSIONS;

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

/// Whether a name is hidden: macOS leaves `._photo.jpg` beside photo.jpg.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Whether a file is called like an image.
pub(crate) fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
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
