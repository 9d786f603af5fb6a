//! Text out of files made fit for a terminal: names of files, of tensors and of classes come from
//! anywhere, and a terminal obeys what stands in them.
//!
//! Hostile is what moves the cursor, colours the text or turns its direction, and what can't be seen:
//! control characters (C0, DEL and C1, U+0080 to U+009F), marks, embeddings and isolates of a
//! direction, zero-width spaces, the byte order mark, separators of lines and paragraphs, tags. Zero-width
//! joiners are left alone: emoji and several scripts are written with them.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a terminal must not see this character, line breaks and tabs included.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Marks, embeddings, overrides and isolates of a direction, and their deprecated kin.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
            // Separators of lines and paragraphs.
            | '\u{2028}' | '\u{2029}'
            // What has no width: spaces, invisible operators, the byte order mark, annotations, tags.
            | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// What stands for a hostile character: a space for what breaks a line, else a question mark.
fn harmless(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        c if is_hostile(c) => '?',
        c => c,
    }
}

/// `text` on one line that a terminal shows and does not obey, without spaces around it. What is hostile
/// becomes a question mark, line breaks become spaces.
pub fn one_line(text: &str) -> String {
    text.trim().chars().map(harmless).collect()
}

/// `text` with its lines, each as in [`one_line`]: for CSV, tables and whatever else is more than a line and
/// goes to a terminal. Borrowed where there was nothing to replace.
pub fn lines(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| c != '\n' && is_hostile(c);
    if !text.contains(hostile) {
        return Cow::Borrowed(text);
    }
    // A carriage return is part of a line's end, and alone it would let a line overwrite itself.
    let ends = text.replace("\r\n", "\n");
    Cow::Owned(ends.chars().map(|c| if hostile(c) { harmless(c) } else { c }).collect())
}

/// JSON that means the same and that a terminal can be shown: what is hostile becomes `\uXXXX`.
///
/// `json` is to be valid JSON, of any number of values. Outside of strings that has no character that is
/// replaced, line breaks and tabs stay as they are; inside of strings an escape is the same as the character.
/// Borrowed where there was nothing to replace.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let hostile = |c: char| !matches!(c, '\n' | '\r' | '\t') && is_hostile(c);
    if !json.contains(hostile) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(text, "\\u{unit:04x}").unwrap_or_else(|_| unreachable!("a String takes all text"));
            }
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_that_moves_it() {
        for (text, line) in [
            ("plain ü 猫.png", "plain ü 猫.png"),
            ("a\nb\r\n", "a b"),
            ("\u{1b}[31mred", "?[31mred"),
            ("gpj\u{202e}.exe", "gpj?.exe"),
            ("\u{7f}\u{9b}", "??"),
            ("\u{9b}2J\u{90}q\u{9c}", "?2J?q?"),
            ("a\u{61c}b\u{200f}c\u{2067}d\u{2069}e", "a?b?c?d?e"),
            ("a\u{2028}b\u{2029}c\u{85}d", "a b c d"),
            ("a\u{200b}\u{2060}\u{feff}\u{fffa}b", "a????b"),
            ("x\u{e0041}\u{e007f}y", "x??y"),
            // A family is one emoji of three, and Persian words are written with a non-joiner.
            ("👨\u{200d}👩\u{200d}👧 می\u{200c}خواهم", "👨\u{200d}👩\u{200d}👧 می\u{200c}خواهم"),
        ] {
            assert_eq!(one_line(text), line);
        }
    }

    #[test]
    fn lines_stay_lines() {
        assert!(matches!(lines("a,b\nc\n"), Cow::Borrowed("a,b\nc\n")));
        assert_eq!(lines("a\u{9b}1m,b\r\nc\rd\te\u{2028}\n"), "a?1m,b\nc d e \n");
    }

    #[test]
    fn json_means_the_same() {
        let record =
            serde_json::json!({"image": "a\u{1b}\u{9b}\u{202e}\u{2028}\u{7f}\u{e0041}\\\"é\u{200d}\n"});
        let json = format!("[\t{record},\n{record}]\r\n");
        let escaped = escape_json(&json);
        let both: Vec<serde_json::Value> = serde_json::from_str(&escaped).unwrap();
        assert_eq!(both, [record.clone(), record]);
        assert!(escaped.contains(r"\u009b\u202e\u2028\u007f\udb40\udc41"), "{escaped}");
        assert_eq!(lines(&escaped).matches('?').count(), 0, "{escaped}");
        assert!(matches!(escape_json("{\"a\":\"é\"}\n"), Cow::Borrowed(_)));
    }
}
