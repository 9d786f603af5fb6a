"""What models answer: dicts whose keys are those of the program's JSON, and attributes too.

``to_dict()`` gives what JSON is a form for, as `nat-infer --format json` writes it; arrays are left out.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
import numpy.typing as npt

from . import _native
from .images import Image, read_image

if TYPE_CHECKING:
    import PIL.Image
    from typing_extensions import Self


class Scored(TypedDict):
    """A class with its probability."""

    index: int
    label: str
    score: float


class Rle(TypedDict):
    """A mask in COCO's compressed run lengths: ``size`` is [height, width]."""

    size: list[int]
    counts: str


class BoxDetection(TypedDict):
    """An object's class and box. ``bbox`` is left, top, width and height in pixels of the image; ``category_id`` is COCO's
    number of the class for models of COCO, ``index + 1`` otherwise."""

    category_id: int
    index: int
    label: str
    score: float
    bbox: list[float]


class Detection(BoxDetection, total=False):
    """An object. Its ``mask`` is an array [H, W] of bool, its ``segmentation`` the same in COCO's run lengths."""

    segmentation: Rle
    mask: npt.NDArray[np.bool_]


class BoxCocoResult(TypedDict):
    """An object's class and box in COCO's list of results."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float


class CocoResult(BoxCocoResult, total=False):
    """An object in COCO's list of results, which ``COCO.loadRes`` takes."""

    segmentation: Rle


class Segment(TypedDict):
    """What covers a part of an image: ``fraction`` of it, 0 to 1."""

    index: int
    label: str
    pixels: int
    fraction: float


class Record(dict[str, Any]):
    """What a model says of an image."""

    _image: Image | None = None
    _size: tuple[int, int] | None = None

    @property
    def image(self) -> str:
        """The image's path or address; ``image 0``, ``image 1``, … where it has none."""
        return cast(str, self["image"])

    @property
    def model(self) -> str:
        """The model's name."""
        return cast(str, self["model"])

    def to_dict(self) -> dict[str, Any]:
        """The record without arrays: what the program writes as JSON."""
        return {key: value for key, value in self.items() if not isinstance(value, np.ndarray)}

    def to_label_studio(self) -> dict[str, Any]:
        """A task of Label Studio's with the answer as its prediction, as `--export label-studio` writes it: classes as choices,
        boxes as rectangles, masks as brushes."""
        from .datasets import to_label_studio

        return to_label_studio(self)

    def to_fiftyone(self) -> Any:
        """The answer as a label of FiftyOne's: ``Classification``, ``Detections`` or ``Segmentation``. Takes fiftyone."""
        from .datasets import to_fiftyone_label

        return to_fiftyone_label(self)

    def __getstate__(self) -> dict[str, Any]:
        # Pixels would go along with every result that is sent to another process.
        by_name = isinstance(self._image, (str, os.PathLike))
        return {key: value for key, value in self.__dict__.items() if key != "_image" or by_name}

    def __copy__(self) -> Self:
        other = type(self)(self)
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = type(self)(copy.deepcopy(dict(self), memo))
        other.__dict__.update(self.__dict__)
        return other

    def _keep(self, image: Any, lazy: bool) -> None:
        """Holds on to the image, to draw on; of one that came out of an iterator to its name alone."""
        if isinstance(image, (str, os.PathLike)):
            path = os.fspath(image)
            is_address = isinstance(path, str) and "://" in path
            self._image = path if is_address else os.path.abspath(path)
        elif not lazy and not hasattr(image, "read"):
            self._image = image

    def _pixels(self, image: Image | None) -> npt.NDArray[np.uint8]:
        """The pixels of the image, or of the one that is given."""
        if image is None:
            image = self._image
        if image is None:
            raise ValueError(f"{self.image}: the result does not hold its image any more: plot(image=…)")
        pixels = read_image(image)
        width, height = self._size or (self.get("width"), self.get("height"))
        if pixels.shape[:2] != (height, width):
            raise ValueError(
                f"{self.image}: the result is of {width}x{height} pixels, the image has "
                f"{pixels.shape[1]}x{pixels.shape[0]}; turned as EXIF says, it is the same"
            )
        return pixels


class SizedRecord(Record):
    """A record with the size of its image."""

    @property
    def width(self) -> int:
        """Width of the image in pixels."""
        return cast(int, self["width"])

    @property
    def height(self) -> int:
        """Height of the image in pixels."""
        return cast(int, self["height"])


class Classification(Record):
    """The most probable classes of an image: keys ``image``, ``model`` and ``top``."""

    @property
    def top(self) -> list[Scored]:
        """The classes, highest score first."""
        return cast("list[Scored]", self["top"])


class Detections(SizedRecord):
    """The objects on an image: keys ``image``, ``model``, ``width``, ``height`` and ``detections``."""

    @property
    def detections(self) -> list[Detection]:
        """The objects, highest score first."""
        return cast("list[Detection]", self["detections"])

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """The masks of all objects: [N, H, W] of bool."""
        masks = [_mask(found) for found in self.detections]
        return np.stack(masks) if masks else np.zeros((0, self.height, self.width), bool)

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """The boxes of all objects: [N, 4], left, top, right and bottom in pixels."""
        boxes = np.array([found["bbox"] for found in self.detections], np.float32).reshape(-1, 4)
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

    def to_dict(self) -> dict[str, Any]:
        detections = [
            {key: value for key, value in found.items() if key != "mask"} for found in self.detections
        ]
        return {**self, "detections": detections}

    def to_coco(self, image_id: int = 1) -> list[CocoResult]:
        """The objects in COCO's list of results."""
        keys = ("category_id", "bbox", "score", "segmentation")
        kept = [{key: value for key, value in found.items() if key in keys} for found in self.detections]
        return cast("list[CocoResult]", [{"image_id": image_id, **found} for found in kept])

    def plot(
        self, image: Image | None = None, *, threshold: float = 0.3, opacity: float = 0.5
    ) -> PIL.Image.Image:
        """The image with its objects of more than ``threshold``, as ``nat-infer detect --save`` draws them.

        Args:
            image: what to draw onto; the image itself where it is left out.
            threshold: objects of this probability or less are left out.
            opacity: how much of a mask's colour its pixels take, from 0 to 1.
        """
        _part("opacity", opacity)
        _part("threshold", threshold)
        drawn = []
        for found in self.detections:
            # In the precision of the scores themselves.
            if np.float32(found["score"]) > np.float32(threshold):
                rle = found.get("segmentation")
                mask = None if rle is None else (rle["size"], rle["counts"])
                drawn.append((found["index"], found["label"], found["score"], found["bbox"], mask))
        return _picture(_native.draw_objects(self._pixels(image), drawn, opacity))


class Segmentation(SizedRecord):
    """The class of every pixel of an image: keys ``image``, ``model``, ``width``, ``height``, ``segments`` and
    ``labels``."""

    _colours: list[tuple[int, int, int]]

    @property
    def segments(self) -> list[Segment]:
        """What covers the image, largest first."""
        return cast("list[Segment]", self["segments"])

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """The class of every pixel: [H, W] of uint8."""
        return cast("npt.NDArray[np.uint8]", self["labels"])

    def plot(
        self, image: Image | None = None, *, legend: str = "beside", opacity: float = 0.5
    ) -> PIL.Image.Image:
        """The image in the classes' colours, as ``nat-infer segment --save`` draws it.

        Args:
            image: what to draw onto; the image itself where it is left out.
            legend: where the names of the classes stand: ``beside``, ``inside`` or ``off``.
            opacity: how much of its class's colour a pixel takes, from 0 to 1.
        """
        _part("opacity", opacity)
        shares = [(segment["index"], segment["label"], segment["fraction"]) for segment in self.segments]
        pixels = self._pixels(image)
        return _picture(_native.draw_labels(pixels, self.labels, self._colours, shares, legend, opacity))


class Saliency(Record):
    """Which pixels of an image speak for a class: keys ``image``, ``model``, ``method``, ``class`` and ``map``."""

    _crop_pct: float

    @property
    def method(self) -> str:
        """``smooth-grad`` or ``grad-cam``."""
        return cast(str, self["method"])

    @property
    def target(self) -> Scored:
        """The class that the map is about, with its probability: the key ``class``."""
        return cast(Scored, self["class"])

    @property
    def map(self) -> npt.NDArray[np.float32]:
        """The map over the network's input, a centre crop of the image: [H, W] of float32, none negative."""
        return cast("npt.NDArray[np.float32]", self["map"])

    def plot(self, image: Image | None = None, *, legend: str = "beside") -> PIL.Image.Image:
        """The map over its image, as ``nat-infer saliency --save`` draws it.

        Args:
            image: what to draw onto; the image itself where it is left out.
            legend: where the class stands: ``beside``, ``inside`` or ``off``.
        """
        of = (self.target["index"], self.target["label"], self.target["score"])
        return _picture(_native.draw_heat(self._pixels(image), self.map, self._crop_pct, of, legend))


class Features(dict[str, "npt.NDArray[np.float32]"]):
    """What a network computes of an image, float32: ``input`` [1, 3, H, W], ``stage1`` and so on [1, C, H, W], of classifiers
    ``pooled`` [1, C] and ``logits`` [1, classes] too."""

    image: str
    model: str


def to_coco(results: Iterable[Detections], image_ids: Sequence[int] | None = None) -> list[CocoResult]:
    """The objects of several images in COCO's list of results, which ``COCO.loadRes`` takes.

    Args:
        results: of the images.
        image_ids: their numbers; from 1 on where they are left out.
    """
    results = list(results)
    numbers = range(1, len(results) + 1) if image_ids is None else image_ids
    if len(numbers) != len(results):
        raise ValueError(f"{len(numbers)} image_ids are given for {len(results)} results")
    return [
        found for result, number in zip(results, numbers, strict=True) for found in result.to_coco(number)
    ]


def decode_mask(rle: Rle) -> npt.NDArray[np.bool_]:
    """A mask of COCO's compressed run lengths: [H, W] of bool.

    Raises:
        ValueError: the counts are none, or those of another size.
    """
    height, width = rle["size"]
    return _native.decode_mask((height, width), rle["counts"])


def _mask(found: Detection) -> npt.NDArray[np.bool_]:
    if "mask" in found:
        return found["mask"]
    if "segmentation" in found:
        return decode_mask(found["segmentation"])
    raise ValueError(
        "the objects have no masks: they were detected with masks=None, or by a model that gives none"
    )


def _part(name: str, value: int | float) -> None:
    if not isinstance(value, (int, float, np.number)) or not 0 <= value <= 1:
        raise ValueError(f"{name} {value} is not from 0 to 1")


def _picture(pixels: npt.NDArray[np.uint8]) -> PIL.Image.Image:
    try:
        import PIL.Image
    except ImportError:
        raise ImportError("plot() gives an image of PIL's: pip install pillow") from None
    return PIL.Image.fromarray(pixels)
