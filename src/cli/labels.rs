//! `--labels FILE`: names of the classes.

use std::path::Path;

use anyhow::{Context, Result};

/// One name per line, or a JSON list of names.
///
/// # Errors
/// When the file can't be read, is no text, or is JSON of another kind.
pub fn read(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--labels {}", path.display()))?;
    parse(&text).with_context(|| format!("--labels {}: not a list of names", path.display()))
}

fn parse(text: &str) -> serde_json::Result<Vec<String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text);
    }
    Ok(text.trim_end().lines().map(|line| line.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        for text in ["cat\ndog, hound\n", "\u{feff}cat\r\ndog, hound\r\n\r\n", r#" ["cat", "dog, hound"] "#] {
            assert_eq!(parse(text).unwrap(), ["cat", "dog, hound"], "{text:?}");
        }
        assert!(parse("[1, 2]").is_err());
    }
}
