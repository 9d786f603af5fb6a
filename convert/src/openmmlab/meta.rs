//! The `meta` of an OpenMMLab checkpoint, and the configuration in it.

use std::collections::BTreeMap;

use super::pipeline;
use super::place::{ConfigPlace, Findings, HeadReader, whole_number, whole_numbers};
use crate::arch::{Geometry, Preprocessing, Task};
use crate::layout::{get, text};
use crate::python::{Py, assignments};
use crate::recipe::Recipe;
use crate::source::Value;

/// What the `meta` of an OpenMMLab checkpoint says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Meta {
    /// Names of the classes.
    pub classes: Option<Vec<String>>,
    /// Their colours.
    pub palette: Option<Vec<[u8; 3]>>,
    /// The training configuration, if there is one that can be read.
    config: Option<BTreeMap<String, Py>>,
    /// Why there is none that can be read.
    pub unreadable: Option<String>,
    /// Whether it is of mmengine: mmdetection 3, mmsegmentation 1.
    mmengine: bool,
}

/// A configuration of a network for one task, as far as it is given.
#[derive(Debug, PartialEq)]
pub(crate) struct Configuration {
    pub recipe: Recipe,
    pub preprocessing: Option<Preprocessing>,
    /// What can't be done as it says: each what, and what it is.
    pub refused: Vec<String>,
    /// What is done otherwise, and what is not known here.
    pub warnings: Vec<String>,
}

impl Meta {
    /// Reads the `meta` beside a state dict.
    pub fn of(root: &Value) -> Option<Self> {
        let meta = get(root, "meta")?;
        let dataset = get(meta, "dataset_meta");
        let within = |keys: [&str; 2]| {
            let own = keys.iter().find_map(|key| get(meta, key));
            own.or_else(|| keys.iter().find_map(|key| get(dataset?, key)))
        };
        let list = |value: &Value| match value {
            Value::List(list) => Some(list.clone()),
            _ => None,
        };
        let classes = within(["CLASSES", "classes"]).and_then(list);
        let classes =
            classes.and_then(|list| list.iter().map(|c| text(c).map(|c| c.trim().to_owned())).collect());
        let palette = within(["PALETTE", "palette"]).and_then(list);
        let palette = palette.and_then(|list| list.iter().map(colour).collect());
        let config = get(meta, "config").or_else(|| get(meta, "cfg")).and_then(text);
        let mmengine = get(meta, "mmengine_version").is_some() || get(meta, "cfg").is_some();
        let (config, unreadable) = match config.map(assignments) {
            Some(Ok(config)) => (Some(config), None),
            Some(Err(reason)) => (None, Some(reason)),
            None => (None, None),
        };
        Some(Self { classes, palette, config, unreadable, mmengine })
    }

    fn place(&self, path: &str) -> ConfigPlace<'_> {
        let mut keys = path.split('.');
        let first = keys.next().and_then(|key| self.config.as_ref()?.get(key));
        let value = keys.try_fold(first, |value, key| Some(value.and_then(|value| value.get(key))));
        ConfigPlace::new(path, value.flatten())
    }

    /// The backbone's `dilations`; for a backbone of `type='NAT'`, which takes none, empty.
    pub fn dilations(&self) -> Option<Vec<Vec<usize>>> {
        let backbone = self.place("model.backbone");
        match backbone.key("dilations").value() {
            Some(Py::None) | None => (backbone.kind() == Some("NAT")).then(Vec::new),
            Some(levels) => levels.list()?.iter().map(whole_numbers).collect(),
        }
    }

    /// Heads of each level, and the kernel's side, which tensors without a bias do not tell.
    pub fn heads_and_kernel(&self) -> (Option<Vec<usize>>, Option<usize>) {
        let backbone = self.place("model.backbone");
        let heads = backbone.key("num_heads").value().and_then(whole_numbers);
        (heads, backbone.key("kernel_size").value().and_then(whole_number))
    }

    /// What the configuration says of a network of `task`, whose head `head` reads, or without it of the backbone
    /// alone; `None` where there is no configuration.
    pub fn configuration(&self, task: Task, head: Option<HeadReader>) -> Option<Configuration> {
        self.config.as_ref()?;
        let mut recipe = Recipe::default();
        let mut findings = Findings::default();
        let backbone = self.place("model.backbone");
        findings.optional(&backbone.key("qk_scale"), 1e-6..=1e6, &mut recipe.query_scale);
        let outputs = backbone.key("out_indices");
        if outputs
            .value()
            .is_some_and(|value| whole_numbers(value).is_none_or(|v| !v.iter().copied().eq(0..4)))
        {
            findings.refuse(&outputs);
        }
        let model = self.place("model");
        let test = match self.place("model.test_cfg") {
            place if place.is_given() => place,
            // As mmdetection before 2.0 and mmsegmentation before 0.6 had it.
            _ => self.place("test_cfg"),
        };
        if let Some(read) = head {
            read(&model, &test, &mut recipe, &mut findings);
        }
        let preprocessing = self.preprocessing(task, &mut findings);
        let Findings { mut refused, warnings } = findings;
        refused.dedup();
        Some(Configuration { recipe, preprocessing, refused, warnings })
    }

    fn preprocessing(&self, task: Task, findings: &mut Findings) -> Option<Preprocessing> {
        let usual = usual_geometry(task)?;
        let first_of = |places: &[&str]| {
            places
                .iter()
                .map(|path| self.place(path))
                .find(ConfigPlace::is_given)
                .unwrap_or(ConfigPlace::new("", None))
        };
        let processor = first_of(&["model.data_preprocessor", "data_preprocessor"]);
        // What `data.test` says is what is run; it may be a list of data sets.
        let steps = first_of(&[
            "data.test.pipeline",
            "test_dataloader.dataset.pipeline",
            "test_pipeline",
            "data.val.pipeline",
            "val_dataloader.dataset.pipeline",
            "val_pipeline",
        ]);
        let steps = if steps.is_given() { steps } else { self.place("data.test").first().key("pipeline") };
        pipeline::read(&steps, &processor, self.mmengine, usual, findings)
    }
}

/// What the published configurations of a task do with a picture.
pub(crate) fn usual_geometry(task: Task) -> Option<Geometry> {
    match task {
        Task::Detect => Some(Geometry::detection([1333, 800])),
        Task::Segment => Some(Geometry::segmentation([2048, 512])),
        Task::Classify => None,
    }
}

/// A colour of three numbers from 0 to 255.
fn colour(value: &Value) -> Option<[u8; 3]> {
    let Value::List(parts) = value else { return None };
    let part = |value: &Value| match value {
        Value::Int(number) => u8::try_from(*number).ok(),
        _ => None,
    };
    parts.iter().map(part).collect::<Option<Vec<_>>>()?.try_into().ok()
}
