//! COCO's kinds of JSON: annotations of a dataset, lists of what was found on its images, panoptic ones of both.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use hotcoco::Segmentation;
use hotcoco::panoptic::PanopticAnnotation;
use serde::de::{DeserializeOwned, Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use super::DatasetError;
use super::read::whole_file;
use crate::digest::hex;

/// An image of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CocoImage {
    /// Its number in the annotations.
    #[serde(deserialize_with = "whole")]
    pub id: u64,
    /// Its file, in the folder of the dataset's images.
    #[serde(default)]
    pub file_name: String,
    /// Width in pixels; 0 where the annotations don't say.
    #[serde(default, deserialize_with = "side")]
    pub width: u32,
    /// Height in pixels; 0 where the annotations don't say.
    #[serde(default, deserialize_with = "side")]
    pub height: u32,
}

/// A category of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CocoCategory {
    /// Its number in the annotations.
    #[serde(deserialize_with = "whole")]
    pub id: u64,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// What is read of a file of annotations.
#[derive(Debug, Default, Deserialize)]
pub struct AnnotationFile {
    #[serde(default)]
    pub images: Vec<CocoImage>,
    #[serde(default)]
    pub annotations: Vec<TruthRecord>,
    #[serde(default)]
    pub categories: Vec<CocoCategory>,
}

/// An object of a dataset, or what stands in its place in files of other kinds.
#[derive(Debug, Deserialize)]
pub struct TruthRecord {
    #[serde(deserialize_with = "whole")]
    pub image_id: u64,
    #[serde(default, deserialize_with = "maybe_whole")]
    pub category_id: Option<u64>,
    #[serde(default)]
    pub bbox: Option<[f64; 4]>,
    #[serde(default)]
    pub area: Option<f64>,
    #[serde(default)]
    pub segmentation: Option<Segmentation>,
    #[serde(default, deserialize_with = "maybe_whole")]
    pub iscrowd: Option<u64>,
    /// Only panoptic annotations have it.
    #[serde(default)]
    pub segments_info: Option<IgnoredAny>,
}

/// An element of COCO's list of results, or a record of `detect`.
#[derive(Debug, Default, Deserialize)]
pub struct ResultRecord {
    #[serde(default, deserialize_with = "maybe_whole")]
    pub image_id: Option<u64>,
    #[serde(default, deserialize_with = "maybe_whole")]
    pub category_id: Option<u64>,
    #[serde(default)]
    pub bbox: Option<[f64; 4]>,
    #[serde(default)]
    pub score: Option<f64>,
    #[serde(default)]
    pub segmentation: Option<Segmentation>,
    /// The image by its name, in a record of `detect`.
    #[serde(default, deserialize_with = "text")]
    pub image: Option<String>,
    /// The objects, in a record of `detect`.
    #[serde(default)]
    pub detections: Option<Vec<ResultRecord>>,
    /// The class by its name, of an object in a record of `detect`.
    #[serde(default, deserialize_with = "text")]
    pub label: Option<String>,
    /// The class by its place among the model's, of an object in a record of `detect`.
    #[serde(default, deserialize_with = "maybe_whole")]
    pub index: Option<u64>,
    /// Only annotations have it, which are no results.
    #[serde(default)]
    pub annotations: Option<IgnoredAny>,
}

/// What is read of a panoptic file, of a dataset or of predictions.
#[derive(Debug, Default, Deserialize)]
pub struct PanopticFile {
    #[serde(default)]
    pub annotations: Vec<PanopticAnnotation>,
    /// Of a dataset alone.
    #[serde(default)]
    pub categories: Vec<PanopticCategory>,
}

/// A category of panoptic annotations.
#[derive(Debug, Deserialize)]
pub struct PanopticCategory {
    #[serde(deserialize_with = "whole")]
    pub id: u64,
    #[serde(default)]
    pub name: String,
    #[serde(default, deserialize_with = "maybe_whole")]
    isthing: Option<u64>,
}

impl PanopticCategory {
    /// Whether it can be counted, where the file says so.
    pub fn is_thing(&self) -> Option<bool> {
        self.isthing.map(|flag| flag != 0)
    }
}

/// The annotations of objects at `path`, and the SHA-256 of the file.
///
/// # Errors
/// When it can't be read or is no JSON of COCO's annotations.
pub fn annotations(path: &Path) -> Result<(AnnotationFile, String), DatasetError> {
    let bytes = whole_file(path)?;
    Ok((one_object(path, &bytes, "COCO's annotations")?, hex(&Sha256::digest(&bytes))))
}

/// The panoptic annotations or predictions at `path`.
///
/// # Errors
/// When it can't be read or is no JSON of these.
pub fn panoptic_file(path: &Path) -> Result<PanopticFile, DatasetError> {
    let file: PanopticFile = one_object(path, &whole_file(path)?, "COCO's panoptic format")?;
    if file.annotations.is_empty() {
        return Err(DatasetError::new(path, "it has no annotations; COCO's panoptic format is wanted here"));
    }
    Ok(file)
}

/// The object that a file of these bytes is.
fn one_object<T: DeserializeOwned>(path: &Path, bytes: &[u8], format: &str) -> Result<T, DatasetError> {
    let wrong = |why: String| DatasetError::new(path, why);
    match first_byte(bytes) {
        Some(b'{') => {}
        Some(b'[') => return Err(wrong(format!("a list, as of COCO's results, and not {format}"))),
        _ => return Err(wrong(format!("no JSON of {format}"))),
    }
    serde_json::from_slice(bytes.strip_prefix(BOM).unwrap_or(bytes))
        .map_err(|error| wrong(format!("no JSON of {format}: {error}")))
}

/// Hands every record of the results at `path` to `each`: the elements of a list, or one object after the other.
///
/// # Errors
/// When it can't be read or is no JSON of results, and those of `each`.
pub fn results(
    path: &Path,
    mut each: impl FnMut(ResultRecord) -> Result<(), DatasetError>,
) -> Result<(), DatasetError> {
    let unreadable = |error: io::Error| DatasetError::io(path, &error);
    let no_json = |error: serde_json::Error| match error.io_error_kind() {
        Some(kind) => unreadable(kind.into()),
        None => DatasetError::new(path, format!("no JSON of COCO's results: {error}")),
    };
    let mut file = BufReader::with_capacity(READ_AHEAD, File::open(path).map_err(unreadable)?);
    if file.fill_buf().map_err(unreadable)?.starts_with(BOM) {
        file.consume(BOM.len());
    }
    let first = first_byte(file.fill_buf().map_err(unreadable)?);
    let mut json = serde_json::Deserializer::from_reader(file);
    match first {
        Some(b'[') => {
            let mut refused = None;
            let list = EachRecord { each: &mut each, refused: &mut refused };
            let read = json.deserialize_seq(list);
            if let Some(error) = refused {
                return Err(error);
            }
            read.and_then(|()| json.end()).map_err(no_json)
        }
        Some(b'{') => json.into_iter::<ResultRecord>().try_for_each(|record| each(record.map_err(no_json)?)),
        _ => Err(DatasetError::new(
            path,
            "no JSON of COCO's results: a list of {image_id, category_id, bbox, score} is wanted",
        )),
    }
}

/// What editors of Windows put first.
const BOM: &[u8] = b"\xef\xbb\xbf";
/// Bytes of a file of results that are read at a time.
const READ_AHEAD: usize = 1 << 20;

/// The first byte that is no white space.
fn first_byte(bytes: &[u8]) -> Option<u8> {
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// A list whose elements are handed on one by one, so that the whole of it is never in memory.
struct EachRecord<'a, F> {
    each: &'a mut F,
    /// What `each` said of the record that ended it.
    refused: &'a mut Option<DatasetError>,
}

impl<'de, F: FnMut(ResultRecord) -> Result<(), DatasetError>> Visitor<'de> for EachRecord<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(record) = list.next_element()? {
            if let Err(error) = (self.each)(record) {
                let text = error.to_string();
                *self.refused = Some(error);
                return Err(A::Error::custom(text));
            }
        }
        Ok(())
    }
}

/// A whole number from 0 on, which pandas may have written as `7.0`, and a flag as `true`.
struct WholeNumber(u64);

impl<'de> Deserialize<'de> for WholeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = WholeNumber;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a whole number from 0 on")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<WholeNumber, E> {
                Ok(WholeNumber(value.into()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<WholeNumber, E> {
                Ok(WholeNumber(value))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<WholeNumber, E> {
                let whole = hotcoco::types::id_from_f64(value).map(WholeNumber);
                whole.ok_or_else(|| E::custom(format!("{value} is no whole number from 0 on")))
            }
        }
        deserializer.deserialize_any(Digits)
    }
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    WholeNumber::deserialize(deserializer).map(|number| number.0)
}

fn maybe_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<WholeNumber>::deserialize(deserializer)?.map(|number| number.0))
}

/// A side of an image; `null` is as nothing.
fn side<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let side = maybe_whole(deserializer)?.unwrap_or(0);
    u32::try_from(side).map_err(|_| D::Error::custom(format!("a side of {side} pixels")))
}

/// A text; anything else is as nothing.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => Ok(Some(text)),
        _ => Ok(None),
    }
}
