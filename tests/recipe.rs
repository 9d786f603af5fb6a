//! What a recipe says changes answers as it should: golden checkpoints with other recipes and with weights that make
//! up for these answer as before, or as a definition says.

#[path = "common/altered.rs"]
mod altered;

use altered::{Altered, altered, replace, rows};
use candle_core::{DType, Tensor};
use nat_infer::models::classifier::{Classifier, Features};
use nat_infer::weights::Weights;
use nat_testing::tensors::{self, relative};
use nat_testing::{bound, golden};

/// What `form` of a classifier makes of noise.
fn features(file: &Altered, form: fn(Weights) -> Weights) -> Features {
    let images = tensors::ramp((1, 3, 64, 64));
    Classifier::new(&file.metadata.architecture, &form(file.weights())).unwrap().features(&images).unwrap()
}

const CLASSIFIERS: [&str; 3] =
    ["classify/nat-k7.pth", "classify/dinat-s.pth", "classify/nat-k5-layerscale-ema.pth"];

/// A residual stream of twice the size, with an epsilon of four times the size, is normed to the same.
#[test]
fn blocks_and_the_last_norm_have_the_recipes_epsilon() {
    const EPSILON: f64 = 0.05;
    for name in CLASSIFIERS {
        let with = |epsilon: f64, double: bool| {
            altered(&golden::path(name), |metadata, tensors| {
                metadata.architecture.recipe.norm_epsilon = epsilon;
                let writes = |name: &str| {
                    [".attn.proj.", ".mlp.fc2.", "patch_embed.norm."].iter().any(|part| name.contains(part))
                        || name.contains("downsample.norm.") && !name.contains("layers.")
                        || name.contains("layers.") && name.contains("downsample.reduction.")
                };
                if double {
                    replace(tensors, writes, |x| (x * 2.0).unwrap());
                }
            })
        };
        for form in [|weights| weights, Weights::differentiable, Weights::plain] {
            let logits = |file: &Altered| features(file, form).logits.unwrap();
            let [usual, other] = [1e-5, EPSILON].map(|epsilon| logits(&with(epsilon, false)));
            let off = relative(&logits(&with(4.0 * EPSILON, true)), &other);
            assert!(off < 1e-3, "{name}: {off}");
            assert!(relative(&usual, &other) > 1e-2, "{name}: epsilon changes nothing");
        }
    }
}

/// With blocks that add nothing, only the last norm sees the recipe's epsilon.
#[test]
fn other_norms_keep_their_epsilon() {
    const EPSILON: f64 = 0.5;
    for name in CLASSIFIERS {
        let with = |epsilon: f64| {
            altered(&golden::path(name), |metadata, tensors| {
                metadata.architecture.recipe.norm_epsilon = epsilon;
                let writes = |name: &str| name.contains(".attn.proj.") || name.contains(".mlp.fc2.");
                replace(tensors, writes, |x| x.zeros_like().unwrap());
            })
        };
        let (usual, file) = (with(1e-5), with(EPSILON));
        let [usual, other] = [&usual, &file].map(|file| features(file, |weights| weights));
        for (a, b) in usual.stages.iter().zip(&other.stages) {
            assert_eq!(
                a.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
                b.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            );
        }
        let weights = file.weights();
        let last = other.stages[3].permute((0, 2, 3, 1)).unwrap().to_dtype(DType::F64).unwrap();
        let dim = last.dim(3).unwrap();
        let [weight, bias] =
            ["norm.weight", "norm.bias"].map(|name| weights.get(&[dim], name).to_dtype(DType::F64).unwrap());
        let centred = last.broadcast_sub(&last.mean_keepdim(3).unwrap()).unwrap();
        let variance = centred.sqr().unwrap().mean_keepdim(3).unwrap();
        let normed = centred.broadcast_div(&(variance + EPSILON).unwrap().sqrt().unwrap()).unwrap();
        let pooled =
            normed.broadcast_mul(&weight).unwrap().broadcast_add(&bias).unwrap().mean((1, 2)).unwrap();
        let off = relative(&other.pooled.unwrap(), &pooled.to_dtype(DType::F32).unwrap());
        assert!(off < bound::SAME, "{name}: {off}");
    }
}

/// A query's scale or its keys' size: the products are the same.
#[test]
fn queries_are_scaled_as_the_recipe_says() {
    const SCALE: f64 = 0.07;
    for name in CLASSIFIERS {
        let keys = altered(&golden::path(name), |metadata, tensors| {
            let backbone = &metadata.architecture.backbone;
            let heads = |dim: usize| backbone.num_heads[(dim / backbone.embed_dim).ilog2() as usize];
            let larger_keys = |x: &Tensor| {
                let dim = x.dims()[0] / 3;
                let factor = SCALE * ((dim / heads(dim)) as f64).sqrt();
                let factors = [vec![1.0; dim], vec![factor; dim], vec![1.0; dim]].concat();
                rows(x, &factors, &vec![0.0; 3 * dim])
            };
            replace(tensors, |name| name.contains(".attn.qkv."), larger_keys);
        });
        let unchanged = altered(&golden::path(name), |_, _| ());
        let scaled = altered(&golden::path(name), |metadata, _| {
            metadata.architecture.recipe.query_scale = Some(SCALE);
        });
        for form in [|weights| weights, Weights::differentiable, Weights::plain] {
            let logits = |file: &Altered| features(file, form).logits.unwrap();
            let off = relative(&logits(&scaled), &logits(&keys));
            assert!(off < bound::NETWORK, "{name}: {off}");
            assert!(relative(&logits(&scaled), &logits(&unchanged)) > 1e-3, "{name}");
        }
    }
}
