//! A report for people: as a table on a terminal, and in Markdown.

use std::time::Duration;

use nat_infer::eval::coco::twelve_lines;
use nat_infer::results::{ClassScores, Evaluation, Metrics};

use super::super::earlier::REPORT;
use super::super::exit::one_line;
use super::super::progress::time;

/// How many images without an answer are named in a table.
const NAMED: usize = 10;

/// A metric as it is told: percent with two digits, fractions with four.
fn number(evaluation: &Evaluation, value: Option<f64>) -> String {
    match (value, &evaluation.metrics) {
        (None, _) => "-".to_owned(),
        (Some(value), Metrics::Detect(_) | Metrics::Segment(_)) => format!("{value:.4}"),
        (Some(value), _) => format!("{value:.2} %"),
    }
}

/// What a report is about, in a line.
fn title(evaluation: &Evaluation) -> String {
    let Evaluation { task, settings, .. } = evaluation;
    let of = match (&evaluation.model, &settings.results) {
        (Some(model), _) => model.clone(),
        (None, results) => results.clone().unwrap_or_default(),
    };
    one_line(&format!("{REPORT}{task}: {of} on {}", settings.data))
}

/// What the scores depend on, a name and a value each.
fn facts(evaluation: &Evaluation) -> Vec<(String, String)> {
    let Evaluation { settings, images, failed, seconds, images_per_second, .. } = evaluation;
    let mut facts = vec![(
        "images".to_owned(),
        match failed.len() {
            0 => images.to_string(),
            n => format!("{images}, {n} of them without an answer"),
        },
    )];
    let mut add =
        |name: &str, value: Option<String>| facts.extend(value.map(|value| (name.to_owned(), value)));
    add("annotations", settings.annotations.clone());
    add("shard", settings.shard.map(|shard| format!("{}/{}", shard.index, shard.count)));
    add("limit", settings.limit.map(|limit| limit.to_string()));
    add("weights", evaluation.weights_sha256.as_ref().map(|hash| format!("sha256 {hash}")));
    add("preprocessing", settings.preprocessing.clone());
    add("exif", settings.exif.clone());
    add("not its own", (!settings.changed.is_empty()).then(|| settings.changed.join(", ")));
    add("dtype", settings.dtype.clone());
    add("device", settings.device.clone());
    add("batch size", settings.batch_size.map(|size| size.to_string()));
    for (name, value) in &settings.options {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        add(&name.replace('_', " "), Some(value));
    }
    let versions: Vec<String> =
        evaluation.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    add("versions", Some(versions.join(", ")));
    if *images_per_second > 0.0 {
        let took = Duration::try_from_secs_f64(*seconds).map(time);
        add("time", took.ok().map(|took| format!("{took}, {images_per_second:.2} images/s")));
    }
    facts
}

/// The names of the classes' scores, in the order of the report.
fn columns(classes: &[ClassScores]) -> Vec<&str> {
    classes.first().map_or_else(Vec::new, |class| class.scores.keys().map(String::as_str).collect())
}

/// Cells as columns as wide as their widest one, numbers to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        text += &format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

/// The scores of every class as rows, under their names.
fn class_rows(evaluation: &Evaluation) -> Vec<Vec<String>> {
    let columns = columns(&evaluation.classes);
    let header = ["class", "count"].into_iter().chain(columns.iter().copied()).map(str::to_owned).collect();
    let row = |class: &ClassScores| {
        let scores =
            columns.iter().map(|name| number(evaluation, class.scores.get(*name).copied().flatten()));
        [one_line(&class.label), class.count.to_string()].into_iter().chain(scores).collect()
    };
    std::iter::once(header).chain(evaluation.classes.iter().map(row)).collect()
}

/// A report as a table.
pub fn table(evaluation: &Evaluation, per_class: bool) -> String {
    let mut text = title(evaluation) + "\n";
    let published = |name: &str| evaluation.published.get(name).copied();
    if let Metrics::Detect(coco) = &evaluation.metrics {
        for (kind, summary) in [("bbox", &coco.bbox), ("segm", &coco.segm)] {
            if let Some(summary) = summary {
                text += &format!("{kind}\n{}", twelve_lines(summary));
                if let Some(value) = published(&format!("{kind}.AP")) {
                    text += &format!("  published AP: {value:.3}\n");
                }
            }
        }
    } else {
        let figure = |(name, value): (String, Option<f64>)| {
            let mut row = vec![name.clone(), number(evaluation, value)];
            row.extend(
                published(&name).map(|value| format!("(published {})", number(evaluation, Some(value)))),
            );
            row
        };
        text += &aligned(&evaluation.metrics.figures().into_iter().map(figure).collect::<Vec<_>>());
    }
    if per_class {
        text += &aligned(&class_rows(evaluation));
    }
    let facts = facts(evaluation);
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in &facts {
        text += &format!("  {name:width$}  {}\n", one_line(value));
    }
    for failed in evaluation.failed.iter().take(NAMED) {
        text += &format!("  no answer: {}: {}\n", one_line(&failed.image), one_line(&failed.error));
    }
    if evaluation.failed.len() > NAMED {
        text += &format!("  and {} more, which json names\n", evaluation.failed.len() - NAMED);
    }
    text
}

/// A report in Markdown.
pub fn markdown(evaluation: &Evaluation, per_class: bool) -> String {
    let mut text = format!("# {}\n\n", escaped(&title(evaluation)));
    let rows = evaluation.metrics.figures().into_iter().map(|(name, value)| {
        let published = evaluation.published.get(&name).copied();
        vec![name, number(evaluation, value), number(evaluation, published)]
    });
    let header = ["metric", "measured", "published"].map(str::to_owned).to_vec();
    text += &markdown_table(&std::iter::once(header).chain(rows).collect::<Vec<_>>());
    if per_class {
        text += "\n";
        text += &markdown_table(&class_rows(evaluation));
    }
    text += "\n";
    for (name, value) in facts(evaluation) {
        text += &format!("- {}: {}\n", escaped(&name), escaped(&value));
    }
    for failed in &evaluation.failed {
        text += &format!("- no answer: {}: {}\n", escaped(&failed.image), escaped(&failed.error));
    }
    text
}

fn markdown_table(rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = String::new();
    for (row, number) in rows.iter().zip(0..) {
        text += &line(row.iter().map(|cell| escaped(cell)).collect());
        if number == 0 {
            let rule = (0..row.len()).map(|column| if column == 0 { "---" } else { "---:" }.to_owned());
            text += &line(rule.collect());
        }
    }
    text
}

/// Text as Markdown shows it, on one line.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in one_line(text).chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '<' | '>' | '#' | '|' | '~' | '&') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
