"""Models: found, fetched, loaded, and asked."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from . import _native
from ._native import ImageError, ModelError, list_models, model_info
from .checkpoints import said, warn
from .images import MOST_BYTES, MOST_IMAGES, Image, as_images, as_input
from .results import Classification, Detections, Features, Record, Saliency, Segmentation

__all__ = ["Model", "list_models", "load", "model_info"]

OneImage = TypeVar("OneImage", bound=Image)
# Several images. A text or an array is an iterable too, which overloads below have in common: the first that fits is meant.
Images = Iterable[OneImage]
Answered = TypeVar("Answered")

# The largest side that an image is resized to.
MOST_PIXELS = 8192

# How names of files end that hold weights.
ENDINGS = (".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".tar", ".pkl")


def load(
    source: str | os.PathLike[str] | bytes,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int | None = None,
    arch: str | None = None,
    dilations: str | None = None,
    weights_key: str | None = None,
    ignore: str | Sequence[str] = (),
    labels: Sequence[str] | None = None,
    offline: bool = False,
    quiet: bool = False,
) -> Model:
    """Loads a model.

    Args:
        source: a name (see :func:`list_models`), a repository of the Hub (``user/repo[@revision]``), an address, the path of a
            file or a folder, or the bytes of a file; checkpoints of any kind that :func:`convert` reads. What is not here is
            fetched on first use, into the Hub's own cache where it is of the Hub.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: a GPU where there is one.
        dtype: ``f32``, ``f16`` or ``bf16``; ``f32`` on the CPU and ``f16`` on a GPU where it is left out.
        threads: CPU threads to compute on; one for each core where it is left out.
        arch, dilations, weights_key, ignore: what the file can't say, as in :func:`convert`.
        labels: names of the classes.
        offline: use what is in the cache and make no request.
        quiet: show no download.

    Raises:
        ModelError: the model can't be had or loaded.
    """
    source = _asked(source)
    names = None if labels is None else _names(labels)
    _count("threads", threads)
    options = said(arch, dilations, weights_key, ignore)
    args = (source, options, names, device, dtype, threads, offline, quiet)
    native, warned = _native.Model.load(*args)
    warn(warned)
    if native.task == "classify" and native.labels is None:
        warn(
            [
                f"{native.name} does not name its {native.classes} classes, they are shown as numbers; labels names "
                "them, or arch if they are those of a published model"
            ]
        )
    return Model(native, args)


def _asked(source: Any) -> Any:
    """A name, a path or bytes, as the native part tells them apart."""
    if isinstance(source, bytearray):
        return bytes(source)
    if not isinstance(source, (str, bytes, os.PathLike)):
        raise TypeError(f"{type(source).__name__} is no model; a name, a path or the bytes of a file is")
    if isinstance(source, bytes):
        return source
    if isinstance(source, str):
        try:
            source.encode()
        except UnicodeEncodeError:
            # A path of bytes that are no text; names are text.
            return Path(os.path.abspath(source))
        path = os.path.expanduser(source)
        named = path.startswith((".", os.sep)) or path != source or path.lower().endswith(ENDINGS)
        is_path = "://" not in source and (named or os.path.exists(path))
        if _native.is_model_name(source) or not is_path:
            return source
        source = path
    # The same file wherever the process is by the time that it is opened again.
    return Path(os.path.abspath(os.fsdecode(source)))


def _names(labels: Any) -> list[str]:
    if isinstance(labels, (str, bytes)):
        raise TypeError("labels is a text; a list of the classes' names is wanted")
    return [str(label) for label in labels]


def _count(name: str, value: Any, most: int = 1024, least: int = 1) -> None:
    """Refuses what is no number in these bounds; None is left to the model."""
    if value is None:
        return
    if not hasattr(value, "__index__"):
        raise TypeError(f"{name} {value!r} is no integer")
    if not least <= value <= most:
        raise ValueError(f"{name} {value} is not from {least} to {most}")


def _share(name: str, value: Any, most: float = 1) -> None:
    """Refuses what is no number from 0 on; None is left to the model."""
    if value is None:
        return
    if not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} {value!r} is no number")
    if not 0 <= value <= most:
        raise ValueError(f"{name} {value} is not from 0 to {most:g}")


def _reload(args: tuple[Any, ...], name: str) -> Model:
    native, _ = _native.Model.load(*args)
    if native.name != name:
        raise ModelError(f"{name} is {native.name} where it was sent to: load the model again")
    return Model(native, args)


class Model:
    """A network with everything that it takes to run it on images. :func:`load` makes one.

    Every method takes one image or several (a list, a tuple, an iterator, an array [N, H, W, 3]): a path, an address, the bytes
    of a file, an array [H, W, 3] of uint8 (RGB, not copied), or an image of PIL's. Of one image it gives the answer, of
    several a list of answers in their order, the same to the bit whatever goes with them.

    Threads may share a model: Python's lock is given back while it computes. Ctrl-C ends a call. A model that is pickled is
    loaded again where it arrives.

    Of several images those that fail do not stop the others: then :class:`ImageError` is raised at the end, whose ``results``
    has what there is, exceptions in the places of the rest.
    """

    def __init__(self, native: _native.Model, args: tuple[Any, ...]) -> None:
        self._native = native
        self._args = args

    def __reduce__(self) -> tuple[Any, ...]:
        return _reload, (self._args, self.name)

    def __repr__(self) -> str:
        return f"<nat_infer.Model {self.name}: {self.task}, {self.parameters / 1e6:.1f} M parameters>"

    @property
    def name(self) -> str:
        """The name in the zoo, the repository, or the file's name with the beginning of its SHA-256."""
        return self._native.name

    @property
    def task(self) -> str:
        """``classify``, ``detect``, ``segment``, or ``features`` for a backbone."""
        return self._native.task

    @property
    def labels(self) -> list[str] | None:
        """Names of the classes by their index, where the model has them."""
        return self._native.labels

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
        return self._native.parameters

    def metadata(self) -> dict[str, Any]:
        """Architecture, preprocessing and labels, as a converted file has them."""
        found = json.loads(self._native.metadata())
        return {key: json.loads(value) if value[:1] in ("{", "[") else value for key, value in found.items()}

    @overload
    def classify(  # type: ignore[overload-overlap]
        self,
        images: Image,
        *,
        top_k: int = ...,
        resolution: int | None = ...,
        crop_pct: float | None = ...,
        batch_size: int | None = ...,
    ) -> Classification: ...
    @overload
    def classify(
        self,
        images: Images[OneImage],
        *,
        top_k: int = ...,
        resolution: int | None = ...,
        crop_pct: float | None = ...,
        batch_size: int | None = ...,
    ) -> list[Classification]: ...

    def classify(
        self,
        images: Any,
        *,
        top_k: int = 5,
        resolution: int | None = None,
        crop_pct: float | None = None,
        batch_size: int | None = None,
    ) -> Any:
        """The most probable classes.

        Args:
            images: one or several.
            top_k: how many classes.
            resolution: side of the square input in pixels; the model's where it is left out.
            crop_pct: share of the resized short side that the crop keeps, up to 1; the model's where it is left out.
            batch_size: images that are computed together; as many as suit the device where it is left out.

        Raises:
            ModelError: the model is no classifier.
            ImageError: images failed.
        """
        _count("top_k", top_k, 1 << 30)
        _count("resolution", resolution, MOST_PIXELS)
        _count("batch_size", batch_size)

        def answers(inputs: list[Any]) -> list[Any]:
            return _native.classify(self._native, inputs, top_k, resolution, crop_pct, batch_size)

        return self._ask(images, answers, lambda record: Classification(json.loads(record)))

    @overload
    def detect(  # type: ignore[overload-overlap]
        self,
        images: Image,
        *,
        scale: tuple[int, int] | None = ...,
        score_threshold: float | None = ...,
        max_detections: int | None = ...,
        masks: str | None = ...,
        batch_size: int | None = ...,
    ) -> Detections: ...
    @overload
    def detect(
        self,
        images: Images[OneImage],
        *,
        scale: tuple[int, int] | None = ...,
        score_threshold: float | None = ...,
        max_detections: int | None = ...,
        masks: str | None = ...,
        batch_size: int | None = ...,
    ) -> list[Detections]: ...

    def detect(
        self,
        images: Any,
        *,
        scale: tuple[int, int] | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        masks: str | None = "array",
        batch_size: int | None = None,
    ) -> Any:
        """The objects: boxes, classes, masks.

        Args:
            images: one or several.
            scale: bounds of the resized image's long and short side in pixels; the model's where it is left out.
            score_threshold: objects of this probability or less are left out; the model's where it is left out.
            max_detections: the best so many are kept; the model's where it is left out.
            masks: ``array`` gives each object its ``mask`` [H, W] of bool beside its ``segmentation`` in COCO's run lengths,
                ``rle`` the latter alone, which takes far less memory, ``None`` neither.
            batch_size: images that are computed together.

        Raises:
            ModelError: the model is no detector.
            ImageError: images failed.
        """
        if masks not in ("array", "rle", None):
            raise ValueError(f"masks {masks!r}: array, rle and None are possible")
        _share("score_threshold", score_threshold)
        _count("max_detections", max_detections, 1 << 30)
        _count("batch_size", batch_size)
        bounds = _scale(scale)

        def answers(inputs: list[Any]) -> list[Any]:
            with_masks, arrays = masks is not None, masks == "array"
            chosen = (bounds, score_threshold, max_detections, with_masks, arrays, batch_size)
            return _native.detect(self._native, inputs, *chosen)

        def record(answer: Any) -> Detections:
            found = Detections(json.loads(answer[0]))
            if masks == "array":
                for detection, mask in zip(found.detections, answer[1], strict=True):
                    detection["mask"] = mask
            return found

        return self._ask(images, answers, record)

    @overload
    def segment(  # type: ignore[overload-overlap]
        self,
        images: Image,
        *,
        scale: tuple[int, int] | None = ...,
        multi_scale: bool = ...,
        flip: bool = ...,
        batch_size: int | None = ...,
    ) -> Segmentation: ...
    @overload
    def segment(
        self,
        images: Images[OneImage],
        *,
        scale: tuple[int, int] | None = ...,
        multi_scale: bool = ...,
        flip: bool = ...,
        batch_size: int | None = ...,
    ) -> list[Segmentation]: ...

    def segment(
        self,
        images: Any,
        *,
        scale: tuple[int, int] | None = None,
        multi_scale: bool = False,
        flip: bool = False,
        batch_size: int | None = None,
    ) -> Any:
        """The class of every pixel.

        Args:
            images: one or several.
            scale: bounds of the resized image's long and short side in pixels; the model's where it is left out.
            multi_scale: take the mean over six sizes, from half to 1.75 times the scale.
            flip: take the mean with the mirror image.
            batch_size: images that are computed together.

        Raises:
            ModelError: the model is no segmenter.
            ImageError: images failed.
        """
        _count("batch_size", batch_size)
        bounds = _scale(scale)

        def answers(inputs: list[Any]) -> list[Any]:
            return _native.segment(self._native, inputs, bounds, multi_scale, flip, batch_size)

        def record(answer: Any) -> Segmentation:
            found = Segmentation(json.loads(answer[0]))
            found["labels"], found._colours = answer[1:]
            return found

        return self._ask(images, answers, record)

    @overload
    def saliency(  # type: ignore[overload-overlap]
        self,
        images: Image,
        *,
        target: int | str | None = ...,
        method: str = ...,
        samples: int = ...,
        noise: float = ...,
        seed: int = ...,
        signed: bool = ...,
        resolution: int | None = ...,
        crop_pct: float | None = ...,
    ) -> Saliency: ...
    @overload
    def saliency(
        self,
        images: Images[OneImage],
        *,
        target: int | str | None = ...,
        method: str = ...,
        samples: int = ...,
        noise: float = ...,
        seed: int = ...,
        signed: bool = ...,
        resolution: int | None = ...,
        crop_pct: float | None = ...,
    ) -> list[Saliency]: ...

    def saliency(
        self,
        images: Any,
        *,
        target: int | str | None = None,
        method: str = "smooth-grad",
        samples: int = 25,
        noise: float = 0.15,
        seed: int = 0,
        signed: bool = False,
        resolution: int | None = None,
        crop_pct: float | None = None,
    ) -> Any:
        """Which pixels speak for a class. The first call loads the model a second time, with gradients.

        Args:
            images: one or several.
            target: the class, by its index or its name; the most probable one where it is left out.
            method: ``smooth-grad`` (arXiv 1706.03825) or ``grad-cam`` (arXiv 1610.02391), which is coarse and fast.
            samples: noisy copies of SmoothGrad.
            noise: standard deviation of its noise, as a share of the range of the input's values; with 0 there is one copy.
            seed: what the noise is drawn from.
            signed: take gradients that are positive in place of all by their size.
            resolution, crop_pct: as in :meth:`classify`.

        Raises:
            ModelError: the model is no classifier.
            ImageError: images failed.
        """
        _count("samples", samples, 1 << 20)
        _share("noise", noise, most=sys.float_info.max)
        _count("seed", seed, (1 << 64) - 1, least=0)
        _count("resolution", resolution, MOST_PIXELS)
        if isinstance(target, int) and target < 0:
            raise ValueError(f"target {target} is no class")

        def answers(inputs: list[Any]) -> list[Any]:
            chosen = (target, method, samples, noise, seed, signed, resolution, crop_pct)
            return _native.saliency(self._native, inputs, *chosen)

        def record(answer: Any) -> Saliency:
            found = Saliency(json.loads(answer[0]))
            found["map"], found._crop_pct, found._size = answer[1:]
            return found

        return self._ask(images, answers, record)

    @overload
    def features(  # type: ignore[overload-overlap]
        self,
        images: Image,
        *,
        resolution: int | None = ...,
        crop_pct: float | None = ...,
        batch_size: int | None = ...,
    ) -> Features: ...
    @overload
    def features(
        self,
        images: Images[OneImage],
        *,
        resolution: int | None = ...,
        crop_pct: float | None = ...,
        batch_size: int | None = ...,
    ) -> list[Features]: ...

    def features(
        self,
        images: Any,
        *,
        resolution: int | None = None,
        crop_pct: float | None = None,
        batch_size: int | None = None,
    ) -> Any:
        """What the network computes on the way: of detectors and segmenters the backbone's maps.

        Args:
            images: one or several.
            resolution, crop_pct, batch_size: as in :meth:`classify`.

        Raises:
            ImageError: images failed.
        """
        _count("resolution", resolution, MOST_PIXELS)
        _count("batch_size", batch_size)

        def answers(inputs: list[Any]) -> list[Any]:
            return _native.features(self._native, inputs, resolution, crop_pct, batch_size)

        def record(answer: Any) -> Features:
            found = Features(answer[1])
            of = json.loads(answer[0])
            found.image, found.model = of["image"], of["model"]
            return found

        return self._ask(images, answers, record)

    def embed(
        self,
        images: Any,
        *,
        resolution: int | None = None,
        crop_pct: float | None = None,
        batch_size: int | None = None,
    ) -> npt.NDArray[np.float32]:
        """The vector of each image, a classifier's last map normed and averaged: [N, C] of float32, of one image [C].

        Args:
            images: one or several.
            resolution, crop_pct, batch_size: as in :meth:`classify`.

        Raises:
            ModelError: the model is no classifier.
            ImageError: images failed.
        """
        _count("resolution", resolution, MOST_PIXELS)
        _count("batch_size", batch_size)

        def answers(inputs: list[Any]) -> list[Any]:
            return _native.embed(self._native, inputs, resolution, crop_pct, batch_size)

        vectors = self._ask(images, answers, lambda vector: vector)
        if isinstance(vectors, np.ndarray):
            return vectors
        return np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)

    def export(
        self,
        results: Record | Iterable[Record],
        format: str,
        folder: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> Path | None:
        """Writes results as a dataset for labelling and training, as ``--export FORMAT DIR`` of the program does.

        Args:
            results: of this model's ``detect`` or ``segment``, or for ``label-studio`` of its ``classify``.
            format: ``coco``, ``yolo``, ``voc``, ``labelme`` or ``label-studio``.
            folder: where to, made if need be. Images are not copied.
            root: the folder of the images, below which the dataset names them by their paths; by their names alone where it is
                left out.
            overwrite: replace what is there, which somebody may have corrected by hand.

        Returns:
            The dataset's file, or its folder where each image has a file; None where there are no results.

        Raises:
            FileExistsError: something is there.
            ValueError: the results are of several tasks, or several images have one name.
        """
        from . import datasets

        return datasets.export(self._native, results, format, folder, root, overwrite)

    def _ask(
        self, images: Any, answers: Callable[[list[Any]], list[Any]], answered: Callable[[Any], Answered]
    ) -> Answered | list[Answered]:
        """Asks the native part, and makes a record of each answer."""
        given, alone, lazy = as_images(images)
        results: list[Any] = []
        while True:
            try:
                chunk, inputs = _chunk(given, len(results), lazy)
            except Exception as error:
                if not results:
                    raise
                # Of what is done nothing is lost.
                ended = ImageError(
                    f"the images ended at {len(results)}: {error} (`results` has those that are done)"
                )
                ended.results = results
                raise ended from error
            if not chunk and results:
                break
            # Of no images too, so that a model that can't do it says so.
            found = iter(answers([one for one in inputs if not isinstance(one, ImageError)]))
            for image, one in zip(chunk, inputs, strict=True):
                answer = one if isinstance(one, ImageError) else next(found)
                if not isinstance(answer, ImageError):
                    answer = answered(answer)
                    if isinstance(answer, Record):
                        answer._keep(image, lazy)
                results.append(answer)
            if not chunk:
                break
        failed = [result for result in results if isinstance(result, ImageError)]
        if failed:
            words = str(failed[0])
            if not alone:
                words += f" ({len(failed)} of {len(results)} images failed; `results` of this exception has the others)"
            failure = ImageError(words)
            failure.results = results
            raise failure
        return results[0] if alone else results


def _chunk(images: Iterator[Any], first: int, lazy: bool) -> tuple[list[Any], list[Any]]:
    """Some of the images, and for each what the native part takes, with its name, or the exception that it met."""
    chunk: list[Any] = []
    inputs: list[Any] = []
    made = 0
    for image in itertools.islice(images, MOST_IMAGES):
        name = f"image {first + len(chunk)}"
        chunk.append(image)
        try:
            given = as_input(image, name)
            inputs.append((name, given))
        except ImageError as error:
            inputs.append(error)
            continue
        if isinstance(given, np.ndarray) and (lazy or given is not image):
            made += given.nbytes
        if made > MOST_BYTES:
            break
    return chunk, inputs


def _scale(scale: Sequence[int] | None) -> tuple[int, int] | None:
    if scale is None:
        return None
    right = isinstance(scale, Sequence) and len(scale) == 2 and all(isinstance(side, int) for side in scale)
    if not right or not all(1 <= side <= MOST_PIXELS for side in scale):
        raise ValueError(
            f"scale {scale!r}: two sides from 1 to {MOST_PIXELS} pixels are wanted, as (1333, 800)"
        )
    return scale[0], scale[1]
