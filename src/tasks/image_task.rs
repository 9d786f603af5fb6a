//! What all tasks have in common: images are prepared one by one, and computed together.

use std::ops::{ControlFlow, Deref};

use candle_core::Device;
use nat_convert::zoo::Task;

use super::{Model, TaskError};
use crate::images::RgbPixels;

/// What turns images into results, in two steps that run at the same time on different images: [`prepare`]
/// makes a network's input of an image, on the threads that decode images; [`infer`] makes results of inputs,
/// on the one thread that computes.
///
/// A result does not depend on the batch: on a CPU it is the same to the bit whatever else an input goes
/// with.
///
/// [`prepare`]: ImageTask::prepare
/// [`infer`]: ImageTask::infer
pub trait ImageTask: Send + Sync + 'static {
    /// An image as the network takes it.
    type Input: Send + 'static;
    /// What the network says of an image.
    type Output: Send + 'static;

    /// The model.
    fn model(&self) -> &Model;

    /// The network's input of an image.
    ///
    /// # Panics
    /// When the image has no pixels.
    fn prepare<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> Self::Input;

    /// Whether two inputs can go through the network together: whether they are of one size.
    fn goes_with(&self, a: &Self::Input, b: &Self::Input) -> bool;

    /// Bytes of memory that an input takes.
    fn bytes(&self, input: &Self::Input) -> usize;

    /// Steps that `watch` counts for one image.
    fn steps(&self) -> usize {
        1
    }

    /// One result for each input, in their order; each input [goes with](ImageTask::goes_with) each other.
    /// What concerns one image alone, as a result that is no number, is the error of that image. `watch` is
    /// told how many steps were done since it was last called, and may break off before the last one: after
    /// that the results are there and not dropped. Of no inputs there are no results.
    ///
    /// # Errors
    /// When nothing of the batch could be computed; [`TaskError::Stopped`] when `watch` breaks off.
    fn infer(
        &self,
        inputs: &[Self::Input],
        watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Result<Self::Output, TaskError>>, TaskError>;
}

/// Images that go through a network of `task` together where nobody chooses: as many as suit the device and the threads.
pub fn usual_batch_size(task: Option<Task>, device: &Device, threads: usize) -> usize {
    // A batch costs memory, and on few threads one image keeps all of them busy.
    match task {
        // Photographs at the size of detectors are another load than crops.
        Some(Task::Detect | Task::Segment) => 1,
        _ if device.is_cpu() => threads.div_ceil(4).min(8),
        _ => 32,
    }
}

/// The results of inputs that go together, where an error of one is an error of all.
pub(super) fn all<T: ImageTask>(task: &T, inputs: &[T::Input]) -> Result<Vec<T::Output>, TaskError> {
    task.infer(inputs, &mut unwatched)?.into_iter().collect()
}

/// The result of one input.
pub(super) fn one<T: ImageTask>(
    task: &T,
    input: &T::Input,
    watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<T::Output, TaskError> {
    task.infer(std::slice::from_ref(input), watch)?.swap_remove(0)
}

/// Does not watch.
pub(super) fn unwatched(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::path::Path;

    use image::RgbImage;
    use image::imageops::{flip_horizontal, flip_vertical, invert, rotate180};

    use nat_testing::golden;

    use super::*;
    use crate::tasks::classify::ClassifyOptions;
    use crate::tasks::detect::DetectOptions;
    use crate::tasks::saliency::{Method, SaliencyOptions, SmoothGrad};
    use crate::tasks::segment::SegmentOptions;
    use crate::tasks::{Classify, Detect, Embed, ExtractFeatures, LoadOptions, Saliency, Segment};
    use crate::zoo::{self, Located};

    fn open(name: &str) -> Model {
        Model::open(&golden::path(name), &LoadOptions::default()).unwrap()
    }

    fn digits(gradients: bool) -> Model {
        let options = LoadOptions { gradients, ..LoadOptions::default() };
        Model::named(zoo::find("demo-digits").unwrap(), &Located::Embedded, &options).unwrap()
    }

    /// An image and four others of its size.
    fn images(path: &Path) -> [RgbImage; 5] {
        let image = image::open(path).unwrap().into_rgb8();
        let mut inverted = flip_vertical(&image);
        invert(&mut inverted);
        let (mirrored, turned) = (flip_horizontal(&image), rotate180(&image));
        [image, inverted.clone(), mirrored, turned, flip_horizontal(&inverted)]
    }

    /// Holds batches of 2, 3 and 5 against images alone, to the bit, on several numbers of threads; and
    /// spoils one image of a batch.
    fn batches_are_their_images<T: ImageTask, V: PartialEq + Debug + Send>(
        task: &T,
        images: &[RgbImage; 5],
        values: impl Fn(T::Output) -> V + Sync,
        spoil: impl Fn(&mut T::Input),
    ) where
        T::Input: Sync,
        T::Output: Sync,
    {
        let mut inputs: Vec<T::Input> = images.iter().map(|image| task.prepare(image)).collect();
        assert!(inputs.iter().all(|input| task.goes_with(input, &inputs[0]) && task.bytes(input) > 0));
        assert!(task.infer(&[], &mut |_| panic!("nothing is done")).unwrap().is_empty());
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let alone: Vec<V> = pool.install(|| {
                inputs.iter().map(|input| values(one(task, input, &mut unwatched).unwrap())).collect()
            });
            assert!(alone[0] != alone[1]);
            for size in [2, 3, 5] {
                for (batch, alone) in inputs.chunks(size).zip(alone.chunks(size)) {
                    let mut steps = 0;
                    let together = pool.install(|| {
                        let results = task.infer(batch, &mut |n| {
                            steps += n;
                            ControlFlow::Continue(())
                        });
                        let results = results.unwrap();
                        results.into_iter().map(|result| values(result.unwrap())).collect::<Vec<V>>()
                    });
                    assert!(together == alone, "{} of {size} on {threads} threads", batch.len());
                    assert_eq!(steps, batch.len() * task.steps());
                }
            }
        }
        let alone: Vec<V> =
            inputs.iter().map(|input| values(one(task, input, &mut unwatched).unwrap())).collect();
        spoil(&mut inputs[1]);
        let results = task.infer(&inputs[..3], &mut unwatched).unwrap();
        for (i, result) in results.into_iter().enumerate() {
            match result {
                Err(error) => assert!(i == 1 && matches!(error, TaskError::NotFinite { .. }), "{i}: {error}"),
                Ok(result) => assert!(i != 1 && values(result) == alone[i], "{i}"),
            }
        }
    }

    #[test]
    fn a_batch_of_a_classifier_is_its_images() {
        for (model, image) in [
            (digits(false), golden::path("digits/images/digit-0-012.png")),
            (open("classify/nat-k7.pth"), golden::path("detect/maskrcnn_s/image.png")),
        ] {
            let options = ClassifyOptions { resolution: Some(96), ..ClassifyOptions::default() };
            let task = Classify::new(model, &options).unwrap();
            assert!(task.run(&[]).unwrap().is_empty());
            batches_are_their_images(&task, &images(&image), |top| top, |input| input[5000] = f32::NAN);
        }
    }

    #[test]
    fn a_batch_of_vectors_is_its_images() {
        let task = Embed::new(digits(false), None, None).unwrap();
        assert!(task.run(&[]).unwrap().is_empty());
        let images = images(&golden::path("digits/images/digit-0-012.png"));
        batches_are_their_images(&task, &images, |vector| vector, |input| input[5000] = f32::NAN);
    }

    #[test]
    fn a_batch_of_a_detector_is_its_images() {
        let task = Detect::new(open("detect/maskrcnn_s/model.pth"), &DetectOptions::default()).unwrap();
        let spoil = |input: &mut crate::images::Fitted| input.values[5000] = f32::NAN;
        batches_are_their_images(
            &task,
            &images(&golden::path("detect/maskrcnn_s/image.png")),
            |found| found,
            spoil,
        );
    }

    #[test]
    fn a_batch_of_a_segmenter_is_its_images() {
        for all in [false, true] {
            let options = SegmentOptions { scale: Some([192, 96]), multi_scale: all, flip: all };
            let task = Segment::new(open("segment/upernet_b/model.pth"), &options).unwrap();
            assert_eq!(task.steps(), if all { 12 } else { 1 });
            let images = images(&golden::path("segment/upernet_b/image.png"));
            batches_are_their_images(&task, &images, |map| map, |input| input[0].values[500] = f32::NAN);
        }
    }

    #[test]
    fn a_batch_of_features_is_its_images() {
        let task = ExtractFeatures::new(digits(false), None, None).unwrap();
        assert!(task.run(&[]).unwrap().is_empty());
        let values = |tensors: crate::tasks::features::Tensors| {
            let bits = |tensor: &candle_core::Tensor| {
                let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                values.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
            };
            tensors.iter().map(|(name, t)| (name.clone(), t.dims().to_vec(), bits(t))).collect::<Vec<_>>()
        };
        let spoil = |input: &mut crate::tasks::features::FeatureInput| input.values[5000] = f32::NAN;
        batches_are_their_images(
            &task,
            &images(&golden::path("digits/images/digit-0-012.png")),
            values,
            spoil,
        );
    }

    #[test]
    fn maps_of_several_images_are_those_of_each() {
        for method in
            [Method::GradCam, Method::SmoothGrad(SmoothGrad { samples: 3, ..SmoothGrad::default() })]
        {
            let task = Saliency::new(digits(true), method, &SaliencyOptions::default()).unwrap();
            let images = images(&golden::path("digits/images/digit-0-012.png"));
            batches_are_their_images(&task, &images, |map| map, |input| input[5000] = f32::NAN);
        }
    }

    #[test]
    fn work_is_broken_off_while_there_is_some() {
        let options = SegmentOptions { scale: Some([96, 64]), multi_scale: true, flip: false };
        let task = Segment::new(open("segment/upernet_b/model.pth"), &options).unwrap();
        let images = images(&golden::path("segment/upernet_b/image.png"));
        let inputs: Vec<_> = images[..2].iter().map(|image| task.prepare(image)).collect();
        for last in [1, 6, 11, 12] {
            let mut done = 0;
            let results = task.infer(&inputs, &mut |steps| {
                done += steps;
                if done < last { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            assert_eq!(done, last);
            match results {
                Ok(maps) => assert!(last == 12 && maps.len() == 2),
                Err(error) => assert!(last < 12 && matches!(error, TaskError::Stopped), "{error}"),
            }
        }
    }
}
