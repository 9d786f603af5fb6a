//! Patterns over tensor names.

/// Whether `name` is what `pattern` describes: `*` stands for any characters, none too (there are no folders
/// in a name), `?` for one, all others for themselves.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // Where the last star and what it was tried on stand: it takes one character more when the rest fails.
    let mut star = None;
    loop {
        let behind = name.clone();
        match (pattern.next(), name.next()) {
            (Some('*'), _) => {
                star = Some((pattern.clone(), behind.clone()));
                name = behind;
            }
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {}
            _ => {
                let Some((after, tried)) = &mut star else { return false };
                if tried.next().is_none() {
                    return false;
                }
                (pattern, name) = (after.clone(), tried.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("head.*", "head.weight", true),
            ("head.*", "xhead.weight", false),
            ("*.tp", "train_acc.tp", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("?", "ä", true),
            ("?", "", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-c-", false),
            ("*bias", "norm.bias.bias", true),
            ("**", "x", true),
            ("[a]", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        // The work is at most the product of both lengths.
        assert!(!matches(&"*a".repeat(50), &"a".repeat(49)));
        assert!(!matches(&"*a".repeat(40).replace("**", "*"), &format!("{}b", "a".repeat(2000))));
    }
}
