//! Where weights can lie.

use std::path::PathBuf;

/// Where the weights of a model are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// In the program itself.
    Embedded,
    /// A checkpoint file, or a folder in Transformers layout.
    At(PathBuf),
}

/// Whether `text` is an address of the web, `http://…` or `https://…`, and no path.
pub fn is_web_address(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}
