//! Architecture out of names and shapes.
//!
//! [`architecture`] reads sizes off the few tensors that tell them and believes the rest;
//! [`compare`] then holds every tensor against the network that follows. Dilations are in no
//! tensor: they are 1 here.

use std::collections::{BTreeMap, BTreeSet};

use crate::arch::shapes::{InferError, MAX_DIM, ShapeView, Shapes};
use crate::arch::{Architecture, BackboneConfig, Family, Head, Norms, Scope};
use crate::error::{LISTED, Mismatch};
use crate::layout::{Canonical, Mapped, OUTSIDE};
use crate::recipe::Recipe;

/// More than any network has. Files can claim anything, and products of these stay far from overflowing.
const MAX_LEVELS: usize = 8;
const MAX_BLOCKS: usize = 1 << 10;
const MAX_KERNEL: usize = 1 << 12;

/// What is said beside the tensors about what is in no tensor of a network without position bias.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    /// Attention heads of each level.
    pub num_heads: Option<Vec<usize>>,
    /// Side of a neighborhood.
    pub kernel_size: Option<usize>,
}

impl Hints {
    /// What these leave open, the others say.
    pub fn or(self, others: Hints) -> Hints {
        Hints {
            num_heads: self.num_heads.or(others.num_heads),
            kernel_size: self.kernel_size.or(others.kernel_size),
        }
    }
}

/// The network that has these tensors. `index_buffers` says that the file had position indices,
/// which only attention over the whole map has; `hints` are asked for what no tensor tells.
pub(crate) fn architecture(
    shapes: &Shapes,
    index_buffers: bool,
    hints: &Hints,
) -> Result<Architecture, InferError> {
    let prefix = if shapes.keys().any(|name| name.starts_with("backbone.")) { "backbone." } else { "" };
    let view = ShapeView { shapes, prefix };
    let backbone = backbone(&view, index_buffers, hints)?;
    let head = Head::infer(&ShapeView { prefix: "", ..view })?;
    let levels = backbone.depths.len();
    if let (Some(run), Some(made)) = (head.levels().filter(|&run| run != levels), head.made()) {
        return Err(InferError::Unclear(format!(
            "a {made} on a backbone of {levels} levels; those of {run} are run"
        )));
    }
    Ok(Architecture { backbone, head, recipe: Recipe::default() })
}

fn backbone(view: &ShapeView, index_buffers: bool, hints: &Hints) -> Result<BackboneConfig, InferError> {
    let family = Family::ALL.into_iter().find(|family| family.kind().is_of(view));
    let family = family.ok_or(InferError::OtherNetwork)?;
    let kind = family.kind();
    let (embed_dim, patch_size) = kind.embedding(view)?;
    let levels = kind.levels(view)?;
    if levels > MAX_LEVELS {
        return Err(InferError::Unclear(format!("{levels} levels")));
    }
    let blocks = |level: usize| format!("{}.", kind.blocks(&Scope::default(), level));
    let depths = (0..levels).map(|l| view.count(&blocks(l), "")).collect::<Result<Vec<_>, _>>()?;
    if let Some(level) = depths.iter().position(|&depth| depth == 0) {
        return Err(InferError::Unclear(format!("level {level} has no blocks")));
    }
    if let Some(depth) = depths.iter().find(|&&depth| depth > MAX_BLOCKS) {
        return Err(InferError::Unclear(format!("a level of {depth} blocks")));
    }
    let ends = |tail: &str| view.below(kind.anchor().0).any(|rest| rest.ends_with(tail));
    let rpb = ends(".attn.rpb");
    let (num_heads, kernel_size) = match rpb {
        true => biased(view, (0..levels).map(&blocks))?,
        false => hinted(hints, levels)?,
    };
    let dims = (0..levels).map(|level| embed_dim << level);
    let odd = |&(_, (dim, heads)): &(usize, (usize, &usize))| !dim.is_multiple_of(*heads);
    if let Some((level, (dim, heads))) = dims.zip(&num_heads).enumerate().find(odd) {
        return Err(InferError::Unclear(format!(
            "{heads} heads do not divide the {dim} channels of level {level}"
        )));
    }
    if kind.over_whole_map().is_none() && kernel_size.is_multiple_of(2) {
        return Err(InferError::Unclear(format!("kernel size {kernel_size} is even, which has no middle")));
    }
    let fc1 = format!("{}0.mlp.fc1.weight", blocks(0));
    let global = index_buffers || kernel_size % 2 == 0;
    Ok(BackboneConfig {
        family: kind.over_whole_map().filter(|_| global).unwrap_or(family),
        embed_dim,
        patch_size,
        num_heads,
        kernel_size,
        mlp_ratio: view.dim(&fc1, 0)? as f64 / embed_dim as f64,
        dilations: depths.iter().map(|&depth| vec![1; depth]).collect(),
        depths,
        layer_scale: ends(".gamma1") || ends(".gamma2"),
        rpb,
        // Where some blocks have it, the comparison names those that have not.
        qkv_bias: ends(".attn.qkv.bias"),
        norms: if view.has("norm.") {
            Norms::Final
        } else if view.count("norm", "")? > 0 {
            Norms::Outputs
        } else {
            Norms::Absent
        },
    })
}

/// The heads of each level and the kernel size by the tables of the position bias, below these stems.
fn biased(view: &ShapeView, levels: impl Iterator<Item = String>) -> Result<(Vec<usize>, usize), InferError> {
    let mut num_heads = Vec::new();
    let mut sides = BTreeMap::<usize, usize>::new();
    for (level, stem) in levels.enumerate() {
        let tables: Vec<_> = view.below(&stem).filter(|rest| rest.ends_with(".attn.rpb")).collect();
        let Some(first) = tables.first() else {
            let what = "has no relative position bias, and others have";
            return Err(InferError::Unclear(format!("level {level} {what}")));
        };
        num_heads.push(view.dim(&format!("{stem}{first}"), 0)?);
        for table in tables {
            *sides.entry(view.dim(&format!("{stem}{table}"), 1)?).or_default() += 1;
        }
    }
    // Where tables differ, the comparison names those that are off: the fewer ones.
    let side = sides.into_iter().max_by_key(|&(_, count)| count).map_or(1, |(side, _)| side);
    Ok((num_heads, side.div_ceil(2)))
}

/// The heads of each level and the kernel size by what is said beside the tensors.
fn hinted(hints: &Hints, levels: usize) -> Result<(Vec<usize>, usize), InferError> {
    let Hints { num_heads: Some(num_heads), kernel_size: Some(kernel_size) } = hints else {
        let missing = match (&hints.num_heads, hints.kernel_size) {
            (None, None) => "attention heads and kernel size are",
            (None, _) => "attention heads are",
            _ => "the kernel size is",
        };
        return Err(InferError::Unclear(format!(
            "there is no relative position bias (`attn.rpb`), so {missing} in no tensor; `arch` or a config.json \
             beside the weights (num_heads, kernel_size) says them"
        )));
    };
    let usable = |heads: &usize| (1..=MAX_DIM).contains(heads);
    if num_heads.len() != levels || !num_heads.iter().all(usable) || !(1..=MAX_KERNEL).contains(kernel_size) {
        return Err(InferError::Unclear(format!(
            "heads {num_heads:?} and kernel size {kernel_size}, as they are said beside the tensors, are not those of \
             a network of {levels} levels"
        )));
    }
    Ok((num_heads.clone(), *kernel_size))
}

/// Holds every tensor against the network's: what is missing, unknown, of the wrong shape, or can't be used.
pub(crate) fn compare(architecture: &Architecture, mapped: &Mapped) -> Mismatch {
    let tensors: &BTreeMap<String, Canonical> = &mapped.tensors;
    let there: BTreeSet<&String> = mapped.unusable.iter().flat_map(|(_, names)| names).collect();
    let expected: BTreeMap<String, Vec<usize>> = architecture.tensors().into_iter().collect();
    let mut mismatch = Mismatch::default();
    for (name, shape) in &expected {
        match tensors.get(name) {
            None if there.contains(name) => {}
            None => mismatch.missing.push(name.clone()),
            Some(tensor) if tensor.shape != *shape => {
                mismatch.shapes.push((name.clone(), tensor.shape.clone(), shape.clone()));
            }
            Some(_) => {}
        }
    }
    for (name, tensor) in tensors.iter().filter(|(name, _)| !expected.contains_key(*name)) {
        // A misspelt name is nearest to one that is missing, so those are looked at first. More than a message
        // lists are not looked for: it takes a while.
        let near = || nearest(name, mismatch.missing.iter()).or_else(|| nearest(name, expected.keys()));
        let near = if mismatch.unknown.len() < LISTED { near() } else { None };
        mismatch.unknown.push((tensor.from.clone(), near));
    }
    // What was left out for its prefix alone may be what is missing, misspelt.
    if !mismatch.missing.is_empty() {
        let outside = mapped.dropped.iter().filter(|dropped| dropped.reason == OUTSIDE).take(MAX_OUTSIDE);
        for dropped in outside {
            if mismatch.unknown.len() < LISTED
                && let Some(near) = nearest(&dropped.name, mismatch.missing.iter())
            {
                mismatch.unknown.push((dropped.name.clone(), Some(near)));
            }
        }
    }
    mismatch.unusable = mapped.unusable.iter().map(|(unusable, _)| unusable.clone()).collect();
    mismatch
}

/// Most tensors beside a network that are held against what it misses.
const MAX_OUTSIDE: usize = 16;

/// Most names that one is compared with, and most of each name's bytes that are looked at: files claim anything.
const MAX_COMPARED: usize = 1 << 12;
const MAX_NAME: usize = 96;

/// The most similar name, if one is similar at all.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> Option<String> {
    const SIMILAR: f64 = 0.6;
    let name = beginning(name);
    // Names of very different lengths can't be similar.
    let (shortest, longest) = (name.len() as f64 * SIMILAR, name.len() as f64 / SIMILAR);
    let possible = |other: &&String| (shortest..=longest).contains(&(beginning(other).len() as f64));
    let score = |other: &'a String| (strsim::normalized_levenshtein(name, beginning(other)), other);
    let scored = names.take(MAX_COMPARED).filter(possible).map(score);
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 > SIMILAR).then(|| best.1.clone())
}

/// As much of a name as is compared.
fn beginning(name: &str) -> &str {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}
