//! What stands on backbones: a file a head, and the rows of all.

mod classifier;
mod kind;
mod mask_rcnn;
mod registry;
mod upernet;

pub use classifier::ClassifierWidths;
pub use mask_rcnn::{
    BOX_SIDE, BoxHeadSpec, DetectorSpec, DetectorWidths, FpnSpec, MASK_SIDE, MaskHeadSpec, RpnSpec,
};
pub use registry::Head;
pub(crate) use registry::{is_head, named, task_told};
pub use upernet::{UpernetSpec, UpernetWidths};
