//! The scores of an evaluation as a table, with what each means in words.

use super::html::{grouped, named};
use crate::results::{
    CocoMetrics, CocoSummary, Evaluation, KnnAccuracy, Metrics, PanopticMetrics, PixelMetrics, TopAccuracy,
};

/// Decimals of a score in percent and of one from 0 to 1.
pub(super) const PERCENT_DECIMALS: usize = 2;
pub(super) const FRACTION_DECIMALS: usize = 4;

/// A row: a score by each column.
struct FigureRow {
    /// As in the JSON.
    key: &'static str,
    name: &'static str,
    meaning: &'static str,
    /// One for each column.
    values: Vec<Option<f64>>,
}

/// What scores are computed over: boxes and masks, things and stuff.
struct FigureColumn {
    /// As in the JSON; `None` where scores stand by themselves.
    key: Option<&'static str>,
    name: &'static str,
}

/// Scores and what is to say of them all.
pub(super) struct Figures {
    columns: Vec<FigureColumn>,
    rows: Vec<FigureRow>,
    /// Of a task's scores: how they are to be read. HTML.
    note: String,
    /// Scores are percents, not fractions.
    percent: bool,
    /// The places of the scores that are shown first and large: row, column.
    first: Vec<(usize, usize)>,
}

impl Figures {
    pub fn new(metrics: &Metrics) -> Self {
        match metrics {
            Metrics::Classify(metrics) => classify(metrics),
            Metrics::Knn(metrics) => knn(metrics),
            Metrics::Segment(metrics) => segment(metrics),
            Metrics::Panoptic(metrics) => panoptic(metrics),
            Metrics::Detect(metrics) => detect(metrics),
        }
    }

    /// The score that is the best possible.
    pub fn whole(&self) -> f64 {
        if self.percent { 100.0 } else { 1.0 }
    }

    /// Digits behind the point that are shown of a score.
    pub fn decimals(&self) -> usize {
        if self.percent { PERCENT_DECIMALS } else { FRACTION_DECIMALS }
    }

    /// A score of the table; a dash of one that can't be said.
    fn shown(&self, value: Option<f64>) -> String {
        value.map_or("–".to_owned(), |value| format!("{value:.*}", self.decimals()))
    }

    /// The few most important ones, large.
    pub fn key(&self) -> String {
        let item = |&(row, column): &(usize, usize)| {
            let (row, name) = (&self.rows[row], self.columns[column].name);
            let name = match self.columns[column].key {
                None => row.name.to_owned(),
                Some(_) => format!("{} <span class=\"of\">{name}</span>", row.name),
            };
            let unit = if self.percent { "<span class=\"unit\">&nbsp;%</span>" } else { "" };
            let value = row.values[column];
            let unit = if value.is_some() { unit } else { "" };
            format!("<div><dt>{name}</dt><dd>{}{unit}</dd></div>\n", self.shown(value))
        };
        self.first.iter().map(item).collect()
    }

    /// The table, and what is to say of it. Published figures stand beside the measured ones; those of a name that no
    /// measured one has are rows of their own.
    pub fn table(&self, evaluation: &Evaluation) -> String {
        let published = |row: &str, column: &FigureColumn| {
            let found = evaluation.published.iter().find(|(name, _)| is_called(name, column.key, row));
            found.map(|(_, value)| *value)
        };
        let has_published =
            |column: &&FigureColumn| self.rows.iter().any(|row| published(row.key, column).is_some());
        let compared: Vec<bool> = self.columns.iter().map(|column| has_published(&column)).collect();
        let cell = |text: &str| format!("<td class=\"number\">{text}</td>");
        let row = |row: &FigureRow| {
            let cells =
                self.columns.iter().zip(&row.values).zip(&compared).map(|((column, &value), &compared)| {
                    let published = published(row.key, column);
                    let difference = value.zip(published).map(|(value, published)| value - published);
                    let difference = difference.map_or(String::new(), |value| signed(value, self.decimals()));
                    let published = published.map_or(String::new(), |value| self.shortest(value));
                    let beside = if compared { cell(&published) + &cell(&difference) } else { String::new() };
                    cell(&self.shown(value)) + &beside
                });
            let cells: String = cells.collect();
            let (name, meaning) = (row.name, row.meaning);
            format!("<tr><th scope=\"row\">{name}<span class=\"meaning\">{meaning}</span></th>{cells}</tr>\n")
        };
        let rows: String = self.rows.iter().map(row).collect();
        let taken = |name: &str| {
            let has =
                |column: &FigureColumn| self.rows.iter().any(|row| is_called(name, column.key, row.key));
            self.columns.iter().any(has)
        };
        let others = evaluation.published.iter().filter(|(name, _)| !taken(name));
        let others: String = others
            .map(|(name, value)| format!("<li>{}: {}</li>", named(name), self.shortest(*value)))
            .collect();
        let others = if others.is_empty() {
            String::new()
        } else {
            format!("<p>Published, and not measured here:</p>\n<ul>{others}</ul>\n")
        };
        let unit =
            if self.percent { "in percent" } else { "fractions from 0 to 1; papers print them times 100" };
        let head = self.head(&compared);
        format!(
            "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Table of figures\">\n<table class=\"figures\">\n\
             <caption>Scores, {unit}.</caption>\n<thead>\n{head}</thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n{others}{}",
            self.note
        )
    }

    /// The head of the table: what a column is over, and below it, where there are published figures, which is which.
    fn head(&self, compared: &[bool]) -> String {
        const BESIDE: &str = "<th scope=\"col\" class=\"number\">Published</th><th scope=\"col\" class=\"number\">Difference</th>";
        let single = self.columns.len() == 1;
        if single || !compared.contains(&true) {
            let head = |(column, &compared): (&FigureColumn, &bool)| {
                let name = if single { "Measured" } else { column.name };
                let beside = if compared { BESIDE } else { "" };
                format!("<th scope=\"col\" class=\"number\">{name}</th>{beside}")
            };
            let heads: String = self.columns.iter().zip(compared).map(head).collect();
            return format!("<tr><th scope=\"col\">Score</th>{heads}</tr>\n");
        }
        let over = |(column, &compared): (&FigureColumn, &bool)| {
            let span = if compared { 3 } else { 1 };
            format!("<th scope=\"colgroup\" colspan=\"{span}\" class=\"group\">{}</th>", column.name)
        };
        let under = |compared: &bool| {
            let beside = if *compared { BESIDE } else { "" };
            format!("<th scope=\"col\" class=\"number\">Measured</th>{beside}")
        };
        let over: String = self.columns.iter().zip(compared).map(over).collect();
        let under: String = compared.iter().map(under).collect();
        format!("<tr><th scope=\"col\" rowspan=\"2\">Score</th>{over}</tr>\n<tr>{under}</tr>\n")
    }

    /// A published figure with no more digits than it was printed with.
    fn shortest(&self, value: f64) -> String {
        let text = format!("{value:.*}", self.decimals());
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// Whether a published figure is that of a row and a column: `top1`, `bbox.AP`. What stands between is any one character.
fn is_called(name: &str, column: Option<&str>, row: &str) -> bool {
    let Some(column) = column else { return name == row };
    let between = name.strip_prefix(column).and_then(|rest| rest.strip_suffix(row));
    between.is_some_and(|between| [".", "/", "_", " ", "-"].contains(&between))
}

/// A difference with its sign, a minus as wide as the plus; of what rounds to nothing, zero.
fn signed(value: f64, decimals: usize) -> String {
    let size = format!("{:.*}", decimals, value.abs());
    let sign = match size.chars().all(|digit| matches!(digit, '0' | '.')) {
        true => "",
        false if value < 0.0 => "−",
        false => "+",
    };
    format!("{sign}{size}")
}

/// Scores that stand by themselves.
fn single(
    rows: Vec<(&'static str, &'static str, &'static str, Option<f64>)>,
    percent: bool,
    note: String,
) -> Figures {
    let row = |(key, name, meaning, value)| FigureRow { key, name, meaning, values: vec![value] };
    let rows: Vec<FigureRow> = rows.into_iter().map(row).collect();
    let first = (0..rows.len()).map(|row| (row, 0)).collect();
    Figures { columns: vec![FigureColumn { key: None, name: "Measured" }], rows, note, percent, first }
}

fn classify(metrics: &TopAccuracy) -> Figures {
    let mut rows = vec![
        ("top1", "Top-1", "Images whose class is the most probable one.", Some(metrics.top1)),
        ("top5", "Top-5", "Images whose class is among the five most probable ones.", metrics.top5),
    ];
    let real = [
        ("real_top1", "ReaL top-1", "As top-1, by the reassessed labels of each image.", metrics.real_top1),
        ("real_top5", "ReaL top-5", "As top-5, by the reassessed labels of each image.", metrics.real_top5),
    ];
    rows.extend(real.into_iter().filter(|(.., value)| value.is_some()));
    let images = metrics.real_images.map(|images| {
        format!("<p class=\"note\">Images with reassessed labels (ReaL): {}.</p>\n", grouped(images as u64))
    });
    single(rows, true, images.unwrap_or_default())
}

fn knn(metrics: &KnnAccuracy) -> Figures {
    let meaning = "Images whose class the most similar other images choose.";
    let note =
        format!("<p class=\"note\">Neighbors that choose: {}.</p>\n", grouped(metrics.neighbors as u64));
    single(vec![("knn_top1", "k-NN top-1", meaning, Some(metrics.knn_top1))], true, note)
}

fn segment(metrics: &PixelMetrics) -> Figures {
    let rows = vec![
        (
            "mIoU",
            "mIoU",
            "Mean over classes of intersection over union: pixels that are the class and were called so, of those \
             that are either.",
            metrics.mean_iou,
        ),
        (
            "mAcc",
            "mAcc",
            "Mean over classes of the share of the class's pixels that were found.",
            metrics.mean_accuracy,
        ),
        ("aAcc", "aAcc", "Share of all pixels that were called what they are.", metrics.all_accuracy),
    ];
    single(rows, false, String::new())
}

fn panoptic(metrics: &PanopticMetrics) -> Figures {
    let over = [metrics.all, metrics.things, metrics.stuff];
    let row = |key, meaning, value: fn(usize, &[_; 3]) -> Option<f64>| {
        let values = (0..over.len()).map(|column| value(column, &over)).collect();
        FigureRow { key, name: key, meaning, values }
    };
    let rows = vec![
        row(
            "PQ",
            "Panoptic quality: the product of the two below, for each class, then the mean.",
            |c, over| over[c].pq,
        ),
        row("SQ", "Segmentation quality: how well segments that were found overlap.", |c, over| over[c].sq),
        row("RQ", "Recognition quality: how many segments were found, and how few made up.", |c, over| {
            over[c].rq
        }),
    ];
    let columns = [("All", "All"), ("Things", "Things"), ("Stuff", "Stuff")];
    let note = format!(
        "<p class=\"note\">Classes: {} in all, {} things (what can be counted), {} stuff (what cannot).</p>\n",
        metrics.all.n, metrics.things.n, metrics.stuff.n
    );
    Figures {
        columns: columns.map(|(key, name)| FigureColumn { key: Some(key), name }).into(),
        rows,
        note,
        percent: true,
        first: vec![(0, 0), (0, 1), (0, 2)],
    }
}

/// A number of COCO's twelve: its name, what it is over, the number.
type CocoNumber = (&'static str, &'static str, fn(&CocoSummary) -> f64);

/// In the order of pycocotools' `summarize`.
const COCO: [CocoNumber; 12] = [
    ("AP", "Average precision at IoU 0.50 to 0.95, all sizes", |s| s.ap),
    ("AP50", "Average precision at IoU 0.50, all sizes", |s| s.ap50),
    ("AP75", "Average precision at IoU 0.75, all sizes", |s| s.ap75),
    ("APs", "Average precision at IoU 0.50 to 0.95, small objects", |s| s.ap_small),
    ("APm", "Average precision at IoU 0.50 to 0.95, medium objects", |s| s.ap_medium),
    ("APl", "Average precision at IoU 0.50 to 0.95, large objects", |s| s.ap_large),
    ("AR1", "Average recall at IoU 0.50 to 0.95, all sizes, 1 detection", |s| s.ar1),
    ("AR10", "Average recall at IoU 0.50 to 0.95, all sizes, 10 detections", |s| s.ar10),
    ("AR100", "Average recall at IoU 0.50 to 0.95, all sizes", |s| s.ar100),
    ("ARs", "Average recall at IoU 0.50 to 0.95, small objects", |s| s.ar_small),
    ("ARm", "Average recall at IoU 0.50 to 0.95, medium objects", |s| s.ar_medium),
    ("ARl", "Average recall at IoU 0.50 to 0.95, large objects", |s| s.ar_large),
];

const COCO_NOTE: &str = "\
<p class=\"note\">These are the twelve numbers of pycocotools. <em>IoU</em>, intersection over union, is how much of a \
detection and of an object must overlap to count as found; <em>0.50 to 0.95</em> is the mean over the ten values in steps \
of 0.05. <em>Precision</em> is the share of detections that are right, averaged over every share of objects found; \
<em>recall</em> the share of objects found. Both are means over classes, with the 100 most certain detections of an image \
where no other number is given. <em>Small</em> objects cover less than 32 × 32 pixels, <em>large</em> ones more than 96 × 96, \
<em>medium</em> ones what is between. A dash says that there is nothing to find.</p>
";

fn detect(metrics: &CocoMetrics) -> Figures {
    let over = [("bbox", "Boxes", &metrics.bbox), ("segm", "Masks", &metrics.segm)];
    let over: Vec<_> =
        over.iter().filter_map(|(key, name, s)| s.as_ref().map(|s| (*key, *name, s))).collect();
    let row = |&(key, meaning, number): &CocoNumber| {
        // pycocotools' -1.
        let value = |summary| Some(number(summary)).filter(|value| *value >= 0.0);
        FigureRow {
            key,
            name: key,
            meaning,
            values: over.iter().map(|(_, _, summary)| value(summary)).collect(),
        }
    };
    Figures {
        columns: over.iter().map(|&(key, name, _)| FigureColumn { key: Some(key), name }).collect(),
        rows: COCO.iter().map(row).collect(),
        note: COCO_NOTE.to_owned(),
        percent: false,
        first: (0..over.len()).map(|column| (0, column)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_figures_are_found_by_name() {
        for (name, column, row, expected) in [
            ("top1", None, "top1", true),
            ("top5", None, "top1", false),
            ("bbox.AP", Some("bbox"), "AP", true),
            ("bbox_AP50", Some("bbox"), "AP50", true),
            ("bbox.AP50", Some("bbox"), "AP", false),
            ("segm.AP", Some("bbox"), "AP", false),
            ("bboxAP", Some("bbox"), "AP", false),
        ] {
            assert_eq!(is_called(name, column, row), expected, "{name} {column:?} {row}");
        }
    }

    #[test]
    fn differences_have_a_sign_unless_there_is_none() {
        for (value, decimals, text) in [
            (0.034, 2, "+0.03"),
            (-0.126, 2, "−0.13"),
            (-0.001, 2, "0.00"),
            (0.0, 4, "0.0000"),
            (-2.0, 1, "−2.0"),
        ] {
            assert_eq!(signed(value, decimals), text);
        }
    }
}
