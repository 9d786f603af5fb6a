//! Checkpoints of every kind, and files made to harm: what each gives, value by value.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::*;

mod containers;
mod sharing;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");

/// Everything in a file as `tests/golden/make/pickles.py` writes it: path to value.
fn flat(source: &TensorStore) -> BTreeMap<String, Json> {
    let mut out = BTreeMap::new();
    flatten(source, source.root(), String::new(), &mut out);
    out
}

fn flatten(source: &TensorStore, value: &Value, path: String, out: &mut BTreeMap<String, Json>) {
    let mut below = |value: &Value, name: &str| flatten(source, value, format!("{path}/{name}"), out);
    let shown = match value {
        Value::None => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Float(value) => json!(value),
        Value::Str(value) => json!(**value),
        Value::Bytes(bytes) => json!(format!("bytes {}", hex(bytes))),
        Value::List(items) => {
            items.iter().enumerate().for_each(|(i, item)| below(item, &i.to_string()));
            json!(format!("list of {}", items.len()))
        }
        Value::Dict(pairs) => {
            for (key, value) in pairs.iter() {
                match key {
                    Value::Str(key) => below(value, key),
                    other => below(value, &format!("{other:?}")),
                }
            }
            json!(format!("dict of {}", pairs.len()))
        }
        Value::Tensor(tensor) => {
            let mut bytes = vec![7; 3];
            match source.read(tensor, &mut bytes) {
                Ok(()) => json!(format!("{:?} {:?} {}", tensor.dtype, tensor.shape, hex(&bytes))),
                Err(error) => json!(error.to_string()),
            }
        }
        Value::Opaque { global, state } => {
            if let Some(state) = state {
                below(state, ".");
            }
            json!(format!("<{global}>"))
        }
    };
    out.insert(path, shown);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens bytes as a file; the file goes when the folder is dropped.
fn open(bytes: &[u8]) -> (tempfile::TempDir, Result<TensorStore, StoreError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, bytes).unwrap();
    let source = TensorStore::open(&path);
    (folder, source)
}

/// What a file holds, or its error without the path: the same from disk and from memory.
fn outcome(bytes: &[u8]) -> Result<BTreeMap<String, Json>, String> {
    let found = |source: Result<TensorStore, StoreError>| {
        source.map(|source| flat(&source)).map_err(|error| {
            let line = error.to_string();
            assert!(!line.contains('\n'), "{line}");
            error.problem.to_string()
        })
    };
    let (folder, source) = open(bytes);
    let outcome = found(source);
    // What a tensor's elements could not be read for names the file too.
    let path = folder.path().join("file").display().to_string();
    assert!(outcome == found(TensorStore::from_bytes(&path, bytes.to_vec())), "{outcome:?}");
    outcome
}

fn files(extension: &str, folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(extension, path));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

/// A legacy file around the pickle of an object (without its STOP), with storages of key, element
/// count and bytes.
fn legacy(object: &[u8], storages: &[(&str, u64, &[u8])]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let mut file = [magic, &b"\x80\x02M\xe9\x03."[..], b"\x80\x02}.", b"\x80\x02", object, b"."].concat();
    let keys: Vec<_> = storages.iter().map(|(key, ..)| text(key)).collect();
    file.extend([b"\x80\x02", &list(&keys)[..], b"."].concat());
    for (_, count, bytes) in storages {
        file.extend(count.to_le_bytes());
        file.extend(*bytes);
    }
    file
}

/// A legacy file around an object, with the storage `k` of 16 bytes if the object names it: one
/// that no tensor names can't be walked past.
fn holding(object: &[u8]) -> Vec<u8> {
    let names = |word: &str| object.windows(word.len()).any(|window| window == word.as_bytes());
    let count = if names("UntypedStorage") { 16 } else { 4 };
    let storages = [("k", count, FLOATS)];
    legacy(object, if names("Storage") { &storages } else { &[] })
}

/// A torch zip archive of entries in one folder.
fn archive(folder: &str, entries: &[(&str, &[u8])]) -> Vec<u8> {
    zipped(folder, entries, false)
}

/// A zip archive of entries in one folder, as they are or deflated. The writer here can't deflate, so that
/// the headers are written by hand.
fn zipped(folder: &str, entries: &[(&str, &[u8])], deflated: bool) -> Vec<u8> {
    if !deflated {
        let mut zip = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options =
            ::zip::write::SimpleFileOptions::default().compression_method(::zip::CompressionMethod::Stored);
        for (name, bytes) in entries {
            zip.start_file(format!("{folder}/{name}"), options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        return zip.finish().unwrap().into_inner();
    }
    let entries = entries.iter().map(|(name, bytes)| {
        let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(bytes).unwrap();
        (format!("{folder}/{name}"), packer.finish().unwrap(), bytes.len() as u32)
    });
    headed(&entries.collect::<Vec<_>>())
}

/// A zip archive of deflated entries: names, what is packed, and the length that the headers give it.
fn headed(entries: &[(String, Vec<u8>, u32)]) -> Vec<u8> {
    let (mut file, mut central) = (Vec::new(), Vec::new());
    for (name, packed, size) in entries {
        let start = (file.len() as u32).to_le_bytes();
        // Version, UTF-8 names, deflated, no time, a checksum that nobody looks at, lengths, no extra field.
        let mut header = [20, 0, 0, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
        header.extend((packed.len() as u32).to_le_bytes());
        header.extend(size.to_le_bytes());
        header.extend([(name.len() as u16).to_le_bytes(), [0; 2]].concat());
        file.extend([b"PK\x03\x04", &header[..], name.as_bytes(), packed].concat());
        central.extend([b"PK\x01\x02", &[20, 0][..], &header, &[0; 10], &start, name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (start, len) = ((file.len() as u32).to_le_bytes(), (central.len() as u32).to_le_bytes());
    [&file[..], &central, b"PK\x05\x06", &[0; 4], &count, &count, &len, &start, &[0; 2]].concat()
}

fn safetensors_file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(number: i64) -> Vec<u8> {
    [b"\x8a\x08", &number.to_le_bytes()[..]].concat()
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"l"].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

fn ints(numbers: &[i64]) -> Vec<u8> {
    tuple(&numbers.iter().map(|&number| int(number)).collect::<Vec<_>>())
}

fn global(name: &str) -> Vec<u8> {
    let (module, name) = name.rsplit_once('.').unwrap();
    format!("c{module}\n{name}\n").into_bytes()
}

fn call(name: &str, args: &[Vec<u8>]) -> Vec<u8> {
    [global(name), tuple(args), b"R".to_vec()].concat()
}

fn storage(class: &str, key: &str, numel: i64, view: Vec<u8>) -> Vec<u8> {
    let items = [text("storage"), global(class), text(key), text("cuda:0"), int(numel), view];
    [tuple(&items), b"Q".to_vec()].concat()
}

/// A tensor over the float storage `k` of 4 elements.
fn tensor(offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let k = storage("torch.FloatStorage", "k", 4, b"N".to_vec());
    call("torch._utils._rebuild_tensor", &[k, int(offset), ints(shape), ints(strides)])
}

const FLOATS: &[u8] = b"\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0";

#[test]
fn golden_pickles_hold_what_python_saved() {
    let paths = files("pth", format!("{GOLDEN}/pickle").into());
    assert!(paths.len() >= 8, "{paths:?}");
    for path in paths {
        let expected = fs::read_to_string(path.with_extension("json")).unwrap();
        let expected: BTreeMap<String, Json> = serde_json::from_str(&expected).unwrap();
        let found = flat(&TensorStore::open(&path).unwrap());
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{path:?}");
        for (key, value) in expected {
            assert_eq!(found[&key], value, "{path:?} {key}");
        }
    }
}

#[test]
fn every_golden_checkpoint_opens_and_its_twin_holds_the_same() {
    let mut twins = 0;
    for path in [files("pth", GOLDEN.into()), files("bin", GOLDEN.into())].concat() {
        let source = TensorStore::open(&path).unwrap();
        let found = flat(&source);
        assert!(found.len() > 20, "{path:?} holds {}", found.len());
        let name = path.file_name().unwrap().to_str().unwrap();
        let twin = match name.strip_prefix("zip-") {
            Some(rest) => format!("legacy-{rest}"),
            None => name.replace("model.pth", "model_legacy.pth"),
        };
        let twin = path.with_file_name(&twin);
        if twin != path && twin.exists() {
            assert_eq!(source.container(), Container::TorchZip);
            let twin = TensorStore::open(&twin).unwrap();
            assert_eq!(twin.container(), Container::TorchLegacy);
            assert!(found == flat(&twin), "{path:?}");
            twins += 1;
        }
    }
    // One of each pickle protocol.
    assert!(twins >= 4, "{twins}");
}

#[test]
fn opcodes_and_reductions() {
    let rebuild = |function: &str, storage: Vec<u8>, rest: &[Vec<u8>]| {
        let first = [storage, int(1), ints(&[3]), ints(&[1])];
        call(&format!("torch._utils.{function}"), &[&first[..], rest].concat())
    };
    let floats = || storage("torch.FloatStorage", "k", 4, b"N".to_vec());
    let bytes = || storage("torch.storage.UntypedStorage", "k", 16, b"N".to_vec());
    let dtype = |name| [b"\x89N".to_vec(), global(name)];
    let v2 = [
        global("torch._utils._rebuild_tensor_v2"),
        global("my.Tensor"),
        tuple(&[floats(), int(1), ints(&[3]), ints(&[1])]),
        b"}".to_vec(),
    ];
    let view = |class, offset, count| storage(class, "k", 4, tuple(&[text("v"), int(offset), int(count)]));
    let whole = json!("F32 [3] 010000000200000003000000");
    let cases: Vec<(&str, Vec<u8>, Json)> = vec![
        ("INT", b"I-7\n".to_vec(), json!(-7)),
        ("INT as bool", b"I01\n".to_vec(), json!(true)),
        ("LONG", b"L-12L\n".to_vec(), json!(-12)),
        ("LONG, too wide", b"L99999999999999999999L\n".to_vec(), json!("<int>")),
        ("LONG1 of nothing", b"\x8a\0".to_vec(), json!(0)),
        ("LONG1 of one byte", b"\x8a\x01\x80".to_vec(), json!(-128)),
        ("LONG1 of 32 bytes", [b"\x8a\x20".to_vec(), vec![1; 32]].concat(), json!("<int>")),
        ("LONG4", b"\x8b\x02\0\0\0\x01\x80".to_vec(), json!(-32767)),
        ("FLOAT", b"F1.5\n".to_vec(), json!(1.5)),
        ("STRING", b"S'a\\x41\\n\\\\q\\z'\n".to_vec(), json!("aA\n\\q\\z")),
        ("UNICODE", b"V\\u00e4\\U0001d11e\\n\n".to_vec(), json!("ä𝄞\\n")),
        ("Python 2's text", b"U\x02ab".to_vec(), json!("ab")),
        ("Python 2's bytes", b"T\x02\0\0\0\xff\0".to_vec(), json!("bytes ff00")),
        ("a lone surrogate", b"X\x04\0\0\0a\xed\xa0\x80".to_vec(), json!("a\u{fffd}\u{fffd}\u{fffd}")),
        ("POP and POP_MARK", b"K\x01(K\x02K\x031(0K\x040".to_vec(), json!(1)),
        ("DUP", b"K\x052\x86".to_vec(), json!("list of 2")),
        ("PUT and GET", b"K\x06p300\n0g300\n".to_vec(), json!(6)),
        ("LONG_BINPUT", b"K\x06r\x01\x02\x03\x040j\x01\x02\x03\x04".to_vec(), json!(6)),
        ("DICT", b"(K\x01K\x02d".to_vec(), json!("dict of 1")),
        ("a key set twice", b"}X\x01\0\0\0aK\x01sX\x01\0\0\0aK\x02s".to_vec(), json!("dict of 1")),
        ("INST", b"(K\x01imod\nClass\n".to_vec(), json!("<mod.Class>")),
        ("OBJ", b"(cmod\nClass\nK\x01o".to_vec(), json!("<mod.Class>")),
        ("EXT1", b"\x82\x01".to_vec(), json!("<copyreg.extension>")),
        ("NEWOBJ_EX", b"cmod\nClass\n)}\x92".to_vec(), json!("<mod.Class>")),
        ("PERSID", b"Pid\n".to_vec(), json!("<(persistent id)>")),
        ("an unknown persistent id", b"K\x01Q".to_vec(), json!("<(persistent id)>")),
        (
            "OrderedDict of items",
            call("collections.OrderedDict", &[list(&[tuple(&[text("a"), int(1)])])]),
            json!("dict of 1"),
        ),
        ("a subclass of list", b"cmod\nClass\n)R(K\x01K\x02e".to_vec(), json!("<mod.Class>")),
        ("a call of a call", b"cmod\nf\n)R)R".to_vec(), json!("<mod.f>")),
        ("a tensor", rebuild("_rebuild_tensor", floats(), &[]), whole.clone()),
        (
            "a CUDA class",
            rebuild("_rebuild_tensor", storage("torch.cuda.FloatStorage", "k", 4, b"N".to_vec()), &[]),
            whole.clone(),
        ),
        ("version 3", rebuild("_rebuild_tensor_v3", bytes(), &dtype("torch.float32")), whole.clone()),
        (
            "version 3, other dtype",
            rebuild("_rebuild_tensor_v3", bytes(), &dtype("torch.uint16")),
            json!("<torch.uint16>"),
        ),
        ("a subclass of Tensor", call("torch._tensor._rebuild_from_type_v2", &v2), whole.clone()),
        ("a view", rebuild("_rebuild_tensor", view("torch.FloatStorage", 0, 4), &[]), whole),
        (
            "a view with an offset",
            call(
                "torch._utils._rebuild_tensor",
                &[view("torch.FloatStorage", 1, 2), int(1), ints(&[1]), ints(&[1])],
            ),
            json!("F32 [1] 02000000"),
        ),
        ("a tensor of nothing, anywhere", tensor(i64::MAX, &[0, 5], &[5, 1]), json!("F32 [0, 5] ")),
        (
            "a repeated element",
            tensor(2, &[2, 2], &[0, 0]),
            json!("F32 [2, 2] 02000000020000000200000002000000"),
        ),
    ];
    for (name, object, expected) in cases {
        let file = holding(&object);
        assert_eq!(outcome(&file).map(|values| values[""].clone()), Ok(expected), "{name}");
    }
}

#[test]
fn nothing_that_a_pickle_names_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let command = text(&format!("touch {}", mark.display()));
    for name in ["os.system", "posix.system", "builtins.eval", "subprocess.Popen", "torch.load"] {
        let reduced = call(name, std::slice::from_ref(&command));
        let built = [global(name), tuple(std::slice::from_ref(&command)), b"\x81}b".to_vec()].concat();
        let inner = [b"}".to_vec(), text("state_dict"), reduced.clone(), b"s".to_vec()].concat();
        let found = outcome(&legacy(&reduced, &[])).unwrap();
        assert_eq!(found[""], json!(format!("<{name}>")));
        assert_eq!(outcome(&legacy(&built, &[])).unwrap()[""], json!(format!("<{name}>")));
        assert_eq!(outcome(&legacy(&inner, &[])).unwrap()["/state_dict"], json!(format!("<{name}>")));
    }
    assert!(!mark.exists());
}

#[test]
fn hostile_pickles_are_refused() {
    let repeat = |start: &[u8], step: &[u8], times: usize| [start.to_vec(), step.repeat(times)].concat();
    let v2 = |args: &[Vec<u8>]| call("torch._utils._rebuild_tensor_v2", args);
    let k = |numel| storage("torch.FloatStorage", "k", numel, b"N".to_vec());
    let view =
        |offset, count| storage("torch.FloatStorage", "k", 4, tuple(&[text("v"), int(offset), int(count)]));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no stack", b"".to_vec(), "the stack is empty"),
        ("pop through a mark", b"K\x01(0\x85".to_vec(), ""),
        ("tuple through a mark", b"K\x01(\x85".to_vec(), "the stack is empty"),
        ("no mark", b"t".to_vec(), "there is no mark"),
        ("unknown opcode", b"\xff".to_vec(), "0xff is no opcode"),
        ("protocol 6", b"\x80\x06N".to_vec(), "protocol 6 is unknown"),
        ("out of band", b"\x97".to_vec(), "out of band"),
        ("4 GiB of text", b"X\xff\xff\xff\xff".to_vec(), "4294967295 bytes are announced and"),
        ("2^64 bytes", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "are announced and"),
        ("2^32 bytes of LONG4", b"\x8b\xff\xff\xff\xff".to_vec(), "are announced and"),
        (
            "a long string",
            [b"B\x01\0\0\x01".to_vec(), vec![0; (16 << 20) + 1]].concat(),
            "is longer than 16777216",
        ),
        ("a line without end", b"cmod".to_vec(), "a line has no end"),
        (
            "a pickle of 65 MiB",
            repeat(b"", &[&b"B\0\0\0\x01"[..], &[0; 16 << 20], b"0"].concat(), 5),
            "longer than 67108864",
        ),
        ("a memo bomb", repeat(b"]q\0", b"0h\0h\0\x86q\0", 200), "with shared ones counted each time"),
        ("a depth bomb", repeat(b")", b"\x85", 100_000), "nested more than 512 deep"),
        ("a depth bomb of states", repeat(b"N", b"q\x000cm\nc\n)\x81h\0b", 600), "nested more than 512 deep"),
        ("an object bomb", repeat(b"N", b"0N", arena::MAX_NODES), "more than 2097152 objects"),
        ("a stack bomb", repeat(b"N", b"2", pickle::MAX_STACK), "the stack is higher than"),
        ("a mark bomb", repeat(b"", b"(", pickle::MAX_STACK + 1), "marks are open"),
        (
            "a bomb of copies",
            repeat(&[ints(&[0; 65536]), b"q\0".to_vec()].concat(), b"0ctorch\nSize\nh\0\x85R", 65),
            "more than 4194304 members",
        ),
        (
            "a bomb of appended members",
            repeat(
                &[b"]q\0".to_vec(), b"h\0".repeat(1000)].concat(),
                &[b"(".to_vec(), b"h\0".repeat(1000), b"e".to_vec()].concat(),
                4200,
            ),
            "more than 4194304 members",
        ),
        (
            "a bomb of memo entries",
            b"N".iter()
                .copied()
                .chain((0..=arena::MAX_NODES as u32).flat_map(|i| [b'r'].into_iter().chain(i.to_le_bytes())))
                .collect(),
            "the memo has more than 2097152 entries",
        ),
        (
            "a bomb of names",
            [text(&"n".repeat(600)), b"q\0h\0\x93".to_vec()].concat(),
            "no text, or a long one",
        ),
        ("a long name", format!("c{}\nn\n", "n".repeat(600)).into_bytes(), "longer than 512 bytes"),
        (
            "a long key",
            storage("torch.FloatStorage", &"k".repeat(600), 4, b"N".to_vec()),
            "no text, or a long one",
        ),
        ("memo without entry", b"h\x09".to_vec(), "the memo has no entry 9"),
        ("half a dictionary", b"(K\x01d".to_vec(), "a key without a value"),
        ("items of a number", b"K\x01K\x02a".to_vec(), "what is no list"),
        ("keys of a list", b"]K\x01K\x02s".to_vec(), "what is no dictionary"),
        ("a call of text", b"U\x01a)R".to_vec(), "what is called has no name"),
        ("a call without arguments", b"cos\nsystem\nNR".to_vec(), "not a tuple"),
        ("an unnamed global", b"NN\x93".to_vec(), "name of a global is no text"),
        ("a dictionary of a number", call("collections.OrderedDict", &[int(1)]), "made of what is no list"),
        (
            "a dictionary of numbers",
            call("collections.OrderedDict", &[list(&[int(1)])]),
            "made of what are no pairs",
        ),
        (
            "an endless wrapper",
            call(
                "torch._tensor._rebuild_from_type_v2",
                &[global("torch._tensor._rebuild_from_type_v2"), global("a.b"), b")".to_vec(), b"}".to_vec()],
            ),
            "names no function",
        ),
        ("a tensor of nothing", v2(&[]), "_rebuild_tensor_v2 has 0 arguments"),
        ("a parameter of nothing", call("torch._utils._rebuild_parameter", &[]), "has no tensor"),
        ("a tensor of numbers", v2(&[int(1), int(1), int(1), int(1)]), "has no storage"),
        (
            "version 3 without dtype",
            call("torch._utils._rebuild_tensor_v3", &[k(4), int(0), ints(&[]), ints(&[])]),
            "has no dtype",
        ),
        ("a negative shape", tensor(0, &[-1], &[1]), "shape is not a tuple of numbers"),
        ("a negative stride", tensor(0, &[2], &[-1]), "stride is not a tuple of numbers"),
        ("a negative offset", tensor(-1, &[2], &[1]), "offset is not a number"),
        ("a missing stride", tensor(0, &[2, 2], &[1]), "2 dimensions and 1 strides"),
        ("65 dimensions", tensor(0, &[1; 65], &[1; 65]), "65 dimensions"),
        ("too long a tensor", tensor(0, &[5], &[1]), "does not fit into its storage of 16 bytes"),
        ("too far a tensor", tensor(2, &[3], &[1]), "does not fit into its storage"),
        ("too wide a stride", tensor(0, &[2], &[4]), "does not fit into its storage"),
        ("an overflowing shape", tensor(0, &[i64::MAX, 4], &[0, 0]), "overflows"),
        ("an overflowing stride", tensor(0, &[3], &[i64::MAX]), "overflows"),
        ("an overflowing offset", tensor(i64::MAX, &[1], &[1]), "overflows"),
        (
            "an element repeated to 4 GiB",
            tensor(0, &[1 << 30], &[0]),
            "repeats its storage of 16 bytes to 4294967296",
        ),
        ("an overflowing storage", k(i64::MAX), "storage's length overflows"),
        ("a storage of -1", k(-1), "length is not a number"),
        ("a storage longer than the file says", k(5), "storage `k` has 16 bytes instead of 20"),
        ("a view outside", view(2, 3), "outside its storage `k`"),
        ("an overflowing view", view(i64::MAX, 1), "overflows"),
        (
            "a missing storage",
            storage("torch.FloatStorage", "x", 4, b"N".to_vec()),
            "storage `k` has no known class",
        ),
    ];
    for (name, object, expected) in cases {
        let found = outcome(&holding(&object)).map(|values| values.len());
        match expected {
            "" => assert!(found.is_ok(), "{name}: {found:?}"),
            _ => assert!(found.as_ref().is_err_and(|error| error.contains(expected)), "{name}: {found:?}"),
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let object = [b"}".to_vec(), text("weight"), tensor(0, &[2, 2], &[1, 2]), b"s".to_vec()].concat();
    let pickled = [b"\x80\x02", &object[..], b"."].concat();
    let header = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
    let safetensors = safetensors_file(header, &[1, 2]);
    for file in [holding(&object), archive("a", &[("data.pkl", &pickled), ("data/k", FLOATS)]), safetensors] {
        outcome(&file).unwrap();
        for len in 0..file.len() {
            assert!(outcome(&file[..len]).is_err(), "{len} of {} bytes", file.len());
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut opened = [0, 0];
    for name in [
        "legacy-protocol0",
        "zip-protocol1",
        "legacy-protocol2",
        "legacy-protocol4",
        "zip-protocol2",
        "zip-protocol5",
    ] {
        let good = fs::read(format!("{GOLDEN}/pickle/{name}.pth")).unwrap();
        for _ in 0..400 {
            let mut bad = good.clone();
            for _ in 0..1 + random(4) {
                let at = random(bad.len());
                bad[at] = random(256) as u8;
            }
            fs::write(&path, &bad).unwrap();
            match TensorStore::open(&path) {
                Ok(source) => {
                    flat(&source);
                    opened[0] += 1;
                }
                Err(error) => {
                    assert!(!error.to_string().contains('\n'), "{error}");
                    opened[1] += 1;
                }
            }
        }
    }
    assert!(opened.iter().all(|&count| count > 100), "{opened:?}");
}

#[test]
fn numpy_arrays_that_fill_a_pickle_are_the_reason() {
    let header = [global("numpy.dtype"), b"0".to_vec()].concat();
    let long = [header, b"B".to_vec(), (17u32 << 20).to_le_bytes().to_vec(), vec![0; 17 << 20]].concat();
    let error = outcome(&legacy(&long, &[])).unwrap_err();
    assert!(error.contains("it holds numpy arrays; save tensors instead"), "{error}");
}
