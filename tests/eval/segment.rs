//! `eval segment`.

use std::fs;
use std::path::Path;

use nat_infer::results::Evaluation;
use nat_testing::golden;
use nat_testing::place::Place;

use super::{PROGRAM, lasting, report};

/// A segmenter against its golden label map of several sizes: what it finds is what its golden map of one size scores.
#[test]
fn a_segmenter_scores_what_its_label_maps_score() {
    let place = Place::of(PROGRAM);
    let folder = golden::path("segment/upernet_b");
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    for name in ["a", "b", "broken"] {
        place.file(&format!("data/images/{name}.png"), read("image.png"));
        place.file(&format!("data/annotations/{name}.png"), read("label_ms.png"));
    }
    place.file("data/images/broken.png", "no picture");
    for name in ["a", "b"] {
        place.file(&format!("predicted/{name}.labels.png"), read("label.png"));
        // The picture that `segment --save` leaves beside it.
        place.file(&format!("predicted/{name}.png"), read("image.png"));
    }
    let weights = folder.join("model.pth");
    let model = ["--weights", weights.to_str().unwrap(), "--scale", "800x201"];
    let by_model =
        [&["eval", "segment", "--data", "data", "-o", "r.json", "--report", "page"][..], &model].concat();
    let done = place.run(&by_model);
    assert_eq!(done.status(), 1, "{}", done.stderr());
    let evaluation = report(&place.path("r.json"));
    let done = place.run(&[
        "eval",
        "segment",
        "--annotations",
        "data/annotations",
        "--results",
        "predicted",
        "--classes",
        "21",
        "-o",
        "s.json",
    ]);
    assert_eq!(done.status(), 1);
    let of_maps = report(&place.path("s.json"));
    for evaluation in [&evaluation, &of_maps] {
        assert_eq!((evaluation.images, evaluation.failed.len()), (3, 1));
        // A third of all pixels has no answer: they are missed.
        let missed: u64 = evaluation.failed[0].pixels.iter().map(|(.., pixels)| pixels).sum();
        let all: u64 = evaluation.classes.iter().map(|class| class.count).sum();
        assert_eq!(3 * missed, all);
        assert!(evaluation.failed[0].pixels.iter().all(|(_, predicted, _)| *predicted == 21));
    }
    let [got, wanted] = [&evaluation, &of_maps].map(|evaluation| evaluation.metrics.figures());
    for ((name, got), (_, wanted)) in got.iter().zip(&wanted) {
        assert!((got.unwrap() - wanted.unwrap()).abs() < 1e-3, "{name}: {got:?}, not {wanted:?}");
    }
    let page = fs::read_to_string(place.path("page/report.html")).unwrap();
    assert!(page.contains("a.png") && page.contains("data:image/jpeg"));
    for shard in ["1/3", "2/3", "3/3"] {
        let name = format!("part{}.json", &shard[..1]);
        place.run(
            &[&["eval", "segment", "--data", "data", "--shard", shard, "-o", &name][..], &model].concat(),
        );
    }
    place.run(&["eval", "merge", "part1.json", "part2.json", "part3.json", "-o", "merged.json"]);
    assert_eq!(lasting(&report(&place.path("merged.json"))), lasting(&evaluation));
    // Of a label map that was corrected the image is computed again, and no other one is.
    let lines = || -> Vec<String> {
        fs::read_to_string(place.path("r.images.jsonl")).unwrap().lines().map(str::to_owned).collect()
    };
    let before = lines();
    place.file("data/annotations/a.png", read("label.png"));
    let done = place.run(&[&by_model[..], &["--resume"]].concat());
    let after = lines();
    assert_eq!((done.status(), before.len(), after.len()), (1, 2, 2), "{}", done.stderr());
    assert!(after.contains(&before[1]) && !after.contains(&before[0]));
    let accuracy = |evaluation: &Evaluation| evaluation.metrics.figures()[2].1.unwrap();
    assert!(accuracy(&report(&place.path("r.json"))) > accuracy(&evaluation));
    // Where none is left, it begins anew, whatever an earlier run ended with.
    let ended = fs::read(place.path("r.images.jsonl")).unwrap();
    place.file("r.images.jsonl.partial", after[0].clone() + "\n" + &after[1] + "\n");
    for name in ["a", "b"] {
        place.file(
            &format!("data/annotations/{name}.png"),
            grey_png(image_size(&folder.join("image.png")), 3),
        );
    }
    let done = place.run(&[&by_model[..], &["--resume"]].concat());
    assert!(done.stderr().contains("the annotations of 2 images have changed since"), "{}", done.stderr());
    let pixels: u64 = report(&place.path("r.json")).classes[3].count;
    let [width, height] = image_size(&folder.join("image.png")).map(u64::from);
    assert_eq!((done.status(), pixels >= 2 * width * height), (1, true));
    assert_ne!(fs::read(place.path("r.images.jsonl")).unwrap(), ended);
    // A label that is no class ends the run: what it means for the others nobody knows.
    place.file("data/annotations/a.png", grey_png([347, 239], 21));
    fs::remove_file(place.path("data/images/broken.png")).unwrap();
    fs::remove_file(place.path("data/annotations/broken.png")).unwrap();
    let size = image_size(&folder.join("image.png"));
    place.file("data/annotations/a.png", grey_png(size, 21));
    let done = place.run(&[&["eval", "segment", "--data", "data"][..], &model].concat());
    assert_eq!((done.status(), done.stdout().as_str()), (1, ""));
    assert!(done.stderr().contains("a.png: ") && done.stderr().contains("21"), "{}", done.stderr());
    place.file("data/annotations/a.png", grey_png([size[0] + 1, size[1]], 1));
    let done = place.run(&[&["eval", "segment", "--data", "data", "--format", "json"][..], &model].concat());
    assert_eq!(done.status(), 1);
    let evaluation: Evaluation = serde_json::from_str(&done.stdout()).unwrap();
    assert!(
        evaluation.failed.len() == 1 && evaluation.failed[0].error.contains("and its image"),
        "{evaluation:?}"
    );
}

fn image_size(path: &Path) -> [u32; 2] {
    let (width, height) = image::image_dimensions(path).unwrap();
    [width, height]
}

fn grey_png([width, height]: [u32; 2], value: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = image::GrayImage::from_pixel(width, height, image::Luma([value]));
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}
