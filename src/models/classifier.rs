//! Image classification: a backbone, global average pooling and one linear layer. A backbone alone,
//! or a detector's, gives its feature maps through the same type.

use candle_core::{DType, Module, Result, Tensor, Var};
use nat_convert::arch::{Architecture, Head};

use super::backbone::Backbone;
use crate::layers::{Batches, Linear, on_pool};
use crate::weights::{LoadError, Weights};

/// A backbone and, for classifiers, its head.
pub struct Classifier {
    backbone: Backbone,
    head: Option<Linear>,
    batches: Batches,
}

/// What a network computes on the way.
#[non_exhaustive]
pub struct Features {
    /// Each level's map before its downsampler, [B, C, H, W], f32; through `norm{i}` where the network
    /// has them.
    pub stages: Vec<Tensor>,
    /// The last map, normed and averaged, [B, C], f32; of classifiers.
    pub pooled: Option<Tensor>,
    /// [B, classes], f32; of classifiers.
    pub logits: Option<Tensor>,
}

impl Classifier {
    /// Builds the network and takes all of its weights.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] with everything in which weights and architecture differ.
    pub fn new(architecture: &Architecture, weights: &Weights) -> std::result::Result<Self, LoadError> {
        weights.compare(&architecture.tensors())?;
        let Architecture { backbone, head, recipe } = architecture;
        let network = Backbone::new(backbone, recipe, &head.backbone_scope(), weights);
        let head = match head {
            Head::Classifier(widths) => Some(Linear::new(&widths.spec(backbone.out_dim()), weights)),
            _ => None,
        };
        weights.finish()?;
        Ok(Self { backbone: network, head, batches: Batches::new(weights) })
    }

    /// Logits [B, classes], f32, of normalised images [B, 3, H, W].
    ///
    /// # Errors
    /// When the images do not suit the network, or it is not a classifier.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.batches.run(images, |images| self.logits(images))
    }

    /// The gradients of logits with respect to normalised images [B, 3, H, W], of each image that of the class
    /// beside it: [B, 3, H, W], f32.
    ///
    /// # Errors
    /// As [`Classifier::forward`]; when there are not as many `classes` as images, one is none of the network's,
    /// or the network was not built of [`Weights::differentiable`] or [`Weights::plain`].
    pub fn gradients(&self, images: &Tensor, classes: &[u32]) -> Result<Tensor> {
        check_classes(images, classes)?;
        self.batches.parts(images, Some(MOST_GRADIENTS), |images, first| {
            let images = Var::from_tensor(images)?;
            let logits = self.logits(&images)?;
            gradient(&logits, &classes[first..first + images.dim(0)?], &images)
        })
    }

    /// Grad-CAM (arXiv 1610.02391) on the last level's map before the final norm: its channels summed up with
    /// the means of a logit's gradients as weights, and what speaks against the class left out. Of each of the
    /// images [B, 3, H, W] for the class beside it, or the most probable one: the logits [B, classes], and the
    /// maps [B, h, w]; f32.
    ///
    /// # Errors
    /// As [`Classifier::gradients`].
    pub fn grad_cam(&self, images: &Tensor, classes: &[Option<u32>]) -> Result<(Tensor, Tensor)> {
        check_classes(images, classes)?;
        on_pool(images.device(), || {
            let maps = self.backbone.forward(images)?;
            let Some(last) = maps.last() else { candle_core::bail!("a backbone without levels") };
            let last = Var::from_tensor(last)?;
            let logits = self.head(&last)?;
            let likeliest = logits.argmax(1)?.to_vec1()?;
            let classes: Vec<u32> =
                classes.iter().zip(likeliest).map(|(class, top)| class.unwrap_or(top)).collect();
            let gradient = gradient(&logits, &classes, &last)?;
            let weights = gradient.mean_keepdim((1, 2))?; // [B, 1, 1, C]
            let map = last.detach().to_dtype(DType::F32)?.broadcast_mul(&weights)?.sum(3)?.relu()?;
            Ok((logits.detach(), map))
        })
    }

    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        match self.backbone.forward(images)?.last() {
            Some(last) => self.head(last),
            None => candle_core::bail!("a backbone without levels"),
        }
    }

    /// Logits of the last level's map.
    fn head(&self, last: &Tensor) -> Result<Tensor> {
        match &self.head {
            Some(head) => self.backbone.widened(&head.forward(&self.backbone.pool(last)?)?),
            None => candle_core::bail!("this network has no classifier"),
        }
    }

    /// The pooled features alone, [B, C], f32, of images [B, 3, H, W]; see [`Features::pooled`].
    ///
    /// # Errors
    /// When the images do not suit the network, or it is not a classifier.
    pub fn pooled(&self, images: &Tensor) -> Result<Tensor> {
        self.batches.run(images, |images| match (self.backbone.forward(images)?.last(), &self.head) {
            (Some(last), Some(_)) => self.backbone.widened(&self.backbone.pool(last)?),
            _ => candle_core::bail!("this network has no classifier"),
        })
    }

    /// Every map, and for a classifier the pooled features and the logits, of images [B, 3, H, W].
    ///
    /// # Errors
    /// When the images do not suit the network.
    pub fn features(&self, images: &Tensor) -> Result<Features> {
        let maps = on_pool(images.device(), || self.backbone.forward(images))?;
        let pooled = match (maps.last(), &self.head) {
            (Some(last), Some(_)) => Some(self.backbone.pool(last)?),
            _ => None,
        };
        let logits = match (&pooled, &self.head) {
            (Some(pooled), Some(head)) => Some(head.forward(pooled)?.to_dtype(DType::F32)?),
            _ => None,
        };
        let stages = maps.iter().map(|map| map.permute((0, 3, 1, 2))?.contiguous()?.to_dtype(DType::F32));
        Ok(Features {
            stages: stages.collect::<Result<_>>()?,
            pooled: pooled.map(|pooled| pooled.to_dtype(DType::F32)).transpose()?,
            logits,
        })
    }
}

/// From normalised images [B, 3, H, W] to logits [B, classes], f32.
impl Module for Classifier {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        Self::forward(self, images)
    }
}

/// Images that gradients are taken of at a time on a CPU, at most: the inputs of all layers are kept meanwhile, of
/// NAT-Mini at 224 some 50 MB per image, and no more images are needed to keep many threads busy.
pub const MOST_GRADIENTS: usize = 8;

fn check_classes<T>(images: &Tensor, classes: &[T]) -> Result<()> {
    match images.dim(0)? {
        batch if batch == classes.len() => Ok(()),
        batch => candle_core::bail!("{} classes for {batch} images", classes.len()),
    }
}

/// The gradient of the logits [B, all classes] of `classes` with respect to `input` [B, ..], f32.
fn gradient(logits: &Tensor, classes: &[u32], input: &Tensor) -> Result<Tensor> {
    // The gradients of f16 layers would leave its range downwards.
    let factor = if input.dtype() == DType::F16 { 1024.0 } else { 1.0 };
    let chosen = Tensor::new(classes, logits.device())?.unsqueeze(1)?;
    let sum = logits.gather(&chosen, 1)?.sum_all()?;
    match (sum * factor)?.backward()?.remove(input) {
        Some(gradient) => gradient.to_dtype(DType::F32)? / factor,
        None => candle_core::bail!("the logits do not depend on their input"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use nat_convert::arch::Dilations;
    use nat_convert::zoo;

    use super::*;

    fn small() -> (Architecture, Tensor) {
        let mut architecture = zoo::find("demo-digits").unwrap().architecture.clone();
        let dilations: Dilations = "1/1/1/1".parse().unwrap();
        architecture.backbone.dilations = dilations.expand(&architecture.backbone.depths).unwrap();
        let values: Vec<f32> = (0..3 * 3 * 64 * 64).map(|i| (i * 37 % 10_007) as f32 / 5e3 - 1.0).collect();
        (architecture, Tensor::from_vec(values, (3, 3, 64, 64), &Device::Cpu).unwrap())
    }

    /// Weights from differences of the logit, a channel of the last map moved up and down.
    #[test]
    fn grad_cam_weighs_channels_with_their_slopes() {
        let (architecture, images) = small();
        let weights = Weights::random(1, DType::F32, Device::Cpu).differentiable();
        let network = Classifier::new(&architecture, &weights).unwrap();
        let classes = [3, 7, 5];
        let (logits, got) = network.grad_cam(&images, &classes.map(Some)).unwrap();
        let of = |logits: &Tensor| logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(of(&logits), of(&network.forward(&images).unwrap()));
        let maps = network.backbone.forward(&images).unwrap();
        let (_, h, w, channels) = maps[3].dims4().unwrap();
        assert_eq!(got.dims(), [3, h, w]);
        let mut sums = vec![vec![0.0; h * w]; 3];
        for channel in 0..channels {
            let logits = |step: f32| {
                let moved: Vec<f32> = (0..channels).map(|c| if c == channel { step } else { 0.0 }).collect();
                let moved = Tensor::from_vec(moved, channels, &Device::Cpu).unwrap();
                let logits = network.head(&maps[3].broadcast_add(&moved).unwrap()).unwrap();
                logits.to_vec2::<f32>().unwrap()
            };
            const STEP: f32 = 1e-2;
            let (up, down) = (logits(STEP), logits(-STEP));
            for (image, &class) in classes.iter().enumerate() {
                let slope = (up[image][class as usize] - down[image][class as usize]) / (2.0 * STEP);
                let map = maps[3].narrow(0, image, 1).unwrap().narrow(3, channel, 1).unwrap();
                let map = map.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let weight = slope / (h * w) as f32;
                sums[image].iter_mut().zip(map).for_each(|(sum, x)| *sum += weight * x);
            }
        }
        let got = got.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
        for (got, want) in got.iter().flatten().zip(sums.iter().flatten()) {
            assert!((got - want.max(0.0)).abs() < 1e-3, "{got}, not {want}");
        }
        assert!(got.iter().flatten().any(|&x| x > 0.01), "{got:?}");
    }

    /// Through the network as any other operator; and each image has its class, however many go together.
    #[test]
    fn candles_backward_gives_the_same_gradients() {
        let (architecture, images) = small();
        let weights = Weights::random(1, DType::F32, Device::Cpu).differentiable();
        let network = Classifier::new(&architecture, &weights).unwrap();
        let images = Var::from_tensor(&images).unwrap();
        let logits = network.forward(&images).unwrap();
        let sum: Vec<Tensor> = [3, 7, 5]
            .into_iter()
            .enumerate()
            .map(|(image, class)| logits.narrow(0, image, 1).unwrap().narrow(1, class, 1).unwrap())
            .collect();
        let sum = Tensor::cat(&sum, 0).unwrap().sum_all().unwrap();
        let want = sum.backward().unwrap().remove(&images).unwrap();
        let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        for threads in 1..4 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let got = pool.install(|| network.gradients(&images, &[3, 7, 5])).unwrap();
            let off = norm(&(got - &want).unwrap()) / norm(&want);
            assert!(off < 1e-5, "{threads} threads: {off}");
        }
    }

    #[test]
    fn a_network_for_inference_and_wrong_classes_are_refused() {
        let (architecture, images) = small();
        let build = |weights| Classifier::new(&architecture, &weights).unwrap();
        let random = || Weights::random(1, DType::F32, Device::Cpu);
        let [inference, network] = [random(), random().differentiable()].map(build);
        for (network, classes, says) in [
            (&inference, &[0, 0, 0][..], "built for inference"),
            (&network, &[0], "1 classes for 3 images"),
            (&network, &[0, 10, 0], "index"),
        ] {
            let chosen: Vec<Option<u32>> = classes.iter().copied().map(Some).collect();
            let errors = [
                network.gradients(&images, classes).unwrap_err(),
                network.grad_cam(&images, &chosen).unwrap_err(),
            ];
            assert!(errors.iter().all(|error| error.to_string().contains(says)), "{classes:?}: {errors:?}");
        }
        // The two answer alike, to the bit.
        let [a, b] = [inference, network].map(|network| network.forward(&images).unwrap());
        assert_eq!(a.to_vec2::<f32>().unwrap(), b.to_vec2::<f32>().unwrap());
    }
}
