"""Neighborhood Attention Transformers (NAT, DiNAT): the published networks with the original's numbers, no PyTorch.

>>> import nat_infer as ni
>>> model = ni.load("demo-digits")  # part of the package; "nat-tiny" and others are fetched on first use
>>> model.classify("nine.png").top[0]["label"]  # doctest: +SKIP
'9'

``list_models()`` names the published models. A model takes paths, addresses, bytes of files, PIL images, numpy arrays
[H, W, 3] of uint8, and lists of them. ``convert`` and ``inspect`` read checkpoints; ``nat_infer.torch`` has neighborhood
attention for PyTorch. The programs ``nat-infer`` and ``nat-convert`` come with the package.
"""

from . import _threads as _threads
from ._native import ConvertError, ImageError, ModelError, NatInferError, __version__
from .checkpoints import CheckpointWarning, convert, inspect
from .datasets import to_fiftyone
from .images import Image, read_image
from .model import Model, list_models, load, model_info
from .results import (
    Classification,
    CocoResult,
    Detection,
    Detections,
    Features,
    Rle,
    Saliency,
    Scored,
    Segment,
    Segmentation,
    decode_mask,
    to_coco,
)

__all__ = [
    "CheckpointWarning",
    "Classification",
    "CocoResult",
    "ConvertError",
    "Detection",
    "Detections",
    "Features",
    "Image",
    "ImageError",
    "Model",
    "ModelError",
    "NatInferError",
    "Rle",
    "Saliency",
    "Scored",
    "Segment",
    "Segmentation",
    "__version__",
    "convert",
    "decode_mask",
    "inspect",
    "list_models",
    "load",
    "model_info",
    "read_image",
    "to_coco",
    "to_fiftyone",
]
