"""Images as Python has them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, BinaryIO, Protocol, Union

import numpy as np
import numpy.typing as npt

from . import _native
from ._native import ImageError


class PillowImage(Protocol):
    """An image of PIL's, which need not be installed."""

    @property
    def mode(self) -> str: ...

    def convert(self, mode: Any = ..., /) -> Any: ...

    def getexif(self) -> Any: ...


# A path or an address (http, https), the bytes of a file or an open one, pixels [H, W, 3] of uint8, or an image of PIL's.
Image = Union[  # noqa: UP007 - of names that are not there when the module runs
    str,
    "os.PathLike[str]",
    bytes,
    bytearray,
    memoryview,
    BinaryIO,
    "npt.NDArray[np.uint8]",
    PillowImage,
]

# Images that are at the native part together, and bytes of those that were made for it: the others wait for their turn.
MOST_IMAGES = 1024
MOST_BYTES = 256 << 20


def as_images(images: Any) -> tuple[Iterator[Any], bool, bool]:
    """The images of one or many, whether it was one alone, and whether they come into being one by one."""
    if isinstance(images, np.ndarray):
        return (iter(images), False, False) if images.ndim == 4 else (iter([images]), True, False)
    alone = (str, bytes, bytearray, memoryview, os.PathLike)
    if isinstance(images, alone) or hasattr(images, "read") or not isinstance(images, Iterable):
        return iter([images]), True, False
    if isinstance(images, (Set, Mapping)):
        raise TypeError(
            f"images in a {type(images).__name__} have no order in which to answer: make it a list"
        )
    return iter(images), False, isinstance(images, Iterator)


def as_input(image: Any, name: str) -> Any:
    """An image as the native part takes it: a path, an address, bytes, or a contiguous array [H, W, 3] of uint8.

    Arrays that are contiguous are not copied.

    Raises:
        ImageError: it is an image, and broken.
        TypeError: it is none.
    """
    if isinstance(image, (str, bytes, os.PathLike)):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            shape = list(image.shape)
            raise TypeError(f"{name}: an array {shape} of {image.dtype}; [H, W, 3] of uint8 is wanted, RGB")
        return np.ascontiguousarray(image)
    try:
        if isinstance(image, (bytearray, memoryview)):
            return bytes(image)
        pil = sys.modules.get("PIL.Image")
        if pil is not None and isinstance(image, pil.Image):
            from PIL import ImageOps

            # As its file is read: turned as EXIF says, and what is no RGB made so by PIL.
            return _rgb(ImageOps.exif_transpose(image), name, image.format)
        if hasattr(image, "read"):
            read = image.read()
            if not isinstance(read, bytes):
                raise TypeError(f'{name}: a file of text; open it with "rb"')
            return read
    except (ImageError, TypeError):
        raise
    except Exception as error:
        raise ImageError(f"{name}: {error}") from error
    kind = type(image).__name__
    raise TypeError(
        f"{name}: {kind} is no image; a path, bytes, an array [H, W, 3] of uint8 or an image of PIL's is"
    )


def _rgb(image: Any, name: str, file_format: str | None) -> npt.NDArray[np.uint8]:
    """As files of that mode are read: as PIL makes RGB of them, but for modes of which it would make black and white. What
    came out of no file, and would be, is refused."""
    mode = image.mode
    if mode.startswith("I;16"):
        grey = np.asarray(image) >> 8
    elif mode == "F":
        values = np.nan_to_num(np.asarray(image, np.float64), nan=0)
        if file_format is None and values.max(initial=0) > 1:
            raise ImageError(f"{name}: floats above 1, and white is 1: divide them")
        grey = np.floor(np.clip(values, 0, 1) * 255 + 0.5)
    elif mode == "I" and file_format == "PNG":
        # 16 bits of grey, as older versions have them.
        grey = np.asarray(image) >> 8
    elif mode == "I" and file_format is None and np.asarray(image).max(initial=0) > 255:
        raise ImageError(f"{name}: numbers above 255, and white is 255: divide them")
    else:
        return np.asarray(image.convert("RGB"))
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def read_image(image: Image) -> npt.NDArray[np.uint8]:
    """The pixels of an image as the models see them: [H, W, 3] of uint8, RGB, turned upright as EXIF says.

    Reads JPEG, PNG, WebP, BMP, GIF (the first frame) and TIFF, to the bit as Pillow does.

    Raises:
        ImageError: it can't be read.
    """
    given = as_input(image, "image")
    return given if isinstance(given, np.ndarray) else _native.read_image(given)
