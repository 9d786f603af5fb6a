//! Reports and galleries: what stands in the file, and, where a Chromium is installed, what a browser makes of it.

use nat_infer::eval::gallery::{Gallery, GalleryQuery};
use nat_infer::eval::page::Page;
use nat_infer::results::{Evaluation, FailedImage, Metrics};
use serde_json::{Value, json};

use made_up::{
    HOSTILE, classify, confusion, detect, gallery, hostile_gallery, hostile_page, images, knn, panoptic,
    segment,
};

mod browser;
mod made_up;

fn page(evaluation: &Evaluation) -> String {
    Page { evaluation, confusion: None, images: &[] }.html()
}

/// The text between two marks.
pub fn between<'a>(html: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = html.split_once(begin).unwrap_or_else(|| panic!("no {begin}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end}")).0
}

fn data(html: &str) -> Value {
    serde_json::from_str(between(html, "<script type=\"application/json\" id=\"data\">", "</script>"))
        .unwrap()
}

/// The cells of the row of the table of figures that begins so.
fn figures<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let row = between(html, &format!("<tr><th scope=\"row\">{name}<span"), "</tr>");
    row.split("<td class=\"number\">").skip(1).map(|cell| cell.trim_end_matches("</td>")).collect()
}

/// What holds of each page: it fetches nothing, runs nothing but its script, says what it is.
fn check(html: &str, title: &str) {
    assert!(html.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
    assert_eq!(between(html, "<title>", "</title>"), title);
    let policy = between(html, "http-equiv=\"Content-Security-Policy\" content=\"", "\">");
    assert!(policy.starts_with("default-src 'none'; img-src data:; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    // Before anything that a policy can forbid.
    assert!(html.find("Content-Security-Policy") < html.find("<style"));
    let lower = html.to_lowercase();
    for fetched in
        [" href=\"http", " src=\"http", "src=\"//", "url(", "@import", "<link rel=\"stylesheet", "<iframe"]
    {
        assert!(!lower.contains(fetched), "{fetched}");
    }
    for (open, close) in
        [("<script", "</script>"), ("<style", "</style>"), ("<title", "</title>"), ("<section", "</section>")]
    {
        assert_eq!(html.matches(open).count(), html.matches(close).count(), "{open}");
    }
    // Anchors lead somewhere.
    for link in html.split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap();
        assert!(html.contains(&format!("id=\"{id}\"")), "{id}");
    }
}

#[test]
fn figures_stand_in_the_page_with_the_published_ones() {
    let html = page(&classify(10));
    check(&html, "nat_mini_in1k_224 on imagenet/val");
    assert_eq!(figures(&html, "Top-1"), ["81.81", "81.8", "+0.01"]);
    assert_eq!(figures(&html, "Top-5"), ["95.90", "", ""]);
    assert_eq!(figures(&html, "ReaL top-5"), ["97.50", "", ""]);
    assert!(html.contains("Images with reassessed labels (ReaL): 46,837."));

    let html = page(&segment());
    check(&html, "nat_mini_in1k_224 on imagenet/val");
    assert_eq!(figures(&html, "mIoU"), ["0.4699", "0.464", "+0.0059"]);
    assert_eq!(figures(&html, "aAcc"), ["0.8234", "", ""]);
    // Published, and nothing of that name was measured.
    assert!(html.contains("<li><bdi>mIoU_multi_scale</bdi>: 0.481</li>"));

    let html = page(&detect());
    check(&html, "nat_mini_in1k_224 on imagenet/val");
    assert_eq!(figures(&html, "AP"), ["0.4712", "0.47", "+0.0012", "0.4265", "0.426", "+0.0005"]);
    assert_eq!(figures(&html, "AP50"), ["0.6812", "", "", "0.6365", "", ""]);
    // pycocotools' -1.
    assert_eq!(figures(&html, "APs"), ["–", "", "", "–", "", ""]);
    assert_eq!(html.matches("<tr><th scope=\"row\">A").count(), 12);

    let html = page(&panoptic());
    assert_eq!(figures(&html, "PQ"), ["48.50", "54.30", "–"]);
    assert_eq!(figures(&html, "RQ"), ["60.25", "60.25", "60.25"]);
    assert!(html.contains("Classes: 133 in all, 80 things"));

    let html = page(&knn());
    assert_eq!(figures(&html, "k-NN top-1"), ["78.12"]);
    assert!(html.contains("Neighbors that choose: 20."));
}

#[test]
fn a_detector_without_masks_has_a_column_of_boxes() {
    let mut evaluation = detect();
    let Metrics::Detect(metrics) = &mut evaluation.metrics else { unreachable!() };
    metrics.segm = None;
    evaluation.published.clear();
    assert_eq!(figures(&page(&evaluation), "AP75"), ["0.5142"]);
}

#[test]
fn what_was_run_stands_in_the_page() {
    let html = page(&classify(10));
    let run = between(&html, "<section id=\"run\"", "</section>");
    for (what, value) in [
        ("Model", "<bdi>nat_mini_in1k_224</bdi>"),
        ("SHA-256 of the weights", &format!("<code>{}</code>", "3f5c8a0e".repeat(8))),
        ("Dataset", "<bdi>imagenet/val</bdi>"),
        ("Preprocessing", "<bdi>resize 256 bicubic, crop 224</bdi>"),
        ("Orientation by Exif", "<bdi>ignore</bdi>"),
        ("Type", "<bdi>f32</bdi>"),
        ("Device", "<bdi>cpu avx512</bdi>"),
        ("Batch size", "32"),
        ("Limit", "the first 50,000 images"),
        ("Part", "2 of 4"),
        ("real", "<bdi>real.json</bdi>"),
        ("flip", "<bdi>true</bdi>"),
        ("Images", "50,000"),
        ("Failed images", "2"),
        ("Time", "12 min 5 s"),
        ("Images per second", "68.9"),
        ("nat-infer", "<bdi>0.1.0</bdi>"),
    ] {
        assert!(run.contains(&format!("<dt><bdi>{what}</bdi></dt><dd>{value}</dd>")), "{what}");
    }
    let failed = between(&html, "<section id=\"failed\"", "</section>");
    assert!(
        failed.contains(
            "<th scope=\"row\"><bdi>val/n01440764/empty.JPEG</bdi></th><td><bdi>0 bytes</bdi></td>"
        )
    );
    assert!(html.contains("50,000 images in 12 min 5 s. <a href=\"#failed\">2 have no answer</a>"));
}

#[test]
fn very_many_failed_images_are_folded_and_counted() {
    let mut evaluation = classify(10);
    let failed = |index| FailedImage {
        image: format!("{index}.jpg"),
        error: "no such file".to_owned(),
        ..FailedImage::default()
    };
    evaluation.failed = (0..1234).map(failed).collect();
    let html = page(&evaluation);
    let section = between(&html, "<section id=\"failed\"", "</section>");
    assert_eq!(section.matches("<bdi>no such file</bdi>").count(), 1000);
    assert!(section.contains("<details>") && section.contains("And 234 more, which the JSON report names."));
}

#[test]
fn predictions_that_were_there_have_no_model() {
    let mut evaluation = detect();
    (evaluation.model, evaluation.weights_sha256) = (None, None);
    evaluation.failed.clear();
    evaluation.classes.clear();
    let html = page(&evaluation);
    check(&html, "Predictions on imagenet/val");
    assert!(
        html.contains("<dt><bdi>Model</bdi></dt><dd>none: given predictions</dd>")
            && !html.contains("SHA-256")
    );
    // Sections of nothing are left out, in the list of them too.
    for absent in
        ["id=\"failed\"", "id=\"classes\"", "id=\"confusion\"", "id=\"images\"", "href=\"#classes\""]
    {
        assert!(!html.contains(absent), "{absent}");
    }
}

#[test]
fn the_script_gets_what_it_draws() {
    let (evaluation, confusion, images) = (segment(), confusion(12), images(3));
    let html = Page { evaluation: &evaluation, confusion: Some(&confusion), images: &images }.html();
    let data = data(&html);
    // The most telling score first.
    assert_eq!(data["scores"], json!(["IoU", "Acc"]));
    assert_eq!(
        (&data["whole"], &data["decimals"], &data["counted"]),
        (&json!(1.0), &json!(4), &json!("pixels"))
    );
    let class = &evaluation.classes[4];
    assert_eq!(
        data["classes"][4],
        json!([4, "lizard", class.count, [class.scores["IoU"], class.scores["Acc"]]])
    );
    assert_eq!(data["classes"][36][3], json!([null, null]));
    assert_eq!(data["confusion"], json!(confusion));
    assert_eq!(data["images"], json!(images));
}

#[test]
fn the_same_input_is_the_same_page() {
    let (evaluation, confusion, images) = (classify(10), confusion(10), images(3));
    let make = || Page { evaluation: &evaluation, confusion: Some(&confusion), images: &images }.html();
    assert_eq!(make(), make());
    assert_eq!(gallery().html(), gallery().html());
}

#[test]
fn names_are_never_markup() {
    for (html, scripts) in
        [(hostile_page("http://127.0.0.1:9/"), 2), (hostile_gallery("http://127.0.0.1:9/"), 1)]
    {
        for markup in ["<img src=x", "</script><", "<!-- {{", "\u{2028}<", "<img src=http"] {
            // The document's own last script ends before the body.
            let found = html.replace("</script>\n", "").contains(markup);
            assert!(!found, "{markup}");
        }
        assert_eq!(html.matches("</script>").count(), scripts);
        assert_eq!(html.matches("</title>").count(), 1);
        assert_eq!(html.matches("</style>").count(), 1);
        // Text, as it was: what a template would fill in too.
        assert!(html.contains(
            "&lt;/script&gt;&lt;/title&gt;&lt;/style&gt;&lt;img src=x onerror=alert(1)&gt;&quot;&#39;"
        ));
        assert!(html.contains("{{data}} &amp;amp;"));
    }
    let html = hostile_page("http://127.0.0.1:9/");
    let data = data(&html);
    assert_eq!(data["classes"][0][1], json!(HOSTILE));
    assert_eq!(data["images"][0]["score"], Value::Null);
}

#[test]
fn a_gallery_has_the_nearest_images_in_order() {
    let html = gallery().html();
    check(&html, "Nearest images in photos.safetensors");
    assert_eq!(html.matches("<section class=\"query\">").count(), 3);
    assert_eq!(html.matches("<img alt=\"\" src=\"data:image/jpeg;base64,").count(), 3 + 24);
    assert!(html.contains("3 queries, 24 nearest images."));
    assert!(html.contains("<dt><bdi>Model</bdi></dt><dd><bdi>nat_mini_in1k_224</bdi></dd>"));
    let first = between(&html, "<ol class=\"hits\">", "</ol>");
    let similarities: Vec<&str> =
        first.split("<span class=\"number\">").skip(1).map(|hit| &hit[..6]).collect();
    assert_eq!(
        similarities,
        ["0.9900", "0.9600", "0.9300", "0.9000", "0.8700", "0.8400", "0.8100", "0.7800"]
    );

    let empty = Gallery {
        queries: vec![GalleryQuery { name: "a.jpg".to_owned(), ..GalleryQuery::default() }],
        ..gallery()
    };
    let html = empty.html();
    assert!(html.contains("1 query, 0 nearest images.") && html.contains("Nothing was found."));
    // A single query needs no field to find it by.
    assert!(html.contains("<div class=\"scripted\" hidden>"));
}
