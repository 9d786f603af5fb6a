//! What lies beside a checkpoint's tensors, and what it says that they do not: dilations, names of classes, how
//! pixels become inputs, the recipe of the head.

use std::path::{Path, PathBuf};

use crate::arch::{Architecture, Dilations, Geometry, Head, Preprocessing, Task};
use crate::error::{ConvertError, quoted};
use crate::infer::Hints;
use crate::layout::{self, Layout, Mapped};
use crate::likeness::resembles;
use crate::metadata::Metadata;
use crate::opened::OpenedSource;
use crate::openmmlab::{self, Meta};
use crate::options::Options;
use crate::recipe::{EPSILON, Recipe};
use crate::report;
use crate::source::Value;
use crate::timm::TimmArguments;
use crate::transformers::{self, Config, Preprocessor, crop_pct};
use crate::zoo;

/// What lies beside the tensors: in the same file or the same folder.
#[derive(Default)]
pub(crate) struct BesideTensors {
    config: Option<(PathBuf, Config)>,
    preprocessor: Option<(PathBuf, Preprocessor)>,
    openmmlab: Option<Meta>,
    /// The `arch` that timm's training script saves.
    timm: Option<String>,
    /// Its arguments.
    arguments: TimmArguments,
}

impl BesideTensors {
    pub fn of(source: &OpenedSource, mapped: &Mapped) -> Result<Self, ConvertError> {
        let root: &Value = source.store.root();
        let arguments = TimmArguments::of(root)
            .map_err(|reason| ConvertError::Config { path: source.name.clone(), reason })?;
        let mut beside = Self {
            openmmlab: Meta::of(root),
            timm: layout::get(root, "arch").and_then(layout::text).map(str::to_owned),
            arguments,
            ..Self::default()
        };
        if let Some(path) = source.path().filter(|_| mapped.layout == Layout::Transformers) {
            let config = path.with_file_name("config.json");
            beside.config = transformers::read(&config)?.map(|parsed| (config, parsed));
            let processor = path.with_file_name("preprocessor_config.json");
            beside.preprocessor = transformers::read(&processor)?.map(|parsed| (processor, parsed));
        }
        Ok(beside)
    }
}

impl BesideTensors {
    /// Heads and kernel, by whatever configuration there is.
    pub fn hints(&self) -> Hints {
        let config = self.config.as_ref().map(|(_, config)| (config.num_heads.clone(), config.kernel_size));
        let (num_heads, kernel_size) =
            config.or_else(|| self.openmmlab.as_ref().map(Meta::heads_and_kernel)).unwrap_or_default();
        Hints { num_heads, kernel_size }
    }
}

/// Everything that can tell what the tensors do not.
pub(crate) struct Known<'a> {
    pub arch: Option<&'static zoo::Entry>,
    pub options: &'a Options,
    pub beside: &'a BesideTensors,
    pub ours: Option<&'a Metadata>,
    pub file: &'a Path,
    /// The task of the network whose backbone this is.
    pub part_of: Option<Task>,
}

impl Known<'_> {
    /// The published checkpoint that this is or was named to be, if its sizes are the same.
    pub fn entry(&self, found: &Architecture) -> Option<&'static zoo::Entry> {
        let by_file = || zoo::by_file_name(&report::file_name(self.file));
        let by_timm = || zoo::find(self.beside.timm.as_deref()?).ok();
        let by_hub = || zoo::by_hub(&hub_repository(self.file)?);
        let by_ours = || zoo::find(self.ours?.model.as_deref()?).ok();
        let fits = |entry: &&zoo::Entry| resembles(found, &entry.architecture);
        let entry = self.arch.or_else(|| by_ours().filter(fits)).or_else(|| by_file().filter(fits));
        entry.or_else(|| by_hub().filter(fits)).or_else(|| by_timm().filter(fits))
    }

    /// Fills in the dilations, and says who stated them.
    pub fn dilations(
        &self,
        mut found: Architecture,
        warnings: &mut Vec<String>,
    ) -> Result<(Architecture, Option<String>), ConvertError> {
        let depths = found.backbone.depths.clone();
        let wrong = |path: &Path, error| ConvertError::Dilations { path: path.to_owned(), error };
        let expand = |path: &Path, levels: &[Vec<usize>]| {
            let dilations = Dilations::new(levels.to_vec()).and_then(|d| d.expand(&depths));
            dilations.map_err(|error| wrong(path, error))
        };
        let ones = || depths.iter().map(|&depth| vec![1; depth]).collect::<Vec<_>>();
        let config = match &self.beside.config {
            Some((path, config)) => {
                self.compare_config(path, config, &found)?;
                match (config.model_type.as_deref(), &config.dilations) {
                    (Some("nat"), _) => Some(ones()),
                    (_, Some(levels)) => Some(expand(path, levels)?),
                    _ => None,
                }
            }
            None => None,
        };
        let openmmlab = match self.beside.openmmlab.as_ref().and_then(Meta::dilations) {
            Some(levels) if levels.is_empty() => Some(ones()),
            Some(levels) => Some(expand(self.file, &levels)?),
            None => None,
        };
        let (dilations, stated) = if let Some(given) = &self.options.dilations {
            let dilations = given.expand(&depths).map_err(|error| wrong(self.file, error))?;
            (dilations, Some("the dilations given".to_owned()))
        } else if let Some(entry) = self.arch {
            let dilations = entry.architecture.backbone.dilations.clone();
            if let Some(other) = config.or(openmmlab).filter(|other| *other != dilations) {
                let other = Dilations::shortest(&other);
                warnings.push(format!(
                    "{}, which was named, overrules the checkpoint's own dilations {other}",
                    entry.name
                ));
            }
            (dilations, Some(format!("{}, which was named", entry.name)))
        } else if let Some(ours) = self.ours {
            let dilations = ours.architecture.backbone.dilations.clone();
            if !dilations.iter().map(Vec::len).eq(depths.iter().copied()) {
                let reason = "the dilations in its metadata do not fit the tensors".to_owned();
                return Err(ConvertError::Config { path: self.file.to_owned(), reason });
            }
            (dilations, ours.dilations_known.then(|| "the file's metadata".to_owned()))
        } else if let Some(dilations) = config {
            (dilations, Some("config.json".to_owned()))
        } else if let Some(dilations) = openmmlab {
            (dilations, Some("the training configuration in the file".to_owned()))
        } else if found.backbone.family.attends_whole_map() {
            (ones(), Some("the family, which has none".to_owned()))
        } else if let Some(entry) = self.entry(&found) {
            (entry.architecture.backbone.dilations.clone(), Some(format!("the name of {}", entry.name)))
        } else {
            (ones(), None)
        };
        found.backbone.dilations = dilations;
        Ok((found, stated))
    }

    /// Holds `config.json` against the tensors.
    fn compare_config(&self, path: &Path, config: &Config, found: &Architecture) -> Result<(), ConvertError> {
        let wrong = |reason| Err(ConvertError::Config { path: path.to_owned(), reason });
        let (b, list) = (&found.backbone, |list: &Vec<usize>| format!("{list:?}"));
        for (what, said, is) in [
            ("embed_dim", config.embed_dim.map(|n| n.to_string()), b.embed_dim.to_string()),
            ("depths", config.depths.as_ref().map(list), list(&b.depths)),
            ("num_heads", config.num_heads.as_ref().map(list), list(&b.num_heads)),
            ("kernel_size", config.kernel_size.map(|n| n.to_string()), b.kernel_size.to_string()),
        ] {
            if let Some(said) = said.filter(|said| *said != is) {
                let weights = report::file_name(self.file);
                return wrong(format!("{what} is {said}, but {is} in the tensors of {weights}"));
            }
        }
        if let Some(other) = config.hidden_act.as_deref().filter(|&act| act != "gelu") {
            return wrong(format!("hidden_act {} is not supported, only gelu", quoted(other)));
        }
        Ok(())
    }

    /// Class names, if there are as many as classes: the checkpoint's own, or those of the
    /// published model that it is.
    pub fn labels(
        &self,
        found: &Architecture,
        entry: Option<&zoo::Entry>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Vec<String>>, ConvertError> {
        let Some(classes) = found.classes() else { return Ok(None) };
        let labels = if let Some(ours) = self.ours {
            ours.labels.clone()
        } else if let Some((path, config)) = &self.beside.config {
            config.labels().map_err(|reason| ConvertError::Config { path: path.clone(), reason })?
        } else {
            self.beside.openmmlab.as_ref().and_then(|meta| meta.classes.clone())
        };
        let own = labels.filter(|labels| {
            let fit = labels.len() == classes;
            if !fit {
                warnings.push(format!("{} class names for {classes} classes are left out", labels.len()));
            }
            fit
        });
        let published = || entry.filter(|entry| entry.architecture.head == found.head);
        let names = |entry: &zoo::Entry| entry.labels.names().into_iter().map(str::to_owned).collect();
        Ok(own.or_else(|| published().map(names)))
    }

    /// The colours of the classes, where the file has as many.
    pub fn palette(&self, classes: Option<usize>) -> Option<Vec<[u8; 3]>> {
        let palette = match (self.ours, &self.beside.openmmlab) {
            (Some(ours), _) => ours.palette.clone(),
            (None, meta) => meta.as_ref().and_then(|meta| meta.palette.clone()),
        };
        palette.filter(|palette| classes == Some(palette.len()))
    }

    /// The task of the network, or of the one whose backbone this is.
    fn task(&self, found: &Architecture) -> Task {
        found.head.task().or(self.part_of).unwrap_or(Task::Classify)
    }

    /// What the tensors leave open of the network that they make, and what OpenMMLab's configuration makes
    /// of its pixels.
    ///
    /// # Errors
    /// When a configuration asks for what can't be done, or the tensors are those of a head that only a
    /// configuration could explain.
    pub fn recipe(
        &self,
        found: &Architecture,
        mapped: &Mapped,
        warnings: &mut Vec<String>,
    ) -> Result<(Recipe, Option<Preprocessing>), ConvertError> {
        let wrong = |path: &Path, reason: String| ConvertError::Config { path: path.to_owned(), reason };
        let (mut recipe, mut preprocessing) = (Recipe::default(), None);
        if let Some(ours) = self.ours {
            recipe = ours.architecture.recipe.clone();
        } else if let Some((path, config)) = &self.beside.config {
            recipe.scores = config.scores();
            recipe.norm_epsilon = config.layer_norm_eps.unwrap_or(EPSILON);
            if !(1e-12..=1.0).contains(&recipe.norm_epsilon) {
                let reason = format!("layer_norm_eps is {}, not from 1e-12 to 1", recipe.norm_epsilon);
                return Err(wrong(path, reason));
            }
        } else if let Some(meta) = &self.beside.openmmlab {
            if let Some(reason) = &meta.unreadable {
                warnings.push(format!(
                    "the training configuration in the file can't be read ({reason}); \
                     what the published networks do is done"
                ));
            }
            if let Some(read) = meta.configuration(self.task(found), found.head.configuration()) {
                if !read.refused.is_empty() {
                    let what = format!("what is not supported: {}", in_one_line(&read.refused));
                    // Published networks are known by more than their configuration.
                    if self.entry(found).is_none() {
                        let reason = format!("the training configuration in the file asks for {what}");
                        return Err(wrong(self.file, reason));
                    }
                    warnings
                        .push(format!("the training configuration in the file is not followed in {what}"));
                }
                warnings.extend(read.warnings);
                (recipe, preprocessing) = (read.recipe, read.preprocessing);
            }
        }
        found.head.settle(&mut recipe);
        let first = |name: &str| mapped.tensors.get(name).and_then(|tensor| tensor.shape.first().copied());
        found.head.explained(&recipe, &first).map_err(|reason| wrong(self.file, reason))?;
        Ok((recipe, preprocessing))
    }

    /// How pixels become inputs; `trained` is what OpenMMLab's configuration says.
    ///
    /// # Errors
    /// When Transformers' processor asks for what can't be done.
    pub fn preprocessing(
        &self,
        found: &Architecture,
        entry: Option<&zoo::Entry>,
        trained: Option<Preprocessing>,
        notes: &mut Vec<String>,
    ) -> Result<Preprocessing, ConvertError> {
        let task = self.task(found);
        let wanted =
            |p: &Preprocessing| matches!(p.geometry, Geometry::Crop { .. }) == (task == Task::Classify);
        let ours = self.ours.filter(|_| self.arch.is_none()).map(|ours| ours.preprocessing.clone());
        if let (Head::Features, None, Some(ours)) = (&found.head, self.part_of, &ours) {
            return Ok(ours.clone());
        }
        let mut beside = trained;
        if let Some((path, processor)) = self.beside.preprocessor.as_ref().filter(|_| self.arch.is_none()) {
            let wrong = |reason| ConvertError::Config { path: path.clone(), reason };
            if let Some((preprocessing, note)) = processor.preprocessing().map_err(wrong)? {
                notes.extend(note);
                beside = Some(preprocessing);
            }
        }
        let published = entry.map(|entry| entry.preprocessing.clone());
        // A name that the user gave outweighs what lies beside the file.
        let known = if self.arch.is_some() { [ours, published, beside] } else { [ours, beside, published] };
        let usual = || match openmmlab::usual_geometry(task) {
            Some(geometry) => Preprocessing::imagenet(geometry),
            None => {
                let resolution = match found.backbone.family.attends_whole_map() {
                    true => found.backbone.kernel_size * found.backbone.patch_size,
                    false => 224,
                };
                Preprocessing::imagenet(Geometry::Crop { resolution, crop_pct: crop_pct(resolution) })
            }
        };
        let mut preprocessing = known.into_iter().flatten().find(wanted).unwrap_or_else(usual);
        if self.arch.is_none() && self.ours.is_none() {
            self.beside.arguments.apply(&mut preprocessing);
        }
        Ok(preprocessing)
    }
}

/// The first of some findings, and how many more there are.
fn in_one_line(findings: &[String]) -> String {
    const LISTED: usize = 5;
    let more = findings.len().saturating_sub(LISTED);
    let listed = findings.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join("; ");
    if more > 0 { format!("{listed} and {more} more") } else { listed }
}

/// The repository that a file in the Hub's cache is of: its folder is `models--OWNER--NAME`.
fn hub_repository(path: &Path) -> Option<String> {
    let mut folders = path.ancestors().filter_map(|folder| folder.file_name()?.to_str());
    let (owner, name) = folders.find_map(|folder| folder.strip_prefix("models--")?.split_once("--"))?;
    Some(format!("{owner}/{name}"))
}
