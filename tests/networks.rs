//! Whole networks: against what the original code computed, walked by folder (every checkpoint in
//! `tests/golden/classify`, every Transformers folder in `tests/golden/transformers`), and every
//! classifier of the zoo against its published size.

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device, IndexOp, Tensor};
use nat_convert::arch::{ClassifierWidths, Dilations, Family, Geometry, Head};
use nat_convert::checkpoint::{Checkpoint, Options};
use nat_convert::write::{WriteOptions, write};
use nat_convert::zoo::{self, Task};
use nat_infer::models::classifier::{Classifier, Features};
use nat_infer::weights::Weights;
use nat_testing::tensors::{load as load_tensors, relative};
use nat_testing::{bound, golden};
use serde_json::Value;

fn top(logits: &Tensor) -> Vec<u32> {
    logits.argmax(1).unwrap().to_vec1().unwrap()
}

/// The dilations that the case was made with, as the command line takes them.
fn dilations(path: &Path) -> Option<Dilations> {
    let case = golden::json(&path.with_extension("json"));
    let list =
        |list: &Value| list.as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>().join(",");
    let text = match (&case["config"]["dilations"], &case["config"]["dilation"]) {
        (Value::Array(levels), _) => levels.iter().map(list).collect::<Vec<_>>().join("/"),
        (_, Value::Number(d)) => format!("1,{d}"),
        _ => return None,
    };
    Some(text.parse().unwrap())
}

fn load(path: &Path, dtype: DType) -> Classifier {
    load_on(&Device::Cpu, path, dtype, |weights| weights)
}

fn load_on(device: &Device, path: &Path, dtype: DType, form: fn(Weights) -> Weights) -> Classifier {
    let dilations = if path.is_dir() { None } else { dilations(path) };
    let mut said = Options::default();
    said.dilations = dilations;
    let checkpoint = Checkpoint::open(path, &said).unwrap();
    let architecture = checkpoint.metadata().architecture.clone();
    let weights = form(Weights::from_checkpoint(checkpoint, dtype, device.clone()).unwrap());
    let model = Classifier::new(&architecture, &weights).unwrap();
    assert_eq!(weights.parameters(), architecture.parameters(), "{}", path.display());
    model
}

fn compare(name: &str, features: &Features, expected: &HashMap<String, Tensor>) {
    let mut compared = 0;
    for (key, want) in expected {
        let got = match key.as_str() {
            "input" => continue,
            "pooled" => features.pooled.clone().unwrap(),
            "logits" => features.logits.clone().unwrap(),
            stage => {
                let level: usize = stage["stage".len()..][..1].parse().unwrap();
                let whole = &features.stages[level - 1];
                if stage.ends_with(".corner") {
                    whole.i((.., .., ..16, ..16)).unwrap()
                } else {
                    whole.clone()
                }
            }
        };
        let got = got.to_device(&Device::Cpu).unwrap().contiguous().unwrap();
        let error = relative(&got, want);
        assert!(error < bound::NETWORK, "{name}: {key} is off by {error:e}");
        compared += 1;
    }
    assert!(compared >= 1, "{name} compares nothing");
    let logits = features.logits.as_ref().unwrap().to_device(&Device::Cpu).unwrap();
    assert_eq!(top(&logits), top(&expected["logits"]), "{name}: top-1");
}

#[test]
fn classifiers_agree_with_the_original_at_every_stage() {
    for form in [|weights| weights, Weights::plain] {
        for path in golden::files("classify", "pth") {
            let expected = load_tensors(&path.with_extension("safetensors"));
            let features =
                load_on(&Device::Cpu, &path, DType::F32, form).features(&expected["input"]).unwrap();
            compare(&path.display().to_string(), &features, &expected);
        }
    }
}

#[test]
fn classifiers_on_the_gpu_agree_with_the_original() {
    let Some(gpu) = common::gpu() else { return };
    for path in golden::files("classify", "pth") {
        let name = path.display();
        let expected = load_tensors(&path.with_extension("safetensors"));
        let input = expected["input"].to_device(&gpu).unwrap();
        let model = load_on(&gpu, &path, DType::F32, |weights| weights);
        compare(&name.to_string(), &model.features(&input).unwrap(), &expected);
        for (dtype, tolerance) in
            [(DType::F32, bound::NETWORK), (DType::F16, bound::GPU_F16), (DType::BF16, bound::BF16)]
        {
            let model = load_on(&gpu, &path, dtype, |weights| weights);
            // The first pass is an ordinary one, the second is recorded and the third replayed.
            for pass in 0..3 {
                let logits = model.forward(&input).unwrap().to_device(&Device::Cpu).unwrap();
                let error = relative(&logits, &expected["logits"]);
                assert!(error < tolerance, "{name} in {dtype:?}, pass {pass}: off by {error:e}");
                assert_eq!(top(&logits), top(&expected["logits"]), "{name} in {dtype:?}, pass {pass}: top-1");
            }
        }
    }
}

#[test]
fn gradients_agree_with_the_original() {
    for form in [Weights::differentiable, Weights::plain] {
        gradients_agree_on(&Device::Cpu, DType::F32, form, [bound::SAME, bound::NETWORK]);
    }
}

#[test]
fn gradients_on_the_gpu_agree_with_the_original() {
    let Some(gpu) = common::gpu() else { return };
    let types = [
        (DType::F32, [bound::SAME, bound::NETWORK]),
        (DType::F16, [bound::GPU_F16, bound::GRADIENT_F16]),
        (DType::BF16, [bound::BF16, bound::GRADIENT_BF16]),
    ];
    for (dtype, tolerances) in types {
        gradients_agree_on(&gpu, dtype, Weights::differentiable, tolerances);
    }
}

/// Compares all cases of `golden/saliency` with a network of this form on `device`. Tolerances: of the logits,
/// beside those of inference in f32, and of gradients.
fn gradients_agree_on(
    device: &Device,
    dtype: DType,
    form: fn(Weights) -> Weights,
    [of_logits, tolerance]: [f64; 2],
) {
    for path in golden::files("saliency", "safetensors") {
        let expected = load_tensors(&path);
        let case = golden::path("classify").join(path.file_name().unwrap());
        let name = format!("{} on {:?} in {dtype:?}", path.display(), device.location());
        let input = &load_tensors(&case)["input"];
        let checkpoint = case.with_extension("pth");
        let inference = load(&checkpoint, DType::F32).forward(input).unwrap();
        let model = load_on(device, &checkpoint, dtype, form);
        let here = |x: &Tensor| x.to_device(device).unwrap().to_dtype(dtype).unwrap();
        // Three times, as on a GPU the second pass is recorded and the third replayed.
        for pass in 0..3 {
            let logits = model.forward(&here(input)).unwrap().to_device(&Device::Cpu).unwrap();
            let error = relative(&logits, &inference);
            assert!(error < of_logits, "{name}: the logits of pass {pass} are off by {error:e}");
        }
        let class = top(&inference)[0];
        let gradients = |images: &Tensor| {
            let classes = vec![class; images.dim(0).unwrap()];
            model.gradients(&here(images), &classes).unwrap().to_device(&Device::Cpu).unwrap()
        };
        for (what, want) in &expected {
            let got = match what.as_str() {
                "noise" => continue,
                "grad" => gradients(input),
                "grad.corner" => gradients(input).i((.., .., ..96, ..96)).unwrap().contiguous().unwrap(),
                "grad_noisy" => gradients(&expected["noise"].broadcast_add(input).unwrap()),
                other => panic!("{name}: what is {other}?"),
            };
            let error = relative(&got, want);
            assert!(error < tolerance, "{name}: {what} is off by {error:e}");
        }
    }
}

#[test]
fn transformers_folders_agree_with_transformers() {
    golden::each(&golden::folders("transformers"), |path| {
        let expected = load_tensors(&path.join("golden.safetensors"));
        let features = load(path, DType::F32).features(&expected["input"]).unwrap();
        compare(&path.display().to_string(), &features, &expected);
    });
}

#[test]
fn a_batch_gives_what_its_images_give_alone() {
    let path = golden::path("classify").join("nat-k7.pth");
    let model = load(&path, DType::F32);
    let images = Tensor::randn(0f32, 1.0, (3, 3, 67, 90), &Device::Cpu).unwrap();
    let together = model.forward(&images).unwrap();
    for i in 0..3 {
        let alone = model.forward(&images.i(i..i + 1).unwrap()).unwrap();
        let error = relative(&together.i(i..i + 1).unwrap(), &alone);
        assert!(error < bound::SAME, "image {i} is off by {error:e}");
    }
}

/// Trained without the attention's biases, a network computes what one does whose biases are zero; heads and kernel
/// size, which only a bias tells, come from the named architecture and then from the converted file.
#[test]
fn networks_without_bias_compute_what_zeros_do() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-digits.safetensors");
    let demo = Checkpoint::open(&demo, &Options::default()).unwrap();
    let images = Tensor::randn(0f32, 1.0, (2, 3, 40, 53), &Device::Cpu).unwrap();
    let logits = |checkpoint: Checkpoint, form: fn(Weights) -> Weights| {
        let architecture = checkpoint.metadata().architecture.clone();
        let weights = form(Weights::from_checkpoint(checkpoint, DType::F32, Device::Cpu).unwrap());
        Classifier::new(&architecture, &weights).unwrap().forward(&images).unwrap()
    };
    for tails in [&[".attn.rpb"][..], &[".attn.qkv.bias"], &[".attn.rpb", ".attn.qkv.bias"]] {
        let (mut zeroed, mut without) = (HashMap::new(), HashMap::new());
        for tensor in demo.tensors() {
            let mut bytes = Vec::new();
            let stored = demo.read(&tensor.name, &mut bytes).unwrap();
            assert_eq!(stored, nat_convert::source::ElementType::F16);
            let value = Tensor::from_raw_buffer(&bytes, DType::F16, &tensor.shape, &Device::Cpu).unwrap();
            if tails.iter().any(|tail| tensor.name.ends_with(tail)) {
                zeroed.insert(tensor.name.clone(), value.zeros_like().unwrap());
            } else {
                zeroed.insert(tensor.name.clone(), value.clone());
                without.insert(tensor.name.clone(), value);
            }
        }
        let named = Options::default().with_arch("demo-digits");
        let open = |tensors: &HashMap<String, Tensor>, name: &str| {
            candle_core::safetensors::save(tensors, folder.path().join(name)).unwrap();
            Checkpoint::open(&folder.path().join(name), &named).unwrap()
        };
        let expected = logits(open(&zeroed, "zeroed.safetensors"), |weights| weights);
        let checkpoint = open(&without, "without.safetensors");
        assert_eq!(zeroed.len(), checkpoint.tensors().len() + tails.len() * blocks(&checkpoint));
        let converted = folder.path().join("converted.safetensors");
        let overwrite = WriteOptions::default().with_overwrite(true);
        write(&checkpoint, &converted, overwrite, &AtomicBool::new(false)).unwrap();
        let again = || Checkpoint::open(&converted, &Options::default()).unwrap();
        for got in [
            logits(checkpoint, |weights| weights),
            logits(again(), |weights| weights),
            logits(again(), Weights::plain),
            logits(again(), Weights::differentiable),
        ] {
            let error = relative(&got, &expected);
            assert!(error < bound::SAME, "without {tails:?} it is off by {error:e}");
        }
    }
}

fn blocks(checkpoint: &Checkpoint) -> usize {
    checkpoint.metadata().architecture.backbone.depths.iter().sum()
}

#[test]
fn half_types_stay_near_float32() {
    golden::each(&golden::files("classify", "pth"), |path| {
        let expected = load_tensors(&path.with_extension("safetensors"));
        for (dtype, tolerance) in [(DType::F16, bound::F16), (DType::BF16, bound::BF16)] {
            let model = load(path, dtype);
            // Images may come in any type; results are f32.
            for input in [DType::F32, dtype] {
                let logits = model.forward(&expected["input"].to_dtype(input).unwrap()).unwrap();
                let error = relative(&logits, &expected["logits"]);
                assert!(error < tolerance, "{} in {dtype:?} is off by {error:e}", path.display());
                assert_eq!(top(&logits), top(&expected["logits"]), "{} in {dtype:?}: top-1", path.display());
            }
        }
    });
}

#[test]
fn weights_that_do_not_fit_are_one_error_that_lists_them() {
    let path = golden::path("classify").join("nat-k7.pth");
    let checkpoint = Checkpoint::open(&path, &Options::default()).unwrap();
    let mut architecture = checkpoint.metadata().architecture.clone();
    architecture.backbone.depths[1] = 3;
    architecture.backbone.dilations[1] = vec![1; 3];
    architecture.head = Head::Classifier(ClassifierWidths { classes: 7 });
    let weights = Weights::from_checkpoint(checkpoint, DType::F32, Device::Cpu).unwrap();
    let error = Classifier::new(&architecture, &weights).err().unwrap().to_string();
    assert!(
        error.contains("levels.1.blocks.2.norm1.weight is missing (nearest: levels.1.blocks."),
        "{error}"
    );
    assert!(error.contains("more"), "{error}");
}

/// The architectures' own counts are held against the published figures in `nat_convert::zoo`: here the
/// networks are held against the architectures.
#[test]
fn every_classifier_of_the_zoo_has_its_published_size() {
    let classifiers =
        zoo::entries().iter().filter(|entry| entry.task == Task::Classify && entry.url.is_some());
    let mut built = 0;
    for entry in classifiers {
        let Geometry::Crop { resolution, .. } = entry.preprocessing.geometry else {
            panic!("{} has no resolution", entry.name)
        };
        let weights = Weights::random(1, DType::F32, Device::Cpu);
        let model = Classifier::new(&entry.architecture, &weights).unwrap();
        assert_eq!(weights.parameters(), entry.architecture.parameters(), "{}", entry.name);
        // A small image is enough to see that the parts fit together; ViT-rpb takes one size only.
        let side = if entry.architecture.backbone.family == Family::VitRpb { resolution } else { 40 };
        let logits =
            model.forward(&Tensor::ones((1, 3, side, side), DType::F32, &Device::Cpu).unwrap()).unwrap();
        let Head::Classifier(ClassifierWidths { classes }) = entry.architecture.head else {
            panic!("{} has no head", entry.name)
        };
        assert_eq!(logits.dims(), [1, classes], "{}", entry.name);
        let size = logits.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(size.is_finite() && size > 0.0, "{}", entry.name);
        built += 1;
    }
    assert_eq!(built, 24, "classification rows of the zoo");
}
