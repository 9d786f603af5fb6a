//! What the package needs lies inside of it.

use std::fs;
use std::path::{Path, PathBuf};

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// `cargo package` follows the links. Where git makes none, each is a text file with its target.
#[test]
fn links_lead_to_the_files_of_the_repository() {
    for name in ["weights.toml", "LICENSE-APACHE", "LICENSE-MIT"] {
        let (link, target) = (Path::new(PACKAGE).join(name), Path::new(PACKAGE).join("..").join(name));
        match fs::read_link(&link) {
            Ok(to) => assert_eq!(to, Path::new("..").join(name)),
            Err(_) => assert_eq!(fs::read_to_string(&link).unwrap().trim(), format!("../{name}")),
        }
        assert!(target.is_file(), "{name}");
    }
}

#[test]
fn nothing_outside_is_included() {
    let mut included = 0;
    for path in sources(&Path::new(PACKAGE).join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("include_str!(\"").chain(text.match_indices("include_bytes!(\"")) {
            let name = text[at..].split('"').nth(1).unwrap();
            let file = path.parent().unwrap().join(name).canonicalize().unwrap();
            assert!(file.starts_with(Path::new(PACKAGE).canonicalize().unwrap()), "{path:?} includes {name}");
            included += 1;
        }
    }
    // The lists of classes, the colours, the README.
    assert!(included >= 7, "{included}");
}
