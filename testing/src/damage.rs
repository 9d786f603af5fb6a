//! Files as nobody meant to write them.

use std::fs;

use fastrand::Rng;
use serde_json::{Value, json};

/// Changes a few bytes, most of them in the first and last `edge` bytes, where formats keep their structure.
pub fn bytes(random: &mut Rng, bytes: &mut Vec<u8>, edge: usize) {
    const TELLING: [u8; 9] = [0, 1, 0x7f, 0x80, 0xd9, 0xff, b'.', b'(', b'{'];
    for _ in 0..=random.usize(..6) {
        let length = bytes.len();
        let near = random.usize(..length.min(edge));
        let at = match random.u8(..4) {
            0 | 1 => near,
            2 => length - 1 - near,
            _ => random.usize(..length),
        };
        match random.u8(..9) {
            0 => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes[at] = TELLING[random.usize(..TELLING.len())],
            2 => drop(bytes.drain(at..(at + 1 + random.usize(..40)).min(length))),
            3 => bytes.truncate(at.max(1)),
            4 => {
                let number = [u64::MAX, 1 << 63, 1 << 40, 1 << 31, 0][random.usize(..5)].to_le_bytes();
                let end = (at + 1 + random.usize(..8)).min(length);
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            5 => {
                let end = (at + 1 + random.usize(..4)).min(length);
                bytes[at..end].fill([0, 0x10, 0xff][random.usize(..3)]);
            }
            6 => {
                let piece = bytes[at..(at + random.usize(..100)).min(length)].to_vec();
                let to = random.usize(..length);
                bytes.splice(to..to, piece);
            }
            7 => bytes.insert(at, random.u8(..)),
            _ => {
                let other = random.usize(..length);
                bytes.swap(at, other);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

/// Puts a value that nobody expects somewhere into a tree.
pub fn json(random: &mut Rng, value: &mut Value) {
    let inner = match value {
        Value::Array(items) if !items.is_empty() && random.u8(..5) > 0 => {
            let at = random.usize(..items.len());
            items.get_mut(at)
        }
        Value::Object(pairs) if !pairs.is_empty() && random.u8(..8) > 0 => {
            let at = random.usize(..pairs.len());
            pairs.values_mut().nth(at)
        }
        _ => None,
    };
    match inner {
        Some(inner) => json(random, inner),
        None => {
            let values = [
                Value::Null,
                json!(true),
                json!(0),
                json!(-1),
                json!(0.5),
                json!(1e308),
                json!(5e-324),
                json!(u64::MAX),
                json!(1u64 << 40),
                json!(""),
                json!("x".repeat(5000)),
                json!([]),
                json!({}),
                json!([[[[[[]]]]]]),
                json!([0, 0, 0]),
                json!(vec![7; 3000]),
            ];
            *value = values[random.usize(..values.len())].clone();
        }
    }
}

/// Where the numbers of a tree are, as JSON pointers.
pub fn numbers(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Number(_) => found.push(at.to_owned()),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, item)| walk(item, &format!("{at}/{i}"), found));
            }
            Value::Object(pairs) => {
                pairs.iter().for_each(|(key, value)| walk(value, &format!("{at}/{key}"), found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

/// The most memory that this process has had, in MiB; `None` where the system does not say.
pub fn peak_memory() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok().map(|kib| kib >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_the_same_in_every_run_and_leaves_something() {
        let run = || {
            let mut random = Rng::with_seed(1);
            let mut damaged = Vec::new();
            for length in [1, 2, 100, 5000] {
                for _ in 0..200 {
                    let mut file = vec![b'x'; length];
                    bytes(&mut random, &mut file, 200);
                    damaged.push(file);
                }
            }
            damaged
        };
        let damaged = run();
        assert!(damaged == run() && damaged.iter().all(|file| !file.is_empty()));
        assert!(damaged.iter().filter(|file| file.iter().any(|&byte| byte != b'x')).count() > 400);
    }

    #[test]
    fn trees_are_disturbed_and_their_numbers_found() {
        let tree = json!({"a": [1, {"b": 2.5}], "c": "3"});
        assert_eq!(numbers(&tree), ["/a/0", "/a/1/b"]);
        let mut random = Rng::with_seed(2);
        let mut changed = 0;
        for _ in 0..50 {
            let mut other = tree.clone();
            json(&mut random, &mut other);
            changed += usize::from(other != tree);
        }
        assert!(changed > 45, "{changed}");
    }
}
