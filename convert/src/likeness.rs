//! Which published networks a checkpoint resembles.

use crate::arch::{Architecture, Head, Norms, Task};
use crate::zoo;

/// Whether a checkpoint of network `a` can be what `b` names: all sizes are equal but the number of
/// classes, and a bare backbone may be of any task.
pub(crate) fn resembles(a: &Architecture, b: &Architecture) -> bool {
    let neutral = |arch: &Architecture| {
        let mut backbone = arch.backbone.clone();
        backbone.dilations.clear();
        backbone.norms = Norms::Absent;
        // Trained anew without a bias it has the same sizes.
        (backbone.rpb, backbone.qkv_bias) = (true, true);
        backbone
    };
    a.head.resembles(&b.head) && neutral(a) == neutral(b)
}

/// Names of the published networks with these sizes. A bare backbone is called as its classifier.
pub(crate) fn looks_like(found: &Architecture) -> Vec<&'static str> {
    let bare = found.head == Head::Features;
    let alike = |entry: &&zoo::Entry| {
        resembles(found, &entry.architecture) && (!bare || entry.task == Task::Classify)
    };
    zoo::entries().iter().filter(alike).map(|entry| entry.name.as_str()).take(3).collect()
}
