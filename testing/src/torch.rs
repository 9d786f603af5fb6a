//! Checkpoints as `torch.save` writes them, made on the spot.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::Path;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// An object to be pickled.
#[derive(Clone, Debug)]
pub enum Object {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Str(String),
    /// A tuple.
    Tuple(Vec<Object>),
    /// A list.
    List(Vec<Object>),
    /// A dictionary in its order.
    Dict(Vec<(Object, Object)>),
    /// An instance of a class, `module name`, with its attributes.
    Instance(&'static str, Box<Object>),
    /// A tensor of torch's storage class, its shape and its bytes.
    Tensor(&'static str, Vec<usize>, Vec<u8>),
}

impl Object {
    /// Text.
    pub fn str(text: &str) -> Self {
        Self::Str(text.to_owned())
    }

    /// A dictionary whose keys are text.
    pub fn dict(pairs: impl IntoIterator<Item = (String, Object)>) -> Self {
        Self::Dict(pairs.into_iter().map(|(key, value)| (Self::Str(key), value)).collect())
    }

    /// A tensor of floats.
    pub fn floats(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::Tensor("FloatStorage", shape.to_vec(), bytes)
    }
}

/// Writes an object as `torch.save` does since 1.6.
pub fn save(path: &Path, object: &Object) {
    std::fs::write(path, zipped(object)).unwrap();
}

/// The file that `torch.save` makes of an object since 1.6.
pub fn zipped(object: &Object) -> Vec<u8> {
    let (pickle, storages) = pickled(object);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut entry = |name: String, bytes: &[u8]| {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    entry("archive/data.pkl".to_owned(), &pickle);
    for (key, (_, bytes)) in &storages {
        entry(format!("archive/data/{key}"), bytes);
    }
    entry("archive/version".to_owned(), b"3\n");
    zip.finish().unwrap().into_inner()
}

/// The file that `torch.save` made of an object before 1.6, and makes of it with
/// `_use_new_zipfile_serialization=False`.
pub fn legacy(object: &Object) -> Vec<u8> {
    let (pickle, storages) = pickled(object);
    let mut file =
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    file.extend(pickle);
    file.extend(b"\x80\x02](");
    storages.keys().for_each(|key| text(&mut file, &key.to_string()));
    file.extend(b"e.");
    for (count, bytes) in storages.values() {
        file.extend((*count as u64).to_le_bytes());
        file.extend(bytes);
    }
    file
}

/// The number of elements and the bytes of each storage.
type Storages = BTreeMap<usize, (usize, Vec<u8>)>;

fn pickled(object: &Object) -> (Vec<u8>, Storages) {
    let mut pickle = b"\x80\x02".to_vec();
    let mut storages = Storages::new();
    put(&mut pickle, object, &mut storages);
    pickle.push(b'.');
    (pickle, storages)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn int(out: &mut Vec<u8>, number: i64) {
    out.extend([0x8a, 8]);
    out.extend(number.to_le_bytes());
}

fn numbers(out: &mut Vec<u8>, numbers: &[usize]) {
    out.push(b'(');
    numbers.iter().for_each(|&number| int(out, number as i64));
    out.push(b't');
}

fn put(out: &mut Vec<u8>, object: &Object, storages: &mut Storages) {
    match object {
        Object::None => out.push(b'N'),
        Object::Bool(value) => out.push(if *value { 0x88 } else { 0x89 }),
        Object::Int(number) => int(out, *number),
        Object::Float(number) => {
            out.push(b'G');
            out.extend(number.to_be_bytes());
        }
        Object::Str(string) => text(out, string),
        Object::Tuple(items) => {
            out.push(b'(');
            items.iter().for_each(|item| put(out, item, storages));
            out.push(b't');
        }
        Object::List(items) => {
            out.extend(b"](");
            items.iter().for_each(|item| put(out, item, storages));
            out.push(b'e');
        }
        Object::Dict(pairs) => {
            out.extend(b"}(");
            for (key, value) in pairs {
                put(out, key, storages);
                put(out, value, storages);
            }
            out.push(b'u');
        }
        Object::Instance(class, attributes) => {
            let (module, name) = class.split_once(' ').unwrap();
            out.extend(format!("c{module}\n{name}\n)\u{81}").chars().map(|c| c as u8));
            put(out, attributes, storages);
            out.push(b'b');
        }
        Object::Tensor(storage, shape, bytes) => {
            let count: usize = shape.iter().product();
            let strides: Vec<usize> = (1..=shape.len()).map(|i| shape[i..].iter().product()).collect();
            out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            text(out, "storage");
            out.extend(format!("ctorch\n{storage}\n").bytes());
            text(out, &storages.len().to_string());
            text(out, "cpu");
            int(out, count as i64);
            out.extend(b"tQK\x00");
            numbers(out, shape);
            numbers(out, &strides);
            out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
            storages.insert(storages.len(), (count, bytes.clone()));
        }
    }
}
