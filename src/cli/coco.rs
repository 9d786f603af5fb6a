//! `--format coco` and `--annotations`: the numbers that COCO's evaluators know images by.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nat_infer::pipeline::name_of;
use nat_infer::tasks::TaskError;
use nat_infer::tasks::files::NewFile;
use serde::{Deserialize, Serialize};

use super::exit::OrFailed;

/// What our own list of images says made it.
const DESCRIPTION: &str = "images of nat-infer detect";

/// The images' numbers.
pub enum Numbers {
    /// Nobody asked for them.
    None,
    /// Those of an annotation file.
    Annotated { file: PathBuf, by_name: HashMap<String, Vec<Image>> },
    /// From 1 on, in the order of the results; written beside them.
    Counted { file: PathBuf, images: Vec<Image> },
}

/// An image as COCO lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Image {
    id: u64,
    file_name: String,
    #[serde(default)]
    width: usize,
    #[serde(default)]
    height: usize,
}

/// What is read of an annotation file.
#[derive(Deserialize)]
struct Annotations {
    images: Vec<Image>,
}

/// A file of images without annotations, as COCO's tools take it.
#[derive(Serialize)]
struct ImageList<'a> {
    info: Info,
    images: &'a [Image],
    categories: &'a [Category],
    annotations: [(); 0],
}

#[derive(Serialize, Deserialize)]
struct Info {
    description: String,
}

/// A class as COCO lists it.
#[derive(Clone, Debug, Serialize)]
pub struct Category {
    /// Its number.
    pub id: usize,
    /// Its name.
    pub name: String,
}

impl Numbers {
    /// Those of an annotation file, or where results are `coco` those that are counted for the results in `output`.
    ///
    /// # Errors
    /// When the file can't be read, or there is no place for the list of images.
    pub fn new(
        annotations: Option<&Path>,
        coco: bool,
        output: Option<&Path>,
        overwrite: bool,
    ) -> Result<Self> {
        if let Some(path) = annotations {
            let named = || format!("--annotations {}", name_of(path));
            let file = BufReader::new(File::open(path).with_context(named)?);
            let Annotations { images } = serde_json::from_reader(file)
                .with_context(|| format!("{}: no annotations in COCO's format", named()))?;
            let mut by_name: HashMap<String, Vec<Image>> = HashMap::new();
            for image in images {
                by_name.entry(last(&image.file_name).to_owned()).or_default().push(image);
            }
            return Ok(Self::Annotated { file: path.to_owned(), by_name });
        }
        if !coco {
            return Ok(Self::None);
        }
        let Some(output) = output.filter(|path| *path != Path::new("-")) else {
            bail!(
                "--format coco knows images by numbers: --annotations FILE has them, or --output PATH, beside which \
                 they are written"
            );
        };
        let file = output.with_extension("images.json");
        if file.exists() && !overwrite && !is_ours(&file) {
            bail!(
                "{} is there already and is no earlier list of images; --overwrite replaces it",
                name_of(&file)
            );
        }
        Ok(Self::Counted { file, images: Vec::new() })
    }

    /// The number of an image, which is listed if it is counted.
    ///
    /// # Errors
    /// When the annotations know no image of this name, or several.
    pub fn of(&mut self, image: &str, [width, height]: [usize; 2]) -> Result<Option<u64>, TaskError> {
        match self {
            Self::None => Ok(None),
            Self::Counted { images, .. } => {
                let id = images.len() as u64 + 1;
                images.push(Image { id, file_name: image.to_owned(), width, height });
                Ok(Some(id))
            }
            Self::Annotated { file, by_name } => {
                let named = by_name.get(last(image)).map(Vec::as_slice).unwrap_or_default();
                // Of images of one name in several folders, the one whose folders are the same.
                let shared = |other: &Image| {
                    let parts = |name: &str| name.rsplit(['/', '\\']).map(str::to_owned).collect::<Vec<_>>();
                    parts(image).iter().zip(parts(&other.file_name)).take_while(|(a, b)| **a == *b).count()
                };
                let most = named.iter().map(shared).max();
                let mut likeliest = named.iter().filter(|other| Some(shared(other)) == most);
                match (likeliest.next(), likeliest.next()) {
                    (Some(one), None) => Ok(Some(one.id)),
                    (Some(_), Some(_)) => Err(unnumbered(file, "several images of its name are")),
                    (None, _) => Err(unnumbered(file, "no image of its name is")),
                }
            }
        }
    }

    /// Writes the list of images that were counted, and says where.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&self, categories: &[Category]) -> Result<Option<String>> {
        let Self::Counted { file, images } = self else { return Ok(None) };
        if images.is_empty() {
            return Ok(None);
        }
        let info = Info { description: DESCRIPTION.to_owned() };
        let list = serde_json::to_vec(&ImageList { info, images, categories, annotations: [] })?;
        let write = || {
            let mut to = NewFile::create(file)?;
            to.write_all(&list)?;
            to.keep()
        };
        write().with_context(|| format!("{}: can't be written", name_of(file))).or_failed()?;
        Ok(Some(format!("their images in {}", name_of(file))))
    }
}

fn unnumbered(file: &Path, what: &'static str) -> TaskError {
    TaskError::NotAnnotated { file: name_of(file), what }
}

/// A path's last part.
fn last(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// Whether a list of images is one that this program wrote.
fn is_ours(path: &Path) -> bool {
    #[derive(Deserialize)]
    struct Lead {
        info: Info,
    }
    let read = File::open(path).ok().and_then(|file| serde_json::from_reader(BufReader::new(file)).ok());
    read.is_some_and(|Lead { info }| info.description == DESCRIPTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_number_images_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(
            &path,
            r#"{"info": {}, "annotations": [{"id": 1, "image_id": 7}], "images": [
                {"id": 7, "file_name": "000000000007.jpg", "width": 5, "height": 4, "license": 3},
                {"id": 8, "file_name": "train/x.png"}, {"id": 9, "file_name": "val/x.png"}]}"#,
        )
        .unwrap();
        let mut numbers = Numbers::new(Some(&path), false, None, false).unwrap();
        for (image, wanted) in [
            ("photos/000000000007.jpg", Ok(7)),
            ("000000000007.jpg", Ok(7)),
            ("data/val/x.png", Ok(9)),
            ("train/x.png", Ok(8)),
            ("x.png", Err("several images of its name are in")),
            ("y.png", Err("no image of its name is in")),
        ] {
            match (numbers.of(image, [1; 2]), wanted) {
                (Ok(Some(id)), Ok(wanted)) => assert_eq!(id, wanted, "{image}"),
                (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{image}: {error}"),
                (got, _) => panic!("{image}: {got:?}"),
            }
        }
        std::fs::write(&path, "[]").unwrap();
        let error = Numbers::new(Some(&path), true, None, false).err().unwrap();
        assert!(format!("{error:#}").contains("no annotations in COCO's format"), "{error:#}");
    }
}
