"""The native part. Its functions are for this package alone; `nat_infer` has those for others."""

import os
import pathlib
from typing import Any, final

import numpy as np
import numpy.typing as npt

__version__: str

_Path = str | os.PathLike[str]
_Pixels = npt.NDArray[np.uint8]
# Of float32 or float64, all of a call of one type.
_Floats = npt.NDArray[Any]

class NatInferError(Exception):
    """What this package can't do, in one line: what, which file, what to do."""

class ModelError(NatInferError):
    """A model that can't be had or loaded, or is made for another task than is asked of it."""

class ImageError(NatInferError):
    """An image that has no answer: it can't be read, or the network gives no number for it."""

    results: list[Any]
    """Of every image that was asked for its answer, or its exception."""

class ConvertError(NatInferError):
    """A checkpoint that can't be read or converted."""

@final
class Model:
    @staticmethod
    def load(
        asked: str | os.PathLike[str] | bytes,
        said: dict[str, Any],
        labels: list[str] | None,
        device: str,
        dtype: str | None,
        threads: int | None,
        offline: bool,
        quiet: bool,
    ) -> tuple[Model, list[str]]: ...
    @property
    def name(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def labels(self) -> list[str] | None: ...
    @property
    def classes(self) -> int | None: ...
    @property
    def parameters(self) -> int: ...
    def metadata(self) -> str: ...

def classify(
    model: Model,
    images: list[Any],
    top_k: int,
    resolution: int | None,
    crop_pct: float | None,
    batch_size: int | None,
) -> list[Any]: ...
def detect(
    model: Model,
    images: list[Any],
    scale: tuple[int, int] | None,
    score_threshold: float | None,
    max_detections: int | None,
    masks: bool,
    arrays: bool,
    batch_size: int | None,
) -> list[Any]: ...
def segment(
    model: Model,
    images: list[Any],
    scale: tuple[int, int] | None,
    multi_scale: bool,
    flip: bool,
    batch_size: int | None,
) -> list[Any]: ...
def saliency(
    model: Model,
    images: list[Any],
    target: int | str | None,
    method: str,
    samples: int,
    noise: float,
    seed: int,
    signed: bool,
    resolution: int | None,
    crop_pct: float | None,
) -> list[Any]: ...
def features(
    model: Model,
    images: list[Any],
    resolution: int | None,
    crop_pct: float | None,
    batch_size: int | None,
) -> list[Any]: ...
def embed(
    model: Model,
    images: list[Any],
    resolution: int | None,
    crop_pct: float | None,
    batch_size: int | None,
) -> list[Any]: ...
def read_image(image: _Path | bytes | _Pixels) -> _Pixels: ...
def decode_mask(size: tuple[int, int], counts: str) -> npt.NDArray[np.bool_]: ...
def draw_objects(
    image: _Pixels,
    objects: list[tuple[int, str, float, list[float], tuple[list[int], str] | None]],
    opacity: float,
) -> _Pixels: ...
def draw_labels(
    image: _Pixels,
    labels: _Pixels,
    colours: list[tuple[int, int, int]],
    shares: list[tuple[int, str, float]],
    place: str,
    opacity: float,
) -> _Pixels: ...
def draw_heat(
    image: _Pixels,
    map: npt.NDArray[np.float32],
    crop_pct: float,
    of: tuple[int, str, float],
    place: str,
) -> _Pixels: ...
def export_classes(model: Model) -> list[tuple[int, str]]: ...
def export(
    records: list[tuple[str, _Pixels | None, tuple[str, str | None, str | None]]],
    with_: str,
    format: str,
    folder: str,
    classes: list[tuple[int, str]],
    overwrite: bool,
) -> pathlib.Path | None: ...
def label_studio(
    record: tuple[str, _Pixels | None, tuple[str, str | None, str | None]], with_: str
) -> str: ...
def convert(
    path: _Path, target: _Path, said: dict[str, Any], backbone: bool, dtype: str | None, overwrite: bool
) -> tuple[str, list[str]]: ...
def inspect(path: _Path, said: dict[str, Any], backbone: bool) -> tuple[str, list[str]]: ...
def na2d(qkv: _Floats, rpb: _Floats | None, sizes: tuple[int, int, int], threads: int | None) -> _Floats: ...
def na2d_backward(
    qkv: _Floats,
    rpb: _Floats | None,
    grad: _Floats,
    sizes: tuple[int, int, int],
    rpb_too: bool,
    threads: int | None,
) -> tuple[_Floats, _Floats | None]: ...
def na2d_scores(
    a: _Floats,
    b: _Floats,
    rpb: _Floats | None,
    kernel_size: int,
    dilation: int,
    threads: int | None,
) -> _Floats: ...
def na2d_mix(
    w: _Floats, x: _Floats, kernel_size: int, dilation: int, transposed: bool, threads: int | None
) -> _Floats: ...
def na2d_bias_gradient(grad: _Floats, kernel_size: int, dilation: int, threads: int | None) -> _Floats: ...
def start_candles_pool() -> None: ...
def python_ends() -> None: ...
def is_model_name(name: str) -> bool: ...
def list_models(task: str | None = None) -> list[str]:
    """The names of the published models, of one task (`classify`, `detect` or `segment`) if it is named."""

def model_info(name: str) -> dict[str, Any]:
    """What is known of a published model without its weights: `name`, `task`, `parameters`, `classes`, `labels`, `licence`,
    `hub`, `url`, the authors' figures under `reported`, and under `path` where a cache has it."""
