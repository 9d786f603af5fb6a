//! A place in a configuration, and what is found on the way through it.

use std::ops::RangeInclusive;

use crate::python::Py;
use crate::recipe::Recipe;

/// Reads what a configuration says of a head: of its `model` and its `test_cfg`, into the recipe.
pub(crate) type HeadReader = fn(&ConfigPlace, &ConfigPlace, &mut Recipe, &mut Findings);

/// A value by its path, such as `model.rpn_head.anchor_generator`.
#[derive(Clone, Debug)]
pub(crate) struct ConfigPlace<'a> {
    path: String,
    value: Option<&'a Py>,
}

impl<'a> ConfigPlace<'a> {
    /// The value at `path`; one that is `None` in Python is there, and given as such.
    pub fn new(path: &str, value: Option<&'a Py>) -> Self {
        Self { path: path.to_owned(), value }
    }

    /// The place of a key in the dictionary here.
    pub fn key(&self, key: &str) -> Self {
        Self { path: format!("{}.{key}", self.path), value: self.value.and_then(|value| value.get(key)) }
    }

    /// The members of the list here; of what is no list, itself.
    pub fn members(&self) -> Vec<Self> {
        match self.value {
            Some(Py::List(items)) => {
                let at = |(i, value)| Self { path: format!("{}.{i}", self.path), value: Some(value) };
                items.iter().enumerate().map(at).collect()
            }
            _ => vec![self.clone()],
        }
    }

    /// The first member of a list, or what is here.
    pub fn first(&self) -> Self {
        self.members().into_iter().next().unwrap_or_else(|| self.clone())
    }

    pub fn value(&self) -> Option<&'a Py> {
        self.value
    }

    /// Whether something else than `None` is here.
    pub fn is_given(&self) -> bool {
        !matches!(self.value, None | Some(Py::None))
    }

    /// The `type` of the dictionary here, without the name of its registry.
    pub fn kind(&self) -> Option<&'a str> {
        let kind = self.value?.get("type")?.text()?;
        Some(kind.rsplit('.').next().unwrap_or(kind))
    }

    fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let pairs = match self.value {
            Some(Py::Dict(pairs)) => pairs.as_slice(),
            _ => &[],
        };
        pairs.iter().map(|(key, _)| key.as_str())
    }
}

/// What can't be applied, and what a user should know.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub refused: Vec<String>,
    pub warnings: Vec<String>,
}

impl Findings {
    /// What is here can't be done.
    pub fn refuse(&mut self, place: &ConfigPlace) {
        self.refused.push(match place.value {
            Some(value) => format!("{} is {}", place.path, shown(value)),
            None => format!("{} is not given", place.path),
        });
    }

    /// Refuses a part whose `type` is given and none of `kinds`.
    pub fn expect_kind(&mut self, place: &ConfigPlace, kinds: &[&str]) {
        let kind = place.key("type");
        if kind.is_given() && !place.kind().is_some_and(|kind| kinds.contains(&kind)) {
            self.refuse(&kind);
        }
    }

    /// Refuses a value that is given and not the one that is built in.
    pub fn expect(&mut self, place: &ConfigPlace, is_built_in: impl Fn(&Py) -> bool) {
        if place.is_given() && !place.value.is_some_and(is_built_in) {
            self.refuse(place);
        }
    }

    /// Refuses everything but `False` and nothing.
    pub fn expect_off(&mut self, place: &ConfigPlace) {
        self.expect(place, |value| *value == Py::Bool(false));
    }

    /// Refuses numbers, or lists of them, other than `wanted`.
    pub fn expect_number(&mut self, place: &ConfigPlace, wanted: f64) {
        self.expect(place, |value| match value {
            Py::List(items) => items.iter().all(|item| item.number() == Some(wanted)),
            value => value.number() == Some(wanted),
        });
    }

    /// Names what is here and not among `known`: it may change answers, and nothing here knows how.
    pub fn rest(&mut self, place: &ConfigPlace, known: &[&str]) {
        let unknown = place.keys().filter(|key| !known.contains(key) && place.key(key).is_given());
        let unknown: Vec<_> = unknown.map(|key| format!("{}.{key}", place.path)).collect();
        self.warnings.extend(
            unknown
                .iter()
                .map(|path| format!("the configuration's {path} is not known here and not applied")),
        );
    }

    /// Takes a number that is given.
    pub fn number(&mut self, place: &ConfigPlace, range: RangeInclusive<f64>, into: &mut f64) {
        if place.is_given() {
            match place.value.and_then(Py::number).filter(|number| range.contains(number)) {
                Some(number) => *into = number,
                None => self.refuse(place),
            }
        }
    }

    /// Takes a number that is given in place of none.
    pub fn optional(&mut self, place: &ConfigPlace, range: RangeInclusive<f64>, into: &mut Option<f64>) {
        if place.is_given() {
            let mut number = f64::NAN;
            self.number(place, range, &mut number);
            *into = Some(number).filter(|number| !number.is_nan());
        }
    }

    /// Takes a whole number that is given.
    pub fn count(&mut self, place: &ConfigPlace, range: RangeInclusive<usize>, into: &mut usize) {
        if place.is_given() {
            match place.value.and_then(whole_number).filter(|number| range.contains(number)) {
                Some(number) => *into = number,
                None => self.refuse(place),
            }
        }
    }

    /// Takes a truth that is given.
    pub fn truth(&mut self, place: &ConfigPlace, into: &mut bool) {
        match place.value {
            Some(Py::Bool(value)) => *into = *value,
            _ => self.expect_off(place),
        }
    }

    /// Takes a list of numbers that is given.
    pub fn numbers(&mut self, place: &ConfigPlace, range: RangeInclusive<f64>, into: &mut Vec<f64>) {
        if place.is_given() {
            let number = |value: &Py| value.number().filter(|number| range.contains(number));
            let list = place.value.and_then(Py::list).filter(|list| (1..=MAX_LIST).contains(&list.len()));
            match list.and_then(|list| list.iter().map(number).collect()) {
                Some(numbers) => *into = numbers,
                None => self.refuse(place),
            }
        }
    }

    /// Takes so many numbers that are given.
    pub fn exactly<const N: usize>(
        &mut self,
        place: &ConfigPlace,
        range: RangeInclusive<f64>,
        into: &mut [f64; N],
    ) {
        let mut numbers = into.to_vec();
        self.numbers(place, range, &mut numbers);
        match numbers.try_into() {
            Ok(numbers) => *into = numbers,
            Err(_) => self.refuse(place),
        }
    }
}

/// Most members of a list of numbers: scales, ratios, strides.
const MAX_LIST: usize = 64;

/// A whole number.
pub(super) fn whole_number(value: &Py) -> Option<usize> {
    match *value {
        Py::Int(number) => usize::try_from(number).ok(),
        _ => None,
    }
}

/// A list of whole numbers.
pub(super) fn whole_numbers(value: &Py) -> Option<Vec<usize>> {
    value.list()?.iter().map(whole_number).collect()
}

/// A value as it may stand in a message.
pub(super) fn shown(value: &Py) -> String {
    const LONGEST: usize = 60;
    let list = |items: &[Py]| format!("[{}]", items.iter().take(8).map(shown).collect::<Vec<_>>().join(", "));
    let text = match value {
        Py::None => "None".to_owned(),
        Py::Bool(true) => "True".to_owned(),
        Py::Bool(false) => "False".to_owned(),
        Py::Int(number) => number.to_string(),
        Py::Float(number) => number.to_string(),
        Py::Str(text) => format!("'{}'", text.escape_debug()),
        Py::List(items) => list(items),
        Py::Dict(pairs) => {
            let kind = value.get("type").and_then(Py::text);
            kind.map_or_else(
                || format!("a dictionary of {}", pairs.len()),
                |kind| format!("of type '{}'", kind.escape_debug()),
            )
        }
        Py::Other(text) => text.escape_debug().to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
