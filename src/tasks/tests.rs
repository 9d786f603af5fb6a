//! Models and tasks together.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};
use nat_convert::checkpoint::{Checkpoint, Options};
use nat_convert::write::{WriteOptions, write};
use nat_testing::checkpoint::with_metadata;
use nat_testing::golden;
use serde_json::Value;

use super::bench::Bench;
use super::classify::ClassifyOptions;
use super::detect::DetectOptions;
use super::model::DEMO;
use super::saliency::{Method, SaliencyOptions};
use super::segment::SegmentOptions;
use super::*;
use crate::zoo::{self, Located};

fn digits(options: &LoadOptions) -> Result<Model, TaskError> {
    Model::named(zoo::find("demo-digits").unwrap(), &Located::Embedded, options)
}

/// A file of ours with other metadata.
fn altered(file: &[u8], alter: impl FnOnce(&mut Value)) -> &'static [u8] {
    Vec::leak(with_metadata(file, alter))
}

fn converted(checkpoint: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("ours.safetensors");
    let checkpoint = Checkpoint::open(&golden::path(checkpoint), &Options::default()).unwrap();
    write(&checkpoint, &target, WriteOptions::default(), &AtomicBool::new(false)).unwrap();
    fs::read(target).unwrap()
}

#[test]
fn labels_are_as_many_as_classes() {
    let networks =
        [DEMO.to_vec(), converted("detect/maskrcnn_s/model.pth"), converted("segment/upernet_b/model.pth")];
    for file in &networks {
        for count in [0, 1, 500] {
            let labels = vec!["x"; count];
            let bytes = altered(file, |metadata| metadata["labels"] = labels.into());
            // Others are left out, which the report says.
            let model = Model::from_bytes("it", bytes, &LoadOptions::default()).unwrap();
            assert!(model.metadata.labels.as_ref().is_none_or(|labels| labels.len() != count));
            let warnings = &model.report().unwrap().warnings;
            assert!(warnings.iter().any(|warning| warning.text.contains("class names")), "{warnings:?}");
        }
        let bytes = altered(file, |metadata| metadata["labels"] = Value::Null);
        Model::from_bytes("it", bytes, &LoadOptions::default()).unwrap();
    }
}

#[test]
fn types_that_nothing_computes_in_are_refused() {
    let checkpoint = golden::path("classify/nat-k7.pth");
    for (dtype, fits) in [
        (DType::F32, true),
        (DType::F16, true),
        (DType::BF16, true),
        (DType::F64, false),
        (DType::U8, false),
        (DType::U32, false),
        (DType::I64, false),
    ] {
        let options = LoadOptions { dtype, ..LoadOptions::default() };
        for model in [digits(&options), Model::open(&checkpoint, &options)] {
            let error = model.err().map(|error| error.to_string());
            assert_eq!(error.is_none(), fits, "{dtype:?}: {error:?}");
            let says = format!("can't compute in {}: f32, f16 and bf16", dtype.as_str());
            assert!(error.is_none_or(|error| error.contains(&says)));
        }
    }
}

/// Whatever a file is said to be, what is in it counts.
#[test]
fn files_are_named_after_what_is_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, beside) = (folder.path().join("run"), folder.path().join("model.safetensors"));
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("model.safetensors"), DEMO).unwrap();
    // Another file, by a space.
    fs::write(&beside, altered(DEMO, |_| ())).unwrap();
    assert_ne!(fs::read(&beside).unwrap(), DEMO);
    let of_file = |path: &Path| {
        use sha2::{Digest, Sha256};
        let hash = Sha256::digest(fs::read(path).unwrap());
        hash[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let named = LoadOptions { arch: Some("demo-digits".to_owned()), ..LoadOptions::default() };
    for options in [LoadOptions::default(), named] {
        for (path, file, weights) in [
            (&inside, "run", &inside.join("model.safetensors")),
            (&inside.join("model.safetensors"), "model.safetensors", &inside.join("model.safetensors")),
            (&inside.join("../run/."), "run", &inside.join("model.safetensors")),
            (&inside.join(".."), folder.path().file_name().unwrap().to_str().unwrap(), &beside),
            (&beside, "model.safetensors", &beside),
        ] {
            let model = Model::open(path, &options).unwrap();
            assert_eq!(model.name(), format!("{file}@{}", of_file(weights)), "{}", path.display());
            assert_eq!(model.short_name(), file);
        }
    }
    let entry = zoo::find("demo-digits").unwrap();
    for located in [Located::Embedded, Located::At(inside)] {
        let model = Model::named(entry, &located, &LoadOptions::default()).unwrap();
        assert_eq!((model.name(), model.short_name()), ("demo-digits", "demo-digits"));
    }
    assert!(Model::open(&folder.path().join("none"), &LoadOptions::default()).is_err());
}

#[test]
fn classes_are_found_by_index_or_name() {
    let labels = ["crane", "Tabby cat", "tiger cat", "CRANE", "3", "stork", "stork", "nine", "a", "b"];
    let labels = Some(labels.map(str::to_owned).to_vec());
    let model = || digits(&LoadOptions::default()).unwrap();
    let task = Classify::new(model(), &ClassifyOptions { labels, ..ClassifyOptions::default() }).unwrap();
    assert!(task.has_names());
    for (name, wanted) in [
        ("0", Ok(0)),
        ("9", Ok(9)),
        // An index comes before the label of another class.
        ("3", Ok(3)),
        ("10", Err("has the classes 0 to 9, 10 is none")),
        ("crane", Ok(0)),
        ("CRANE", Ok(3)),
        ("Crane", Err("`Crane` is the name of the classes 0, 3 of `demo-digits`: an index is one class")),
        ("stork", Err("`stork` is the name of the classes 5, 6")),
        ("tabby CAT", Ok(1)),
        ("cat", Err("has no class `cat`; the nearest names are Tabby cat, tiger cat, ")),
        ("nien", Err("has no class `nien`; the nearest names are nine, ")),
        ("-1", Err("has no class `-1`; ")),
        ("", Err("has no class ``; ")),
    ] {
        match (task.class_named(name), wanted) {
            (Ok(index), Ok(wanted)) => assert_eq!(index, wanted, "{name}"),
            (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{name}: {error}"),
            (got, _) => panic!("{name}: {got:?}"),
        }
    }
    // No name is so long that it can't be compared.
    assert!(task.class_named(&"x".repeat(1 << 20)).is_err());

    let bytes = fs::read(golden::path("classify/nat-k7.pth")).unwrap();
    let nameless = Model::from_bytes("it", bytes, &LoadOptions::default()).unwrap();
    let task = Classify::new(nameless, &ClassifyOptions::default()).unwrap();
    assert!(!task.has_names() && task.class_named("7").unwrap() == 7);
    let error = task.class_named("nine").unwrap_err().to_string();
    assert_eq!(error, "`it` has no class `nine`: its classes have no names, only indices from 0 to 9");
}

#[test]
fn a_map_is_about_the_class_that_is_named() {
    let model = digits(&LoadOptions { gradients: true, ..LoadOptions::default() }).unwrap();
    let labels = "zero one two three four five six seven eight nine".split(' ').map(str::to_owned);
    let options = SaliencyOptions { labels: Some(labels.collect()), ..SaliencyOptions::default() };
    let task = Saliency::new(model, Method::GradCam, &options).unwrap().about("Four").unwrap();
    let image = image::open("assets/nine.png").unwrap().into_rgb8();
    let map = task.run(&image, |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!((map.class.index, map.class.label.as_str()), (4, "four"));
    assert!(matches!(task.about("ten"), Err(TaskError::ClassName { .. })));
}

#[test]
fn only_classifiers_are_timed_with_gradients() {
    for (path, fits) in [
        ("classify/nat-k7.pth", true),
        ("detect/maskrcnn_s/model.pth", false),
        ("segment/upernet_b/model.pth", false),
    ] {
        let options = LoadOptions { gradients: true, ..LoadOptions::default() };
        let (model, metadata, network) = Model::open(&golden::path(path), &options).unwrap().into_parts();
        let (architecture, size, device, dtype) = (metadata.architecture, [64; 2], Device::Cpu, DType::F32);
        let bench = |gradients| Bench {
            model: model.clone(),
            architecture: architecture.clone(),
            size,
            batch_size: 2,
            runs: Some(1),
            gradients,
            dtype,
            device: device.clone(),
            progress: None,
            doubt: None,
        };
        assert!(bench(false).check(&network).is_ok());
        for error in [
            bench(true).check(&network).err(),
            bench(true).network(&network).err(),
            bench(true).layers(&network).err(),
        ] {
            let error = error.map(|error| error.to_string());
            let says = (!fits).then(|| format!("`{model}` has no gradients: only classifiers have"));
            assert_eq!(error, says);
        }
    }
}

#[test]
fn tasks_and_errors_name_parameters_and_no_options() {
    let open = |path: &str| Model::open(&golden::path(path), &LoadOptions::default()).unwrap();
    let detector = open("detect/maskrcnn_s/model.pth");
    let error = detector.center_crop(None, None).unwrap_err().to_string();
    assert!(error.contains("`resolution` has to be given") && !error.contains("--"), "{error}");
    assert!(detector.works());

    // No images are no error, and no task takes another's model.
    let detect = Detect::new(detector, &DetectOptions::default()).unwrap();
    assert!(detect.infer(&[], &mut image_task::unwatched).unwrap().is_empty());
    let error = Segment::new(open("detect/maskrcnn_s/model.pth"), &SegmentOptions::default()).err().unwrap();
    assert!(matches!(error, TaskError::OtherTask { .. }), "{error}");

    let error = candle_core::Error::Msg("no memory".to_owned());
    let backtrace = Box::new(std::backtrace::Backtrace::force_capture());
    let error = candle_core::Error::WithBacktrace { inner: Box::new(error), backtrace };
    let error = TaskError::Compute { model: "it".to_owned(), error };
    assert_eq!(error.to_string(), "`it` can't be computed: no memory");
}
