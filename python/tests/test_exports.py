"""Results as datasets. What other programs read of them is tested in readers/."""

import json
import sys
import types
import warnings

import numpy as np
import pytest

import nat_infer as ni


@pytest.fixture(scope="module")
def detector(golden):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ni.CheckpointWarning)
        return ni.load(golden / "detect" / "cascade_a" / "model_legacy.pth")


@pytest.fixture(scope="module")
def photos(golden):
    return [golden / "images" / "chelsea.png", golden / "images" / "rocket.png"]


@pytest.fixture(scope="module")
def found(detector, photos):
    return detector.detect(photos, scale=(256, 160), max_detections=7)


FORMATS = {
    "coco": "annotations.json",
    "yolo": "labels/rocket.txt",
    "voc": "Annotations/rocket.xml",
    "labelme": "rocket.json",
    "label-studio": "tasks.json",
}


@pytest.mark.parametrize("form", FORMATS)
def test_objects_are_what_the_program_writes(detector, photos, found, golden, program, tmp_path, form):
    weights = golden / "detect" / "cascade_a" / "model_legacy.pth"
    options = ["--scale", "256x160", "--max-detections", 7, "--export", form, tmp_path / "program"]
    done = program("nat-infer", "detect", *photos, "-w", weights, *options)
    assert done.returncode == 0, done.stderr
    place = detector.export(found, form, tmp_path / "python")
    file = FORMATS[form]
    assert place in (tmp_path / "python", tmp_path / "python" / file)
    ours, theirs = ((tmp_path / folder / file).read_text() for folder in ("python", "program"))
    assert ours == theirs
    with pytest.raises(FileExistsError, match="overwrite=True"):
        detector.export(found, form, tmp_path / "python")
    detector.export(found, form, tmp_path / "python", overwrite=True)
    assert (tmp_path / "python" / file).read_text() == ours


def test_regions_are_what_the_program_writes(golden, photos, program, tmp_path):
    weights = golden / "segment" / "upernet_b" / "model.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ni.CheckpointWarning)
        model = ni.load(weights)
    done = program(
        "nat-infer",
        "segment",
        photos[0],
        "-w",
        weights,
        "--scale",
        "128x64",
        "--export",
        "coco",
        tmp_path / "a",
    )
    assert done.returncode == 0, done.stderr
    result = model.segment(photos[0], scale=(128, 64))
    model.export(result, "coco", tmp_path / "b")
    assert (tmp_path / "b/annotations.json").read_text() == (tmp_path / "a/annotations.json").read_text()
    regions = result.to_label_studio()["predictions"][0]["result"]
    assert {region["value"]["brushlabels"][0] for region in regions} == {s["label"] for s in result.segments}


def test_tasks_of_label_studio(detector, found, photos, nine, tmp_path):
    detector.export(found, "label-studio", tmp_path)
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [result.to_label_studio() for result in found] == tasks
    model = ni.load("demo-digits")
    task = model.classify(nine).to_label_studio()
    assert task["predictions"][0]["result"][0]["value"] == {"choices": ["9"]}
    boxes = detector.detect(photos[0], scale=(256, 160), masks=None, max_detections=2).to_label_studio()
    assert [region["type"] for region in boxes["predictions"][0]["result"]] == ["rectanglelabels"] * 2


def test_names_below_a_root(detector, found, photos, golden, tmp_path):
    detector.export(found, "yolo", tmp_path, root=golden)
    assert (tmp_path / "labels" / "images" / "rocket.txt").exists()
    with pytest.raises(ValueError, match="is not in root"):
        detector.export(found, "yolo", tmp_path, root=tmp_path)
    # One image, twice; and two that are called alike.
    with pytest.raises(ValueError, match="several images are called chelsea.png"):
        detector.export([found[0], found[0]], "coco", tmp_path)
    assert detector.export([], "coco", tmp_path / "none") is None
    assert not (tmp_path / "none" / "annotations.json").exists()


def test_what_is_no_dataset_is_refused(detector, found, nine, tmp_path):
    model = ni.load("demo-digits")
    answer = model.classify(nine)
    for results, form, error, words in [
        (found, "pdf", ValueError, "coco, yolo, voc, labelme, label-studio can be written"),
        ([*found, answer], "label-studio", ValueError, "several tasks"),
        (model.saliency(nine, method="grad-cam"), "coco", TypeError, "Saliency"),
    ]:
        with pytest.raises(error, match=words):
            detector.export(results, form, tmp_path / "out")
    with pytest.raises(ValueError, match="label-studio can be written"):
        model.export(answer, "coco", tmp_path / "out")
    one = found[0].detections[0]
    for change, words in [
        ({"segmentation": {"size": [9, 9], "counts": "0"}}, "none of an image of 451x300"),
        ({"segmentation": {"size": [300, 451], "counts": "~"}}, "run lengths"),
        ({"bbox": [0.0, 0.0, 1e39, 1.0]}, "number"),
    ]:
        broken = ni.Detections(found[0])
        broken["detections"] = [{**one, **change}]
        with pytest.raises(ValueError, match=words):
            detector.export([found[1], broken], "coco", tmp_path / "out")
    foreign = ni.Detections(found[0])
    foreign["model"] = "another"
    with pytest.raises(ValueError, match="results of another"):
        detector.export(foreign, "coco", tmp_path / "out")
    # Two images whose annotations would be in one file.
    same = ni.Detections(found[0])
    same["image"] = "elsewhere/rocket.jpg"
    for form in ["yolo", "voc", "labelme"]:
        with pytest.raises(ValueError, match="would both be"):
            detector.export([found[1], same], form, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # However an image is called, nothing is written beside the folder.
    same["image"], same._image = "../../up.png", None
    detector.export(same, "yolo", tmp_path / "out" / "in")
    assert (tmp_path / "out" / "in" / "labels" / "up.txt").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["in"]


def test_labels_of_fiftyone_have_our_numbers(found, nine, monkeypatch):
    """FiftyOne itself is for readers/test_fiftyone.py: here its classes hold what they are made of."""
    names = ["Classification", "Detection", "Detections", "Segmentation", "Sample"]
    module = types.SimpleNamespace(**{name: type(name, (types.SimpleNamespace,), {}) for name in names})
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    for sample, result in zip(ni.to_fiftyone(found), found, strict=True):
        assert sample.filepath == result.image
        labels = sample.predictions.detections
        for label, one in zip(labels, result.detections, strict=True):
            x, y, w, h = one["bbox"]
            assert (label.label, label.confidence) == (one["label"], one["score"])
            assert np.allclose(
                label.bounding_box, [x / result.width, y / result.height, w / result.width, h / result.height]
            )
            rows, columns = label.mask.shape
            assert np.array_equal(label.mask, one["mask"][int(y) : int(y) + rows, int(x) : int(x) + columns])
            assert abs(rows - h) < 1 + 1e-3 and abs(columns - w) < 1 + 1e-3
    answer = ni.load("demo-digits").classify(nine)
    assert answer.to_fiftyone().label == "9"
    with pytest.raises(ValueError, match="is none"):
        ni.to_fiftyone(ni.load("demo-digits").classify(np.zeros((8, 8, 3), np.uint8)))
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(ImportError, match="pip install fiftyone"):
        answer.to_fiftyone()
