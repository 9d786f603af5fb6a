//! Checkpoints that threads share, and those in memory.

use std::sync::{Arc, Barrier};
use std::thread;

use super::*;

/// Tensors of a file, and elements of each.
const TENSORS: usize = 48;
const ELEMENTS: usize = 6000;
const THREADS: usize = 8;

/// The bytes of a tensor, which no other one has.
fn elements(tensor: usize) -> Vec<u8> {
    (0..ELEMENTS).flat_map(|i| ((tensor * ELEMENTS + i) as f32).to_le_bytes()).collect()
}

fn key(tensor: usize) -> String {
    format!("k{tensor}")
}

/// A pickled dictionary of all tensors, each over a storage of its own, without STOP.
fn dictionary() -> Vec<u8> {
    let entry = |tensor: usize| {
        let storage = storage("torch.FloatStorage", &key(tensor), ELEMENTS as i64, b"N".to_vec());
        let shape = ints(&[ELEMENTS as i64]);
        let value = call("torch._utils._rebuild_tensor", &[storage, int(0), shape, ints(&[1])]);
        [text(&format!("t{tensor}")), value].concat()
    };
    let entries: Vec<_> = (0..TENSORS).map(entry).collect();
    [b"}(", &entries.concat()[..], b"u"].concat()
}

/// One file of each container.
fn containers() -> Vec<(&'static str, Vec<u8>)> {
    let data: Vec<_> = (0..TENSORS).map(elements).collect();
    let keys: Vec<_> = (0..TENSORS).map(key).collect();
    let pickle = [b"\x80\x02", &dictionary()[..], b"."].concat();
    let paths: Vec<_> = keys.iter().map(|key| format!("data/{key}")).collect();
    let mut entries = vec![("data.pkl", &*pickle)];
    entries.extend(paths.iter().zip(&data).map(|(path, bytes)| (path.as_str(), &**bytes)));
    let storages: Vec<_> =
        keys.iter().zip(&data).map(|(key, bytes)| (key.as_str(), ELEMENTS as u64, &**bytes)).collect();
    let entry = |tensor: usize| {
        let (start, end) = (tensor * ELEMENTS * 4, (tensor + 1) * ELEMENTS * 4);
        format!(r#""t{tensor}":{{"dtype":"F32","shape":[{ELEMENTS}],"data_offsets":[{start},{end}]}}"#)
    };
    let header = format!("{{{}}}", (0..TENSORS).map(entry).collect::<Vec<_>>().join(","));
    vec![
        ("zip", archive("a", &entries)),
        ("deflated zip", zipped("a", &entries, true)),
        ("legacy", legacy(&dictionary(), &storages)),
        ("safetensors", safetensors_file(&header, &data.concat())),
    ]
}

/// All threads begin at once, each with another tensor.
fn every_thread_reads_what_was_written(name: &str, source: &TensorStore) {
    let tensors: Vec<_> = match source.root() {
        Value::Dict(pairs) => pairs.iter().map(|(_, value)| value),
        other => panic!("{name}: {other:?}"),
    }
    .map(|value| match value {
        Value::Tensor(tensor) => Arc::clone(tensor),
        other => panic!("{name}: {other:?}"),
    })
    .collect();
    assert_eq!(tensors.len(), TENSORS, "{name}");
    let begin = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (tensors, begin) = (&tensors, &begin);
            scope.spawn(move || {
                let mut bytes = Vec::new();
                begin.wait();
                for i in 0..TENSORS {
                    let tensor = (i * 7 + thread * 5) % TENSORS;
                    source.read(&tensors[tensor], &mut bytes).unwrap();
                    assert!(bytes == elements(tensor), "{name}: thread {thread}, tensor {tensor}");
                }
            });
        }
    });
}

#[test]
fn threads_that_share_a_checkpoint_read_what_one_reads() {
    for (name, file) in containers() {
        let (_folder, source) = open(&file);
        every_thread_reads_what_was_written(name, &source.unwrap());
        every_thread_reads_what_was_written(name, &TensorStore::from_bytes(name, file).unwrap());
    }
}

#[test]
fn a_checkpoint_in_memory_is_kept_as_it_is_and_called_by_its_name() {
    for (name, file) in containers() {
        let shared: Arc<[u8]> = file.clone().into();
        let source = TensorStore::from_bytes(name, Arc::clone(&shared)).unwrap();
        assert_eq!(source.bytes().map(<[u8]>::as_ptr), Some(shared.as_ptr()), "{name}: no copy");
        assert_eq!(source.files().count(), 0, "{name}");
        let (_folder, opened) = open(&file);
        let opened = opened.unwrap();
        assert_eq!((opened.bytes(), opened.files().count()), (None, 1), "{name}");
        assert!(flat(&source) == flat(&opened) && source.container() == opened.container(), "{name}");
    }
    static EMBEDDED: &[u8] = b"GIF89a";
    let error = TensorStore::from_bytes("upload 7", EMBEDDED).err().unwrap();
    assert_eq!(error.to_string(), "upload 7: not a checkpoint but a GIF image");
    let (_, file) = containers().remove(0);
    let cut = TensorStore::from_bytes("upload 8", file[..file.len() / 2].to_vec()).err().unwrap();
    assert!(cut.to_string().starts_with("upload 8: zip archive: cut short or damaged"), "{cut}");
}

#[test]
fn what_a_user_holds_goes_to_any_thread() {
    fn goes<T: Send + Sync + 'static>() {}
    goes::<TensorStore>();
    goes::<TensorRef>();
    goes::<Value>();
    goes::<StoreError>();
    goes::<Flaw>();
    goes::<Container>();
    goes::<ElementType>();
}
