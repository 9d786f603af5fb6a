//! What all tasks have in common: images are prepared one by one, and computed together.

use std::ops::ControlFlow;

use image::RgbImage;

use super::{Model, TaskError};

/// What turns images into results, in two steps that run at the same time on different images: [`prepare`] makes a
/// network's input of an image, on the threads that decode images; [`infer`] makes results of inputs, on the one
/// thread that computes.
///
/// A result does not depend on the batch: on a CPU it is the same to the bit whatever else an input goes with.
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
    fn prepare(&self, image: &RgbImage) -> Self::Input;

    /// Whether two inputs can go through the network together: whether they are of one size.
    fn goes_with(&self, a: &Self::Input, b: &Self::Input) -> bool;

    /// Bytes of memory that an input takes.
    fn bytes(&self, input: &Self::Input) -> usize;

    /// Steps that `watch` counts for one image.
    fn steps(&self) -> usize {
        1
    }

    /// One result for each input, in their order; each of the inputs [goes with](ImageTask::goes_with) each other.
    /// What concerns one image alone, as a result that is no number, is the error of that image. `watch` is told how
    /// many steps were done since it was last called, and may break off; what is complete by then is not dropped. Of
    /// no inputs there are no results.
    ///
    /// # Errors
    /// When nothing of the batch could be computed; [`TaskError::Stopped`] when `watch` breaks off before the last
    /// step.
    fn infer(
        &self,
        inputs: &[Self::Input],
        watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Result<Self::Output, TaskError>>, TaskError>;
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
