//! Checkpoints of everyday tools: whatever stands around a network's tensors, the same tensors come in, and what
//! can't be read is refused with the true reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use nat_convert::arch::{Architecture, Head};
use nat_convert::checkpoint::{Checkpoint, Options};
use nat_convert::error::ConvertError;
use nat_convert::report::Remedy;
use nat_convert::write::{WriteOptions, write};
use nat_convert::zoo;
use nat_testing::checkpoint::{Raw, floats, save as safetensors, zeros};
use nat_testing::golden;

fn open(path: &Path, options: &Options) -> Result<Checkpoint, String> {
    Checkpoint::open(path, options).map_err(|error| {
        let line = error.to_string();
        assert!(!line.contains('\n') && !line.contains("--"), "{line}");
        line
    })
}

fn plain() -> Checkpoint {
    open(&golden::path("doors/plain.pth"), &Options::default()).unwrap()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(golden::path(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5, "{files:?}");
    files
}

/// Names, shapes and bytes.
fn contents(checkpoint: &Checkpoint) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let tensors = checkpoint.tensors().iter();
    tensors
        .map(|tensor| {
            let mut bytes = Vec::new();
            checkpoint.read(&tensor.name, &mut bytes).unwrap();
            (tensor.name.clone(), tensor.shape.clone(), bytes)
        })
        .collect()
}

/// The tensors of a checkpoint under other names, in a file of its own folder.
fn renamed(original: &Checkpoint, name: impl Fn(&str) -> String) -> Vec<Raw> {
    let raw = |(old, shape, bytes): (String, Vec<usize>, Vec<u8>)| (name(&old), "F32", shape, bytes);
    contents(original).into_iter().map(raw).collect()
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, tensors: &[Raw]) -> PathBuf {
        let path = self.0.path().join("x.safetensors");
        safetensors(&path, tensors);
        path
    }
}

fn extra(name: &str, shape: &[usize]) -> Raw {
    (name.to_owned(), "F32", shape.to_vec(), Vec::new())
}

#[test]
fn the_tensors_are_the_same_whatever_stands_around_them() {
    let expected = contents(&plain());
    assert_eq!(expected.len(), 21);
    for path in files("doors/read") {
        let checkpoint = open(&path, &Options::default()).unwrap();
        assert_eq!(contents(&checkpoint), expected, "{}", path.display());
        assert_eq!(checkpoint.metadata().architecture, plain().metadata().architecture);
        // It is known what was taken of several, and nothing else is warned of.
        let name = path.file_name().unwrap().to_str().unwrap();
        let report = checkpoint.report();
        let (key, others) = match name {
            "timm_ema.pth" => ("state_dict_ema", "state_dict"),
            "lightning_ema.ckpt" => ("callbacks.EMA.ema_weights", "state_dict"),
            "mmengine_ema.pth" => ("state_dict", "ema_state_dict"),
            "nested.pth" => ("generator.net_g.params", ""),
            "model_state_dict.pth" => ("model_state_dict", ""),
            "deepspeed_fsdp.pt" => ("module", ""),
            "compiled.pth" | "averaged_model.pth" | "deflated.pth" | "protocol0.pth" | "protocol1.pth" => {
                ("", "")
            }
            _ => ("state_dict", ""),
        };
        assert_eq!(
            (report.weights_key.as_deref().unwrap_or(""), &*report.other_weights.join(",")),
            (key, others)
        );
        let remedies: Vec<_> = report.warnings.iter().filter_map(|warning| warning.remedy).collect();
        let both = [Remedy::WeightsKey, Remedy::Dilations];
        assert_eq!(remedies, if others.is_empty() { &both[1..] } else { &both[..] }, "{:?}", report.warnings);
        assert_eq!(report.warnings.len(), remedies.len(), "{:?}", report.warnings);
        let reasons: Vec<_> = report.left_out().into_iter().collect();
        match name {
            "lightning_metrics.ckpt" => assert_eq!(reasons, [("a loss's", 2), ("a metric's state", 2)]),
            "clip.pt" => assert_eq!(reasons, [("text encoder", 2)]),
            "averaged_model.pth" => assert_eq!(reasons, [("counter of averaged weights", 1)]),
            "mmcv_ema_hook.pth" => {
                assert_eq!(
                    reasons,
                    [("EMA hook's buffer, whose averages are saved under the plain names", 21)]
                );
            }
            _ => assert_eq!(reasons, [], "{name}"),
        }
    }
}

#[test]
fn a_key_takes_the_others() {
    let twice: Vec<f32> = floats(&contents(&plain())[0].2).iter().map(|x| 2.0 * x).collect();
    for (file, key) in [
        ("timm_ema.pth", "state_dict"),
        ("lightning_ema.ckpt", "state_dict"),
        ("lightning_ema.ckpt", "state_dict.model"),
        ("mmengine_ema.pth", "ema_state_dict"),
    ] {
        let options = Options::default().with_weights_key(key);
        let checkpoint = open(&golden::path("doors/read").join(file), &options).unwrap();
        assert_eq!(floats(&contents(&checkpoint)[0].2), twice, "{file} {key}");
    }
    let options = Options::default().with_weights_key("nobody");
    let error = open(&golden::path("doors/read/timm_ema.pth"), &options).err().unwrap();
    assert!(
        error.ends_with("no weights under `nobody`, only under `state_dict`, `state_dict_ema`"),
        "{error}"
    );
}

#[test]
fn what_can_not_be_read_is_refused_with_the_true_reason() {
    let all_numpy = "21 tensors can't be read: numpy arrays instead of tensors (`patch_embed.proj.weight`, \
                     `patch_embed.proj.bias` and 19 more): save model.state_dict() itself";
    for path in files("doors/refused") {
        let error = open(&path, &Options::default()).map(|one| one.report().to_string()).unwrap_err();
        let says = match path.file_name().unwrap().to_str().unwrap() {
            "numpy.pth" => all_numpy,
            "one_numpy.pth" => "1 tensor can't be read: numpy arrays instead of tensors (`head.weight`)",
            "quantised.pth" => {
                "1 tensor can't be read: quantised tensors (`head.weight`): save the network as it was before"
            }
            "int8.pth" => "1 tensor can't be read: tensors of whole numbers (I8) (`head.weight`)",
            "sparse.pth" => {
                "1 tensor can't be read: sparse tensors (`head.weight`): save them after to_dense()"
            }
            "meta.pth" => {
                "21 tensors can't be read: tensors without data (of the device meta) (`patch_embed.proj.weight`"
            }
            "complex.pth" => "1 tensor can't be read: complex tensors (`norm.bias`)",
            "float8.pth" => "21 tensors can't be read: 8-bit floats (`patch_embed.proj.weight`",
            "float8.safetensors" => "21 tensors can't be read: 8-bit floats (F8_E4M3) (",
            "nested.pth" => "1 tensor can't be read: nested tensors (`norm.bias`)",
            "negated.pth" => "1 tensor can't be read: tensors negated or conjugated lazily (`norm.bias`)",
            other => panic!("{other}"),
        };
        assert!(error.contains(says) && !error.contains("missing"), "{error}");
    }
}

#[test]
fn networks_changed_after_training_are_named() {
    let (place, original) = (Place::new(), plain());
    for (from, to, says) in [
        ("mlp.fc1.bias", "mlp.fc1.SCB", "1 tensor can't be read: tensors quantised by bitsandbytes"),
        ("mlp.fc1.weight", "mlp.fc1.qweight", "tensors quantised by GPTQ or AWQ"),
        (
            "head.weight",
            "head.parametrizations.weight.original0",
            "save them after remove_parametrizations()",
        ),
        ("head.weight", "head.weight_orig", "tensors pruned by a mask"),
        ("head.weight", "head.lora_A.weight", "LoRA adapters beside the weights"),
    ] {
        let path = place.file(&renamed(&original, |name| name.replace(from, to)));
        let error = open(&path, &Options::default()).err().unwrap();
        assert!(error.contains(says), "{to}: {error}");
    }
}

#[test]
fn a_misspelt_tensor_is_an_error_with_the_nearest_name_under_every_prefix() {
    let (place, original) = (Place::new(), plain());
    for (prefix, misspelt, unknown) in [
        ("", "norm.bais", "`norm.bais` (nearest: `norm.bias`)"),
        (
            "model._orig_mod.",
            "model._orig_mod.norm.bais",
            "`model._orig_mod.norm.bais` (nearest: `norm.bias`)",
        ),
        ("a.", "norm.bais", "`norm.bais` (nearest: `norm.bias`)"),
        ("a.", "b.norm.bias", "`b.norm.bias` (nearest: `norm.bias`)"),
    ] {
        let name = |name: &str| match name {
            "norm.bias" => misspelt.to_owned(),
            _ => format!("{prefix}{name}"),
        };
        let path = place.file(&renamed(&original, name));
        let error = open(&path, &Options::default()).err().unwrap();
        assert!(error.contains("1 missing: `norm.bias`; 1 unknown: ") && error.contains(unknown), "{error}");
    }
    // What is too much is an error too, which can be answered.
    let mut tensors = renamed(&original, str::to_owned);
    tensors.push(extra("heatmap.weight", &[2]));
    let path = place.file(&tensors);
    let error = Checkpoint::open(&path, &Options::default()).err().unwrap();
    assert!(matches!(error, ConvertError::Tensors { mismatch, .. } if mismatch.is_only_unknown()));
    let ignore = ["heat*".to_owned(), "*.tp".to_owned()].to_vec();
    let checkpoint = open(&path, &Options::default().with_ignore(ignore)).unwrap();
    assert_eq!(contents(&checkpoint), contents(&original));
    assert_eq!(checkpoint.report().left_out().into_iter().collect::<Vec<_>>(), [("left out as asked", 1)]);
    assert_eq!(checkpoint.report().warnings[0].text, "no tensor is called like `*.tp` to leave out");
    // A head that is left out leaves a backbone.
    let ignore = ["head.*", "heatmap.weight"].map(str::to_owned).to_vec();
    let checkpoint = open(&path, &Options::default().with_ignore(ignore)).unwrap();
    assert_eq!(checkpoint.metadata().architecture.head, Head::Features);
}

#[test]
fn what_stands_beside_a_network_is_said() {
    let (place, original) = (Place::new(), plain());
    let mut tensors = renamed(&original, |name| format!("student.{name}"));
    tensors.extend(renamed(&original, |name| format!("teacher.{name}")));
    tensors[21].3 = vec![7; tensors[21].3.len()];
    tensors.push(extra("predictor.weight", &[3, 3]));
    let path = place.file(&tensors);
    let checkpoint = open(&path, &Options::default()).unwrap();
    assert_eq!(contents(&checkpoint), contents(&original));
    let warnings: Vec<_> = checkpoint.report().warnings.iter().map(|w| w.text.as_str()).collect();
    assert_eq!(
        warnings[..2],
        [
            "the network of `student` is taken; there is another of `teacher`",
            "`predictor.weight`: left out, beside the network, not under its prefix",
        ]
    );
    let options = Options::default().with_weights_key("teacher");
    let teacher = open(&path, &options).unwrap();
    assert_eq!(contents(&teacher)[0].2, vec![7; tensors[21].3.len()]);
    assert_eq!(teacher.report().warnings.len(), 1, "{:?}", teacher.report().warnings);
}

#[test]
fn a_folder_of_parts_is_one_checkpoint() {
    let (place, original) = (Place::new(), plain());
    let folder = place.0.path();
    let tensors = renamed(&original, str::to_owned);
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let (first, second) = tensors.split_at(9);
    safetensors(&folder.join(names[0]), first);
    safetensors(&folder.join(names[1]), second);
    let file = |(i, (name, ..)): (usize, &Raw)| (name.clone(), names[usize::from(i >= 9)].into());
    let map: serde_json::Map<_, _> = tensors.iter().enumerate().map(file).collect();
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    for path in [folder.to_owned(), folder.join("model.safetensors.index.json")] {
        let checkpoint = open(&path, &Options::default()).unwrap();
        assert_eq!(contents(&checkpoint), contents(&original));
        assert_eq!(checkpoint.files().count(), 2);
        // No part of it is replaced by the result.
        let options = WriteOptions::default().with_overwrite(true);
        let error = write(&checkpoint, &folder.join(names[1]), options, &AtomicBool::new(false)).unwrap_err();
        assert!(error.to_string().ends_with("is the checkpoint itself"), "{error}");
        let metadata =
            write(&checkpoint, &folder.join("out.safetensors"), options, &AtomicBool::new(false)).unwrap();
        assert_eq!(metadata.source.sha256.map(|hash| hash.len()), Some(64));
        assert_eq!(
            contents(&open(&folder.join("out.safetensors"), &Options::default()).unwrap()),
            contents(&original)
        );
    }
    fs::remove_file(folder.join(names[1])).unwrap();
    let error = open(folder, &Options::default()).err().unwrap();
    assert!(error.contains("model-00002-of-00002.safetensors: no such file, but"), "{error}");
}

/// The demo network's tensors, those of a bias left out.
fn without(tails: &[&str]) -> (Architecture, Vec<Raw>) {
    let architecture = zoo::find("demo-digits").unwrap().architecture.clone();
    let mut tensors = zeros(architecture.tensors());
    tensors.retain(|(name, ..)| !tails.iter().any(|tail| name.ends_with(tail)));
    (architecture, tensors)
}

#[test]
fn networks_without_bias_take_heads_and_kernel_size_from_elsewhere() {
    let place = Place::new();
    let named = Options::default().with_arch("demo-digits");
    for (tails, rpb, qkv_bias) in [
        (&[".attn.rpb"][..], false, true),
        (&[".attn.qkv.bias"], true, false),
        (&[".attn.rpb", ".attn.qkv.bias"], false, false),
    ] {
        let (mut expected, tensors) = without(tails);
        (expected.backbone.rpb, expected.backbone.qkv_bias) = (rpb, qkv_bias);
        let path = place.file(&tensors);
        let checkpoint = open(&path, &named).unwrap();
        assert_eq!(checkpoint.metadata().architecture, expected);
        // Converted it needs no name.
        let target = place.0.path().join("out.safetensors");
        let options = WriteOptions::default().with_overwrite(true);
        write(&checkpoint, &target, options, &AtomicBool::new(false)).unwrap();
        assert_eq!(open(&target, &Options::default()).unwrap().metadata().architecture, expected);
        let alone = open(&path, &Options::default());
        assert_eq!(alone.is_ok(), rpb, "{tails:?}");
        if let Err(error) = alone {
            let says = "attention heads and kernel size are in no tensor; `arch` or a config.json";
            assert!(error.contains(says), "{error}");
        }
    }
    // Of another size than it is said to be.
    let path = place.file(&without(&[".attn.rpb"]).1);
    let wrong = Options::default().with_arch("nat-tiny");
    let error = open(&path, &wrong).err().unwrap();
    assert!(error.contains("not `nat-tiny` but") || error.contains("are not those of"), "{error}");
    // Some blocks with a bias and some without.
    let (_, mut tensors) = without(&["levels.1.blocks.0.attn.rpb"]);
    let error = open(&place.file(&tensors), &named).err().unwrap();
    assert!(
        error.contains("levels.1.blocks.0.attn.rpb") || error.contains("level 1 has no relative"),
        "{error}"
    );
    tensors = without(&["levels.0.blocks.0.attn.qkv.bias"]).1;
    let error = open(&place.file(&tensors), &named).err().unwrap();
    assert!(error.contains("1 missing: `levels.0.blocks.0.attn.qkv.bias`"), "{error}");
}

#[test]
fn config_json_says_heads_and_kernel_size() {
    let source = golden::path("transformers/nat-hf");
    let original = open(&source, &Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let theirs = |name: &str| {
        let name = name.replace("patch_embed.proj.", "embeddings.patch_embeddings.projection.");
        let name =
            name.replace("patch_embed.norm.", "embeddings.norm.").replace("levels.", "encoder.levels.");
        let name = name.replace(".blocks.", ".layers.").replace(".norm1.", ".layernorm_before.");
        let name =
            name.replace(".norm2.", ".layernorm_after.").replace(".attn.proj.", ".attention.output.dense.");
        let name = name.replace(".mlp.fc1.", ".intermediate.dense.").replace(".mlp.fc2.", ".output.dense.");
        let name = if name.starts_with("norm.") { name.replace("norm.", "layernorm.") } else { name };
        if name.starts_with("head.") { name.replace("head.", "classifier.") } else { format!("nat.{name}") }
    };
    let mut tensors = Vec::new();
    for (name, mut shape, bytes) in contents(&original) {
        let name = theirs(&name);
        if let Some((block, rest)) = name.split_once(".attn.qkv.") {
            shape[0] /= 3;
            for (part, bytes) in ["query", "key", "value"].into_iter().zip(bytes.chunks(bytes.len() / 3)) {
                tensors.push((
                    format!("{block}.attention.self.{part}.{rest}"),
                    "F32",
                    shape.clone(),
                    bytes.to_vec(),
                ));
            }
        } else if !name.ends_with(".rpb") {
            tensors.push((name, "F32", shape, bytes));
        }
    }
    safetensors(&folder.path().join("model.safetensors"), &tensors);
    let config = golden::json(&source.join("config.json"));
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let checkpoint = open(folder.path(), &Options::default()).unwrap();
    let mut expected = original.metadata().architecture.clone();
    expected.backbone.rpb = false;
    assert_eq!(checkpoint.metadata().architecture, expected);
    // Numbers that are none of a network.
    for (key, value) in [
        ("num_heads", serde_json::json!([0, 1, 1, 1])),
        ("num_heads", serde_json::json!([3, 3, 3, 3])),
        ("num_heads", serde_json::json!([1])),
        ("kernel_size", serde_json::json!(0)),
        ("kernel_size", serde_json::json!(6)),
        ("kernel_size", serde_json::json!(1u64 << 40)),
    ] {
        let mut config = config.clone();
        config[key] = value;
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let error = open(folder.path(), &Options::default()).err().unwrap();
        assert!(error.contains("the network's sizes can't be told"), "{error}");
    }
}

#[test]
fn a_detector_of_other_than_four_levels_is_refused() {
    let place = Place::new();
    for name in ["mask-rcnn-nat-mini", "cascade-mask-rcnn-nat-mini"] {
        let mut architecture = zoo::find(name).unwrap().architecture.clone();
        let backbone = &mut architecture.backbone;
        backbone.depths.truncate(3);
        backbone.num_heads.truncate(3);
        backbone.dilations.truncate(3);
        let error = open(&place.file(&zeros(architecture.tensors())), &Options::default()).err().unwrap();
        assert!(error.contains("a detector on a backbone of 3 levels; those of 4 are run"), "{error}");
    }
}

/// Tens of thousands of long names are compared with none of the network's but the first few: with all of them
/// this would take a quarter of an hour.
#[test]
fn very_many_very_long_names_are_refused_at_once() {
    let (place, original) = (Place::new(), plain());
    let mut tensors = renamed(&original, str::to_owned);
    let long = "norm.".repeat(40);
    tensors.extend((0..40_000).map(|i| extra(&format!("norm.{long}{i}"), &[0])));
    let error = Checkpoint::open(&place.file(&tensors), &Options::default()).err().unwrap();
    let ConvertError::Tensors { mismatch, .. } = &error else { panic!("{error}") };
    assert_eq!(mismatch.unknown.len(), 40_000);
    assert!(error.to_string().len() < 2000 && error.to_string().contains("and 39995 more"), "{error}");
    assert!(mismatch.unknown[5..].iter().all(|(_, nearest)| nearest.is_none()));
}

/// Whatever stands in a file, opening and reading it ends with a result or one line. What is changed is where names,
/// shapes and opcodes lie, before the elements.
#[test]
fn damaged_checkpoints_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let tokens =
        ["levels", "layers", "blocks", ".", "0", "9", "rpb", "ema_", "model.", "head", "\u{e4}", "module."];
    let mut opened = [0, 0];
    let files = [files("doors/read"), files("doors/refused"), vec![golden::path("doors/plain.pth")]].concat();
    for original in files {
        let good = fs::read(&original).unwrap();
        for _ in 0..60 {
            let mut bad = good.clone();
            for _ in 0..1 + random(3) {
                let at = random(bad.len().min(6000));
                match random(3) {
                    0 => bad[at] = random(256) as u8,
                    1 => bad[at] = bad[random(good.len())],
                    // A piece of a name over another, of the same length.
                    _ => {
                        let token = tokens[random(tokens.len())].as_bytes();
                        let end = bad.len().min(at + token.len());
                        bad[at..end].copy_from_slice(&token[..end - at]);
                    }
                }
            }
            fs::write(&path, &bad).unwrap();
            let mut said = Options::default().with_ignore(["*.b?as"]);
            said.weights_key = (random(2) == 0).then(|| "state_dict".to_owned());
            for options in [Options::default(), said] {
                match open(&path, &options) {
                    Ok(checkpoint) => {
                        let mut bytes = Vec::new();
                        for tensor in checkpoint.tensors() {
                            drop(checkpoint.read(&tensor.name, &mut bytes));
                        }
                        opened[0] += 1;
                    }
                    Err(_) => opened[1] += 1,
                }
            }
        }
    }
    assert!(opened.iter().all(|&count| count > 100), "{opened:?}");
}
