//! What gives other networks away.

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
    use super::*;

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
