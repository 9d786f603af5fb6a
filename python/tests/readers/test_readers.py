"""What `--export` writes, read by the programs that the formats are of: every mask comes back to the pixel.

They run where the wheel and these readers are installed (python/readers.txt), in a process of their own."""

import json
import subprocess
import sysconfig
import warnings
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import supervision as sv
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import decode_rle
from labelme._label_file import read_label_file
from labelme.utils import shape_to_mask, shapes_to_label
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

import nat_infer as ni

GOLDEN = Path(__file__).resolve().parents[3] / "tests" / "golden"
FORMATS = ["coco", "yolo", "voc", "labelme", "label-studio"]


def run(*arguments):
    program = Path(sysconfig.get_path("scripts")) / "nat-infer"
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def model_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ni.CheckpointWarning)
        return ni.load(GOLDEN / path)


def rle(mask):
    encoded = coco_masks.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def masks_of(rng, width, height):
    """Masks of all kinds: noise, blobs in several parts, rings, single pixels and lines, everything and nothing."""
    y, x = np.mgrid[:height, :width]
    blobs = cv2.GaussianBlur(rng.random((height, width)).astype(np.float32), (0, 0), 2)
    radius = np.hypot(x - width / 2, y - height / 2)
    dot = np.zeros((height, width), bool)
    dot[rng.integers(height), rng.integers(width)] = True
    return [
        rng.random((height, width)) < rng.choice([0.2, 0.5, 0.8, 0.95]),
        blobs > np.quantile(blobs, 0.6),
        np.abs(radius - min(width, height) / 3) < min(width, height) / 6,
        dot,
        (x == width // 2) | (y == height // 3),
        np.ones((height, width), bool),
        np.zeros((height, width), bool),
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Datasets of masks that no network made, in all formats: (folder, the masks of each image)."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "images").mkdir()
    rng = np.random.default_rng(5)
    model, results, masks = model_of("detect/maskrcnn_s/model.pth"), [], {}
    for number in range(40):
        width, height = (int(side) for side in rng.integers(3, 60, 2))
        name = f"{number}.png"
        PIL.Image.new("RGB", (width, height)).save(folder / "images" / name)
        masks[name] = masks_of(rng, width, height)
        found = []
        for index, mask in enumerate(masks[name]):
            ys, xs = np.nonzero(mask) if mask.any() else (np.array([0]), np.array([0]))
            box = [float(xs.min()), float(ys.min()), float(np.ptp(xs) + 1), float(np.ptp(ys) + 1)]
            of = {"category_id": index + 1, "index": index, "label": str(index), "score": 0.5, "bbox": box}
            found.append({**of, "segmentation": rle(mask)})
        record = {"model": model.name, "width": width, "height": height, "detections": found}
        results.append(ni.Detections({"image": str(folder / "images" / name), **record}))
    for form in FORMATS:
        model.export(results, form, folder / form)
    return folder, masks


def test_pycocotools_reads_the_masks(drawn):
    folder, masks = drawn
    coco = COCO(folder / "coco" / "annotations.json")
    assert len(coco.imgs) == len(masks)
    for image in coco.dataset["images"]:
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(annotations) == len(masks[image["file_name"]])
        for annotation, mask in zip(annotations, masks[image["file_name"]], strict=True):
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum() and annotation["iscrowd"] == 0
            assert isinstance(annotation["segmentation"], list) == bool(mask.any())


def parts(mask):
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1


def same_but_for_bridges(got, mask):
    """YOLO has one polygon for an object: of several parts its line goes from one to the next, through what is between."""
    if parts(mask) <= 1:
        return np.array_equal(got, mask)
    return got[mask].all()


def test_supervision_reads_the_masks_of_yolo(drawn):
    folder, masks = drawn
    labels, data = str(folder / "yolo" / "labels"), str(folder / "yolo" / "data.yaml")
    dataset = sv.DetectionDataset.from_yolo(str(folder / "images"), labels, data, force_masks=True)
    assert dataset.classes[5] == "bus" and len(dataset) == len(masks)
    for path, _, found in dataset:
        wanted = masks[Path(path).name]
        assert found.class_id.tolist() == list(range(len(wanted)))
        for got, mask in zip(found.mask, wanted, strict=True):
            assert same_but_for_bridges(got, mask) or not mask.any()


def test_supervision_reads_the_masks_and_boxes_of_voc(drawn):
    folder, masks = drawn
    annotations = str(folder / "voc" / "Annotations")
    dataset = sv.DetectionDataset.from_pascal_voc(str(folder / "images"), annotations, force_masks=True)
    assert len(dataset) == len(masks)
    for path, _, found in dataset:
        wanted = masks[Path(path).name]
        for got, box, mask in zip(found.mask, found.xyxy, wanted, strict=True):
            assert np.array_equal(got, mask)
            if mask.any():
                # Pixels are counted from 1 on, a box's edges are pixels of it.
                ys, xs = np.nonzero(mask)
                assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_polygons_of_yolo_are_the_masks_for_readers_that_cut_coordinates_too(drawn):
    folder, masks = drawn
    for name, wanted in masks.items():
        lines = (folder / "yolo" / "labels" / name).with_suffix(".txt").read_text().splitlines()
        for line, mask in zip(lines, wanted, strict=True):
            height, width = mask.shape
            # As training does it, in f32.
            points = np.array(line.split()[1:], np.float32).reshape(-1, 2) * np.array(
                [width, height], np.float32
            )
            got = np.zeros(mask.shape, np.uint8)
            cv2.fillPoly(got, [points.astype(np.int32)], 1)
            assert not mask.any() or same_but_for_bridges(got.astype(bool), mask)


def test_labelme_reads_the_masks(drawn):
    folder, masks = drawn
    for name, wanted in masks.items():
        file = read_label_file(str((folder / "labelme" / name).with_suffix(".json")))
        assert file.image_data == (folder / "images" / name).read_bytes()
        for number, mask in enumerate(wanted):
            shapes = [shape for shape in file.shapes if shape["label"] == str(number)]
            got = np.zeros(mask.shape, bool)
            for shape in shapes:
                got |= shape_to_mask(mask.shape, shape["points"], shape["shape_type"])
            assert np.array_equal(got, mask) or not mask.any()
            groups = {shape["group_id"] for shape in shapes}
            assert len(groups) == 1 and (groups == {None}) == (len(shapes) == 1)
            assert {shape["description"] for shape in shapes} == {"0.5"}
        # As its own conversion to label maps reads them: the last of two shapes is on top.
        classes, _ = shapes_to_label(wanted[0].shape, file.shapes, {str(n): n + 1 for n in range(7)})
        assert (classes[wanted[5]] >= 6).all()


def converted(source, form, tmp_path):
    """What Label Studio's converter makes of our predictions, taken over as annotations."""
    tasks = json.loads((source / "tasks.json").read_text())
    for number, task in enumerate(tasks):
        task["id"] = number
        task["annotations"] = [{**task.pop("predictions")[0], "id": number, "completed_by": 1}]
        task["data"]["image"] = task["data"]["image"].split("?d=")[-1]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    (tmp_path / "out").mkdir()
    converter = Converter(str(source / "label_config.xml"), str(tmp_path), download_resources=False)
    converter.convert(str(tmp_path / "tasks.json"), str(tmp_path / "out"), form, is_dir=False)
    return tmp_path / "out"


def test_label_studio_reads_brushes_and_rectangles(drawn, tmp_path):
    folder, masks = drawn
    tasks = json.loads((folder / "label-studio" / "tasks.json").read_text())
    for task in tasks:
        wanted = masks[task["data"]["image"].split("?d=")[-1]]
        result = task["predictions"][0]["result"]
        brushes = [region["value"] for region in result if region["type"] == "brushlabels"]
        for brush, mask in zip(brushes, wanted, strict=True):
            pixels = decode_rle(brush["rle"]).reshape(*mask.shape, 4)
            assert np.array_equal(pixels[..., 3] > 0, mask)
            assert (pixels == pixels[..., :1]).all() and set(np.unique(pixels)) <= {0, 255}
    # The converter takes them apart by what the configuration calls them.
    out = converted(folder / "label-studio", "BRUSH_TO_NUMPY", tmp_path)
    arrays = list(out.glob("*.npy"))
    assert len(arrays) == sum(map(len, masks.values()))
    got = np.load(
        next(
            path
            for path in arrays
            if path.name.startswith("task-3-") and path.name.endswith("-brush-1-0.npy")
        )
    )
    assert np.array_equal(got > 0, masks[tasks[3]["data"]["image"].split("?d=")[-1]][1])


def test_label_studio_reads_boxes_of_a_detector(tmp_path):
    weights = GOLDEN / "detect" / "maskrcnn_s" / "model.pth"
    image = GOLDEN / "images" / "chelsea.png"
    arguments = [
        "--scale",
        "256x160",
        "--max-detections",
        "6",
        "--no-masks",
        "--export",
        "label-studio",
        tmp_path,
    ]
    (record,) = run("detect", image, "-w", weights, *arguments)
    (tmp_path / "work").mkdir()
    out = converted(tmp_path, "COCO", tmp_path / "work")
    coco = json.loads((out / "result.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    for annotation, found in zip(coco["annotations"], record["detections"], strict=True):
        assert names[annotation["category_id"]] == found["label"]
        assert np.allclose(annotation["bbox"], found["bbox"], atol=1e-3)


def test_label_studio_reads_choices(tmp_path):
    (record,) = run(
        "classify",
        GOLDEN.parents[1] / "assets" / "nine.png",
        "--model",
        "demo-digits",
        "--export",
        "label-studio",
        tmp_path,
    )
    (tmp_path / "work").mkdir()
    out = converted(tmp_path, "JSON_MIN", tmp_path / "work")
    (task,) = json.loads((out / "result.json").read_text())
    assert task["choice"] == record["top"][0]["label"] == "9"


def test_all_readers_read_what_a_detector_finds(tmp_path):
    weights, images = GOLDEN / "detect" / "cascade_a" / "model_legacy.pth", tmp_path / "images"
    images.mkdir()
    for name in ["chelsea.png", "rocket.png"]:
        (images / name).write_bytes((GOLDEN / "images" / name).read_bytes())
    exports = [word for form in FORMATS for word in ("--export", form, tmp_path / form)]
    records = run("detect", images, "-w", weights, "--scale", "256x160", "--score-threshold", "0.2", *exports)
    coco = COCO(tmp_path / "coco" / "annotations.json")
    assert sum(len(record["detections"]) for record in records) == len(coco.anns) > 0
    # What COCO's tools evaluate results with takes the annotations for the truth: all of it is found.
    found = [
        {
            "image_id": number,
            "category_id": one["category_id"],
            "bbox": one["bbox"],
            "score": one["score"],
            "segmentation": one["segmentation"],
        }
        for number, record in enumerate(records, 1)
        for one in record["detections"]
    ]
    assert [coco.imgs[number]["file_name"] for number in (1, 2)] == ["chelsea.png", "rocket.png"]
    for annotation, result in zip(coco.anns.values(), coco.loadRes(found).anns.values(), strict=True):
        assert np.array_equal(coco.annToMask(annotation), coco_masks.decode(result["segmentation"]))
        assert annotation["bbox"] == result["bbox"]
    for dataset in [
        sv.DetectionDataset.from_yolo(
            str(images), str(tmp_path / "yolo" / "labels"), str(tmp_path / "yolo" / "data.yaml")
        ),
        sv.DetectionDataset.from_pascal_voc(str(images), str(tmp_path / "voc" / "Annotations")),
        sv.DetectionDataset.from_coco(str(images), str(tmp_path / "coco" / "annotations.json")),
        sv.DetectionDataset.from_labelme(str(images), str(tmp_path / "labelme")),
    ]:
        for path, _, read in dataset:
            record = next(record for record in records if record["image"] == path)
            names = [one["label"] for one in record["detections"]]
            assert [dataset.classes[index] for index in read.class_id] == names


def test_all_readers_read_regions(tmp_path):
    weights, image = GOLDEN / "segment" / "upernet_b" / "model.pth", GOLDEN / "images" / "chelsea.png"
    exports = [word for form in FORMATS for word in ("--export", form, tmp_path / form)]
    arguments = ["--scale", "256x128", "--save", tmp_path / "maps", *exports]
    (record,) = run("segment", image, "-w", weights, *arguments)
    labels = np.array(PIL.Image.open(tmp_path / "maps" / "chelsea.labels.png"))
    names = {segment["label"]: segment["index"] for segment in record["segments"]}
    coco = COCO(tmp_path / "coco" / "annotations.json")
    assert len(coco.anns) == len(names)
    for annotation in coco.anns.values():
        assert np.array_equal(coco.annToMask(annotation), labels == annotation["category_id"] - 1)
    file = read_label_file(str(tmp_path / "labelme" / "chelsea.json"))
    classes, _ = shapes_to_label(labels.shape, file.shapes, names)
    assert np.array_equal(classes, labels)
    width, height = record["width"], record["height"]
    read = np.full(labels.shape, 255, np.uint8)
    for line in (tmp_path / "yolo" / "labels" / "chelsea.txt").read_text().splitlines():
        points = np.array(line.split()[1:], float).reshape(-1, 2) * [width, height]
        cv2.fillPoly(read, [points.astype(np.int32)], int(line.split()[0]))
    assert np.array_equal(read, labels)
    (task,) = json.loads((tmp_path / "label-studio" / "tasks.json").read_text())
    for region in task["predictions"][0]["result"]:
        pixels = decode_rle(region["value"]["rle"]).reshape(*labels.shape, 4)[..., 3] > 0
        assert np.array_equal(pixels, labels == names[region["value"]["brushlabels"][0]])
