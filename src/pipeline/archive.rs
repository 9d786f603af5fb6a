//! Tar and zip files whose images are read where they lie: in any order, from several threads, without unpacking.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use zip::ZipArchive;

use super::names::{is_hidden, is_image, name_of, plain};
use super::passed_over::PassedOver;
use super::source_error::reason;

/// A tar or zip file, and where its members are.
pub struct ImageArchive {
    path: PathBuf,
    kind: ArchiveKind,
    members: Vec<ArchiveMember>,
}

enum ArchiveKind {
    Tar(FileWindow),
    Zip(ZipArchive<FileWindow>),
}

struct ArchiveMember {
    name: PathBuf,
    /// Bytes of it, unpacked.
    size: u64,
    place: MemberPlace,
}

impl ArchiveMember {
    /// About how many bytes of memory it takes.
    fn bytes(&self) -> usize {
        let target = if let MemberPlace::Link(target) = &self.place { target.as_os_str().len() } else { 0 };
        size_of::<Self>() + self.name.as_os_str().len() + target
    }
}

#[derive(Clone)]
enum MemberPlace {
    /// Its first byte in the file.
    At(u64),
    /// Its number in the directory.
    Number(usize),
    /// A link to another member, by its path; once all are known, to one that is not there.
    Link(PathBuf),
    /// A file whose zeros were left out, as `tar -S` does.
    Sparse,
}

/// Why a file is no archive that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It is not there.
    #[error("no such file or folder")]
    Missing,
    /// It can't be read.
    #[error("can't be read: {}", reason(.0))]
    Unreadable(#[source] io::Error),
    /// The whole of it is compressed, so that a member can't be read without all before it.
    #[error(
        "compressed with {0}; unpack that first: images are read in any order, which takes a plain tar, or a zip"
    )]
    Compressed(&'static str),
    /// It is something else.
    #[error("neither a folder nor a tar or zip file")]
    Other,
    /// It ends early, or is wrong inside.
    #[error("a damaged {kind} file: {reason}; copy or download it again")]
    Damaged {
        /// `tar` or `zip`.
        kind: &'static str,
        /// The reader's words.
        reason: String,
    },
    /// Its links to folders make more members of it than anybody means.
    #[error(
        "its links to folders make far more files of it than it has; unpack it, or make it without the links"
    )]
    Links,
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Unreadable(error),
        }
    }
}

/// How files begin that are compressed as a whole.
const COMPRESSED: [(&[u8], &str); 5] = [
    (&[0x1f, 0x8b], "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7-zip"),
];

/// Bytes of memory that members of linked folders may take, of any archive, and how many times the others' of a large one.
const MOST_LINKED: usize = 256 << 20;
const LINKED_TIMES: usize = 16;

/// Where the magic of POSIX and GNU tar stands.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

impl ImageArchive {
    /// Reads the directory of an archive. Its content tells what it is, its name does not.
    ///
    /// # Errors
    /// When the file can't be read or is no archive, see [`ArchiveError`].
    pub fn open(path: &Path) -> Result<Arc<Self>, ArchiveError> {
        let mut file = FileWindow::of(File::open(path)?)?;
        let mut begin = Vec::new();
        file.clone().take(TAR_MAGIC.end as u64).read_to_end(&mut begin)?;
        if let Some((_, name)) = COMPRESSED.iter().find(|(magic, _)| begin.starts_with(magic)) {
            return Err(ArchiveError::Compressed(name));
        }
        let (kind, members) = if begin.starts_with(b"PK") {
            let damaged = |error: zip::result::ZipError| damaged("zip", &error);
            let mut zip = ZipArchive::new(file).map_err(damaged)?;
            let members = zip_members(&mut zip).map_err(damaged)?;
            (ArchiveKind::Zip(zip), members)
        } else if begin.get(TAR_MAGIC) == Some(b"ustar") {
            let members = tar_members(&mut file).map_err(|error| damaged("tar", &error))?;
            (ArchiveKind::Tar(file), members)
        } else {
            return Err(ArchiveError::Other);
        };
        let most = MOST_LINKED.max(LINKED_TIMES * members.iter().map(ArchiveMember::bytes).sum::<usize>());
        Ok(Arc::new(Self { path: path.to_owned(), kind, members: resolved(members, most)? }))
    }

    /// The images in it, each by its number and its path below the archive's root, in the order of their paths. What is
    /// not called like an image, or hidden, is none.
    pub fn images(&self) -> Vec<(usize, &Path)> {
        let members = self.members.iter().map(|member| member.name.as_path()).enumerate();
        let mut images: Vec<_> = members.filter(|(_, name)| is_image(name)).collect();
        images.sort_by_key(|(_, name)| *name);
        images
    }

    /// What else is in it, in words; `None` of nothing. Hidden members are not spoken of.
    pub fn passed_over(&self) -> Option<String> {
        let files = self.members.iter().filter(|member| !is_image(&member.name)).count();
        PassedOver { files, ..PassedOver::default() }.told(&self.path)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path below the archive's root of the member with this number; `None` where there is none.
    pub fn member_path(&self, number: usize) -> Option<&Path> {
        Some(&self.members.get(number)?.name)
    }

    /// What records and messages call a member: its path below the archive's.
    pub(super) fn member_name(&self, number: usize) -> String {
        name_of(&self.path.join(&self.members[number].name))
    }

    /// The bytes of a member, at most `limit`; `None` where it has more.
    ///
    /// # Errors
    /// When they can't be read.
    pub(super) fn read(&self, number: usize, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let member = &self.members[number];
        if let MemberPlace::Link(target) = &member.place {
            return Err(io::Error::other(format!(
                "a link to {}, which is not in the archive",
                name_of(target)
            )));
        }
        if let MemberPlace::Sparse = member.place {
            return Err(io::Error::other("kept without its zeros; make the archive without --sparse"));
        }
        if member.size > limit {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(member.size as usize);
        let read = match (&self.kind, &member.place) {
            (ArchiveKind::Tar(file), MemberPlace::At(start)) => {
                let mut file = FileWindow { at: *start, ..file.clone() };
                (&mut file).take(member.size).read_to_end(&mut bytes)?
            }
            (ArchiveKind::Zip(zip), MemberPlace::Number(number)) => {
                let mut zip = zip.clone();
                let mut file = zip.by_index(*number).map_err(io::Error::other)?;
                // The directory may say less than there is.
                (&mut file).take(member.size + 1).read_to_end(&mut bytes)?
            }
            _ => 0,
        };
        if read as u64 != member.size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends before it does"));
        }
        Ok(Some(bytes))
    }
}

impl PartialEq for ImageArchive {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for ImageArchive {}

impl std::fmt::Debug for ImageArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageArchive")
            .field("path", &self.path)
            .field("members", &self.members.len())
            .finish()
    }
}

fn damaged(kind: &'static str, error: &dyn std::error::Error) -> ArchiveError {
    ArchiveError::Damaged { kind, reason: error.to_string() }
}

/// Bytes of a tar's blocks, of which one of zeros ends it.
const BLOCK: u64 = 512;

fn tar_members(file: &mut FileWindow) -> io::Result<Vec<ArchiveMember>> {
    let mut members = Vec::new();
    for entry in tar::Archive::new(&mut *file).entries_with_seek()? {
        let mut entry = entry?;
        let (start, size, kind) = (entry.raw_file_position(), entry.size(), entry.header().entry_type());
        let mut name = plain(&entry.path()?);
        let mut sparse = kind.is_gnu_sparse();
        for extension in entry.pax_extensions()?.into_iter().flatten().flatten() {
            sparse |= extension.key().is_ok_and(|key| key.starts_with("GNU.sparse."));
            if extension.key() == Ok("GNU.sparse.name") {
                name = plain(Path::new(extension.value().unwrap_or_default()));
            }
        }
        let place = if sparse {
            MemberPlace::Sparse
        } else if kind.is_file() {
            MemberPlace::At(start)
        } else if let Some(target) = entry.link_name()? {
            // A symbolic link leads on from its folder, a hard one from the archive's root.
            let from = if kind.is_symlink() { name.parent() } else { None };
            MemberPlace::Link(joined(from.unwrap_or(Path::new("")), &target))
        } else {
            continue;
        };
        add(&mut members, ArchiveMember { name, size, place });
    }
    // Without its end, who knows what followed.
    let mut last = [1; BLOCK as usize];
    FileWindow { at: file.length.saturating_sub(BLOCK), ..file.clone() }.read_exact(&mut last)?;
    if last.iter().any(|&byte| byte != 0) {
        return Err(io::Error::other("its end is missing"));
    }
    Ok(members)
}

/// Longest path that a link of a zip file may hold.
const LONGEST_LINK: u64 = 4096;

fn zip_members(zip: &mut ZipArchive<FileWindow>) -> zip::result::ZipResult<Vec<ArchiveMember>> {
    let mut members = Vec::new();
    for number in 0..zip.len() {
        let (name, size, is_link, is_file) = {
            let file = zip.by_index_raw(number)?;
            (plain(Path::new(&*file.name()?)), file.size(), file.is_symlink(), file.is_file())
        };
        let place = if is_link {
            let mut target = String::new();
            zip.by_index(number)?.take(LONGEST_LINK).read_to_string(&mut target)?;
            MemberPlace::Link(joined(name.parent().unwrap_or(Path::new("")), Path::new(&target)))
        } else if is_file {
            MemberPlace::Number(number)
        } else {
            continue;
        };
        add(&mut members, ArchiveMember { name, size, place });
    }
    Ok(members)
}

/// Where `path` leads from `folder`, below the archive's root.
fn joined(folder: &Path, path: &Path) -> PathBuf {
    let mut whole = if path.is_absolute() { PathBuf::new() } else { folder.to_owned() };
    for part in path.components() {
        match part {
            Component::ParentDir => drop(whole.pop()),
            Component::Normal(name) => whole.push(name),
            _ => {}
        }
    }
    whole
}

/// Members whose links have become what they lead to. Of several of one name the last counts, as for who unpacks them.
///
/// # Errors
/// When the members of linked folders take more than `most` bytes of memory.
fn resolved(members: Vec<ArchiveMember>, most: usize) -> Result<Vec<ArchiveMember>, ArchiveError> {
    /// Links to links, of which some may lead in a circle.
    const DEEPEST: usize = 8;
    // What is in a folder stands behind it.
    let last: BTreeMap<&Path, usize> = members.iter().map(|member| member.name.as_path()).zip(0..).collect();
    let follow = |mut number: usize| {
        for _ in 0..DEEPEST {
            match &members[number].place {
                MemberPlace::Link(target) => match last.get(target.as_path()) {
                    Some(&next) => number = next,
                    None => break,
                },
                _ => break,
            }
        }
        (members[number].size, members[number].place.clone())
    };
    let kept = members.iter().enumerate();
    let kept = kept.filter(|(number, member)| last.get(member.name.as_path()) == Some(number));
    let (mut all, mut linked) = (Vec::new(), 0);
    for (number, member) in kept {
        let (size, place) = follow(number);
        if let MemberPlace::Link(target) = &place
            // One to a folder around it has no end.
            && !member.name.starts_with(target)
        {
            // One to a folder has all that is in it.
            let inside = last.range(target.as_path()..).take_while(|(inner, _)| inner.starts_with(target));
            let before = all.len();
            for (inner, &number) in inside {
                let Some(below) = inner.strip_prefix(target).ok().filter(|below| *below != Path::new(""))
                else {
                    continue;
                };
                let (size, place) = follow(number);
                let inside = ArchiveMember { name: member.name.join(below), size, place };
                linked += inside.bytes();
                if linked > most {
                    return Err(ArchiveError::Links);
                }
                all.push(inside);
            }
            if all.len() > before {
                continue;
            }
        }
        all.push(ArchiveMember { name: member.name.clone(), size, place });
    }
    Ok(all)
}

/// Adds what is not hidden: macOS leaves `__MACOSX/._photo.jpg` beside photo.jpg.
fn add(members: &mut Vec<ArchiveMember>, member: ArchiveMember) {
    if !member.name.iter().any(|part| is_hidden(Path::new(part))) {
        members.push(member);
    }
}

/// A file that is read from a place of its own, so that several threads read it at once.
#[derive(Clone)]
struct FileWindow {
    file: Arc<File>,
    length: u64,
    at: u64,
}

impl FileWindow {
    fn of(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), length, at: 0 })
    }
}

impl Read for FileWindow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(&*self.file, buffer, self.at)?;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(&*self.file, buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for FileWindow {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::SimpleFileOptions;

    use super::*;

    const FILES: [(&str, &[u8]); 6] = [
        ("val/b/2.png", b"two"),
        ("val/a/1.JPEG", b"one, which is longer"),
        ("val/a/readme.txt", b"text"),
        ("val/a/._1.jpg", b"hidden"),
        ("__MACOSX/x/._y.jpg", b"hidden"),
        ("../val/a/empty.jpg", b""),
    ];

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (i, (name, bytes)) in files.iter().enumerate() {
            let method = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated][i % 2];
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn opened(bytes: &[u8]) -> Result<Arc<ImageArchive>, ArchiveError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, bytes).unwrap();
        ImageArchive::open(&path)
    }

    #[test]
    fn members_are_read_in_any_order_from_any_thread() {
        for bytes in [tar_of(&FILES), zip_of(&FILES)] {
            let archive = opened(&bytes).unwrap();
            let images = archive.images();
            let below: Vec<&str> = images.iter().map(|(_, name)| name.to_str().unwrap()).collect();
            assert_eq!(below, ["val/a/1.JPEG", "val/a/empty.jpg", "val/b/2.png"]);
            let name = archive.member_name(images[0].0);
            assert!(name.ends_with("data/val/a/1.JPEG"), "{name}");
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        for (image, bytes) in [(2, &b"two"[..]), (0, b"one, which is longer"), (1, b"")] {
                            assert_eq!(archive.read(images[image].0, 20).unwrap().as_deref(), Some(bytes));
                        }
                    });
                }
            });
            assert_eq!(archive.read(images[0].0, 19).unwrap(), None);
        }
    }

    #[test]
    fn what_is_no_archive_is_said() {
        let mut gzip = vec![0x1f, 0x8b];
        gzip.extend([0; 600]);
        let tar = tar_of(&FILES);
        let zip = zip_of(&FILES);
        for (bytes, says) in [
            (&gzip[..], "compressed with gzip; unpack that first"),
            (b"BZh91AY", "compressed with bzip2"),
            (b"\xff\xd8\xff\xe0 a picture", "neither a folder nor a tar or zip file"),
            (b"", "neither a folder"),
            (&zip[..zip.len() / 2], "a damaged zip file: "),
        ] {
            let error = opened(bytes).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        // A tar that was cut may have lost members that nobody knows of.
        for cut in [513, 1024, tar.len() - 1024] {
            let error = opened(&tar[..cut]).unwrap_err().to_string();
            assert!(error.starts_with("a damaged tar file: "), "{cut}: {error}");
        }
        let none = ImageArchive::open(Path::new("nowhere.tar")).unwrap_err().to_string();
        assert_eq!(none, "no such file or folder");
    }

    #[test]
    fn links_lead_to_members_and_the_last_of_a_name_counts() {
        let mut tar = tar::Builder::new(Vec::new());
        let file = |tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.append_data(&mut header, name, bytes).unwrap();
        };
        let link = |tar: &mut tar::Builder<Vec<u8>>, kind, name: &str, target: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            tar.append_link(&mut header, name, target).unwrap();
        };
        file(&mut tar, "a/1.png", b"old");
        link(&mut tar, tar::EntryType::Link, "a/hard.png", "a/1.png");
        link(&mut tar, tar::EntryType::Symlink, "b/soft.png", "../a/hard.png");
        link(&mut tar, tar::EntryType::Symlink, "b/gone.png", "nowhere.png");
        link(&mut tar, tar::EntryType::Symlink, "b/round.png", "round.png");
        link(&mut tar, tar::EntryType::Symlink, "c", "a");
        file(&mut tar, "a/1.png", b"new");
        let archive = opened(&tar.into_inner().unwrap()).unwrap();
        let read = |(number, name): (usize, &Path)| {
            let bytes = archive.read(number, 9).map(|bytes| String::from_utf8(bytes.unwrap()).unwrap());
            (name.to_str().unwrap().to_owned(), bytes.map_err(|error| error.to_string()))
        };
        let all: Vec<_> = archive.images().into_iter().map(read).collect();
        let not_there = |name: &str| Err(format!("a link to {name}, which is not in the archive"));
        assert_eq!(
            all,
            [
                ("a/1.png".to_owned(), Ok("new".to_owned())),
                ("a/hard.png".to_owned(), Ok("new".to_owned())),
                ("b/gone.png".to_owned(), not_there("b/nowhere.png")),
                ("b/round.png".to_owned(), not_there("b/round.png")),
                ("b/soft.png".to_owned(), Ok("new".to_owned())),
                ("c/1.png".to_owned(), Ok("new".to_owned())),
                ("c/hard.png".to_owned(), Ok("new".to_owned())),
            ]
        );
    }

    /// A few links in a small file never fill the memory.
    #[test]
    fn links_to_folders_have_an_end() {
        let file = |name: String| ArchiveMember { name: name.into(), size: 1, place: MemberPlace::At(0) };
        let link = |name: &str, target: &str| {
            let (name, target) = (PathBuf::from(name), PathBuf::from(target));
            ArchiveMember { name, size: 0, place: MemberPlace::Link(target) }
        };
        let files = || (0..50).map(|number| file(format!("a/b/{number}.png")));
        // To what is around them there is none.
        let around = ["", "a", "a/b"].map(|target| link("a/b/up", target));
        for link in around {
            let all = resolved(files().chain([link]).collect(), 0).unwrap();
            assert_eq!(all.len(), 51);
        }
        let most = 600 * file("c0/b/12.png".to_owned()).bytes();
        let links = |count: usize| (0..count).map(|number| link(&format!("c{number}"), "a"));
        assert_eq!(resolved(files().chain(links(10)).collect(), most).unwrap().len(), 550);
        for count in [13, 14, 50] {
            let error = resolved(files().chain(links(count)).collect(), most).err().unwrap().to_string();
            assert!(error.starts_with("its links to folders make far more files"), "{error}");
        }
        // Links in a circle are no folders.
        let all = resolved(vec![link("a.png", "b.png"), link("b.png", "a.png")], 1000).unwrap();
        let names: Vec<&str> = all.iter().map(|member| member.name.to_str().unwrap()).collect();
        assert_eq!(names, ["a.png", "b.png"]);
    }

    /// Any byte of an archive may be wrong: that is an error, or other bytes, and nothing worse.
    #[test]
    fn damage_is_an_error() {
        for whole in [tar_of(&FILES), zip_of(&FILES)] {
            for at in (0..whole.len()).step_by(7) {
                let mut bytes = whole.clone();
                bytes[at] ^= 0xff;
                if let Ok(archive) = opened(&bytes) {
                    for number in 0..archive.members.len() {
                        let _ = archive.read(number, 1 << 20);
                    }
                }
            }
        }
    }
}
