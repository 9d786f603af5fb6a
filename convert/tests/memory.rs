//! Checkpoints in memory, and checkpoints that threads share: the same as the file that one thread reads.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use nat_convert::checkpoint::{Checkpoint, Options, Part, Tensor};
use nat_convert::error::{ConvertError, Mismatch, Unusable};
use nat_convert::metadata::{Metadata, MetadataError};
use nat_convert::report::{Report, TensorLine, Warning};
use nat_convert::state_dict::{StateDict, StateTensor, UnreadableTensor};
use nat_convert::write::{FloatType, WriteOptions, write};
use nat_convert::{arch, layout, recipe, zoo};
use nat_testing::golden;

fn elements(checkpoint: &Checkpoint) -> Vec<(String, Vec<u8>)> {
    let read = |tensor: &Tensor| {
        let mut out = Vec::new();
        checkpoint.read(&tensor.name, &mut out).unwrap();
        (tensor.name.clone(), out)
    };
    checkpoint.tensors().iter().map(read).collect()
}

/// One golden checkpoint of each container, layout and kind of network.
fn checkpoints() -> Vec<PathBuf> {
    let mut paths = [
        "classify/nat-k7.pth",
        "classify/vit-rpb.pth",
        "detect/cascade_a/model_legacy.pth",
        "doors/read/deflated.pth",
        "doors/read/timm_ema.pth",
        "doors/read/student.pth",
    ]
    .map(golden::path)
    .to_vec();
    paths.push(golden::repository().join("assets/demo-digits.safetensors"));
    paths
}

fn in_memory(path: &Path, options: &Options) -> Result<Checkpoint, ConvertError> {
    Checkpoint::from_bytes(&path.display().to_string(), fs::read(path).unwrap(), options)
}

#[test]
fn bytes_are_the_same_checkpoint_as_their_file() {
    for path in checkpoints() {
        let options = Options::default();
        let (file, memory) =
            (Checkpoint::open(&path, &options).unwrap(), in_memory(&path, &options).unwrap());
        assert_eq!(file.metadata(), memory.metadata(), "{path:?}");
        assert_eq!(file.report().to_string(), memory.report().to_string(), "{path:?}");
        assert_eq!(file.report().tensor_table().to_string(), memory.report().tensor_table().to_string());
        assert!(elements(&file) == elements(&memory), "{path:?}");
        assert_eq!((file.path(), file.bytes()), (Some(path.as_path()), None));
        assert_eq!((memory.path(), memory.files().count()), (None, 0));
        assert_eq!(memory.bytes(), Some(fs::read(&path).unwrap().as_slice()));
        assert_eq!(file.is_converted(), memory.is_converted());
    }
}

#[test]
fn bytes_are_written_as_their_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = golden::path("classify/nat-k7.pth");
    let options = Options::default();
    let running = AtomicBool::new(false);
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let mut written = Vec::new();
    for (checkpoint, target) in
        [(Checkpoint::open(&path, &options).unwrap(), &a), (in_memory(&path, &options).unwrap(), &b)]
    {
        written.push(write(&checkpoint, target, WriteOptions::default(), &running).unwrap());
    }
    assert_eq!(written[0].source.sha256.as_deref().map(str::len), Some(64));
    assert_eq!(written[0], written[1]);
    assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap());
    // What was written is one of ours from memory too.
    let ours = in_memory(&a, &options).unwrap();
    assert!(ours.is_converted());
    assert_eq!(ours.metadata().architecture, written[0].architecture);
    let stopped = write(&ours, &folder.path().join("c"), WriteOptions::default(), &AtomicBool::new(true));
    assert!(matches!(stopped, Err(ConvertError::Interrupted)), "{stopped:?}");
}

#[test]
fn a_name_is_what_messages_say_and_what_is_known_by_it() {
    let bytes: Arc<[u8]> = fs::read(golden::path("classify/nat-k7.pth")).unwrap().into();
    let open = |name: &str, options: &Options| Checkpoint::from_bytes(name, Arc::clone(&bytes), options);
    let named = open("upload 7", &Options::default()).unwrap();
    assert_eq!(named.report().file, "upload 7");
    assert_eq!(named.metadata().source.file, "upload 7");
    let key = Options::default().with_weights_key("ema");
    assert_eq!(open("upload 7", &key).err().unwrap().to_string(), "upload 7: no weights under `ema`");
    let arch = Options::default().with_arch("nat-tiny");
    let error = open("upload 7", &arch).err().unwrap().to_string();
    assert!(error.starts_with("upload 7: not `nat-tiny` but a NAT"), "{error}");
    let unknown = Options::default().with_arch("nat-tine");
    // A wrong name is told before the bytes are looked at.
    let error = Checkpoint::from_bytes("x", b"GIF8".to_vec(), &unknown).err().unwrap();
    assert!(matches!(error, ConvertError::UnknownArch(_)), "{error}");
    let error = Checkpoint::from_bytes("x", b"GIF8".to_vec(), &Options::default()).err().unwrap();
    assert_eq!(error.to_string(), "x: not a checkpoint but a GIF image");
}

/// A folder of Transformers has its configuration beside the weights, bytes have not, wherever their name leads.
#[test]
fn nothing_lies_beside_bytes() {
    let path = golden::path("transformers/nat-hf/pytorch_model.bin");
    let file = Checkpoint::open(&path, &Options::default()).unwrap();
    assert_eq!(file.report().dilations_from.as_deref(), Some("config.json"));
    let memory = in_memory(&path, &Options::default()).unwrap();
    assert_eq!(memory.report().dilations_from, None);
    assert!(elements(&file) == elements(&memory));
}

#[test]
fn threads_share_a_checkpoint() {
    for path in checkpoints() {
        let options = Options::default();
        let alone = elements(&Checkpoint::open(&path, &options).unwrap());
        for shared in [Checkpoint::open(&path, &options).unwrap(), in_memory(&path, &options).unwrap()] {
            let shared = Arc::new(shared);
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || elements(&shared))
                })
                .collect();
            for reader in readers {
                assert!(reader.join().unwrap() == alone, "{path:?}");
            }
        }
    }
}

#[test]
fn what_users_hold_goes_to_any_thread() {
    fn goes<T: Send + Sync + 'static>() {}
    goes::<Checkpoint>();
    goes::<Tensor>();
    goes::<Options>();
    goes::<Part>();
    goes::<StateDict>();
    goes::<StateTensor>();
    goes::<UnreadableTensor>();
    goes::<ConvertError>();
    goes::<Mismatch>();
    goes::<Unusable>();
    goes::<Metadata>();
    goes::<MetadataError>();
    goes::<Report>();
    goes::<TensorLine>();
    goes::<Warning>();
    goes::<WriteOptions>();
    goes::<FloatType>();
    goes::<layout::Dropped>();
    goes::<zoo::Entry>();
    goes::<zoo::UnknownModel>();
    goes::<arch::Architecture>();
    goes::<arch::Preprocessing>();
    goes::<arch::Dilations>();
    goes::<arch::DilationsError>();
    goes::<arch::Inventory>();
    goes::<arch::Scope>();
    goes::<arch::NatSpec>();
    goes::<arch::DinatSSpec>();
    goes::<arch::IsotropicSpec>();
    goes::<arch::DetectorSpec>();
    goes::<arch::UpernetSpec>();
    goes::<recipe::Recipe>();
}
