//! Where a file keeps its tensors: the state dict in whatever was saved around it.

use super::words::{is_average, words};
use super::{glob, networks, unusable, unwrapped};
use crate::error::quoted;
use crate::source::Value;

/// The keys under which most training programs save a state dict, the preferred ones first.
const WRAPPERS: [&str; 6] = ["state_dict_ema", "model_ema", "state_dict", "model", "module", "net"];

/// Words in the keys of what has a weight's name and is none, and beginnings of such keys.
const OPTIMIZERS: [&str; 6] = ["optim", "optimizer", "optimizers", "optimiser", "grad", "grads"];
const MOMENTS: [&str; 3] = ["exp_avg", "momentum_buffer", "max_exp_avg"];

/// Wrappers in wrappers that are looked through.
const NESTING: usize = 4;

/// Most entries of dictionaries that are looked at, and most that a state dict may have.
const MAX_VISITED: usize = 1 << 20;
const MAX_ENTRIES: usize = 1 << 16;

/// The tensors of a checkpoint, found in whatever was saved around them.
#[derive(Debug)]
pub(crate) struct FoundState {
    /// The keys that lead to it, joined by dots; empty for a bare state dict.
    pub key: String,
    /// Keys beside it that lead to other state dicts.
    pub others: Vec<String>,
    /// What names without wrappers have to begin with: the rest of the key that was asked for.
    pub scope: Option<String>,
    /// The same, or the wrappers if it is made of nothing else.
    pub asked: Option<String>,
    /// Names as saved, and what was saved under them.
    pub entries: Vec<(String, Value)>,
}

impl FoundState {
    /// The keys and what names begin with, as [`find`] takes both.
    pub fn place(&self) -> String {
        let parts = [Some(&self.key).filter(|key| !key.is_empty()), self.asked.as_ref()];
        parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(".")
    }
}

/// Why there is no state dict.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotFound {
    /// What the file holds instead, and what to do.
    pub reason: String,
    /// The keys that lead to tensors all the same.
    pub keys: Vec<String>,
}

/// A dictionary with tensors.
struct TensorDict<'a> {
    path: Vec<&'a str>,
    dict: &'a [(Value, Value)],
    /// Whether names are those of a network here.
    network: bool,
}

impl TensorDict<'_> {
    fn key(&self) -> String {
        self.path.join(".")
    }

    /// What is preferred sorts first.
    fn rank(&self) -> impl Ord + use<> {
        // mmengine exchanges the two when it saves: its averages are under `state_dict`.
        let has_steps = || self.dict.iter().any(|(key, _)| text(key) == Some("steps"));
        let swapped = self.path.last() == Some(&"ema_state_dict") && has_steps();
        let average = !swapped && self.path.iter().any(|key| is_average(key));
        let place = |key: &&str| WRAPPERS.iter().position(|usual| usual == key).unwrap_or(WRAPPERS.len());
        let mut places: Vec<usize> = self.path.iter().map(place).collect();
        if places.is_empty() {
            // What stands around others is least of all what was meant, unless its names are those of modules.
            let dotted = |(key, value): &(Value, Value)| {
                text(key).is_some_and(|name| name.contains('.')) && unusable::is_tensor(value)
            };
            let modules = !self.network && self.dict.iter().any(dotted);
            places.push(WRAPPERS.len() + usize::from(!modules));
        }
        (!self.network, !average, places)
    }
}

/// Finds the state dict in the object that a file holds: the one under `wanted`, or the most preferred one.
/// `wanted` is keys joined by dots; what of it is no key is what the names there begin with.
///
/// # Errors
/// [`NotFound`].
pub(crate) fn find(root: &Value, wanted: Option<&str>) -> Result<FoundState, NotFound> {
    let (within, path, mut asked) =
        wanted.map_or((root, Vec::new(), String::new()), |key| resolve(root, key));
    let mut found = Vec::new();
    search(within, &mut path.clone(), path.len() + NESTING, &mut MAX_VISITED.clone(), &mut found);
    let scope = networks::clean(&asked).into_owned();
    if !asked.is_empty() {
        if !scope.is_empty() {
            asked.clone_from(&scope);
        }
        let below = |key: &Value| text(key).is_some_and(|name| unwrapped::below(name, &asked).is_some());
        found.retain(|candidate| candidate.dict.iter().any(|(key, _)| below(key)));
    }
    // The first in the file, where none is preferred.
    found.sort_by_cached_key(TensorDict::rank);
    let mut found = found.into_iter();
    // Beside a network that is no state dict, other tensors are not what was meant.
    let meant = |first: &TensorDict| first.network || wanted.is_some() || pickled(root).is_none();
    let Some(first) = found.next().filter(meant) else {
        return Err(NotFound { reason: what_else(root, wanted), keys: candidates(root) });
    };
    let entries = first.dict.iter().filter_map(|(k, v)| Some((text(k)?.to_owned(), v.clone())));
    let entries: Vec<_> = entries.take(MAX_ENTRIES + 1).collect();
    if entries.len() > MAX_ENTRIES {
        let reason = format!("a state dict of more than {MAX_ENTRIES} entries is no network's");
        return Err(NotFound { reason, keys: Vec::new() });
    }
    let others = found.filter(|other| other.network == first.network && !other.path.is_empty());
    Ok(FoundState {
        key: first.key(),
        others: others.map(|other| other.key()).collect(),
        scope: Some(scope).filter(|scope| !scope.is_empty()),
        asked: Some(asked).filter(|asked| !asked.is_empty()),
        entries,
    })
}

/// Takes away the entries whose names one of these patterns describes. Gives those names, and the patterns
/// that describe none.
pub(crate) fn ignore(entries: &mut Vec<(String, Value)>, patterns: &[String]) -> (Vec<String>, Vec<String>) {
    let mut used = vec![false; patterns.len()];
    let mut ignored = Vec::new();
    entries.retain(|(name, _)| {
        let mut kept = true;
        for (pattern, used) in patterns.iter().zip(&mut used) {
            if glob::matches(pattern, name) {
                (*used, kept) = (true, false);
            }
        }
        if !kept {
            ignored.push(name.clone());
        }
        kept
    });
    let unused = patterns.iter().zip(used).filter(|(_, used)| !used).map(|(pattern, _)| pattern.clone());
    (ignored, unused.collect())
}

/// The value that a key leads to as far as its parts are keys, the keys, and the rest of it.
fn resolve<'a>(root: &'a Value, key: &'a str) -> (&'a Value, Vec<&'a str>, String) {
    let (mut value, mut path, mut rest) = (root, Vec::new(), key);
    while !rest.is_empty() {
        let (first, after) = rest.split_once('.').unwrap_or((rest, ""));
        let step = match (get(value, rest), get(value, first)) {
            (Some(whole), _) => (whole, rest, ""),
            (None, Some(part)) => (part, first, after),
            (None, None) => break,
        };
        if !matches!(step.0, Value::Dict(_)) {
            break;
        }
        path.push(step.1);
        (value, rest) = (step.0, step.2);
    }
    (value, path, rest.trim_end_matches('.').to_owned())
}

/// Collects the dictionaries with tensors, down to a depth and up to a number of entries.
fn search<'a>(
    value: &'a Value,
    path: &mut Vec<&'a str>,
    depth: usize,
    budget: &mut usize,
    found: &mut Vec<TensorDict<'a>>,
) {
    let Value::Dict(dict) = value else { return };
    let Some(left) = budget.checked_sub(dict.len()) else { return };
    *budget = left;
    let named = || dict.iter().filter_map(|(key, value)| Some((text(key)?, value)));
    if named().any(|(_, value)| unusable::is_tensor(value)) {
        let network = named().any(|(name, _)| networks::is_anchored(name));
        found.push(TensorDict { path: path.clone(), dict, network });
    }
    if path.len() == depth {
        return;
    }
    for (key, value) in named() {
        let moments = || MOMENTS.iter().any(|begin| key.starts_with(begin));
        if !words(key).any(|word| OPTIMIZERS.contains(&word)) && !moments() {
            path.push(key);
            search(value, path, depth, budget, found);
            path.pop();
        }
    }
}

/// The first keys of a dictionary that lead to tensors.
fn candidates(root: &Value) -> Vec<String> {
    let mut found = Vec::new();
    search(root, &mut Vec::new(), NESTING, &mut MAX_VISITED.clone(), &mut found);
    let mut keys: Vec<_> = found.iter().filter(|one| !one.path.is_empty()).map(TensorDict::key).collect();
    keys.dedup();
    keys
}

/// What an object holds in which no state dict is found, or not where it is `wanted`.
fn what_else(root: &Value, wanted: Option<&str>) -> String {
    const SHOWN: usize = 8;
    if let Some(key) = wanted {
        let keys = candidates(root);
        let keys: Vec<_> = keys.iter().take(SHOWN).map(|key| quoted(key)).collect();
        let only = if keys.is_empty() { String::new() } else { format!(", only under {}", keys.join(", ")) };
        return format!("no weights under {}{only}", quoted(key));
    }
    if let Some(pickled) = pickled(root) {
        return pickled;
    }
    match root {
        Value::Dict(dict) if dict.is_empty() => "holds an empty dictionary".into(),
        Value::Dict(dict) => {
            let keys: Vec<_> = dict.iter().filter_map(|(key, _)| text(key)).take(SHOWN).map(quoted).collect();
            format!("no state dict among its keys ({})", keys.join(", "))
        }
        Value::Tensor(_) => "holds a single tensor, not a state dict".into(),
        _ => "holds no dictionary of tensors".into(),
    }
}

/// That an object is a network, or has one under a usual key, where only what is in one can be read.
fn pickled(root: &Value) -> Option<String> {
    let object = |value: &Value, place: String| match value {
        Value::Opaque { global, .. } if !unusable::is_tensor(value) => Some(format!(
            "holds a pickled object ({}){place}, not a state dict; save model.state_dict() instead",
            quoted(global)
        )),
        _ => None,
    };
    let under = |key: &&str| object(get(root, key)?, format!(" under {}", quoted(key)));
    object(root, String::new()).or_else(|| WRAPPERS.iter().find_map(under))
}

/// The value under a key of a dictionary.
pub(crate) fn get<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let Value::Dict(dict) = value else { return None };
    dict.iter().find(|(k, _)| text(k) == Some(key)).map(|(_, value)| value)
}

/// The text of a string.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Str(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::{dict, opaque, weight};
    use super::*;

    #[test]
    fn the_state_dict_is_found_in_every_wrapper() {
        let state = || dict(&[("w", weight())]);
        let net = || dict(&[("levels.0.blocks.0.attn.rpb", weight())]);
        let timm = || {
            dict(&[("arch", Value::Str("x".into())), ("state_dict", state()), ("state_dict_ema", state())])
        };
        let mmengine = || {
            let ema = [("module.levels.0.blocks.0.attn.rpb", weight()), ("steps", weight())];
            dict(&[("ema_state_dict", dict(&ema)), ("state_dict", net())])
        };
        let two = || {
            let both = [("teacher.levels.0.blocks.0.attn.rpb", weight()), ("student.x", weight())];
            dict(&[("state_dict", dict(&both))])
        };
        let moments = || dict(&[("exp_avg", net()), ("weight", weight())]);
        for (root, wanted, key, others) in [
            (state(), None, "", ""),
            (timm(), None, "state_dict_ema", "state_dict"),
            (timm(), Some("state_dict"), "state_dict", ""),
            (dict(&[("model", state()), ("step", weight())]), None, "model", ""),
            (dict(&[("state_dict", state()), ("state_dict_ema", Value::None)]), None, "state_dict", ""),
            (dict(&[("module", dict(&[("net", state())]))]), None, "module.net", ""),
            (dict(&[("ema", dict(&[("module", state())]))]), Some("ema"), "ema.module", ""),
            (dict(&[("ema", dict(&[("a", state())]))]), Some("ema.a"), "ema.a", ""),
            // Keys that nobody told us.
            (dict(&[("net_g", net()), ("rng", weight())]), None, "net_g", ""),
            (dict(&[("a", dict(&[("b", net())])), ("model", state())]), None, "a.b", ""),
            (dict(&[("weights", net()), ("ema_weights", net())]), None, "ema_weights", "weights"),
            (dict(&[("my.weights", net())]), Some("my.weights"), "my.weights", ""),
            (dict(&[("optimizer_state_dict", moments()), ("params", net())]), None, "params", ""),
            (dict(&[("levels.0.blocks.0.attn.rpb", weight()), ("extra", state())]), None, "", ""),
            (dict(&[("fc.weight", weight()), ("stats", state())]), None, "", "stats"),
            (dict(&[("fc.weight", weight()), ("model", state())]), None, "model", ""),
            (dict(&[("model", opaque("models.Net")), ("sd", net())]), None, "sd", ""),
            (dict(&[("exp_avg", net()), ("exp", net())]), None, "exp", ""),
            (mmengine(), None, "state_dict", "ema_state_dict"),
            (mmengine(), Some("ema_state_dict"), "ema_state_dict", ""),
            // The rest of a key is the beginning of names.
            (two(), Some("teacher"), "state_dict", ""),
            (two(), Some("state_dict.student"), "state_dict", ""),
        ] {
            let found = find(&root, wanted).unwrap();
            assert_eq!((found.key.as_str(), found.others.join(",").as_str()), (key, others), "{wanted:?}");
        }
        assert_eq!(find(&two(), Some("teacher")).unwrap().place(), "state_dict.teacher");
        let scope = |wanted| find(&two(), Some(wanted)).map(|found| found.scope);
        assert_eq!(scope("teacher"), Ok(Some("teacher".into())));
        assert_eq!(scope("state_dict.student"), Ok(Some("student".into())));
        assert_eq!(scope("state_dict"), Ok(None));
        // A wrapper is no part of names.
        let parallel = dict(&[("net", dict(&[("module.w", weight())]))]);
        let found = find(&parallel, Some("net.module")).unwrap();
        assert_eq!((found.place().as_str(), found.scope), ("net.module", None));
        assert!(find(&parallel, Some("net.w")).is_err());
        assert_eq!(scope("nobody").unwrap_err().reason, "no weights under `nobody`, only under `state_dict`");
        assert!(find(&dict(&[("optimizer", moments())]), None).is_err());
    }

    #[test]
    fn what_holds_no_state_dict_is_described() {
        let ema = || dict(&[("ema", dict(&[("w", weight())])), ("epoch", Value::Int(3))]);
        for (root, wanted, says) in [
            (ema(), Some("emma"), "no weights under `emma`, only under `ema`"),
            (ema(), Some("epoch"), "no weights under `epoch`, only under `ema`"),
            (dict(&[]), Some("x"), "no weights under `x`"),
            (dict(&[]), None, "holds an empty dictionary"),
            (dict(&[("lr", Value::Float(0.1))]), None, "no state dict among its keys (`lr`)"),
            (
                opaque("models.Net"),
                None,
                "holds a pickled object (`models.Net`), not a state dict; save model.state_dict() instead",
            ),
            (
                dict(&[("model", opaque("models.Net"))]),
                None,
                "holds a pickled object (`models.Net`) under `model`, not a state dict; save model.state_dict() instead",
            ),
            (
                dict(&[("model", opaque("models.Net")), ("rng_state", weight())]),
                None,
                "holds a pickled object (`models.Net`) under `model`, not a state dict; save model.state_dict() instead",
            ),
            (weight(), None, "holds a single tensor, not a state dict"),
            (Value::Int(7), None, "holds no dictionary of tensors"),
        ] {
            let error = find(&root, wanted).unwrap_err();
            assert_eq!(error.reason, says);
            assert_eq!(error.keys.join(","), if says.contains("only under") { "ema" } else { "" });
        }
    }

    #[test]
    fn ignored_names_and_patterns_without_names() {
        let mut entries =
            ["head.weight", "head.bias", "norm.bias"].map(|name| (name.to_owned(), weight())).to_vec();
        let patterns = ["head.*", "*.tp", "*.weight"].map(str::to_owned);
        let (ignored, unused) = ignore(&mut entries, &patterns);
        assert_eq!(ignored, ["head.weight", "head.bias"]);
        assert_eq!(unused, ["*.tp"]);
        assert_eq!(entries.len(), 1);
    }
}
