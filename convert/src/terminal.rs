//! Text from files, servers and users, made fit for a terminal.

/// `text` fit for a terminal: names of files and of classes come from anywhere. What would move the
/// cursor, colour the text or turn its direction becomes a question mark, line breaks become spaces.
pub fn one_line(text: &str) -> String {
    let harmless = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
        c if c.is_control() => '?',
        c => c,
    };
    text.trim().chars().map(harmless).collect()
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
        ] {
            assert_eq!(one_line(text), line);
        }
    }
}
