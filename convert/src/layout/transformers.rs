//! The names of Hugging Face Transformers.

use super::rule::Rule;

/// Transformers' `modeling_nat.py` and `modeling_dinat.py` to the original names.
pub(super) fn rule(name: &str) -> Rule {
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
