//! Images in a folder for each class, as ImageNet's validation set is kept (torchvision's and timm's "ImageFolder"): in a
//! folder, or in a tar or zip file of one. Or images anywhere, with a list that says which class each is of.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf, is_separator};

use nat_convert::labels::Labels;

use super::error::DatasetError;
use crate::pipeline::archive::ImageArchive;
use crate::pipeline::{Listing, Location, Source, SourceError, name_of};

/// Images, and what their class is called: a folder, or an entry of a list.
#[derive(Debug)]
pub struct ImageFolder {
    /// Where they are.
    root: PathBuf,
    /// The images in the order of their paths, each with the number of its class's name.
    pub images: Vec<LabelledImage>,
    /// The classes' names: of folders in timm's order, numbers in a name by their value.
    pub names: Vec<String>,
    /// What else is there and was passed over, a line for people each.
    pub passed_over: Vec<String>,
}

/// An image of a dataset.
#[derive(Clone, Debug)]
pub struct LabelledImage {
    /// Where it is, or why it is nowhere.
    pub source: Result<Source, SourceError>,
    /// The number of its class: of a folder among [`ImageFolder::names`], of a network among its classes.
    pub class: usize,
}

/// How the names of folders became a network's classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassRule {
    /// They are the classes' names.
    Names,
    /// They are WordNet ids of ImageNet-1K.
    Synsets,
    /// They are numbers of classes.
    Numbers,
    /// There are as many as classes: the first is class 0, and so on.
    Order,
}

impl ClassRule {
    /// In words, for a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Names => "by name",
            Self::Synsets => "by WordNet id",
            Self::Numbers => "by number",
            Self::Order => "by order",
        }
    }
}

/// How many names a message lists.
const TOLD: usize = 3;

impl ImageFolder {
    /// The images of a folder, or of a tar or zip file, whose first folders are classes. An archive's outermost folder is
    /// passed over where it holds all the others.
    ///
    /// # Errors
    /// When it is not there, or an image lies outside all class folders.
    pub fn open(root: &Path) -> Result<Self, DatasetError> {
        let (sources, mut names, passed_over) = if root.is_dir() {
            let listing =
                Listing::expand(&[root.to_owned()], true, &mut || Err(io::ErrorKind::Unsupported.into()));
            let sources = listing.sources.into_iter().map(|source| below_of(root, source)).collect();
            (sources, folders(root)?, listing.passed_over)
        } else {
            let Archived { images, passed_over } = archived(root)?;
            (images, Vec::new(), passed_over)
        };
        let class = |below: &Path| {
            let mut parts = below.components();
            match (parts.next(), parts.next()) {
                (Some(Component::Normal(folder)), Some(_)) => Some(name_of(Path::new(folder))),
                _ => None,
            }
        };
        let mut named = Vec::new();
        for (below, source) in sources {
            let folder = match &source {
                Ok(_) => class(&below),
                Err(error) => folder_of(&names, root, error.name()),
            };
            let Some(folder) = folder else {
                return Err(match source {
                    Err(error @ SourceError::Empty { .. }) => DatasetError::of(root, &error),
                    _ => DatasetError::new(
                        &root.join(&below),
                        "lies in no folder of a class; annotations are a list of images and their classes",
                    ),
                });
            };
            if !root.is_dir() && !names.contains(&folder) {
                names.push(folder.clone());
            }
            named.push((folder, source));
        }
        names.sort_by(|a, b| natural(a, b));
        let numbers: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
        let image = |(folder, source): (String, _)| LabelledImage { source, class: numbers[folder.as_str()] };
        let images = named.into_iter().map(image).collect();
        Ok(Self { root: root.to_owned(), images, names, passed_over })
    }

    /// The images that a list names, a line each: its path below `root`, a space, comma or tab, and its class. Their
    /// order is the list's.
    ///
    /// # Errors
    /// When the list can't be read or names no class, or `root` is not there.
    pub fn listed(root: &Path, list: &Path) -> Result<Self, DatasetError> {
        let text = fs::read_to_string(list).map_err(|error| DatasetError::io(list, &error))?;
        let mut members = HashMap::new();
        if !root.is_dir() {
            members.extend(archived(root)?.images);
            // By the path that lists of the archive's members have, too.
            let whole: Vec<Placed> = members
                .values()
                .filter_map(|source| match source {
                    Ok(Source { place: Location::Member { archive, number }, .. }) => {
                        Some((archive.member_path(*number)?.to_owned(), source.clone()))
                    }
                    _ => None,
                })
                .collect();
            members.extend(whole);
        }
        let (mut images, mut numbers, mut seen) = (Vec::new(), BTreeMap::new(), HashSet::new());
        for (line, number) in text.strip_prefix('\u{feff}').unwrap_or(&text).lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let entry = line.rsplit_once(['\t', ',']).or_else(|| line.rsplit_once(' '));
            let Some((image, class)) = entry.map(|(image, class)| (image.trim(), class.trim())) else {
                let why =
                    format!("line {number} is no image's path with its class behind a space, comma or tab");
                return Err(DatasetError::new(list, why));
            };
            // `find .` begins with `./`.
            let below: PathBuf =
                Path::new(image).components().filter(|part| *part != Component::CurDir).collect();
            if !seen.insert(below.clone()) {
                return Err(DatasetError::new(list, format!("line {number} names {image} once more")));
            }
            let path = root.join(&below);
            let missing = || SourceError::Missing(name_of(&path));
            let source = match members.is_empty() {
                true if path.is_file() => Ok(Source { below, ..Source::file(&path) }),
                true => Err(missing()),
                false => members.get(&below).cloned().unwrap_or_else(|| Err(missing())),
            };
            numbers.entry(class.to_owned()).or_insert_with(Vec::new).push(images.len());
            images.push(LabelledImage { source, class: 0 });
        }
        if images.is_empty() {
            return Err(DatasetError::new(list, "names no image"));
        }
        let mut names: Vec<String> = numbers.keys().cloned().collect();
        names.sort_by(|a, b| natural(a, b));
        for (number, name) in names.iter().enumerate() {
            numbers[name].iter().for_each(|&image| images[image].class = number);
        }
        Ok(Self { root: root.to_owned(), images, names, passed_over: Vec::new() })
    }

    /// The images with the classes of a network that calls them `labels`, and how the names became those: where all
    /// names are labels, by these; where all are WordNet ids and the labels ImageNet-1K's, or as many, by the ids; where
    /// a list numbers the classes, by number; where there are as many of both, by their order.
    ///
    /// # Errors
    /// When none of it is so.
    pub fn of_classes(
        mut self,
        labels: &[String],
        numbered: bool,
    ) -> Result<(Vec<LabelledImage>, ClassRule), DatasetError> {
        let (classes, rule) = classes(&self.names, labels, numbered).map_err(|why| {
            let inner =
                ["val", "validation", "test"].iter().find(|name| self.names.iter().any(|n| n == *name));
            let advice = match inner {
                Some(name) => format!("; perhaps the folder is {}", name_of(&self.root.join(name))),
                None => String::new(),
            };
            DatasetError::new(&self.root, why + &advice)
        })?;
        self.images.iter_mut().for_each(|image| image.class = classes[image.class]);
        Ok((self.images, rule))
    }
}

/// The network's class of each name.
fn classes(names: &[String], labels: &[String], numbered: bool) -> Result<(Vec<usize>, ClassRule), String> {
    let all = |known: &HashMap<String, usize>| -> Result<Vec<usize>, String> {
        let unknown: Vec<&str> =
            names.iter().filter(|name| !known.contains_key(*name)).map(String::as_str).collect();
        match unknown.is_empty() {
            true => Ok(names.iter().map(|name| known[name]).collect()),
            false => Err(told(&unknown)),
        }
    };
    let mut twice = HashSet::new();
    let mut by_label: HashMap<String, usize> = HashMap::new();
    for (label, class) in labels.iter().zip(0..) {
        let same = by_label.insert(label.clone(), class);
        // Two classes of one name can't be told apart by it.
        if same.is_some() {
            twice.insert(label);
        }
    }
    by_label.retain(|label, _| !twice.contains(label));
    let by_number = || (0..labels.len()).map(|class| (class.to_string(), class)).collect();
    if numbered && let Ok(classes) = all(&by_number()) {
        return Ok((classes, ClassRule::Numbers));
    }
    let by_label = all(&by_label);
    if let Ok(classes) = by_label {
        return Ok((classes, ClassRule::Names));
    }
    let synsets = Labels::Imagenet1k.synsets().unwrap_or_default();
    if names.iter().all(|name| is_synset(name)) && labels.len() == synsets.len() {
        let known = synsets.into_iter().map(str::to_owned).zip(0..).collect();
        let classes = all(&known).map_err(|unknown| format!("{unknown}: no class of ImageNet-1K"))?;
        return Ok((classes, ClassRule::Synsets));
    }
    // Where some names are labels the order is not what the others mean.
    let some = names.iter().any(|name| labels.contains(name));
    if names.len() == labels.len() && !numbered && !some {
        return Ok(((0..names.len()).collect(), ClassRule::Order));
    }
    let what = if numbered { "list has" } else { "folder has" };
    Err(format!(
        "the {what} {} classes and the model {}; {} is none of the model's: labels name them as the data do",
        names.len(),
        labels.len(),
        by_label.err().unwrap_or_else(|| told(&[names.first().map_or("", String::as_str)]))
    ))
}

/// The first few names, and how many more there are.
fn told(names: &[&str]) -> String {
    let first: Vec<String> = names.iter().take(TOLD).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(TOLD) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Whether a name is like `n01440764`.
fn is_synset(name: &str) -> bool {
    let digits = name.strip_prefix('n').unwrap_or_default();
    digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The folders in a folder, without hidden ones.
fn folders(root: &Path) -> Result<Vec<String>, DatasetError> {
    let entries = fs::read_dir(root).map_err(|error| DatasetError::io(root, &error))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| DatasetError::io(root, &error))?.path();
        let name = name_of(Path::new(path.file_name().unwrap_or_default()));
        if path.is_dir() && !name.starts_with('.') {
            names.push(name);
        }
    }
    Ok(names)
}

/// What was found in a folder, with its path below it.
fn below_of(root: &Path, source: Result<Source, SourceError>) -> Placed {
    let below = match &source {
        Ok(source) => source.below.clone(),
        Err(error) => Path::new(error.name()).strip_prefix(root).unwrap_or(Path::new("")).to_owned(),
    };
    (below, source)
}

/// The folder of `names` that holds what a message calls so, where only its name is known, in which what is no text is
/// spelt out.
fn folder_of(names: &[String], root: &Path, name: &str) -> Option<String> {
    let below = name.strip_prefix(&name_of(root))?.trim_start_matches(is_separator);
    let holds = |folder: &&String| {
        let rest = below.strip_prefix(folder.as_str());
        rest.is_some_and(|rest| rest.starts_with(is_separator))
    };
    names.iter().find(holds).cloned()
}

/// An image, or why it is nowhere, with its path below the dataset.
type Placed = (PathBuf, Result<Source, SourceError>);

/// What is in an archive.
struct Archived {
    /// The images, with their paths in it.
    images: Vec<Placed>,
    /// As [`ImageFolder::passed_over`].
    passed_over: Vec<String>,
}

/// The images of an archive.
fn archived(path: &Path) -> Result<Archived, DatasetError> {
    let archive = ImageArchive::open(path).map_err(|error| DatasetError::of(path, &error))?;
    let images = archive.images();
    if images.is_empty() {
        return Err(DatasetError::new(path, "there is no image in it"));
    }
    // `val/n01440764/x.JPEG`
    let first = |name: &Path| name.components().next().map(|part| part.as_os_str().to_owned());
    let outermost = first(images[0].1);
    let wrapped = images.iter().all(|(_, name)| name.components().count() > 2 && first(name) == outermost);
    let member = |(number, name): (usize, &Path)| {
        let below: PathBuf = name.components().skip(usize::from(wrapped)).collect();
        let place = Location::Member { archive: archive.clone(), number };
        (below.clone(), Ok(Source { place, below }))
    };
    let passed_over = archive.passed_over().into_iter().collect();
    Ok(Archived { images: images.into_iter().map(member).collect(), passed_over })
}

/// timm's order of names: numbers in them by their value, letters whatever their case; torchvision's is the same where
/// all numbers have as many digits.
fn natural(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| {
        let lower = text.to_lowercase();
        let mut parts: Vec<(bool, String)> = Vec::new();
        for c in lower.chars() {
            match parts.last_mut() {
                Some((digits, part)) if *digits == c.is_ascii_digit() => part.push(c),
                _ => parts.push((c.is_ascii_digit(), c.to_string())),
            }
        }
        parts
    };
    let (parts_a, parts_b) = (parts(a), parts(b));
    for ((digits_a, a), (digits_b, b)) in parts_a.iter().zip(&parts_b) {
        let value = |text: &str| text.trim_start_matches('0').to_owned();
        let order = match (digits_a, digits_b) {
            (true, true) => {
                let (a, b) = (value(a), value(b));
                a.len().cmp(&b.len()).then(a.cmp(&b))
            }
            // A number stands before a letter.
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => a.cmp(b),
        };
        if order.is_ne() {
            return order;
        }
    }
    parts_a.len().cmp(&parts_b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        folder
    }

    fn listed(folder: &ImageFolder) -> Vec<(String, usize)> {
        let name = |image: &LabelledImage| match &image.source {
            Ok(source) => (source.below.to_str().unwrap().replace('\\', "/"), image.class),
            Err(error) => (format!("! {error}"), image.class),
        };
        folder.images.iter().map(name).collect()
    }

    #[test]
    fn folders_are_classes_in_their_natural_order() {
        let folder = tree(&[
            "10/a.png",
            "9/deep/er/b.JPEG",
            "9/c.txt",
            "B/x.jpg",
            "a/y.webp",
            "empty/z.txt",
            ".git/h.png",
        ]);
        let images = ImageFolder::open(folder.path()).unwrap();
        assert_eq!(images.names, ["9", "10", "a", "B", "empty"]);
        let all = [("10/a.png", 1), ("9/deep/er/b.JPEG", 0), ("B/x.jpg", 3), ("a/y.webp", 2)];
        assert_eq!(listed(&images), all.map(|(name, class)| (name.to_owned(), class)));
        // What is no image, or outside, is said.
        for (files, says) in [
            (&["a/x.png", "y.png"][..], "y.png: lies in no folder of a class"),
            (&["a/x.txt"], "no image in this folder or below it"),
        ] {
            let folder = tree(files);
            let error = ImageFolder::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let error = ImageFolder::open(Path::new("nowhere")).unwrap_err().to_string();
        assert_eq!(error, "nowhere: no such file or folder");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nowhere_is_an_image_that_fails() {
        let folder = tree(&["a/x.png", "b/y.png"]);
        std::os::unix::fs::symlink("gone.png", folder.path().join("b/z.png")).unwrap();
        let images = ImageFolder::open(folder.path()).unwrap();
        assert_eq!(images.images.len(), 3);
        assert!(images.images[2].source.is_err() && images.images[2].class == 1);
    }

    #[cfg(unix)]
    #[test]
    fn folders_may_be_called_as_no_text_is() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let folder = tree(&["a/x.png"]);
        for name in [&b"b\\x41"[..], b"c\xff"] {
            let class = folder.path().join(OsStr::from_bytes(name));
            // Not every file system has such names.
            if fs::create_dir(&class).is_ok() {
                std::os::unix::fs::symlink("gone.png", class.join("z.png")).unwrap();
            }
        }
        let images = ImageFolder::open(folder.path()).unwrap();
        let classes: Vec<&str> =
            images.images.iter().map(|image| images.names[image.class].as_str()).collect();
        assert_eq!(classes[..2], ["a", "b\\\\x41"]);
        assert!(classes.get(2).is_none_or(|class| *class == "c\\xff"));
    }

    #[test]
    fn archives_hold_the_same_tree_with_or_without_a_folder_around_it() {
        for around in ["", "val/"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("val.tar");
            let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
            for file in ["n2/b.png", "n10/a.png", "n2/sub/c.png"] {
                let mut header = tar::Header::new_ustar();
                header.set_size(1);
                header.set_cksum();
                tar.append_data(&mut header, format!("{around}{file}"), &b"x"[..]).unwrap();
            }
            tar.finish().unwrap();
            let images = ImageFolder::open(&path).unwrap();
            assert_eq!(images.names, ["n2", "n10"], "{around}");
            let all = [("n10/a.png", 1), ("n2/b.png", 0), ("n2/sub/c.png", 0)];
            assert_eq!(listed(&images), all.map(|(name, class)| (name.to_owned(), class)), "{around}");
            let list = folder.path().join("list.txt");
            fs::write(&list, format!("{around}n2/b.png 7\nn2/none.png 7\n")).unwrap();
            let images = ImageFolder::listed(&path, &list).unwrap();
            assert_eq!(
                images.images.iter().map(|image| image.source.is_ok()).collect::<Vec<_>>(),
                [true, false]
            );
        }
    }

    #[test]
    fn lists_say_which_image_is_of_which_class() {
        let folder = tree(&["x 1.png", "sub/y.png"]);
        let list = folder.path().join("list.txt");
        for text in
            ["x 1.png 10\nsub/y.png 9\ngone.png 9\n", "\u{feff}x 1.png,10\r\nsub/y.png, 9\n\ngone.png,9"]
        {
            fs::write(&list, text).unwrap();
            let images = ImageFolder::listed(folder.path(), &list).unwrap();
            assert_eq!(images.names, ["9", "10"]);
            let gone = format!("! {}: no such file or folder", folder.path().join("gone.png").display());
            assert_eq!(listed(&images), [("x 1.png".to_owned(), 1), ("sub/y.png".to_owned(), 0), (gone, 0)]);
        }
        for (text, says) in [("", "names no image"), ("alone\n", "line 1 is no image's path with its class")]
        {
            fs::write(&list, text).unwrap();
            let error = ImageFolder::listed(folder.path(), &list).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn folders_become_the_classes_that_they_name() {
        let imagenet = names(&Labels::Imagenet1k.names());
        let digits = names(&["0", "1", "2"]);
        for (folders, labels, numbered, wanted) in [
            (&["cat", "dog"][..], &names(&["dog", "bird", "cat"]), false, Ok((vec![2, 0], ClassRule::Names))),
            // A part of ImageNet is not classes 0 and 1.
            (&["n01440764", "n15075141"], &imagenet, false, Ok((vec![0, 999], ClassRule::Synsets))),
            (&["n01440764", "n00000001"], &imagenet, false, Err("`n00000001`: no class of ImageNet-1K")),
            (&["a", "b", "c"], &digits, false, Ok((vec![0, 1, 2], ClassRule::Order))),
            (&["2", "0"], &digits, false, Ok((vec![2, 0], ClassRule::Names))),
            (&["281", "7"], &imagenet, true, Ok((vec![281, 7], ClassRule::Numbers))),
            (&["tench", "7"], &imagenet, true, Err("`7` is none of the model's")),
            (&["a", "b"], &digits, false, Err("the folder has 2 classes and the model 3; `a`, `b` is none")),
            // One name that is misspelt, or numbers that begin elsewhere, are no order.
            (&["0", "1", "two"], &digits, false, Err("`two` is none of the model's")),
            (&["1", "2", "3"], &digits, false, Err("`3` is none of the model's")),
            // Two classes of one name can't be told apart.
            (&["b", "a"], &names(&["a", "b", "a"]), false, Err("`a` is none of the model's")),
        ] {
            match (classes(&names(folders), labels, numbered), wanted) {
                (Ok(got), Ok(wanted)) => assert_eq!(got, wanted, "{folders:?}"),
                (Err(error), Err(says)) => assert!(error.contains(says), "{folders:?}: {error}"),
                (got, wanted) => panic!("{folders:?}: {got:?}, not {wanted:?}"),
            }
        }
        // Where the data are not what they seem, a message says where they may be.
        let folder = tree(&["train/a/x.png", "val/a/y.png"]);
        let error = ImageFolder::open(folder.path()).unwrap().of_classes(&digits, false).unwrap_err();
        assert!(error.to_string().contains("perhaps the folder is"), "{error}");
    }
}
