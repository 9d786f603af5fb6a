//! What an index says of how it was made, as metadata of its safetensors file.

use candle_core::DType;
use nat_convert::arch::Dilations;

use crate::images::Exif;
use crate::tasks::Embed;
use crate::tasks::files::SOFTWARE_METADATA;

/// How the vectors of an index were made. Vectors that were made otherwise can't be compared with them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct IndexOrigin {
    /// The model's name.
    pub model: String,
    /// Its dilations.
    pub dilations: String,
    /// The type that it computed in; vectors of one are about those of another.
    pub dtype: String,
    /// How images became its inputs, in words.
    pub preparation: String,
    /// What was done with the orientation that cameras write.
    pub exif: Exif,
    /// The resolution, where another than the model's own was asked for.
    pub resolution: Option<usize>,
    /// The share of the short side that the crop kept, where another than the model's own was asked for.
    pub crop_pct: Option<f64>,
}

/// Keys of the metadata.
const MODEL: &str = "model";
const DILATIONS: &str = "dilations";
const DTYPE: &str = "dtype";
const PREPARATION: &str = "preparation";
const EXIF: &str = "exif";
const RESOLUTION: &str = "resolution";
const CROP_PCT: &str = "crop_pct";

impl IndexOrigin {
    /// That of a task's vectors, made with these numbers where they were asked for.
    pub fn new(
        task: &Embed,
        dtype: DType,
        exif: Exif,
        resolution: Option<usize>,
        crop_pct: Option<f64>,
    ) -> Self {
        let backbone = &task.model().metadata().architecture.backbone;
        Self {
            model: task.model().name().to_owned(),
            dilations: Dilations::shortest(&backbone.dilations).to_string(),
            dtype: dtype.as_str().to_owned(),
            preparation: task.crop().to_string(),
            exif,
            resolution,
            crop_pct,
        }
    }

    /// Reads it from metadata; `None` of a file that no index of ours is.
    pub(super) fn of_metadata<'a>(says: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let [key, ours] = SOFTWARE_METADATA;
        if says(key) != Some(ours) {
            return None;
        }
        let exif = match says(EXIF)? {
            "apply" => Exif::Apply,
            "ignore" => Exif::Ignore,
            _ => return None,
        };
        Some(Self {
            model: says(MODEL)?.to_owned(),
            dilations: says(DILATIONS)?.to_owned(),
            dtype: says(DTYPE)?.to_owned(),
            preparation: says(PREPARATION)?.to_owned(),
            exif,
            resolution: says(RESOLUTION).map(str::parse).transpose().ok()?,
            crop_pct: says(CROP_PCT).map(str::parse).transpose().ok()?,
        })
    }

    /// The metadata in the order in which they are written.
    pub(super) fn metadata(&self) -> Vec<(&'static str, String)> {
        let [software, ours] = SOFTWARE_METADATA;
        let always = [
            (software, ours.to_owned()),
            (MODEL, self.model.clone()),
            (DILATIONS, self.dilations.clone()),
            (DTYPE, self.dtype.clone()),
            (PREPARATION, self.preparation.clone()),
            (EXIF, if self.exif == Exif::Apply { "apply" } else { "ignore" }.to_owned()),
        ];
        let asked = [
            (RESOLUTION, self.resolution.map(|resolution| resolution.to_string())),
            (CROP_PCT, self.crop_pct.map(|crop_pct| crop_pct.to_string())),
        ];
        let asked = asked.into_iter().filter_map(|(key, value)| Some((key, value?)));
        always.into_iter().chain(asked).collect()
    }

    /// What makes vectors of this origin no match for those of `other`, in words: "the model `a`, not `b`".
    pub fn mismatch(&self, other: &Self) -> Option<String> {
        if !same_model(&self.model, &other.model) {
            return Some(format!("the model `{}`, not `{}`", self.model, other.model));
        }
        let exif = |origin: &Self| match origin.exif {
            Exif::Apply => "applied",
            Exif::Ignore => "ignored",
        };
        [
            ("the dilations", self.dilations.as_str(), other.dilations.as_str()),
            ("images prepared by", &self.preparation, &other.preparation),
            ("the cameras' orientation", exif(self), exif(other)),
        ]
        .into_iter()
        .find(|(_, a, b)| a != b)
        .map(|(what, a, b)| format!("{what} `{a}`, not `{b}`"))
    }
}

/// Whether two names are of one model: a file is told by what is in it, see [`Model::open`](crate::tasks::Model::open).
fn same_model(a: &str, b: &str) -> bool {
    let fingerprint = |name: &str| {
        let (_, last) = name.rsplit_once('@')?;
        let is_one = last.len() == 8 && last.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| last.to_owned())
    };
    a == b || fingerprint(a).is_some_and(|fingerprint_of_a| Some(fingerprint_of_a) == fingerprint(b))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use super::*;

    /// One that could be.
    pub(in crate::eval) fn origin() -> IndexOrigin {
        IndexOrigin {
            model: "nat-\"tiny\"".to_owned(),
            dilations: "1".to_owned(),
            dtype: "f32".to_owned(),
            preparation: "short side to 256, centre crop of 224x224".to_owned(),
            exif: Exif::Apply,
            resolution: None,
            crop_pct: Some(0.875),
        }
    }

    #[test]
    fn metadata_are_read_as_written() {
        for origin in
            [origin(), IndexOrigin { exif: Exif::Ignore, resolution: Some(96), crop_pct: None, ..origin() }]
        {
            let metadata: HashMap<_, _> = origin.metadata().into_iter().collect();
            let read = |metadata: &HashMap<&str, String>| {
                IndexOrigin::of_metadata(|key| metadata.get(key).map(String::as_str))
            };
            assert_eq!(read(&metadata), Some(origin));
            for (key, value) in [("software", "other"), ("exif", "x"), ("resolution", "x"), ("crop_pct", "")]
            {
                let mut metadata = metadata.clone();
                metadata.insert(key, value.to_owned());
                assert_eq!(read(&metadata), None, "{key}");
            }
        }
    }

    #[test]
    fn vectors_are_compared_with_their_like() {
        let with = |change: &dyn Fn(&mut IndexOrigin)| {
            let mut origin = origin();
            change(&mut origin);
            origin
        };
        let file = |name: &str| with(&|origin| origin.model = name.to_owned());
        for (a, b, says) in [
            (origin(), origin(), None),
            (origin(), with(&|origin| origin.dtype = "f16".to_owned()), None),
            (file("a.pth@0123abcd"), file("b.pth@0123abcd"), None),
            (
                file("a.pth@0123abcd"),
                file("a.pth@0123abce"),
                Some("the model `a.pth@0123abcd`, not `a.pth@0123abce`"),
            ),
            (file("user/a@main"), file("user/b@main"), Some("the model `user/a@main`, not `user/b@main`")),
            (
                origin(),
                with(&|origin| origin.dilations = "1/2".to_owned()),
                Some("the dilations `1`, not `1/2`"),
            ),
            (
                origin(),
                with(&|origin| origin.preparation = "x".to_owned()),
                Some("images prepared by `short side to 256"),
            ),
            (
                origin(),
                with(&|origin| origin.exif = Exif::Ignore),
                Some("orientation `applied`, not `ignored`"),
            ),
        ] {
            let got = a.mismatch(&b);
            match says {
                None => assert_eq!(got, None),
                Some(says) => assert!(got.as_deref().is_some_and(|got| got.contains(says)), "{got:?}"),
            }
        }
    }
}
