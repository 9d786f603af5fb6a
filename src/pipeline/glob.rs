//! Globs over names as the system has them. A name need not be UTF-8, and a pattern may hold such a name: both are
//! compared character by character, and byte by byte where there is no character.
//!
//! `*` and `?` stand for any and for one character, `[a-z]` and `[!a-z]` for one of a set, `**` for any folders. None
//! of them stands for a dot at the beginning of a name, as in a shell.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// A pattern: where to begin, and what every name below has to look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    /// The folder before the first name with a wildcard.
    pub base: PathBuf,
    names: Vec<PatternPart>,
}

/// What stands between two separators of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PatternPart {
    /// `**`
    Folders,
    /// One name.
    One(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// `*`
    Many,
    /// `?`
    Any,
    /// A character, as [`units`] numbers it.
    Unit(u32),
    /// `[...]`: from, to, both included; of `[!...]` the others.
    Set { ranges: Vec<(u32, u32)>, negated: bool },
}

impl Glob {
    /// The pattern that `path` is, if it has a wildcard.
    pub fn parse(path: &Path) -> Option<Self> {
        let has_wildcard = |name: &OsStr| name.as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte));
        let components: Vec<Component> = path.components().collect();
        let first =
            components.iter().position(|c| matches!(c, Component::Normal(name) if has_wildcard(name)))?;
        let (base, names) = components.split_at(first);
        let name = |component: &Component| match component.as_os_str() {
            name if name == "**" => PatternPart::Folders,
            name => PatternPart::One(tokens(&units(name))),
        };
        Some(Self { base: base.iter().collect(), names: names.iter().map(name).collect() })
    }

    /// How many names below [`Glob::base`] a match has; `None` where `**` makes it any number.
    pub fn depth(&self) -> Option<usize> {
        (!self.names.contains(&PatternPart::Folders)).then_some(self.names.len())
    }

    /// Whether a file of this path below [`Glob::base`] is a match.
    pub fn matches(&self, below: &Path) -> bool {
        self.matched(below).last() == Some(&true)
    }

    /// Whether there may be a match in a folder of this path below [`Glob::base`].
    pub fn may_match_in(&self, below: &Path) -> bool {
        let matched = self.matched(below);
        matched[..self.names.len()].contains(&true)
    }

    /// For each number of names of the pattern, whether so many match all of a path: in time proportional to the
    /// product of both lengths, however many `**` there are.
    fn matched(&self, path: &Path) -> Vec<bool> {
        let mut matched = vec![false; self.names.len() + 1];
        matched[0] = true;
        self.let_folders_be_none(&mut matched);
        for name in path.components().map(|component| units(component.as_os_str())) {
            let before = std::mem::replace(&mut matched, vec![false; self.names.len() + 1]);
            for (i, own) in self.names.iter().enumerate().filter(|(i, _)| before[*i]) {
                match own {
                    // It stands for this folder, and may for more.
                    PatternPart::Folders => matched[i] |= name.first() != Some(&u32::from('.')),
                    PatternPart::One(tokens) => matched[i + 1] |= one_matches(tokens, &name),
                }
            }
            self.let_folders_be_none(&mut matched);
        }
        matched
    }

    fn let_folders_be_none(&self, matched: &mut [bool]) {
        for (i, name) in self.names.iter().enumerate() {
            matched[i + 1] |= matched[i] && *name == PatternPart::Folders;
        }
    }
}

/// Whether a name matches, in time proportional to the product of both lengths: after a mismatch only the last `*`
/// is tried again.
fn one_matches(tokens: &[Token], name: &[u32]) -> bool {
    let dot = u32::from('.');
    if name.first() == Some(&dot) && tokens.first() != Some(&Token::Unit(dot)) {
        return false;
    }
    let (mut t, mut n, mut again) = (0, 0, None);
    loop {
        match tokens.get(t) {
            Some(Token::Many) => {
                again = Some((t + 1, n));
                t += 1;
                continue;
            }
            None if n == name.len() => return true,
            Some(token) if name.get(n).is_some_and(|&unit| token.is(unit)) => {
                (t, n) = (t + 1, n + 1);
                continue;
            }
            _ => {}
        }
        match again {
            Some((after, from)) if from < name.len() => {
                again = Some((after, from + 1));
                (t, n) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

impl Token {
    fn is(&self, unit: u32) -> bool {
        match self {
            Self::Many => false,
            Self::Any => true,
            Self::Unit(own) => *own == unit,
            Self::Set { ranges, negated } => {
                ranges.iter().any(|&(low, high)| (low..=high).contains(&unit)) != *negated
            }
        }
    }
}

fn tokens(pattern: &[u32]) -> Vec<Token> {
    let is = |unit: u32, c: char| unit == u32::from(c);
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let [unit, after @ ..] = rest {
        rest = after;
        let token = match *unit {
            unit if is(unit, '*') => Token::Many,
            unit if is(unit, '?') => Token::Any,
            unit if is(unit, '[') => match set(after) {
                Some((set, behind)) => {
                    rest = behind;
                    set
                }
                // A bracket that is never closed is a bracket.
                None => Token::Unit(unit),
            },
            unit => Token::Unit(unit),
        };
        tokens.push(token);
    }
    tokens
}

/// The set behind a `[`, and what follows its `]`; a `]` that comes first belongs to the set.
fn set(pattern: &[u32]) -> Option<(Token, &[u32])> {
    let is = |unit: &u32, c: char| *unit == u32::from(c);
    let negated = pattern.first().is_some_and(|unit| is(unit, '!') || is(unit, '^'));
    let members = &pattern[usize::from(negated)..];
    let end = 1 + members.iter().skip(1).position(|unit| is(unit, ']'))?;
    let (mut inside, behind) = (&members[..end], &members[end + 1..]);
    let mut ranges = Vec::new();
    while let [low, rest @ ..] = inside {
        (ranges, inside) = match rest {
            [dash, high, rest @ ..] if is(dash, '-') => ([ranges, vec![(*low, *high)]].concat(), rest),
            _ => ([ranges, vec![(*low, *low)]].concat(), rest),
        };
    }
    Some((Token::Set { ranges, negated }, behind))
}

/// The characters of a name, and each byte that is in none as a number that no character has.
fn units(name: &OsStr) -> Vec<u32> {
    const NO_CHARACTER: u32 = char::MAX as u32 + 1;
    let chunks = name.as_encoded_bytes().utf8_chunks();
    chunks
        .flat_map(|chunk| {
            let invalid = chunk.invalid().iter().map(|&byte| NO_CHARACTER + u32::from(byte));
            chunk.valid().chars().map(u32::from).chain(invalid)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, path, matches) in [
            ("*.jpg", "a.jpg", true),
            ("*.jpg", "a.jpeg", false),
            ("*.jpg", ".a.jpg", false),
            (".*", ".a.jpg", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("?.png", "é.png", true),
            ("??.png", "é.png", false),
            ("[a-c]x[!0-9]", "bxz", true),
            ("[a-c]x[!0-9]", "bx7", false),
            ("[^a]b", "cb", true),
            ("[]a]b", "]b", true),
            ("[a-]b", "-b", true),
            ("a[", "a[", true),
            ("**/x.png", "x.png", true),
            ("**/x.png", "a/b/x.png", true),
            ("**/x.png", "a/.b/x.png", false),
            ("a/**/*.png", "a/x.png", true),
            ("a/**/c/*.png", "a/b/b/c/x.png", true),
            ("a/**/c/*.png", "a/b/b/x.png", false),
            ("**", "a/b", true),
            ("**/**/a/**", "b/a/c", true),
            ("**/.*", "a/.b", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-", false),
        ] {
            let path = Path::new(path);
            let glob = Glob::parse(Path::new(pattern)).unwrap();
            // The names before the first wildcard are the base.
            let below = path.strip_prefix(&glob.base).unwrap();
            assert_eq!(glob.matches(below), matches, "{pattern} {}", path.display());
            let folders = below.parent().unwrap();
            assert!(!matches || glob.may_match_in(folders), "{pattern} {}", path.display());
        }
        assert_eq!(Glob::parse(Path::new("plain/name.png")), None);
        let glob = Glob::parse(Path::new("a/*/c.png")).unwrap();
        assert!(glob.may_match_in(Path::new("x")) && !glob.may_match_in(Path::new("x/d")));
        assert!(!glob.may_match_in(Path::new("x/c.png")));
        assert_eq!((glob.depth(), Glob::parse(Path::new("**")).unwrap().depth()), (Some(2), None));
    }

    #[test]
    fn a_pattern_that_fits_nowhere_is_soon_done_with() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!Glob::parse(Path::new(&pattern)).unwrap().matches(Path::new(&"a".repeat(250))));
        let folders = "**/".repeat(40) + "*.png";
        assert!(!Glob::parse(Path::new(&folders)).unwrap().matches(Path::new(&"a/".repeat(100))));
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_characters_match_themselves() {
        use std::os::unix::ffi::OsStrExt;
        let path = |bytes| Path::new(OsStr::from_bytes(bytes));
        for (pattern, name, matches) in [
            (&b"*.png"[..], &b"caf\xe9.png"[..], true),
            (b"caf?.png", b"caf\xe9.png", true),
            (b"caf\xe9*", b"caf\xe9.png", true),
            (b"caf\xe8*", b"caf\xe9.png", false),
            (b"caf[\xe0-\xef].png", b"caf\xe9.png", true),
            (b"*", b"\xff\xfe", true),
        ] {
            assert_eq!(Glob::parse(path(pattern)).unwrap().matches(path(name)), matches, "{pattern:?}");
        }
    }
}
