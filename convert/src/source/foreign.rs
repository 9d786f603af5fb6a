//! What a file that is no checkpoint looks like, and what its owner can do about it.

/// How many bytes from the start of a file are looked at.
pub(super) const HEAD: u64 = 1024;

/// Bytes at an offset, what they are the mark of, and what to do.
const MARKS: &[(usize, &[u8], &str)] = &[
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"BM", "a BMP image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x1f\x8b", "a gzip file: unpack it first"),
    (0, b"\xfd7zXZ", "an xz file: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first"),
    (0, b"BZh", "a bzip2 file: unpack it first"),
    (0, b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (0, b"Rar!", "a RAR archive: unpack it first"),
    (
        257,
        b"ustar",
        "a tar archive: unpack it if it holds the checkpoint; if torch before 0.1.10 wrote it, load it in Python and torch.save it again",
    ),
    (0, b"\x89HDF", "an HDF5 file (Keras): torch checkpoints and safetensors are read"),
    (0, b"\x93NUMPY", "a NumPy array: torch checkpoints and safetensors are read"),
    (0, b"GGUF", "a GGUF file: torch checkpoints and safetensors are read"),
    (0, b"version https://git-lfs", "a git-lfs pointer: fetch the file itself with `git lfs pull`"),
];

/// Names what the first [`HEAD`] bytes of a file look like, with advice where there is some.
pub(super) fn describe(head: &[u8]) -> String {
    if head.is_empty() {
        return "an empty file: download or copy it again".into();
    }
    let mark = MARKS.iter().find(|(at, mark, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(mark)));
    if let Some((_, _, what)) = mark {
        return (*what).into();
    }
    if let [0x80, protocol @ 0..=5, ..] = head {
        return format!(
            "a pickle of protocol {protocol} that torch.save did not write (its magic number is missing): load it in Python and torch.save it"
        );
    }
    if head.iter().all(|&byte| byte == 0) {
        return "a file of zeros: download or copy it again".into();
    }
    // A cut through a character at the end of the head is no reason to call it binary.
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => "",
    };
    let text = text.trim_start().to_ascii_lowercase();
    let what = if text.starts_with("<!doctype html") || text.starts_with("<html") {
        "an HTML page: the download gave a web page in place of the file"
    } else if text.starts_with('<') {
        "an XML or HTML page: the download gave a page in place of the file"
    } else if text.starts_with('{') {
        "a JSON file: name the checkpoint beside it"
    } else if text.is_empty() || text.contains('\0') {
        "a file of unknown kind: torch checkpoints and safetensors are read"
    } else {
        "a text file: torch checkpoints and safetensors are read"
    };
    what.into()
}
