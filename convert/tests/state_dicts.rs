//! Tensors of networks that are none of ours: found in whatever is around them, by the names that their modules
//! have, with the values that were saved.

use std::fs;
use std::path::Path;
use std::thread;

use nat_convert::error::ConvertError;
use nat_convert::source::{Container, ElementType};
use nat_convert::state_dict::StateDict;
use nat_testing::checkpoint::{floats, save as safetensors};
use nat_testing::torch::{self, Object};

/// Names, shapes and first values of a small convolutional network; a tensor counts on from its first value.
const NETWORK: [(&str, &[usize], f32); 4] = [
    ("stem.conv.weight", &[4, 3, 2, 2], 1.0),
    ("stem.norm.running_mean", &[4], 100.0),
    ("layer1.0.module.weight", &[2, 4], 200.0),
    ("fc.bias", &[2], 300.0),
];

fn values(shape: &[usize], first: f32) -> Vec<f32> {
    (0..shape.iter().product()).map(|i| first + i as f32).collect()
}

/// The network's entries, with something before each name and something added to each value.
fn entries(prefix: &str, added: f32) -> Vec<(String, Object)> {
    let entry = |&(name, shape, first): &(&str, &[usize], f32)| {
        (format!("{prefix}{name}"), Object::floats(shape, &values(shape, first + added)))
    };
    NETWORK.iter().map(entry).collect()
}

fn network(prefix: &str, added: f32) -> Object {
    Object::dict(entries(prefix, added))
}

fn dict<const N: usize>(entries: [(&str, Object); N]) -> Object {
    Object::dict(entries.map(|(key, value)| (key.to_owned(), value)))
}

/// Everything is there by the names of the modules, and nothing else.
#[track_caller]
fn is_network(state: &StateDict, added: f32) {
    assert_eq!(state.names().collect::<Vec<_>>(), NETWORK.map(|(name, ..)| name));
    let mut bytes = vec![9; 5];
    for (name, shape, first) in NETWORK {
        assert_eq!(state.read(name, &mut bytes).unwrap(), ElementType::F32, "{name}");
        assert_eq!(floats(&bytes), values(shape, first + added), "{name}");
        let tensor = state.tensor(name).unwrap();
        assert_eq!((tensor.shape.as_slice(), tensor.dtype), (shape, ElementType::F32), "{name}");
    }
}

fn memory(object: &Object, weights_key: Option<&str>) -> Result<StateDict, ConvertError> {
    StateDict::from_bytes("upload", torch::zipped(object), weights_key)
}

#[test]
fn every_container_gives_the_same_from_disk_and_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let state = dict([("epoch", Object::Int(3)), ("model", network("module.", 0.0))]);
    let st = folder.path().join("made.safetensors");
    let raw = NETWORK.map(|(name, shape, first)| {
        let bytes = values(shape, first).iter().flat_map(|value| value.to_le_bytes()).collect();
        (name.to_owned(), "F32", shape.to_vec(), bytes)
    });
    safetensors(&st, &raw);
    for (container, bytes, key) in [
        (Container::TorchZip, torch::zipped(&state), "model"),
        (Container::TorchLegacy, torch::legacy(&state), "model"),
        (Container::Safetensors, fs::read(&st).unwrap(), ""),
    ] {
        // The name says nothing.
        let path = folder.path().join("weights.bin");
        fs::write(&path, &bytes).unwrap();
        let opened = StateDict::open(&path, None).unwrap();
        assert_eq!((opened.container(), opened.key()), (container, key));
        assert_eq!(opened.path(), Some(path.as_path()));
        is_network(&opened, 0.0);
        let memory = StateDict::from_bytes("upload", bytes, None).unwrap();
        assert_eq!((memory.container(), memory.path()), (container, None));
        is_network(&memory, 0.0);
    }
}

#[test]
fn the_network_is_found_in_what_training_saved() {
    let both = || dict([("state_dict", network("", 0.0)), ("state_dict_ema", network("", 0.5))]);
    let lightning = || {
        let state = [entries("model.", 0.0), vec![("loss.weight".into(), Object::floats(&[1], &[7.0]))]];
        dict([("state_dict", Object::dict(state.concat())), ("optimizer_states", Object::List(Vec::new()))])
    };
    let averaged = || {
        let counter = ("n_averaged".to_owned(), Object::Tensor("LongStorage", Vec::new(), vec![5; 8]));
        Object::dict([vec![counter], entries("module.", 0.0)].concat())
    };
    let optimizer = || dict([("exp_avg", network("", 9.0))]);
    for (case, object, wanted, key, others, added) in [
        ("bare", network("", 0.0), None, "", "", 0.0),
        ("an average is preferred", both(), None, "state_dict_ema", "state_dict", 0.5),
        ("the other as asked", both(), Some("state_dict"), "state_dict", "", 0.0),
        ("DataParallel in a wrapper", dict([("net", network("module.", 0.0))]), None, "net", "", 0.0),
        ("torch.compile", network("_orig_mod.", 0.0), None, "", "", 0.0),
        ("both", network("module._orig_mod.", 0.0), None, "", "", 0.0),
        ("Lightning", lightning(), Some("state_dict.model"), "state_dict.model", "", 0.0),
        ("a prefix alone", lightning(), Some("model"), "state_dict.model", "", 0.0),
        ("an optimizer", dict([("optimizer", optimizer()), ("g", network("", 0.0))]), None, "g", "", 0.0),
        ("AveragedModel", dict([("swa", averaged())]), Some("swa.module"), "swa.module", "", 0.0),
    ] {
        let state = memory(&object, wanted).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!((state.key(), state.other_keys().join(",").as_str()), (key, others), "{case}");
        is_network(&state, added);
    }
    // A counter beside what was wrapped has no wrapper.
    let state = memory(&averaged(), None).unwrap();
    assert_eq!(state.names().collect::<Vec<_>>()[..2], ["n_averaged", NETWORK[0].0]);
    let mut bytes = Vec::new();
    assert_eq!(state.read("n_averaged", &mut bytes).unwrap(), ElementType::I64);
    assert_eq!(bytes, [5; 8]);
}

#[test]
fn names_can_stay_as_they_are_stored() {
    let state = memory(&network("module._orig_mod.", 0.0), None).unwrap();
    assert_eq!(state.tensors()[3].stored_name, "module._orig_mod.fc.bias");
    let state = state.with_stored_names();
    assert_eq!(state.names().next(), Some("module._orig_mod.stem.conv.weight"));
    let mut bytes = Vec::new();
    state.read("module._orig_mod.fc.bias", &mut bytes).unwrap();
    assert_eq!(floats(&bytes), [300.0, 301.0]);
    let error = state.read("fc.bias", &mut bytes).unwrap_err();
    assert_eq!(error.to_string(), "no tensor `fc.bias` in the checkpoint");
}

#[test]
fn what_can_not_be_read_is_listed_with_the_reason() {
    let quantised = Object::Tensor("QInt8Storage", vec![2], vec![1, 2]);
    let array = Object::Instance("numpy.core.multiarray _reconstruct", Box::new(Object::None));
    let odd = vec![("module.q".to_owned(), quantised), ("module.n".to_owned(), array)];
    let state = memory(&Object::dict([entries("module.", 0.0), odd].concat()), None).unwrap();
    is_network(&state, 0.0);
    let listed: Vec<_> =
        state.unreadable().iter().map(|one| (one.name.as_str(), one.what.as_str())).collect();
    assert_eq!(listed, [("q", "quantised tensors"), ("n", "numpy arrays instead of tensors")]);
    assert_eq!(state.unreadable()[0].stored_name, "module.q");
    assert!(state.tensor("q").is_none());
    let error = state.read("q", &mut Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "upload: 1 tensor can't be read: quantised tensors (`q`): save the network as it was before it was quantised"
    );
    assert!(state.with_stored_names().read("module.q", &mut Vec::new()).is_err());
}

#[test]
fn what_holds_no_tensors_says_what_it_holds() {
    let network = Object::Instance("models Net", Box::new(Object::None));
    for (object, wanted, says) in [
        (dict([("lr", Object::Float(0.1))]), None, "upload: no state dict among its keys (`lr`)"),
        (
            network,
            None,
            "upload: holds a pickled object (`models.Net`), not a state dict; save model.state_dict()",
        ),
        (Object::dict(entries("", 0.0)), Some("ema"), "upload: no weights under `ema`"),
    ] {
        let error = memory(&object, wanted).err().unwrap().to_string();
        assert!(error.starts_with(says), "{error}");
    }
    let error = StateDict::open(Path::new("no/such.pth"), None).err().unwrap().to_string();
    assert!(error.starts_with("no/such.pth: "), "{error}");
}

#[test]
fn threads_share_one() {
    let state = StateDict::from_bytes("upload", torch::legacy(&network("", 0.0)), None).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| is_network(&state, 0.0));
        }
    });
}
