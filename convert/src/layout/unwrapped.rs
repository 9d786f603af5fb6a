//! Names of any network's tensors, without what training wrapped around it.

use std::borrow::Cow;
use std::collections::HashSet;

use super::networks::WRAPPED;

/// The wrapper that calls what it wraps as a network may call a part of its own: it is taken off where it stands
/// around everything, and nowhere else.
const PLAIN: &str = "module.";

/// What is left of a name below a scope, whose components may have wrappers between them; `None` of other names.
pub(crate) fn below<'a>(name: &'a str, scope: &str) -> Option<&'a str> {
    let mut rest = name;
    for wanted in scope.split('.') {
        loop {
            let (first, after) = rest.split_once('.')?;
            rest = after;
            if first == wanted {
                break;
            }
            if !WRAPPED.contains(&first) {
                return None;
            }
        }
    }
    Some(rest)
}

/// A state dict's names without wrappers; `counts` says whether one is of a tensor that has to be under a wrapper
/// that stands around everything (a counter of averaged weights stands beside it). They stay as they are where
/// two would become the same.
pub(crate) fn unwrapped<'a>(names: &[&'a str], counts: impl Fn(usize) -> bool) -> Vec<Cow<'a, str>> {
    // Nobody calls a part of a network so.
    let private = |part: &str| part.starts_with('_') && WRAPPED.contains(&part);
    let mut short: Vec<Cow<str>> = names
        .iter()
        .map(|&name| match name.split('.').any(private) {
            true => name.split('.').filter(|part| !private(part)).collect::<Vec<_>>().join(".").into(),
            false => name.into(),
        })
        .collect();
    let around = |short: &[Cow<str>]| {
        let mut counted = short.iter().enumerate().filter(|(i, _)| counts(*i)).peekable();
        counted.peek().is_some() && counted.all(|(_, name)| name.starts_with(PLAIN))
    };
    while around(&short) {
        for name in &mut short {
            if let Some(rest) = name.strip_prefix(PLAIN) {
                *name = rest.to_owned().into();
            }
        }
    }
    let distinct: HashSet<&str> = short.iter().map(AsRef::as_ref).collect();
    if distinct.len() == short.len() { short } else { names.iter().map(|&name| name.into()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_taken_off_where_they_are_sure_to_be_some() {
        // A name with a star is of a tensor that need not be under a wrapper.
        for (names, short) in [
            (&["module.conv.weight", "module.fc.bias"][..], &["conv.weight", "fc.bias"][..]),
            (&["module.module.a.b", "module.module.c"], &["a.b", "c"]),
            (&["module.a", "n_averaged*"], &["a", "n_averaged*"]),
            (&["module.a", "module.steps*", "b"], &["module.a", "module.steps*", "b"]),
            (&["n*", "module.m*"], &["n*", "module.m*"]),
            (&["_orig_mod.module.a", "module._orig_mod.b"], &["a", "b"]),
            (&["net._orig_mod.a", "net.module.b"], &["net.a", "net.module.b"]),
            (&["net._checkpoint_wrapped_module.a", "_fsdp_wrapped_module.c"], &["net.a", "c"]),
            (&["_orig_mod.a", "a"], &["_orig_mod.a", "a"]),
            (&["_private.a", "b"], &["_private.a", "b"]),
            (&["modules.a", "module"], &["modules.a", "module"]),
            (&[], &[]),
        ] {
            assert_eq!(unwrapped(names, |i| !names[i].ends_with('*')), short, "{names:?}");
        }
    }

    #[test]
    fn a_scope_is_components() {
        for (name, scope, rest) in [
            ("teacher.conv.weight", "teacher", Some("conv.weight")),
            ("module.teacher._orig_mod.x", "teacher", Some("_orig_mod.x")),
            ("a._orig_mod.b.x", "a.b", Some("x")),
            ("teachers.x", "teacher", None),
            ("teacher", "teacher", None),
            ("student.teacher.x", "teacher", None),
        ] {
            assert_eq!(below(name, scope), rest, "{name}");
        }
    }
}
