//! Checkpoints of every kind through the library: what is inferred, what is kept, and that writing
//! and opening again changes nothing.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use nat_convert::arch::{
    Architecture, ClassifierWidths, DetectorWidths, Family, Geometry, Head, Norms, UpernetWidths,
};
use nat_convert::checkpoint::{Checkpoint, Options, Part};
use nat_convert::error::{ConvertError, Mismatch};
use nat_convert::layout::Layout;
use nat_convert::report::Remedy;
use nat_convert::source::{Container, ElementType};
use nat_convert::write::{FloatType, WriteOptions, write};
use nat_convert::zoo;
use nat_testing::checkpoint::{Raw, save as safetensors, zeros};
use nat_testing::golden;
use serde_json::Value;

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn open_error(path: &Path, options: &Options) -> ConvertError {
    match Checkpoint::open(path, options) {
        Ok(checkpoint) => panic!("{} opens: {}", path.display(), checkpoint.report()),
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            error
        }
    }
}

fn bytes(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
    let mut out = vec![1, 2, 3];
    checkpoint.read(name, &mut out).unwrap();
    out
}

fn list(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

fn nested(value: &Value) -> Vec<Vec<usize>> {
    value.as_array().unwrap().iter().map(list).collect()
}

/// Converts, opens the result, and compares everything but what conversion adds.
fn round_trip(original: &Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out.safetensors");
    let written = write(original, &target, WriteOptions::default(), &AtomicBool::new(false)).unwrap();
    assert_eq!(written.source.sha256.as_deref().map(str::len), Some(64));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something is left beside the target");

    let file = fs::read(&target).unwrap();
    let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    assert_eq!(header % 8, 0, "data are not aligned");
    let theirs = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(theirs.len(), original.tensors().len());

    let again = open(&target);
    assert!(again.is_converted() && !original.is_converted());
    assert_eq!(again.metadata().architecture, original.metadata().architecture);
    assert_eq!(again.metadata().preprocessing, original.metadata().preprocessing);
    assert_eq!(again.metadata().labels, original.metadata().labels);
    assert_eq!(again.metadata().dilations_known, original.metadata().dilations_known);
    for (a, b) in original.tensors().iter().zip(again.tensors()) {
        assert_eq!((&a.name, &a.shape, a.dtype), (&b.name, &b.shape, b.dtype));
        let expected = bytes(original, &a.name);
        assert_eq!(expected, bytes(&again, &a.name), "{}", a.name);
        assert_eq!(expected, theirs.tensor(&a.name).unwrap().data(), "{}", a.name);
    }
}

#[test]
fn golden_classifiers() {
    golden::each(&golden::files("classify", "pth"), |path| {
        let case = golden::json(&path.with_extension("json"));
        let (name, config) = (case["name"].as_str().unwrap(), &case["config"]);
        let checkpoint = open(path);
        let (arch, report) = (&checkpoint.metadata().architecture, checkpoint.report());
        let b = &arch.backbone;

        let family = match case["family"].as_str().unwrap() {
            "nat" | "dinat" => Family::Nat,
            "dinat_s" => Family::DinatS,
            _ if config["full"] == true => Family::VitRpb,
            _ => Family::Isotropic,
        };
        assert_eq!(b.family, family, "{name}");
        assert_eq!(b.embed_dim as u64, config["embed_dim"], "{name}");
        let per_level = |many: &str, one: &str| match &config[many] {
            Value::Array(_) => list(&config[many]),
            _ => vec![config[one].as_u64().unwrap() as usize],
        };
        assert_eq!(b.depths, per_level("depths", "depth"), "{name}");
        assert_eq!(b.num_heads, per_level("heads", "heads"), "{name}");
        assert_eq!(b.kernel_size as u64, config["kernel"].as_u64().unwrap_or(14), "{name}");
        assert_eq!(b.mlp_ratio, config["mlp_ratio"].as_f64().unwrap(), "{name}");
        assert_eq!(b.layer_scale, config["layer_scale"].is_f64(), "{name}");
        assert_eq!((b.rpb, b.norms), (true, Norms::Final), "{name}");
        assert_eq!(
            arch.head,
            Head::Classifier(ClassifierWidths { classes: config["classes"].as_u64().unwrap() as usize }),
            "{name}"
        );

        let container =
            if case["container"] == "legacy" { Container::TorchLegacy } else { Container::TorchZip };
        assert_eq!((report.container, report.layout), (container, Layout::Original), "{name}");
        let key = match case["wrapper"].as_str().unwrap() {
            "bare" => None,
            "timm" => Some("state_dict_ema"),
            "ddp" => Some("model"),
            "params" => Some("state_dict"),
            other => panic!("{other}"),
        };
        assert_eq!(report.weights_key.as_deref(), key, "{name}");
        let stored = format!("{:?}", checkpoint.tensors()[0].dtype).to_lowercase();
        assert_eq!(stored, case["stored_dtype"].as_str().unwrap(), "{name}");

        // Dilations are in no tensor: without help they are 1 and a note says so.
        let known = family == Family::VitRpb;
        assert_eq!(checkpoint.metadata().dilations_known, known, "{name}");
        assert_eq!(
            report.warnings.iter().any(|warning| warning.remedy == Some(Remedy::Dilations)),
            !known,
            "{name}"
        );
        assert!(b.dilations.iter().flatten().all(|&d| d == 1), "{name}");
        if config["dilations"].is_array() {
            let options = Options::default().with_dilations("1,8/1,4/1,2/1".parse().unwrap());
            let told = Checkpoint::open(path, &options).unwrap();
            assert_eq!(
                told.metadata().architecture.backbone.dilations,
                nested(&config["dilations"]),
                "{name}"
            );
            assert!(told.metadata().dilations_known, "{name}");
        }
        round_trip(&checkpoint);
    });
}

#[test]
fn the_ema_is_preferred_and_a_key_chooses() {
    let path = golden::path("classify/nat-k5-layerscale-ema.pth");
    let with = |key: &str| {
        let options = Options::default().with_weights_key(key);
        bytes(&Checkpoint::open(&path, &options).unwrap(), "norm.weight")
    };
    assert_eq!(bytes(&open(&path), "norm.weight"), with("state_dict_ema"));
    assert_ne!(with("state_dict"), with("state_dict_ema"));
    assert_eq!(open(&path).report().other_weights, ["state_dict"]);
}

#[test]
fn golden_detectors_and_segmenters() {
    for (name, file) in [
        ("detect/maskrcnn_s", "model.pth"),
        ("detect/cascade_a", "model_legacy.pth"),
        ("detect/cascade_b", "model.pth"),
        ("segment/upernet_b", "model.pth"),
    ] {
        let spec = &golden::json(&golden::path(name).join("golden.json"))["spec"];
        let checkpoint = open(&golden::path(name).join(file));
        let arch = &checkpoint.metadata().architecture;
        let number = |key: &str| spec[key].as_u64().unwrap() as usize;
        let detector = |box_convs, box_fcs, stages, box_channels| DetectorWidths {
            classes: number("num_classes"),
            fpn_channels: number("fpn_channels"),
            box_convs,
            box_channels,
            box_fcs,
            fc_channels: number("fc_channels"),
            class_agnostic: false,
            stages,
            mask_convs: 4,
            mask_channels: number("mask_channels"),
        };
        let head = match spec["kind"].as_str().unwrap() {
            "maskrcnn" => Head::MaskRcnn(detector(0, 2, 1, number("fpn_channels"))),
            "cascade" => Head::CascadeMaskRcnn(detector(4, 1, 3, number("box_conv_channels"))),
            _ => {
                Head::Upernet(UpernetWidths { classes: number("num_classes"), channels: number("channels") })
            }
        };
        assert_eq!(arch.head, head, "{name}");
        assert_eq!(arch.backbone.norms, Norms::Outputs, "{name}");
        // From the training configuration in the file, unrolled along each level.
        let dilations = match &spec["backbone"]["dilations"] {
            Value::Null => {
                list(&spec["backbone"]["depths"]).into_iter().map(|depth| vec![1; depth]).collect()
            }
            dilations => nested(dilations),
        };
        assert_eq!(arch.backbone.dilations, dilations, "{name}");
        let scale = list(&spec["img_scale"]);
        let scale = [scale[0], scale[1]];
        let expected = match head {
            Head::Upernet(_) => Geometry::segmentation(scale),
            _ => Geometry::detection(scale),
        };
        assert_eq!(checkpoint.metadata().preprocessing.geometry, expected, "{name}");
        assert_eq!(
            checkpoint.metadata().labels.as_ref().map(Vec::len),
            Some(number("num_classes")),
            "{name}"
        );
        assert_eq!(checkpoint.report().layout, Layout::OpenMmlab, "{name}");
        round_trip(&checkpoint);

        let options = Options::default().with_part(Part::Backbone);
        let bare = Checkpoint::open(&golden::path(name).join(file), &options).unwrap();
        assert_eq!(bare.metadata().architecture.head, Head::Features, "{name}");
        assert_eq!(bare.metadata().architecture.backbone, arch.backbone, "{name}");
        assert_eq!(bytes(&bare, "norm3.bias"), bytes(&checkpoint, "backbone.norm3.bias"), "{name}");
        assert!(bare.report().dropped.iter().any(|d| d.reason == "not of the backbone"), "{name}");
        round_trip(&bare);
    }
}

/// The full-size networks by their key lists, as files of zeros that take no space.
#[test]
fn golden_key_lists() {
    // Parameters in thousands: "Exact parameter counts", the auxiliary head (629) taken off.
    for (name, like, kept_thousands) in [
        ("keys_maskrcnn", "mask-rcnn-nat-mini", 39_623),
        ("keys_cascade", "cascade-mask-rcnn-nat-mini", 77_458),
        ("keys_upernet", "upernet-nat-mini", 49_780 - 629),
    ] {
        let text = fs::read_to_string(golden::path("keys").join(name).with_extension("txt")).unwrap();
        let line = |line: &str| -> Raw {
            let fields: Vec<_> = line.split('\t').collect();
            let dtype = if fields[2] == "int64" { "I64" } else { "F32" };
            (fields[0].to_owned(), dtype, serde_json::from_str(fields[1]).unwrap(), Vec::new())
        };
        let tensors: Vec<Raw> = text.lines().map(line).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        safetensors(&path, &tensors);

        let checkpoint = open(&path);
        let (arch, report) = (&checkpoint.metadata().architecture, checkpoint.report());
        assert_eq!((arch.parameters() + 500) / 1000, kept_thousands, "{name}");
        assert_eq!(report.tensors.len() + report.dropped.len(), tensors.len(), "{name}");
        let droppable =
            |name: &str| name.starts_with("auxiliary_head.") || name.ends_with("num_batches_tracked");
        assert!(report.dropped.iter().all(|dropped| droppable(&dropped.name)), "{name}");
        assert!(report.looks_like.contains(&like), "{name}: {:?}", report.looks_like);
        let mut expected = zoo::find(like).unwrap().architecture.clone();
        let sizes = (arch.backbone.depths.as_slice(), arch.backbone.num_heads.as_slice());
        assert_eq!(sizes, (&[3, 4, 6, 5][..], &[2, 4, 8, 16][..]), "{name}");
        expected.backbone.dilations.clone_from(&arch.backbone.dilations);
        assert_eq!(*arch, expected, "{name}");
    }
}

#[test]
fn every_published_architecture_is_recognised_by_its_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    for entry in zoo::entries() {
        safetensors(&path, &zeros(entry.architecture.tensors()));
        let options = Options::default().with_arch(&entry.name);
        let told = Checkpoint::open(&path, &options).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(told.metadata().architecture, entry.architecture, "{}", entry.name);
        assert_eq!(told.metadata().preprocessing, entry.preprocessing, "{}", entry.name);
        assert_eq!(told.metadata().model.as_deref(), Some(entry.name.as_str()));
        assert_eq!(told.metadata().labels.as_ref().map(Vec::len), Some(entry.labels.classes()));
        let mut expected = entry.architecture.clone();
        expected.backbone.dilations.iter_mut().flatten().for_each(|d| *d = 1);
        assert_eq!(open(&path).metadata().architecture, expected, "{}", entry.name);
    }
    // A known file name tells what the tensors can't.
    let entry = zoo::find("dinat-tiny").unwrap();
    let named = folder.path().join(entry.file_name().unwrap());
    safetensors(&named, &zeros(entry.architecture.tensors()));
    let checkpoint = open(&named);
    assert_eq!(checkpoint.metadata().architecture, entry.architecture);
    assert_eq!(checkpoint.report().dilations_from.as_deref(), Some("the name of dinat-tiny"));
    // So does a folder of the Hub's cache.
    let snapshot = folder.path().join("models--shi-labs--dinat-tiny-in1k-224/snapshots/0a1b");
    fs::create_dir_all(&snapshot).unwrap();
    safetensors(&snapshot.join("model.safetensors"), &zeros(entry.architecture.tensors()));
    assert_eq!(open(&snapshot).metadata().model.as_deref(), Some("dinat-tiny"));
    // But only if the sizes are that model's.
    safetensors(&named, &zeros(zoo::find("dinat-mini").unwrap().architecture.tensors()));
    assert!(!open(&named).metadata().dilations_known);
}

/// Renames a golden classifier's tensors to what Transformers would call them, qkv and layer scale
/// in its shapes.
fn as_transformers(checkpoint: &Checkpoint, prefix: &str) -> Vec<Raw> {
    let mut tensors: Vec<Raw> = Vec::new();
    let mut push = |name: String, shape: &[usize], bytes: &[u8]| {
        let prefix = if name.starts_with("classifier.") { "" } else { prefix };
        tensors.push((format!("{prefix}{name}"), "F32", shape.to_vec(), bytes.to_vec()));
    };
    for tensor in checkpoint.tensors() {
        let data = bytes(checkpoint, &tensor.name);
        let (name, mut shape) = (tensor.name.as_str(), tensor.shape.clone());
        let renamed = name
            .replace("patch_embed.proj.", "embeddings.patch_embeddings.projection.")
            .replace("patch_embed.norm.", "embeddings.norm.")
            .replace("levels.", "encoder.levels.")
            .replace(".blocks.", ".layers.")
            .replace(".norm1.", ".layernorm_before.")
            .replace(".norm2.", ".layernorm_after.")
            .replace(".attn.proj.", ".attention.output.dense.")
            .replace(".attn.rpb", ".attention.self.rpb")
            .replace(".mlp.fc1.", ".intermediate.dense.")
            .replace(".mlp.fc2.", ".output.dense.")
            .replace("head.", "classifier.");
        let renamed = match renamed.strip_prefix("norm.") {
            Some(rest) => format!("layernorm.{rest}"),
            None => renamed,
        };
        if let Some((block, rest)) = renamed.split_once(".attn.qkv.") {
            shape[0] /= 3;
            for (part, data) in ["query", "key", "value"].into_iter().zip(data.chunks(data.len() / 3)) {
                push(format!("{block}.attention.self.{part}.{rest}"), &shape, data);
            }
        } else if let Some(block) = renamed.strip_suffix(".gamma1") {
            let both = [data, bytes(checkpoint, &name.replace("gamma1", "gamma2"))].concat();
            push(format!("{block}.layer_scale_parameters"), &[2, shape[0]], &both);
        } else if !renamed.ends_with(".gamma2") {
            push(renamed, &shape, &data);
        }
    }
    tensors
}

#[test]
fn transformers_names_give_the_same_tensors() {
    let original = open(&golden::path("classify/nat-k5-layerscale-ema.pth"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for prefix in ["nat.", "dinat.", ""] {
        safetensors(&path, &as_transformers(&original, prefix));
        let renamed = open(folder.path());
        assert_eq!(renamed.report().layout, Layout::Transformers);
        assert_eq!(renamed.metadata().architecture, original.metadata().architecture);
        for tensor in original.tensors() {
            assert_eq!(bytes(&renamed, &tensor.name), bytes(&original, &tensor.name), "{}", tensor.name);
        }
    }
    round_trip(&open(folder.path()));

    // As NatBackbone and DinatBackbone are saved: a norm a stage, no final norm, no classifier.
    let mut tensors = as_transformers(&original, "");
    tensors.retain(|(name, ..)| !name.starts_with("layernorm.") && !name.starts_with("classifier."));
    for (level, dim) in [16, 32, 64, 128].into_iter().enumerate() {
        for part in ["weight", "bias"] {
            let data = vec![level as u8; dim * 4];
            tensors.push((format!("hidden_states_norms.stage{}.{part}", level + 1), "F32", vec![dim], data));
        }
    }
    safetensors(&path, &tensors);
    let backbone = open(&path);
    let Architecture { backbone: found, head, .. } = &backbone.metadata().architecture;
    assert_eq!((found.norms, head), (Norms::Outputs, &Head::Features));
    assert_eq!(bytes(&backbone, "norm2.bias"), vec![2; 64 * 4]);
}

#[test]
fn a_transformers_folder() {
    for entry in fs::read_dir(golden::path("transformers")).unwrap() {
        let folder = entry.unwrap().path();
        let config = golden::json(&folder.join("config.json"));
        let checkpoint = open(&folder);
        let metadata = checkpoint.metadata();
        let b = &metadata.architecture.backbone;
        assert_eq!(b.embed_dim as u64, config["embed_dim"]);
        assert_eq!((&b.depths, &b.num_heads), (&list(&config["depths"]), &list(&config["num_heads"])));
        let labels = metadata.labels.as_ref().unwrap();
        assert_eq!(labels.len(), config["id2label"].as_object().unwrap().len());
        assert!(
            labels.iter().enumerate().all(|(i, label)| config["id2label"][i.to_string()] == *label.as_str())
        );
        assert_eq!(metadata.preprocessing.geometry, Geometry::Crop { resolution: 224, crop_pct: 0.875 });
        assert!(metadata.dilations_known);
        assert_eq!(checkpoint.report().dilations_from.as_deref(), Some("config.json"));
        assert_eq!(metadata.source.file, "pytorch_model.bin");
        round_trip(&checkpoint);
        // The file in the folder finds the same.
        assert_eq!(open(&folder.join("pytorch_model.bin")).metadata(), metadata);
    }
}

#[test]
fn config_json_states_dilations_and_is_held_against_the_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let original = open(&golden::path("classify/nat-k7.pth"));
    safetensors(&folder.path().join("model.safetensors"), &as_transformers(&original, "dinat."));
    let write = |json: &str| fs::write(folder.path().join("config.json"), json).unwrap();

    write(
        r#"{"model_type": "dinat", "depths": [1, 2, 2, 1], "hidden_size": 512, "dilations": [[8], [1, 4], [1, 2], [1]]}"#,
    );
    let checkpoint = open(folder.path());
    assert_eq!(
        checkpoint.metadata().architecture.backbone.dilations,
        [vec![8], vec![1, 4], vec![1, 2], vec![1]]
    );
    assert!(checkpoint.report().warnings.is_empty(), "{:?}", checkpoint.report().warnings);

    write(r#"{"model_type": "nat"}"#);
    assert!(open(folder.path()).metadata().dilations_known);

    write(r#"{"model_type": "dinat"}"#);
    assert!(!open(folder.path()).metadata().dilations_known);

    for (json, says) in [
        (
            r#"{"depths": [1, 2, 2, 2]}"#,
            "depths is [1, 2, 2, 2], but [1, 2, 2, 1] in the tensors of model.safetensors",
        ),
        (r#"{"embed_dim": 64}"#, "embed_dim is 64, but 16 in"),
        (r#"{"hidden_act": "relu"}"#, "hidden_act `relu` is not supported"),
        (r#"{"dilations": [[1], [2]]}"#, "have 2 level(s), the network has 4"),
        (r#"{"dilations": [[1], [2], [0], [1]]}"#, "dilation 0 is not a number from 1 to 4096"),
        (r#"{"id2label": {"0": "a", "2": "b"}}"#, "id2label does not number its labels 0 to 1"),
        (r#"{"depths": "#, "EOF while parsing"),
    ] {
        write(json);
        let error = open_error(folder.path(), &Options::default()).to_string();
        assert!(error.contains("config.json: ") && error.contains(says), "{error}");
    }
}

#[test]
fn the_stock_cascade_layout() {
    let mut arch = zoo::find("cascade-mask-rcnn-nat-mini").unwrap().architecture.clone();
    let Head::CascadeMaskRcnn(detector) = &mut arch.head else { panic!("not a cascade") };
    *detector =
        DetectorWidths { box_convs: 0, box_fcs: 2, class_agnostic: true, classes: 20, ..detector.clone() };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cascade.safetensors");
    safetensors(&path, &zeros(arch.tensors()));
    assert_eq!(open(&path).metadata().architecture, arch);
    assert_eq!(open(&path).metadata().preprocessing.geometry, Geometry::detection([1333, 800]));
}

#[test]
fn what_does_not_fit_is_listed_in_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let arch = open(&golden::path("classify/nat-k7.pth")).metadata().architecture.clone();
    let mut tensors = zeros(arch.tensors());
    for (name, _, shape, _) in &mut tensors {
        match name.as_str() {
            "norm.bias" => "norm.bais".clone_into(name),
            "levels.2.blocks.1.mlp.fc2.bias" => shape[0] = 65,
            "levels.3.blocks.0.attn.rpb" => *shape = vec![4, 11, 11],
            _ => {}
        }
    }
    tensors.retain(|(name, ..)| name != "levels.1.blocks.1.attn.proj.weight");
    tensors.push(("heatmap.conv".into(), "F32", vec![1], Vec::new()));
    safetensors(&path, &tensors);
    let ConvertError::Tensors { mismatch, network, .. } = open_error(&path, &Options::default()) else {
        panic!("another error")
    };
    assert!(network.contains("depths 1,2,2,1, heads 1,1,2,4"), "{network}");
    let Mismatch { missing, unknown, shapes, unusable, .. } = *mismatch;
    assert_eq!(missing, ["levels.1.blocks.1.attn.proj.weight", "norm.bias"]);
    assert_eq!(unknown[0], ("heatmap.conv".into(), None));
    assert_eq!(unknown[1], ("norm.bais".into(), Some("norm.bias".into())));
    // The kernel size is that of most bias tables.
    assert_eq!(
        shapes.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(),
        ["levels.2.blocks.1.mlp.fc2.bias", "levels.3.blocks.0.attn.rpb"]
    );
    assert_eq!((shapes[0].1.as_slice(), shapes[0].2.as_slice()), (&[65][..], &[64][..]));
    assert!(unusable.is_empty());
}

#[test]
fn other_networks_and_impossible_sizes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let raw = |name: &str, shape: &[usize]| -> Raw { (name.to_owned(), "F32", shape.to_vec(), Vec::new()) };
    let iso = |rpb: &[usize]| {
        vec![
            raw("patch_embed.proj.weight", &[48, 3, 16, 16]),
            raw("layers.0.attn.qkv.weight", &[144, 48]),
            raw("layers.0.attn.rpb", rpb),
            raw("layers.0.mlp.fc1.weight", &[192, 48]),
        ]
    };
    for (tensors, says) in [
        (vec![raw("layer1.0.conv1.weight", &[1])], "not a NAT or DiNAT checkpoint: looks like a ResNet"),
        (vec![raw("w", &[1])], "not a NAT or DiNAT checkpoint: 1 tensors, the first `w`"),
        (
            vec![
                raw("patch_embed.proj.weight", &[96, 3, 4, 4]),
                raw("layers.0.blocks.0.attn.qkv.weight", &[288, 96]),
                raw("layers.0.blocks.0.attn.relative_position_bias_table", &[169, 3]),
            ],
            "not a NAT or DiNAT checkpoint: looks like a Swin Transformer",
        ),
        (iso(&[0, 13, 13]), "`layers.0.attn.rpb` has shape [0, 13, 13]"),
        (iso(&[3]), "`layers.0.attn.rpb` has shape [3]"),
        (iso(&[3, 13, 12]), "`layers.0.attn.rpb` is [3, 13, 12], expected [3, 13, 13]"),
        (
            iso(&[3, 13, 13])[..2].to_vec(),
            "there is no relative position bias (`attn.rpb`), so attention heads and kernel size are in no tensor",
        ),
        ([iso(&[3, 13, 13]), vec![raw("layers.99999999.norm1.bias", &[1])]].concat(), "too large a number"),
        (
            vec![raw("patch_embed.proj.1.weight", &[4]), raw("levels.7.blocks.0.norm1.bias", &[1])],
            "`levels.7` has too large a number",
        ),
    ] {
        safetensors(&path, &tensors);
        let error = open_error(&path, &Options::default()).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_wrong_arch_says_what_the_checkpoint_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    safetensors(&path, &zeros(zoo::find("nat-mini").unwrap().architecture.tensors()));
    let arch = |name: &str| Options::default().with_arch(name);
    for (name, says) in [
        (
            "nat-tiny",
            "x.safetensors: not `nat-tiny` but a NAT or DiNAT classifier of 1000 classes: embed 64, depths 3,4,6,5",
        ),
        ("mask-rcnn-nat-mini", "looks like nat-mini or dinat-mini"),
        ("nat-tinny", "no model is named `nat-tinny`; the nearest names are nat-tiny"),
    ] {
        let error = open_error(&path, &arch(name)).to_string();
        assert!(error.contains(says), "{error}");
    }
    // A head that was trained anew is still that architecture; it is not that model.
    let mut arch_of_ten = zoo::find("dinat-mini").unwrap().architecture.clone();
    arch_of_ten.head = Head::Classifier(ClassifierWidths { classes: 10 });
    safetensors(&path, &zeros(arch_of_ten.tensors()));
    let checkpoint = Checkpoint::open(&path, &arch("dinat-mini")).unwrap();
    assert_eq!(checkpoint.metadata().architecture, arch_of_ten);
    assert_eq!((&checkpoint.metadata().model, &checkpoint.metadata().labels), (&None, &None));

    let wrong = Options::default().with_dilations("1,2".parse().unwrap());
    assert!(
        open_error(&path, &wrong).to_string().contains("dilations `1,2` have 1 level(s), the network has 4")
    );
}

#[test]
fn every_dtype_becomes_a_float_of_at_most_32_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let arch = open(&golden::path("classify/nat-iso.pth")).metadata().architecture.clone();
    let mut tensors = zeros(arch.tensors());
    for (i, (name, dtype, shape, data)) in tensors.iter_mut().enumerate() {
        *dtype = ["F64", "F32", "F16", "BF16"][i % 4];
        if name == "patch_embed.proj.weight" {
            let values = (0..shape.iter().product::<usize>()).map(|i| i as f64 / 3.0);
            *data = values.flat_map(f64::to_le_bytes).collect();
        }
    }
    safetensors(&path, &tensors);
    let checkpoint = open(&path);
    let weight = &checkpoint.tensors()[0];
    assert_eq!((weight.name.as_str(), weight.dtype), ("patch_embed.proj.weight", ElementType::F32));
    let expected: Vec<u8> =
        (0..48 * 3 * 16 * 16).flat_map(|i| ((i as f64 / 3.0) as f32).to_le_bytes()).collect();
    assert_eq!(bytes(&checkpoint, "patch_embed.proj.weight"), expected);
    assert!(
        checkpoint.report().notes.iter().any(|note| note.contains("tensors of 64-bit floats are rounded"))
    );
    round_trip(&checkpoint);

    for (asked, size) in [(FloatType::F16, 2), (FloatType::BF16, 2), (FloatType::F32, 4)] {
        let target = folder.path().join("out.safetensors");
        let options = WriteOptions::default().with_dtype(asked).with_overwrite(true);
        write(&checkpoint, &target, options, &AtomicBool::new(false)).unwrap();
        let written = open(&target);
        assert!(written.tensors().iter().all(|t| format!("{:?}", t.dtype) == format!("{asked:?}")));
        assert_eq!(bytes(&written, "norm.bias").len(), 48 * size);
    }
}

#[test]
fn metadata_of_ours_is_not_believed_blindly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let original = open(&golden::path("classify/nat-k7.pth"));
    write(&original, &path, WriteOptions::default(), &AtomicBool::new(false)).unwrap();
    let good = fs::read(&path).unwrap();
    for (from, to, says) in [
        (
            r#"\"dilations\":[[1],["#,
            r#"\"dilations\":[[],[1,"#,
            "its metadata can't be used: the 1 blocks of level 0 have 0 dilations",
        ),
        (r#"\"family\":\"nat\""#, r#"\"family\":\"cat\""#, "metadata that this version can't read"),
    ] {
        let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bad = good.clone();
        bad.splice(at..at + from.len(), to.bytes());
        if let Some(longer) = to.len().checked_sub(from.len()) {
            let header = u64::from_le_bytes(bad[..8].try_into().unwrap()) + longer as u64;
            bad[..8].copy_from_slice(&header.to_le_bytes());
        }
        fs::write(&path, bad).unwrap();
        let error = open_error(&path, &Options::default()).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn nothing_is_written_once_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out.safetensors");
    let original = open(&golden::path("classify/nat-k7.pth"));
    let error = write(&original, &target, WriteOptions::default(), &AtomicBool::new(true)).unwrap_err();
    assert!(matches!(error, ConvertError::Interrupted), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
