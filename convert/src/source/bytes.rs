//! Where a container's bytes are: in a file or in memory. Any number of threads read at once, as no read moves a
//! place that another one starts from.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes that somebody else owns: a `Vec`, an `Arc<[u8]>`, a mapped file.
pub(super) type OwnedBytes = Box<dyn AsRef<[u8]> + Send + Sync>;

/// The bytes of a container.
pub(super) enum ByteSource {
    File(File),
    Memory(OwnedBytes),
}

impl ByteSource {
    /// How many there are.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Memory(bytes) => Ok((**bytes).as_ref().len() as u64),
        }
    }

    /// Reads them from the byte `at` on.
    pub fn reader(&self, at: u64) -> ByteReader<'_> {
        ByteReader { source: self, at }
    }

    /// Fills the beginning of `out` with the bytes from `at` on, and says how many came: none behind the end.
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Self::File(file) => read_at(file, out, at),
            Self::Memory(bytes) => {
                let rest = usize::try_from(at).ok().and_then(|at| (**bytes).as_ref().get(at..));
                rest.unwrap_or_default().read(out)
            }
        }
    }
}

#[cfg(unix)]
fn read_at(file: &File, out: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, at)
}

/// It moves the file's cursor too, which nothing here looks at.
#[cfg(windows)]
fn read_at(file: &File, out: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, at)
}

/// Where a system reads only from a file's cursor, one thread at a time moves it.
#[cfg(not(any(unix, windows)))]
fn read_at(mut file: &File, out: &mut [u8], at: u64) -> io::Result<usize> {
    use std::sync::{Mutex, PoisonError};

    static CURSORS: Mutex<()> = Mutex::new(());
    let _moved = CURSORS.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(at))?;
    file.read(out)
}

/// Bytes from a place on, which is this reader's alone.
pub(super) struct ByteReader<'a> {
    source: &'a ByteSource,
    at: u64,
}

impl Read for ByteReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read_at(out, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for ByteReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.source.len()?.checked_add_signed(by),
        };
        // As a file's cursor: no system has files that are longer.
        self.at = to.filter(|&at| i64::try_from(at).is_ok()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_bytes_in_memory_read_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, b"0123456789").unwrap();
        for source in [
            ByteSource::File(File::open(path).unwrap()),
            ByteSource::Memory(Box::new(b"0123456789".to_vec())),
        ] {
            assert_eq!(source.len().unwrap(), 10);
            let (mut first, mut second) = (source.reader(2), source.reader(7));
            let pair = |reader: &mut ByteReader| {
                let mut out = [0; 2];
                reader.read_exact(&mut out).map(|()| out)
            };
            assert_eq!(pair(&mut first).unwrap(), *b"23");
            assert_eq!(pair(&mut second).unwrap(), *b"78");
            assert_eq!(pair(&mut first).unwrap(), *b"45");
            assert_eq!(pair(&mut second).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            for (to, at) in [
                (SeekFrom::Start(1), Some(1)),
                (SeekFrom::Current(3), Some(4)),
                (SeekFrom::Current(-5), None),
                (SeekFrom::End(-2), Some(8)),
                (SeekFrom::End(-11), None),
                (SeekFrom::Start(u64::MAX), None),
                (SeekFrom::Start(100), Some(100)),
            ] {
                assert_eq!(first.seek(to).ok(), at, "{to:?}");
            }
            assert_eq!(first.read(&mut [0; 2]).unwrap(), 0, "behind the end");
        }
    }
}
