//! Results as pictures, drawn onto the image that they are about.

use image::RgbImage;

use super::Segment;
use super::detect::Object;
use super::saliency::SaliencyMap;
use super::segment::LabelMap;
use crate::images::CenterCrop;
use crate::images::draw::{self, Legend};
use crate::images::mask::Mask;
use crate::results::{ClassShare, Detection};

/// How found objects are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct DetectPicture {
    /// Objects are drawn when their probability is more than this.
    pub threshold: f32,
    /// How much of a mask's colour its pixels take, 0 to 1.
    pub opacity: f32,
}

impl Default for DetectPicture {
    /// Objects of more than 0.3, half through.
    fn default() -> Self {
        Self { threshold: 0.3, opacity: 0.5 }
    }
}

impl DetectPicture {
    /// An image with its objects drawn onto it, small images enlarged by a whole factor.
    pub fn draw(&self, image: RgbImage, objects: &[Object]) -> RgbImage {
        let drawn = objects.iter().filter(|object| object.detection.score > self.threshold);
        let drawn: Vec<(&Detection, Option<Mask>)> =
            drawn.map(|object| (&object.detection, object.mask())).collect();
        let drawn: Vec<draw::DrawnObject> = drawn
            .iter()
            .map(|(detection, mask)| {
                let [x, y, w, h] = detection.bbox;
                draw::DrawnObject {
                    index: detection.index,
                    label: &detection.label,
                    score: detection.score,
                    corners: [x, y, x + w, y + h],
                    mask: mask.as_ref(),
                }
            })
            .collect();
        draw::objects(image, &drawn, self.opacity)
    }
}

/// How a label map is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SegmentPicture {
    /// Where the names of the classes stand.
    pub legend: Legend,
    /// How much of its class's colour a pixel takes, 0 to 1.
    pub opacity: f32,
}

impl Default for SegmentPicture {
    /// A legend beside the picture, half through.
    fn default() -> Self {
        Self { legend: Legend::Beside, opacity: 0.5 }
    }
}

impl Segment {
    /// An image with its label map drawn onto it, small images enlarged by a whole factor, with a legend of its classes,
    /// largest first.
    pub fn picture(
        &self,
        image: RgbImage,
        map: &LabelMap,
        shares: &[ClassShare],
        style: &SegmentPicture,
    ) -> RgbImage {
        let colours = self.colours();
        let entry = |share: &ClassShare| draw::LegendEntry {
            colour: colours[share.index],
            name: &self.labels()[share.index],
            share: share.fraction as f32,
        };
        let entries: Vec<_> = shares.iter().map(entry).collect();
        let image = draw::classes(image, &map.classes, &colours, style.opacity);
        draw::legend(image, &entries, style.legend)
    }
}

impl SaliencyMap {
    /// The map over the image that it is of: small images enlarged, what the network did not see darkened. Beside it stands, or
    /// inside, the class that the map is about, its probability and a bar of the map's colours.
    pub fn picture(&self, image: RgbImage, crop: &CenterCrop, legend: Legend) -> RgbImage {
        let mut picture = draw::canvas(image);
        let region = crop.region([picture.width() as usize, picture.height() as usize]);
        draw::heat(&mut picture, &self.values, self.size, &region);
        draw::caption(picture, &self.class.label, self.class.score, legend)
    }
}
