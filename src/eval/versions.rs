//! Which versions of others' code compute scores.

use hotcoco::SemanticEval;

/// The version of hotcoco, which computes average precision, mean IoU and panoptic quality.
pub fn hotcoco_version() -> String {
    // It says its version with results alone.
    SemanticEval::new(1).results().hotcoco_version
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_that_of_the_lock_file() {
        let lock = include_str!("../../Cargo.lock");
        let entry = format!("name = \"hotcoco\"\nversion = \"{}\"\n", super::hotcoco_version());
        assert!(lock.contains(&entry), "{entry}");
    }
}
