//! What was found on images, as datasets that tools for labelling and training read: COCO, YOLO, Pascal VOC, labelme and Label
//! Studio.
//!
//! A [`Dataset`] is a folder. It takes one image after the other and is whole when it is finished; what it has until then is in
//! the folder too, so that a run that is killed goes on.
//!
//! Masks become polygons ([`crate::images::outline`]), in the form that each format's own reader fills: what it reads is the mask
//! to the pixel, holes included.

mod coco;
mod dataset;
mod error;
mod journal;
mod label_studio;
mod labelled;
mod labelme;
mod voc;
mod yolo;

pub use dataset::{Dataset, DatasetPlan, ExportFormat};
pub use error::ExportError;
pub use label_studio::{LabelStudioTask, label_studio_task};
pub use labelled::{
    ExportClass, ImageLabels, ImagePlace, Labelled, LabelledObject, LabelledWith, of_detections,
};
