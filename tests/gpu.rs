//! What a GPU is asked to do, and that nothing goes wrong when several threads ask or a recording fails. With the feature
//! `cuda`, on a GPU or the emulated one; what is counted and what fails, on the emulated one.
#![cfg(feature = "cuda")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use candle_core::{DType, Device, Tensor};
use nat_convert::checkpoint::{Checkpoint, Options};
use nat_infer::models::classifier::Classifier;
use nat_infer::weights::Weights;
use nat_testing::emulated::EmulatedGpu;
use nat_testing::tensors::{normal, relative, values};
use nat_testing::{bound, golden};

/// What is counted is counted of the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The GPU, alone, if it is the emulated one.
fn emulated() -> Option<(MutexGuard<'static, ()>, Device, EmulatedGpu)> {
    let alone = alone();
    let (gpu, emulated) = (common::gpu()?, EmulatedGpu::find());
    if emulated.is_none() {
        eprintln!("skipped: this GPU counts nothing");
    }
    Some((alone, gpu, emulated?))
}

/// A small trained network, which is in this program: it may be run where the repository is not.
fn network(device: &Device, dtype: DType) -> Classifier {
    let bytes = include_bytes!("../assets/demo-digits.safetensors");
    built(Checkpoint::from_bytes("demo-digits", bytes, &Options::default()).unwrap(), device, dtype)
}

/// A network of the golden data.
fn golden_network(name: &str) -> PathBuf {
    golden::files("classify", "pth").into_iter().find(|path| path.ends_with(name)).unwrap()
}

fn of(path: &Path, device: &Device, dtype: DType) -> Classifier {
    built(Checkpoint::open(path, &Options::default()).unwrap(), device, dtype)
}

fn built(checkpoint: Checkpoint, device: &Device, dtype: DType) -> Classifier {
    let architecture = checkpoint.metadata().architecture.clone();
    let weights = Weights::from_checkpoint(checkpoint, dtype, device.clone()).unwrap();
    Classifier::new(&architecture, &weights).unwrap()
}

fn images(batch: usize) -> Tensor {
    normal((batch, 3, 28, 33), 1.0)
}

fn logits(network: &Classifier, images: &Tensor, device: &Device) -> Tensor {
    network.forward(&images.to_device(device).unwrap()).unwrap().to_device(&Device::Cpu).unwrap()
}

/// Whether two results are the same bits.
fn same(a: &Tensor, b: &Tensor) -> bool {
    values::<f32>(a).iter().map(|x| x.to_bits()).eq(values::<f32>(b).iter().map(|x| x.to_bits()))
}

#[test]
fn a_recording_that_fails_anywhere_changes_no_result_on_the_gpu() {
    let Some((_alone, gpu, emulated)) = emulated() else { return };
    let images = images(1);
    let expected = logits(&network(&Device::Cpu, DType::F32), &images, &Device::Cpu);
    // How many of three passes are replayed if a call of the recording fails, and how many calls there were.
    let replayed = |call: u32| {
        let network = network(&gpu, DType::F32);
        logits(&network, &images, &gpu);
        emulated.reset();
        emulated.fail(call);
        for pass in 0..3 {
            let error = relative(&logits(&network, &images, &gpu), &expected);
            assert!(error < bound::NETWORK, "call {call} failed: pass {pass} is off by {error:e}");
        }
        let calls = call - emulated.fail(0);
        (emulated.counted().get("graph launch").map_or(0, |counted| counted.times), calls)
    };
    let (all, calls) = replayed(u32::MAX);
    assert_eq!(all, 3);
    assert!(calls > 100, "allocations, launches, products, copies and frees are {calls} calls");
    // The last two are the recording's end and its instantiation.
    for call in (1..=5).chain((6..calls).step_by(23)).chain(calls - 3..=calls) {
        assert_eq!(replayed(call), (0, call), "of {calls} calls");
    }
    assert_eq!(replayed(calls + 1).0, 3);
}

#[test]
fn threads_and_networks_work_together_on_the_gpu() {
    let _alone = alone();
    let Some(gpu) = common::gpu() else { return };
    // On a card cuBLAS may compute in another order where it is recorded.
    let right = |got: &Tensor, want: &Tensor| match EmulatedGpu::find() {
        Some(_) => same(got, want),
        None => relative(got, want) < bound::GPU_F16,
    };
    let networks = [DType::F32, DType::F16].map(|dtype| network(&gpu, dtype));
    // More kinds than a network keeps, so that recordings are dropped meanwhile.
    let inputs = [1, 2, 3, 4, 5, 6].map(images);
    // Of networks that were never recorded.
    let expected =
        networks.each_ref().map(|network| inputs.each_ref().map(|images| logits(network, images, &gpu)));
    thread::scope(|scope| {
        for first in 0..3 {
            let (networks, inputs, expected, gpu) = (&networks, &inputs, &expected, &gpu);
            scope.spawn(move || {
                for pass in 0..8 {
                    for (network, expected) in networks.iter().zip(expected) {
                        // Each kind twice: seen, and recorded.
                        let kind = (first + pass / 2) % inputs.len();
                        let got = logits(network, &inputs[kind], gpu);
                        assert!(right(&got, &expected[kind]), "thread {first}, pass {pass}");
                    }
                }
            });
        }
        // Networks that come and go, and GPUs that are opened.
        scope.spawn(|| {
            for pass in 0..4 {
                let own = common::gpu().unwrap();
                let network = network(&own, DType::F32);
                for _ in 0..3 {
                    let got = logits(&network, &inputs[0], &own);
                    assert!(right(&got, &expected[0][0]), "a network of its own, pass {pass}");
                }
            }
        });
        // Work of somebody else on the same device, at the same time.
        scope.spawn(|| {
            for _ in 0..50 {
                let x = normal((3, 5), 1.0);
                let twice = (x.to_device(&gpu).unwrap() * 2.0).unwrap().to_device(&Device::Cpu).unwrap();
                assert!(same(&twice, &(x * 2.0).unwrap()));
            }
        });
    });
}

/// candle's `new_cuda` gives each thread a stream of its own, so a network must not go to another thread.
#[test]
fn a_network_on_the_gpu_stays_on_its_thread() {
    let _alone = alone();
    if common::gpu().is_none() {
        return;
    }
    let gpu = Device::new_cuda(0).unwrap();
    let network = network(&gpu, DType::F32);
    let images = images(2);
    let expected = logits(&self::network(&Device::Cpu, DType::F32), &images, &Device::Cpu);
    for pass in 0..3 {
        let error = relative(&logits(&network, &images, &gpu), &expected);
        assert!(error < bound::NETWORK, "pass {pass} is off by {error:e}");
    }
}

#[test]
fn a_network_on_the_gpu_remembers_some_kinds_of_batches() {
    let Some((_alone, gpu, emulated)) = emulated() else { return };
    let network = network(&gpu, DType::F16);
    let replayed = |batches: &[usize]| {
        emulated.reset();
        for &batch in batches {
            logits(&network, &images(batch), &gpu);
        }
        emulated.counted().get("graph launch").map_or(0, |counted| counted.times)
    };
    assert_eq!(replayed(&[1, 2, 1, 2, 2, 1]), 4, "the second of a kind is recorded");
    assert_eq!(replayed(&[3, 4, 3, 4, 1, 2]), 4, "four kinds are kept");
    assert_eq!(replayed(&[5, 1, 2, 3, 4]), 2, "the one that was not used for longest is forgotten");
}

#[test]
fn inference_on_the_gpu_launches_nothing_of_candles() {
    let Some((_alone, gpu, emulated)) = emulated() else { return };
    // ViT-rpb is made of what nat-iso is made of, and takes large images only.
    for path in golden::files("classify", "pth").into_iter().filter(|path| !path.ends_with("vit-rpb.pth")) {
        let name = path.display();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let network = of(&path, &gpu, dtype);
            emulated.reset();
            logits(&network, &normal((1, 3, 64, 64), 1.0), &gpu);
            let others: Vec<_> =
                emulated.counted().into_keys().filter(|name| name.starts_with("candle ")).collect();
            assert_eq!(others, [""; 0], "{name} in {dtype:?}");
            let any = "product in f32 of any precision";
            assert!(!emulated.counted().contains_key(any), "{name} in {dtype:?}");
        }
    }
}

#[test]
fn a_forward_pass_on_the_gpu_is_as_few_launches_as_it_can_be() {
    let Some((_alone, gpu, emulated)) = emulated() else { return };
    let path = golden_network("nat-k7.pth");
    let checkpoint = Checkpoint::open(&path, &Options::default()).unwrap();
    let depths = checkpoint.metadata().architecture.backbone.depths.clone();
    let (levels, blocks) = (depths.len() as u64, depths.iter().sum::<usize>() as u64);
    let network = of(&path, &gpu, DType::F16);
    emulated.reset();
    logits(&network, &normal((1, 3, 64, 64), 1.0), &gpu);
    // By what a kernel's name begins with.
    let counted = emulated.counted();
    let launches = |name: &str| -> u64 {
        let of_name = counted.iter().filter(|(kernel, _)| kernel.starts_with(name));
        of_name.map(|(_, counted)| counted.times).sum()
    };
    let expected = [
        // The tokenizer's first convolution; the second and those between levels.
        ("image_conv", 1),
        ("windows", levels),
        ("attention", blocks),
        // Four a block, the convolutions, the head.
        ("product", 4 * blocks + levels + 1),
        // Before a level's first block, and behind its last one where the network ends.
        ("layer_norm", levels + 1),
        // Behind attention, between blocks, and behind convolutions.
        ("finish_norm", blocks + (blocks - levels) + levels),
        ("finish_gelu", blocks),
        // Behind a level's last block, and the head's bias.
        ("finish_f16", levels + 1),
        ("mean", 1),
        ("convert", 1),
    ];
    for (name, times) in expected {
        assert_eq!(launches(name), times, "{name} of {counted:?}");
    }
    let others = ["module ", "copy", "set"];
    let all = counted.iter().filter(|(name, _)| others.iter().all(|other| !name.starts_with(other)));
    let all: u64 = all.map(|(_, counted)| counted.times).sum();
    assert_eq!(all, expected.iter().map(|(_, times)| times).sum::<u64>(), "{counted:?}");
}

#[test]
fn a_classifier_on_the_gpu_loads_the_kernels_that_it_launches() {
    let Some((_alone, gpu, emulated)) = emulated() else { return };
    let modules = |network: Classifier| -> Vec<String> {
        emulated.reset();
        logits(&network, &normal((1, 3, 64, 64), 1.0), &gpu);
        let counted = emulated.counted();
        counted.keys().filter_map(|name| name.strip_prefix("module // ")).map(str::to_owned).collect()
    };
    let path = golden_network("nat-k7.pth");
    // Loaded by this test or by one before it, which a process does once.
    let loaded = modules(of(&path, &gpu, DType::BF16));
    // Of attention two: the heads of the first level are of 16 channels, for which the matrix units have no kernel.
    let needed =
        ["attention_bf16", "attention_mma_bf16_7", "images_bf16", "layers_bf16", "maps", "norms_bf16"];
    assert!(loaded.iter().all(|module| needed.contains(&module.as_str())), "{loaded:?}");
    assert_eq!(modules(of(&path, &gpu, DType::BF16)), [""; 0], "again");
}

#[test]
fn batches_that_are_too_large_are_refused_on_the_gpu() {
    let _alone = alone();
    let Some(gpu) = common::gpu() else { return };
    // One value, seen as 2^32 and more.
    let one = Tensor::zeros((1, 1, 1, 1), DType::F32, &gpu).unwrap();
    let images = one.broadcast_as((28_533, 3, 224, 224)).unwrap();
    let error = network(&gpu, DType::F32).forward(&images).unwrap_err().to_string();
    assert!(error.contains("use smaller batches"), "{error}");
}

#[test]
fn a_network_on_the_gpu_takes_views_of_tensors() {
    let _alone = alone();
    let Some(gpu) = common::gpu() else { return };
    let path = golden_network("nat-k7.pth");
    let checkpoint = Checkpoint::open(&path, &Options::default()).unwrap();
    let architecture = checkpoint.metadata().architecture.clone();
    let mut bytes = Vec::new();
    let views = checkpoint.tensors().iter().map(|tensor| {
        bytes.clear();
        checkpoint.read(&tensor.name, &mut bytes).unwrap();
        let value = Tensor::from_raw_buffer(&bytes, DType::F32, &tensor.shape, &Device::Cpu).unwrap();
        let turned =
            if value.rank() < 2 { value } else { value.t().unwrap().contiguous().unwrap().t().unwrap() };
        (tensor.name.clone(), turned)
    });
    let weights = Weights::from_tensors(views.collect::<Vec<_>>(), DType::F32, gpu.clone());
    let network = Classifier::new(&architecture, &weights).unwrap();
    let images = normal((1, 3, 64, 64), 1.0);
    let expected = logits(&of(&path, &gpu, DType::F32), &images, &gpu);
    assert!(same(&logits(&network, &images, &gpu), &expected));
}

#[test]
fn tensors_of_another_device_are_refused_on_the_gpu() {
    let _alone = alone();
    let (Some(gpu), Some(other)) = (common::gpu(), common::gpu()) else { return };
    let network = network(&gpu, DType::F32);
    let images = images(1).to_device(&other).unwrap();
    let error = network.forward(&images).unwrap_err().to_string();
    assert!(error.contains("two devices"), "{error}");
}
