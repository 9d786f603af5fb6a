//! The tasks: images in, for each a record as JSON and what JSON is no form for, or the exception that it met.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nat_infer::candle_core::DType;
use nat_infer::models::classifier::MOST_GRADIENTS;
use nat_infer::pipeline::{Answer, Fetch, Pipeline, PipelineOptions, Source};
use nat_infer::results::{Classification, Detections, Scored, Segmentation};
use nat_infer::tasks::classify::ClassifyOptions;
use nat_infer::tasks::detect::DetectOptions;
use nat_infer::tasks::saliency::{Method, SaliencyOptions, SmoothGrad};
use nat_infer::tasks::segment::SegmentOptions;
use nat_infer::tasks::{
    Classify, Detect, Embed, ExtractFeatures, ImageTask, Saliency, Segment, TaskError, usual_batch_size,
};
use nat_infer::zoo::{self, Access, Env, Task};
use numpy::{Element, IntoPyArray, PyArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde::Serialize;

use crate::errors::{ImageError, ModelError};
use crate::images::source;
use crate::in_pool::InPool;
use crate::model::{Forms, ModelForm, PyModel, Wrong};
use crate::pool;

/// What the records of a saliency map say.
#[derive(Serialize)]
struct SaliencyRecord<'a> {
    image: String,
    model: &'a str,
    method: &'a str,
    class: Scored,
}

/// What the records of features say.
#[derive(Serialize)]
struct FeaturesRecord<'a> {
    image: String,
    model: &'a str,
}

/// A class by its index or its name.
#[derive(FromPyObject)]
pub enum SaliencyTarget {
    #[pyo3(transparent)]
    Index(usize),
    #[pyo3(transparent)]
    Name(String),
}

/// Values with their sizes, outermost first.
struct Values<T> {
    shape: Vec<usize>,
    values: Vec<T>,
}

impl<T: Element> Values<T> {
    /// As an array of numpy's, in the same memory.
    fn into_array(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(self.values.into_pyarray(py).reshape(self.shape)?.into_any())
    }
}

/// What the network says of an image.
type AnswerOf<T> = Answer<<T as ImageTask>::Output>;

/// The most probable classes.
#[pyfunction]
pub fn classify<'py>(
    py: Python<'py>,
    model: &Bound<'py, PyModel>,
    images: &Bound<'py, PyList>,
    top_k: usize,
    resolution: Option<usize>,
    crop_pct: Option<f64>,
    batch_size: Option<usize>,
) -> PyResult<Bound<'py, PyList>> {
    let mut options = ClassifyOptions::default();
    (options.resolution, options.crop_pct, options.top_k) = (resolution, crop_pct, Some(top_k));
    let make = move |forms: &Forms| Ok(Classify::new(forms.get(ModelForm::Whole)?, &options)?);
    let answer = |task: &Classify, image: String, Answer { output: top, .. }: AnswerOf<Classify>| {
        json(&Classification { image, model: task.model().name().to_owned(), top })
    };
    let done = model.get().run(py, images, Some(Task::Classify), batch_size, make, answer)?;
    list(py, done, |json| json.into_pyobject(py).map(Bound::into_any).map_err(Into::into))
}

/// The objects; with `arrays` each with its mask as an array [H, W] of bool.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "each is one of Python's keywords")]
pub fn detect<'py>(
    py: Python<'py>,
    model: &Bound<'py, PyModel>,
    images: &Bound<'py, PyList>,
    scale: Option<[usize; 2]>,
    score_threshold: Option<f32>,
    max_detections: Option<usize>,
    masks: bool,
    arrays: bool,
    batch_size: Option<usize>,
) -> PyResult<Bound<'py, PyList>> {
    let mut options = DetectOptions::default();
    (options.scale, options.masks) = (scale, masks);
    (options.score_threshold, options.max_detections) = (score_threshold, max_detections);
    let make = move |forms: &Forms| Ok(Detect::new(forms.get(ModelForm::Whole)?, &options)?);
    let answer =
        move |task: &Detect, image: String, Answer { output: objects, size, .. }: AnswerOf<Detect>| {
            let [width, height] = size;
            let masks: Vec<Values<bool>> = match arrays {
                true => objects
                    .iter()
                    .filter_map(|object| Some(object.mask()?.whole(size)))
                    .map(|values| Values { shape: vec![height, width], values })
                    .collect(),
                false => Vec::new(),
            };
            let detections = objects.into_iter().map(|object| object.detection).collect();
            let model = task.model().name().to_owned();
            Ok((json(&Detections { image, model, width, height, image_id: None, detections })?, masks))
        };
    let done = model.get().run(py, images, Some(Task::Detect), batch_size, make, answer)?;
    list(py, done, |(json, masks)| {
        let masks: Vec<_> = masks.into_iter().map(|mask| mask.into_array(py)).collect::<PyResult<_>>()?;
        Ok((json, masks).into_pyobject(py)?.into_any())
    })
}

/// The class of every pixel, and the colours of all classes.
#[pyfunction]
pub fn segment<'py>(
    py: Python<'py>,
    model: &Bound<'py, PyModel>,
    images: &Bound<'py, PyList>,
    scale: Option<[usize; 2]>,
    multi_scale: bool,
    flip: bool,
    batch_size: Option<usize>,
) -> PyResult<Bound<'py, PyList>> {
    let mut options = SegmentOptions::default();
    (options.scale, options.multi_scale, options.flip) = (scale, multi_scale, flip);
    let make = move |forms: &Forms| Ok(Segment::new(forms.get(ModelForm::Whole)?, &options)?);
    let answer = |task: &Segment, image: String, Answer { output: map, .. }: AnswerOf<Segment>| {
        let (segments, [width, height]) = (task.shares(&map), map.size);
        let model = task.model().name().to_owned();
        let json = json(&Segmentation { image, model, width, height, segments })?;
        Ok((json, Values { shape: vec![height, width], values: map.classes }, task.colours()))
    };
    let done = model.get().run(py, images, Some(Task::Segment), batch_size, make, answer)?;
    list(py, done, |(json, labels, colours)| {
        let colours: Vec<(u8, u8, u8)> = colours.into_iter().map(|[r, g, b]| (r, g, b)).collect();
        Ok((json, labels.into_array(py)?, colours).into_pyobject(py)?.into_any())
    })
}

/// Which pixels speak for a class, the share of the image's short side that the network saw, and the image's size.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "each is one of Python's keywords")]
pub fn saliency<'py>(
    py: Python<'py>,
    model: &Bound<'py, PyModel>,
    images: &Bound<'py, PyList>,
    target: Option<SaliencyTarget>,
    method: &str,
    samples: usize,
    noise: f32,
    seed: u64,
    signed: bool,
    resolution: Option<usize>,
    crop_pct: Option<f64>,
) -> PyResult<Bound<'py, PyList>> {
    let threads = pool::pool(model.get().threads)?.current_num_threads();
    let (name, method) = match method {
        "smooth-grad" => {
            let mut settings = SmoothGrad::default();
            (settings.samples, settings.noise) = (samples, noise);
            (settings.seed, settings.signed) = (seed, signed);
            settings.together = threads.min(MOST_GRADIENTS);
            ("smooth-grad", Method::SmoothGrad(settings))
        }
        "grad-cam" => ("grad-cam", Method::GradCam),
        other => {
            let words = format!("method {other:?}: smooth-grad and grad-cam are possible");
            return Err(PyValueError::new_err(words));
        }
    };
    let mut options = SaliencyOptions::default();
    (options.resolution, options.crop_pct) = (resolution, crop_pct);
    let make = move |forms: &Forms| {
        // What is no classifier is refused before it is loaded again.
        let classify = Classify::new(forms.get(ModelForm::Whole)?, &ClassifyOptions::default())?;
        options.class = match target {
            None => None,
            Some(SaliencyTarget::Index(index)) => Some(index),
            Some(SaliencyTarget::Name(name)) => {
                // A name comes before an index that is written alike.
                let named = classify.labels().iter().filter(|label| **label == name).count();
                let index = classify.labels().iter().position(|label| *label == name);
                Some(index.filter(|_| named == 1).map_or_else(|| classify.class_named(&name), Ok)?)
            }
        };
        Ok(Saliency::new(forms.get(ModelForm::Differentiable)?, method, &options)?)
    };
    let answer =
        move |task: &Saliency, image: String, Answer { output: map, size, .. }: AnswerOf<Saliency>| {
            let json =
                json(&SaliencyRecord { image, model: task.model().name(), method: name, class: map.class })?;
            let [width, height] = map.size;
            let map = Values { shape: vec![height, width], values: map.values };
            Ok((json, map, task.crop().crop_pct(), size))
        };
    let done = model.get().run(py, images, Some(Task::Classify), Some(1), make, answer)?;
    list(py, done, |(json, map, crop_pct, [width, height])| {
        Ok((json, map.into_array(py)?, crop_pct, (width, height)).into_pyobject(py)?.into_any())
    })
}

/// The tensors of the backbone by their names, and a classifier's `pooled` and `logits`.
#[pyfunction]
pub fn features<'py>(
    py: Python<'py>,
    model: &Bound<'py, PyModel>,
    images: &Bound<'py, PyList>,
    resolution: Option<usize>,
    crop_pct: Option<f64>,
    batch_size: Option<usize>,
) -> PyResult<Bound<'py, PyList>> {
    let form = if matches!(model.get().task_of(), Some(Task::Detect | Task::Segment)) {
        ModelForm::Backbone
    } else {
        ModelForm::Whole
    };
    let make = move |forms: &Forms| Ok(ExtractFeatures::new(forms.get(form)?, resolution, crop_pct)?);
    let answer =
        |task: &ExtractFeatures, image: String, Answer { output: tensors, .. }: AnswerOf<ExtractFeatures>| {
            let json = json(&FeaturesRecord { image, model: task.model().name() })?;
            let model = || task.model().name().to_owned();
            let values = tensors.into_iter().map(|(name, tensor)| {
                let shape = tensor.dims().to_vec();
                let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                Ok((name, Values::<f32> { shape, values }))
            });
            let values = values.collect::<Result<Vec<_>, _>>();
            Ok((json, values.map_err(|error| TaskError::Compute { model: model(), error })?))
        };
    let done = model.get().run(py, images, Some(Task::Classify), batch_size, make, answer)?;
    list(py, done, |(json, tensors)| {
        let arrays = PyDict::new(py);
        for (name, values) in tensors {
            arrays.set_item(name, values.into_array(py)?)?;
        }
        Ok((json, arrays).into_pyobject(py)?.into_any())
    })
}

/// One vector for each image: the last map, normed and averaged.
#[pyfunction]
pub fn embed<'py>(
    py: Python<'py>,
    model: &Bound<'py, PyModel>,
    images: &Bound<'py, PyList>,
    resolution: Option<usize>,
    crop_pct: Option<f64>,
    batch_size: Option<usize>,
) -> PyResult<Bound<'py, PyList>> {
    let make = move |forms: &Forms| Ok(Embed::new(forms.get(ModelForm::Whole)?, resolution, crop_pct)?);
    let answer = |_: &Embed, _: String, Answer { output: vector, .. }: AnswerOf<Embed>| Ok(vector);
    let done = model.get().run(py, images, Some(Task::Classify), batch_size, make, answer)?;
    list(py, done, |vector: Vec<f32>| Ok(vector.into_pyarray(py).into_any()))
}

impl PyModel {
    /// Puts the images through a task that `make` makes, and what the network says of each through `answer`.
    fn run<T: ImageTask<Input: Sync>, A: Send + 'static>(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyList>,
        kind: Option<Task>,
        batch_size: Option<usize>,
        make: impl FnOnce(&Forms) -> Result<T, Wrong> + Send + 'static,
        mut answer: impl FnMut(&T, String, Answer<T::Output>) -> Result<A, TaskError> + Send + 'static,
    ) -> PyResult<Vec<Result<A, String>>> {
        let named = |image: Bound<'_, PyAny>| {
            let (name, image): (String, Bound<'_, PyAny>) = image.extract()?;
            source(&name, &image)
        };
        let sources = images.iter().map(named).collect::<PyResult<Vec<Source>>>()?;
        let (forms, offline, pool) = (Arc::clone(&self.forms), self.offline, pool::pool(self.threads)?);
        let work = move |stop: &Arc<AtomicBool>| {
            let task = pool.install(|| make(&forms))?;
            let task = Arc::new(InPool { task, pool, stop: Arc::clone(stop) });
            let threads = pool.current_num_threads();
            let mut options = PipelineOptions::default();
            options.batch_size =
                batch_size.unwrap_or_else(|| usual_batch_size(kind, forms.device(), threads));
            options.readers = threads;
            options.fetch = Some(fetch(offline));
            options.stop = Arc::clone(stop);
            let names: Vec<String> = sources.iter().map(Source::name).collect();
            let sources: Vec<_> = sources.into_iter().map(Ok).collect();
            let pipeline = Pipeline::new(Arc::clone(&task), sources, options).map_err(Wrong::Threads)?;
            let done = pipeline.map(|done| {
                let name = names[done.index].clone();
                let answered = done.result.map_err(|failure| failure.to_string())?;
                answer(&task.task, name.clone(), answered).map_err(|error| format!("{name}: {error}"))
            });
            Ok(done.collect())
        };
        match pool::run(py, work)? {
            Ok(done) => Ok(done),
            Err(Wrong::Task(error)) => Err(wrong(&error)),
            Err(Wrong::Changed(words)) => Err(ModelError::new_err(words)),
            Err(Wrong::Threads(error)) => {
                Err(PyRuntimeError::new_err(format!("can't start a thread: {error}")))
            }
        }
    }
}

/// Reads images from the web, where that is not forbidden.
fn fetch(offline: bool) -> Arc<Fetch> {
    let access = Access::new(offline, Env::from_process());
    Arc::new(move |url, limit| zoo::fetch_image(url, &access, limit).map_err(|error| error.to_string()))
}

/// An error of a task that is none of an image: of the model, or of what was asked of it.
fn wrong(error: &TaskError) -> PyErr {
    let words = error.to_string();
    match error {
        TaskError::Crop(_)
        | TaskError::Class { .. }
        | TaskError::ClassName { .. }
        | TaskError::Ambiguous { .. }
        | TaskError::NoCrop { .. } => PyValueError::new_err(words),
        _ => ModelError::new_err(words),
    }
}

fn json(record: &impl Serialize) -> Result<String, TaskError> {
    serde_json::to_string(record)
        .map_err(|error| TaskError::Write { path: "JSON".to_owned(), error: error.into() })
}

/// Answers as Python's objects, exceptions in the places of those that there are not.
fn list<'py, A>(
    py: Python<'py>,
    answers: Vec<Result<A, String>>,
    mut object: impl FnMut(A) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    let objects = answers.into_iter().map(|answer| match answer {
        Ok(answer) => object(answer),
        Err(words) => Ok(ImageError::new_err(words).value(py).clone().into_any()),
    });
    PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)
}
