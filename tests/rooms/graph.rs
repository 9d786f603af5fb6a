//! What must not be among imports: cycles, and rooms that look up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::modules::Import;

/// A message for every two files that import each other, then for every cycle that is left without those imports, the
/// shortest first.
pub fn cycles(imports: &[Import]) -> Vec<String> {
    let mut edges: Edges = BTreeMap::new();
    for import in imports {
        edges.entry(&import.from).or_default().entry(&import.to).or_insert(import);
    }
    let mut messages = Vec::new();
    while let Some(way) = shortest_cycle(&edges) {
        messages.push(told_cycle(&way));
        for import in way {
            edges.get_mut(import.from.as_str()).and_then(|edges| edges.remove(import.to.as_str()));
        }
    }
    messages
}

/// The first import of each file by each other.
type Edges<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a Import>>;

fn shortest_cycle<'a>(edges: &Edges<'a>) -> Option<Vec<&'a Import>> {
    let starts = edges
        .iter()
        .flat_map(|(&file, edges)| edges.iter().map(move |(&next, &import)| (file, next, import)));
    let back = |(file, next, import)| {
        let mut way = vec![import];
        way.extend(shortest(edges, next, file)?);
        Some(way)
    };
    starts.filter_map(back).min_by_key(Vec::len)
}

fn told_cycle(way: &[&Import]) -> String {
    let mut text = match way {
        [one, _] => format!("{} and {} import each other:\n", one.from, one.to),
        _ => format!("{} files import each other in a circle:\n", way.len()),
    };
    for Import { from, line, path, to } in way {
        text += &format!("    {from}:{line} uses `{path}` of {to}\n");
    }
    text + "    Move what they share into a file of its own that needs neither, or hand it over as a parameter."
}

/// The imports that lead from one file to another.
fn shortest<'a>(edges: &Edges<'a>, from: &'a str, to: &str) -> Option<Vec<&'a Import>> {
    let mut came: BTreeMap<&str, &Import> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(file) = queue.pop_front() {
        if file == to {
            let mut way = Vec::new();
            let mut file = to;
            while file != from {
                let import = came[file];
                way.insert(0, import);
                file = &import.from;
            }
            return Some(way);
        }
        for (&next, &import) in edges.get(file).into_iter().flatten() {
            if next != from && !came.contains_key(next) {
                came.insert(next, import);
                queue.push_back(next);
            }
        }
    }
    None
}

/// One message for every import of a higher room, every file that is in no room, and every room that has no file.
/// `rooms` are files and folders, lowest first; a file is in the room with the longest name that leads to it.
pub fn upward<'a>(
    rooms: &[&str],
    files: impl IntoIterator<Item = &'a String>,
    imports: &[Import],
) -> Vec<String> {
    let mut messages = Vec::new();
    let mut empty: BTreeSet<&str> = rooms.iter().copied().collect();
    for file in files {
        match room(rooms, file) {
            Some(number) => {
                empty.remove(rooms[number]);
            }
            None => messages
                .push(format!("{file} is in no room: give it one, or a new one its place in the list")),
        }
    }
    messages
        .extend(empty.iter().map(|room| format!("{room} is a room without a file: take it off the list")));
    for Import { from, line, to, path } in imports {
        if let (Some(low), Some(high)) = (room(rooms, from), room(rooms, to))
            && low < high
        {
            messages.push(format!(
                "{from}:{line} uses `{path}` of {to}: {} is above {}. Move it down, or hand it over as a parameter.",
                rooms[high], rooms[low]
            ));
        }
    }
    messages
}

fn room(rooms: &[&str], file: &str) -> Option<usize> {
    let leads =
        |room: &str| file.strip_prefix(room).is_some_and(|rest| rest.is_empty() || room.ends_with('/'));
    (0..rooms.len()).filter(|&number| leads(rooms[number])).max_by_key(|&number| rooms[number].len())
}
