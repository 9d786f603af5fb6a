//! From what a user names to single images: files, folders, globs, lists, addresses.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::glob::Glob;
use super::names::{is_hidden, is_image, name_of, plain};
use super::passed_over::PassedOver;
use super::source::{Location, Source};
use super::source_error::{SourceError, reason};
use crate::zoo::is_web_address;

/// Images to do, in order, and between them what gave none.
#[derive(Debug, Default)]
pub struct Listing {
    /// The images, in the order in which they were named, those of a folder sorted by name.
    pub sources: Vec<Result<Source, SourceError>>,
    /// What was passed over without being wrong: folders in a folder, files of other kinds. A line each.
    pub passed_over: Vec<String>,
}

impl Listing {
    /// The images of `arguments`: files, folders, globs, addresses, and `-` for standard input, which `stdin` reads.
    /// With `recursive` folders are searched with all below them. No image is opened here.
    pub fn expand(
        arguments: &[PathBuf],
        recursive: bool,
        stdin: &mut dyn FnMut() -> io::Result<Vec<u8>>,
    ) -> Self {
        let mut listing = Self::default();
        for argument in arguments {
            listing.add(argument, recursive, stdin);
        }
        listing
    }

    /// The images of a list of arguments, one per line, or with `nul` each ended by a NUL byte. Files keep the folders
    /// that the list names in [`Source::below`].
    pub fn expand_list(
        list: &[u8],
        nul: bool,
        recursive: bool,
        stdin: &mut dyn FnMut() -> io::Result<Vec<u8>>,
    ) -> Self {
        let mut listing = Self::default();
        let list = if nul { list } else { list.strip_prefix(b"\xef\xbb\xbf").unwrap_or(list) };
        for entry in list.split(|&byte| byte == if nul { 0 } else { b'\n' }) {
            let entry = if nul { entry } else { entry.strip_suffix(b"\r").unwrap_or(entry) };
            if entry.is_empty() {
                continue;
            }
            let path = PathBuf::from(os_string(entry));
            let first = listing.sources.len();
            listing.add(&path, recursive, stdin);
            for source in listing.sources[first..].iter_mut().flatten() {
                if let Location::File(path) = &source.place {
                    source.below = plain(path);
                }
            }
        }
        listing
    }

    /// Appends what another listing has.
    pub fn append(&mut self, mut other: Self) {
        self.sources.append(&mut other.sources);
        self.passed_over.append(&mut other.passed_over);
    }

    fn add(&mut self, path: &Path, recursive: bool, stdin: &mut dyn FnMut() -> io::Result<Vec<u8>>) {
        if path == Path::new("-") {
            self.stdin(stdin);
        } else if let Some(address) = path.to_str().filter(|text| is_web_address(text)) {
            self.sources.push(Ok(Source::url(address)));
        } else {
            let name = || name_of(path);
            match fs::metadata(path) {
                Ok(found) if found.is_dir() => self.folder(path, recursive),
                Ok(_) => self.sources.push(Ok(Source::file(path))),
                Err(_) if path.is_symlink() => self.sources.push(Err(SourceError::DeadLink(name()))),
                Err(error) => match Glob::parse(path) {
                    Some(glob) => self.glob(&glob, path),
                    None => self.sources.push(Err(match error.kind() {
                        io::ErrorKind::NotFound => SourceError::Missing(name()),
                        _ => SourceError::Unreadable { name: name(), reason: reason(&error) },
                    })),
                },
            }
        }
    }

    fn stdin(&mut self, read: &mut dyn FnMut() -> io::Result<Vec<u8>>) {
        let is_stdin =
            |source: &Source| matches!(&source.place, Location::Memory { name, .. } if name == "-");
        let given = self.sources.iter().flatten().any(is_stdin);
        self.sources.push(if given {
            Err(SourceError::StdinTwice)
        } else {
            read()
                .map(|bytes| Source { below: PathBuf::from("stdin"), ..Source::memory("-", bytes) })
                .map_err(|error| SourceError::Unreadable { name: "-".to_owned(), reason: reason(&error) })
        });
    }

    fn folder(&mut self, path: &Path, recursive: bool) {
        let mut passed = PassedOver::default();
        let first = self.sources.len();
        let depth = if recursive { usize::MAX } else { 1 };
        let hidden = Cell::new(0);
        let inside = |entry: &DirEntry| {
            let is_hidden = is_hidden(entry.path());
            hidden.set(hidden.get() + usize::from(is_hidden));
            !is_hidden
        };
        for entry in walk(path, depth, inside) {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => passed.folders += usize::from(!recursive),
                Ok(entry) if is_hidden(entry.path()) => passed.hidden += 1,
                Ok(entry) if entry.file_type().is_file() && is_image(entry.path()) => {
                    self.sources.push(Ok(found(entry.path(), path)));
                }
                Ok(_) => passed.files += 1,
                Err(error) if error.depth() > 0 && error.path().is_some_and(is_hidden) => passed.hidden += 1,
                Err(error) if error.loop_ancestor().is_some() && !recursive => passed.folders += 1,
                // A folder that can't be opened, a loop, or a link that may have led to an image or a folder.
                Err(error) => match source_error(path, &error) {
                    SourceError::DeadLink(_) if error.path().is_some_and(is_something_else) => {
                        passed.files += 1
                    }
                    error => self.sources.push(Err(error)),
                },
            }
        }
        passed.hidden += hidden.get();
        self.pass_over(path, passed);
        if self.sources.len() == first {
            self.sources.push(Err(SourceError::Empty { name: name_of(path), below: recursive }));
        }
    }

    /// The files that match a glob. Shells do it too, where there is one.
    fn glob(&mut self, glob: &Glob, pattern: &Path) {
        let base = if glob.base.as_os_str().is_empty() { Path::new(".") } else { &glob.base };
        let first = self.sources.len();
        let mut passed = PassedOver::default();
        let depth = glob.depth().unwrap_or(usize::MAX);
        let inside = |entry: &DirEntry| {
            let below = below(entry.path(), base);
            glob.may_match_in(below) || glob.matches(below)
        };
        for entry in walk(base, depth, inside) {
            match entry {
                Ok(entry) if !glob.matches(below(entry.path(), base)) => {}
                Ok(entry) if entry.file_type().is_dir() => passed.folders += 1,
                // A pipe or a device, from which reading would never end.
                Ok(entry) if !entry.file_type().is_file() => passed.files += 1,
                Ok(entry) => {
                    // As it was typed: without the `./` of a walk that begins here.
                    let path = if glob.base.as_os_str().is_empty() {
                        below(entry.path(), base)
                    } else {
                        entry.path()
                    };
                    let below = below(entry.path(), base).to_owned();
                    self.sources.push(Ok(Source { place: Location::File(path.to_owned()), below }));
                }
                Err(error) => {
                    let path = error.path().map_or(Path::new(""), |path| below(path, base));
                    let matters = match error.io_error().map(io::Error::kind) {
                        Some(io::ErrorKind::NotFound) => error.depth() > 0 && glob.matches(path),
                        _ => glob.matches(path) || glob.may_match_in(path),
                    };
                    if matters {
                        self.sources.push(Err(source_error(base, &error)));
                    }
                }
            }
        }
        self.pass_over(pattern, passed);
        if self.sources.len() == first {
            self.sources.push(Err(SourceError::NoMatch(name_of(pattern))));
        }
    }

    fn pass_over(&mut self, argument: &Path, passed: PassedOver) {
        self.passed_over.extend(passed.told(argument));
    }

    /// Leaves share `index` of `count`, `index` from 1: what is `index`, `index + count`, … of the listing, so that
    /// the shares of one listing have everything once.
    pub fn shard(&mut self, index: usize, count: usize) {
        let mut number = 0;
        self.sources.retain(|_| {
            number += 1;
            (number - 1) % count == index - 1
        });
    }
}

/// Everything below a folder down to `depth` and in folders for which `inside` holds, sorted by name, through links but
/// not in circles.
fn walk(
    folder: &Path,
    depth: usize,
    inside: impl Fn(&DirEntry) -> bool,
) -> impl Iterator<Item = walkdir::Result<DirEntry>> {
    WalkDir::new(folder)
        .min_depth(1)
        .max_depth(depth)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(move |entry| entry.depth() == 0 || !entry.file_type().is_dir() || inside(entry))
}

fn found(path: &Path, folder: &Path) -> Source {
    Source { place: Location::File(path.to_owned()), below: below(path, folder).to_owned() }
}

fn below<'a>(path: &'a Path, folder: &Path) -> &'a Path {
    path.strip_prefix(folder).unwrap_or(path)
}

/// Whether a file is called like what is no image.
fn is_something_else(path: &Path) -> bool {
    path.extension().is_some() && !is_image(path)
}

fn source_error(folder: &Path, error: &walkdir::Error) -> SourceError {
    let path = error.path().unwrap_or(folder);
    let name = name_of(path);
    match (error.loop_ancestor(), error.io_error()) {
        (Some(to), _) => SourceError::Loop { name, to: name_of(to) },
        // What was listed a moment ago and is not there leads elsewhere; so does a link to itself.
        (None, Some(_)) if path.is_symlink() => SourceError::DeadLink(name),
        (None, Some(error)) => SourceError::Unreadable { name, reason: reason(error) },
        (None, None) => SourceError::Unreadable { name, reason: error.to_string() },
    }
}

#[cfg(unix)]
fn os_string(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

#[cfg(not(unix))]
fn os_string(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(listing: &Listing) -> Vec<String> {
        let name = |source: &Result<Source, SourceError>| match source {
            Ok(source) => source.name(),
            Err(error) => format!("! {error}"),
        };
        listing.sources.iter().map(name).collect()
    }

    fn below(listing: &Listing) -> Vec<&str> {
        listing.sources.iter().flatten().map(|source| source.below.to_str().unwrap()).collect()
    }

    fn expand(arguments: &[PathBuf], recursive: bool) -> Listing {
        Listing::expand(arguments, recursive, &mut || Ok(b"bytes".to_vec()))
    }

    fn tree(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    #[test]
    fn arguments_become_images_in_order() {
        let tree =
            tree(&["b.PNG", "a.jpg", "notes.txt", "._a.jpg", "x[1].png", "sub/deep.png", "empty/readme"]);
        fs::create_dir(tree.path().join("folder.png")).unwrap();
        let path = |name: &str| tree.path().join(name);
        for (arguments, recursive, expected) in [
            (vec![""], false, &["a.jpg", "b.PNG", "x[1].png"][..]),
            (vec![""], true, &["a.jpg", "b.PNG", "sub/deep.png", "x[1].png"]),
            (vec!["notes.txt", "a.jpg"], false, &["notes.txt", "a.jpg"]),
            (vec!["*.jpg", "?.*"], false, &["a.jpg", "a.jpg", "b.PNG"]),
            (vec!["*"], false, &["a.jpg", "b.PNG", "notes.txt", "x[1].png"]),
            (vec!["**/*.png"], false, &["sub/deep.png", "x[1].png"]),
            (vec!["s*/*"], false, &["sub/deep.png"]),
            (vec!["x[1].png"], false, &["x[1].png"]), // a file before it is a glob
            (vec!["empty"], true, &["! empty: no image in this folder or below it"]),
            (vec!["none.png", "a.jpg"], false, &["! none.png: no such file or folder", "a.jpg"]),
            (vec!["a.jpg/none"], false, &["! a.jpg/none: can't be read: not a directory"]),
            (vec!["*.tiff"], false, &["! *.tiff: no file matches"]),
            (vec![".*.jpg"], false, &["._a.jpg"]),
            (vec!["["], false, &["! [: no file matches"]),
        ] {
            let paths: Vec<PathBuf> = arguments.iter().map(|name| path(name)).collect();
            let names: Vec<String> = names(&expand(&paths, recursive))
                .iter()
                .map(|name| name.replace(&format!("{}/", tree.path().display()), ""))
                .collect();
            assert_eq!(names.len(), expected.len(), "{arguments:?}: {names:?}");
            for (name, expected) in names.iter().zip(expected) {
                assert!(name.starts_with(expected), "{arguments:?}: {names:?}");
            }
        }
        let listing = expand(&["-".into(), path("a.jpg"), "-".into()], false);
        assert_eq!(names(&listing)[0], "-");
        assert_eq!(listing.sources[2], Err(SourceError::StdinTwice));
        let passed: Vec<String> = expand(&[path("")], false).passed_over;
        assert!(
            passed[0].ends_with("passed over 3 folders, 1 file of another kind, 1 hidden name"),
            "{passed:?}"
        );
    }

    #[test]
    fn lists_name_what_arguments_name() {
        let tree = tree(&["a b.jpg", "sub/c.png"]);
        let path = |name: &str| tree.path().join(name).display().to_string();
        let lines = format!("\u{feff}{}\r\n\n{}\nhttps://h/x.png?y=/z", path("a b.jpg"), path("sub"));
        let list =
            |text: &str, nul| Listing::expand_list(text.as_bytes(), nul, false, &mut || Ok(Vec::new()));
        let listing = list(&lines, false);
        assert_eq!(names(&listing), [path("a b.jpg"), path("sub/c.png"), "https://h/x.png?y=/z".into()]);
        // With the folders that the list has them in.
        let folders = &tree.path().to_str().unwrap()[1..];
        assert_eq!(
            below(&listing),
            [&format!("{folders}/a b.jpg"), &format!("{folders}/sub/c.png"), "x.png"]
        );
        let listing = list(&format!("{}\0new\nline.png\0", path("a b.jpg")), true);
        assert_eq!(names(&listing), [path("a b.jpg"), "! new\nline.png: no such file or folder".into()]);
        assert!(list("\n\n", false).sources.is_empty());
    }

    #[test]
    fn addresses_are_called_as_their_files() {
        for (address, below) in [
            ("https://h/a/b.jpg", "b.jpg"),
            ("HTTP://h/a/b.jpg?x=1#y/z", "b.jpg"),
            ("https://h/a/..", "image"),
            ("https://h", "image"),
            ("https://h/a/", "a"),
            ("https://me:secret@h/a.jpg?mail=a@b", "a.jpg"),
        ] {
            let listing = expand(&[address.into()], false);
            let address = address.replace("me:secret@", "");
            assert_eq!(
                (names(&listing), listing.sources[0].as_ref().unwrap().below.to_str()),
                (vec![address.to_owned()], Some(below))
            );
        }
    }

    #[test]
    fn paths_below_an_argument_are_kept() {
        let tree = tree(&["p/a/x.png", "p/b/x.png", "p/y.png"]);
        let path = |name: &str| tree.path().join(name);
        for (argument, expected) in [
            ("p", &["a/x.png", "b/x.png", "y.png"][..]),
            ("p/*/x.png", &["a/x.png", "b/x.png"]),
            ("p/**/*.png", &["a/x.png", "b/x.png", "y.png"]),
            ("p/a/x.png", &["x.png"]),
        ] {
            assert_eq!(below(&expand(&[path(argument)], true)), expected, "{argument}");
        }
    }

    #[test]
    fn shares_have_everything_once() {
        let tree = tree(&["a.png", "b.png", "c.png", "d.png", "e.png"]);
        let shares = |count| -> Vec<Vec<String>> {
            let share = |index| {
                let mut listing = expand(&[tree.path().into(), "none.png".into()], false);
                listing.shard(index, count);
                names(&listing)
            };
            (1..=count).map(share).collect()
        };
        let all = shares(1).remove(0);
        assert_eq!(all.len(), 6);
        for count in [2, 3, 7] {
            let shares = shares(count);
            assert!(shares.iter().all(|share| (6 / count..=6 / count + 1).contains(&share.len())));
            let mut together = shares.concat();
            together.sort_by_key(|name| all.iter().position(|other| other == name));
            assert_eq!(together, all, "{count}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_to_images_and_not_in_circles() {
        use std::os::unix::fs::symlink;
        let tree = tree(&["a.png", "sub/b.png", "elsewhere/deep/c.png"]);
        let link = |to: &str, name: &str| symlink(to, tree.path().join(name)).unwrap();
        link("nowhere", "gone.png");
        link("self.png", "self.png");
        link("nowhere", "notes.txt");
        link("nowhere", ".#lock.png");
        link(".", "loop");
        link("../elsewhere/deep", "sub/link");
        let expand = |name: &str, recursive| {
            let path = if name.is_empty() { tree.path().to_owned() } else { tree.path().join(name) };
            let names = names(&expand(&[path], recursive));
            let shorten = |name: &String| name.replace(tree.path().to_str().unwrap(), "");
            names.iter().map(shorten).collect::<Vec<_>>()
        };
        let dead = |name: &str| format!("! {name}: a link that leads nowhere");
        let circle = "! /loop: a link back to , which is searched already".to_owned();
        let image = str::to_owned;
        assert_eq!(expand("", false), [image("/a.png"), dead("/gone.png"), dead("/self.png")]);
        let all = ["/a.png", "/elsewhere/deep/c.png"].map(image);
        let rest = ["/sub/b.png", "/sub/link/c.png"].map(image);
        for (argument, recursive) in [("", true), ("**/*.png", false)] {
            let mut found = expand(argument, recursive);
            let mut expected =
                [&all[..], &[dead("/gone.png"), circle.clone(), dead("/self.png")], &rest].concat();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{argument}");
        }
        assert_eq!(expand("gone.png", false), [dead("/gone.png")]);
        assert_eq!(expand("*.txt", false), [dead("/notes.txt")]);
    }
}
