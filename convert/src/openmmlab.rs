//! What mmdetection and mmsegmentation save beside the weights: class names, and the training
//! configuration as Python text, of which only literal numbers are read.

use crate::layout::{get, text};
use crate::source::Value;

/// The `meta` of an OpenMMLab checkpoint.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Meta {
    /// `CLASSES`.
    pub classes: Option<Vec<String>>,
    /// The backbone's `dilations`; for a backbone of `type='NAT'`, which takes none, empty.
    pub dilations: Option<Vec<Vec<usize>>>,
    /// The test pipeline's `img_scale`, the long side first.
    pub scale: Option<[usize; 2]>,
}

impl Meta {
    /// Reads the `meta` beside a state dict.
    pub fn of(root: &Value) -> Option<Self> {
        let meta = get(root, "meta")?;
        let classes = get(meta, "CLASSES").and_then(|classes| match classes {
            Value::List(list) => list.iter().map(|c| text(c).map(|c| c.trim().to_owned())).collect(),
            _ => None,
        });
        let config = get(meta, "config").and_then(text).unwrap_or_default();
        Some(Self { classes, dilations: dilations(config), scale: scale(config) })
    }
}

fn dilations(config: &str) -> Option<Vec<Vec<usize>>> {
    let (_, backbone) = config.split_once("backbone=dict(")?;
    // Up to the next part of the model: nothing in a backbone is called like this.
    let backbone = backbone.split("neck=").next()?.split("decode_head=").next()?;
    if let Some((_, list)) = backbone.split_once("dilations=") {
        return lists(list);
    }
    backbone.contains("type='NAT'").then(Vec::new)
}

/// The outer size of the last test pipeline, which is the one that `data.test` uses.
fn scale(config: &str) -> Option<[usize; 2]> {
    let (_, pipeline) = config.rsplit_once("type='MultiScaleFlipAug'")?;
    let (_, sizes) = pipeline.split_once("img_scale=(")?;
    let (sizes, _) = sizes.split_once(')')?;
    let (a, b) = sizes.split_once(',')?;
    let (a, b): (usize, usize) = (a.trim().parse().ok()?, b.trim().parse().ok()?);
    let usable = |side: usize| (1..=1 << 16).contains(&side);
    (usable(a) && usable(b)).then_some([a.max(b), a.min(b)])
}

/// A list of lists of numbers, as Python writes it, that `text` begins with.
fn lists(text: &str) -> Option<Vec<Vec<usize>>> {
    let mut rest = text.trim_start().strip_prefix('[')?.trim_start();
    let mut all = Vec::new();
    while let Some(inner) = rest.strip_prefix('[') {
        let (numbers, after) = inner.split_once(']')?;
        let numbers = numbers.split(',').map(str::trim).filter(|n| !n.is_empty());
        all.push(numbers.map(|n| n.parse().ok()).collect::<Option<Vec<_>>>()?);
        rest = after.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    rest.starts_with(']').then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dilations_are_read_only_where_they_are_literal_numbers() {
        let cases: [(&str, Option<Vec<Vec<usize>>>); 8] = [
            ("dilations=[[1, 28], [7]]", Some(vec![vec![1, 28], vec![7]])),
            ("dilations=[\n  [1,\n 2, ],\n [3]\n ], k=7", Some(vec![vec![1, 2], vec![3]])),
            ("type='NAT', depths=[1]", Some(vec![])),
            ("type='DiNAT', depths=[1]", None),
            ("dilations=[[1]*3, [2]]", None),
            ("dilations=DILATIONS", None),
            ("dilations=[[1, 2], [3", None),
            ("neck=dict(dilations=[[4]])", None),
        ];
        for (text, expected) in cases {
            assert_eq!(dilations(&format!("model = dict(backbone=dict({text})")), expected, "{text}");
        }
        assert_eq!(dilations("dilations=[[1]]"), None);
    }

    #[test]
    fn the_last_test_pipeline_gives_the_scale() {
        let pipeline = |size: &str| format!("dict(type='MultiScaleFlipAug',\n img_scale={size},");
        let both = pipeline("(1333, 800)") + &pipeline("(281,450)");
        assert_eq!(scale(&both), Some([450, 281]));
        for bad in ["[(1333, 800)]", "(0, 5)", "(1, 2, 3)", "(-1, 2)", "(a, b)"] {
            assert_eq!(scale(&pipeline(bad)), None, "{bad}");
        }
    }
}
