//! Names: where a checkpoint keeps its tensors, how it calls them, and what they are called here.
//!
//! This is the one place that knows the layouts of the published files. `find` unwraps the state
//! dict, `map` renames every tensor in it to the canonical name (that of the original repository)
//! or says why it is dropped. Whether the result is a network is not decided here: a name that no
//! rule knows is kept, and the comparison with [`crate::arch::Architecture::tensors`] reports it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::error::quoted;
use crate::source::{DType, TensorRef, Value};

/// The keys under which training programs save a state dict, the preferred ones first: an average
/// of the weights (EMA) is what the published figures were measured with.
const WRAPPERS: [&str; 6] = ["state_dict_ema", "model_ema", "state_dict", "model", "module", "net"];

/// Wrappers in wrappers that are looked through.
const NESTING: usize = 4;

/// The tensors of a checkpoint, found in whatever was saved around them.
#[derive(Debug)]
pub(crate) struct StateDict {
    /// The keys that lead to it, joined by dots; empty for a bare state dict.
    pub key: String,
    /// Keys beside it that lead to other state dicts.
    pub others: Vec<String>,
    /// Names as saved, and what was saved under them.
    pub entries: Vec<(String, Value)>,
}

/// Why there is no state dict.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotFound {
    /// What the file holds instead, and what to do.
    pub reason: String,
    /// The keys that lead to tensors all the same.
    pub keys: Vec<String>,
}

/// Finds the state dict in the object that a file holds: the one under `wanted`, or the most
/// preferred one of the usual wrappers.
///
/// # Errors
/// [`NotFound`].
pub(crate) fn find(root: &Value, wanted: Option<&str>) -> Result<StateDict, NotFound> {
    let keys = || candidates(root).into_iter().map(str::to_owned).collect::<Vec<_>>();
    match wanted {
        None => descend(root, "", NESTING),
        Some(key) => {
            let value = key.split('.').try_fold(root, get);
            get(root, key).or(value).and_then(|value| descend(value, key, NESTING))
        }
    }
    .ok_or_else(|| NotFound { reason: what_else(root, wanted), keys: keys() })
}

/// What an object holds in which no state dict is found, or not where it is `wanted`.
fn what_else(root: &Value, wanted: Option<&str>) -> String {
    let only_under = match candidates(root) {
        keys if keys.is_empty() => None,
        keys => Some(format!(", only under {}", keys.into_iter().map(quoted).collect::<Vec<_>>().join(", "))),
    };
    if let Some(key) = wanted {
        return format!("no weights under {}{}", quoted(key), only_under.unwrap_or_default());
    }
    let object = |global: &str, place: String| {
        let global = quoted(global);
        format!("holds a pickled object ({global}){place}, not a state dict; save model.state_dict() instead")
    };
    match root {
        Value::Opaque { global, .. } => object(global, String::new()),
        Value::Dict(dict) if dict.is_empty() => "holds an empty dictionary".into(),
        Value::Dict(dict) => match only_under {
            None => {
                let opaque = |key: &&str| match get(root, key) {
                    Some(Value::Opaque { global, .. }) => Some(object(global, format!(" under `{key}`"))),
                    _ => None,
                };
                if let Some(what) = WRAPPERS.iter().find_map(opaque) {
                    return what;
                }
                let keys: Vec<_> = dict.iter().filter_map(|(k, _)| text(k)).take(8).map(quoted).collect();
                format!("no state dict among its keys ({})", keys.join(", "))
            }
            Some(only_under) => format!("no state dict under a usual key{only_under}"),
        },
        Value::Tensor(_) => "holds a single tensor, not a state dict".into(),
        _ => "holds no dictionary of tensors".into(),
    }
}

fn descend(value: &Value, path: &str, depth: usize) -> Option<StateDict> {
    let Value::Dict(dict) = value else { return None };
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    if depth > 0 {
        let inner = |key: &&str| descend(get(value, key)?, &join(key), depth - 1);
        let mut found = WRAPPERS.iter().filter_map(inner);
        if let Some(first) = found.next() {
            let others = found.map(|other| other.key).chain(first.others).collect();
            return Some(StateDict { others, ..first });
        }
    }
    let is_tensor = |(key, value): &(Value, Value)| text(key).is_some() && matches!(value, Value::Tensor(_));
    dict.iter().any(is_tensor).then(|| StateDict {
        key: path.to_owned(),
        others: Vec::new(),
        entries: dict.iter().filter_map(|(k, v)| Some((text(k)?.to_owned(), v.clone()))).collect(),
    })
}

/// The keys of a dictionary that lead to tensors.
fn candidates(root: &Value) -> Vec<&str> {
    let Value::Dict(dict) = root else { return Vec::new() };
    dict.iter()
        .filter_map(|(key, value)| {
            let key = text(key)?;
            descend(value, key, NESTING).map(|_| key)
        })
        .collect()
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

/// The naming schemes of the published files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// SHI-Labs' classifiers.
    Original,
    /// `backbone.`, `neck.`, … as mmdetection and mmsegmentation name them.
    #[serde(rename = "openmmlab")]
    OpenMmlab,
    /// `embeddings.`, `encoder.levels.`, … of Hugging Face Transformers.
    Transformers,
    /// A file that this crate wrote.
    Converted,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Original => "original (SHI-Labs)",
            Layout::OpenMmlab => "OpenMMLab",
            Layout::Transformers => "Transformers",
            Layout::Converted => "converted (nat-convert)",
        })
    }
}

/// A tensor under its canonical name: parts of the file, one below the other.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// The names in the file.
    pub from: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Concatenated along the first axis.
    pub parts: Vec<TensorRef>,
}

/// A tensor of the file that the network does not need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Its name in the file.
    pub name: String,
    /// Why it is not needed.
    pub reason: &'static str,
}

/// A state dict under canonical names.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub layout: Layout,
    pub recipes: BTreeMap<String, Recipe>,
    pub dropped: Vec<Dropped>,
    /// What should have become a tensor and can't: the reasons.
    pub unusable: Vec<String>,
}

/// Where a tensor of the file goes.
enum Rule {
    /// To a canonical name, whole.
    Whole(String),
    /// To a canonical name, as one of the three parts of a stacked tensor.
    Third(String, usize),
    /// Its rows to two canonical names.
    Rows([String; 2]),
    Drop(&'static str),
}

/// Renames every entry of a state dict.
pub(crate) fn map(entries: &[(String, Value)]) -> Mapped {
    let names: Vec<&str> = entries.iter().map(|(name, _)| strip(name)).collect();
    let layout = layout(&names);
    let headless = !names.iter().any(|name| HEADS.iter().any(|head| name.starts_with(head)));
    let mut mapped = Mapped { layout, recipes: BTreeMap::new(), dropped: Vec::new(), unusable: Vec::new() };
    let mut pieces: BTreeMap<String, Vec<Piece>> = BTreeMap::new();
    for ((source, value), name) in entries.iter().zip(names) {
        let rule = match dropped(name) {
            Some(reason) => Rule::Drop(reason),
            None if layout == Layout::Transformers => transformers(name),
            None if headless => Rule::Whole(name.strip_prefix("backbone.").unwrap_or(name).to_owned()),
            None => Rule::Whole(name.to_owned()),
        };
        let tensor = match value {
            Value::Tensor(tensor) => tensor,
            _ if matches!(rule, Rule::Drop(_)) || !canonical_looking(name) => {
                let reason = "not a tensor";
                mapped.dropped.push(Dropped { name: source.clone(), reason });
                continue;
            }
            Value::Opaque { global, .. } => {
                mapped.unusable.push(format!("{} is an unreadable {}", quoted(source), quoted(global)));
                continue;
            }
            _ => {
                mapped.unusable.push(format!("{} is not a tensor", quoted(source)));
                continue;
            }
        };
        let mut put = |name: String, place: usize, of: usize, tensor: TensorRef| {
            let piece = Piece { place, of, from: source.clone(), tensor };
            pieces.entry(name).or_default().push(piece);
        };
        match rule {
            Rule::Drop(reason) => mapped.dropped.push(Dropped { name: source.clone(), reason }),
            Rule::Whole(name) => put(name, 0, 1, (**tensor).clone()),
            Rule::Third(name, place) => put(name, place, 3, (**tensor).clone()),
            Rule::Rows(names) if tensor.shape.first() == Some(&2) => {
                for (i, name) in names.into_iter().enumerate() {
                    put(name, 0, 1, row(tensor, i));
                }
            }
            Rule::Rows(_) => {
                let shape = &tensor.shape;
                mapped.unusable.push(format!("{} is {shape:?}, expected two rows", quoted(source)));
            }
        }
    }
    for (name, pieces) in pieces {
        match assemble(pieces) {
            Ok(recipe) => drop(mapped.recipes.insert(name, recipe)),
            Err(reason) => mapped.unusable.push(format!("{}: {reason}", quoted(&name))),
        }
    }
    mapped
}

/// What a state dict's modules are called where they are wrapped for training (DataParallel, EMA).
fn strip(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("module.").or_else(|| name.strip_prefix("model.")) {
        name = rest;
    }
    name
}

/// The first components of what stands on a backbone in OpenMMLab's networks.
const HEADS: [&str; 4] = ["neck.", "rpn_head.", "roi_head.", "decode_head."];

fn layout(names: &[&str]) -> Layout {
    let any = |pattern: &str| names.iter().any(|name| name.contains(pattern));
    if any("embeddings.patch_embeddings.") || any("encoder.levels.") {
        Layout::Transformers
    } else if names.iter().any(|name| name.starts_with("backbone.")) {
        Layout::OpenMmlab
    } else {
        Layout::Original
    }
}

/// Why inference does not need a tensor of this name, whatever the layout.
fn dropped(name: &str) -> Option<&'static str> {
    let last = name.rsplit('.').next().unwrap_or(name);
    match last {
        _ if name.starts_with("auxiliary_head.") => Some("auxiliary head, for training only"),
        "num_batches_tracked" => Some("BatchNorm's counter"),
        "relative_position_index" => Some("index buffer, computed from the map's size"),
        "n_averaged" => Some("counter of averaged weights"),
        _ => None,
    }
}

/// Whether an entry that is no tensor stands where a network has one.
fn canonical_looking(name: &str) -> bool {
    ["weight", "bias", "rpb", "gamma1", "gamma2"].contains(&name.rsplit('.').next().unwrap_or(name))
}

/// Transformers' `modeling_nat.py` and `modeling_dinat.py` to the original names.
fn transformers(name: &str) -> Rule {
    let name = name.strip_prefix("nat.").or_else(|| name.strip_prefix("dinat.")).unwrap_or(name);
    const STEMS: [(&str, &str); 4] = [
        ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
        ("embeddings.norm.", "patch_embed.norm."),
        ("layernorm.", "norm."),
        ("classifier.", "head."),
    ];
    for (theirs, ours) in STEMS {
        if let Some(rest) = name.strip_prefix(theirs) {
            return Rule::Whole(format!("{ours}{rest}"));
        }
    }
    if let Some((stage, rest)) =
        name.strip_prefix("hidden_states_norms.stage").and_then(|n| n.split_once('.'))
        && let Some(level) = stage.parse::<usize>().ok().and_then(|stage| stage.checked_sub(1))
    {
        return Rule::Whole(format!("norm{level}.{rest}"));
    }
    let Some(rest) = name.strip_prefix("encoder.levels.") else { return Rule::Whole(name.to_owned()) };
    let Some((level, rest)) = rest.split_once('.') else { return Rule::Whole(name.to_owned()) };
    let Some((block, rest)) = rest.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) else {
        return Rule::Whole(format!("levels.{level}.{rest}"));
    };
    let block = format!("levels.{level}.blocks.{block}");
    const PARTS: [(&str, &str); 6] = [
        ("layernorm_before.", "norm1."),
        ("attention.self.rpb", "attn.rpb"),
        ("attention.output.dense.", "attn.proj."),
        ("layernorm_after.", "norm2."),
        ("intermediate.dense.", "mlp.fc1."),
        ("output.dense.", "mlp.fc2."),
    ];
    for (theirs, ours) in PARTS {
        if let Some(rest) = rest.strip_prefix(theirs) {
            return Rule::Whole(format!("{block}.{ours}{rest}"));
        }
    }
    for (place, theirs) in ["query.", "key.", "value."].into_iter().enumerate() {
        if let Some(rest) = rest.strip_prefix("attention.self.").and_then(|rest| rest.strip_prefix(theirs)) {
            return Rule::Third(format!("{block}.attn.qkv.{rest}"), place);
        }
    }
    if rest == "layer_scale_parameters" {
        return Rule::Rows([1, 2].map(|i| format!("{block}.gamma{i}")));
    }
    Rule::Whole(format!("{block}.{rest}"))
}

/// One row of a matrix.
fn row(tensor: &TensorRef, index: usize) -> TensorRef {
    TensorRef {
        shape: tensor.shape[1..].to_vec(),
        strides: tensor.strides[1..].to_vec(),
        offset: tensor.offset + index * tensor.strides[0],
        ..*tensor
    }
}

/// A tensor of the file on its way to a canonical name.
struct Piece {
    /// Where it stands among the parts of the canonical tensor, and how many there must be.
    place: usize,
    of: usize,
    from: String,
    tensor: TensorRef,
}

/// Puts the pieces of one canonical tensor together, or says what is wrong with them.
fn assemble(mut pieces: Vec<Piece>) -> Result<Recipe, String> {
    pieces.sort_by_key(|piece| piece.place);
    let names = |separator| {
        let names: Vec<_> = pieces.iter().map(|piece| piece.from.as_str()).collect();
        names.join(separator)
    };
    let (from, first) = (names(" + "), &pieces[0]);
    if !pieces.iter().map(|piece| piece.place).eq(0..first.of) {
        return Err(match first.of {
            1 => format!("{} are the same tensor", quoted(&names(" and "))),
            _ => format!("made of query, key and value, but there is {}", quoted(&names(" and "))),
        });
    }
    let (dtype, mut shape) = (first.tensor.dtype, first.tensor.shape.clone());
    if !matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
        return Err(format!("{dtype:?} where floating point numbers belong"));
    }
    for Piece { tensor, .. } in &pieces[1..] {
        if tensor.dtype != dtype || tensor.shape.is_empty() || tensor.shape.get(1..) != shape.get(1..) {
            return Err(format!("{} do not fit together", quoted(&from)));
        }
        shape[0] += tensor.shape[0];
    }
    Ok(Recipe { from, dtype, shape, parts: pieces.into_iter().map(|piece| piece.tensor).collect() })
}

/// What a checkpoint of another network looks like, by the names that give it away.
pub(crate) fn looks_like(names: &[&str]) -> Option<&'static str> {
    const SIGNS: [(&str, &str); 9] = [
        ("relative_position_bias_table", "a Swin Transformer"),
        ("layer1.0.conv1.weight", "a ResNet"),
        ("downsample_layers.0.", "a ConvNeXt"),
        ("stages.0.blocks.0.conv_dw.", "a ConvNeXt"),
        ("mask_token", "a masked autoencoder"),
        ("visual.", "CLIP"),
        ("cls_token", "a Vision Transformer (ViT, DeiT)"),
        ("encoder.layer.0.attention.attention.query", "Transformers' ViT"),
        ("word_embeddings", "a language model"),
    ];
    let given_away = |(sign, _): &&(&str, &str)| names.iter().any(|name| name.contains(sign));
    SIGNS.iter().find(given_away).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn tensor(dtype: DType, shape: &[usize]) -> Value {
        let stride = |i: usize| shape[i + 1..].iter().product();
        let strides = (0..shape.len()).map(stride).collect();
        Value::Tensor(Rc::new(TensorRef { dtype, shape: shape.to_vec(), strides, offset: 0, storage: 0 }))
    }

    fn weight() -> Value {
        tensor(DType::F32, &[2])
    }

    fn dict(entries: &[(&str, Value)]) -> Value {
        let entry = |(key, value): &(&str, Value)| (Value::Str((*key).into()), value.clone());
        Value::Dict(Rc::new(entries.iter().map(entry).collect()))
    }

    fn opaque() -> Value {
        Value::Opaque { global: "numpy.ndarray".into(), state: None }
    }

    #[test]
    fn the_state_dict_is_found_in_every_wrapper() {
        let state = || dict(&[("w", weight())]);
        let timm = || {
            dict(&[("arch", Value::Str("x".into())), ("state_dict", state()), ("state_dict_ema", state())])
        };
        for (root, wanted, key, others) in [
            (state(), None, "", ""),
            (timm(), None, "state_dict_ema", "state_dict"),
            (timm(), Some("state_dict"), "state_dict", ""),
            (dict(&[("model", state()), ("step", weight())]), None, "model", ""),
            (dict(&[("state_dict", state()), ("state_dict_ema", Value::None)]), None, "state_dict", ""),
            (dict(&[("module", dict(&[("net", state())]))]), None, "module.net", ""),
            (dict(&[("ema", dict(&[("module", state())]))]), Some("ema"), "ema.module", ""),
            (dict(&[("ema", dict(&[("a", state())]))]), Some("ema.a"), "ema.a", ""),
        ] {
            let found = find(&root, wanted).unwrap();
            assert_eq!((found.key.as_str(), found.others.join(",").as_str()), (key, others), "{wanted:?}");
            assert_eq!(found.entries.len(), 1);
        }
    }

    #[test]
    fn what_holds_no_state_dict_is_described() {
        let ema = || dict(&[("ema", dict(&[("w", weight())])), ("epoch", Value::Int(3))]);
        for (root, wanted, says) in [
            (ema(), None, "no state dict under a usual key, only under `ema`"),
            (ema(), Some("emma"), "no weights under `emma`, only under `ema`"),
            (ema(), Some("epoch"), "no weights under `epoch`, only under `ema`"),
            (dict(&[]), Some("x"), "no weights under `x`"),
            (dict(&[]), None, "holds an empty dictionary"),
            (dict(&[("lr", Value::Float(0.1))]), None, "no state dict among its keys (`lr`)"),
            (
                opaque(),
                None,
                "holds a pickled object (`numpy.ndarray`), not a state dict; save model.state_dict() instead",
            ),
            (
                dict(&[("model", opaque())]),
                None,
                "holds a pickled object (`numpy.ndarray`) under `model`, not a state dict; save model.state_dict() instead",
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
    fn names_go_to_the_canonical_ones() {
        let of = |names: &[&str]| {
            let entries: Vec<_> = names.iter().map(|name| ((*name).to_owned(), weight())).collect();
            map(&entries).recipes.into_keys().collect::<Vec<_>>()
        };
        for (from, to) in [
            ("module.model.norm.weight", "norm.weight"),
            ("levels.0.blocks.1.attn.rpb", "levels.0.blocks.1.attn.rpb"),
            ("backbone.norm0.bias", "norm0.bias"),
            ("nat.embeddings.patch_embeddings.projection.1.bias", "patch_embed.proj.1.bias"),
        ] {
            assert_eq!(of(&[from]), [to]);
        }
        // Under a head the backbone keeps its prefix.
        assert_eq!(of(&["backbone.norm0.bias", "neck.x"]), ["backbone.norm0.bias", "neck.x"]);
        for prefix in ["", "nat.", "dinat.", "module.nat."] {
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
                let anchor = "encoder.levels.9.x";
                let names = of(&[&format!("{prefix}{theirs}"), anchor]);
                assert!(names.iter().any(|name| name == ours), "{prefix}{theirs}: {names:?}");
            }
        }
        assert!(of(&["classifier.bias", "encoder.levels.9.x"]).contains(&"head.bias".to_owned()));
    }

    #[test]
    fn stacked_and_split_tensors() {
        let block = "nat.encoder.levels.0.layers.0.";
        let third =
            |part: &str| (format!("{block}attention.self.{part}.weight"), tensor(DType::F16, &[4, 4]));
        let scale = (format!("{block}layer_scale_parameters"), tensor(DType::F16, &[2, 4]));
        let mapped = map(&[third("value"), scale, third("query"), third("key")]);
        assert_eq!((mapped.layout, mapped.unusable.len()), (Layout::Transformers, 0));
        let qkv = &mapped.recipes["levels.0.blocks.0.attn.qkv.weight"];
        assert_eq!((qkv.shape.as_slice(), qkv.parts.len()), (&[12, 4][..], 3));
        let order: Vec<_> = qkv.from.split(" + ").map(|name| name.rsplit('.').nth(1).unwrap()).collect();
        assert_eq!(order, ["query", "key", "value"]);
        for (name, offset) in [("gamma1", 0), ("gamma2", 4)] {
            let gamma = &mapped.recipes[&format!("levels.0.blocks.0.{name}")];
            assert_eq!((gamma.shape.as_slice(), gamma.parts[0].offset), (&[4][..], offset));
        }
        let two = map(&[third("query"), third("key")]);
        assert!(two.unusable[0].contains("made of query, key and value"), "{:?}", two.unusable);
    }

    #[test]
    fn what_is_dropped_has_a_reason_and_what_is_unusable_is_named() {
        let entries = [
            ("auxiliary_head.conv_seg.weight", weight()),
            ("decode_head.bottleneck.bn.num_batches_tracked", tensor(DType::I64, &[])),
            ("layers.0.attn.relative_position_index", tensor(DType::I64, &[4, 4])),
            ("epoch", Value::Int(3)),
            ("norm.weight", opaque()),
            ("norm.bias", tensor(DType::I64, &[4])),
            ("module.head.weight", weight()),
            ("head.weight", weight()),
        ];
        let entries = entries.map(|(name, value)| (name.to_owned(), value));
        let mapped = map(&entries);
        let dropped: Vec<_> = mapped.dropped.iter().map(|d| (d.name.as_str(), d.reason)).collect();
        assert_eq!(
            dropped,
            [
                ("auxiliary_head.conv_seg.weight", "auxiliary head, for training only"),
                ("decode_head.bottleneck.bn.num_batches_tracked", "BatchNorm's counter"),
                ("layers.0.attn.relative_position_index", "index buffer, computed from the map's size"),
                ("epoch", "not a tensor"),
            ]
        );
        assert_eq!(
            mapped.unusable,
            [
                "`norm.weight` is an unreadable `numpy.ndarray`",
                "`head.weight`: `module.head.weight and head.weight` are the same tensor",
                "`norm.bias`: I64 where floating point numbers belong",
            ]
        );
        assert!(mapped.recipes.is_empty());
    }

    #[test]
    fn other_networks_are_recognised() {
        for (name, what) in [
            ("layers.0.blocks.0.attn.relative_position_bias_table", Some("a Swin Transformer")),
            ("module.layer1.0.conv1.weight", Some("a ResNet")),
            ("cls_token", Some("a Vision Transformer (ViT, DeiT)")),
            ("levels.0.blocks.0.attn.rpb", None),
            ("layers.0.attn.relative_position_index", None),
        ] {
            assert_eq!(looks_like(&[name]), what, "{name}");
        }
    }
}
