"""Checkpoints of any kind, without PyTorch. Nothing in a file is ever run."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union

from . import _native

StrPath = Union[str, "os.PathLike[str]"]


class CheckpointWarning(UserWarning):
    """What can make an answer another one than was meant."""


def said(
    arch: str | None, dilations: str | None, weights_key: str | None, ignore: str | Sequence[str]
) -> dict[str, Any]:
    """What a file can't say of itself, as the native part takes it."""
    if not isinstance(dilations, (str, type(None))):
        raise TypeError(f'dilations {dilations!r}: they are written, levels split by `/`: "1,8/1,4/1,2/1"')
    ignore = [ignore] if isinstance(ignore, str) else list(ignore)
    if not all(isinstance(pattern, str) for pattern in ignore):
        raise TypeError(f"ignore {ignore!r}: names of tensors are wanted")
    return {"arch": arch, "dilations": dilations, "weights_key": weights_key, "ignore": ignore}


def warn(texts: Sequence[str]) -> None:
    """Warns whoever called the function that calls this."""
    for text in texts:
        warnings.warn(text, CheckpointWarning, stacklevel=3)


def convert(
    path: StrPath,
    out: StrPath | None = None,
    *,
    arch: str | None = None,
    dilations: str | None = None,
    dtype: str | None = None,
    part: str = "all",
    weights_key: str | None = None,
    ignore: str | Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Writes a checkpoint as one safetensors file, which :func:`load` takes as it is, reads it back and compares.

    Args:
        path: a file of PyTorch (zip or legacy), safetensors, or a folder of Transformers.
        out: the file to write; the checkpoint's stem with ``.safetensors`` in the current folder where it is left out.
        arch: what the checkpoint is, as :func:`list_models` names it: its dilations and preprocessing are taken.
        dilations: levels split by ``/``, a level's list repeats along it: ``1,8/1,4/1,2/1``.
        dtype: ``f32``, ``f16`` or ``bf16`` for every tensor; their own where it is left out.
        part: ``all`` or ``backbone``.
        weights_key: the key under which the file has the weights, where there are several.
        ignore: names of tensors to leave out; ``*`` stands for any characters, ``?`` for one.
        overwrite: replace ``out`` if it exists.

    Returns:
        The file that was written.

    Raises:
        ConvertError: the checkpoint can't be read or is none of ours, or the file can't be written.
    """
    if part not in ("all", "backbone"):
        raise ValueError(f"part {part!r}: all and backbone are possible")
    if out is None:
        whole = Path(path).resolve() if Path(path).is_dir() else Path(path)
        out = (whole.name if whole.is_dir() else whole.stem) + ".safetensors"
    options = said(arch, dilations, weights_key, ignore)
    _, warned = _native.convert(path, out, options, part == "backbone", dtype, overwrite)
    warn(warned)
    return Path(out)


def inspect(
    path: StrPath,
    *,
    arch: str | None = None,
    dilations: str | None = None,
    part: str = "all",
    weights_key: str | None = None,
    ignore: str | Sequence[str] = (),
) -> dict[str, Any]:
    """What a checkpoint is, as ``nat-convert --inspect --format json`` prints it: container, layout, task, architecture,
    preprocessing, labels, every tensor's name, shape and dtype, and under ``warnings`` what can be wrong.

    The arguments are those of :func:`convert`.

    Raises:
        ConvertError: the checkpoint can't be read or is none of ours.
    """
    if part not in ("all", "backbone"):
        raise ValueError(f"part {part!r}: all and backbone are possible")
    report, _ = _native.inspect(path, said(arch, dilations, weights_key, ignore), part == "backbone")
    found: dict[str, Any] = json.loads(report)
    return found
