//! Everything that opening and converting a checkpoint can fail with: one line each.

use std::fmt;
use std::path::PathBuf;

use crate::arch::DilationsError;
use crate::source::StoreError;
use crate::zoo::UnknownModel;

/// Why a checkpoint could not be opened or converted: what, which file, what to do. The file of a checkpoint in memory
/// is the name that its bytes were given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The file can't be read, is no checkpoint, or is damaged.
    #[error(transparent)]
    Source(#[from] StoreError),
    /// The operating system refused something else than reading the checkpoint.
    #[error("{}: {action}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The object in the file holds no tensors where they are looked for.
    #[error("{}: {reason}", path.display())]
    NoStateDict {
        /// The file.
        path: PathBuf,
        /// What it holds instead, and what to do.
        reason: String,
        /// The keys under which it has tensors all the same, for
        /// [`Options::weights_key`](crate::checkpoint::Options::weights_key).
        keys: Vec<String>,
    },
    /// The tensors are not those of a neighborhood attention transformer.
    #[error("{}: not a NAT or DiNAT checkpoint: {found}", path.display())]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// The tensors are such a network's, but one that its sizes are read off is missing or odd.
    #[error("{}: the network's sizes can't be told: {reason}", path.display())]
    Unclear {
        /// The file.
        path: PathBuf,
        /// Which tensor, and what is wrong with it.
        reason: String,
    },
    /// The network's sizes can't be told from the tensors that can be read, as others can't.
    #[error("{}: {mismatch}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The tensors that can't be read.
        mismatch: Box<Mismatch>,
    },
    /// Tensors are missing, unknown or of the wrong shape.
    #[error("{}: the tensors are not those of a {network}: {mismatch}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The network that the majority of the tensors make, in words.
        network: String,
        /// Everything that does not fit.
        mismatch: Box<Mismatch>,
    },
    /// The named architecture is not the checkpoint's.
    #[error("{}: not `{name}` but {found}", path.display())]
    Arch {
        /// The file.
        path: PathBuf,
        /// The name that was given.
        name: String,
        /// What the checkpoint looks like.
        found: String,
    },
    /// There is no architecture of that name.
    #[error(transparent)]
    UnknownArch(#[from] UnknownModel),
    /// Dilations do not fit the network.
    #[error("{}: {error}", path.display())]
    Dilations {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        error: DilationsError,
    },
    /// A file beside the weights, or the metadata inside, can't be used.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no tensor of that name.
    #[error("no tensor `{0}` in the checkpoint")]
    NoTensor(String),
    /// The target is there already.
    #[error("{} exists", .0.display())]
    Exists(PathBuf),
    /// The target can't be a converted file.
    #[error("{}: {reason}", path.display())]
    Target {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// A value does not fit into the type that was asked for.
    #[error("tensor `{tensor}` has values beyond the range of f16")]
    Range {
        /// The tensor.
        tensor: String,
    },
    /// What was written is not what was read back.
    #[error("{}: tensor `{tensor}` reads back different from what was written; the disk may be failing", path.display())]
    Compare {
        /// The file that was written (and removed).
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The user stopped it.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

/// How a checkpoint's tensors differ from those of the network that they resemble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// Tensors that the network has and the file has not, under their canonical names.
    pub missing: Vec<String>,
    /// Tensors that the file has and the network has not, the first ones with the nearest name that it has.
    pub unknown: Vec<(String, Option<String>)>,
    /// Name, shape in the file, shape in the network.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors that are there and can't be used.
    pub unusable: Vec<Unusable>,
}

/// A tensor that is there and can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unusable {
    /// Its name in the file.
    pub name: String,
    /// What it is instead of a tensor of floats, as several of them are called.
    pub what: String,
    /// What to do.
    pub advice: &'static str,
}

impl Mismatch {
    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unknown.is_empty()
            && self.shapes.is_empty()
            && self.unusable.is_empty()
    }

    /// Whether all that the network needs is there, and the file has more.
    pub fn is_only_unknown(&self) -> bool {
        let Self { missing, unknown, shapes, unusable } = self;
        !unknown.is_empty() && missing.is_empty() && shapes.is_empty() && unusable.is_empty()
    }
}

/// How many items of each kind a message lists; the fields have them all.
pub(crate) const LISTED: usize = 5;

/// How many names stand for all tensors of a kind that can't be used.
const EXAMPLES: usize = 2;

/// Tensors that can't be used, by kind.
fn unusable(all: &[Unusable]) -> Vec<String> {
    let mut kinds: Vec<(&Unusable, Vec<&str>)> = Vec::new();
    for one in all {
        let same = |kind: &&mut (&Unusable, _)| kind.0.what == one.what && kind.0.advice == one.advice;
        match kinds.iter_mut().find(same) {
            Some((_, names)) => names.push(&one.name),
            None => kinds.push((one, vec![&one.name])),
        }
    }
    let in_words = |(kind, names): (&Unusable, Vec<&str>)| {
        let first: Vec<_> = names.iter().take(EXAMPLES).map(|name| quoted(name)).collect();
        let more = names.len() - first.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{} ({}{more}): {}", kind.what, first.join(", "), kind.advice)
    };
    kinds.into_iter().map(in_words).collect()
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut part = |what: &str, items: Vec<String>| {
            if !items.is_empty() {
                let more = items.len().saturating_sub(LISTED);
                let listed = items[..items.len() - more].join(", ");
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                parts.push(format!("{} {what}: {listed}{more}", items.len()));
            }
        };
        part("missing", self.missing.iter().map(|n| quoted(n)).collect());
        let unknown = |(name, nearest): &(String, Option<String>)| match nearest {
            Some(nearest) => format!("{} (nearest: {})", quoted(name), quoted(nearest)),
            None => quoted(name),
        };
        part("unknown", self.unknown.iter().map(unknown).collect());
        let shape = |(name, got, expected): &(String, Vec<usize>, Vec<usize>)| {
            format!("{} is {got:?}, expected {expected:?}", quoted(name))
        };
        part("of the wrong shape", self.shapes.iter().map(shape).collect());
        if !self.unusable.is_empty() {
            let count = self.unusable.len();
            let tensors = if count == 1 { "tensor" } else { "tensors" };
            parts.push(format!("{count} {tensors} can't be read: {}", unusable(&self.unusable).join(", ")));
        }
        f.write_str(&parts.join("; "))
    }
}

/// A name out of a file as it may stand in a message: quoted, on one line, and short.
pub(crate) fn quoted(name: &str) -> String {
    const LONGEST: usize = 120;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", name[..end].escape_debug()),
        None => format!("`{}`", name.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_is_one_line_that_counts_everything_and_lists_the_first() {
        let names = |n: usize| (0..n).map(|i| format!("t{i}")).collect::<Vec<_>>();
        let mismatch = Mismatch {
            missing: names(7),
            unknown: vec![("heat".into(), Some("head".into())), ("x\ny".into(), None)],
            shapes: vec![("head.weight".into(), vec![10, 4], vec![10, 8])],
            unusable: [
                ("a", "sparse tensors"),
                ("b", "numpy arrays"),
                ("c", "sparse tensors"),
                ("d", "sparse tensors"),
            ]
            .map(|(name, what)| Unusable { name: name.into(), what: what.into(), advice: "save others" })
            .to_vec(),
        };
        assert_eq!(
            mismatch.to_string(),
            "7 missing: `t0`, `t1`, `t2`, `t3`, `t4` and 2 more; \
             2 unknown: `heat` (nearest: `head`), `x\\ny`; \
             1 of the wrong shape: `head.weight` is [10, 4], expected [10, 8]; \
             4 tensors can't be read: sparse tensors (`a`, `c` and 1 more): save others, numpy arrays (`b`): save others"
        );
        assert!(!mismatch.is_empty() && Mismatch::default().is_empty());
    }
}
