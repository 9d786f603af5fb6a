//! What every HTML page of ours is made of: escaping, templates, and a document that can fetch nothing.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};

const DOCUMENT: &str = include_str!("../../assets/report/document.html");
const STYLE: &str = include_str!("../../assets/report/style.css");

/// Text as it stands in HTML between tags and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A name from outside, which may be written from right to left: set apart, so that it turns nothing around it.
pub(super) fn named(text: &str) -> String {
    format!("<bdi>{}</bdi>", escape(text))
}

/// JSON that can stand in a `script` element: nothing in it ends the element or a line of a script.
pub(super) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value)
        .unwrap_or_else(|error| unreachable!("records of numbers and text have a JSON: {error}"));
    // Outside of strings JSON has none of these characters.
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                safe.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => safe.push(character),
        }
    }
    safe
}

/// `template` with the values of its `{{names}}`. What a value contains is not looked at again.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut parts = template.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap_or_else(|| unreachable!("{{{{{part} has no end"));
        let value = values.iter().find(|(known, _)| *known == name);
        filled.push_str(value.unwrap_or_else(|| unreachable!("{name} has no value")).1);
        filled.push_str(rest);
    }
    filled
}

/// A picture that is part of the page; `None` of an address, which is never fetched.
pub(super) fn own_picture(picture: Option<&str>) -> Option<&str> {
    picture.filter(|address| address.starts_with("data:image/"))
}

/// A page.
pub(super) struct HtmlDocument<'a> {
    /// Plain text.
    pub title: &'a str,
    /// HTML.
    pub body: &'a str,
    /// JSON from [`json`], which the script reads.
    pub data: Option<&'a str>,
    /// Ours: its bytes stand in the page.
    pub script: &'a str,
}

impl HtmlDocument<'_> {
    /// The file. It holds all that it shows, and its policy lets a browser fetch nothing and run no script but ours.
    pub fn html(&self) -> String {
        let policy = format!(
            "default-src 'none'; img-src data:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
            source(STYLE),
            source(self.script),
        );
        let data =
            self.data.map(|data| format!("<script type=\"application/json\" id=\"data\">{data}</script>\n"));
        fill(
            DOCUMENT,
            &[
                ("policy", &policy),
                ("version", env!("CARGO_PKG_VERSION")),
                ("title", &escape(self.title)),
                ("style", STYLE),
                ("body", self.body),
                ("data", &data.unwrap_or_default()),
                ("script", self.script),
            ],
        )
    }
}

/// As a policy calls a script or style sheet that stands in the page.
fn source(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// Decimals with a comma before each three: `1,281,167`.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count and what is counted: `1 image`, `1,000 images`.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_markup() {
        for (text, expected) in [
            ("a & b", "a &amp; b"),
            ("</script><img src=x onerror=alert(1)>", "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;"),
            ("\" onload='x", "&quot; onload=&#39;x"),
            ("Zoë 猫", "Zoë 猫"),
        ] {
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn nothing_in_json_ends_its_element() {
        let text = "</script><!-- & \u{2028} \u{2029} \" \\ Zoë \0";
        let safe = json(&text);
        assert_eq!(safe, r#""\u003c/script\u003e\u003c!-- \u0026 \u2028 \u2029 \" \\ Zoë \u0000""#);
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        assert_eq!(json(&[f64::NAN, 0.5]), "[null,0.5]");
    }

    #[test]
    fn what_a_value_contains_is_not_filled() {
        let filled = fill("{{a}}-{{b}}-{{a}}", &[("a", "{{b}}"), ("b", "2")]);
        assert_eq!(filled, "{{b}}-2-{{b}}");
    }

    #[test]
    fn only_pictures_in_the_page_are_its_own() {
        assert_eq!(own_picture(Some("data:image/jpeg;base64,AA")), Some("data:image/jpeg;base64,AA"));
        for other in ["https://example.org/a.jpg", "javascript:alert(1)", "data:text/html,x", ""] {
            assert_eq!(own_picture(Some(other)), None, "{other}");
        }
    }

    #[test]
    fn counts_are_grouped() {
        for (count, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (50_000, "50,000"), (1_281_167, "1,281,167")]
        {
            assert_eq!(grouped(count), text);
        }
        assert_eq!(counted(1, "image", "images"), "1 image");
    }

    /// The hash of the policy is of the bytes as a browser sees them, which knows no carriage return.
    #[test]
    fn styles_and_scripts_can_stand_in_a_page() {
        for text in [DOCUMENT, STYLE] {
            assert!(!text.contains('\r'));
        }
        assert!(!STYLE.contains("</") && !STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
