//! Label maps, as with mmsegmentation.

use std::fs;
use std::path::PathBuf;

use nat_infer::eval::label_maps::{
    LabelIds, LabelImage, LabelPair, LabelRules, PixelCounts, image_iou, pairs, prediction_of, read_labels,
};
use nat_testing::golden;

use crate::{TOLERANCE, assert_all_close, assert_close, expected, folder, grey};

/// The scores are mmsegmentation's, and the parts of a run put together are the whole.
#[test]
fn label_maps_score_as_with_mmsegmentation() {
    let expected = expected();
    let classes = expected["segment"]["classes"].as_u64().unwrap() as usize;
    let set =
        |side: &str, i: usize| read_labels(&golden::path(format!("eval/segment/{side}/{i}.png"))).unwrap();
    for (what, reduce) in [("plain", false), ("reduce_zero_label", true)] {
        let rules = LabelRules::new(classes, reduce);
        let mut counts = PixelCounts::new(rules).unwrap();
        let mut shards = [PixelCounts::new(rules).unwrap(), PixelCounts::new(rules).unwrap()];
        for i in 0..8 {
            let sparse = counts.add(&set("truth", i), Some(&set("predicted", i))).unwrap();
            let text = serde_json::to_string(&sparse).unwrap();
            shards[i % 2].add_sparse(&serde_json::from_str::<Vec<_>>(&text).unwrap()).unwrap();
            // The image alone.
            let mut alone = PixelCounts::new(rules).unwrap();
            alone.add_sparse(&sparse).unwrap();
            let wanted = alone.metrics().mean_iou.unwrap();
            assert!((image_iou(&sparse, rules).unwrap() - wanted).abs() < TOLERANCE);
        }
        let metrics = counts.metrics();
        let expected = &expected["segment"][what];
        assert_close(metrics.mean_iou.unwrap(), &expected["mIoU"], what);
        assert_close(metrics.mean_accuracy.unwrap(), &expected["mAcc"], what);
        assert_close(metrics.all_accuracy.unwrap(), &expected["aAcc"], what);
        assert_all_close(&metrics.iou, &expected["IoU"], what);
        assert_all_close(&metrics.accuracy, &expected["Acc"], what);
        let [mut one, other] = shards;
        one.merge(&other).unwrap();
        assert_eq!(one, counts, "{what}");
        let rows = counts.class_scores(&["zero".to_owned()]);
        assert_eq!((rows[0].label.as_str(), rows[1].label.as_str(), rows.len()), ("zero", "1", classes));
        assert_eq!(rows[3].scores["IoU"], metrics.iou[3]);
        assert_eq!(rows[3].scores["Acc"], metrics.accuracy[3]);
        assert_eq!(rows[8].count, 0);
    }
}

#[test]
fn pixels_are_counted_by_the_rules() {
    let map = |name: &str, values: &[u16]| LabelImage {
        name: name.to_owned(),
        size: [values.len(), 1],
        values: values.to_vec(),
    };
    let count = |rules, truth: &[u16], predicted: Option<&[u16]>| {
        let mut counts = PixelCounts::new(rules).unwrap();
        let predicted = predicted.map(|values| map("p", values));
        let sparse = counts.add(&map("t", truth), predicted.as_ref());
        sparse.map(|sparse| (sparse, counts.metrics().all_accuracy)).map_err(|error| error.to_string())
    };
    let (plain, reduced) = (LabelRules::new(2, false), LabelRules::new(2, true));
    for (rules, truth, predicted, wanted) in [
        (
            plain,
            &[0, 0, 1, 255][..],
            Some(&[0, 1, 1, 9][..]),
            Ok((vec![(0, 0, 1), (0, 1, 1), (1, 1, 1)], Some(2.0 / 3.0))),
        ),
        // No prediction, or one of no class, is missed.
        (plain, &[0, 0, 1, 255], None, Ok((vec![(0, 2, 2), (1, 2, 1)], Some(0.0)))),
        (plain, &[0, 1], Some(&[0, 255]), Ok((vec![(0, 0, 1), (1, 2, 1)], Some(0.5)))),
        (reduced, &[0, 1, 2, 255], Some(&[0, 0, 0, 0]), Ok((vec![(0, 0, 1), (1, 0, 1)], Some(0.5)))),
        (plain, &[255, 255], Some(&[0, 0]), Ok((vec![], None))),
        (
            plain,
            &[0, 2],
            Some(&[0, 0]),
            Err(
                "t: its label 2 is none of 2 classes, nor 255, which is ignored; in ADE20K's files 0 is no class, which reduce_zero_label is for",
            ),
        ),
        (
            plain,
            &[0, 3],
            Some(&[0, 0]),
            Err("t: its label 3 is none of 2 classes, nor 255, which is ignored"),
        ),
        (
            reduced,
            &[0, 3],
            Some(&[0, 0]),
            Err("t: its label 3 is none of 2 classes, nor 255, which is ignored"),
        ),
        (
            plain,
            &[0, 1],
            Some(&[0, 2]),
            Err("p: its label 2 is none of 2 classes, which count from 0 in predictions"),
        ),
        (
            plain,
            &[0, 1],
            Some(&[0]),
            Err("p: 1x1 pixels, and t has 2x1; a prediction for the image's size is wanted"),
        ),
    ] {
        assert_eq!(count(rules, truth, predicted), wanted.map_err(str::to_owned), "{truth:?} {predicted:?}");
    }
    // 256 of 16 bits is 255 when it is shifted, which doesn't count.
    let many = LabelRules::new(300, true);
    assert_eq!(count(many, &[256, 257], Some(&[0, 256])), Ok((vec![(256, 256, 1)], Some(1.0))));

    assert_eq!(image_iou(&[], plain), None);
    assert_eq!(image_iou(&[(0, 2, 5)], plain), Some(0.0));
    assert_eq!(image_iou(&[(0, 0, 3), (0, 1, 1)], plain), Some(0.375));
    for classes in [0, 4097, usize::MAX] {
        let error = PixelCounts::new(LabelRules::new(classes, false)).unwrap_err().to_string();
        assert_eq!(error, format!("classes: {classes} of them can't be counted; from 1 to 4096 can"));
    }
    let mut counts = PixelCounts::new(plain).unwrap();
    for sparse in [(2, 0, 1), (0, 3, 1)] {
        assert!(counts.add_sparse(&[(0, 0, 1), sparse]).is_err());
    }
    assert!(counts.merge(&PixelCounts::new(reduced).unwrap()).is_err());
    assert_eq!(counts.metrics().all_accuracy, None);
}

#[test]
fn images_find_their_label_maps() {
    let ade = ["images/validation", "annotations/validation"];
    let cityscapes = ["leftImg8bit/val", "gtFine/val"];
    let map = grey([1, 1], &[1]);
    for (data, annotations, [images, labels], others) in [
        ("", "", ade, &["images/training", "annotations/training"][..]),
        ("images/validation", "", ade, &["annotations/training"]),
        ("", "annotations/validation", ade, &["images/training"]),
        ("", "", ["images", "labels"], &[]),
        ("images", "", ["images", "annotations"], &[]),
        ("", "", cityscapes, &["leftImg8bit/train"]),
        ("leftImg8bit/val", "", cityscapes, &[]),
        ("p", "q", ["p", "q"], &["images", "annotations"]),
    ] {
        let files = [
            format!("{images}/b.jpg"),
            format!("{images}/deep/a.JPEG"),
            format!("{labels}/b.png"),
            format!("{labels}/deep/a.png"),
            format!("{labels}/.hidden.png"),
            format!("{labels}/notes.txt"),
        ];
        let files: Vec<(&str, &[u8])> = files.iter().map(|name| (name.as_str(), map.as_slice())).collect();
        let folder = folder(&files);
        others.iter().for_each(|other| fs::create_dir_all(folder.path().join(other)).unwrap());
        let annotations = (!annotations.is_empty()).then(|| folder.path().join(annotations));
        let found = pairs(&folder.path().join(data), annotations.as_deref());
        let found = found.unwrap_or_else(|error| panic!("{images} {labels}: {error}"));
        assert_eq!((found.images, found.labels), (folder.path().join(images), folder.path().join(labels)));
        let below: Vec<(&str, PathBuf)> = found
            .pairs
            .iter()
            .map(|pair| (pair.image.below.to_str().unwrap(), pair.labels.clone()))
            .collect();
        let path = |name| folder.path().join(labels).join(name);
        assert_eq!(below, [("b.jpg", path("b.png")), ("deep/a.JPEG", path("deep/a.png"))]);
        assert!(found.pairs.iter().all(|pair| pair.ids == LabelIds::Classes));
    }
}

#[test]
fn cityscapes_ids_become_classes() {
    let ids = grey([6, 2], &[0, 7, 8, 11, 34, 33, 29, 30, 31, 32, 255, 26]);
    let classes = grey([1, 1], &[3]);
    let files: [(&str, &[u8]); 9] = [
        ("leftImg8bit/val/ulm/ulm_1_leftImg8bit.png", b""),
        ("leftImg8bit/val/ulm/ulm_2_leftImg8bit.png", b""),
        ("gtFine/val/ulm/ulm_1_gtFine_labelIds.png", &ids),
        ("gtFine/val/ulm/ulm_1_gtFine_color.png", &ids),
        ("gtFine/val/ulm/ulm_1_gtFine_instanceIds.png", &ids),
        ("gtFine/val/ulm/ulm_2_gtFine_labelIds.png", &ids),
        ("gtFine/val/ulm/ulm_2_gtFine_labelTrainIds.png", &classes),
        ("gtFine/val/ulm/ulm_2_gtFine_polygons.json", b"{}"),
        ("results/ulm_1_leftImg8bit.png", &classes),
    ];
    let folder = folder(&files);
    let found = pairs(folder.path(), None).unwrap();
    assert_eq!(
        found.pairs.iter().map(|pair| pair.ids).collect::<Vec<_>>(),
        [LabelIds::Cityscapes, LabelIds::Classes]
    );
    assert_eq!(found.pairs[0].read().unwrap().values, [255, 0, 1, 2, 255, 18, 255, 255, 16, 17, 255, 13]);
    assert_eq!(found.pairs[1].read().unwrap().values, [3]);
    let results = folder.path().join("results");
    assert_eq!(prediction_of(&found.pairs[0], &results).unwrap(), results.join("ulm_1_leftImg8bit.png"));

    fs::remove_file(folder.path().join("leftImg8bit/val/ulm/ulm_2_leftImg8bit.png")).unwrap();
    let error = pairs(folder.path(), None).unwrap_err().to_string();
    assert!(
        error.contains(
            "gtFine/val: 2 of its label maps have no image, the first is ulm/ulm_2_gtFine_labelIds.png;"
        ),
        "{error}"
    );
}

#[test]
fn images_and_label_maps_that_are_alone_are_an_error() {
    for (files, data, annotations, says) in [
        (
            &["i/a.jpg", "i/b.jpg", "i/c.jpg", "l/b.png"][..],
            "i",
            Some("l"),
            "/i: 2 of its images have no label map, the first is a.jpg: there is no ",
        ),
        (
            &["i/a.jpg", "l/a.png", "l/x/b.png", "l/c.png"],
            "i",
            Some("l"),
            "/l: 2 of its label maps have no image, the first is c.png; use",
        ),
        (
            &["i/a.jpg", "i/a.png", "l/a.png"],
            "i",
            Some("l"),
            "/i: a.jpg and a.png would have one label map; rename one",
        ),
        (
            &["i/a.jpg", "l/a.png"],
            "i",
            None,
            "/i: no label maps are known of this folder (images/validation + annotations/validation, ",
        ),
        (&["i/a.txt", "l/a.png"], "i", Some("l"), "/i: no image in this folder or below it (jpg, "),
        (&["i/a.jpg"], "i", Some("l"), "/l: no such folder"),
        (&["i/a.jpg", "l"], "i", Some("l"), "/l: a file; a folder is wanted"),
        (&["i/a.jpg"], "j", None, "/j: no such folder"),
    ] {
        let files: Vec<(&str, &[u8])> = files.iter().map(|&name| (name, &b""[..])).collect();
        let folder = folder(&files);
        let annotations = annotations.map(|name| folder.path().join(name));
        let error = pairs(&folder.path().join(data), annotations.as_deref()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}, not {says}");
    }
}

#[test]
fn predictions_are_called_as_images_or_labels() {
    let files: Vec<(&str, &[u8])> =
        ["i/x/a.jpg", "i/y/a.jpg", "i/y/b.jpg", "l/x/a.png", "l/y/a.png", "l/y/b.png"]
            .map(|name| (name, &b""[..]))
            .into();
    let folder = folder(&files);
    let found = pairs(&folder.path().join("i"), Some(&folder.path().join("l"))).unwrap();
    let pair = |at: usize| -> &LabelPair { &found.pairs[at] };
    let results = folder.path().join("r");
    let error = prediction_of(pair(0), &results).unwrap_err().to_string();
    assert!(
        error.contains("r/x/a.png: no such file, nor a.labels.png: the image has no prediction"),
        "{error}"
    );
    for (at, there, finds) in [
        (0, "x/a.png", true),
        (0, "x/a.labels.png", true),
        (0, "x/a.jpg.labels.png", true),
        // Which of two it is can't be known.
        (0, "a.png", false),
        (2, "b.png", true),
        (2, "b.labels.png", true),
        (2, "x/b.png", false),
    ] {
        let place = results.join(there);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, b"").unwrap();
        assert_eq!(prediction_of(pair(at), &results).ok(), finds.then(|| place.clone()), "{there}");
        fs::remove_file(&place).unwrap();
    }
}
