//! Rust's source as tokens: enough to find items and paths, without a parser of the language.

/// An identifier, `::`, or one character of punctuation. Comments, literals and lifetimes leave none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// Counted from 1.
    pub line: usize,
}

impl Token {
    pub fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c == '_' || c.is_alphabetic())
    }
}

/// The tokens of a source file.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut reader = Reader { rest: source, line: 1, tokens: Vec::new() };
    while reader.step() {}
    reader.tokens
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl<'a> Reader<'a> {
    fn step(&mut self) -> bool {
        let rest = self.rest;
        let Some(first) = rest.chars().next() else { return false };
        if rest.starts_with("//") {
            self.take(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.block_comment();
        } else if first == '"' {
            self.string();
        } else if first == '\'' {
            self.character_or_lifetime();
        } else if first == '_' || first.is_alphanumeric() {
            self.word();
        } else if rest.starts_with("::") {
            self.push(2);
        } else if first.is_whitespace() {
            self.take(first.len_utf8());
        } else {
            self.push(first.len_utf8());
        }
        true
    }

    /// Takes so many bytes away.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn push(&mut self, bytes: usize) {
        let line = self.line;
        let text = self.take(bytes).to_owned();
        self.tokens.push(Token { text, line });
    }

    /// Block comments stand within each other.
    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.take(2);
            } else {
                match self.rest.chars().next() {
                    Some(c) => self.take(c.len_utf8()),
                    None => return,
                };
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        let mut escaped = false;
        let end = self.rest[1..].find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        self.take(end.map_or(self.rest.len(), |end| end + 2));
    }

    fn character_or_lifetime(&mut self) {
        let mut chars = self.rest[1..].chars();
        let (first, second) = (chars.next().unwrap_or(' '), chars.next());
        if first == '\\' {
            // What is escaped may be a quote.
            let end = self.rest[3..].find('\'');
            self.take(end.map_or(self.rest.len(), |end| end + 4));
        } else if second == Some('\'') {
            self.take(2 + first.len_utf8());
        } else {
            let name = |c: char| c == '_' || c.is_alphanumeric();
            let end = self.rest[1..].find(|c| !name(c));
            self.take(end.map_or(self.rest.len(), |end| end + 1));
        }
    }

    /// A name, a number, or what stands before a literal: `r#"`, `b'`.
    fn word(&mut self) {
        let end = self.rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(self.rest.len());
        let (word, after) = self.rest.split_at(end);
        let hashes = after.len() - after.trim_start_matches('#').len();
        let raw = matches!(word, "r" | "br" | "cr");
        if raw && after[hashes..].starts_with('"') {
            self.take(end + hashes + 1);
            let close = format!("\"{}", "#".repeat(hashes));
            let length = self.rest.find(&close).map_or(self.rest.len(), |at| at + close.len());
            self.take(length);
        } else if raw && hashes == 1 {
            self.take(end + 1);
        } else if word.starts_with(|c: char| c.is_ascii_digit())
            || (matches!(word, "b" | "c") && after.starts_with(['"', '\'']))
        {
            self.take(end);
        } else {
            self.push(end);
        }
    }
}

/// The tokens without what is compiled for tests alone.
pub fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match attribute(tokens, at) {
            Some(end) if is_for_tests(&tokens[at..end]) => at = item_end(tokens, end),
            Some(end) => {
                kept.extend_from_slice(&tokens[at..end]);
                at = end;
            }
            None => {
                kept.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    kept
}

/// Where the attribute that begins here, `#[..]` or `#![..]`, ends.
pub fn attribute(tokens: &[Token], at: usize) -> Option<usize> {
    let open = if is(tokens, at + 1, "!") { at + 2 } else { at + 1 };
    let begins = is(tokens, at, "#") && is(tokens, open, "[");
    begins.then(|| group_end(tokens, open))
}

pub fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

/// Whether an attribute is `cfg(test)`, `cfg(all(test, ..))` or `test`.
fn is_for_tests(attribute: &[Token]) -> bool {
    let words: Vec<&str> = attribute.iter().map(|token| token.text.as_str()).collect();
    match words.as_slice() {
        ["#", "[", "test", "]"] => true,
        ["#", "[", "cfg", "(", "test", ")", "]"] => true,
        ["#", "[", "cfg", "(", "all", "(", rest @ ..] => rest.first() == Some(&"test"),
        _ => false,
    }
}

/// The token after the group that opens here.
pub fn group_end(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// The token after the item, statement, field or arm that begins here, with its other attributes.
pub fn item_end(tokens: &[Token], at: usize) -> usize {
    const ITEMS: [&str; 11] =
        ["mod", "fn", "struct", "enum", "union", "impl", "trait", "unsafe", "extern", "async", "macro_rules"];
    let mut at = item_start(tokens, at);
    let is_function = is(tokens, at, "const")
        && ["fn", "unsafe", "extern", "async"].iter().any(|word| is(tokens, at + 1, word));
    // A group doesn't end these: `use a::{b, c};`, `const X: T = T { .. };`.
    let to_semicolon =
        !is_function && ["use", "const", "static", "let", "type"].iter().any(|word| is(tokens, at, word));
    let is_item = is_function || to_semicolon || ITEMS.iter().any(|word| is(tokens, at, word));
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            "," if !is_item => return at + 1,
            ")" | "]" | "}" => return at,
            "(" | "[" => at = group_end(tokens, at),
            "{" => {
                at = group_end(tokens, at);
                if !to_semicolon {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

/// The token that says what kind of item begins here: after its attributes and `pub(..)`.
pub fn item_start(tokens: &[Token], mut at: usize) -> usize {
    while let Some(end) = attribute(tokens, at) {
        at = end;
    }
    if is(tokens, at, "pub") {
        at += 1;
        if is(tokens, at, "(") {
            at = group_end(tokens, at);
        }
    }
    at
}
