//! The variables of the environment that count, without what is secret.

use nat_infer::results::Variable;

/// What a variable holds.
#[derive(Clone, Copy)]
enum Content {
    /// What is never shown.
    Secret,
    /// An address, which may have a name, a password or a key in it.
    Address,
    /// A path, a number, a list.
    Plain,
}

use self::Content::{Address, Plain, Secret};

/// In the order in which they are shown.
const VARIABLES: &[(&str, Content)] = &[
    ("HF_HOME", Plain),
    ("HF_HUB_CACHE", Plain),
    ("HUGGINGFACE_HUB_CACHE", Plain),
    ("HF_ENDPOINT", Address),
    ("HF_TOKEN", Secret),
    ("HF_TOKEN_PATH", Plain),
    ("HF_HUB_OFFLINE", Plain),
    ("TRANSFORMERS_OFFLINE", Plain),
    ("HF_HUB_DISABLE_IMPLICIT_TOKEN", Plain),
    ("HF_HUB_DISABLE_PROGRESS_BARS", Plain),
    ("XDG_CACHE_HOME", Plain),
    ("NAT_INFER_CACHE", Plain),
    ("NAT_INFER_MIRROR", Address),
    ("NAT_INFER_ISA", Plain),
    ("RAYON_NUM_THREADS", Plain),
    ("CUDA_VISIBLE_DEVICES", Plain),
    ("LD_LIBRARY_PATH", Plain),
    ("HTTPS_PROXY", Address),
    ("https_proxy", Address),
    ("HTTP_PROXY", Address),
    ("http_proxy", Address),
    ("ALL_PROXY", Address),
    ("all_proxy", Address),
    ("NO_PROXY", Plain),
    ("no_proxy", Plain),
];

/// Those of this process.
pub fn set() -> Vec<Variable> {
    shown(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
}

/// Text that was made of variables, such as a path, without what is secret.
pub fn without_secrets(text: &str) -> String {
    let get = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    hidden(text, &secrets(&get))
}

/// Those that `get` knows; an empty one counts as unset.
fn shown(get: impl Fn(&str) -> Option<String>) -> Vec<Variable> {
    let secrets = secrets(&get);
    let variable = |&(name, content): &(&str, Content)| {
        let value = get(name).filter(|value| !value.is_empty())?;
        let value = match content {
            Secret => "set".to_owned(),
            Address => hidden(&without_login(&value), &secrets),
            Plain => hidden(&value, &secrets),
        };
        Some(Variable { name: name.to_owned(), value })
    };
    VARIABLES.iter().filter_map(variable).collect()
}

/// The values of the secret ones.
fn secrets(get: &impl Fn(&str) -> Option<String>) -> Vec<String> {
    let names = VARIABLES.iter().filter(|(_, content)| matches!(content, Secret)).map(|(name, _)| name);
    names.filter_map(|name| Some(get(name)?.trim().to_owned())).filter(|secret| !secret.is_empty()).collect()
}

/// Text without what is secret: the logins of addresses, and tokens that were written where they do not belong.
fn hidden(text: &str, secrets: &[String]) -> String {
    let text = if text.contains("://") { without_login(text) } else { text.to_owned() };
    let text = secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), HIDDEN));
    without_tokens(&text)
}

/// What stands for what is not shown.
const HIDDEN: &str = "***";

/// An address without name and password, and without what follows its path: keys of signed addresses stand there. All
/// before the last `@` goes, as a password may have been written as it is.
fn without_login(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let rest = match rest.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => rest.to_owned(),
    };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let more = if end < rest.len() { HIDDEN } else { "" };
    format!("{scheme}{}{more}", &rest[..(end + 1).min(rest.len())])
}

/// `text` without words of a Hub token's form.
fn without_tokens(text: &str) -> String {
    /// How they begin.
    const LEAD: &str = "hf_";
    /// What is no shorter may be one.
    const LENGTH: usize = 20;
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(LEAD) {
        let end =
            rest[at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(rest.len(), |n| at + n);
        shown.push_str(&rest[..at]);
        shown.push_str(if end - at >= LENGTH { HIDDEN } else { &rest[at..end] });
        rest = &rest[end..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_not_shown() {
        const TOKEN: &str = "hf_Aa0123456789Aa0123456789";
        for (name, value, expected) in [
            ("HF_TOKEN", "secret", Some("set")),
            ("HF_TOKEN", "", None),
            ("HF_ENDPOINT", "https://hub.example", Some("https://hub.example")),
            ("HF_ENDPOINT", "http://user:secret@hub.example/a", Some("http://***@hub.example/a")),
            ("HF_ENDPOINT", "http://user:se/cr@et@hub.example/a", Some("http://***@hub.example/a")),
            ("HF_ENDPOINT", "https://hub.example/a?key=secret", Some("https://hub.example/a?***")),
            (
                "HF_ENDPOINT",
                "https://hub.example/hf_Aa0123456789Aa0123456789/a",
                Some("https://hub.example/***/a"),
            ),
            ("HTTPS_PROXY", "user:secret@proxy:3128", Some("***@proxy:3128")),
            ("HF_HOME", "/data/@home", Some("/data/@home")),
            ("HF_HOME", "/data/hf_home", Some("/data/hf_home")),
            ("HF_HOME", "s3://user:secret@store/a", Some("s3://***@store/a")),
            ("HF_TOKEN_PATH", TOKEN, Some("***")),
            ("RAYON_NUM_THREADS", "3", Some("3")),
            ("AWS_SECRET", "secret", None),
        ] {
            let shown = shown(|asked| (asked == name).then(|| value.to_owned()));
            let values: Vec<&str> = shown.iter().map(|variable| variable.value.as_str()).collect();
            assert_eq!(values, expected.into_iter().collect::<Vec<_>>(), "{name}={value}");
        }
        // The token itself, wherever it stands.
        let shown = shown(|name| match name {
            "HF_TOKEN" => Some("my key\n".to_owned()),
            "HF_HOME" => Some("/a/my key/b".to_owned()),
            _ => None,
        });
        assert!(shown.len() == 2 && shown[0].value == "/a/***/b" && shown[1].value == "set", "{shown:?}");
    }
}
