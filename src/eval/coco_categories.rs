//! Which category of a dataset a model's class is.

use std::collections::HashMap;

use super::coco_files::CocoCategory;

/// How a model's classes were found among a dataset's categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CategoryRule {
    /// By their names.
    Name,
    /// The first class is the first category of the file, and so on.
    Position,
}

/// Which category each of a model's classes is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CategoryIds {
    /// The category's number by the class's index; `None` of a class that the dataset doesn't know.
    pub ids: Vec<Option<u64>>,
    /// How they were found.
    pub rule: CategoryRule,
}

/// The categories of a dataset by their names.
pub struct CategoryNames<'a> {
    exact: HashMap<&'a str, u64>,
    lower: HashMap<String, u64>,
}

impl<'a> CategoryNames<'a> {
    /// Names with their numbers; of a name that is there twice the first one counts.
    pub fn new(categories: impl Iterator<Item = (&'a str, u64)>) -> Self {
        let (mut exact, mut lower) = (HashMap::new(), HashMap::new());
        for (name, id) in categories {
            exact.entry(name).or_insert(id);
            lower.entry(name.to_lowercase()).or_insert(id);
        }
        Self { exact, lower }
    }

    /// The number of the category of this name, else of one that differs in capitals alone.
    pub fn find(&self, name: &str) -> Option<u64> {
        self.exact.get(name).or_else(|| self.lower.get(&name.to_lowercase())).copied()
    }
}

/// How many names an error lists.
const NAMED: usize = 3;

/// Which category each of a model's classes is: by name if the one side's names are all among the other's, else by
/// position if there are as many of each.
///
/// # Errors
/// Says why not, in a line.
pub fn category_ids(categories: &[CocoCategory], labels: &[String]) -> Result<CategoryIds, String> {
    let names = CategoryNames::new(categories.iter().map(|category| (category.name.as_str(), category.id)));
    let ids: Vec<Option<u64>> = labels.iter().map(|label| names.find(label)).collect();
    let is_distinct = {
        let mut found: Vec<u64> = ids.iter().copied().flatten().collect();
        found.sort_unstable();
        found.windows(2).all(|pair| pair[0] != pair[1]) && names.exact.len() == categories.len()
    };
    let found = ids.iter().flatten().count();
    // Of a file whose categories are a part of the model's, the other classes are nothing.
    if is_distinct && found > 0 && (found == labels.len() || found == categories.len()) {
        return Ok(CategoryIds { ids, rule: CategoryRule::Name });
    }
    let missing: Vec<&str> =
        labels.iter().zip(&ids).filter(|(_, id)| id.is_none()).map(|(label, _)| label.as_str()).collect();
    let missing = || {
        let more = if missing.len() > NAMED { ", …" } else { "" };
        format!("{}{more}", missing[..missing.len().min(NAMED)].join(", "))
    };
    if labels.len() != categories.len() {
        return Err(format!(
            "its {} categories are not the model's {} classes: {found} of these are among them by name, and not {}; \
             use the annotations that the model was trained for, or their names",
            categories.len(),
            labels.len(),
            missing(),
        ));
    }
    let by_position: Vec<Option<u64>> = categories.iter().map(|category| Some(category.id)).collect();
    // Names that are known stand elsewhere: the order is another one.
    let moved = ids.iter().zip(&by_position).position(|(name, place)| name.is_some() && name != place);
    if let Some(class) = moved.filter(|_| is_distinct) {
        return Err(format!(
            "its categories are the model's classes neither by name ({} missing) nor by position ({} stands elsewhere); \
             use the annotations that the model was trained for, or their names",
            missing(),
            labels[class],
        ));
    }
    Ok(CategoryIds { ids: by_position, rule: CategoryRule::Position })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(categories: &[&str], labels: &[&str]) -> Result<(Vec<Option<u64>>, CategoryRule), String> {
        let category = |(place, name): (usize, &&str)| CocoCategory {
            id: 10 * (place as u64 + 1),
            name: (*name).to_owned(),
        };
        let categories: Vec<CocoCategory> = categories.iter().enumerate().map(category).collect();
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        category_ids(&categories, &labels).map(|CategoryIds { ids, rule }| (ids, rule))
    }

    #[test]
    fn classes_are_found_by_name_else_by_position() {
        use CategoryRule::{Name, Position};
        for (categories, labels, ids, rule) in [
            (&["cat", "dog"][..], &["dog", "cat"][..], vec![Some(20), Some(10)], Name),
            (&["Cat", "dog"], &["dog", "cat"], vec![Some(20), Some(10)], Name),
            // Exact before the other case.
            (&["cat", "Cat"], &["Cat", "cat"], vec![Some(20), Some(10)], Name),
            // The file knows more, or the model does.
            (&["cat", "dog", "cow"], &["cow"], vec![Some(30)], Name),
            (&["dog"], &["cat", "dog", "cow"], vec![None, Some(10), None], Name),
            // Other names, as many.
            (&["class 1", "class 3"], &["person", "bird"], vec![Some(10), Some(20)], Position),
            (&["cat", "dogs"], &["cat", "dog"], vec![Some(10), Some(20)], Position),
            (&["0", "1"], &["0", "1"], vec![Some(10), Some(20)], Name),
            // Names that say nothing.
            (&["", ""], &["a", "b"], vec![Some(10), Some(20)], Position),
            (&["x", "x"], &["x", "x"], vec![Some(10), Some(20)], Position),
        ] {
            assert_eq!(of(categories, labels), Ok((ids, rule)), "{categories:?} {labels:?}");
        }
    }

    #[test]
    fn other_classes_are_an_error_that_names_some() {
        for (categories, labels, says) in [
            (
                &["cat", "dog"][..],
                &["cat", "cow", "hen", "pig", "yak"][..],
                "its 2 categories are not the model's 5 classes: 1 of these are among them by name, and not cow, hen, pig, …; use",
            ),
            (
                &["cat", "dog"],
                &["cow"],
                "its 2 categories are not the model's 1 classes: 0 of these are among them by name, and not cow; use",
            ),
            (
                &["cat", "dog", "cow"],
                &["dog", "cat", "bull"],
                "neither by name (bull missing) nor by position (dog stands elsewhere)",
            ),
        ] {
            let error = of(categories, labels).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
