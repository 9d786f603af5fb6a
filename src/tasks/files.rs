//! Files that are written whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use image::{ImageBuffer, PixelWithColorType, RgbImage};
use tempfile::{Builder, NamedTempFile};

use super::TaskError;
use crate::images::PictureFormat;
use crate::images::encode::{EncodeError, encode, png};
use crate::images::software::says_ours;

/// A file that grows under a temporary name beside its target and takes the target's name when it is
/// kept. Dropped before, it leaves nothing. What is no plain file (a pipe, a device) is written as it
/// is.
pub struct NewFile {
    form: BufWriter<Destination>,
    _unfinished: RwLockReadGuard<'static, ()>,
}

/// Held by every file that is not in place yet.
static UNFINISHED: RwLock<()> = RwLock::new(());

/// Waits until every file that is being written is in place or gone, and lets none begin while the guard lives: for a
/// program that ends at once and leaves nothing half written.
pub fn settle() -> RwLockWriteGuard<'static, ()> {
    UNFINISHED.write().unwrap_or_else(PoisonError::into_inner)
}

enum Destination {
    Staged { file: NamedTempFile, target: PathBuf },
    Direct(File),
}

impl NewFile {
    /// Begins the file.
    ///
    /// # Errors
    /// When the target is a folder or its folder can't be written to.
    pub fn create(target: &Path) -> io::Result<Self> {
        let unfinished = UNFINISHED.read().unwrap_or_else(PoisonError::into_inner);
        // Through a symbolic link, so that it stays one.
        let target = target.canonicalize().unwrap_or_else(|_| target.to_owned());
        let form = match fs::metadata(&target) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => Destination::Direct(File::options().write(true).open(&target)?),
            _ => {
                let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
                let mut builder = Builder::new();
                builder.prefix(".nat-infer-");
                // As every new file, less what the umask takes; the default is the owner alone.
                #[cfg(unix)]
                builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
                let file = builder.tempfile_in(folder.unwrap_or(Path::new(".")));
                // The path of the temporary file is none of the user's business.
                let file = file.map_err(|e| io::Error::from(e.kind()))?;
                Destination::Staged { file, target }
            }
        };
        Ok(Self { form: BufWriter::new(form), _unfinished: unfinished })
    }

    /// Ends the file and puts it in place.
    ///
    /// # Errors
    /// When the last bytes can't be written.
    pub fn keep(self) -> io::Result<()> {
        match self.form.into_inner().map_err(io::IntoInnerError::into_error)? {
            Destination::Staged { file, target } => file.persist(target).map(drop).map_err(|e| e.error),
            Destination::Direct(_) => Ok(()),
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.form.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.form.flush()
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Staged { file, .. } => file.as_file_mut().write(bytes),
            Self::Direct(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Staged { file, .. } => file.as_file_mut().flush(),
            Self::Direct(file) => file.flush(),
        }
    }
}

/// Whether an error of one file would be every other file's too: there is no room, or nothing may be written at all.
pub fn concerns_all(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// Writes a picture to a file, whole or not at all.
///
/// # Errors
/// When the file can't be written, or the picture is larger than its format can be; what was there before is then
/// unchanged.
pub fn save_picture(image: &RgbImage, format: PictureFormat, path: &Path) -> Result<(), TaskError> {
    save(encode(image, format), path)
}

/// Writes an image of 8 bits, grey or RGB, to a PNG file, whole or not at all.
///
/// # Errors
/// When the file can't be written; what was there before is then unchanged.
pub fn save_png<P>(image: &ImageBuffer<P, Vec<u8>>, path: &Path) -> Result<(), TaskError>
where
    P: PixelWithColorType<Subpixel = u8>,
{
    save(png(image), path)
}

fn save(bytes: Result<Vec<u8>, EncodeError>, path: &Path) -> Result<(), TaskError> {
    let failed = |error| TaskError::Write { path: path.display().to_string(), error };
    let bytes = bytes.map_err(|error| failed(io::Error::other(error)))?;
    let mut file = NewFile::create(path).map_err(failed)?;
    file.write_all(&bytes).map_err(failed)?;
    file.keep().map_err(failed)
}

/// What our safetensors files say made them.
pub(crate) const SOFTWARE_METADATA: [&str; 2] = ["software", "nat-infer"];

/// Whether a file is a picture or tensors that this crate saved, or empty: what may be replaced.
pub fn is_ours(path: &Path) -> bool {
    let Ok((begin, end)) = ends(path) else { return false };
    let tensors = format!("{:?}:{:?}", SOFTWARE_METADATA[0], SOFTWARE_METADATA[1]);
    let says = |words: &str| begin.windows(words.len()).any(|part| part == words.as_bytes());
    begin.is_empty() || says_ours(&begin, &end) || says(&tensors)
}

/// The first and the last bytes of a file, where ours say it.
fn ends(path: &Path) -> io::Result<(Vec<u8>, Vec<u8>)> {
    const SOME: u64 = 1 << 12;
    let (mut begin, mut end) = (Vec::new(), Vec::new());
    let mut file = File::open(path)?;
    (&mut file).take(SOME).read_to_end(&mut begin)?;
    // What can't be sought in has no end to look at.
    if let Ok(length) = file.seek(SeekFrom::End(0)) {
        file.seek(SeekFrom::Start(length.saturating_sub(SOME)))?;
        file.take(SOME).read_to_end(&mut end)?;
    }
    Ok((begin, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_when_it_is_kept_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let names = || fs::read_dir(folder.path()).unwrap().count();

        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        assert!(!path.exists());
        file.keep().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"one".to_vec(), 1));

        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"two").unwrap();
        drop(file);
        assert_eq!((fs::read(&path).unwrap(), names()), (b"one".to_vec(), 1));
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_what_they_are() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("out"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = NewFile::create(&link).unwrap();
        file.write_all(b"new").unwrap();
        file.keep().unwrap();
        assert!(link.is_symlink() && fs::read(&path).unwrap() == b"new");
        // Readable as every other file is: not a temporary file's 0600.
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));

        NewFile::create(Path::new("/dev/null")).unwrap().keep().unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }

    #[test]
    fn our_files_are_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let image = image::RgbImage::from_fn(300, 200, |x, y| image::Rgb([x as u8, y as u8, 7]));
        save_png(&image, &path("ours.png")).unwrap();
        assert!(image::open(path("ours.png")).unwrap().into_rgb8() == image);
        save_png(&image::GrayImage::from_pixel(9, 9, image::Luma([3])), &path("grey.png")).unwrap();
        assert_eq!(image::open(path("grey.png")).unwrap().color(), image::ColorType::L8);
        for format in [PictureFormat::Png, PictureFormat::Jpeg, PictureFormat::Webp] {
            save_picture(&image, format, &path(&format!("ours.{}", format.extension()))).unwrap();
        }
        image.save(path("theirs.png")).unwrap();
        image.save(path("theirs.jpg")).unwrap();
        image.save(path("theirs.webp")).unwrap();
        fs::write(path("empty"), "").unwrap();
        fs::write(path("text"), "nat-infer").unwrap();
        for (name, ours) in [
            ("ours.png", true),
            ("ours.jpg", true),
            ("ours.webp", true),
            ("grey.png", true),
            ("theirs.png", false),
            ("theirs.jpg", false),
            ("theirs.webp", false),
            ("empty", true),
            ("text", false),
            ("none", false),
        ] {
            assert_eq!(is_ours(&path(name)), ours, "{name}");
        }
    }

    #[test]
    fn what_can_not_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(NewFile::create(folder.path()).is_err());
        assert!(NewFile::create(&folder.path().join("no/such")).is_err());
    }
}
