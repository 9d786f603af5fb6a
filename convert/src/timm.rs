//! The arguments that timm's training script saves beside the weights: what of them changes pixels, resolved
//! as timm's `resolve_data_config` does.

use crate::arch::{Filter, Geometry, MAX_SIDE, Preprocessing};
use crate::layout::{get, text};
use crate::source::Value;

/// What a training run was told, where it differs from the model's own settings.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct TimmArguments {
    /// Side of the square input.
    pub resolution: Option<usize>,
    /// Share of the resized short side that the crop keeps.
    pub crop_pct: Option<f64>,
    pub mean: Option<[f64; 3]>,
    pub std: Option<[f64; 3]>,
    pub filter: Option<Filter>,
}

impl TimmArguments {
    /// Reads `args`: a namespace or a dictionary.
    ///
    /// # Errors
    /// What they say that can't be done.
    pub fn of(root: &Value) -> Result<Self, String> {
        let args = match get(root, "args") {
            Some(Value::Opaque { state: Some(state), .. }) => state,
            Some(args @ Value::Dict(_)) => args,
            _ => return Ok(Self::default()),
        };
        let given = |key: &str| get(args, key).filter(|value| !matches!(value, Value::None));
        let side = |value: &Value| match value {
            Value::Int(side) => usize::try_from(*side).ok().filter(|side| (1..=MAX_SIDE).contains(side)),
            _ => None,
        };
        let wrong = |key: &str| format!("the training arguments in the file: {key} can't be used");
        let resolution = match (given("input_size"), given("img_size")) {
            // Channels, height, width.
            (Some(Value::List(sizes)), _) => match sizes.as_slice() {
                [_, height, width] => match (side(height), side(width)) {
                    (Some(height), Some(width)) if height == width => Some(height),
                    _ => return Err(wrong("input_size")),
                },
                _ => return Err(wrong("input_size")),
            },
            (_, Some(value)) => Some(side(value).ok_or_else(|| wrong("img_size"))?),
            _ => None,
        };
        let crop_pct = match given("crop_pct") {
            None => None,
            Some(value) => {
                let share = number(value).filter(|share| *share > 0.0 && *share <= 1.0);
                Some(share.ok_or_else(|| wrong("crop_pct"))?)
            }
        };
        if given("crop_mode").is_some_and(|mode| text(mode).is_none_or(|mode| mode != "center")) {
            return Err(wrong("crop_mode"));
        }
        let filter = match given("interpolation").map(|value| text(value).unwrap_or("?")) {
            // What a training run draws for each image; tests then take the model's own.
            None | Some("" | "random") => None,
            Some(name) => Some(Filter::named(name).ok_or_else(|| wrong("interpolation"))?),
        };
        let triple = |key: &str, usable: fn(&f64) -> bool| match given(key) {
            None => Ok(None),
            Some(value) => {
                triple(value).filter(|numbers| numbers.iter().all(usable)).map(Some).ok_or_else(|| wrong(key))
            }
        };
        let mean = triple("mean", |mean| mean.abs() <= 1e3)?;
        let std = triple("std", |std| (1e-6..=1e3).contains(std))?;
        Ok(Self { resolution, crop_pct, mean, std, filter })
    }
}

impl TimmArguments {
    /// Puts a training run's own settings in the place of a classifier's.
    pub fn apply(&self, to: &mut Preprocessing) {
        if let Geometry::Crop { resolution, crop_pct } = &mut to.geometry {
            *resolution = self.resolution.unwrap_or(*resolution);
            *crop_pct = self.crop_pct.unwrap_or(*crop_pct);
            to.mean = self.mean.unwrap_or(to.mean);
            to.std = self.std.unwrap_or(to.std);
            to.filter = self.filter.unwrap_or(to.filter);
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    match *value {
        Value::Float(number) => Some(number),
        Value::Int(number) => Some(number as f64),
        _ => None,
    }
}

/// Three numbers, or one for all channels.
fn triple(value: &Value) -> Option<[f64; 3]> {
    let Value::List(list) = value else { return None };
    let numbers = list.iter().map(number).collect::<Option<Vec<_>>>()?;
    match numbers.as_slice() {
        &[one] => Some([one; 3]),
        numbers => numbers.try_into().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn of(args: &[(&str, Value)], namespace: bool) -> Result<TimmArguments, String> {
        let pair = |(key, value): &(&str, Value)| (Value::Str((*key).into()), value.clone());
        let dict = Value::Dict(Arc::new(args.iter().map(pair).collect()));
        let args = match namespace {
            true => Value::Opaque { global: "argparse.Namespace".into(), state: Some(Arc::new(dict)) },
            false => dict,
        };
        TimmArguments::of(&Value::Dict(Arc::new(vec![(Value::Str("args".into()), args)])))
    }

    fn list(numbers: &[f64]) -> Value {
        Value::List(Arc::new(numbers.iter().map(|&number| Value::Float(number)).collect()))
    }

    #[test]
    fn arguments_are_those_that_timm_resolves() {
        let all = [
            ("img_size", Value::Int(192)),
            ("crop_pct", Value::Float(0.95)),
            ("mean", list(&[0.5])),
            ("std", list(&[0.1, 0.2, 0.3])),
            ("interpolation", Value::Str("bilinear".into())),
        ];
        let wanted = TimmArguments {
            resolution: Some(192),
            crop_pct: Some(0.95),
            mean: Some([0.5; 3]),
            std: Some([0.1, 0.2, 0.3]),
            filter: Some(Filter::Bilinear),
        };
        assert_eq!(of(&all, true).as_ref(), Ok(&wanted));
        assert_eq!(of(&all, false), Ok(wanted));
        let none = [("img_size", Value::None), ("interpolation", Value::Str("".into()))];
        assert_eq!(of(&none, true), Ok(TimmArguments::default()));
        let size = Value::List(Arc::new([3, 256, 256].map(Value::Int).to_vec()));
        assert_eq!(of(&[("input_size", size)], true).unwrap().resolution, Some(256));
    }

    #[test]
    fn arguments_that_can_not_be_used_are_named() {
        for (key, value) in [
            ("img_size", Value::Int(0)),
            ("img_size", Value::Int(1 << 40)),
            ("input_size", Value::List(Arc::new([3, 256, 224].map(Value::Int).to_vec()))),
            ("crop_pct", Value::Float(1.5)),
            ("crop_pct", Value::Float(f64::NAN)),
            ("crop_mode", Value::Str("squash".into())),
            ("std", list(&[0.0, 1.0, 1.0])),
            ("mean", list(&[f64::INFINITY])),
            ("mean", list(&[1.0, 2.0])),
            ("interpolation", Value::Str("magic".into())),
        ] {
            let error = of(&[(key, value.clone())], true).unwrap_err();
            assert!(error.contains(&format!("{key} can't be used")), "{key} {value:?}: {error}");
        }
    }
}
