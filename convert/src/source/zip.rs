//! Files of `torch.save` since 1.6: a zip archive of `<folder>/data.pkl`, one stored entry
//! `<folder>/data/<key>` a storage, and `<folder>/byteorder`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;

use zip::CompressionMethod;
use zip::read::{ZipArchive, ZipFile};

use super::pickle::{self, Input};
use super::rebuild::Storages;
use super::{Container, Contents, Problem, quoted};

/// Whether a file starts as zip archives do; an empty archive has only its end.
pub(super) fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

type Archive<'f> = ZipArchive<BufReader<&'f mut File>>;
type Entry<'a, 'f> = ZipFile<'a, BufReader<&'f mut File>>;

/// Reads everything but the elements.
pub(super) fn open(file: &mut File, len: u64) -> Result<Contents, Problem> {
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged("zip archive", error))?;
    // Raw bytes: torch writes UTF-8 without the flag that says so.
    let names: Vec<Vec<u8>> = archive.file_names_raw().map(<[u8]>::to_vec).collect();
    let folder = names.iter().find_map(|name| name.strip_suffix(b"/data.pkl").filter(|f| !f.contains(&b'/')));
    let folder = folder.ok_or_else(|| no_checkpoint(&names))?;
    let path = |rest: &str| [folder, b"/", rest.as_bytes()].concat();
    if names.contains(&path("constants.pkl")) {
        return Err(Problem::Unsupported(
            "a TorchScript archive: load it with torch.jit.load and torch.save its state_dict()".into(),
        ));
    }

    let mut big_endian = false;
    if let Some((entry, _)) = stored(&mut archive, &path("byteorder"), len)? {
        let mut order = Vec::new();
        entry.take(16).read_to_end(&mut order)?;
        big_endian = match &*order {
            b"little" => false,
            b"big" => true,
            _ => {
                let order = quoted(&String::from_utf8_lossy(&order));
                return Err(Problem::Unsupported(format!("the byte order of the elements is {order}")));
            }
        };
    }

    let name = path("data.pkl");
    let (entry, place) = stored(&mut archive, &name, len)?.ok_or_else(|| no_checkpoint(&names))?;
    let mut storages = Storages::default();
    let mut input = Input::new(BufReader::new(entry), shown(&name), place.end - place.start);
    let root = pickle::load(&mut input, &mut storages)?;
    drop(input);

    let mut places = HashMap::new();
    for storage in storages.iter() {
        if let Some((_, place)) = stored(&mut archive, &path(&format!("data/{}", storage.key)), len)? {
            places.insert(storage.key.clone(), place);
        }
    }
    let place = shown(&path("data"));
    let storages = storages.place(&places).map_err(|what| Problem::Damaged { place, what })?;
    Ok(Contents { container: Container::TorchZip, root, storages, metadata: BTreeMap::new(), big_endian })
}

/// An entry of that name, to be read, and the bytes of the file that it takes.
fn stored<'a, 'f>(
    archive: &'a mut Archive<'f>,
    name: &[u8],
    len: u64,
) -> Result<Option<(Entry<'a, 'f>, Range<u64>)>, Problem> {
    let Some(index) = archive.index_for_name_raw(name) else { return Ok(None) };
    let entry = archive.by_index_raw(index).map_err(|error| damaged(&shown(name), error))?;
    if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
        return Err(Problem::Unsupported(format!(
            "{} is compressed or encrypted ({}): unpack the archive and pack its folder with `zip -0 -r`",
            shown(name),
            entry.compression()
        )));
    }
    let start = entry.data_start().unwrap_or(len);
    match start.checked_add(entry.compressed_size()) {
        Some(end) if end <= len => Ok(Some((entry, start..end))),
        _ => Err(damaged(&shown(name), "the entry ends after the file")),
    }
}

/// An entry's name as it may stand in a message.
fn shown(name: &[u8]) -> String {
    quoted(&String::from_utf8_lossy(name))
}

fn damaged(place: &str, error: impl Display) -> Problem {
    Problem::Damaged {
        place: place.into(),
        what: format!("cut short or damaged ({error}): download or copy the file again"),
    }
}

/// What an archive without a `data.pkl` in its only folder is.
fn no_checkpoint(names: &[Vec<u8>]) -> Problem {
    Problem::NotACheckpoint(match names.first() {
        None => "an empty zip archive".into(),
        Some(name) if name.ends_with(b".npy") => "a NumPy archive (.npz)".into(),
        Some(name) => format!(
            "a zip archive without data.pkl; its first entry is {}: unpack it if it holds the checkpoint",
            shown(name)
        ),
    })
}
