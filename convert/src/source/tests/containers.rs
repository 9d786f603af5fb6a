//! Archives, safetensors, checkpoints in parts, and what is none of them.

use super::*;

#[test]
fn zip_archives() {
    let object = [b"\x80\x02".to_vec(), tensor(1, &[3], &[1]), b".".to_vec()].concat();
    let pkl = ("data.pkl", &*object);
    let k = ("data/k", FLOATS);
    let order = |order: &'static str| ("byteorder", order.as_bytes());
    let patched = |at: &[u8], offset: usize, byte: u8| {
        let mut file = archive("a", &[pkl, k]);
        let header = file.windows(at.len()).rposition(|window| window == at).unwrap();
        file[header + offset] = byte;
        file
    };
    let central = b"PK\x01\x02";
    // As torch writes names: UTF-8, without the flag (bit 11) that says so in every header.
    let unflagged = |mut file: Vec<u8>| {
        for (mark, flags) in [(central, 8), (b"PK\x03\x04", 6)] {
            for at in 0..file.len() - 4 {
                if file[at..].starts_with(mark) {
                    file[at + flags + 1] &= !8;
                }
            }
        }
        file
    };
    // What is patched in the last central header: compression method, flags, stored size.
    let cases: Vec<(&str, Vec<u8>, Result<&str, &str>)> = vec![
        ("plain", archive("a", &[pkl, k]), Ok("F32 [3] 010000000200000003000000")),
        ("folders in folders", archive("a/b", &[k, pkl]), Ok("F32 [3] 010000000200000003000000")),
        ("any folder", archive("my model ä", &[k, pkl]), Ok("F32 [3] 010000000200000003000000")),
        (
            "a name without its flag",
            unflagged(archive("ä", &[k, pkl])),
            Ok("F32 [3] 010000000200000003000000"),
        ),
        ("little", archive("a", &[pkl, k, order("little")]), Ok("F32 [3] 010000000200000003000000")),
        ("big", archive("a", &[pkl, k, order("big")]), Ok("F32 [3] 000000010000000200000003")),
        (
            "middle",
            archive("a", &[pkl, k, order("middle\n")]),
            Err("the byte order of the elements is `middle\\n`"),
        ),
        ("no storage", archive("a", &[pkl]), Err("`a/data`: storage `k` is not in the file")),
        (
            "short storage",
            archive("a", &[pkl, ("data/k", &FLOATS[1..])]),
            Err("storage `k` has 15 bytes instead of 16"),
        ),
        ("deflated", zipped("a", &[pkl, k, order("little")], true), Ok("F32 [3] 010000000200000003000000")),
        ("deflated, big", zipped("a", &[k, order("big"), pkl], true), Ok("F32 [3] 000000010000000200000003")),
        (
            "short and deflated",
            zipped("a", &[pkl, ("data/k", &FLOATS[1..])], true),
            Err("has 15 bytes instead of 16"),
        ),
        (
            "not deflated, though it says so",
            patched(central, 10, 8),
            Ok("what is compressed in it is damaged"),
        ),
        ("bzip2", patched(central, 10, 12), Err("`a/data/k` is compressed by")),
        ("encrypted", patched(central, 8, 1), Err("`a/data/k` is encrypted: unpack the archive")),
        ("too long", patched(central, 22, 1), Err("`a/data/k`: cut short or damaged")),
        ("TorchScript", archive("a", &[pkl, ("constants.pkl", b"")]), Err("torch.jit.load")),
        ("NumPy", archive("a", &[("x.npy", b"")]), Err("not a checkpoint but a NumPy archive")),
        ("other", archive("a", &[("b.txt", b"")]), Err("its first entry is `a/b.txt`")),
        ("empty", b"PK\x05\x06".iter().copied().chain([0; 18]).collect(), Err("an empty zip archive")),
        ("cut", archive("a", &[pkl, k])[..200].to_vec(), Err("zip archive: cut short or damaged")),
    ];
    for (name, file, expected) in cases {
        match (outcome(&file), expected) {
            (Ok(found), Ok(expected)) => {
                let found = found[""].as_str().unwrap();
                assert!(
                    found == expected || found.contains("is damaged") && found.contains(expected),
                    "{name}: {found}"
                );
            }
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{name}: {found}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn safetensors_files() {
    let good = r#"{"__metadata__":{"a":"b"},"z":{"dtype":"I16","shape":[2,1],"data_offsets":[0,4]},
        "a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[4,5]},
        "m":{"dtype":"BOOL","shape":[],"data_offsets":[5,6]},
        "e":{"dtype":"F32","shape":[0,9223372036854775807,4],"data_offsets":[6,6]}}   "#;
    let bytes = safetensors_file(good, &[1, 2, 3, 4, 5, 1]);
    let (_folder, source) = open(&bytes);
    let source = source.unwrap();
    assert_eq!(source.container(), Container::Safetensors);
    assert_eq!(source.metadata(), &BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    let Value::Dict(pairs) = source.root() else { panic!("{:?}", source.root()) };
    let names: Vec<_> = pairs.iter().map(|(name, _)| format!("{name:?}")).collect();
    assert_eq!(names, [r#"Str("z")"#, r#"Str("a")"#, r#"Str("m")"#, r#"Str("e")"#]);
    let found = flat(&source);
    assert_eq!(found["/z"], json!("I16 [2, 1] 01020304"));
    assert_eq!(found["/a"], json!("<a tensor of F8_E4M3>"));
    assert_eq!(found["/m"], json!("Bool [] 01"));
    assert_eq!(found["/e"], json!("F32 [0, 9223372036854775807, 4] "));

    let one = |offsets: &str| format!(r#"{{"z":{{"dtype":"U8","shape":[2],"data_offsets":{offsets}}}}}"#);
    let cases = [
        ("cut data", bytes[..bytes.len() - 1].to_vec(), "the file has 309 bytes instead of 310"),
        ("cut header", bytes[..100].to_vec(), "the file has 100 bytes instead of"),
        ("trailing bytes", safetensors_file(good, &[0; 7]), "the file has 311 bytes instead of 310"),
        ("offsets that lie", safetensors_file(&one("[0,3]"), &[0; 3]), "safetensors header: "),
        (
            "offsets that overflow",
            safetensors_file(&one("[18446744073709551614,18446744073709551615]"), &[]),
            "safetensors header: ",
        ),
        ("no JSON", safetensors_file("{\n\"", &[]), "safetensors header: EOF"),
    ];
    for (name, bytes, expected) in cases {
        let error = outcome(&bytes).unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn what_is_packed_is_read_only_as_far_as_it_says() {
    let object = [b"\x80\x02".to_vec(), tensor(1, &[3], &[1]), b".".to_vec()].concat();
    let packed = |bytes: &[u8]| {
        let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    };
    let of = |pkl: (&[u8], u32), k: (&[u8], u32)| {
        headed(&[("a/data.pkl".into(), packed(pkl.0), pkl.1), ("a/data/k".into(), packed(k.0), k.1)])
    };
    let (pkl, len) = (&object[..], object.len() as u32);
    // The strided tensor needs more than itself, and the last of it is not there.
    let short = outcome(&of((pkl, len), (&FLOATS[..12], 16))).unwrap();
    assert!(short[""].as_str().unwrap().contains("download or copy it again"), "{short:?}");
    for (name, file, says) in [
        ("a longer pickle", of((&[pkl, &[0; 99]].concat(), len - 1), (FLOATS, 16)), "longer than it says"),
        // 4 GiB of zeros in 3 MB are no weights; nothing is unpacked to find that out.
        ("a bomb", of((pkl, len), (&[0; 1 << 20], u32::MAX)), "4294967295 bytes are said to be packed in"),
    ] {
        let error = outcome(&file).unwrap_err();
        assert!(error.contains(says), "{name}: {error}");
    }
}

#[test]
fn parts_of_a_checkpoint_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let part = |name: &str, byte: u8| {
        let header = format!(r#"{{"{name}":{{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}}}"#);
        safetensors_file(&header, &[byte, byte + 1])
    };
    fs::write(at("one.safetensors"), part("a", 1)).unwrap();
    fs::write(at("two.safetensors"), part("b", 5)).unwrap();
    let pickled = [b"\x80\x02}".to_vec(), text("c"), tensor(1, &[1], &[1]), b"s.".to_vec()].concat();
    fs::write(at("three.bin"), archive("x", &[("data.pkl", &pickled), ("data/k", FLOATS)])).unwrap();
    let open = |map: &str| {
        fs::write(at("model.index.json"), format!(r#"{{"metadata": {{}}, "weight_map": {map}}}"#)).unwrap();
        let source = TensorStore::open_sharded(&at("model.index.json"));
        source.map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    };
    let all = r#"{"a": "one.safetensors", "b": "two.safetensors", "c": "three.bin"}"#;
    let source = open(all).unwrap();
    let found = flat(&source);
    assert_eq!(
        [&found["/a"], &found["/b"], &found["/c"]],
        ["U8 [2] 0102", "U8 [2] 0506", "F32 [1] 01000000"]
    );
    let names: Vec<_> = source.files().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["one.safetensors", "three.bin", "two.safetensors"]);
    for (map, says) in [
        (
            r#"{"a": "none.bin"}"#,
            "none.bin: no such file, but `model.index.json` names it: download all parts",
        ),
        (
            r#"{"z": "one.safetensors"}"#,
            "one.safetensors: names: `z` is not in it, though `model.index.json` says so",
        ),
        (r#"{"a": "../x"}"#, "index of files: `../x` is not the name of a file beside it"),
        (r#"{"a": "/etc/passwd"}"#, "`/etc/passwd` is not the name of a file beside it"),
        (r#"{"a": "."}"#, "`.` is not the name of"),
        (r#"{"a": "x\\y"}"#, "is not the name of"),
        (r#"{"a": ""}"#, "is not the name of"),
        ("{}", "0 files instead of 1 to 256"),
        ("[1\n]", "model.index.json: index of files: invalid"),
    ] {
        let error = open(map).err().unwrap();
        assert!(error.contains(says) && !error.contains('\n'), "{map}: {error}");
    }
}

#[test]
fn safetensors_headers_are_bounded() {
    let entry = |name: usize| format!(r#""{name}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    let many = |count: usize| (0..count).map(entry).collect::<Vec<_>>().join(",");
    let file = |header: &str| safetensors_file(&format!("{{{header}}}"), &[]);
    assert_eq!(outcome(&file(&many(1 << 16))).unwrap().len(), 1 + (1 << 16));
    let error = outcome(&file(&many(1 + (1 << 16)))).unwrap_err();
    assert!(error.contains("it names 65537 tensors, more than 65536"), "{error}");
    let error = outcome(&file(&" ".repeat(25_000_000))).unwrap_err();
    assert!(error.contains("it has 25000002 bytes, more than 25000000"), "{error}");
    let dims = entry(1).replace("[0],", &format!("[{}],", vec!["0"; 1 << 21].join(",")));
    let error = outcome(&file(&dims)).unwrap_err();
    assert!(error.contains("it lists 2097154 values, more than 1048576"), "{error}");
    let dims = entry(1).replace("[0],", &format!("[{}],", vec!["0"; 65].join(",")));
    let error = outcome(&file(&dims)).unwrap_err();
    assert!(error.contains("`1` has 65 dimensions, more than 64"), "{error}");
}

#[test]
fn other_files_are_named() {
    let tar = [vec![b'a'; 257], b"ustar".to_vec()].concat();
    let cases: &[(&[u8], &str)] = &[
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"RIFF\0\0\0\0WEBP", "a WebP image"),
        (b"\x1f\x8b\x08", "a gzip file: unpack it first"),
        (&tar, "a tar archive"),
        (b"\n <!DOCTYPE html><html>", "an HTML page"),
        (b"<?xml version='1.0'?><Error>", "an XML or HTML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "a git-lfs pointer: fetch the file itself with `git lfs pull`",
        ),
        (b"\x80\x04\x95\x01", "a pickle of protocol 4 that torch.save did not write"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"{\"model_type\": \"nat\"}", "a JSON file"),
        (b"hello \xc3\xa4", "a text file"),
        (b"hello \xc3", "a text file"),
        (&[0; 2000], "a file of zeros"),
        (b"\x01\x02\xff\xfe", "a file of unknown kind"),
    ];
    for (bytes, expected) in cases {
        let error = outcome(bytes).unwrap_err();
        assert!(error.starts_with(&format!("not a checkpoint but {expected}")), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = TensorStore::open(folder.path()).err().unwrap().to_string();
    assert!(error.ends_with("not a checkpoint but a folder: name a file in it"), "{error}");
    let error = TensorStore::open(&folder.path().join("absent")).err().unwrap();
    assert!(matches!(&error.problem, Flaw::Io(e) if e.kind() == std::io::ErrorKind::NotFound), "{error}");
}
