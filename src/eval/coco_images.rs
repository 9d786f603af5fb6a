//! The images that COCO's annotations list, in a folder or in an archive.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::coco::CocoTruth;
use super::error::DatasetError;
use crate::pipeline::archive::ImageArchive;
use crate::pipeline::{Location, Source, SourceError, name_of};

/// Where each image is that `truth` counts, in its order: in the folder, or the tar or zip file, `data`, by its path or, as
/// annotations of several sets name folders that nobody has, by its file's name.
///
/// # Errors
/// When `data` is neither.
pub fn sources(truth: &CocoTruth, data: &Path) -> Result<Vec<Result<Source, SourceError>>, DatasetError> {
    let names = truth.images().iter().map(|image| Path::new(&image.file_name));
    let missing = |name: &Path| Err(SourceError::Missing(name_of(&data.join(name))));
    let last = |name: &Path| PathBuf::from(name.file_name().unwrap_or_default());
    // Of two images of one name the file of that name is neither's.
    let mut named: HashMap<PathBuf, usize> = HashMap::new();
    for image in truth.images() {
        *named.entry(last(Path::new(&image.file_name))).or_default() += 1;
    }
    let alone_of_its_name = |name: &Path| named.get(&last(name)) == Some(&1);
    if data.is_dir() {
        let place = |name: &Path| {
            let by_name = Some(last(name)).filter(|_| alone_of_its_name(name));
            let mut places = [Some(name.to_owned()), by_name].into_iter().flatten();
            let found = places.find(|place| !place.as_os_str().is_empty() && data.join(place).is_file());
            found.map_or_else(
                || missing(name),
                |below| Ok(Source { below: below.clone(), ..Source::file(data.join(below)) }),
            )
        };
        return Ok(names.map(place).collect());
    }
    let archive = ImageArchive::open(data).map_err(|error| DatasetError::of(data, &error))?;
    let members = archive.images();
    let mut by_name: HashMap<PathBuf, Vec<(usize, &Path)>> = HashMap::new();
    for &(number, path) in &members {
        by_name.entry(last(path)).or_default().push((number, path));
    }
    let place = |name: &Path| {
        let alike = by_name.get(&last(name)).map_or(&[][..], Vec::as_slice);
        // In whatever folder the archive has them; of two files of one name neither is meant.
        let alone = |found: Vec<usize>| if let [number] = found[..] { Some(number) } else { None };
        let of = |is: &dyn Fn(&Path) -> bool| {
            alone(alike.iter().filter(|(_, path)| is(path)).map(|(n, _)| *n).collect())
        };
        let number = of(&|path| path == name)
            .or_else(|| of(&|path| path.ends_with(name)))
            .or_else(|| of(&|_| alone_of_its_name(name)));
        let source = |number| Source {
            place: Location::Member { archive: archive.clone(), number },
            below: name.to_owned(),
        };
        number.map_or_else(|| missing(name), |number| Ok(source(number)))
    };
    Ok(names.map(place).collect())
}

/// The annotations of the images in the folder, or archive, `data`, and where these are: COCO's own layout, with `data`
/// its folder or that of its images.
///
/// # Errors
/// When there are none where COCO has them.
pub fn annotations_of(data: &Path) -> Result<(PathBuf, PathBuf), DatasetError> {
    const SET: &str = "val2017";
    let file = |folder: &Path, set: &str| folder.join("annotations").join(format!("instances_{set}.json"));
    let set = data.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let beside = data.parent().map(|folder| file(folder, &set));
    let known = [(Some(file(data, SET)), data.join(SET)), (beside, data.to_owned())];
    let found =
        known.into_iter().find_map(|(file, images)| Some((file.filter(|file| file.is_file())?, images)));
    found.ok_or_else(|| {
        let places =
            format!("annotations/instances_{SET}.json in it, nor annotations/instances_{set}.json beside it");
        DatasetError::new(data, format!("there is no {places}; annotations are a file in COCO's format"))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn truth(folder: &Path, names: &[&str]) -> CocoTruth {
        let image = |(id, name): (usize, &&str)| {
            format!(r#"{{"id": {id}, "file_name": "{name}", "width": 4, "height": 3}}"#)
        };
        let images: Vec<String> = names.iter().enumerate().map(|(i, name)| image((i + 1, name))).collect();
        let path = folder.join("truth.json");
        let text = format!(
            r#"{{"images": [{}], "annotations": [], "categories": [{{"id": 1, "name": "cat"}}]}}"#,
            images.join(",")
        );
        fs::write(&path, text).unwrap();
        CocoTruth::open(&path).unwrap()
    }

    #[test]
    fn images_are_found_by_path_and_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a.jpg", "val2014/b.jpg", "sub/c.jpg", "gone.jpg"];
        let truth = truth(folder.path(), &names);
        let data = folder.path().join("images");
        fs::create_dir_all(data.join("sub")).unwrap();
        for name in ["a.jpg", "b.jpg", "sub/c.jpg", "c.jpg"] {
            fs::write(data.join(name), name).unwrap();
        }
        let archive = folder.path().join("images.tar");
        let mut tar = tar::Builder::new(fs::File::create(&archive).unwrap());
        tar.append_dir_all("val2017", &data).unwrap();
        tar.finish().unwrap();
        let below = |source: &Result<Source, SourceError>| match source {
            Ok(source) => source.below.to_str().unwrap().replace('\\', "/"),
            Err(error) => error.to_string(),
        };
        let found: Vec<String> = sources(&truth, &data).unwrap().iter().map(below).collect();
        let gone = format!("{}: no such file or folder", data.join("gone.jpg").display());
        assert_eq!(found, ["a.jpg", "b.jpg", "sub/c.jpg", &*gone]);
        let found = sources(&truth, &archive).unwrap();
        assert_eq!(found.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, false]);
        let name = found[2].as_ref().unwrap().name();
        assert!(name.ends_with("images.tar/val2017/sub/c.jpg"), "{name}");
        // Two images of one name are not the one file of that name.
        let twice = self::truth(folder.path(), &["x/b.jpg", "y/b.jpg"]);
        for data in [&data, &archive] {
            assert!(sources(&twice, data).unwrap().iter().all(Result::is_err), "{}", data.display());
        }
        let error = sources(&truth, &folder.path().join("none")).unwrap_err().to_string();
        assert!(error.ends_with("none: no such file or folder"), "{error}");
    }

    #[test]
    fn annotations_are_where_coco_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert!(
            annotations_of(root)
                .unwrap_err()
                .to_string()
                .contains("there is no annotations/instances_val2017.json in it")
        );
        fs::create_dir_all(root.join("annotations")).unwrap();
        fs::create_dir_all(root.join("val2017")).unwrap();
        let file = root.join("annotations/instances_val2017.json");
        fs::write(&file, "").unwrap();
        for data in ["", "val2017", "val2017.zip"] {
            let images = if data.is_empty() { "val2017" } else { data };
            assert_eq!(
                annotations_of(&root.join(data)).unwrap(),
                (file.clone(), root.join(images)),
                "{data}"
            );
        }
    }
}
