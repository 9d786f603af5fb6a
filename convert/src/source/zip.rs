//! Files of `torch.save` since 1.6: a zip archive of `<folder>/data.pkl`, one entry `<folder>/data/<key>`
//! a storage, and `<folder>/byteorder`. torch stores entries as they are; whoever packs the archive again
//! with other tools deflates them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::io::{self, BufReader, Read};

use flate2::bufread::DeflateDecoder;
use zip::CompressionMethod;
use zip::read::ZipArchive;

use super::bytes::{ByteReader, ByteSource};
use super::contents::{Container, Contents, StorageSpan};
use super::pickle::{self, PickleInput};
use super::problem::{Flaw, quoted};
use super::rebuild::Storages;
use super::value::MAX_EXPANDED_BYTES;

/// The most that compressed elements may grow by where that comes to more than [`MAX_EXPANDED_BYTES`]: of
/// trained weights little can be packed away.
const MAX_RATIO: u64 = 100;

/// Whether a file starts as zip archives do; an empty archive has only its end.
pub(super) fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

type Archive<'f> = ZipArchive<BufReader<ByteReader<'f>>>;

/// What an entry holds, unpacked, and where in the file it lies.
type ZipEntry<'a> = (Box<dyn Read + 'a>, StorageSpan);

/// Unpacks the `len` bytes that an entry holds.
pub(super) fn inflate<R: Read>(packed: R, len: u64) -> Inflate<R> {
    Inflate { left: len, bytes: DeflateDecoder::new(BufReader::new(packed)) }
}

/// Bytes of an entry on their way out, which must be as many as it says.
pub(super) struct Inflate<R: Read> {
    left: u64,
    bytes: DeflateDecoder<BufReader<R>>,
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let count = self.bytes.read(out).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => damaged(&error.to_string()),
            _ => error,
        })?;
        if count == 0 && self.left > 0 && !out.is_empty() {
            return Err(damaged("shorter than it says"));
        }
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| damaged("longer than it says"))?;
        Ok(count)
    }
}

/// Reads everything but the elements.
pub(super) fn open(bytes: &ByteSource, len: u64) -> Result<Contents, Flaw> {
    let archive = ZipArchive::new(BufReader::new(bytes.reader(0)));
    let mut archive = archive.map_err(|error| damaged("zip archive", error))?;
    // Raw bytes: torch writes UTF-8 without the flag that says so.
    let names: Vec<Vec<u8>> = archive.file_names_raw().map(<[u8]>::to_vec).collect();
    // torch has one folder; who packs an archive again may leave it out or put it into another one.
    let folders = names.iter().filter_map(|name| name.strip_suffix(b"data.pkl"));
    let folders = folders.filter(|folder| folder.last().is_none_or(|&last| last == b'/'));
    let folder = folders.min_by_key(|folder| folder.len()).ok_or_else(|| no_checkpoint(&names))?;
    let path = |rest: &str| [folder, rest.as_bytes()].concat();
    if names.contains(&path("constants.pkl")) {
        return Err(Flaw::Unsupported(
            "a TorchScript archive: load it with torch.jit.load and torch.save its state_dict()".into(),
        ));
    }

    let mut big_endian = false;
    if let Some((bytes, _)) = entry(&mut archive, &path("byteorder"), len)? {
        let mut order = Vec::new();
        bytes.take(16).read_to_end(&mut order)?;
        big_endian = match &*order {
            b"little" => false,
            b"big" => true,
            _ => {
                let order = quoted(&String::from_utf8_lossy(&order));
                return Err(Flaw::Unsupported(format!("the byte order of the elements is {order}")));
            }
        };
    }

    let name = path("data.pkl");
    let (bytes, place) = entry(&mut archive, &name, len)?.ok_or_else(|| no_checkpoint(&names))?;
    let mut storages = Storages::default();
    let mut input = PickleInput::new(BufReader::new(bytes), shown(&name), place.len());
    let root = pickle::load(&mut input, &mut storages)?;
    drop(input);

    let mut places = HashMap::new();
    for storage in storages.iter() {
        if let Some((_, place)) = entry(&mut archive, &path(&format!("data/{}", storage.key)), len)? {
            places.insert(storage.key.clone(), StorageSpan { big_endian, ..place });
        }
    }
    let place = shown(&path("data"));
    let storages = storages.place(&places).map_err(|what| Flaw::Damaged { place, what })?;
    Ok(Contents { container: Container::TorchZip, root, storages, metadata: BTreeMap::new() })
}

/// An entry of that name, to be read, and where in the file it lies.
fn entry<'a>(archive: &'a mut Archive<'_>, name: &[u8], len: u64) -> Result<Option<ZipEntry<'a>>, Flaw> {
    let Some(index) = archive.index_for_name_raw(name) else { return Ok(None) };
    let entry = archive.by_index_raw(index).map_err(|error| damaged(&shown(name), error))?;
    let again = "unpack the archive and pack its folder with `zip -0 -r`";
    if entry.encrypted() {
        return Err(Flaw::Unsupported(format!("{} is encrypted: {again}", shown(name))));
    }
    let deflated = match entry.compression() {
        CompressionMethod::Stored => false,
        CompressionMethod::DEFLATE => true,
        other => {
            return Err(Flaw::Unsupported(format!("{} is compressed by {other}: {again}", shown(name))));
        }
    };
    let (packed, size) = (entry.compressed_size(), entry.size());
    let start = entry.data_start().unwrap_or(len);
    let stored = match start.checked_add(packed) {
        Some(end) if end <= len => start..end,
        _ => return Err(damaged(&shown(name), "the entry ends after the file")),
    };
    if deflated && size > MAX_EXPANDED_BYTES as u64 && size / MAX_RATIO > packed {
        let what = format!("{size} bytes are said to be packed in {packed}");
        return Err(Flaw::Damaged { place: shown(name), what });
    }
    let place = StorageSpan { stored, unpacked: deflated.then_some(size), ..StorageSpan::default() };
    let bytes: Box<dyn Read + 'a> = match deflated {
        true => Box::new(inflate(entry, size)),
        false => Box::new(entry),
    };
    Ok(Some((bytes, place)))
}

/// An entry's name as it may stand in a message.
fn shown(name: &[u8]) -> String {
    quoted(&String::from_utf8_lossy(name))
}

fn damaged(place: &str, error: impl Display) -> Flaw {
    Flaw::Damaged {
        place: place.into(),
        what: format!("cut short or damaged ({error}): download or copy the file again"),
    }
}

/// What an archive without a `data.pkl` in its only folder is.
fn no_checkpoint(names: &[Vec<u8>]) -> Flaw {
    Flaw::NotACheckpoint(match names.first() {
        None => "an empty zip archive".into(),
        Some(name) if name.ends_with(b".npy") => "a NumPy archive (.npz)".into(),
        Some(name) => format!(
            "a zip archive without data.pkl; its first entry is {}: unpack it if it holds the checkpoint",
            shown(name)
        ),
    })
}
