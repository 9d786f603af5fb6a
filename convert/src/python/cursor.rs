//! A place in Python's text, and what is read there in one piece: words, numbers, strings.

use super::value::Py;

/// A place in a text.
pub(super) struct Cursor<'a> {
    /// All of the text.
    pub text: &'a str,
    /// Bytes before the place.
    pub at: usize,
    /// Brackets that are open there.
    pub depth: usize,
}

impl<'a> Cursor<'a> {
    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn fail<T>(&self, what: impl std::fmt::Display) -> Result<T, String> {
        let line = 1 + self.text[..self.at].bytes().filter(|&byte| byte == b'\n').count();
        Err(format!("line {line}: {what}"))
    }

    /// Steps over blanks, comments and joined lines; with `lines` over the ends of lines too.
    pub fn space(&mut self, lines: bool) {
        loop {
            let rest = self.rest();
            let blank = |c: char| c.is_whitespace() && (lines || c != '\n');
            let skipped = rest.len() - rest.trim_start_matches(blank).len();
            self.at += skipped;
            let rest = self.rest();
            if rest.starts_with('#') {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if let Some(after) =
                rest.strip_prefix('\\').and_then(|r| r.strip_prefix("\r\n").or(r.strip_prefix('\n')))
            {
                self.at = self.text.len() - after.len();
            } else if skipped == 0 {
                return;
            }
        }
    }

    /// Steps over blanks, and over ends of lines inside of brackets.
    pub fn blanks(&mut self) {
        self.space(self.depth > 0);
    }

    pub fn eat(&mut self, token: &str) -> bool {
        self.blanks();
        let eaten = self.rest().starts_with(token);
        if eaten {
            self.at += token.len();
        }
        eaten
    }

    pub fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    pub fn digits(&mut self) -> Option<Py> {
        let rest = self.rest();
        let exponent = |i: usize| i > 0 && rest.as_bytes()[i - 1].eq_ignore_ascii_case(&b'e');
        let part = |(i, c): (usize, char)| {
            c.is_ascii_alphanumeric() || c == '.' || c == '_' || ((c == '-' || c == '+') && exponent(i))
        };
        let end = rest.char_indices().find(|&at| !part(at)).map_or(rest.len(), |(i, _)| i);
        let digits = rest[..end].replace('_', "");
        self.at += end;
        let integer = digits.parse().ok().map(Py::Int);
        integer.or_else(|| digits.parse().ok().filter(|number: &f64| number.is_finite()).map(Py::Float))
    }

    /// Strings beside each other are one.
    pub fn strings(&mut self) -> Result<Py, String> {
        let mut text = self.string(false)?;
        loop {
            self.blanks();
            if !matches!(self.peek(), Some('\'' | '"')) {
                return Ok(Py::Str(text));
            }
            text += &self.string(false)?;
        }
    }

    pub fn string(&mut self, raw: bool) -> Result<String, String> {
        let Some(quote) = self.peek() else { return self.fail("a string is missing") };
        let triple = self.rest().starts_with(&quote.to_string().repeat(3));
        let end = quote.to_string().repeat(if triple { 3 } else { 1 });
        let start = self.at;
        self.at += end.len();
        let mut text = String::new();
        loop {
            if self.rest().starts_with(&end) {
                self.at += end.len();
                return Ok(text);
            }
            let c = match self.peek() {
                Some(c) if triple || c != '\n' => c,
                _ => {
                    self.at = start;
                    return self.fail("a string has no end");
                }
            };
            self.at += c.len_utf8();
            let next = self.peek();
            match (c, next) {
                ('\\', Some(next)) => {
                    self.at += next.len_utf8();
                    match next {
                        _ if raw => text.extend([c, next]),
                        '\n' => {}
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        'r' => text.push('\r'),
                        '\\' | '\'' | '"' => text.push(next),
                        'x' | 'u' | 'U' => self.code(next, &mut text),
                        _ => text.extend([c, next]),
                    }
                }
                _ => text.push(c),
            }
        }
    }

    /// The character of an escape in hexadecimal digits; what is none stands for itself.
    fn code(&mut self, kind: char, text: &mut String) {
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            _ => 8,
        };
        let hex = self.rest().get(..digits);
        match hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32) {
            Some(c) => {
                self.at += digits;
                text.push(c);
            }
            None => text.extend(['\\', kind]),
        }
    }
}
