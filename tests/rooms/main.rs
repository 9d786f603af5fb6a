//! The rules of the house: what ARCHITECTURE.md says of files, and of who imports whom, is held here. It reads the
//! sources as text and takes a second.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

mod graph;
mod made_up;
mod modules;
mod text;
mod tokens;

/// The rooms, lowest first: none imports one that comes after it. ARCHITECTURE.md draws them in this order.
const ROOMS: [&str; 25] = [
    "convert/src/",
    "cuda/src/",
    "src/crash.rs",
    "src/digest.rs",
    "src/memory.rs",
    "src/results/",
    "src/zoo/",
    "src/tensors.rs",
    "src/simd/",
    "src/cuda/",
    "src/profile.rs",
    "src/weights/",
    "src/attention/",
    "src/layers/",
    "src/images/",
    "src/models/",
    "src/self_test/",
    "src/tasks/",
    "src/pipeline/",
    "src/export/",
    "src/eval/",
    "src/lib.rs",
    "src/cli/",
    "src/main.rs",
    "python/src/",
];

/// Where the crates begin.
const CRATES: [modules::Root; 6] = [
    (Some("nat_convert"), "convert/src/lib.rs"),
    (None, "convert/src/main.rs"),
    (Some("nat_cuda"), "cuda/src/lib.rs"),
    (Some("nat_infer"), "src/lib.rs"),
    (None, "src/main.rs"),
    (None, "python/src/lib.rs"),
];

/// The folders of the crates.
const SOURCES: [&str; 4] = ["src", "convert/src", "cuda/src", "python/src"];

/// What has to stay true as files move.
const DOCUMENTS: [&str; 2] = ["ARCHITECTURE.md", "CONTRIBUTING.md"];

/// Reads below the workspace's root.
fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// The names in a folder.
fn list(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok()).collect()
}

/// Every source file below a folder.
fn sources(folder: &str) -> Vec<String> {
    let below = |name: String| {
        let path = format!("{folder}/{name}");
        if name.ends_with(".rs") { vec![path] } else { sources(&path) }
    };
    list(folder).into_iter().flat_map(below).collect()
}

/// Read once for all tests.
static WORKSPACE: LazyLock<modules::Workspace> = LazyLock::new(|| modules::read(&CRATES, &read));

#[track_caller]
fn none(mut messages: Vec<String>) {
    messages.sort();
    assert!(messages.is_empty(), "\n{}\n\n{} in all", messages.join("\n"), messages.len());
}

#[test]
fn no_files_import_each_other() {
    none(graph::cycles(&WORKSPACE.imports));
}

#[test]
fn no_room_looks_up() {
    none(graph::upward(&ROOMS, &WORKSPACE.files, &WORKSPACE.imports));
}

#[test]
fn every_path_can_be_followed() {
    none(WORKSPACE.problems.clone());
}

#[test]
fn a_name_stands_for_one_thing() {
    none(text::namesakes(&WORKSPACE.types));
}

#[test]
fn files_are_short_or_say_why_not() {
    let all = SOURCES.iter().flat_map(|folder| sources(folder));
    let read = |path: String| (read(&path).unwrap_or_default(), path);
    none(all.map(read).filter_map(|(source, path)| text::too_long(&path, &source)).collect());
}

#[test]
fn documents_name_what_is_there() {
    let mut messages = Vec::new();
    for document in DOCUMENTS {
        let text = read(document).unwrap_or_default();
        let paths = text::paths(&text);
        assert!(!paths.is_empty(), "{document} is not there or names no file");
        let missing = paths.into_iter().filter(|(_, path)| !text::exists(path, &list));
        messages.extend(missing.map(|(line, path)| format!("{document}:{line}: there is no `{path}`")));
    }
    none(messages);
}

#[test]
fn the_drawing_has_the_rooms_in_their_order() {
    let document = read("ARCHITECTURE.md").unwrap_or_default();
    let mut drawn = text::drawn(&document, &ROOMS);
    // Drawn with the highest on top.
    drawn.reverse();
    assert_eq!(drawn, ROOMS, "ARCHITECTURE.md and ROOMS differ");
}
