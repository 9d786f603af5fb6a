//! Classifiers: global average pooling and one linear layer.

use serde::{Deserialize, Serialize};

use super::kind::{About, HeadKind, HeadRow};
use crate::arch::backbone::Norms;
use crate::arch::maps::MapSizes;
use crate::arch::module::{Inventory, LinearSpec, Scope, count};
use crate::arch::shapes::{InferError, ShapeView};
use crate::arch::task::Task;
use crate::limits::{Checked, MAX_CLASSES, at_least_one};
use crate::recipe::{Recipe, Scores};

/// Widths of a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassifierWidths {
    /// Outputs of the linear layer.
    pub classes: usize,
}

/// The linear layer's name.
const NAME: &str = "head";

impl ClassifierWidths {
    /// The linear layer behind a backbone of `dim` channels.
    pub fn spec(&self, dim: usize) -> LinearSpec {
        LinearSpec::new(&Scope::default().at(NAME), dim, self.classes, true)
    }
}

pub(crate) const ROW: HeadRow<ClassifierWidths> = HeadRow {
    about: About {
        name: "classifier",
        made: "classifier",
        task: Task::Classify,
        norms: Norms::Final,
        prefixes: &[],
        sign: None,
        levels: None,
        configuration: None,
    },
    infer,
    published: |classes| ClassifierWidths { classes },
    alike: |_, _| true,
    head: |widths| Box::new(*widths),
};

fn infer(view: &ShapeView) -> Result<Option<ClassifierWidths>, InferError> {
    // Anything else below the name is none of ours, and the comparison says so.
    for name in ["weight", "bias"].map(|part| format!("{NAME}.{part}")) {
        if view.shape(&name).is_some() {
            return Ok(Some(ClassifierWidths { classes: view.dim(&name, 0)? }));
        }
    }
    Ok(None)
}

impl HeadKind for ClassifierWidths {
    fn outputs(&self) -> usize {
        self.classes
    }

    fn in_words(&self) -> String {
        format!(" classifier of {} classes", self.classes)
    }

    fn check(&self, _: &Recipe) -> Checked {
        at_least_one("classes", self.classes, MAX_CLASSES)
    }

    fn settle(&self, recipe: &mut Recipe) {
        if self.classes == 1 {
            // The probability of the one class; among one, softmax says 1 whatever the image.
            recipe.scores = Scores::Sigmoid;
        }
    }

    fn walk(&self, _: &Recipe, maps: &MapSizes, inventory: &mut Inventory) {
        let dim = maps.levels.last().map_or(0, |map| map.dim);
        self.spec(dim).walk(count(1), inventory);
    }
}
