//! A report as one HTML file: scores, classes, confused classes, the worst and the best images.
//!
//! Everything stands in the file, pictures too, and its policy lets a browser fetch nothing. Figures, settings and failures are
//! plain HTML; what can be sorted and filtered is drawn by a small script, a part at a time, so that a page of thousands of
//! classes or images opens at once. The same input is the same file, byte for byte.

use std::collections::BTreeSet;

use serde::Serialize;

use super::figures::Figures;
use super::html::{HtmlDocument, counted, escape, fill, grouped, json, named, own_picture};
use crate::results::{Evaluation, EvaluationSettings, FailedImage, Metrics};

const PAGE: &str = include_str!("../../assets/report/page.html");
const CLASSES: &str = include_str!("../../assets/report/classes.html");
const CONFUSION: &str = include_str!("../../assets/report/confusion.html");
const IMAGES: &str = include_str!("../../assets/report/images.html");
const SCRIPT: &str = concat!(
    include_str!("../../assets/report/lists.js"),
    include_str!("../../assets/report/classes.js"),
    include_str!("../../assets/report/confusion.js"),
    include_str!("../../assets/report/images.js"),
);

/// Failed images that the page lists. More than these is one cause, not so many.
const FAILED_LISTED: usize = 1000;
/// Failed images that are in sight at once; longer lists are folded.
const FAILED_IN_SIGHT: usize = 10;

/// What a report shows.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Scores, settings, failures.
    pub evaluation: &'a Evaluation,
    /// Which classes are taken for which.
    pub confusion: Option<&'a Confusion>,
    /// Images that can be looked at. A picture stands in the file as often as it is in here: pass the worst and the best ones.
    pub images: &'a [PageImage],
}

/// How often images of a class were called another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// The classes' names.
    pub labels: Vec<String>,
    /// True class, answered class, images; the class `labels.len()` is none: an image without an answer. Pairs without images
    /// can be left out.
    pub counts: Vec<(usize, usize, u64)>,
}

/// An image of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageImage {
    /// Its name.
    pub name: String,
    /// From 0 to 1, higher is better: what worst and best are sorted by. One that is not a number comes first of the worst.
    pub score: f64,
    /// Whether the answer is right, where it can be only that or wrong.
    pub right: Option<bool>,
    /// What is on it, in words; may be empty.
    pub truth: String,
    /// What was answered, in words; may be empty.
    pub answer: String,
    /// A `data:image/...` address, see [`thumbnail`](super::thumbnail()). Other addresses are not shown: nothing is fetched.
    pub picture: Option<String>,
}

/// What the script reads.
#[derive(Serialize)]
struct ScriptData<'a> {
    /// The best possible score of a class.
    whole: f64,
    /// Digits behind the point of a class's score.
    decimals: usize,
    /// What a class's count counts.
    counted: &'static str,
    /// Names of the classes' scores.
    scores: &'a [&'a str],
    /// Number, name, count, scores in the order of `scores`.
    classes: Vec<(usize, &'a str, u64, Vec<Option<f64>>)>,
    confusion: Option<&'a Confusion>,
    images: &'a [PageImage],
}

impl Page<'_> {
    /// The file.
    pub fn html(&self) -> String {
        let evaluation = self.evaluation;
        let figures = Figures::new(&evaluation.metrics);
        let scores = self.scores();
        let classes = evaluation.classes.iter();
        let classes = classes.map(|class| {
            // pycocotools' -1: nothing to find.
            let score =
                |name: &&str| class.scores.get(*name).copied().flatten().filter(|score| *score >= 0.0);
            (class.index, class.label.as_str(), class.count, scores.iter().map(score).collect())
        });
        let data = ScriptData {
            whole: figures.whole(),
            decimals: figures.decimals(),
            counted: self.task().counted,
            scores: &scores,
            classes: classes.collect(),
            confusion: self.confusion(),
            images: self.images,
        };
        let title = format!("{} on {}", self.model(), evaluation.settings.data);
        HtmlDocument {
            title: &title,
            body: &self.body(&figures, &scores),
            data: Some(&json(&data)),
            script: SCRIPT,
        }
        .html()
    }

    /// The model's name, or what there is instead.
    fn model(&self) -> &str {
        self.evaluation.model.as_deref().unwrap_or("Predictions")
    }

    fn task(&self) -> TaskWords {
        task(&self.evaluation.metrics)
    }

    /// A matrix of no class is none.
    fn confusion(&self) -> Option<&Confusion> {
        self.confusion.filter(|confusion| !confusion.labels.is_empty())
    }

    /// The names of the classes' scores, the most telling one first.
    fn scores(&self) -> Vec<&str> {
        let all = self.evaluation.classes.iter().flat_map(|class| class.scores.keys());
        let all: BTreeSet<&str> = all.map(String::as_str).collect();
        let mut all: Vec<&str> = all.into_iter().collect();
        let main = self.task().class_score;
        all.sort_by_key(|name| *name != main);
        all
    }

    /// What stands between the page's begin and the script.
    fn body(&self, figures: &Figures, scores: &[&str]) -> String {
        let evaluation = self.evaluation;
        let (classes, confusion, images) =
            (self.classes(figures, scores), self.confusion_section(), self.images_section());
        let failed = self.failed();
        let link = |(id, title, section): (&str, &str, &str)| {
            if section.is_empty() {
                String::new()
            } else {
                format!("<li><a href=\"#{id}\">{title}</a></li>\n")
            }
        };
        let sections = [
            ("failed", "Failed images", failed.as_str()),
            ("classes", "Classes", &classes),
            ("confusion", "Confusion", &confusion),
            ("images", "Images", &images),
        ];
        let links: String = sections.into_iter().map(link).collect();
        fill(
            PAGE,
            &[
                ("task", self.task().title),
                ("model", &named(self.model())),
                ("data", &named(&evaluation.settings.data)),
                ("key", &figures.key()),
                ("summary", &self.summary()),
                ("links", &links),
                ("figures", &figures.table(evaluation)),
                ("classes", &classes),
                ("confusion", &confusion),
                ("images", &images),
                ("failed", &failed),
                ("run", &self.run()),
            ],
        )
    }

    /// How many images, how long, how many failed: a sentence or two.
    fn summary(&self) -> String {
        let evaluation = self.evaluation;
        let images = counted(evaluation.images as u64, "image", "images");
        let time = duration(evaluation.seconds);
        let failed = match evaluation.failed.len() {
            0 => "Each has an answer.".to_owned(),
            1 => "<a href=\"#failed\">One has no answer</a>, and still counts.".to_owned(),
            some => {
                format!("<a href=\"#failed\">{} have no answer</a>, and still count.", grouped(some as u64))
            }
        };
        format!("{images} in {time}. {failed}")
    }

    fn classes(&self, figures: &Figures, scores: &[&str]) -> String {
        let classes = self.evaluation.classes.len();
        if classes == 0 || scores.is_empty() {
            return String::new();
        }
        let option =
            |(place, name): (usize, &&str)| format!("<option value=\"{place}\">{}</option>", escape(name));
        let options: String = scores.iter().enumerate().map(option).collect();
        let task = self.task();
        fill(
            CLASSES,
            &[
                ("count", &counted(classes as u64, "class", "classes")),
                ("counted", task.counted),
                ("heading", task.heading),
                ("options", &options),
                ("choice", if scores.len() > 1 { "" } else { " hidden" }),
                ("score", &escape(scores[0])),
                ("whole", &figures.whole().to_string()),
            ],
        )
    }

    fn confusion_section(&self) -> String {
        self.confusion().map(|_| CONFUSION.to_owned()).unwrap_or_default()
    }

    fn images_section(&self) -> String {
        if self.images.is_empty() {
            return String::new();
        }
        let judged = self.images.iter().any(|image| image.right.is_some());
        // Of objects and regions what was found and what there is stand side by side.
        let paired = matches!(self.evaluation.metrics, Metrics::Detect(_) | Metrics::Segment(_));
        let unseen = self.images.iter().all(|image| own_picture(image.picture.as_deref()).is_none());
        fill(
            IMAGES,
            &[
                ("count", &counted(self.images.len() as u64, "image", "images")),
                ("all", &grouped(self.evaluation.images as u64)),
                ("paired", if paired { " paired" } else { "" }),
                ("judged", if judged { "" } else { " hidden" }),
                (
                    "unseen",
                    match (unseen, paired) {
                        (true, _) => " No pictures were kept of them.",
                        (false, true) => " On the left is what was found, on the right what there is.",
                        (false, false) => "",
                    },
                ),
            ],
        )
    }

    /// Images without an answer, with why.
    fn failed(&self) -> String {
        let failed = &self.evaluation.failed;
        if failed.is_empty() {
            return String::new();
        }
        let row = |image: &FailedImage| {
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n",
                named(&image.image),
                named(&image.error)
            )
        };
        let rows: String = failed.iter().take(FAILED_LISTED).map(row).collect();
        let more = match failed.len().saturating_sub(FAILED_LISTED) {
            0 => String::new(),
            more => format!(
                "<p class=\"note\">And {} more, which the JSON report names.</p>\n",
                grouped(more as u64)
            ),
        };
        let table = format!(
            "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Table of failed images\">\n<table class=\"failed\">\n\
             <thead><tr><th scope=\"col\">Image</th><th scope=\"col\">Why</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n{more}"
        );
        let count = counted(failed.len() as u64, "image has", "images have");
        let table = if failed.len() > FAILED_IN_SIGHT {
            format!("<details>\n<summary>Show them</summary>\n{table}</details>\n")
        } else {
            table
        };
        format!(
            "<section id=\"failed\" aria-labelledby=\"failed-title\">\n<h2 id=\"failed-title\">Failed images</h2>\n\
             <p>{count} no answer. Such an image counts: as wrong, as without an object, as pixels of no class.</p>\n{table}</section>\n"
        )
    }

    /// Model, settings, versions, time.
    fn run(&self) -> String {
        let evaluation = self.evaluation;
        let mut facts: Vec<(&str, String)> = Vec::new();
        facts
            .push(("Model", evaluation.model.as_deref().map_or("none: given predictions".to_owned(), named)));
        let hash = evaluation.weights_sha256.as_deref();
        facts.extend(hash.map(|hash| ("SHA-256 of the weights", format!("<code>{}</code>", escape(hash)))));
        facts.extend(settings(&evaluation.settings));
        facts.push(("Images", grouped(evaluation.images as u64)));
        facts.push(("Failed images", grouped(evaluation.failed.len() as u64)));
        facts.push(("Time", duration(evaluation.seconds)));
        facts.push(("Images per second", format!("{:.1}", evaluation.images_per_second)));
        for (what, version) in &evaluation.versions {
            facts.push((what, named(version)));
        }
        let fact =
            |(what, value): &(&str, String)| format!("<div><dt>{}</dt><dd>{value}</dd></div>\n", named(what));
        facts.iter().map(fact).collect()
    }
}

/// What the page says of a task.
struct TaskWords {
    title: &'static str,
    /// What a class's count counts, as the script and a heading call it.
    counted: &'static str,
    heading: &'static str,
    /// The score of a class that is shown first, where it has it.
    class_score: &'static str,
}

fn task(metrics: &Metrics) -> TaskWords {
    let (title, counted, heading, class_score) = match metrics {
        Metrics::Classify(_) => ("Classification", "images", "Images", "top1"),
        Metrics::Knn(_) => ("Classification by nearest neighbors", "images", "Images", "knn_top1"),
        Metrics::Segment(_) => ("Semantic segmentation", "pixels", "Pixels", "IoU"),
        Metrics::Panoptic(_) => ("Panoptic segmentation", "segments", "Segments", "PQ"),
        Metrics::Detect(_) => ("Object detection", "objects", "Objects", "AP"),
    };
    TaskWords { title, counted, heading, class_score }
}

/// Settings by what they are called; values are HTML.
fn settings(settings: &EvaluationSettings) -> Vec<(&str, String)> {
    let texts = [
        ("Dataset", Some(&settings.data)),
        ("Annotations", settings.annotations.as_ref()),
        ("Predictions", settings.results.as_ref()),
        ("Preprocessing", settings.preprocessing.as_ref()),
        ("Orientation by Exif", settings.exif.as_ref()),
        ("Type", settings.dtype.as_ref()),
        ("Device", settings.device.as_ref()),
    ];
    let mut facts: Vec<(&str, String)> =
        texts.into_iter().filter_map(|(what, text)| text.map(|text| (what, named(text)))).collect();
    let count = |count: usize| grouped(count as u64);
    facts.extend(settings.batch_size.map(|size| ("Batch size", count(size))));
    facts.extend(settings.limit.map(|limit| ("Limit", format!("the first {} images", count(limit)))));
    facts.extend(
        settings.shard.map(|shard| ("Part", format!("{} of {}", count(shard.index), count(shard.count)))),
    );
    if !settings.changed.is_empty() {
        facts.push(("Not the model's own", named(&settings.changed.join(", "))));
    }
    for (what, value) in &settings.options {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        facts.push((what, named(&text)));
    }
    facts
}

/// Seconds in words: `0.42 s`, `2 min 5 s`, `3 h 4 min`.
fn duration(seconds: f64) -> String {
    const MINUTE: f64 = 60.0;
    const HOUR: u64 = 60;
    if seconds < 10.0 {
        return format!("{seconds:.2} s");
    }
    if seconds < MINUTE {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let (minutes, rest) = (whole / 60, whole % 60);
    if minutes < HOUR {
        format!("{minutes} min {rest} s")
    } else {
        format!("{} h {} min", minutes / HOUR, minutes % HOUR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_words() {
        for (seconds, text) in [
            (0.0, "0.00 s"),
            (0.416, "0.42 s"),
            (12.34, "12.3 s"),
            (60.0, "1 min 0 s"),
            (125.4, "2 min 5 s"),
            (11_040.0, "3 h 4 min"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    /// The hash of the policy is of the bytes as a browser sees them, which knows no carriage return.
    #[test]
    fn the_script_can_stand_in_a_page() {
        assert!(!SCRIPT.contains('\r') && !SCRIPT.contains("</script") && !SCRIPT.contains("<!--"));
        for fetches in
            ["fetch(", "XMLHttpRequest", "import(", "WebSocket", "innerHTML", "eval(", "Date", "Math.random"]
        {
            assert!(!SCRIPT.contains(fetches), "{fetches}");
        }
    }
}
