//! Renames the tensors of a state dict.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::assemble::{Piece, assemble, row};
use super::mapped::{Dropped, Mapped};
use super::naming::Layout;
use super::rule::Rule;
use super::{networks, transformers, unusable};
use crate::arch::heads;
use crate::error::quoted;
use crate::source::{ElementType, TensorRef, Value};
use crate::warning::{Remedy, Warning};

/// Why tensors of the file are left out, where the name alone does not say.
const OTHER_NETWORK: &str = "of another network in the file";
pub(crate) const OUTSIDE: &str = "beside the network, not under its prefix";
const NOT_ASKED: &str = "not under the key that was asked for";
const WHOLE_NUMBERS: &str = "whole numbers under no weight's name";
const NO_TENSOR: &str = "not a tensor";

/// Renames every entry of a state dict that is the network's, or one whose names begin with `scope`.
pub(crate) fn map(entries: &[(String, Value)], scope: Option<&str>) -> Mapped {
    let cleaned: Vec<Cow<str>> = entries.iter().map(|(name, _)| networks::clean(name)).collect();
    let found = networks::all(cleaned.iter().map(AsRef::as_ref), scope);
    let names: Vec<Belonging> = cleaned.iter().map(|name| place(name, &found)).collect();
    let own =
        || names.iter().filter_map(|name| if let Belonging::Own(name) = name { Some(*name) } else { None });
    let layout = layout(found.first(), own());
    let headless = !own().any(heads::is_head);
    let mut mapped = Mapped {
        layout,
        tensors: BTreeMap::new(),
        dropped: Vec::new(),
        unusable: Vec::new(),
        warnings: Vec::new(),
    };
    mapped.warnings.extend(two_networks(&found));
    let mut beside = Vec::new();
    let mut pieces: BTreeMap<String, Vec<Piece>> = BTreeMap::new();
    for ((source, value), name) in entries.iter().zip(&names) {
        let name = match *name {
            Belonging::Own(name) => name,
            Belonging::No(reason) => {
                // Beside what was asked for nothing is missed.
                let reason = if reason == OUTSIDE && scope.is_some() { NOT_ASKED } else { reason };
                mapped.drop(source, reason);
                if reason == OUTSIDE && is_floats(value) {
                    beside.push(source.as_str());
                }
                continue;
            }
        };
        let rule = match layout {
            Layout::Transformers => transformers::rule(name),
            _ if headless => Rule::Whole(name.strip_prefix("backbone.").unwrap_or(name).to_owned()),
            _ if name.starts_with("backbone.") || heads::is_head(name) => Rule::Whole(name.to_owned()),
            // A head whose backbone is called otherwise.
            _ if networks::is_anchored(name) => Rule::Whole(format!("backbone.{name}")),
            _ => Rule::Whole(name.to_owned()),
        };
        if let Some(kind) = networks::is_whole(&found).then(|| unusable::marked(name)).flatten() {
            mapped.is_unusable(source, rule.names(), kind);
            continue;
        }
        let tensor = match value {
            Value::Tensor(tensor) if is_float(tensor.dtype) || canonical_looking(name) => tensor,
            Value::Tensor(_) => {
                mapped.drop(source, WHOLE_NUMBERS);
                continue;
            }
            _ if !canonical_looking(name) => {
                mapped.drop(source, NO_TENSOR);
                continue;
            }
            Value::Opaque { global, .. } => {
                mapped.is_unusable(source, rule.names(), unusable::kind(global));
                continue;
            }
            _ => {
                let kind = unusable::Obstacle::new("entries that are no tensors");
                mapped.is_unusable(source, rule.names(), kind);
                continue;
            }
        };
        if !is_float(tensor.dtype) {
            let kind = unusable::whole_numbers(tensor.dtype);
            mapped.is_unusable(source, rule.names(), kind);
            continue;
        }
        let mut put = |name: String, place: usize, of: usize, tensor: TensorRef| {
            let piece = Piece { place, of, from: source.clone(), tensor };
            pieces.entry(name).or_default().push(piece);
        };
        match rule {
            Rule::Whole(name) => put(name, 0, 1, (**tensor).clone()),
            Rule::Third(name, place) => put(name, place, 3, (**tensor).clone()),
            Rule::Rows(names) if tensor.shape.first() == Some(&2) => {
                for (i, name) in names.into_iter().enumerate() {
                    put(name, 0, 1, row(tensor, i));
                }
            }
            Rule::Rows(names) => {
                let kind = unusable::Obstacle::new("tensors of other than two rows");
                mapped.is_unusable(source, names.to_vec(), kind);
            }
        }
    }
    for (name, pieces) in pieces {
        match assemble(pieces) {
            Ok(tensor) => drop(mapped.tensors.insert(name, tensor)),
            Err((from, what)) => mapped.is_unusable(&from, vec![name], unusable::Obstacle::new(what)),
        }
    }
    mapped.warnings.extend(left_out(&mapped.dropped, &beside));
    mapped
}

/// That a state dict has other networks than the one that is taken.
fn two_networks(found: &[networks::FoundNetwork]) -> Option<Warning> {
    let [taken, others @ ..] = found else { return None };
    let called = |network: &networks::FoundNetwork| match network.prefix.trim_end_matches('.') {
        "" => "bare names".to_owned(),
        prefix => quoted(prefix),
    };
    let listed: Vec<_> = others.iter().map(called).collect();
    let text =
        format!("the network of {} is taken; there is another of {}", called(taken), listed.join(", "));
    // A key can't name those that have no prefix.
    let bare = others.iter().any(|other| other.prefix.is_empty());
    let remedy = if bare { Remedy::Ignore } else { Remedy::WeightsKey };
    (!others.is_empty()).then_some(Warning { text, remedy: Some(remedy) })
}

/// What a user must know of what was left out.
fn left_out(dropped: &[Dropped], beside: &[&str]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let averages = dropped.iter().filter(|dropped| dropped.reason == networks::AVERAGE).count();
    if averages > 0 {
        warnings.push(format!("{averages} tensors are {} and are left out", networks::AVERAGE).into());
    }
    if let [first, others @ ..] = beside {
        let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
        warnings.push(format!("{}{more}: left out, {OUTSIDE}", quoted(first)).into());
    }
    warnings
}

/// Whether a value is a tensor that could be a weight.
fn is_floats(value: &Value) -> bool {
    match value {
        // A single number is a temperature or a counter.
        Value::Tensor(tensor) => is_float(tensor.dtype) && !tensor.shape.is_empty(),
        other => unusable::is_tensor(other),
    }
}

fn is_float(dtype: ElementType) -> bool {
    matches!(dtype, ElementType::F64 | ElementType::F32 | ElementType::F16 | ElementType::BF16)
}

/// What an entry's name is.
#[derive(Clone, Copy)]
enum Belonging<'a> {
    /// One of the network's, without its prefix.
    Own(&'a str),
    /// None of them, and why it is dropped.
    No(&'static str),
}

/// What a clean name is in a state dict of these networks, of which the first is taken.
fn place<'a>(name: &'a str, found: &[networks::FoundNetwork]) -> Belonging<'a> {
    let Some(network) = found.first() else {
        let name = networks::usual_prefix(name);
        return networks::no_part(name).map_or(Belonging::Own(name), Belonging::No);
    };
    let own = name.strip_prefix(network.prefix.as_str());
    if let Some(reason) = networks::no_part(own.unwrap_or(name)) {
        return Belonging::No(reason);
    }
    // Prefixes may begin with one another: the longest counts.
    let longest = |other: &&networks::FoundNetwork| name.starts_with(other.prefix.as_str());
    let owner = found.iter().filter(longest).max_by_key(|other| other.prefix.len());
    if owner.is_some_and(|owner| owner.prefix != network.prefix) {
        return Belonging::No(OTHER_NETWORK);
    }
    if let Some(own) = own {
        return Belonging::Own(own);
    }
    // A head that stands on the network as its sibling, at any level of the prefix.
    let ends = network.prefix.match_indices('.').map(|(at, _)| &network.prefix[..=at]);
    let ancestors = std::iter::once("").chain(ends);
    let head =
        ancestors.filter_map(|ancestor| name.strip_prefix(ancestor)).find(|rest| is_head(rest, network));
    head.map_or(Belonging::No(OUTSIDE), Belonging::Own)
}

/// Whether a name is exactly that of something that stands on a backbone.
fn is_head(name: &str, network: &networks::FoundNetwork) -> bool {
    let linear = if network.transformers { "classifier." } else { "head." };
    matches!(name.strip_prefix(linear), Some("weight" | "bias"))
        || !network.transformers && heads::is_head(name)
}

fn layout<'a>(found: Option<&networks::FoundNetwork>, mut own: impl Iterator<Item = &'a str>) -> Layout {
    if found.is_some_and(|network| network.transformers) {
        Layout::Transformers
    } else if own.any(|name| name.starts_with("backbone.")) {
        Layout::OpenMmlab
    } else {
        Layout::Original
    }
}

/// Whether an entry stands where a network has a tensor of floats.
fn canonical_looking(name: &str) -> bool {
    const LAST: [&str; 8] = [
        "weight",
        "bias",
        "rpb",
        "gamma1",
        "gamma2",
        "running_mean",
        "running_var",
        "layer_scale_parameters",
    ];
    LAST.contains(&name.rsplit('.').next().unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::super::values::{opaque, tensor, weight};
    use super::*;

    fn of(names: &[&str]) -> Mapped {
        let entries: Vec<_> = names.iter().map(|name| ((*name).to_owned(), weight())).collect();
        map(&entries, None)
    }

    fn names(names: &[&str]) -> Vec<String> {
        of(names).tensors.into_keys().collect()
    }

    #[test]
    fn names_go_to_the_canonical_ones() {
        for (from, to) in [
            ("module.model.norm.weight", "norm.weight"),
            ("levels.0.blocks.1.attn.rpb", "levels.0.blocks.1.attn.rpb"),
            ("a.b._orig_mod.levels.0.blocks.1.attn.rpb", "levels.0.blocks.1.attn.rpb"),
            ("backbone.norm0.bias", "norm0.bias"),
            ("nat.embeddings.patch_embeddings.projection.1.bias", "patch_embed.proj.1.bias"),
        ] {
            assert_eq!(names(&[from]), [to]);
        }
        // Under a head the backbone keeps its prefix.
        assert_eq!(names(&["backbone.norm0.bias", "neck.x"]), ["backbone.norm0.bias", "neck.x"]);
        for prefix in ["", "nat.", "dinat.", "module.nat.", "x.y.nat."] {
            for (theirs, ours) in [
                ("embeddings.norm.bias", "patch_embed.norm.bias"),
                ("encoder.levels.3.layers.2.layernorm_before.weight", "levels.3.blocks.2.norm1.weight"),
                ("encoder.levels.3.layers.2.layernorm_after.bias", "levels.3.blocks.2.norm2.bias"),
                ("encoder.levels.0.layers.0.attention.self.rpb", "levels.0.blocks.0.attn.rpb"),
                ("encoder.levels.0.layers.0.attention.output.dense.bias", "levels.0.blocks.0.attn.proj.bias"),
                ("encoder.levels.0.layers.0.intermediate.dense.weight", "levels.0.blocks.0.mlp.fc1.weight"),
                ("encoder.levels.0.layers.0.output.dense.weight", "levels.0.blocks.0.mlp.fc2.weight"),
                ("encoder.levels.0.downsample.reduction.weight", "levels.0.downsample.reduction.weight"),
                ("encoder.levels.0.downsample.norm.bias", "levels.0.downsample.norm.bias"),
                ("layernorm.weight", "norm.weight"),
                ("hidden_states_norms.stage4.weight", "norm3.weight"),
            ] {
                let anchor = format!("{prefix}encoder.levels.9.layers.0.x");
                let names = names(&[&format!("{prefix}{theirs}"), &anchor]);
                assert!(names.iter().any(|name| name == ours), "{prefix}{theirs}: {names:?}");
            }
        }
        assert!(names(&["classifier.bias", "encoder.levels.9.layers.0.x"]).contains(&"head.bias".to_owned()));
    }

    #[test]
    fn a_head_beside_the_network_is_its_own_and_all_else_is_not() {
        let block = "levels.0.blocks.0.attn.rpb";
        for (prefix, head, expected) in [
            ("encoder.", "head.weight", "head.weight"),
            ("a.b.", "a.head.weight", "head.weight"),
            ("model.nat.", "head.bias", "head.bias"),
            ("model.backbone.net.", "model.decode_head.conv_seg.weight", "decode_head.conv_seg.weight"),
        ] {
            let mapped = of(&[&format!("{prefix}{block}"), head]);
            assert!(mapped.tensors.contains_key(expected), "{prefix} {head}: {:?}", mapped.tensors.keys());
            let under = if expected.starts_with("decode") { "backbone." } else { "" };
            assert!(mapped.tensors.contains_key(&format!("{under}{block}")), "{:?}", mapped.tensors.keys());
            assert!(mapped.dropped.is_empty() && mapped.warnings.is_empty());
        }
        let mapped = of(&["model.levels.0.blocks.0.attn.rpb", "fc.weight", "projector.0.bias", "val_acc.tp"]);
        assert_eq!(mapped.tensors.into_keys().collect::<Vec<_>>(), [block]);
        let reasons: Vec<_> = mapped.dropped.iter().map(|dropped| dropped.reason).collect();
        assert_eq!(reasons, [OUTSIDE, OUTSIDE, "a metric's state"]);
        let warnings: Vec<_> = mapped.warnings.iter().map(|warning| warning.text.as_str()).collect();
        assert_eq!(warnings, ["`fc.weight` and 1 more: left out, beside the network, not under its prefix"]);
        // Under no prefix a strange name stays, to be compared.
        assert_eq!(names(&[block, "heatmap.weight"]), ["heatmap.weight", block]);
    }

    #[test]
    fn of_two_networks_one_is_taken() {
        let whole = |prefix: &str| {
            ["patch_embed.proj.0.weight", "levels.0.blocks.0.attn.rpb"].map(|name| format!("{prefix}{name}"))
        };
        let mapped = |prefixes: [&str; 2], scope| {
            let names = [whole(prefixes[0]), whole(prefixes[1])].concat();
            map(&names.into_iter().map(|name| (name, weight())).collect::<Vec<_>>(), scope)
        };
        for (prefixes, scope, taken, other) in [
            (["student.", "teacher."], None, "student", "teacher"),
            (["teacher.", "student."], None, "student", "teacher"),
            (["model.", "ema_model."], None, "ema_model", "model"),
            (["", "ema."], None, "ema", "bare names"),
            (["encoder_q.", "encoder_k."], None, "encoder_q", "encoder_k"),
            (["student.", "teacher."], Some("teacher"), "teacher", ""),
        ] {
            let mapped = mapped(prefixes, scope);
            let from = &mapped.tensors["levels.0.blocks.0.attn.rpb"].from;
            assert!(from.starts_with(taken), "{prefixes:?}: {from}");
            assert_eq!(mapped.dropped.len(), 2, "{prefixes:?}");
            let warning = mapped.warnings.first().map(|warning| warning.text.clone());
            assert_eq!(warning.is_some(), !other.is_empty());
            assert!(warning.is_none_or(|text| text.contains(other)), "{prefixes:?}");
        }
    }

    #[test]
    fn stacked_and_split_tensors() {
        let block = "nat.encoder.levels.0.layers.0.";
        let third =
            |part: &str| (format!("{block}attention.self.{part}.weight"), tensor(ElementType::F16, &[4, 4]));
        let scale = (format!("{block}layer_scale_parameters"), tensor(ElementType::F16, &[2, 4]));
        let mapped = map(&[third("value"), scale, third("query"), third("key")], None);
        assert_eq!((mapped.layout, mapped.unusable.len()), (Layout::Transformers, 0));
        let qkv = &mapped.tensors["levels.0.blocks.0.attn.qkv.weight"];
        assert_eq!((qkv.shape.as_slice(), qkv.parts.len()), (&[12, 4][..], 3));
        let order: Vec<_> = qkv.from.split(" + ").map(|name| name.rsplit('.').nth(1).unwrap()).collect();
        assert_eq!(order, ["query", "key", "value"]);
        for (name, offset) in [("gamma1", 0), ("gamma2", 4)] {
            let gamma = &mapped.tensors[&format!("levels.0.blocks.0.{name}")];
            assert_eq!((gamma.shape.as_slice(), gamma.parts[0].offset), (&[4][..], offset));
        }
        let two = map(&[third("query"), third("key")], None);
        let (two, stands_for) = &two.unusable[0];
        assert_eq!(two.what, "parts of what query, key and value make together");
        assert_eq!(stands_for, &["levels.0.blocks.0.attn.qkv.weight"]);
    }

    #[test]
    fn what_is_dropped_has_a_reason_and_what_is_unusable_is_named() {
        let entries = [
            ("levels.0.blocks.0.attn.rpb", weight()),
            ("auxiliary_head.conv_seg.weight", weight()),
            ("decode_head.bottleneck.bn.num_batches_tracked", tensor(ElementType::I64, &[])),
            ("layers.0.attn.relative_position_index", tensor(ElementType::I64, &[4, 4])),
            ("epoch", Value::Int(3)),
            ("step", tensor(ElementType::I64, &[])),
            ("norm.weight", opaque("numpy.core.multiarray._reconstruct")),
            ("norm.bias", tensor(ElementType::I64, &[4])),
            ("module.head.weight", weight()),
            ("head.weight", tensor(ElementType::F32, &[3])),
            ("module.head.bias", weight()),
            ("head.bias", weight()),
        ];
        let entries = entries.map(|(name, value)| (name.to_owned(), value));
        let mapped = map(&entries, None);
        let dropped: Vec<_> = mapped.dropped.iter().map(|d| (d.name.as_str(), d.reason)).collect();
        assert_eq!(
            dropped,
            [
                ("auxiliary_head.conv_seg.weight", "auxiliary head, for training only"),
                ("decode_head.bottleneck.bn.num_batches_tracked", "BatchNorm's counter"),
                ("layers.0.attn.relative_position_index", "index buffer, computed from the map's size"),
                ("epoch", "not a tensor"),
                ("step", "whole numbers under no weight's name"),
            ]
        );
        let unusable: Vec<_> =
            mapped.unusable.iter().map(|(u, _)| (u.name.as_str(), u.what.as_str())).collect();
        assert_eq!(
            unusable,
            [
                ("norm.weight", "numpy arrays instead of tensors"),
                ("norm.bias", "tensors of whole numbers (I64)"),
                ("module.head.weight and head.weight", "tensors that go by the same name"),
            ]
        );
        // One tensor under two names is one.
        assert_eq!(
            mapped.tensors.into_keys().collect::<Vec<_>>(),
            ["head.bias", "levels.0.blocks.0.attn.rpb"]
        );
    }
}
