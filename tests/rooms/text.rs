//! What is held of files as text: their length, and the paths that documents name.

use std::collections::BTreeSet;

/// Lines that a file may have, tests and comments among them, unless its header says why it has more.
const MOST_LINES: usize = 600;

/// How a header says so.
const REASON: &str = "long because";

/// A message, if a source file is too long.
pub fn too_long(path: &str, source: &str) -> Option<String> {
    let lines = source.lines().count();
    let header: Vec<&str> =
        source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let explained = header.join(" ").contains(REASON);
    (lines > MOST_LINES && !explained).then(|| {
        format!(
            "{path} has {lines} lines, {MOST_LINES} are the most: cut it where its parts need each other least, or let \
             its header say that it is {REASON} …"
        )
    })
}

/// What a document names in backticks that is a path, with its line; not what stands in its fenced blocks.
pub fn paths(document: &str) -> Vec<(usize, &str)> {
    const ENDINGS: [&str; 6] = [".rs", ".md", ".toml", ".sh", ".py", ".cu"];
    let is_path = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/*".contains(c);
        let named = text.contains('/') || ENDINGS.iter().any(|ending| text.ends_with(ending));
        named && !text.starts_with(['-', '/', '.', '*']) | text.starts_with(".c") && text.chars().all(plain)
    };
    let mut fenced = false;
    let mut paths = Vec::new();
    for (number, line) in document.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let quoted = line.split('`').skip(1).step_by(2);
            paths.extend(quoted.filter(|text| is_path(text)).map(|text| (number + 1, text)));
        }
    }
    paths
}

/// Whether a path, in which `*` stands for any part of a name, is a file or folder. `list` gives the names in a folder.
pub fn exists(path: &str, list: &dyn Fn(&str) -> Vec<String>) -> bool {
    let mut folders = BTreeSet::from([String::new()]);
    for part in path.trim_end_matches('/').split('/') {
        let fits = |name: &str| match part.split_once('*') {
            Some((before, after)) => {
                name.len() >= part.len() - 1 && name.starts_with(before) && name.ends_with(after)
            }
            None => name == part,
        };
        folders = folders
            .iter()
            .flat_map(|folder| {
                let names = list(folder).into_iter().filter(|name| fits(name));
                names
                    .map(|name| if folder.is_empty() { name } else { format!("{folder}/{name}") })
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    !folders.is_empty()
}

/// The rooms in the order in which the first drawing of a document names them.
pub fn drawn<'a>(document: &str, rooms: &[&'a str]) -> Vec<&'a str> {
    let drawing = document.split("```").nth(1).unwrap_or_default();
    let words = drawing.split(|c: char| !(c.is_ascii_alphanumeric() || "._-/".contains(c)));
    words.filter_map(|word| rooms.iter().find(|room| **room == word).copied()).collect()
}

/// A message for every type or trait whose name another one has.
pub fn namesakes(types: &std::collections::BTreeMap<String, Vec<String>>) -> Vec<String> {
    let several = types.iter().filter(|(_, places)| places.len() > 1);
    several
        .map(|(name, places)| format!("{name} stands for {} things: {}", places.len(), places.join(", ")))
        .collect()
}
