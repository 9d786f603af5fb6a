//! What the output of commands looks like, pinned: keys and their order, nesting, types, header lines.
//!
//! The promised form of each command lies in `tests/golden/shapes`. A test that gets another fails and says where they
//! part; it never writes. `NAT_INFER_BLESS=1 cargo test --workspace --test shapes` writes what it gets instead: the change is then
//! seen, and agreed to, in the diff.
//!
//! Numbers with a fraction are rounded to three digits, so that no instruction set shows. What depends on the machine
//! is given by its key, and its type alone is kept.

use std::fmt::{self, Write as _};
use std::fs;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use crate::golden;

/// JSON whose objects keep their order.
enum Node {
    Null,
    Bool(bool),
    Whole(i128),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Whole(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Whole(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
                let mut object = Vec::new();
                while let Some(pair) = pairs.next_entry()? {
                    object.push(pair);
                }
                Ok(Node::Object(object))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Items of a list that are shown; of the others it is said how many there are.
const SHOWN: usize = 3;

fn rounded(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return format!("{number:?}");
    }
    let digits = (2 - number.abs().log10().floor() as i32).max(1) as usize;
    format!("{number:.digits$}")
}

impl Node {
    fn show(&self, out: &mut String, indent: usize, hidden: bool, hide: &[&str]) {
        let is_plain = |item: &Node| !matches!(item, Node::List(_) | Node::Object(_));
        match self {
            _ if hidden && is_plain(self) => out.push_str(match self {
                Node::Null => "null",
                Node::Bool(_) => "<true or false>",
                Node::Whole(_) => "<whole number>",
                Node::Number(_) => "<number>",
                _ => "<text>",
            }),
            Node::Null => out.push_str("null"),
            Node::Bool(value) => write!(out, "{value}").unwrap(),
            Node::Whole(value) => write!(out, "{value}").unwrap(),
            Node::Number(value) => out.push_str(&rounded(*value)),
            Node::Text(value) => write!(out, "{value:?}").unwrap(),
            Node::List(items) => {
                let short = items.len() <= 16 && items.iter().all(is_plain);
                let shown = if short { items.len() } else { SHOWN.min(items.len()) };
                out.push('[');
                for (i, item) in items[..shown].iter().enumerate() {
                    if short {
                        out.push_str(if i > 0 { ", " } else { "" });
                    } else {
                        write!(out, "\n{:1$}", "", indent + 2).unwrap();
                    }
                    item.show(out, indent + 2, hidden, hide);
                }
                if shown < items.len() {
                    write!(out, "\n{:2$}and {} more", "", items.len() - shown, indent + 2).unwrap();
                }
                if !short {
                    write!(out, "\n{:indent$}", "").unwrap();
                }
                out.push(']');
            }
            Node::Object(pairs) => {
                out.push('{');
                for (key, value) in pairs {
                    write!(out, "\n{:1$}{key:?}: ", "", indent + 2).unwrap();
                    value.show(out, indent + 2, hidden || hide.contains(&key.as_str()), hide);
                }
                write!(out, "\n{:indent$}}}", "").unwrap();
            }
        }
    }
}

/// The form of JSON; what has one of the keys `hide` keeps its type alone.
#[track_caller]
pub fn json(text: &str, hide: &[&str]) -> String {
    let node: Node = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut out = String::new();
    node.show(&mut out, 0, false, hide);
    out
}

/// The form of CSV; columns of these names keep nothing.
#[track_caller]
pub fn csv(text: &str, hide: &[&str]) -> String {
    let mut lines = text.lines().map(fields);
    let header = lines.next().expect("a header");
    let mut out = header.join(",");
    for row in lines {
        assert_eq!(row.len(), header.len(), "{text}");
        let shown = |(name, field): (&String, &String)| match field.parse::<f64>() {
            _ if hide.contains(&name.as_str()) && !field.is_empty() => "<hidden>".to_owned(),
            Ok(number) if field.contains(['.', 'e']) => rounded(number),
            _ => field.clone(),
        };
        out.push('\n');
        out.push_str(&header.iter().zip(&row).map(shown).collect::<Vec<_>>().join(","));
    }
    out
}

/// The fields of a line with their quotes.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        quoted ^= letter == '"';
        match letter {
            ',' if !quoted => fields.push(String::new()),
            letter => fields.last_mut().unwrap().push(letter),
        }
    }
    fields
}

/// What a command's output looks like, call by call.
pub struct Shapes {
    name: &'static str,
    text: String,
}

impl Shapes {
    /// Nothing yet; it is to be that of `tests/golden/shapes/NAME.txt`.
    pub fn of(name: &'static str) -> Self {
        Self { name, text: String::new() }
    }

    /// Adds the form of what a call says.
    pub fn add(&mut self, call: &str, form: &str) -> &mut Self {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        write!(self.text, "$ {call}\n{form}\n").unwrap();
        self
    }

    /// Fails if anything is not as promised.
    #[track_caller]
    pub fn check(&self) {
        let path = golden::path("shapes").join(self.name).with_extension("txt");
        if std::env::var_os("NAT_INFER_BLESS").is_some_and(|value| value == "1") {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &self.text).unwrap();
            return;
        }
        let promised = fs::read_to_string(&path).unwrap_or_default();
        if let Some(line) = parting(&promised, &self.text) {
            panic!(
                "{}: line {line} is\n  {}\nand not\n  {}\nIf that is meant, `NAT_INFER_BLESS=1 cargo test --workspace --test \
                 shapes` writes it; all of it is\n{}",
                path.display(),
                self.text.lines().nth(line - 1).unwrap_or("(the end)"),
                promised.lines().nth(line - 1).unwrap_or("(the end)"),
                self.text
            );
        }
    }
}

/// The first line in which two texts differ, from 1.
fn parting(a: &str, b: &str) -> Option<usize> {
    let lines = a.lines().count().max(b.lines().count());
    (0..lines).find(|&i| a.lines().nth(i) != b.lines().nth(i)).map(|i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_keys_in_order_and_no_digits_too_many() {
        let text = r#"{"b":1,"a":0.973456,"c":[1.5,2e-7,-1234.56],"d":"x","e":[{"f":null},{},{},{},true],"g":{"h":7}}"#;
        let want = [
            r#"{"#,
            r#"  "b": 1"#,
            r#"  "a": 0.973"#,
            r#"  "c": [1.50, 0.000000200, -1234.6]"#,
            r#"  "d": "x""#,
            r#"  "e": ["#,
            r#"    {"#,
            r#"      "f": null"#,
            r#"    }"#,
            r#"    {"#,
            r#"    }"#,
            r#"    {"#,
            r#"    }"#,
            r#"    and 2 more"#,
            r#"  ]"#,
            r#"  "g": {"#,
            r#"    "h": <whole number>"#,
            r#"  }"#,
            r#"}"#,
        ];
        assert_eq!(json(text, &["g"]).lines().collect::<Vec<_>>(), want);
    }

    #[test]
    fn rows_keep_their_header() {
        let text = "a,b,c\n\"x,1.25\",0.123456,7\n,1,12.5\n";
        assert_eq!(csv(text, &["c"]), "a,b,c\n\"x,1.25\",0.123,<hidden>\n,1,<hidden>");
    }

    #[test]
    fn texts_part_where_they_differ() {
        assert_eq!(parting("a\nb", "a\nb"), None);
        assert_eq!(parting("a\nb", "a\nc"), Some(2));
        assert_eq!(parting("a", "a\nc"), Some(2));
    }
}
