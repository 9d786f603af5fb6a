//! Names of images as lines of a text file, and the files that they mean.

use std::path::PathBuf;

/// A name as one line: line feeds and carriage returns become `\x0a` and `\x0d`, as bytes that are no text do in names
/// ([`name_of`](crate::pipeline::name_of)), and backslashes right before them are doubled, so that two names never
/// become one line.
pub(super) fn line_of(name: &str) -> String {
    let mut line = String::with_capacity(name.len());
    let mut backslashes = 0;
    for c in name.chars() {
        if matches!(c, '\n' | '\r') {
            line.extend(std::iter::repeat_n('\\', backslashes));
            line += &format!("\\x{:02x}", u32::from(c));
        } else {
            line.push(c);
        }
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
    }
    line
}

/// The name that became this line.
pub(super) fn name_of_line(line: &str) -> String {
    let mut name = String::with_capacity(line.len());
    each(line, |backslashes, escape| match escape {
        Escape::Byte(byte @ (b'\n' | b'\r')) => {
            name.extend(std::iter::repeat_n('\\', backslashes / 2));
            name.push(char::from(byte));
        }
        // Those of other bytes belong to the name.
        Escape::Byte(byte) => {
            name.extend(std::iter::repeat_n('\\', backslashes));
            name += &format!("x{byte:02x}");
        }
        Escape::Text(text) => {
            name.extend(std::iter::repeat_n('\\', backslashes));
            name += text;
        }
    });
    name
}

/// The path of this name: [`name_of`](crate::pipeline::name_of) the other way round.
pub(super) fn path_of(name: &str) -> PathBuf {
    #[cfg(unix)]
    {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt;
        let mut bytes = Vec::with_capacity(name.len());
        each(name, |backslashes, escape| match escape {
            Escape::Byte(byte) => {
                bytes.extend(std::iter::repeat_n(b'\\', backslashes / 2));
                bytes.push(byte);
            }
            Escape::Text(text) => {
                // Doubled before what only reads like an escape.
                let doubled = escaped(text).is_some();
                bytes.extend(std::iter::repeat_n(b'\\', if doubled { backslashes / 2 } else { backslashes }));
                bytes.extend(text.bytes());
            }
        });
        OsString::from_vec(bytes).into()
    }
    // Where names are as they are shown.
    #[cfg(not(unix))]
    PathBuf::from(name)
}

/// What follows backslashes.
enum Escape<'a> {
    /// An odd number of them and `xNN`.
    Byte(u8),
    /// Anything else, up to the next backslash.
    Text(&'a str),
}

/// Calls `f` with each run of backslashes, which may be of none, and what follows it.
fn each(text: &str, mut f: impl FnMut(usize, Escape)) {
    let mut rest = text;
    while !rest.is_empty() {
        let after = rest.trim_start_matches('\\');
        let backslashes = rest.len() - after.len();
        let end = after.find('\\').unwrap_or(after.len());
        match escaped(after).filter(|_| backslashes % 2 == 1) {
            Some(byte) => {
                f(backslashes, Escape::Byte(byte));
                rest = &after[3..];
            }
            None => {
                f(backslashes, Escape::Text(&after[..end]));
                rest = &after[end..];
            }
        }
    }
}

/// The byte of an `xNN` at the beginning.
fn escaped(text: &str) -> Option<u8> {
    match *text.as_bytes() {
        [b'x', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
            u8::from_str_radix(&text[1..3], 16).ok()
        }
        _ => None,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::collections::HashSet;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;
    use crate::pipeline::name_of;

    #[test]
    fn every_name_is_one_line_and_leads_back() {
        for (name, line) in
            [("a b.png", "a b.png"), ("a\nb", r"a\x0ab"), ("a\\\r", r"a\\\x0d"), (r"a\x0a", r"a\x0a")]
        {
            assert_eq!(line_of(name), line);
        }
        // All short paths over the bytes that matter, and what reads like an escape.
        let bytes = [b'\\', b'x', b'0', b'a', b'\n', b'\r', 0xe9];
        let mut lines = HashSet::new();
        for mut number in 0..bytes.len().pow(6) {
            let mut all = Vec::new();
            for _ in 0..6 {
                all.push(bytes[number % bytes.len()]);
                number /= bytes.len();
            }
            let path = Path::new(OsStr::from_bytes(&all));
            let name = name_of(path);
            let line = line_of(&name);
            assert!(!line.contains(['\n', '\r']), "{all:?}");
            assert_eq!(name_of_line(&line), name, "{all:?}");
            assert_eq!(path_of(&name), path, "{all:?}");
            assert!(lines.insert(line), "{all:?}");
        }
    }
}
