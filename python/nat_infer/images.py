"""Images as Python has them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

from . import _native

if TYPE_CHECKING:
    import PIL.Image

# A path or an address (http, https), the bytes of a file, pixels [H, W, 3] of uint8, or an image of PIL's.
Image = Union[
    str, "os.PathLike[str]", bytes, bytearray, memoryview, "npt.NDArray[np.uint8]", "PIL.Image.Image"
]


def as_list(images: Any) -> tuple[list[Any], bool]:
    """The images of one or many, and whether it was one alone."""
    alone = (str, bytes, bytearray, memoryview, os.PathLike)
    if isinstance(images, np.ndarray):
        return (list(images), False) if images.ndim == 4 else ([images], True)
    if isinstance(images, alone) or not isinstance(images, Iterable):
        return [images], True
    return list(images), False


def as_input(image: Any, name: str) -> Any:
    """An image as the native part takes it: a path, an address, bytes, or a contiguous array [H, W, 3] of uint8.

    Arrays that are contiguous are not copied.
    """
    if isinstance(image, (str, bytes, os.PathLike)):
        return image
    if isinstance(image, (bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            shape = list(image.shape)
            raise TypeError(f"{name}: an array {shape} of {image.dtype}; [H, W, 3] of uint8 is wanted, RGB")
        return np.ascontiguousarray(image)
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(image, pil.Image):
        from PIL import ImageOps

        return _rgb(ImageOps.exif_transpose(image))
    kind = type(image).__name__
    raise TypeError(
        f"{name}: {kind} is no image; a path, bytes, an array [H, W, 3] of uint8 or an image of PIL's is"
    )


def _rgb(image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """As files of that mode are read: as PIL makes RGB of them, but for two modes of which it would make black and white."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
    elif image.mode == "F":
        grey = np.floor(
            np.clip(np.nan_to_num(np.asarray(image, np.float64), nan=0), 0, 1) * 255 + 0.5
        ).astype(np.uint8)
    else:
        return np.asarray(image.convert("RGB"))
    return np.repeat(grey[:, :, None], 3, axis=2)


def read_image(image: Image) -> npt.NDArray[np.uint8]:
    """The pixels of an image as the models see them: [H, W, 3] of uint8, RGB, turned upright as EXIF says.

    Reads JPEG, PNG, WebP, BMP, GIF (the first frame) and TIFF, to the bit as Pillow does.

    Raises:
        ImageError: it can't be read.
    """
    given = as_input(image, "image")
    return given if isinstance(given, np.ndarray) else _native.read_image(given)
