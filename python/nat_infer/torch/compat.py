"""NATTEN's names, 0.14 to 0.17.4, for code that was written for it: on the CPU, and in two dimensions.

    from nat_infer.torch import compat

    compat.install()
    from transformers import DinatForImageClassification  # finds a package `natten`, version 0.14.6

Only what networks call is here: the module, and the two halves that Transformers' DiNAT and the authors' code
put together. What NATTEN has beyond that (one and three dimensions, causal windows, keys outside the map, its
fused calls of 0.17) raises an error.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import Loader
from types import ModuleType
from typing import Any

from torch import Tensor

from nat_infer.torch import NeighborhoodAttention2D
from nat_infer.torch._autograd import mix2d, scores2d

__all__ = [
    "NeighborhoodAttention2D",
    "install",
    "na2d_av",
    "na2d_qk",
    "natten2dav",
    "natten2dqk",
    "natten2dqkrpb",
]

#: Whose interface the installed package has, the last before the module's parameters changed.
VERSION = "0.14.6"


def natten2dqkrpb(query: Tensor, key: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int) -> Tensor:
    """The products of queries and keys, both [B, heads, H, W, dim], and the relative position biases `rpb`
    [heads, 2K−1, 2K−1]: [B, heads, H, W, K²]. Queries are scaled by the caller."""
    return scores2d(query, key, rpb, kernel_size, dilation)


def natten2dqk(query: Tensor, key: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """`natten2dqkrpb` without biases."""
    return scores2d(query, key, None, kernel_size, dilation)


def natten2dav(attn: Tensor, value: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """The sums of the values [B, heads, H, W, dim] with the probabilities `attn` [B, heads, H, W, K²]:
    [B, heads, H, W, dim]."""
    return mix2d(attn, value, kernel_size, dilation)


def na2d_qk(
    query: Tensor,
    key: Tensor,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    additional_keys: Tensor | None = None,
    is_causal: bool | Sequence[bool] | None = False,
    rpb: Tensor | None = None,
) -> Tensor:
    """`natten2dqkrpb` as NATTEN 0.17 has it.

    Raises:
        NotImplementedError: for windows that are not square or are causal, and for additional keys.
    """
    _refuse("additional keys", additional_keys is not None)
    _refuse("causal windows", any(_axes(is_causal)))
    return scores2d(query, key, rpb, _square("kernel size", kernel_size), _square("dilation", dilation))


def na2d_av(
    attn: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    additional_values: Tensor | None = None,
    is_causal: bool | Sequence[bool] | None = False,
) -> Tensor:
    """`natten2dav` as NATTEN 0.17 has it.

    Raises:
        NotImplementedError: for windows that are not square or are causal, and for additional values.
    """
    _refuse("additional values", additional_values is not None)
    _refuse("causal windows", any(_axes(is_causal)))
    return mix2d(attn, value, _square("kernel size", kernel_size), _square("dilation", dilation))


def _axes(value: Any) -> Sequence[Any]:
    """What an argument says of each axis."""
    return value if isinstance(value, Sequence) else (value, value)


def _square(what: str, value: int | Sequence[int]) -> int:
    height, width = map(int, _axes(value))
    _refuse(f"a {what} of {height}x{width}", height != width)
    return height


def _refuse(what: str, asked_for: bool) -> None:
    if asked_for:
        raise NotImplementedError(f"nat_infer.torch.compat does not have {what}: NATTEN itself does")


def install() -> None:
    """Makes `import natten` import this module's names, in this process.

    Code that looks for the package finds version 0.14.6 of it. Call it before importing Transformers, which
    looks for NATTEN once. A second call does nothing.

    Raises:
        RuntimeError: where NATTEN itself is installed or imported, and where Transformers has looked for it
            in vain.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    found: str | None
    try:
        found = f"natten {importlib.metadata.version('natten')} is installed"
    except importlib.metadata.PackageNotFoundError:
        found = "a module natten is there" if importlib.util.find_spec("natten") else None
    if found:
        raise RuntimeError(
            f"{found}: it would not be clear which one computes. Uninstall it to compute with nat_infer"
        )
    if "transformers.utils.import_utils" in sys.modules:
        raise RuntimeError(
            "transformers is imported already, and has not found natten: call "
            "nat_infer.torch.compat.install() before importing it"
        )
    sys.meta_path.append(_Finder())


class _Distribution(importlib.metadata.Distribution):
    """What the machinery of Python asks an installed package for."""

    def read_text(self, filename: str) -> str | None:
        texts = {
            "METADATA": f"Metadata-Version: 2.1\nName: natten\nVersion: {VERSION}\nSummary: nat-infer's\n",
            "top_level.txt": "natten\n",
        }
        return texts.get(filename)

    def locate_file(self, path: str | os.PathLike[str]) -> Any:
        raise FileNotFoundError(f"natten is a part of nat-infer and has no file {path}")


class _Finder(importlib.metadata.DistributionFinder, Loader):
    """Finds the package `natten`, its modules and its version."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in ("natten", "natten.functional", "natten.natten2d"):
            return None
        return importlib.machinery.ModuleSpec(
            fullname, self, origin=__file__, is_package=fullname == "natten"
        )

    def find_distributions(self, context: Any = None) -> Iterable[importlib.metadata.Distribution]:
        wanted = getattr(context, "name", None)
        return [_Distribution()] if wanted is None or wanted.lower() == "natten" else []

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        functions = [na2d_av, na2d_qk, natten2dav, natten2dqk, natten2dqkrpb]
        names: dict[str, dict[str, Any]] = {
            "natten": {"__version__": VERSION, "NeighborhoodAttention2D": NeighborhoodAttention2D},
            "natten.functional": {function.__name__: function for function in functions},
            "natten.natten2d": {"NeighborhoodAttention2D": NeighborhoodAttention2D},
        }
        vars(module).update(names[module.__name__], __doc__=__doc__)
