//! Pictures of results, and the pixels that they are drawn onto.

use nat_infer::images::draw::{self, DrawnObject, Legend, LegendEntry};
use nat_infer::images::mask::Mask;
use nat_infer::images::{CenterCrop, Limits, Reader, RgbImage};
use nat_infer::nat_convert::arch::{Geometry, Preprocessing};
use nat_infer::pipeline::{Location, Source};
use nat_infer::results::{Rle, Scored};
use nat_infer::tasks::saliency::SaliencyMap;
use nat_infer::zoo::{Access, Env, fetch_image};
use numpy::{IntoPyArray, PyArray3, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::ImageError;
use crate::images::{pixels, source};
use crate::pool::unlocked;

/// An array [H, W, 3].
type PixelArray<'py> = Bound<'py, PyArray3<u8>>;

/// The pixels of a file, as the models see them: turned upright, [H, W, 3].
#[pyfunction]
pub fn read_image<'py>(py: Python<'py>, image: &Bound<'py, PyAny>) -> PyResult<PixelArray<'py>> {
    let source = source("image", image)?;
    let read = || {
        let source = match &source.place {
            Location::Url(address) => {
                let access = Access::new(false, Env::from_process());
                let bytes = fetch_image(address, &access, Limits::default().memory);
                Source::memory(&source.name(), bytes.map_err(|error| format!("{}: {error}", source.name()))?)
            }
            _ => source,
        };
        source.read(&Reader::default()).map_err(|error| error.to_string())
    };
    picture(py, unlocked(py, read).map_err(ImageError::new_err)?)
}

/// A mask of COCO's compressed run lengths as an array [H, W] of bool.
#[pyfunction]
pub fn decode_mask<'py>(py: Python<'py>, size: [usize; 2], counts: String) -> PyResult<Bound<'py, PyAny>> {
    let [height, width] = size;
    let mask = decoded(size, counts)?;
    let pixels = unlocked(py, || mask.whole([width, height]));
    Ok(pixels.into_pyarray(py).reshape([height, width])?.into_any())
}

/// An object: index, label and score, left, top, width and height, and the mask's size and counts.
type ObjectTuple = (usize, String, f32, [f32; 4], Option<([usize; 2], String)>);

/// Objects on their image.
#[pyfunction]
pub fn draw_objects<'py>(
    py: Python<'py>,
    image: &Bound<'py, PyAny>,
    objects: Vec<ObjectTuple>,
    opacity: f32,
) -> PyResult<PixelArray<'py>> {
    let image = pixels(image)?.to_image();
    let masks =
        objects.iter().map(|(.., rle)| rle.clone().map(|(size, counts)| decoded(size, counts)).transpose());
    let masks = masks.collect::<PyResult<Vec<_>>>()?;
    let drawn = unlocked(py, || {
        let objects =
            objects.iter().zip(&masks).map(|((index, label, score, [x, y, w, h], _), mask)| DrawnObject {
                index: *index,
                label,
                score: *score,
                corners: [*x, *y, x + w, y + h],
                mask: mask.as_ref(),
            });
        let objects: Vec<_> = objects.collect();
        draw::objects(image, &objects, opacity)
    });
    picture(py, drawn)
}

/// The classes of an image's pixels [H, W], in `colours`; `shares` are the index, name and part of each in the legend.
#[pyfunction]
pub fn draw_labels<'py>(
    py: Python<'py>,
    image: &Bound<'py, PyAny>,
    labels: PyReadonlyArray2<'py, u8>,
    colours: Vec<[u8; 3]>,
    shares: Vec<(usize, String, f32)>,
    place: &str,
    opacity: f32,
) -> PyResult<PixelArray<'py>> {
    let (image, place) = (pixels(image)?.to_image(), legend(place)?);
    let size = [image.height() as usize, image.width() as usize];
    let classes = labels.as_array().iter().copied().collect::<Vec<u8>>();
    let most =
        shares.iter().map(|(index, ..)| *index).chain(classes.iter().map(|&class| usize::from(class))).max();
    if labels.shape() != size || most.is_some_and(|most| most >= colours.len()) {
        return Err(PyValueError::new_err(format!(
            "labels {:?} are no map of an image {size:?}",
            labels.shape()
        )));
    }
    let drawn = unlocked(py, || {
        let entry = |(index, name, share): &(usize, String, f32)| (colours[*index], name.clone(), *share);
        let entries: Vec<_> = shares.iter().map(entry).collect();
        let entries: Vec<_> = entries
            .iter()
            .map(|(colour, name, share)| LegendEntry { colour: *colour, name, share: *share })
            .collect();
        draw::legend(draw::classes(image, &classes, &colours, opacity), &entries, place)
    });
    picture(py, drawn)
}

/// A saliency map [H, W] over its image, of which the network saw a crop.
#[pyfunction]
pub fn draw_heat<'py>(
    py: Python<'py>,
    image: &Bound<'py, PyAny>,
    map: PyReadonlyArray2<'py, f32>,
    crop_pct: f64,
    class: (usize, String, f32),
    place: &str,
) -> PyResult<PixelArray<'py>> {
    let (image, place) = (pixels(image)?.to_image(), legend(place)?);
    let &[height, width] = map.shape() else { return Err(PyValueError::new_err("a map is an array [H, W]")) };
    let geometry = Geometry::Crop { resolution: width, crop_pct };
    let crop = CenterCrop::new(width, crop_pct, &Preprocessing::imagenet(geometry));
    let crop = crop.map_err(|error| PyValueError::new_err(error.to_string()))?;
    let (index, label, score) = class;
    let values = map.as_array().iter().copied().collect();
    let map = SaliencyMap::new(Scored { index, label, score }, [width, height], values);
    picture(py, unlocked(py, || map.picture(image, &crop, place)))
}

fn legend(place: &str) -> PyResult<Legend> {
    match place {
        "beside" => Ok(Legend::Beside),
        "inside" => Ok(Legend::Inside),
        "off" => Ok(Legend::Off),
        _ => Err(PyValueError::new_err(format!("legend {place:?}: beside, inside and off are possible"))),
    }
}

/// That a mask of this height and width is none of all there is of memory: a few hundred letters can be one.
///
/// # Errors
/// When it is.
pub fn is_in_bounds([height, width]: [usize; 2]) -> PyResult<()> {
    let most = Limits::default().pixels;
    match height.checked_mul(width).is_some_and(|pixels| pixels as u64 <= most) {
        true => Ok(()),
        false => Err(PyValueError::new_err(format!(
            "a mask of {width}x{height} is over the limit of {most} pixels"
        ))),
    }
}

fn decoded(size: [usize; 2], counts: String) -> PyResult<Mask> {
    is_in_bounds(size)?;
    Mask::decode(&Rle { size, counts }).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn picture(py: Python<'_>, image: RgbImage) -> PyResult<PixelArray<'_>> {
    let shape = [image.height() as usize, image.width() as usize, 3];
    image.into_raw().into_pyarray(py).reshape(shape)
}
