//! Images on their way through a task.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use image::RgbImage;

use super::failure::Failure;
use super::queue::{Bounds, PreparedImage, Queue, Worker};
use super::read::{Fetch, SourcePicture, read};
use super::source::Source;
use super::source_error::SourceError;
use crate::crash::panic_message;
use crate::images::Reader;
use crate::tasks::{ImageTask, TaskError};

/// How a pipeline works.
#[derive(Clone)]
#[non_exhaustive]
pub struct PipelineOptions {
    /// Images that go through the network together, where they are of one size.
    pub batch_size: usize,
    /// Threads that read, decode and prepare images ahead of the network.
    pub readers: usize,
    /// Bytes of images that are being decoded or wait for the network; one that is larger is done on its own.
    pub memory: u64,
    /// How images are read.
    pub reader: Reader,
    /// Reads addresses; without it an address is an error.
    pub fetch: Option<Arc<Fetch>>,
    /// Give each image back with its answer, to draw on.
    pub keep_pictures: bool,
    /// Once this is true no image is begun any more, and the one at work is left where that takes long.
    pub stop: Arc<AtomicBool>,
}

impl Default for PipelineOptions {
    /// One image at a time, as many readers as rayon has threads, 512 MiB.
    fn default() -> Self {
        Self {
            batch_size: 1,
            readers: rayon::current_num_threads(),
            memory: 512 << 20,
            reader: Reader::default(),
            fetch: None,
            keep_pictures: false,
            stop: Arc::default(),
        }
    }
}

/// What became of one image.
#[non_exhaustive]
pub struct Done<O> {
    /// Its number among the sources, from 0.
    pub index: usize,
    /// The answer, or why there is none.
    pub result: Result<Answer<O>, Failure>,
}

/// What the network says of an image.
#[non_exhaustive]
pub struct Answer<O> {
    /// The task's output.
    pub output: O,
    /// Width and height of the image, turned upright.
    pub size: [usize; 2],
    /// The image, if [`PipelineOptions::keep_pictures`] asks for it.
    pub picture: Option<RgbImage>,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Times {
    /// Readers' time to read and decode, all threads together.
    pub read: Duration,
    /// Readers' time to make inputs of images, all threads together.
    pub prepare: Duration,
    /// Time in the network.
    pub compute: Duration,
    /// Time in which the network waited for an image.
    pub wait: Duration,
}

/// Images on their way through a task: an iterator over what became of each, in their order.
///
/// Reading is [`PipelineOptions::readers`] threads ahead. The image that is next goes through the network together with
/// those of its size among the following two batches, up to [`PipelineOptions::batch_size`]; so no more than one batch of
/// answers ever waits for its turn. Dropped before its end, it ends the reading.
pub struct Pipeline<T: ImageTask> {
    task: Arc<T>,
    names: Arc<dyn Fn(usize) -> String + Send + Sync>,
    queue: Arc<Queue<T::Input>>,
    /// Images that were taken off the queue and not given out, in order.
    line: VecDeque<Slot<T>>,
    /// The number of the first of them.
    first: usize,
    batch_size: usize,
    stop: Arc<AtomicBool>,
    step: Option<Box<dyn FnMut(usize) + Send>>,
    compute: Duration,
    wait: Duration,
}

/// An image in the line.
enum Slot<T: ImageTask> {
    Waiting(PreparedImage<T::Input>),
    /// In the network; it stays so where that was broken off.
    AtWork,
    Done(Result<Answer<T::Output>, Failure>),
}

/// How many batches of images are looked at for such as go with the oldest.
const PATIENCE: usize = 2;

impl<T: ImageTask> Pipeline<T> {
    /// Begins to read `sources`; an entry that is an error already is given out as it is, in its place.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(
        task: Arc<T>,
        sources: impl Into<Arc<[Result<Source, SourceError>]>>,
        options: PipelineOptions,
    ) -> io::Result<Self> {
        let PipelineOptions { batch_size, readers, memory, reader, fetch, keep_pictures, stop } = options;
        let batch_size = batch_size.max(1);
        let sources = sources.into();
        let count = sources.len();
        let names = {
            let sources = Arc::clone(&sources);
            Arc::new(move |index: usize| match &sources[index] {
                Ok(source) => source.name(),
                Err(error) => error.to_string(),
            })
        };
        let make = {
            let task = Arc::clone(&task);
            move |source: &Source, worker: &Worker<T::Input>| {
                let begin = Instant::now();
                let picture = read(source, &reader, fetch.as_deref(), |bytes| worker.admit(bytes));
                let middle = Instant::now();
                worker.took([middle - begin, Duration::ZERO]);
                let picture = picture?;
                let (input, [width, height]) = match &picture {
                    SourcePicture::Decoded(image) => (task.prepare(image), [image.width(), image.height()]),
                    SourcePicture::Shared(pixels) => {
                        let image = pixels.view();
                        (task.prepare(&image), [image.width(), image.height()])
                    }
                };
                worker.took([Duration::ZERO, middle.elapsed()]);
                let size = [width as usize, height as usize];
                let picture = keep_pictures.then(|| picture.into_image());
                let held = picture.as_ref().map_or(0, |picture| picture.as_raw().len());
                let bytes = (task.bytes(&input) + held) as u64;
                Ok(PreparedImage { input, picture, size, bytes })
            }
        };
        let make = move |index: usize, worker: &Worker<T::Input>| {
            let source = sources[index].as_ref().map_err(Clone::clone)?;
            // Whatever crashes, the other end waits for an answer.
            catch_unwind(AssertUnwindSafe(|| make(source, worker))).unwrap_or_else(|panic| {
                Err(Failure::Crash { name: source.name(), message: panic_message(&*panic) })
            })
        };
        // Enough for the batches that wait, and for every reader to be at work on the next.
        let bounds = Bounds { images: batch_size + readers, bytes: memory };
        let queue = Queue::start(readers, count, bounds, Arc::clone(&stop), make)?;
        Ok(Self {
            task,
            names,
            queue,
            line: VecDeque::new(),
            first: 0,
            batch_size,
            stop,
            step: None,
            compute: Duration::ZERO,
            wait: Duration::ZERO,
        })
    }

    /// Calls `step` with how many of an image's [`ImageTask::steps`] are done, each time that some are.
    #[must_use]
    pub fn on_step(mut self, step: impl FnMut(usize) + Send + 'static) -> Self {
        self.step = Some(Box::new(step));
        self
    }

    /// Where the time went so far.
    pub fn times(&self) -> Times {
        let [read, prepare] = self.queue.times();
        Times { read, prepare, compute: self.compute, wait: self.wait }
    }

    /// The images to compute next, by their places in the line; none while it is better to wait for more.
    fn batch(&self, more: bool) -> Vec<usize> {
        let waiting: Vec<(usize, &T::Input)> = self
            .line
            .iter()
            .enumerate()
            .filter_map(|(place, slot)| match slot {
                Slot::Waiting(prepared) => Some((place, &prepared.input)),
                _ => None,
            })
            .collect();
        let Some((_, oldest)) = waiting.first() else { return Vec::new() };
        let alike = waiting.iter().filter(|(_, other)| self.task.goes_with(oldest, other));
        let batch: Vec<usize> = alike.map(|(place, _)| *place).take(self.batch_size).collect();
        // The oldest is the first in the line, and holds back all that came after it.
        let long_enough = self.line.len() >= PATIENCE * self.batch_size || self.queue.is_full();
        if batch.len() == self.batch_size || long_enough || !more { batch } else { Vec::new() }
    }

    /// Computes the images at `places` of the line, together or, where that fails, one by one.
    fn infer(&mut self, places: &[usize]) {
        let (mut inputs, mut pictures) = (Vec::new(), Vec::new());
        for &place in places {
            if let Slot::Waiting(prepared) = std::mem::replace(&mut self.line[place], Slot::AtWork) {
                self.queue.release(prepared.bytes);
                inputs.push(prepared.input);
                pictures.push((prepared.picture, prepared.size));
            }
        }
        let begin = Instant::now();
        let results: Vec<_> = match self.attempt(&inputs) {
            Ok(outputs) => outputs.into_iter().map(|output| output.map_err(Attempt::Failed)).collect(),
            Err(Attempt::Failed(TaskError::Stopped)) => {
                self.stop.store(true, Ordering::Relaxed);
                Vec::new()
            }
            Err(error) if inputs.len() == 1 => vec![Err(error)],
            Err(_) => inputs.iter().map(|input| self.alone(input)).collect(),
        };
        self.compute += begin.elapsed();
        let stopped = self.stop.load(Ordering::Relaxed);
        let missing = || Err(Attempt::Crashed("no answer".to_owned()));
        let lacking = if stopped { 0 } else { places.len().saturating_sub(results.len()) };
        let results = results.into_iter().chain(std::iter::repeat_with(missing).take(lacking));
        for ((&place, (picture, size)), result) in places.iter().zip(pictures).zip(results) {
            if matches!(result, Err(Attempt::Failed(TaskError::Stopped))) {
                continue;
            }
            let result = result.map(|output| Answer { output, size, picture });
            self.line[place] = Slot::Done(result.map_err(|error| {
                let name = (self.names)(self.first + place);
                match error {
                    Attempt::Crashed(message) => Failure::Crash { name, message },
                    Attempt::Failed(error) if self.task.model().works() => {
                        Failure::Task { name, error: error.into() }
                    }
                    Attempt::Failed(error) => Failure::DeviceLost { name, error: error.into() },
                }
            }));
        }
    }

    fn attempt(&mut self, inputs: &[T::Input]) -> Result<Vec<Result<T::Output, TaskError>>, Attempt> {
        let (task, stop, step) = (&self.task, &self.stop, &mut self.step);
        let mut watch = |steps| {
            if let Some(step) = step {
                step(steps);
            }
            if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match catch_unwind(AssertUnwindSafe(|| task.infer(inputs, &mut watch))) {
            Ok(done) => done.map_err(Attempt::Failed),
            Err(panic) => Err(Attempt::Crashed(panic_message(&*panic))),
        }
    }

    fn alone(&mut self, input: &T::Input) -> Result<T::Output, Attempt> {
        let mut outputs = self.attempt(std::slice::from_ref(input))?;
        let output = outputs.pop().ok_or_else(|| Attempt::Crashed("no answer".to_owned()))?;
        output.map_err(Attempt::Failed)
    }
}

/// How a computation failed.
enum Attempt {
    Failed(TaskError),
    Crashed(String),
}

impl<T: ImageTask> Iterator for Pipeline<T> {
    type Item = Done<T::Output>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut more = true;
        loop {
            match self.line.pop_front() {
                Some(Slot::Done(result)) => {
                    self.first += 1;
                    return Some(Done { index: self.first - 1, result });
                }
                Some(not_done) => self.line.push_front(not_done),
                None if !more => return None,
                None => {}
            }
            let batch = self.batch(more);
            if batch.is_empty() {
                match self.queue.take() {
                    Some((made, waited)) => {
                        self.wait += waited;
                        self.line
                            .push_back(made.map_or_else(|failure| Slot::Done(Err(failure)), Slot::Waiting));
                    }
                    None => more = false,
                }
            } else {
                self.infer(&batch);
            }
            if self.stop.load(Ordering::Relaxed) {
                // What was computed already is given out, as far as the order allows.
                self.line.truncate(self.line.iter().take_while(|slot| matches!(slot, Slot::Done(_))).count());
                more = false;
            }
        }
    }
}

impl<T: ImageTask> Drop for Pipeline<T> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Deref;
    use std::sync::Mutex;

    use image::Rgb;

    use super::*;
    use crate::images::{RgbPixels, SharedPixels};
    use crate::tasks::{LoadOptions, Model};
    use crate::zoo::{self, Located};

    /// Answers with an image's number, its red; of green 1 it panics, of 2 it has no number, with one of 3 the whole
    /// batch fails, and with 4 preparing panics.
    struct Mock {
        model: Model,
        batches: Mutex<Vec<Vec<u8>>>,
    }

    impl ImageTask for Mock {
        type Input = RgbImage;
        type Output = u8;

        fn model(&self) -> &Model {
            &self.model
        }

        fn prepare<P: Deref<Target = [u8]>>(&self, image: &RgbPixels<P>) -> RgbImage {
            assert_ne!(image.get_pixel(0, 0)[1], 4, "as asked");
            RgbImage::from_raw(image.width(), image.height(), image.as_raw().to_vec()).unwrap()
        }

        fn goes_with(&self, a: &RgbImage, b: &RgbImage) -> bool {
            a.dimensions() == b.dimensions()
        }

        fn bytes(&self, input: &RgbImage) -> usize {
            input.len()
        }

        fn infer(
            &self,
            inputs: &[RgbImage],
            watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
        ) -> Result<Vec<Result<u8, TaskError>>, TaskError> {
            let not_finite = || TaskError::NotFinite { model: "mock".to_owned() };
            let pixels: Vec<Rgb<u8>> = inputs.iter().map(|input| *input.get_pixel(0, 0)).collect();
            self.batches.lock().unwrap().push(pixels.iter().map(|pixel| pixel[0]).collect());
            assert!(pixels.iter().all(|pixel| pixel[1] != 1), "one is asked to");
            if pixels.iter().any(|pixel| pixel[1] == 3) {
                return Err(not_finite());
            }
            if watch(inputs.len()).is_break() {
                return Err(TaskError::Stopped);
            }
            Ok(pixels
                .iter()
                .map(|pixel| if pixel[1] == 2 { Err(not_finite()) } else { Ok(pixel[0]) })
                .collect())
        }
    }

    fn mock() -> Arc<Mock> {
        let digits = zoo::find("demo-digits").unwrap();
        let model = Model::named(digits, &Located::Embedded, &LoadOptions::default()).unwrap();
        Arc::new(Mock { model, batches: Mutex::default() })
    }

    fn source(number: u8, behaviour: u8, width: u32) -> Result<Source, SourceError> {
        let image = RgbImage::from_pixel(width, 1, Rgb([number, behaviour, 0]));
        let mut png = io::Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        Ok(Source::memory(&format!("{number}.png"), png.into_inner()))
    }

    fn run(task: &Arc<Mock>, sources: Vec<Result<Source, SourceError>>, batch_size: usize) -> Vec<String> {
        let options = PipelineOptions { batch_size, readers: 3, ..PipelineOptions::default() };
        let pipeline = Pipeline::new(Arc::clone(task), sources, options).unwrap();
        let said = |done: Done<u8>| match done.result {
            Ok(answer) => format!("{} of {}", answer.output, answer.size[0]),
            Err(failure) => failure.to_string(),
        };
        pipeline
            .enumerate()
            .map(|(i, done)| {
                assert_eq!(done.index, i);
                said(done)
            })
            .collect()
    }

    #[test]
    fn one_bad_image_is_one_error_in_its_place() {
        for batch_size in [1, 2, 4, 100] {
            let mut sources: Vec<_> = (0..9).map(|number| source(number, 0, 2)).collect();
            sources[1] = source(1, 1, 2);
            sources[3] = source(3, 2, 2);
            sources[4] = source(4, 3, 2);
            sources[5] = source(5, 4, 2);
            sources[6] = Ok(Source::memory("6.png", *b"no picture"));
            sources[7] = Err(SourceError::Missing("7.png".to_owned()));
            let said = run(&mock(), sources, batch_size);
            let starts = [
                "0 of 2",
                "1.png: the program failed on this image (one is asked to); please report it",
                "2 of 2",
                "3.png: `mock` answers with what is no number",
                "4.png: `mock` answers with what is no number",
                "5.png: the program failed on this image (assertion",
                "6.png: not an image",
                "7.png: no such file or folder",
                "8 of 2",
            ];
            assert_eq!(said.len(), starts.len());
            for (said, start) in said.iter().zip(starts) {
                assert!(said.starts_with(start), "{batch_size}: {said}");
            }
        }
    }

    #[test]
    fn pixels_that_others_hold_are_an_image_as_any_other() {
        let pixels = |number: u8| SharedPixels::new([2, 1], [number, 0, 0].repeat(2)).unwrap();
        let sources = || vec![source(0, 0, 2), Ok(Source::pixels("1", pixels(1))), source(2, 0, 2)];
        assert_eq!(run(&mock(), sources(), 4), ["0 of 2", "1 of 2", "2 of 2"]);
        let options = PipelineOptions { keep_pictures: true, ..PipelineOptions::default() };
        let kept: Vec<RgbImage> = Pipeline::new(mock(), sources(), options)
            .unwrap()
            .map(|done| done.result.unwrap().picture.unwrap())
            .collect();
        assert!(kept[1] == pixels(1).to_image() && kept[0].get_pixel(1, 0).0 == [0; 3]);
        let failed =
            run(&mock(), vec![Ok(Source::pixels("a", SharedPixels::new([1, 1], [9u8, 2, 0]).unwrap()))], 1);
        assert!(failed[0].starts_with("a: `mock` answers with what is no number"), "{failed:?}");
    }

    #[test]
    fn images_of_one_size_go_together_and_none_waits_for_long() {
        // Two sizes in turn, and one image of a third that has nothing to wait for.
        let sources = || {
            let mut sources: Vec<_> =
                (0..24).map(|number| source(number, 0, 1 + u32::from(number % 2))).collect();
            sources[2] = source(2, 0, 7);
            sources
        };
        let expected: Vec<String> = (0..24)
            .map(|number| format!("{number} of {}", if number == 2 { 7 } else { 1 + number % 2 }))
            .collect();
        let task = mock();
        assert_eq!(run(&task, sources(), 3), expected);
        let batches = std::mem::take(&mut *task.batches.lock().unwrap());
        assert!(batches.iter().all(|batch| batch.len() <= 3));
        assert!(batches.iter().filter(|batch| batch.len() == 3).count() >= 7, "{batches:?}");
        // The next image is always among those that are computed, with none that is far behind it.
        let mut done = std::collections::BTreeSet::new();
        for batch in &batches {
            let next = (0..).find(|number| !done.contains(number)).unwrap();
            assert!(batch[0] == next && batch.iter().all(|number| *number < next + 2 * 3), "{batches:?}");
            done.extend(batch.iter().copied());
        }
        // However many threads there are, batches are the same.
        for _ in 0..5 {
            run(&task, sources(), 3);
            assert_eq!(std::mem::take(&mut *task.batches.lock().unwrap()), batches);
        }
    }

    #[test]
    fn a_stop_ends_it_with_what_is_done() {
        let stop = Arc::new(AtomicBool::new(false));
        let options = PipelineOptions { stop: Arc::clone(&stop), ..PipelineOptions::default() };
        let sources: Vec<_> = (0..50).map(|number| source(number, 0, 2)).collect();
        let flag = Arc::clone(&stop);
        let mut steps = 0;
        let pipeline = Pipeline::new(mock(), sources, options).unwrap().on_step(move |step| {
            steps += step;
            flag.store(steps == 7, Ordering::Relaxed);
        });
        // The seventh is broken off.
        assert_eq!(pipeline.map(|done| done.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    }
}
