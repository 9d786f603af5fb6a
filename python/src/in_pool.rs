//! A task whose networks are computed on chosen threads. What waits for images, or for another call's batch, keeps none of
//! them.

use std::ops::{ControlFlow, Deref};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nat_infer::images::RgbPixels;
use nat_infer::tasks::{ImageTask, Model, TaskError};
use rayon::ThreadPool;

/// A task with its threads, and what stops it.
pub struct InPool<T> {
    pub task: T,
    pub pool: &'static ThreadPool,
    pub stop: Arc<AtomicBool>,
}

impl<T: ImageTask<Input: Sync>> ImageTask for InPool<T> {
    type Input = T::Input;
    type Output = T::Output;

    fn model(&self) -> &Model {
        self.task.model()
    }

    fn prepare<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> Self::Input {
        self.task.prepare(image)
    }

    fn goes_with(&self, a: &Self::Input, b: &Self::Input) -> bool {
        self.task.goes_with(a, b)
    }

    fn bytes(&self, input: &Self::Input) -> usize {
        self.task.bytes(input)
    }

    fn steps(&self) -> usize {
        self.task.steps()
    }

    fn infer(
        &self,
        inputs: &[Self::Input],
        watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Result<Self::Output, TaskError>>, TaskError> {
        // `watch` stays with its thread; all that it would say is whether to stop.
        let done = self.pool.install(|| {
            self.task.infer(inputs, &mut |_| match self.stop.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        });
        let _ = watch(inputs.len() * self.steps());
        done
    }
}
