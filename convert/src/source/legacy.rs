//! Files of torch before 1.6, and of `_use_new_zipfile_serialization=False` after it: pickles of a
//! magic number, a protocol version, the writer's system, the object, the storages' keys; then each
//! storage as its number of elements and their bytes.
//!
//! Source: torch/serialization.py, `_legacy_save` and `_legacy_load`. The elements are always
//! little-endian: torch's `writeFileRaw` swaps them on other machines.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read};
use std::sync::Arc;

use super::bytes::ByteSource;
use super::contents::{Container, Contents, StorageSpan};
use super::pickle::{self, PickleInput};
use super::problem::{Flaw, quoted};
use super::rebuild::Storages;
use super::value::Value;

/// 0x1950a86a20f9469cfc6c as LONG1 writes it.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The same as LONG writes it: the pickle's beginning in protocols 0 and 1, which have no LONG1 and no PROTO.
const OLD_MAGIC: &[u8] = b"L119547037146038801333356L\n.";
/// `PROTOCOL_VERSION` of every torch that wrote this format.
const VERSION: i64 = 1001;
/// Bytes of PROTO and FRAME; the latter is there from protocol 4 on.
const PROTO: usize = 2;
const FRAME: usize = 9;

/// Whether a file starts with the pickle of the magic number, in any protocol.
pub(super) fn is_legacy(head: &[u8]) -> bool {
    let magic_at = |at: usize| head.get(at..).is_some_and(|rest| rest.starts_with(MAGIC));
    head.starts_with(OLD_MAGIC) || head.first() == Some(&0x80) && (magic_at(PROTO) || magic_at(PROTO + FRAME))
}

/// Reads everything but the elements.
pub(super) fn open(bytes: &ByteSource, len: u64) -> Result<Contents, Flaw> {
    let mut input = PickleInput::new(BufReader::new(bytes.reader(0)), "torch legacy file", len);
    let mut storages = Storages::default();
    let _magic = pickle::load(&mut input, &mut storages)?;
    match pickle::load(&mut input, &mut storages)? {
        Value::Int(VERSION) => {}
        _ => return Err(input.fail(format!("the version of the format is not {VERSION}"))),
    }
    let _system = pickle::load(&mut input, &mut storages)?;
    let root = pickle::load(&mut input, &mut storages)?;
    let Value::List(keys) = pickle::load(&mut input, &mut storages)? else {
        return Err(input.fail("the list of storages is missing"));
    };

    let mut position = input.position();
    drop(input);
    let mut places: HashMap<Arc<str>, _> = HashMap::new();
    for key in keys.iter() {
        let fail = |what: &str| Flaw::Damaged {
            place: format!("torch legacy file, byte {position}"),
            what: what.into(),
        };
        let Value::Str(key) = key else { return Err(fail("a storage's key is not text")) };
        let storage = storages.get(key);
        let size = storage.and_then(|storage| storage.size).ok_or_else(|| {
            fail(&format!(
                "storage {} has no known class, so that what follows it can't be found",
                quoted(key)
            ))
        })?;
        let mut count = [0; 8];
        if len - position < 8 {
            return Err(fail("the file ends before all storages: download or copy it again"));
        }
        bytes.reader(position).read_exact(&mut count)?;
        let start = position + 8;
        let end = u64::from_le_bytes(count).checked_mul(size).and_then(|bytes| bytes.checked_add(start));
        let end = end.filter(|&end| end <= len).ok_or_else(|| {
            fail(&format!("storage {} is cut short: download or copy the file again", quoted(key)))
        })?;
        places.insert(key.clone(), StorageSpan::plain(start..end));
        position = end;
    }
    let place = || format!("torch legacy file, byte {position}");
    let storages = storages.place(&places).map_err(|what| Flaw::Damaged { place: place(), what })?;
    let metadata = BTreeMap::new();
    Ok(Contents { container: Container::TorchLegacy, root, storages, metadata })
}
