"""The same answers as the program's, to the bit, and their arrays and pictures."""

import json
import pickle
import warnings

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import nat_infer as ni

CLASSIFIERS = [
    "nat-k7",
    "dinat-k7-f16",
    "dinat-s",
    "nat-iso",
    "nat-k5-layerscale-ema",
    "nat-padded",
    "vit-rpb",
]
DETECTORS = ["cascade_a/model_legacy.pth", "cascade_b/model.pth", "maskrcnn_s/model.pth"]
SEGMENTERS = ["upernet_b/model.pth"]


def quietly(path, **options):
    """A model of golden data: their networks have no names of classes, and not all say their dilations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ni.CheckpointWarning)
        return ni.load(path, **options)


def scale_of(weights):
    """The bounds that the answers beside a checkpoint were computed with."""
    golden = json.loads(weights.with_name("golden.json").read_text())
    return tuple(golden["spec"]["img_scale"])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classes_are_those_of_the_program(golden, records, name):
    path, image = golden / "classify" / f"{name}.pth", golden / "images" / "chelsea.png"
    model = quietly(path)
    expected = records("classify", image, golden / "images" / "rocket.png", "--weights", path, "--top-k", 7)
    got = model.classify([image, golden / "images" / "rocket.png"], top_k=7)
    assert [answer.to_dict() for answer in got] == expected
    assert got[0].top[0]["score"] >= got[0].top[1]["score"] and len(got[0].top) == 7
    assert model.classify(image, top_k=7) == got[0]


@pytest.mark.parametrize("name", ["nat-k7", "nat-padded", "dinat-s"])
def test_features_are_those_of_pytorch_and_of_the_program(golden, program, tmp_path, name):
    path = golden / "classify" / f"{name}.pth"
    spec = json.loads((golden / "classify" / f"{name}.json").read_text())
    expected = load_file(golden / "classify" / f"{name}.safetensors")
    image = golden / "images" / "chelsea.png"
    model = quietly(path)
    resolution = expected["input"].shape[-1]
    got = model.features(image, resolution=resolution, crop_pct=spec.get("crop_pct"))
    done = program(
        "nat-infer",
        "features",
        image,
        "--weights",
        path,
        "--save",
        tmp_path,
        "--resolution",
        resolution,
        *(["--crop-pct", spec["crop_pct"]] if "crop_pct" in spec else []),
    )
    assert done.returncode == 0, done.stderr
    ours = load_file(tmp_path / "chelsea.safetensors")
    assert got.keys() == ours.keys() and got.model == model.name and got.image == str(image)
    for key, values in ours.items():
        assert got[key].dtype == np.float32 and np.array_equal(got[key], values), key
    vectors = model.embed([image, image], resolution=resolution, crop_pct=spec.get("crop_pct"))
    assert np.array_equal(vectors, np.concatenate([got["pooled"]] * 2))
    one = model.embed(image, resolution=resolution, crop_pct=spec.get("crop_pct"))
    assert one.shape == (got["pooled"].shape[1],) and np.array_equal(one, vectors[0])


@pytest.mark.parametrize("name", DETECTORS)
def test_objects_are_those_of_the_program(golden, records, tmp_path, name):
    weights = golden / "detect" / name
    image, scale = weights.with_name("image.png"), scale_of(weights)
    flags = ["--weights", weights, "--scale", "x".join(map(str, scale))]
    expected = records("detect", image, *flags, "--save", tmp_path, "--draw-threshold", 0.06)
    model = quietly(weights)
    got = model.detect(image, scale=scale)
    assert got.to_dict() == expected[0] and got.detections
    json.dumps(got.to_dict())

    shape = (got.height, got.width)
    for found, mask in zip(got.detections, got.masks, strict=True):
        assert found["mask"].shape == shape and found["mask"].dtype == bool
        assert np.array_equal(found["mask"], mask) and np.array_equal(
            ni.decode_mask(found["segmentation"]), mask
        )
    left, top, width, height = got.detections[0]["bbox"]
    assert np.allclose(got.boxes[0], [left, top, left + width, top + height])

    rle = model.detect(image, scale=scale, masks="rle")
    assert rle == expected[0] and np.array_equal(rle.masks, got.masks)
    bare = model.detect(image, scale=scale, masks=None)
    assert all(
        found.keys() == {"category_id", "index", "label", "score", "bbox"} for found in bare.detections
    )
    with pytest.raises(ValueError, match="no masks"):
        _ = bare.masks
    few = model.detect(image, scale=scale, max_detections=2, score_threshold=0.06)
    assert few.to_dict()["detections"] == [d for d in expected[0]["detections"] if d["score"] > 0.06][:2]

    picture = np.asarray(got.plot(threshold=0.06))
    assert np.array_equal(picture, np.asarray(Image.open(tmp_path / "image.png")))


def test_objects_in_cocos_form(golden):
    weights = golden / "detect" / "maskrcnn_s" / "model.pth"
    images = [weights.with_name("image.png")] * 2
    results = quietly(weights).detect(images, scale=scale_of(weights), masks="rle")
    coco = ni.to_coco(results)
    keys = {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert all(found.keys() == keys for found in coco) and {found["image_id"] for found in coco} == {1, 2}
    assert coco[0]["bbox"] == results[0].detections[0]["bbox"]
    assert ni.to_coco(results, [7, 9])[-1]["image_id"] == 9
    with pytest.raises(ValueError, match="1 image_ids are given for 2 results"):
        ni.to_coco(results, [7])


@pytest.mark.parametrize("name", SEGMENTERS)
def test_regions_are_those_of_the_program(golden, records, tmp_path, name):
    weights = golden / "segment" / name
    image, scale = weights.with_name("image.png"), scale_of(weights)
    flags = ["--weights", weights, "--scale", "x".join(map(str, scale))]
    model = quietly(weights)
    for legend, opacity in [("beside", 0.5), ("inside", 0.7), ("off", 0.0)]:
        style = ["--legend", legend, "--opacity", opacity]
        expected = records("segment", image, *flags, "--save", tmp_path, *style)
        got = model.segment(image, scale=scale)
        assert got.to_dict() == expected[0]
        assert got.labels.dtype == np.uint8 and got.labels.shape == (got.height, got.width)
        assert np.array_equal(got.labels, np.asarray(Image.open(tmp_path / "image.labels.png")))
        picture = np.asarray(got.plot(legend=legend, opacity=opacity))
        assert np.array_equal(picture, np.asarray(Image.open(tmp_path / "image.png")))
    expected = records("segment", image, *flags, "--multi-scale", "--flip")
    assert model.segment(image, scale=scale, multi_scale=True, flip=True).to_dict() == expected[0]


@pytest.mark.parametrize("method", ["smooth-grad", "grad-cam"])
def test_maps_are_those_of_the_program(program, tmp_path, nine, method):
    model = ni.load("demo-digits")
    flags = ["--samples", 3, "--seed", 5, "--signed"] if method == "smooth-grad" else []
    keywords = {"samples": 3, "seed": 5, "signed": True} if method == "smooth-grad" else {}
    for target in ["4", None]:
        chosen = [] if target is None else ["--class", target]
        done = program(
            "nat-infer",
            "saliency",
            nine,
            "--model",
            "demo-digits",
            "--save",
            tmp_path,
            "--raw",
            "--format",
            "json",
            "--method",
            method,
            *flags,
            *chosen,
        )
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)[0]
        got = model.saliency(nine, method=method, target=target, **keywords)
        files = {"map", "picture", "tensor"}
        assert got.to_dict() == {key: value for key, value in record.items() if key not in files}
        assert np.array_equal(got.map, load_file(tmp_path / "nine.saliency.safetensors")["saliency"])
        assert got.target["label"] == (target or "9") and got["class"] is got.target
        assert np.array_equal(np.asarray(got.plot()), np.asarray(Image.open(tmp_path / "nine.png")))
    by_index, by_name = (model.saliency(nine, target=target, method="grad-cam") for target in (4, "4"))
    assert np.array_equal(by_index.map, by_name.map) and by_index.target == by_name.target


def test_pictures_can_be_drawn_elsewhere(golden, nine):
    model = ni.load("demo-digits")
    pixels = ni.read_image(nine)
    by_path = model.saliency(nine, method="grad-cam")
    by_array = model.saliency(pixels, method="grad-cam")
    picture = np.asarray(by_path.plot())
    assert np.array_equal(np.asarray(by_array.plot()), picture)
    again = pickle.loads(pickle.dumps(by_path))
    assert np.array_equal(again.map, by_path.map) and np.array_equal(np.asarray(again.plot()), picture)
    # Pixels stay where they are.
    away = pickle.loads(pickle.dumps(by_array))
    with pytest.raises(ValueError, match="does not hold its image any more"):
        away.plot()
    assert np.array_equal(np.asarray(away.plot(pixels)), picture)


def test_a_mask_that_is_none_is_refused():
    assert not ni.decode_mask({"size": [4, 5], "counts": "d0"}).any()
    with pytest.raises(ValueError, match="not COCO's compressed run lengths"):
        ni.decode_mask({"size": [4, 5], "counts": "hello"})
