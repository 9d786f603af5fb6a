//! The heads, a row each, and what is asked of one of any kind.

use serde::{Deserialize, Serialize};

use super::classifier::{self, ClassifierWidths};
use super::kind::{About, HeadKind, HeadRow};
use super::mask_rcnn::{self, DetectorWidths};
use super::upernet::{self, UpernetWidths};
use crate::arch::maps::MapSizes;
use crate::arch::module::{Inventory, Scope};
use crate::arch::shapes::{InferError, ShapeView};
use crate::arch::task::Task;
use crate::limits::Checked;
use crate::openmmlab::HeadReader;
use crate::recipe::Recipe;

/// Makes [`Head`] and what has to name every kind.
macro_rules! heads {
    ($($(#[$doc:meta])* $name:ident($widths:ty) = $row:expr;)*) => {
        /// What stands on the backbone.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "network", rename_all = "snake_case")]
        pub enum Head {
            /// Nothing: feature maps are the result.
            Features,
            $($(#[$doc])* $name($widths),)*
        }

        /// The kinds of heads.
        const KINDS: &[About] = &[$($row.about),*];

        impl Head {
            /// What its kind is, and itself.
            fn kind(&self) -> Option<(About, Box<dyn HeadKind + '_>)> {
                match self {
                    Self::Features => None,
                    $(Self::$name(widths) => Some(($row.about, ($row.head)(widths))),)*
                }
            }

            /// Whether a checkpoint of this head can be what `other` names: all widths are equal but the number of
            /// classes, and a bare backbone may be of any.
            pub(crate) fn resembles(&self, other: &Self) -> bool {
                match (self, other) {
                    (Self::Features, _) => true,
                    $((Self::$name(a), Self::$name(b)) => ($row.alike)(a, b),)*
                    _ => false,
                }
            }

            /// The head of the published networks of a kind, as `weights.toml` names it, and so many classes.
            pub(crate) fn published(name: &str, classes: usize) -> Option<Self> {
                $(if $row.about.name == name {
                    return Some(Self::$name(($row.published)(classes)));
                })*
                None
            }

            /// The head that tensors are of. Where they are of several, it is the last kind.
            pub(crate) fn infer(view: &ShapeView) -> Result<Self, InferError> {
                type Read = fn(&ShapeView) -> Result<Option<Head>, InferError>;
                const READ: &[Read] = &[$(|view| {
                    let row: HeadRow<$widths> = $row;
                    Ok((row.infer)(view)?.map(Head::$name))
                }),*];
                for read in READ.iter().rev() {
                    if let Some(head) = read(view)? {
                        return Ok(head);
                    }
                }
                Ok(Self::Features)
            }
        }
    };
}

heads! {
    /// Global average pooling and one linear layer.
    Classifier(ClassifierWidths) = classifier::ROW;
    /// Mask R-CNN (arXiv 1703.06870) with a feature pyramid.
    MaskRcnn(DetectorWidths) = mask_rcnn::MASK_RCNN;
    /// Cascade Mask R-CNN (arXiv 1906.09756): three box and three mask heads.
    CascadeMaskRcnn(DetectorWidths) = mask_rcnn::CASCADE_MASK_RCNN;
    /// UPerNet (arXiv 1807.10221).
    Upernet(UpernetWidths) = upernet::ROW;
}

impl Head {
    /// What the network answers; of a bare backbone `None`.
    pub fn task(&self) -> Option<Task> {
        self.kind().map(|(about, _)| about.task)
    }

    /// What the network answers in one word: a task's name, or `features`.
    pub fn task_name(&self) -> &'static str {
        self.task().map_or("features", Task::name)
    }

    /// Outputs for each image, region or position; of a bare backbone `None`.
    pub fn outputs(&self) -> Option<usize> {
        self.kind().map(|(_, head)| head.outputs())
    }

    /// Classes that the network tells apart: of a segmenter with one output two, of a backbone none.
    pub fn classes(&self) -> Option<usize> {
        self.kind().map(|(_, head)| head.classes())
    }

    /// Where the backbone stands in the whole network: of a classifier and a bare one at the top.
    pub fn backbone_scope(&self) -> Scope {
        let below = self.kind().is_some_and(|(about, _)| !about.prefixes.is_empty());
        if below { Scope::default().at("backbone") } else { Scope::default() }
    }

    /// The head as it follows the name of a backbone.
    pub(crate) fn in_words(&self) -> String {
        self.kind().map_or(" backbone".to_owned(), |(_, head)| head.in_words())
    }

    /// # Errors
    /// The first number that nothing can be computed with.
    pub(crate) fn check(&self, recipe: &Recipe) -> Checked {
        self.kind().map_or(Ok(()), |(_, head)| head.check(recipe))
    }

    /// Puts into a recipe what the head leaves no choice of.
    pub(crate) fn settle(&self, recipe: &mut Recipe) {
        if let Some((_, head)) = self.kind() {
            head.settle(recipe);
        }
    }

    /// Fails where tensors, whose first dimension `first` gives, are of other counts than the recipe's.
    pub(crate) fn explained(&self, recipe: &Recipe, first: &dyn Fn(&str) -> Option<usize>) -> Checked {
        self.kind().map_or(Ok(()), |(_, head)| head.explained(recipe, first))
    }

    /// How many levels the backbone must have, if not any.
    pub(crate) fn levels(&self) -> Option<usize> {
        self.kind().and_then(|(about, _)| about.levels)
    }

    /// What a network with such a head is: `detector`.
    pub(crate) fn made(&self) -> Option<&'static str> {
        self.kind().map(|(about, _)| about.made)
    }

    /// What reads OpenMMLab's configurations of the head.
    pub(crate) fn configuration(&self) -> Option<HeadReader> {
        self.kind().and_then(|(about, _)| about.configuration)
    }

    /// Walks over the head on a backbone's maps.
    pub(crate) fn walk(&self, recipe: &Recipe, maps: &MapSizes, inventory: &mut Inventory) {
        if let Some((_, head)) = self.kind() {
            head.walk(recipe, maps, inventory);
        }
    }
}

/// The kind of heads that `weights.toml` calls so.
pub(crate) fn named(name: &str) -> Option<&'static About> {
    KINDS.iter().find(|about| about.name == name)
}

/// Whether a tensor of this name stands on a backbone whose names begin with `backbone.`.
pub(crate) fn is_head(name: &str) -> bool {
    KINDS.iter().flat_map(|about| about.prefixes).any(|prefix| name.starts_with(prefix))
}

/// The task of the network of which some tensors tell; `has` says whether there are any below a prefix.
pub(crate) fn task_told(has: impl Fn(&str) -> bool) -> Option<Task> {
    KINDS.iter().find(|about| about.sign.is_some_and(&has)).map(|about| about.task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::maps::MapSize;
    use crate::arch::module::count;
    use crate::arch::shapes::Shapes;

    /// What converted files have in their metadata, byte by byte.
    #[test]
    fn heads_are_written_as_ever() {
        let detector = DetectorWidths {
            classes: 5,
            fpn_channels: 24,
            box_convs: 0,
            box_channels: 24,
            box_fcs: 1,
            fc_channels: 36,
            class_agnostic: true,
            stages: 1,
            mask_convs: 2,
            mask_channels: 28,
        };
        let widths = r#""classes":5,"fpn_channels":24,"box_convs":0,"box_channels":24,"box_fcs":1,"fc_channels":36,"class_agnostic":true,"stages":1,"mask_convs":2,"mask_channels":28}"#;
        for (head, json) in [
            (Head::Features, r#"{"network":"features"}"#.to_owned()),
            (
                Head::Classifier(ClassifierWidths { classes: 1000 }),
                r#"{"network":"classifier","classes":1000}"#.to_owned(),
            ),
            (Head::MaskRcnn(detector.clone()), format!(r#"{{"network":"mask_rcnn",{widths}"#)),
            (Head::CascadeMaskRcnn(detector), format!(r#"{{"network":"cascade_mask_rcnn",{widths}"#)),
            (
                Head::Upernet(UpernetWidths { classes: 1, channels: 33 }),
                r#"{"network":"upernet","classes":1,"channels":33}"#.to_owned(),
            ),
        ] {
            assert_eq!(serde_json::to_string(&head).unwrap(), json);
            assert_eq!(serde_json::from_str::<Head>(&json).unwrap(), head);
            // What a newer version may add is passed over.
            let more = json.replacen('{', r#"{"more":[1],"#, 1);
            assert_eq!(serde_json::from_str::<Head>(&more).unwrap(), head);
        }
        let error = serde_json::from_str::<Head>(r#"{"network":"upernet","classes":1}"#).unwrap_err();
        assert_eq!(error.to_string(), "missing field `channels`");
        let error = serde_json::from_str::<Head>(r#"{"network":"detr"}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown variant `detr`, expected one of `features`, `classifier`, `mask_rcnn`, `cascade_mask_rcnn`, \
             `upernet` at line 1 column 17"
        );
    }

    #[test]
    fn every_kind_has_one_name_and_is_told_by_its_own_tensors() {
        for (i, about) in KINDS.iter().enumerate() {
            assert!(KINDS[..i].iter().all(|other| other.name != about.name), "{}", about.name);
            let head = Head::published(about.name, 3).unwrap();
            assert_eq!((head.task(), head.outputs()), (Some(about.task), Some(3)));
            assert_eq!(head.check(&Recipe::default()), Ok(()), "{}", about.name);
            let levels = [8, 16, 32, 64].map(|dim| MapSize { positions: count(0), dim }).to_vec();
            let maps = MapSizes { image: [0; 2], levels };
            let mut inventory = Inventory::default();
            head.walk(&Recipe::default(), &maps, &mut inventory);
            let shapes: Shapes =
                inventory.weights.iter().map(|w| (w.name.as_str(), w.shape.as_slice())).collect();
            assert_eq!(Head::infer(&ShapeView { shapes: &shapes, prefix: "" }), Ok(head));
            let told = task_told(|prefix| shapes.keys().any(|name| name.starts_with(prefix)));
            assert_eq!(told, about.sign.map(|_| about.task));
            assert!(shapes.keys().all(|name| is_head(name) != about.prefixes.is_empty()));
        }
    }
}
