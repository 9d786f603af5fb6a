"""Results as datasets: COCO, YOLO, Pascal VOC, labelme, Label Studio, and samples of FiftyOne's."""

from __future__ import annotations

import importlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from . import _native
from .results import Classification, Detections, Record, Segmentation

# What of a record comes to which dataset.
_RecordTuple = tuple[str, Any, tuple[str, "str | None", "str | None"]]


def export(
    model: _native.Model,
    results: Record | Iterable[Record],
    format: str,
    folder: str | os.PathLike[str],
    root: str | os.PathLike[str] | None,
    overwrite: bool,
) -> Path | None:
    """The method :meth:`Model.export`."""
    records = [results] if isinstance(results, Record) else list(results)
    kinds = {_labelled_with(record) for record in records} or {"boxes"}
    if kinds == {"boxes", "masks"}:
        # Of images without an object nothing tells whether there would have been masks.
        kinds = {"masks"}
    if len(kinds) > 1:
        raise ValueError(f"results of several tasks ({', '.join(sorted(kinds))}) are no one dataset")
    other = next((record.model for record in records if record.model != model.name), None)
    if other is not None:
        raise ValueError(
            f"these are results of {other}, not of {model.name}, whose classes the dataset would have"
        )
    named = [_record(record, root) for record in records]
    times = Counter(of[0] for _, _, of in named)
    twice = next((name for name, count in times.items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"several images are called {twice}: root names the folder that their paths are in")
    classes = _native.export_classes(model)
    return _native.export(named, kinds.pop(), format, os.fspath(folder), classes, overwrite)


def to_label_studio(record: Record) -> dict[str, Any]:
    """The method ``to_label_studio`` of results."""
    task: dict[str, Any] = json.loads(_native.label_studio(_record(record, None), _labelled_with(record)))
    return task


def to_fiftyone(results: Record | Iterable[Record], field: str = "predictions") -> list[Any]:
    """Samples of FiftyOne's (``fiftyone.Sample``), for ``dataset.add_samples``, each with what was found in one of its fields.

    Args:
        results: of ``classify``, ``detect`` or ``segment``, of images that are files.
        field: what the samples' field is called.

    Masks of ``segment`` have the index of a class and one, because 0 is FiftyOne's background: a dataset's ``mask_targets`` are
    ``{index + 1: name}``.

    Raises:
        ImportError: fiftyone is not installed.
        ValueError: an image is no file.
    """
    fo = _fiftyone()
    samples = []
    for record in [results] if isinstance(results, Record) else results:
        path = _path(record)
        if path is None:
            raise ValueError(f"{record.image}: a sample of FiftyOne's has a file, this image is none")
        samples.append(fo.Sample(filepath=path, **{field: to_fiftyone_label(record)}))
    return samples


def to_fiftyone_label(record: Record) -> Any:
    """The method ``to_fiftyone`` of results."""
    fo = _fiftyone()
    if isinstance(record, Classification):
        best = record.top[0]
        return fo.Classification(label=best["label"], confidence=best["score"])
    if isinstance(record, Segmentation):
        # Nothing is shown of 0, which is FiftyOne's background: its values are the classes' indices and one.
        values = record.labels.astype(np.uint16) + 1
        return fo.Segmentation(mask=values if values.size and values.max() > 255 else values.astype(np.uint8))
    if not isinstance(record, Detections):
        raise TypeError(f"{type(record).__name__} is nothing that FiftyOne has a label for")
    width, height = record.width, record.height
    has_masks = any("mask" in found or "segmentation" in found for found in record.detections)
    masks = record.masks if has_masks else None
    labels = []
    for number, found in enumerate(record.detections):
        left, top, w, h = found["bbox"]
        box = [left / width, top / height, w / width, h / height]
        part = None
        if masks is not None:
            # A mask of FiftyOne's is of the box alone, whose edges it cuts to pixels.
            columns = slice(int(width * box[0]), max(int(width * (box[0] + box[2])), int(width * box[0]) + 1))
            rows = slice(int(height * box[1]), max(int(height * (box[1] + box[3])), int(height * box[1]) + 1))
            part = masks[number][rows, columns]
        labels.append(
            fo.Detection(label=found["label"], bounding_box=box, confidence=found["score"], mask=part)
        )
    return fo.Detections(detections=labels)


def _fiftyone() -> Any:
    try:
        # By its name: it has no types.
        return importlib.import_module("fiftyone")
    except ImportError:
        raise ImportError("labels of FiftyOne's take its package: pip install fiftyone") from None


def _labelled_with(record: Record) -> str:
    if isinstance(record, Classification):
        return "choices"
    if isinstance(record, Segmentation):
        return "regions"
    if not isinstance(record, Detections):
        raise TypeError(
            f"{type(record).__name__}: results of classify, detect and segment are labels of images"
        )
    return "masks" if any("segmentation" in found for found in record.detections) else "boxes"


def _path(record: Record) -> str | None:
    """Where the image is, if it is a file."""
    kept = record._image
    if isinstance(kept, (str, os.PathLike)):
        path = os.fspath(kept)
        return path if isinstance(path, str) and "://" not in path else None
    return os.path.abspath(record.image) if kept is None and os.path.isfile(record.image) else None


def _record(record: Record, root: str | os.PathLike[str] | None) -> _RecordTuple:
    """A record as the native part takes it; its image is called by its path below `root`, or by its name alone."""
    path = _path(record)
    url = record.image if "://" in record.image else None
    if url is not None:
        name = PurePosixPath(urlsplit(url).path).name or "image"
    elif path is None:
        name = os.path.basename(record.image) or record.image
    elif root is None:
        name = os.path.basename(path)
    else:
        name = os.path.relpath(path, os.path.abspath(os.fspath(root)))
        if Path(name).parts[0] == os.pardir:
            raise ValueError(f"{record.image} is not in root {os.fspath(root)}")
    labels = record.labels if isinstance(record, Segmentation) else None
    return json.dumps(record.to_dict()), labels, (name, path, url)
