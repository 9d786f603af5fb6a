//! What a family of backbones is asked.

use crate::arch::backbone::{BackboneConfig, Family};
use crate::arch::maps::MapSizes;
use crate::arch::module::{Inventory, Scope};
use crate::arch::shapes::{InferError, ShapeView};
use crate::recipe::Recipe;

/// A family of backbones: its names, its tensors, and how it is told by them.
pub(crate) trait FamilyKind: Sync {
    /// What the family is called among others.
    fn name(&self) -> &'static str;

    /// What one of the family is called that is dilated, or is not; of `None` it is not known.
    fn called(&self, dilated: Option<bool>) -> &'static str;

    /// Side in pixels of the patches of the published networks.
    fn patch_size(&self) -> usize;

    /// Positions of a side of the first map, for so many pixels.
    fn first_side(&self, pixels: usize, patch_size: usize) -> usize {
        pixels.div_ceil(patch_size)
    }

    /// Whether attention is over the whole map, of one side only.
    fn attends_whole_map(&self) -> bool {
        false
    }

    /// The family that has the same tensors, and whose attention is over the whole map.
    fn over_whole_map(&self) -> Option<Family> {
        None
    }

    /// What a tensor's name begins with before and after the number of a level, or of a block where there are
    /// no levels.
    fn anchor(&self) -> (&'static str, &'static str);

    /// Whether tensors are those of this family.
    fn is_of(&self, view: &ShapeView) -> bool;

    /// Channels of the first level, and the side of a patch in pixels.
    ///
    /// # Errors
    /// When the tensor that says it is missing, or odd.
    fn embedding(&self, view: &ShapeView) -> Result<(usize, usize), InferError>;

    /// How many levels there are.
    ///
    /// # Errors
    /// When one has too large a number.
    fn levels(&self, view: &ShapeView) -> Result<usize, InferError>;

    /// Where the numbered blocks of a level stand in the backbone at `scope`.
    fn blocks(&self, scope: &Scope, level: usize) -> Scope;

    /// Walks over the backbone at `scope`, without the norms that follow its levels.
    fn walk(
        &self,
        config: &BackboneConfig,
        recipe: &Recipe,
        scope: &Scope,
        maps: &MapSizes,
        inventory: &mut Inventory,
    );
}
