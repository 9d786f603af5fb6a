//! What a kind of head is asked.

use crate::arch::backbone::Norms;
use crate::arch::maps::MapSizes;
use crate::arch::module::Inventory;
use crate::arch::shapes::{InferError, ShapeView};
use crate::arch::task::Task;
use crate::limits::Checked;
use crate::openmmlab::HeadReader;
use crate::recipe::Recipe;

/// A kind of heads, whose widths are a `W`: its row in the registry.
pub(crate) struct HeadRow<W> {
    /// What all of the kind have in common.
    pub about: About,
    /// The widths by the tensors of a whole network; `None` where they are those of another kind.
    pub infer: fn(&ShapeView) -> Result<Option<W>, InferError>,
    /// The widths of the published networks of so many classes.
    pub published: fn(usize) -> W,
    /// Whether widths differ in the number of classes alone.
    pub alike: fn(&W, &W) -> bool,
    /// A head with these widths.
    pub head: fn(&W) -> Box<dyn HeadKind + '_>,
}

/// What all heads of a kind have in common.
#[derive(Clone, Copy)]
pub(crate) struct About {
    /// The kind in `weights.toml`.
    pub name: &'static str,
    /// What a network with it is: `detector`.
    pub made: &'static str,
    /// What the network answers.
    pub task: Task,
    /// The norms of the published networks' backbones.
    pub norms: Norms,
    /// What the names of its tensors begin with, where those of the backbone begin with `backbone.`.
    pub prefixes: &'static [&'static str],
    /// The one of these prefixes that tells the task.
    pub sign: Option<&'static str>,
    /// How many levels the backbone has, if not any.
    pub levels: Option<usize>,
    /// What OpenMMLab's configurations say of it.
    pub configuration: Option<HeadReader>,
}

/// A head of some widths.
pub(crate) trait HeadKind {
    /// Outputs for each image, region or position.
    fn outputs(&self) -> usize;

    /// Classes that are told apart.
    fn classes(&self) -> usize {
        self.outputs()
    }

    /// The head as it follows the name of a backbone: ` with UPerNet, …`.
    fn in_words(&self) -> String;

    /// Fails with the first number that nothing can be computed with.
    fn check(&self, recipe: &Recipe) -> Checked;

    /// Puts into a recipe what the widths leave no choice of.
    fn settle(&self, _: &mut Recipe) {}

    /// Fails where tensors, whose first dimension `first` gives, are of other counts than the recipe's: nothing in
    /// them says of what.
    fn explained(&self, _: &Recipe, _: &dyn Fn(&str) -> Option<usize>) -> Checked {
        Ok(())
    }

    /// Walks over the head on a backbone's maps.
    fn walk(&self, recipe: &Recipe, maps: &MapSizes, inventory: &mut Inventory);
}
