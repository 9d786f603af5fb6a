//! What several heads are made of.

use super::place::{ConfigPlace, Findings};
use crate::recipe::Recipe;

/// The epsilon of a part's `norm_cfg`, which is BatchNorm.
pub(super) fn norm(place: &ConfigPlace, recipe: &mut Recipe, findings: &mut Findings) {
    let norm = place.key("norm_cfg");
    findings.expect_kind(&norm, &["BN", "BN2d", "SyncBN", "MMSyncBN", "naiveSyncBN", "BatchNorm2d"]);
    findings.number(&norm.key("eps"), 1e-12..=1.0, &mut recipe.batch_norm_epsilon);
    findings.rest(&norm, &["type", "eps", "requires_grad", "momentum"]);
}

/// ReLU, which is what a part has that says nothing.
pub(super) fn activation(place: &ConfigPlace, findings: &mut Findings) {
    findings.expect_kind(&place.key("act_cfg"), &["ReLU"]);
}

/// Convolutions without a kind of their own.
pub(super) fn plain_convolutions(place: &ConfigPlace, findings: &mut Findings) {
    findings.expect_kind(&place.key("conv_cfg"), &["Conv2d", "Conv"]);
}
