//! `--labels FILE`: names of the classes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde_json::Value;

/// The names of a model's classes.
#[derive(Args)]
pub struct LabelOptions {
    /// Names of the classes: one per line, a JSON list, or a JSON object that numbers them (id2label,
    /// class_to_idx) [default: the model's]
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
}

impl LabelOptions {
    /// The names, where a file is given.
    ///
    /// # Errors
    /// When it can't be read, or names no classes.
    pub fn read(&self) -> Result<Option<Vec<String>>> {
        self.labels.as_deref().map(read).transpose()
    }
}

/// Longest file that is read: the names of ImageNet-22K take half a megabyte.
const MAX_BYTES: u64 = 64 << 20;

fn read(path: &Path) -> Result<Vec<String>> {
    let named = || format!("--labels {}", path.display());
    let bytes = std::fs::metadata(path).with_context(named)?.len();
    if bytes > MAX_BYTES {
        bail!("{}: {bytes} bytes are no list of names", named());
    }
    let text = std::fs::read_to_string(path).with_context(named)?;
    parse(&text).with_context(named)
}

fn parse(text: &str) -> Result<Vec<String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with(['[', '{']) {
        let value = serde_json::from_str(text).context("neither a list of names nor JSON that is whole")?;
        return of_json(&value);
    }
    Ok(text.trim_end().lines().map(|line| line.trim().to_owned()).collect())
}

/// A list of names; an object of numbers and names, either way around, or one that has such a list or object under a
/// usual key.
fn of_json(value: &Value) -> Result<Vec<String>> {
    const KEYS: [&str; 6] = ["id2label", "class_to_idx", "label2id", "classes", "label_names", "names"];
    let object = match value {
        Value::Array(list) => {
            let names = list.iter().map(|item| name(item).ok_or_else(|| no_name(item)));
            return names.collect();
        }
        Value::Object(object) => object,
        other => bail!("{other} is no list of names"),
    };
    let number = |text: &str| text.parse::<usize>().ok();
    let by_key = object.keys().all(|key| number(key).is_some());
    if !by_key && let Some(inner) = KEYS.iter().find_map(|key| object.get(*key)).filter(|v| !v.is_null()) {
        return of_json(inner);
    }
    let mut names = BTreeMap::new();
    for (key, value) in object {
        let (index, name) = match (number(key).filter(|_| by_key), value.as_u64()) {
            (Some(index), _) => (index, name(value).ok_or_else(|| no_name(value))?),
            (None, Some(index)) => (usize::try_from(index)?, key.clone()),
            (None, None) => return Err(no_name(value)),
        };
        if let Some(other) = names.insert(index, name.clone()) {
            bail!("class {index} is both `{other}` and `{name}`");
        }
    }
    if let Some(missing) = (0..names.len()).find(|index| !names.contains_key(index)) {
        bail!("class {missing} has no name, and {} others have", names.len());
    }
    Ok(names.into_values().collect())
}

/// Text, a number, or what an object calls its name.
fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(name) => Some(name.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Object(object) => object.get("name")?.as_str().map(|name| name.trim().to_owned()),
        _ => None,
    }
}

fn no_name(value: &Value) -> anyhow::Error {
    let shown: String = value.to_string().chars().take(40).collect();
    anyhow!("{shown} is neither a name nor the number of one; a list, id2label and class_to_idx are read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for text in [
            "cat\ndog, hound\n",
            "\u{feff}cat\r\ndog, hound\r\n\r\n",
            r#" ["cat", "dog, hound"] "#,
            r#"{"1": "dog, hound", "0": "cat"}"#,
            r#"{"dog, hound": 1, "cat": 0}"#,
            r#"{"0": {"name": "cat", "isthing": 1}, "1": {"name": "dog, hound", "isthing": 0}}"#,
            r#"[{"id": 7, "name": "cat"}, {"id": 9, "name": "dog, hound"}]"#,
            r#"{"model_type": "nat", "id2label": {"0": "cat", "1": "dog, hound"}, "label2id": {"cat": 0}}"#,
            r#"{"class_to_idx": {"cat": 0, "dog, hound": 1}}"#,
            r#"{"classes": ["cat", "dog, hound"]}"#,
        ] {
            assert_eq!(parse(text).unwrap(), ["cat", "dog, hound"], "{text:?}");
        }
        // Numbers are names too, as long as they are keys or in a list.
        assert_eq!(parse(r#"{"0": 7, "1": 5}"#).unwrap(), ["7", "5"]);
        assert_eq!(parse("[1, 2]").unwrap(), ["1", "2"]);
        let ten: String = (0..12).map(|i| format!("\"{i}\": \"c{i}\",")).collect();
        assert_eq!(parse(&format!("{{{}}}", ten.trim_end_matches(','))).unwrap()[10..], ["c10", "c11"]);
    }

    #[test]
    fn what_names_no_classes_is_refused() {
        for (text, says) in [
            (r#"{"0": "cat", "2": "dog"}"#, "class 1 has no name, and 2 others have"),
            (r#"{"cat": 0, "dog": 0}"#, "class 0 is both `cat` and `dog`"),
            (r#"{"cat": "dog"}"#, "\"dog\" is neither a name nor the number of one"),
            (r#"[null]"#, "null is neither a name"),
            (r#"["cat""#, "nor JSON that is whole"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
