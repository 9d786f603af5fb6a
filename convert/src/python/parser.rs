//! Assignments and expressions.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::value::Py;

/// Deepest nesting of brackets.
const MAX_DEPTH: usize = 64;
/// Most values of a text, those of repeated lists and of names that are used again included.
const MAX_VALUES: usize = 1 << 18;
/// Longest text in bytes: the longest published configurations have some twenty thousand.
const MAX_TEXT: usize = 4 << 20;

/// The assignments of a configuration, or its one object, by name.
///
/// # Errors
/// Where the text is no Python, with the number of the line.
pub(crate) fn assignments(text: &str) -> Result<BTreeMap<String, Py>, String> {
    if text.len() > MAX_TEXT {
        return Err(format!("it is longer than {MAX_TEXT} bytes"));
    }
    let mut parser = Parser { cursor: Cursor { text, at: 0, depth: 0 }, values: 0, names: BTreeMap::new() };
    parser.cursor.space(true);
    if text.as_bytes().get(parser.cursor.at) == Some(&b'{') {
        if let Py::Dict(pairs) = parser.expression()? {
            parser.names.extend(pairs);
        }
        return Ok(parser.names);
    }
    while parser.cursor.at < text.len() {
        parser.statement()?;
        parser.cursor.space(true);
    }
    Ok(parser.names)
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    values: usize,
    names: BTreeMap<String, Py>,
}

impl Parser<'_> {
    /// `name = expression`; any other statement is stepped over with its lines.
    fn statement(&mut self) -> Result<(), String> {
        let start = self.cursor.at;
        let name = self.cursor.word();
        if !name.is_empty() && self.cursor.eat("=") && !self.cursor.rest().starts_with('=') {
            let value = self.expression()?;
            self.names.insert(name.to_owned(), value);
            self.cursor.blanks();
            if !matches!(self.cursor.peek(), None | Some('\n' | ';')) {
                return self.cursor.fail(format_args!("`{name}` is followed by what is no expression"));
            }
            self.cursor.at += usize::from(self.cursor.peek() == Some(';'));
            return Ok(());
        }
        self.cursor.at = start;
        self.until(|c| c == '\n')?;
        // Nothing is left of an empty statement to step over.
        self.cursor.at = (self.cursor.at + 1).min(self.cursor.text.len());
        Ok(())
    }

    /// Steps over text up to a character outside of brackets and strings.
    fn until(&mut self, end: impl Fn(char) -> bool) -> Result<(), String> {
        let mut open = 0usize;
        while let Some(c) = self.cursor.peek() {
            match c {
                '\'' | '"' => {
                    self.cursor.string(false)?;
                    continue;
                }
                '#' => {
                    self.cursor.at += self.cursor.rest().find('\n').unwrap_or(self.cursor.rest().len());
                    continue;
                }
                _ if open == 0 && end(c) => return Ok(()),
                '(' | '[' | '{' => open += 1,
                ')' | ']' | '}' if open == 0 => return Ok(()),
                ')' | ']' | '}' => open -= 1,
                _ => {}
            }
            self.cursor.at += c.len_utf8();
        }
        Ok(())
    }

    fn count(&mut self, values: usize) -> Result<(), String> {
        self.values = self.values.saturating_add(values);
        if self.values > MAX_VALUES {
            self.cursor.fail(format_args!("it has more than {MAX_VALUES} values"))
        } else {
            Ok(())
        }
    }

    /// An expression; what is none of literals is [`Py::Other`].
    fn expression(&mut self) -> Result<Py, String> {
        self.cursor.blanks();
        let start = self.cursor.at;
        if let Some(value) = self.sum()? {
            self.cursor.blanks();
            if matches!(self.cursor.peek(), None | Some(',' | ')' | ']' | '}' | '\n' | ';' | ':' | '=')) {
                return Ok(value);
            }
        }
        self.cursor.at = start;
        let inside = self.cursor.depth > 0;
        self.until(|c| c == ',' || (!inside && (c == '\n' || c == ';')))?;
        if self.cursor.at == start {
            return self.cursor.fail("an expression is missing");
        }
        self.count(1)?;
        Ok(Py::Other(self.cursor.text[start..self.cursor.at].trim().to_owned()))
    }

    /// Terms with `+` and `-` between them; `None` where there is more than literals.
    fn sum(&mut self) -> Result<Option<Py>, String> {
        let Some(mut left) = self.product()? else { return Ok(None) };
        loop {
            let sign = if self.cursor.eat("+") {
                1.0
            } else if self.cursor.eat("-") {
                -1.0
            } else {
                return Ok(Some(left));
            };
            let Some(right) = self.product()? else { return Ok(None) };
            left = match (left, right) {
                (Py::List(mut a), Py::List(b)) if sign > 0.0 => {
                    a.extend(b);
                    Py::List(a)
                }
                (Py::Str(a), Py::Str(b)) if sign > 0.0 => Py::Str(a + &b),
                (Py::Int(a), Py::Int(b)) => {
                    match a.checked_add(if sign > 0.0 { b } else { b.saturating_neg() }) {
                        Some(sum) => Py::Int(sum),
                        None => return Ok(None),
                    }
                }
                (a, b) => match (a.number(), b.number()) {
                    (Some(a), Some(b)) => Py::Float(a + sign * b),
                    _ => return Ok(None),
                },
            };
        }
    }

    fn product(&mut self) -> Result<Option<Py>, String> {
        let Some(mut left) = self.unary()? else { return Ok(None) };
        loop {
            let divide = if self.cursor.eat("*") {
                false
            } else if self.cursor.eat("/") {
                true
            } else {
                return Ok(Some(left));
            };
            if matches!(self.cursor.peek(), Some('*' | '/')) {
                return Ok(None);
            }
            let Some(right) = self.unary()? else { return Ok(None) };
            left = match (left, right, divide) {
                (Py::List(items), Py::Int(times), false) | (Py::Int(times), Py::List(items), false) => {
                    let times = usize::try_from(times).unwrap_or(0);
                    let size: usize = items.iter().map(Py::size).sum();
                    self.count(size.saturating_mul(times))?;
                    Py::List(items.iter().cycle().take(items.len() * times).cloned().collect())
                }
                (Py::Int(a), Py::Int(b), false) => match a.checked_mul(b) {
                    Some(product) => Py::Int(product),
                    None => return Ok(None),
                },
                (a, b, divide) => match (a.number(), b.number()) {
                    (Some(a), Some(b)) => Py::Float(if divide { a / b } else { a * b }),
                    _ => return Ok(None),
                },
            };
        }
    }

    fn unary(&mut self) -> Result<Option<Py>, String> {
        let negative = self.cursor.eat("-");
        if !negative {
            self.cursor.eat("+");
        }
        let value = self.primary()?;
        Ok(match value {
            Some(Py::Int(number)) if negative => number.checked_neg().map(Py::Int),
            Some(Py::Float(number)) if negative => Some(Py::Float(-number)),
            _ if negative => None,
            value => value,
        })
    }

    fn primary(&mut self) -> Result<Option<Py>, String> {
        self.cursor.blanks();
        self.count(1)?;
        let Some(first) = self.cursor.peek() else {
            return self.cursor.fail("it ends in the middle of an expression");
        };
        match first {
            '[' => self.brackets('[', ']').map(|items| Some(Py::List(items.0))),
            '(' => {
                let (mut items, commas) = self.brackets('(', ')')?;
                // One value in parentheses is itself.
                Ok(Some(if items.len() == 1 && commas == 0 { items.remove(0) } else { Py::List(items) }))
            }
            '{' => self.braces().map(Some),
            '\'' | '"' => self.cursor.strings().map(Some),
            '0'..='9' | '.' => Ok(self.cursor.digits()),
            _ if first.is_alphabetic() || first == '_' => self.name(),
            _ => Ok(None),
        }
    }

    fn open(&mut self) -> Result<(), String> {
        self.cursor.at += 1;
        self.cursor.depth += 1;
        if self.cursor.depth > MAX_DEPTH {
            self.cursor.fail(format_args!("brackets are nested more than {MAX_DEPTH} deep"))
        } else {
            Ok(())
        }
    }

    /// The members between two brackets, and how many commas there are.
    fn brackets(&mut self, open: char, close: char) -> Result<(Vec<Py>, usize), String> {
        debug_assert_eq!(self.cursor.peek(), Some(open));
        self.open()?;
        let (mut items, mut commas) = (Vec::new(), 0);
        loop {
            self.cursor.blanks();
            if self.cursor.peek() == Some(close) {
                self.cursor.at += 1;
                self.cursor.depth -= 1;
                return Ok((items, commas));
            }
            items.push(self.expression()?);
            self.cursor.blanks();
            match self.cursor.peek() {
                Some(',') => {
                    self.cursor.at += 1;
                    commas += 1;
                }
                Some(c) if c == close => {}
                _ => return self.cursor.fail(format_args!("`{close}` is missing")),
            }
        }
    }

    /// A dictionary or a set.
    fn braces(&mut self) -> Result<Py, String> {
        self.open()?;
        let (mut pairs, mut items) = (Vec::new(), Vec::new());
        loop {
            self.cursor.blanks();
            if self.cursor.peek() == Some('}') {
                self.cursor.at += 1;
                self.cursor.depth -= 1;
                return Ok(if items.is_empty() { Py::Dict(pairs) } else { Py::List(items) });
            }
            let start = self.cursor.at;
            if self.cursor.eat("**") {
                self.spread(&mut pairs)?;
            } else {
                let key = self.sum()?;
                self.cursor.blanks();
                if self.cursor.peek() == Some(':') {
                    let name = match key {
                        Some(Py::Str(text)) => text,
                        _ => self.cursor.text[start..self.cursor.at].trim().to_owned(),
                    };
                    self.cursor.at += 1;
                    pairs.push((name, self.expression()?));
                } else {
                    self.cursor.at = start;
                    items.push(self.expression()?);
                }
            }
            self.cursor.blanks();
            match self.cursor.peek() {
                Some(',') => self.cursor.at += 1,
                Some('}') => {}
                _ => return self.cursor.fail("`}` is missing"),
            }
        }
    }

    /// The pairs of a dictionary that `**` puts into another.
    fn spread(&mut self, pairs: &mut Vec<(String, Py)>) -> Result<(), String> {
        match self.expression()? {
            Py::Dict(more) => pairs.extend(more),
            Py::Other(text) => pairs.push((format!("**{text}"), Py::Other(text))),
            _ => return self.cursor.fail("`**` stands before what is no dictionary"),
        }
        Ok(())
    }

    /// `dict(key=value, …)`, from its bracket on.
    fn call(&mut self) -> Result<Py, String> {
        self.open()?;
        let mut pairs = Vec::new();
        loop {
            self.cursor.blanks();
            if self.cursor.peek() == Some(')') {
                self.cursor.at += 1;
                self.cursor.depth -= 1;
                return Ok(Py::Dict(pairs));
            }
            let start = self.cursor.at;
            if self.cursor.eat("**") {
                self.spread(&mut pairs)?;
            } else {
                let key = self.cursor.word();
                if key.is_empty() || !self.cursor.eat("=") {
                    self.cursor.at = start;
                    self.spread(&mut pairs)?;
                } else {
                    pairs.push((key.to_owned(), self.expression()?));
                }
            }
            self.cursor.blanks();
            match self.cursor.peek() {
                Some(',') => self.cursor.at += 1,
                Some(')') => {}
                _ => return self.cursor.fail("`)` is missing"),
            }
        }
    }

    /// A constant, a call of `dict`, or a name that was given a value; `None` for anything else.
    fn name(&mut self) -> Result<Option<Py>, String> {
        let start = self.cursor.at;
        let name = self.cursor.word();
        // r'…' and the like.
        if matches!(self.cursor.peek(), Some('\'' | '"')) && name.len() <= 2 {
            let raw = name.contains(['r', 'R']);
            return match name.bytes().all(|byte| b"rRuUbB".contains(&byte)) {
                true => self.cursor.string(raw).map(|text| Some(Py::Str(text))),
                false => Ok(None),
            };
        }
        self.cursor.blanks();
        if name == "dict" && self.cursor.peek() == Some('(') {
            return self.call().map(Some);
        }
        if matches!(name, "list" | "tuple") && self.cursor.peek() == Some('(') {
            let (items, _) = self.brackets('(', ')')?;
            return Ok(match <[Py; 1]>::try_from(items) {
                Ok([Py::List(items)]) => Some(Py::List(items)),
                _ => None,
            });
        }
        if matches!(self.cursor.peek(), Some('(' | '[' | '.')) {
            self.cursor.at = start;
            return Ok(None);
        }
        Ok(match name {
            "None" | "null" => Some(Py::None),
            "True" | "true" => Some(Py::Bool(true)),
            "False" | "false" => Some(Py::Bool(false)),
            "inf" => Some(Py::Float(f64::INFINITY)),
            "nan" => Some(Py::Float(f64::NAN)),
            _ => {
                let value = self.names.get(name).cloned();
                self.count(value.as_ref().map_or(0, Py::size))?;
                value
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Py {
        assignments(&format!("x = {text}\n")).unwrap().remove("x").unwrap()
    }

    #[test]
    fn literals_are_read_and_anything_else_is_its_text() {
        let ints = |items: &[i64]| Py::List(items.iter().map(|&i| Py::Int(i)).collect());
        let dict = |pairs: &[(&str, Py)]| {
            Py::Dict(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
        };
        for (text, wanted) in [
            ("None", Py::None),
            ("True", Py::Bool(true)),
            ("-7", Py::Int(-7)),
            ("1e-05", Py::Float(1e-5)),
            ("1_000", Py::Int(1000)),
            (".5", Py::Float(0.5)),
            ("float('inf')", Py::Other("float('inf')".to_owned())),
            ("'it\\'s' \"so\"", Py::Str("it'sso".to_owned())),
            ("'''a\nb'''", Py::Str("a\nb".to_owned())),
            ("r'\\d'", Py::Str("\\d".to_owned())),
            ("'\\u00e4\\xe4'", Py::Str("ää".to_owned())),
            ("(3)", Py::Int(3)),
            ("(3,)", ints(&[3])),
            ("()", ints(&[])),
            ("[1, # one\n 2, ]", ints(&[1, 2])),
            ("[1] * 3 + [2]", ints(&[1, 1, 1, 2])),
            ("[2 * 3 - 1, 8 // 2]", Py::List(vec![Py::Int(5), Py::Other("8 // 2".to_owned())])),
            ("1 / 4", Py::Float(0.25)),
            ("{'a': 1, 2: (3,)}", dict(&[("a", Py::Int(1)), ("2", ints(&[3]))])),
            ("{1, 2}", ints(&[1, 2])),
            (
                "dict(type='A', b=dict(),\n  c=f(1, [2]), d=[g for g in h], )",
                dict(&[
                    ("type", Py::Str("A".to_owned())),
                    ("b", dict(&[])),
                    ("c", Py::Other("f(1, [2])".to_owned())),
                    ("d", Py::List(vec![Py::Other("g for g in h".to_owned())])),
                ]),
            ),
            ("{\"json\": true, \"n\": null}", dict(&[("json", Py::Bool(true)), ("n", Py::None)])),
        ] {
            assert_eq!(value(text), wanted, "{text}");
        }
    }

    #[test]
    fn names_stand_for_what_they_were_given() {
        let text = "import os\n_base_ = ['../a.py', 'b.py']\n\nnorm = dict(mean=[1.0], std=[2.0])\n\
                    def f(x):\n    return x\n\npipeline = [dict(type='Normalize', **norm), unknown]\nn = norm\n";
        let names = assignments(text).unwrap();
        assert_eq!(names["n"].get("std"), Some(&Py::List(vec![Py::Float(2.0)])));
        let pipeline = names["pipeline"].list().unwrap();
        assert_eq!(pipeline[0].get("mean"), Some(&Py::List(vec![Py::Float(1.0)])));
        assert_eq!(pipeline[1], Py::Other("unknown".to_owned()));
        assert_eq!(assignments("{\"model\": {\"a\": 1}}").unwrap()["model"].get("a"), Some(&Py::Int(1)));
        assert!(assignments("").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_python_or_too_much_is_refused() {
        let deep = format!("x = {}", "[".repeat(100));
        let long = format!("x = {}0{}", "[".repeat(40), "] * 9999".repeat(40));
        // Names that stand for twice the one before.
        let twice: String =
            (1..64).fold("a0 = [1]\n".to_owned(), |t, i| t + &format!("a{i} = [a{0}, a{0}]\n", i - 1));
        for (text, says) in [
            ("x = [1, 2", "line 1: `]` is missing"),
            ("x = 'a\n'", "line 1: a string has no end"),
            ("x = dict(a=)", "line 1: an expression is missing"),
            ("\nx = {'a': 1", "line 2: `}` is missing"),
            (&deep, "line 1: brackets are nested more than 64 deep"),
            (&long, "line 1: it has more than 262144 values"),
            (&twice, "it has more than 262144 values"),
        ] {
            let error = assignments(text).unwrap_err();
            assert!(error.contains(says), "{text:.60}: {error}");
        }
    }
}
