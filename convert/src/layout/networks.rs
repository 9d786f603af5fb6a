//! Which tensors are one network's: names without what training wrapped around their modules, the prefix
//! that a network's names share, and what else stands beside them.
//!
//! A prefix is not looked up in a list. A network has names that give it away wherever they begin, and what
//! precedes them is the prefix.

use std::borrow::Cow;
use std::collections::HashMap;

use super::words::{is_average, words};
use crate::arch::Family;

/// What wrappers of modules (DataParallel, torch.compile, FSDP, DeepSpeed, activation checkpoints) put between
/// the components of a name, wherever they stand.
pub(super) const WRAPPED: [&str; 7] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_forward_module",
    "_checkpoint_wrapped_module",
    "_original_module",
];

/// Words in the prefix of a network that the trained one learnt from or that follows it.
const TEACHERS: [&str; 5] = ["teacher", "target", "momentum", "k", "old"];

/// A name without the components that wrappers add.
pub(super) fn clean(name: &str) -> Cow<'_, str> {
    let added = |part: &str| WRAPPED.contains(&part);
    if !name.split('.').any(added) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.split('.').filter(|part| !added(part)).collect::<Vec<_>>().join("."))
}

/// The parts of a network that every one here has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anchor {
    Tokenizer,
    Blocks,
}

/// What a name gives away that begins a network, in Transformers' layout or another one.
fn anchor(name: &str) -> Option<(Anchor, bool)> {
    if name.starts_with("patch_embed.proj.") {
        return Some((Anchor::Tokenizer, false));
    }
    if name.starts_with("embeddings.patch_embeddings.") {
        return Some((Anchor::Tokenizer, true));
    }
    // The number and what follows it.
    let numbered = |(stem, below): (&str, &str)| {
        let Some((number, rest)) = name.strip_prefix(stem).and_then(|rest| rest.split_once('.')) else {
            return false;
        };
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && rest.starts_with(below)
    };
    if numbered(("encoder.levels.", "layers.")) {
        return Some((Anchor::Blocks, true));
    }
    let blocks = Family::ALL.into_iter().any(|family| numbered(family.kind().anchor()));
    blocks.then_some((Anchor::Blocks, false))
}

/// The first place in a clean name where a network begins.
fn find(name: &str) -> Option<(&str, Anchor, bool)> {
    let starts = std::iter::once(0).chain(name.match_indices('.').map(|(at, _)| at + 1));
    starts.take(DEEPEST).find_map(|at| anchor(&name[at..]).map(|(part, theirs)| (&name[..at], part, theirs)))
}

/// Most networks in one state dict that are told apart.
const MAX_NETWORKS: usize = 8;

/// Components of a prefix that are looked through.
const DEEPEST: usize = 16;

/// Whether a name is one of a network here, whatever precedes it.
pub(super) fn is_anchored(name: &str) -> bool {
    find(&clean(name)).is_some()
}

/// A network among the names of a state dict.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundNetwork {
    /// What its names begin with, up to and with the last dot.
    pub prefix: String,
    /// Whether its names are those of Transformers.
    pub transformers: bool,
    tokenizer: bool,
    blocks: bool,
}

impl FoundNetwork {
    fn is_whole(&self) -> bool {
        self.tokenizer && self.blocks
    }

    /// What is preferred sorts first: a whole network, an average, and not what only taught.
    fn rank(&self) -> impl Ord + use<> {
        let parts = || self.prefix.split('.');
        let teacher = parts().flat_map(words).any(|word| TEACHERS.contains(&word));
        (!self.is_whole(), !parts().any(is_average), teacher)
    }
}

/// The networks of a state dict's clean names, the preferred one first; with a `scope` only those whose names
/// begin with it.
pub(super) fn all<'a>(names: impl Iterator<Item = &'a str>, scope: Option<&str>) -> Vec<FoundNetwork> {
    let mut found: Vec<FoundNetwork> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let stem = scope.map(|scope| format!("{scope}."));
    for name in names.filter(|name| stem.as_ref().is_none_or(|stem| name.starts_with(stem))) {
        let Some((before, part, transformers)) = find(name) else { continue };
        // What a layout calls its backbone belongs to its names.
        let own: &[&str] = if transformers { &["nat.", "dinat."] } else { &["backbone."] };
        let shorter =
            |own: &&str| before.strip_suffix(own).filter(|rest| rest.is_empty() || rest.ends_with('.'));
        let prefix = own.iter().find_map(shorter).unwrap_or(before);
        let place = *places.entry(prefix.to_owned()).or_insert_with(|| {
            found.push(FoundNetwork { prefix: prefix.to_owned(), transformers, ..FoundNetwork::default() });
            found.len() - 1
        });
        let network = &mut found[place];
        network.transformers |= transformers;
        match part {
            Anchor::Tokenizer => network.tokenizer = true,
            Anchor::Blocks => network.blocks = true,
        }
    }
    // Those of one rank stay in the order of the file.
    found.sort_by_cached_key(FoundNetwork::rank);
    let whole = found.first().is_some_and(FoundNetwork::is_whole);
    found.retain(|network| !whole || network.is_whole());
    found.truncate(MAX_NETWORKS);
    found
}

/// Whether these are networks and not only parts of one.
pub(super) fn is_whole(found: &[FoundNetwork]) -> bool {
    found.first().is_some_and(FoundNetwork::is_whole)
}

/// What a state dict's names have before those of a network that is not recognised.
pub(super) fn usual_prefix(name: &str) -> &str {
    let mut rest = name;
    while let Some(shorter) = rest.strip_prefix("model.") {
        rest = shorter;
    }
    rest
}

/// Why an entry is no part of a network, by a name without prefix.
pub(super) fn no_part(name: &str) -> Option<&'static str> {
    const METRICS: [&str; 9] =
        ["accuracy", "metric", "auroc", "precision", "recall", "confusion", "confmat", "jaccard", "kappa"];
    const SHORT_METRICS: [&str; 9] = ["acc", "f1", "iou", "miou", "auc", "top1", "top5", "acc1", "acc5"];
    let (first, rest) = name.split_once('.').unwrap_or((name, ""));
    let last = rest.rsplit('.').next().filter(|last| !last.is_empty()).unwrap_or(first);
    let lower = first.to_ascii_lowercase();
    let has = |marks: &[&str]| words(&lower).any(|word| marks.contains(&word));
    let contains = |marks: &[&str]| marks.iter().any(|mark| lower.contains(mark));
    Some(match last {
        _ if first == "auxiliary_head" => "auxiliary head, for training only",
        "num_batches_tracked" => "BatchNorm's counter",
        "relative_position_index" => "index buffer, computed from the map's size",
        "n_averaged" => "counter of averaged weights",
        _ if rest.is_empty() && first.starts_with("ema_") => EMA_BUFFER,
        _ if contains(&METRICS) || has(&SHORT_METRICS) => "a metric's state",
        _ if contains(&["criterion"]) || has(&["loss", "losses"]) => "a loss's",
        _ if has(&["text", "tokenizer", "bert"]) || first == "logit_scale" => "text encoder",
        _ if has(&["queue"]) => "a training method's queue",
        _ if has(&["optimizer", "scheduler"]) => "an optimizer's",
        _ if is_average(first) => AVERAGE,
        _ => return None,
    })
}

/// Why what mmcv's EMA hook registers is left out: it exchanges the two before it saves.
pub(super) const EMA_BUFFER: &str = "EMA hook's buffer, whose averages are saved under the plain names";

/// Why an average is left out whose names are not those of a network.
pub(super) const AVERAGE: &str = "an average of weights (EMA) under names that are not read";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_taken_out_of_names_anywhere() {
        for (name, cleaned) in [
            ("module.model._orig_mod.head.bias", "model.head.bias"),
            ("levels.0._orig_mod.blocks.1._checkpoint_wrapped_module.attn.rpb", "levels.0.blocks.1.attn.rpb"),
            ("_fsdp_wrapped_module._fpw_module.norm.bias", "norm.bias"),
            ("_forward_module.net.x", "net.x"),
            ("decode_head.psp_modules.0.1.conv.weight", "decode_head.psp_modules.0.1.conv.weight"),
        ] {
            assert_eq!(clean(name), cleaned);
        }
    }

    #[test]
    fn a_network_is_found_under_any_prefix() {
        let all = |names: &[&str], scope| {
            let found = all(names.iter().copied(), scope);
            found.into_iter().map(|one| one.prefix).collect::<Vec<_>>()
        };
        let whole = |prefix: &str| {
            ["patch_embed.proj.weight", "layers.0.attn.qkv.weight"].map(|name| format!("{prefix}{name}"))
        };
        for (names, prefix) in [
            (["levels.0.blocks.0.x", "patch_embed.proj.0.x"], ""),
            (["model.levels.0.blocks.0.x", "model.patch_embed.proj.0.x"], "model."),
            (["a.b.layers.11.blocks.0.x", "a.b.patch_embed.proj.x"], "a.b."),
            (["encoder.levels.0.blocks.0.x", "encoder.patch_embed.proj.x"], "encoder."),
            (["encoder.layers.0.attn.x", "encoder.patch_embed.proj.x"], "encoder."),
            (["net.backbone.levels.0.blocks.0.x", "net.backbone.patch_embed.proj.x"], "net."),
            (["nat.encoder.levels.0.layers.0.x", "nat.embeddings.patch_embeddings.x"], ""),
            (["my.dinat.encoder.levels.0.layers.0.x", "my.dinat.embeddings.patch_embeddings.x"], "my."),
            (["encoder.levels.0.layers.0.x", "embeddings.patch_embeddings.x"], ""),
            (["x.encoder.levels.0.layers.0.x", "x.embeddings.patch_embeddings.x"], "x."),
        ] {
            assert_eq!(all(&names, None), [prefix], "{names:?}");
        }
        let two = [whole("teacher."), whole("student.")].concat();
        let two: Vec<_> = two.iter().map(String::as_str).collect();
        assert_eq!(all(&two, None), ["student.", "teacher."]);
        assert_eq!(all(&two, Some("teacher")), ["teacher."]);
        assert_eq!(
            all(&["a.nat.encoder.levels.0.layers.0.x", "nat.encoder.levels.0.layers.0.x"], Some("a.nat")),
            ["a."]
        );
        let ema = [whole(""), whole("ema_model.")].concat();
        let ema: Vec<_> = ema.iter().map(String::as_str).collect();
        assert_eq!(all(&ema, None), ["ema_model.", ""]);
        // Another transformer is no network of ours.
        let decoder = [&ema[..2], &["transformer.layers.0.attn.qkv.weight"]].concat();
        assert_eq!(all(&decoder, None), [""]);
        assert_eq!(all(&["blocks.0.attn.qkv.weight", "layers.x.attn.a", "levels..blocks."], None), [""; 0]);
    }

    #[test]
    fn what_is_no_part_has_a_reason() {
        for (name, reason) in [
            ("train_acc.tp", Some("a metric's state")),
            ("val_metrics.MulticlassAccuracy.tp", Some("a metric's state")),
            ("criterion.weight", Some("a loss's")),
            ("loss_fn.weight", Some("a loss's")),
            ("text_encoder.layers.0.weight", Some("text encoder")),
            ("logit_scale", Some("text encoder")),
            ("ema_backbone_levels_0_blocks_0_attn_rpb", Some(EMA_BUFFER)),
            ("model_ema.levels0blocks0attnrpb", Some(AVERAGE)),
            ("n_averaged", Some("counter of averaged weights")),
            ("norm.num_batches_tracked", Some("BatchNorm's counter")),
            ("auxiliary_head.conv_seg.weight", Some("auxiliary head, for training only")),
            ("head.weight", None),
            ("heatmap.conv", None),
            ("neck.lateral_convs.0.conv.weight", None),
            ("hidden_states_norms.stage1.weight", None),
        ] {
            assert_eq!(no_part(name), reason, "{name}");
        }
    }
}
