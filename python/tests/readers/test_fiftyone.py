"""Labels and samples of FiftyOne's, which is large: where it is installed (NAT_INFER_ENGINES=1)."""

import warnings
from pathlib import Path

import numpy as np
import pytest

import nat_infer as ni

fo = pytest.importorskip("fiftyone", reason="fiftyone is installed where NAT_INFER_ENGINES=1 is set")

from fiftyone.utils.coco import COCODetectionDatasetImporter  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[3] / "tests" / "golden"
IMAGES = [GOLDEN / "images" / "chelsea.png", GOLDEN / "images" / "rocket.png"]


def model_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ni.CheckpointWarning)
        return ni.load(GOLDEN / path)


def test_objects_are_samples_with_their_masks():
    results = model_of("detect/cascade_a/model_legacy.pth").detect(
        IMAGES, scale=(256, 160), max_detections=10
    )
    # A dataset takes a database, samples do not.
    for sample, result in zip(ni.to_fiftyone(results, "found"), results, strict=True):
        assert sample.filepath == result.image and len(sample.found.detections) == 10
        for label, found in zip(sample.found.detections, result.detections, strict=True):
            assert label.label == found["label"] and label.confidence == found["score"]
            sides = [result.width, result.height] * 2
            assert np.allclose(np.multiply(label.bounding_box, sides), found["bbox"], atol=1e-3)
            # FiftyOne's own way from the mask of a box to one of the image.
            shown = label.to_segmentation(frame_size=(result.width, result.height), target=255).mask > 0
            x, y, w, h = found["bbox"]
            inside = np.zeros_like(shown)
            inside[int(y) : int(y + h), int(x) : int(x + w)] = True
            assert np.array_equal(shown, found["mask"] & inside)
            assert (found["mask"] & ~inside).sum() <= found["mask"].shape[0] + found["mask"].shape[1]


def test_regions_and_classes_are_labels():
    result = model_of("segment/upernet_b/model.pth").segment(IMAGES[0], scale=(128, 64))
    (sample,) = ni.to_fiftyone(result)
    assert np.array_equal(sample.predictions.mask, result.labels.astype(int) + 1)
    answer = ni.load("demo-digits").classify(GOLDEN.parents[1] / "assets" / "nine.png")
    label = answer.to_fiftyone()
    assert (label.label, label.confidence) == ("9", answer.top[0]["score"])


def test_fiftyone_imports_the_coco_dataset(tmp_path):
    model = model_of("detect/cascade_a/model_legacy.pth")
    results = model.detect(IMAGES, scale=(256, 160), score_threshold=0.2)
    model.export(results, "coco", tmp_path)
    importer = COCODetectionDatasetImporter(
        data_path=str(IMAGES[0].parent),
        labels_path=str(tmp_path / "annotations.json"),
        label_types=["segmentations"],
    )
    read = {}
    with importer:
        for path, _, labels in importer:
            read[path] = labels
    for result in results:
        labels = [found["label"] for found in result.detections if np.any(found["mask"])]
        detections = read[result.image].detections if labels else []
        assert [label.label for label in detections] == labels
