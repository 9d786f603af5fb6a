//! What `--save` draws, as a user gets it: formats, sizes, legends, opacity.

use std::fs;

use image::RgbImage;
use nat_infer::results::{Detections, SavedSaliency, Segmentation};
use nat_testing::golden;
use nat_testing::place::{DIGIT, Place};

const PROGRAM: &str = env!("CARGO_BIN_EXE_nat-infer");

/// A folder with a small photograph, `photo.png`, of 40 x 30 pixels.
fn small() -> Place {
    let place = Place::of(PROGRAM);
    let image = image::open(golden::path("images/china.png")).unwrap().into_rgb8();
    let small = image::imageops::resize(&image, 40, 30, image::imageops::FilterType::Triangle);
    small.save(place.path("photo.png")).unwrap();
    place
}

/// `--weights` of a golden network, at a size that is quickly computed.
fn network(task: &str, name: &str) -> [String; 4] {
    let weights = golden::path(format!("{task}/{name}/model.pth")).to_str().unwrap().to_owned();
    ["-w".to_owned(), weights, "--scale".to_owned(), "128x96".to_owned()]
}

/// Runs a command with a network.
fn run<'a>(place: &Place, network: &'a [String; 4], arguments: &[&'a str]) -> String {
    let network: Vec<&str> = network.iter().map(String::as_str).collect();
    place.run(&[arguments, &network, &["-q"]].concat()).success()
}

fn picture(place: &Place, name: &str) -> RgbImage {
    image::open(place.path(name)).unwrap().into_rgb8()
}

#[test]
fn pictures_are_of_the_format_that_is_asked_for_and_maps_are_png() {
    let place = small();
    let (detector, segmenter) = (network("detect", "maskrcnn_s"), network("segment", "upernet_b"));
    let demo = ["--model", "demo-digits", "--method", "grad-cam", "-q"];
    for (format, extension, begin) in
        [("png", "png", &b"\x89PNG"[..]), ("jpeg", "jpg", b"\xFF\xD8\xFF"), ("webp", "webp", b"RIFF")]
    {
        let folder = |task: &str| format!("{task}-{format}");
        // Twice: what the first run made may be replaced.
        for _ in 0..2 {
            for (task, network) in [("detect", &detector), ("segment", &segmenter)] {
                run(&place, network, &[task, "photo.png", "--save", &folder(task), "--save-format", format]);
            }
            let saliency = ["saliency", "photo.png", "--save", &folder("saliency"), "--save-format", format];
            let record = place.run(&[&saliency[..], &demo].concat()).success();
            let record: SavedSaliency = serde_json::from_str(&record).unwrap();
            assert!(record.picture.ends_with(&format!("photo.{extension}")), "{}", record.picture);
        }
        for (task, maps) in
            [("detect", &[][..]), ("segment", &["photo.labels.png"]), ("saliency", &["photo.saliency.png"])]
        {
            let file = format!("photo.{extension}");
            let mut expected: Vec<String> =
                [&file[..]].iter().chain(maps).map(|&name| name.to_owned()).collect();
            expected.sort();
            let found: Vec<String> = (place.files().into_iter())
                .filter_map(|name| Some(name.strip_prefix(&format!("{}/", folder(task)))?.to_owned()))
                .collect();
            assert_eq!(found, expected, "{task} {format}");
            let bytes = fs::read(place.path(&format!("{}/{file}", folder(task)))).unwrap();
            assert!(bytes.starts_with(begin), "{task} {format}");
        }
    }
    // One picture, whatever its format.
    let png = picture(&place, "segment-png/photo.png");
    let jpeg = picture(&place, "segment-jpeg/photo.jpg");
    assert_eq!(png.dimensions(), jpeg.dimensions());
    let off: u64 = png.as_raw().iter().zip(jpeg.as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    assert!(off < 4 * png.as_raw().len() as u64, "{off}");
}

#[test]
fn somebody_elses_picture_is_not_replaced() {
    let place = small();
    let detector = network("detect", "maskrcnn_s");
    let [w, weights, ..] = &detector;
    let photo = picture(&place, "photo.png");
    place.file("out/none", "");
    for (format, file) in [("jpeg", "out/photo.jpg"), ("png", "out/photo.png")] {
        photo.save(place.path(file)).unwrap();
        let before = fs::read(place.path(file)).unwrap();
        let arguments = ["detect", "photo.png", w, weights, "--save", "out", "--save-format", format];
        let done = place.run(&arguments);
        let says = format!("{file} is there already and was not made by this program");
        assert!(done.status() == 2 && done.stderr().contains(&says), "{}", done.stderr());
        assert!(fs::read(place.path(file)).unwrap() == before);
    }
    // Nor is an image, by its own name in the other format.
    photo.save(place.path("more.jpg")).unwrap();
    let done = place.run(&["detect", "more.jpg", w, weights, "--save", ".", "--save-format", "jpeg"]);
    assert!(done.status() == 2 && done.stderr().contains("more.jpg would be replaced"), "{}", done.stderr());
}

#[test]
fn a_picture_that_its_format_has_no_room_for_is_one_line() {
    let place = Place::of(PROGRAM);
    RgbImage::from_pixel(16_400, 12, image::Rgb([90; 3])).save(place.path("a.png")).unwrap();
    place.digit("b.png");
    let arguments = ["saliency", "a.png", "b.png", "--model", "demo-digits", "--method", "grad-cam"];
    let done = place.run(&[&arguments[..], &["--save", "out", "--save-format", "webp", "-q"]].concat());
    let says = "a.webp: can't be written: a WebP file has up to 16383 pixels a side, the picture is 16400x";
    assert!(done.status() == 1 && done.stderr().contains(says), "{}", done.stderr());
    assert!(done.stdout().lines().count() == 1 && place.path("out/b.webp").exists());
}

#[test]
fn small_images_are_enlarged_and_what_is_measured_is_not() {
    let place = small();
    let record = run(&place, &network("detect", "maskrcnn_s"), &["detect", "photo.png", "--save", "detect"]);
    let record: Detections = serde_json::from_str(&record).unwrap();
    assert_eq!((record.width, record.height), (40, 30));
    let inside = |[x, y, w, h]: [f32; 4]| x >= 0.0 && y >= 0.0 && x + w <= 40.0 && y + h <= 30.0;
    assert!(!record.detections.is_empty() && record.detections.iter().all(|object| inside(object.bbox)));
    assert_eq!(record.detections[0].segmentation.as_ref().unwrap().size, [30, 40]);
    assert_eq!(picture(&place, "detect/photo.png").dimensions(), (600, 450));

    let arguments = ["segment", "photo.png", "--save", "segment", "--legend", "off", "--opacity", "0"];
    let record = run(&place, &network("segment", "upernet_b"), &arguments);
    let record: Segmentation = serde_json::from_str(&record).unwrap();
    assert_eq!((record.width, record.height), (40, 30));
    let labels = image::open(place.path("segment/photo.labels.png")).unwrap().into_luma8();
    assert_eq!(labels.dimensions(), (40, 30));

    // Between borders the picture is the photograph, each pixel fifteen times fifteen; borders lie where classes change.
    let (drawn, photo) = (picture(&place, "segment/photo.png"), picture(&place, "photo.png"));
    assert_eq!(drawn.dimensions(), (600, 450));
    let class = |x: u32, y: u32| labels.get_pixel_checked(x / 15, y / 15);
    let mut borders = 0;
    for (x, y, pixel) in drawn.enumerate_pixels() {
        let differs = |other: Option<&image::Luma<u8>>| other.is_some_and(|other| Some(other) != class(x, y));
        let is_border = differs(class(x + 1, y)) || differs(class(x, y + 1));
        let original = photo.get_pixel(x / 15, y / 15).0;
        let light = original.map(|v| (f32::from(v) + 0.7 * (255.0 - f32::from(v))).round() as u8);
        assert_eq!(pixel.0, if is_border { light } else { original }, "{x}, {y}");
        borders += u32::from(is_border);
    }
    assert!(borders > 100, "{borders}");
}

#[test]
fn a_legend_stands_where_it_is_asked_for() {
    let place = small();
    let segmenter = network("segment", "upernet_b");
    let drawn = |place_of_it: &str| {
        run(&place, &segmenter, &["segment", "photo.png", "--save", "out", "--legend", place_of_it]);
        picture(&place, "out/photo.png")
    };
    let [off, inside, beside] = ["off", "inside", "beside"].map(drawn);
    assert_eq!([off.dimensions(), inside.dimensions()], [(600, 450); 2]);
    assert!(beside.height() == 450 && (640..1000).contains(&beside.width()), "{:?}", beside.dimensions());
    let covered = off.pixels().zip(inside.pixels()).filter(|(a, b)| a != b).count();
    assert!((2000..600 * 450 / 4).contains(&covered), "{covered}");
    // Beside it no pixel is covered, and paper is white.
    assert!(off.enumerate_pixels().all(|(x, y, pixel)| beside.get_pixel(x, y) == pixel));
    assert_eq!(beside.get_pixel(beside.width() - 1, 449).0, [255; 3]);
    // As without the option.
    run(&place, &segmenter, &["segment", "photo.png", "--save", "out"]);
    assert!(picture(&place, "out/photo.png") == beside);

    let saliency = |more: &[&str]| {
        let arguments =
            ["saliency", DIGIT, "--model", "demo-digits", "--method", "grad-cam", "--save", "maps", "-q"];
        let record = place.run(&[&arguments[..], more].concat()).success();
        let record: SavedSaliency = serde_json::from_str(&record).unwrap();
        picture(&place, &record.picture)
    };
    let [off, inside, beside] = ["off", "inside", "beside"].map(|place| saliency(&["--legend", place]));
    assert_eq!(
        [off.dimensions(), inside.dimensions(), beside.dimensions()],
        [(512, 512), (512, 512), (512, 542)]
    );
    assert!(off.enumerate_pixels().all(|(x, y, pixel)| beside.get_pixel(x, y) == pixel));
    let same =
        |rows: std::ops::Range<u32>| rows.into_iter().all(|y| off.get_pixel(9, y) == inside.get_pixel(9, y));
    assert!(same(0..482) && !same(482..512));
}

#[test]
fn opacity_is_how_much_of_the_colours_is_seen() {
    let place = small();
    let segmenter = network("segment", "upernet_b");
    let drawn = |opacity: &str| {
        let arguments = ["segment", "photo.png", "--save", "out", "--legend", "off", "--palette"];
        run(&place, &segmenter, &[&arguments[..], &["--opacity", opacity]].concat());
        picture(&place, "out/photo.png")
    };
    let [none, half, all] = ["0", "0.5", "1"].map(drawn);
    let (photo, colours) = (picture(&place, "photo.png"), picture(&place, "out/photo.labels.png"));
    for (x, y) in (0..40).flat_map(|x| (0..30).map(move |y| (x, y))) {
        let of = |image: &RgbImage| image.get_pixel(15 * x + 7, 15 * y + 7).0;
        let (photo, colour) = (photo.get_pixel(x, y).0, colours.get_pixel(x, y).0);
        let mean = [0, 1, 2].map(|c| {
            (f32::from(photo[c]) + (f32::from(colour[c]) - f32::from(photo[c])) * 0.5).round() as u8
        });
        assert_eq!([of(&none), of(&half), of(&all)], [photo, mean, colour], "{x}, {y}");
    }

    let detector = network("detect", "maskrcnn_s");
    let drawn = |opacity: &str| {
        let arguments = ["detect", "photo.png", "--save", "out", "--draw-threshold", "0.05"];
        run(&place, &detector, &[&arguments[..], &["--opacity", opacity]].concat());
        picture(&place, "out/photo.png")
    };
    let [none, some, all] = ["0", "0.2", "1"].map(drawn);
    let changed = |image: &RgbImage| image.pixels().zip(none.pixels()).filter(|(a, b)| a != b).count();
    assert!(changed(&some) > 5000 && changed(&some) <= changed(&all), "{} {}", changed(&some), changed(&all));
}

#[test]
fn what_can_not_be_drawn_is_said() {
    let place = Place::of(PROGRAM);
    place.digit("a.png");
    for (arguments, says) in [
        (&["detect", "a.png", "--save", "x", "--opacity", "1.5"][..], "a number from 0 to 1 is wanted"),
        (&["segment", "a.png", "--save", "x", "--opacity", "half"], "a number from 0 to 1 is wanted"),
        (&["segment", "a.png", "--save", "x", "--save-format", "gif"], "possible values: png, jpeg, webp"),
        (&["segment", "a.png", "--save", "x", "--legend", "above"], "possible values: inside, beside, off"),
        (&["segment", "a.png", "--legend", "off"], "--save <DIR>"),
        (&["detect", "a.png", "--save-format", "jpeg"], "--save <DIR>"),
        (&["detect", "a.png", "--opacity", "0.2"], "--save <DIR>"),
    ] {
        let done = place.run(arguments);
        assert!(done.status() == 2 && done.stderr().contains(says), "{arguments:?}: {}", done.stderr());
    }
}
