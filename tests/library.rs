//! The library as a program on candle uses it: weights from anywhere, modules, models that tasks and threads share.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{Linear, Optimizer, SGD, VarBuilder, VarMap, loss};
use nat_infer::images::{Reader, RgbImage};
use nat_infer::models::Network;
use nat_infer::models::classifier::Classifier;
use nat_infer::nat_convert::arch::Architecture;
use nat_infer::pipeline::{Pipeline, Source};
use nat_infer::tasks::classify::ClassifyOptions;
use nat_infer::tasks::{Classify, Detect, ExtractFeatures, LoadOptions, Model, Saliency, Segment, TaskError};
use nat_infer::weights::{CheckpointTensors, LoadError, TensorProblem, Weights};
use nat_infer::{attention::NeighborhoodAttention, layers, zoo};
use nat_testing::torch::{self, Object};

const DIGITS: &str = "assets/demo-digits.safetensors";

fn digits() -> Architecture {
    // As the file states it, dilations among it.
    let (_, metadata, _) = Model::open(DIGITS.as_ref(), &LoadOptions::default()).unwrap().into_parts();
    metadata.architecture
}

fn nine() -> RgbImage {
    Reader::default().file("assets/nine.png".as_ref()).unwrap()
}

fn images() -> Tensor {
    let values: Vec<f32> = (0..2 * 3 * 64 * 64).map(|i| (i * 37 % 10_007) as f32 / 5e3 - 1.0).collect();
    Tensor::from_vec(values, (2, 3, 64, 64), &Device::Cpu).unwrap()
}

fn logits(weights: &Weights) -> Vec<Vec<f32>> {
    Classifier::new(&digits(), weights).unwrap().forward(&images()).unwrap().to_vec2().unwrap()
}

fn tensors() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(DIGITS, &Device::Cpu).unwrap()
}

#[test]
fn weights_are_the_same_from_everywhere() {
    let want = logits(&Weights::open(DIGITS.as_ref(), DType::F32, Device::Cpu).unwrap());
    assert!(want[0] != want[1] && want.iter().flatten().all(|logit| logit.is_finite()));

    let bytes = std::fs::read(DIGITS).unwrap();
    let owned = Weights::from_bytes(bytes, DType::F32, Device::Cpu).unwrap();
    let part_of_the_program: &'static [u8] = include_bytes!("../assets/demo-digits.safetensors");
    let part = Weights::from_bytes(part_of_the_program, DType::F32, Device::Cpu).unwrap();
    let named = Weights::from_tensors(tensors(), DType::F32, Device::Cpu);
    let built = |builder| Weights::from_var_builder(builder);
    let builder = VarBuilder::from_tensors(tensors(), DType::F32, &Device::Cpu);
    // SAFETY: nobody changes the file.
    let mapped = unsafe { VarBuilder::from_mmaped_safetensors(&[DIGITS], DType::F32, &Device::Cpu) }.unwrap();
    // Below a prefix, as a part of a larger program's tensors.
    let below = tensors().into_iter().map(|(name, tensor)| (format!("net.0.{name}"), tensor)).collect();
    let below = VarBuilder::from_tensors(below, DType::F32, &Device::Cpu).pp("net").pp(0);
    for weights in [owned, part, named, built(builder), built(mapped), built(below)] {
        assert_eq!(logits(&weights), want);
    }
    // In a narrower type every source rounds alike.
    let want = logits(&Weights::open(DIGITS.as_ref(), DType::BF16, Device::Cpu).unwrap());
    let builder = VarBuilder::from_tensors(tensors(), DType::BF16, &Device::Cpu);
    for weights in [Weights::from_tensors(tensors(), DType::BF16, Device::Cpu), built(builder)] {
        assert_eq!(logits(&weights), want);
    }
}

#[test]
fn every_source_says_what_does_not_fit() {
    let mut wrong = tensors();
    wrong.remove("head.bias").unwrap();
    wrong.insert("head.weight".to_owned(), Tensor::zeros((10, 7), DType::F32, &Device::Cpu).unwrap());
    let expected = [
        TensorProblem::Missing { name: "head.bias".to_owned(), nearest: None },
        TensorProblem::Shape { name: "head.weight".to_owned(), got: vec![10, 7], expected: vec![10, 128] },
    ];
    let named = Weights::from_tensors(wrong.clone(), DType::F32, Device::Cpu);
    let built = Weights::from_var_builder(VarBuilder::from_tensors(wrong, DType::F32, &Device::Cpu));
    for weights in [named, built] {
        let Err(LoadError::Mismatch(mut problems)) = Classifier::new(&digits(), &weights) else {
            panic!("a classifier without a head");
        };
        for problem in &mut problems {
            if let TensorProblem::Missing { nearest, .. } = problem {
                *nearest = None;
            }
        }
        problems.sort_by_key(TensorProblem::to_string);
        assert_eq!(problems, expected);
    }
    // What is left over, where it can be told.
    let mut more = tensors();
    more.insert("ema.decay".to_owned(), Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap());
    let error = Classifier::new(&digits(), &Weights::from_tensors(more, DType::F32, Device::Cpu));
    assert!(error.err().unwrap().to_string().contains("ema.decay is not used"));
    let error = Weights::from_bytes(b"no weights".to_vec(), DType::F32, Device::Cpu).err().unwrap();
    assert!(error.to_string().contains("not a safetensors file"), "{error}");
}

/// A network that is none of ours, as training saved it: old and new files, an average beside the weights, a wrapper.
#[test]
fn candle_reads_any_checkpoint_through_us() {
    let floats = |first: f32, shape: &[usize]| {
        let count = shape.iter().product::<usize>();
        Object::floats(shape, &(0..count).map(|i| first + i as f32).collect::<Vec<_>>())
    };
    let state = |first| {
        let tensors = [("module.fc.weight", floats(first, &[2, 3])), ("module.fc.bias", floats(first, &[2]))];
        Object::dict(tensors.map(|(name, tensor)| (name.to_owned(), tensor)))
    };
    let saved = [("epoch", Object::Int(3)), ("state_dict", state(1.0)), ("state_dict_ema", state(5.0))];
    let saved = Object::dict(saved.map(|(key, value)| (key.to_owned(), value)));
    let folder = tempfile::tempdir().unwrap();
    for (bytes, key, first) in [
        (torch::zipped(&saved), None, 5.0),
        (torch::legacy(&saved), None, 5.0),
        (torch::legacy(&saved), Some("state_dict"), 1.0),
    ] {
        let path = folder.path().join("saved.pth");
        std::fs::write(&path, &bytes).unwrap();
        let from_file = CheckpointTensors::open(&path, key).unwrap();
        assert_eq!(from_file.state_dict().names().collect::<Vec<_>>(), ["fc.weight", "fc.bias"]);
        let from_memory = CheckpointTensors::from_bytes("upload", bytes, key).unwrap();
        for tensors in [from_file, from_memory] {
            let builder = tensors.into_var_builder(DType::F32, &Device::Cpu);
            let layer = candle_nn::linear(3, 2, builder.pp("fc")).unwrap();
            let x = Tensor::new(&[[1f32, 10.0, 100.0]], &Device::Cpu).unwrap();
            let [row0, row1] = [0.0, 3.0]
                .map(|more| (first + more) + (first + more + 1.0) * 10.0 + (first + more + 2.0) * 100.0);
            let want = [row0 + first, row1 + first + 1.0];
            assert_eq!(layer.forward(&x).unwrap().to_vec2::<f32>().unwrap(), [want]);
            assert!(builder.contains_tensor("fc.bias") && !builder.contains_tensor("fc.gamma"));
            // In another type, and without a shape.
            let bias = builder.get_unchecked_dtype("fc.bias", DType::F16).unwrap();
            assert_eq!((bias.dtype(), bias.dims()), (DType::F16, &[2][..]));
            let error = builder.get((2, 4), "fc.weight").unwrap_err().to_string();
            assert!(error.contains("fc.weight") && error.contains("[2, 3]"), "{error}");
            let error = builder.get(2, "fc.gamma").unwrap_err().to_string();
            assert!(error.contains("fc.gamma"), "{error}");
        }
    }
    // Whole numbers and truth values too; what can't be read is an error that says why, not left out.
    let odd = [
        ("signed", Object::Tensor("CharStorage", vec![3], vec![1, 255, 128])),
        ("truth", Object::Tensor("BoolStorage", vec![2], vec![1, 0])),
        ("quantised", Object::Tensor("QInt8Storage", vec![2], vec![1, 2])),
    ];
    let odd = torch::zipped(&Object::dict(odd.map(|(name, tensor)| (name.to_owned(), tensor))));
    let builder = CheckpointTensors::from_bytes("upload", odd, None).unwrap();
    let builder = builder.into_var_builder(DType::F32, &Device::Cpu);
    assert_eq!(builder.get(3, "signed").unwrap().to_vec1::<f32>().unwrap(), [1.0, -1.0, -128.0]);
    assert_eq!(builder.get(2, "truth").unwrap().to_vec1::<f32>().unwrap(), [1.0, 0.0]);
    let error = builder.get(2, "quantised").unwrap_err().to_string();
    assert!(builder.contains_tensor("quantised") && error.contains("quantised tensors"), "{error}");
    let error = CheckpointTensors::from_bytes("upload", b"no checkpoint".to_vec(), None).err().unwrap();
    assert!(error.to_string().starts_with("upload"), "{error}");
}

/// Ours too: by the authors' names, in a network that is built of a builder.
#[test]
fn a_backbone_comes_out_of_a_checkpoint_of_ours() {
    let tensors = CheckpointTensors::open(DIGITS.as_ref(), None).unwrap();
    let builder = tensors.into_var_builder(DType::F32, &Device::Cpu);
    let want = logits(&Weights::open(DIGITS.as_ref(), DType::F32, Device::Cpu).unwrap());
    assert_eq!(logits(&Weights::from_var_builder(builder)), want);
}

/// A `VarMap` makes the variables as the authors begin; every one gets a gradient, and steps along them learn.
#[test]
fn a_network_of_candles_variables_is_trained() {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let weights = Weights::from_var_builder(builder).plain();
    let network = Classifier::new(&digits(), &weights).unwrap();
    let learnt = weights.parameters();
    let of = |name: &str| {
        let data = variables.data().lock().unwrap();
        data[name].flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert!(of("levels.0.blocks.0.norm1.weight").iter().all(|&x| x == 1.0));
    assert!(of("head.bias").iter().all(|&x| x == 0.0));
    let matrix = of("head.weight");
    let deviation = (matrix.iter().map(|x| x * x).sum::<f32>() / matrix.len() as f32).sqrt();
    assert!((0.018..0.022).contains(&deviation), "{deviation}");

    let classes = Tensor::new(&[3u32, 8], &Device::Cpu).unwrap();
    let images = images();
    let step = || loss::cross_entropy(&network.forward(&images).unwrap(), &classes).unwrap();
    let value = |loss: &Tensor| loss.to_scalar::<f32>().unwrap();
    let mut descent = SGD::new(variables.all_vars(), 0.05).unwrap();
    let first = step();
    let gradients = first.backward().unwrap();
    let vars = variables.all_vars();
    assert_eq!(vars.iter().map(|var| var.elem_count() as u64).sum::<u64>(), learnt);
    assert!(vars.iter().all(|var| gradients.get(var).is_some()));
    descent.step(&gradients).unwrap();
    for _ in 0..4 {
        descent.backward_step(&step()).unwrap();
    }
    let last = value(&step());
    assert!(last < 0.7 * value(&first), "from {} to {last}", value(&first));
}

/// Layers and classifiers stand wherever candle takes a module.
#[test]
fn classifiers_and_layers_are_modules() {
    let weights = Weights::open(DIGITS.as_ref(), DType::F32, Device::Cpu).unwrap();
    let network = Classifier::new(&digits(), &weights).unwrap();
    let classes = Tensor::randn(0f32, 1.0, (4, 10), &Device::Cpu).unwrap();
    let both = candle_nn::seq().add_fn(move |images| images.apply(&network)).add(Linear::new(classes, None));
    assert_eq!(both.forward(&images()).unwrap().dims(), [2, 4]);
    fn is_module<T: Module>() {}
    is_module::<Classifier>();
    is_module::<layers::Linear>();
    is_module::<layers::LayerNorm>();
    is_module::<layers::Conv2d>();
    is_module::<layers::Mlp>();
}

#[test]
fn one_model_serves_several_tasks_on_several_threads() {
    let model = Arc::new(Model::open(DIGITS.as_ref(), &LoadOptions::default()).unwrap());
    let classify = Classify::new(Arc::clone(&model), &ClassifyOptions::default()).unwrap();
    let features = ExtractFeatures::new(Arc::clone(&model), None, None).unwrap();
    assert!(Arc::ptr_eq(classify.model(), features.model()));
    let want = classify.run(&[nine()]).unwrap();
    assert_eq!(want[0][0].label, "9");
    thread::scope(|scope| {
        let (classify, features, want) = (&classify, &features, &want);
        for _ in 0..3 {
            scope.spawn(move || assert_eq!(classify.run(&[nine()]).unwrap(), *want));
            scope.spawn(move || {
                let tensors = &features.run(&[nine()]).unwrap()[0];
                assert_eq!(tensors["logits"].dims(), [1, 10]);
            });
        }
    });
}

/// What a user holds may be built on one thread, used on another and shared by several.
#[test]
fn what_users_hold_goes_across_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Weights>();
    crosses::<CheckpointTensors>();
    crosses::<Network>();
    crosses::<Classifier>();
    crosses::<Model>();
    crosses::<Classify>();
    crosses::<Detect>();
    crosses::<Segment>();
    crosses::<Saliency>();
    crosses::<ExtractFeatures>();
    crosses::<TaskError>();
    crosses::<LoadError>();
    crosses::<Source>();
    crosses::<NeighborhoodAttention>();
    crosses::<zoo::Reference>();
    fn moves<T: Send>() {}
    moves::<Pipeline<Classify>>();

    // Two models of one view of the weights, each built on a thread of its own.
    let weights = Weights::open(DIGITS.as_ref(), DType::F32, Device::Cpu).unwrap();
    let architecture = digits();
    let images = images();
    let built: Vec<Vec<Vec<f32>>> = thread::scope(|scope| {
        let build = || {
            let network = Classifier::new(&architecture, &weights).unwrap();
            network.forward(&images).unwrap().to_vec2().unwrap()
        };
        let threads = [scope.spawn(build), scope.spawn(build)];
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert_eq!(built[0], built[1]);
}

/// Gradients of an input go through a network of fused layers as through candle's own.
#[test]
fn gradients_of_an_input_are_candles() {
    let weights = Weights::open(DIGITS.as_ref(), DType::F32, Device::Cpu).unwrap().differentiable();
    let network = Classifier::new(&digits(), &weights).unwrap();
    let images = Var::from_tensor(&images()).unwrap();
    let sum = images.apply(&network).unwrap().sum_all().unwrap();
    let gradient = sum.backward().unwrap().remove(&images).unwrap();
    assert_eq!(gradient.dims(), [2, 3, 64, 64]);
    let largest = gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(largest > 0.0 && largest.is_finite(), "{largest}");
}
