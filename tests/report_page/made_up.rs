//! Evaluations that nobody measured, with pictures of discs.

use std::collections::BTreeMap;

use image::RgbImage;
use nat_infer::eval::gallery::{Gallery, GalleryHit, GalleryQuery};
use nat_infer::eval::page::{Confusion, Page, PageImage};
use nat_infer::eval::thumbnail;
use nat_infer::results::{
    ClassScores, CocoMetrics, CocoSummary, Evaluation, EvaluationSettings, FailedImage, KnnAccuracy, Metrics,
    PanopticMetrics, PanopticQuality, PixelMetrics, ShardNumber, TopAccuracy,
};
use serde_json::json;

/// A name that wants to be markup wherever it comes to stand.
pub const HOSTILE: &str = "</script></title></style><img src=x onerror=alert(1)>\"' onload='alert(2) <!-- {{data}} &amp; \u{2028}\u{202e}";

pub fn evaluation(task: &str, metrics: Metrics, classes: Vec<ClassScores>) -> Evaluation {
    Evaluation {
        task: task.to_owned(),
        model: Some("nat_mini_in1k_224".to_owned()),
        weights_sha256: Some("3f5c8a0e".repeat(8)),
        run: String::new(),
        metrics,
        images: 50_000,
        failed: vec![
            FailedImage {
                image: "val/n01440764/broken.JPEG".to_owned(),
                error: "the file ends early".to_owned(),
                ..FailedImage::default()
            },
            FailedImage {
                image: "val/n01440764/empty.JPEG".to_owned(),
                error: "0 bytes".to_owned(),
                ..FailedImage::default()
            },
        ],
        settings: EvaluationSettings {
            data: "imagenet/val".to_owned(),
            preprocessing: Some("resize 256 bicubic, crop 224".to_owned()),
            exif: Some("ignore".to_owned()),
            dtype: Some("f32".to_owned()),
            device: Some("cpu avx512".to_owned()),
            batch_size: Some(32),
            limit: Some(50_000),
            shard: Some(ShardNumber { index: 2, count: 4 }),
            options: BTreeMap::from([
                ("real".to_owned(), json!("real.json")),
                ("flip".to_owned(), json!(true)),
            ]),
            ..EvaluationSettings::default()
        },
        versions: BTreeMap::from([("nat-infer".to_owned(), "0.1.0".to_owned())]),
        seconds: 725.25,
        images_per_second: 68.94,
        published: BTreeMap::new(),
        classes,
    }
}

/// Words that tell classes apart.
pub fn label(index: usize) -> String {
    const ADJECTIVES: [&str; 10] =
        ["grey", "great", "small", "northern", "red", "striped", "common", "tree", "water", "desert"];
    const NOUNS: [&str; 10] =
        ["fox", "owl", "beetle", "tern", "lizard", "shark", "spaniel", "kite", "mushroom", "teapot"];
    let (noun, adjective) = (NOUNS[index % 10], ADJECTIVES[index / 10 % 10]);
    if index < 10 { noun.to_owned() } else { format!("{adjective} {noun} {}", index / 100) }
}

/// Numbers from 0 to 1 that look like chance.
pub fn made_up(index: usize) -> f64 {
    let mixed = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D;
    (mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / f64::from(1 << 24)
}

pub fn classes(count: usize, names: &[&str], whole: f64) -> Vec<ClassScores> {
    let class = |index: usize| ClassScores {
        index,
        label: label(index),
        count: 40 + (20.0 * made_up(index + 7)) as u64,
        scores: names
            .iter()
            .enumerate()
            .map(|(place, name)| {
                let score = whole * (1.0 - 0.8 * made_up(index * 3 + place).powi(2));
                ((*name).to_owned(), (index % 37 != 36).then_some(score))
            })
            .collect(),
    };
    (0..count).map(class).collect()
}

pub fn classify(count: usize) -> Evaluation {
    let metrics = TopAccuracy {
        top1: 81.8123,
        top5: Some(95.9),
        real_top1: Some(87.02),
        real_top5: Some(97.5),
        real_images: Some(46_837),
    };
    let mut evaluation =
        evaluation("classify", Metrics::Classify(metrics), classes(count, &["top1", "top5"], 100.0));
    evaluation.published = BTreeMap::from([("top1".to_owned(), 81.8)]);
    evaluation
}

pub fn segment() -> Evaluation {
    let count = 150;
    let metrics = PixelMetrics {
        mean_iou: Some(0.46987),
        mean_accuracy: Some(0.5812),
        all_accuracy: Some(0.8234),
        iou: vec![Some(0.4); count],
        accuracy: vec![None; count],
    };
    let mut evaluation =
        evaluation("segment", Metrics::Segment(metrics), classes(count, &["Acc", "IoU"], 1.0));
    evaluation.published =
        BTreeMap::from([("mIoU".to_owned(), 0.464), ("mIoU_multi_scale".to_owned(), 0.481)]);
    evaluation
}

pub fn panoptic() -> Evaluation {
    let quality = |pq, n| PanopticQuality { pq, sq: Some(81.5), rq: Some(60.25), n };
    let metrics = PanopticMetrics {
        all: quality(Some(48.5), 133),
        things: quality(Some(54.3), 80),
        stuff: quality(None, 53),
    };
    evaluation("panoptic", Metrics::Panoptic(metrics), classes(133, &["PQ", "RQ", "SQ"], 100.0))
}

pub fn knn() -> Evaluation {
    let metrics = KnnAccuracy { knn_top1: 78.125, neighbors: 20 };
    evaluation("knn", Metrics::Knn(metrics), classes(10, &["knn_top1"], 100.0))
}

pub fn detect() -> Evaluation {
    let summary = |ap: f64| CocoSummary {
        ap,
        ap50: ap + 0.21,
        ap75: ap + 0.043,
        ap_small: -1.0,
        ap_medium: ap + 0.03,
        ap_large: ap + 0.15,
        ar1: 0.36,
        ar10: 0.57,
        ar100: 0.6,
        ar_small: -1.0,
        ar_medium: 0.64,
        ar_large: 0.74,
    };
    let metrics = CocoMetrics { bbox: Some(summary(0.4712)), segm: Some(summary(0.4265)) };
    let mut evaluation =
        evaluation("detect", Metrics::Detect(metrics), classes(80, &["bbox AP", "segm AP"], 1.0));
    evaluation.published = BTreeMap::from([("bbox.AP".to_owned(), 0.47), ("segm.AP".to_owned(), 0.426)]);
    evaluation
}

pub fn confusion(count: usize) -> Confusion {
    let mut counts = Vec::new();
    for truth in 0..count {
        let right = (30.0 + 20.0 * made_up(truth)) as u64;
        counts.push((truth, truth, right));
        for step in 0..6 {
            // Classes near in number are confused most.
            let near = 1 + (made_up(truth * 11 + step) * if step < 4 { 8.0 } else { count as f64 }) as usize;
            let wrong = (12.0 * made_up(truth * 13 + step).powi(3)) as u64;
            if wrong > 0 && !near.is_multiple_of(count) {
                counts.push((truth, (truth + near) % count, wrong));
            }
        }
        if truth % 7 == 3 {
            counts.push((truth, count, 2));
        }
    }
    counts.sort_unstable();
    counts.dedup_by_key(|(truth, answer, _)| (*truth, *answer));
    Confusion { labels: (0..count).map(label).collect(), counts }
}

/// Something to look at: a disc on a slope.
pub fn picture(index: usize) -> String {
    let [x0, y0, r] = [0, 1, 2].map(|k| 20.0 + 60.0 * made_up(index * 5 + k));
    let image = RgbImage::from_fn(160, 120, |x, y| {
        let inside = (f64::from(x) - x0 - 20.0).hypot(f64::from(y) - y0) < r / 2.0 + 10.0;
        if inside { image::Rgb([230, 160, 60]) } else { image::Rgb([(40 + x) as u8, (90 + y) as u8, 120]) }
    });
    thumbnail(&image).unwrap()
}

pub fn images(count: usize) -> Vec<PageImage> {
    let image = |index: usize| {
        let score = made_up(index + 3);
        PageImage {
            name: format!("val/n{:08}/ILSVRC2012_val_{index:08}.JPEG", 1_440_764 + index % 10),
            score,
            right: Some(score > 0.4),
            truth: label(index % 10),
            answer: if score > 0.4 { label(index % 10) } else { label((index + 3) % 10) },
            picture: (index % 9 != 8).then(|| picture(index)),
        }
    };
    (0..count).map(image).collect()
}

pub fn gallery() -> Gallery {
    let hit = |place: usize| GalleryHit {
        name: format!("photos/2024/{}_{place}.jpg", label(place % 10)),
        similarity: 0.99 - 0.03 * place as f32,
        picture: Some(picture(place + 40)),
    };
    let query = |index: usize| GalleryQuery {
        name: format!("queries/{}.jpg", label(index)),
        picture: Some(picture(index)),
        nearest: (0..8).map(|place| hit(place + index)).collect(),
    };
    Gallery {
        title: "Nearest images in photos.safetensors".to_owned(),
        details: vec![
            ("Index".to_owned(), "photos.safetensors, 12,345 images".to_owned()),
            ("Model".to_owned(), "nat_mini_in1k_224".to_owned()),
        ],
        queries: (0..3).map(query).collect(),
    }
}

/// A report all of whose names want to be markup, and pictures that want to be fetched from `address`.
pub fn hostile_page(address: &str) -> String {
    let hostile = || HOSTILE.to_owned();
    let mut evaluation = classify(10);
    evaluation.model = Some(hostile());
    evaluation.weights_sha256 = Some(hostile());
    evaluation.failed = vec![FailedImage { image: hostile(), error: hostile(), ..FailedImage::default() }];
    evaluation.settings.data = hostile();
    evaluation.settings.annotations = Some(hostile());
    evaluation.settings.results = Some(hostile());
    evaluation.settings.options =
        BTreeMap::from([(hostile(), json!(hostile())), ("b".to_owned(), json!([hostile()]))]);
    evaluation.versions = BTreeMap::from([(hostile(), hostile())]);
    evaluation.published = BTreeMap::from([(hostile(), 1.0)]);
    for class in &mut evaluation.classes {
        class.label = hostile();
        class.scores.insert(hostile(), Some(1.0));
    }
    let mut confusion = confusion(10);
    confusion.labels = vec![hostile(); 10];
    confusion.counts.push((11, 0, 1));
    confusion.counts.push((0, 12, 1));
    let image = |picture: String| PageImage {
        name: hostile(),
        score: f64::NAN,
        right: None,
        truth: hostile(),
        answer: hostile(),
        picture: Some(picture),
    };
    let images = [image(address.to_owned()), image(format!("data:image/jpeg;base64,\"><img src={address}>"))];
    Page { evaluation: &evaluation, confusion: Some(&confusion), images: &images }.html()
}

pub fn hostile_gallery(address: &str) -> String {
    let hostile = || HOSTILE.to_owned();
    let hit = |picture: String| GalleryHit { name: hostile(), similarity: f32::NAN, picture: Some(picture) };
    let nearest =
        vec![hit(address.to_owned()), hit(format!("data:image/jpeg;base64,\"><img src={address}>"))];
    let query = GalleryQuery { name: hostile(), picture: Some(address.to_owned()), nearest };
    let queries = vec![query, GalleryQuery { name: "nothing like it".to_owned(), ..GalleryQuery::default() }];
    Gallery { title: hostile(), details: vec![(hostile(), hostile())], queries }.html()
}
