"""Makes tests/golden/pickle: one object saved by torch in every container and pickle protocol.

Beside every file lies what it holds, as JSON of path to value: tensors as dtype, shape and the hex
of their little-endian row-major bytes, other objects as `<module.name>` followed by what they hold.

    python tests/golden/make/pickles.py tests/golden/pickle        (torch 2.5.1; protocols 0 and 1: 2.15)

torch itself does not read back what it writes in protocol 0.
"""

import argparse
import collections
import datetime
import json
import pathlib
import sys

import torch

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "Bool",
}


class Unreadable:
    """A value, and the name that stands for it because its kind is not supported."""

    def __init__(self, value, name):
        self.value, self.name = value, name


def saved(value):
    """The object as torch.save gets it."""
    if isinstance(value, Unreadable):
        return value.value
    if type(value) is dict:
        return {k: saved(v) for k, v in value.items()}
    return value


def flatten(value, path, out):
    """Adds a value and all that it holds to `out`."""
    if isinstance(value, Unreadable):
        out[path] = f"<{value.name}>"
    elif isinstance(value, torch.Tensor):
        data = value.detach().contiguous().flatten()
        raw = bytes(data.view(torch.uint8).tolist()) if data.numel() else b""
        out[path] = f"{DTYPES[value.dtype]} {list(value.shape)} {raw.hex()}"
    elif isinstance(value, dict):
        out[path] = f"dict of {len(value)}"
        for k, v in value.items():
            flatten(v, f"{path}/{k}", out)
    elif isinstance(value, (list, tuple, set, frozenset)):
        out[path] = f"list of {len(value)}"
        for i, v in enumerate(value):
            flatten(v, f"{path}/{i}", out)
    elif isinstance(value, argparse.Namespace):
        out[path] = "<argparse.Namespace>"
        flatten(vars(value), f"{path}/.", out)
    elif isinstance(value, (bytes, bytearray)):
        out[path] = f"bytes {bytes(value).hex()}"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        out[path] = "<int>"
    else:
        out[path] = value


def everything(protocol):
    """One of everything that a checkpoint may hold."""
    torch.manual_seed(0)
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    tagged = torch.nn.Parameter(torch.tensor([1.5, -2.5]))
    tagged.tag = "with state"
    counter = collections.defaultdict(list)
    counter["x"] = 1
    shared = {"weight": base[0], "bias": base[1, 2]}
    cycle = [1]
    cycle.append(cycle)
    result = {
        "dtypes": {name: (torch.arange(5) - 2).abs().to(dtype) for dtype, name in DTYPES.items()},
        "transposed": base.transpose(0, 2),
        "sliced": base[:, 1:, ::2],
        "expanded": base[1, 1, 1].expand(2, 3),
        "channels_last": torch.arange(16.0).reshape(1, 2, 2, 4).to(memory_format=torch.channels_last),
        "narrow": torch.arange(10, dtype=torch.int16)[3:7],
        "column": torch.arange(12, dtype=torch.bfloat16).reshape(3, 4)[:, 1],
        "unit": torch.arange(6.0).reshape(2, 1, 3).transpose(1, 2),
        "scalar": torch.tensor(3.25),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.tensor([[0.5]]), requires_grad=False),
        "tagged": tagged,
        "model": shared,
        "ema": shared,
        "module": module.state_dict(),
        "sequence": (1, [2.5, None], {"s"}, frozenset([True]), torch.Size([7, 8])),
        "pair": ("CLASSES", ("one", "two")),
        "ints": [0, -1, 255, 256, 65535, 65536, -129, 2**31, 2**40, -(2**63), 2**63 - 1, 2**63, -(2**80)],
        "text": ["", "ä€𝄞\n", "long " * 60],
        "args": argparse.Namespace(lr=1e-3, betas=(0.9, 0.999), name="run"),
        "counter": counter,
        "when": Unreadable(datetime.datetime(2022, 4, 14), "datetime.datetime"),
        "dtype": Unreadable(torch.float32, "torch.float32"),
        "device": Unreadable(torch.device("cpu"), "torch.device"),
        "complex": Unreadable(torch.zeros(2, dtype=torch.complex64), "torch.ComplexFloatStorage"),
        "negated": Unreadable(
            torch.tensor([1 + 2j]).conj().imag, "torch.Tensor (negated or conjugated lazily)"
        ),
        "cycle": cycle,
    }
    if protocol >= 3:
        result["bytes"] = b"\x00\xff"
    if protocol >= 5:
        result["bytearray"] = bytearray(b"\x01\x80")
    return result


def main():
    folder = pathlib.Path(sys.argv[1])
    for protocol in range(6):
        for container in ["zip", "legacy"]:
            value = everything(protocol)
            name = f"{container}-protocol{protocol}"
            torch.save(
                saved(value), folder / f"{name}.pth", pickle_protocol=protocol,
                _use_new_zipfile_serialization=container == "zip",
            )
            value["cycle"][1] = Unreadable(None, "(an object that contains this one)")
            out = {}
            flatten(value, "", out)
            text = json.dumps(out, indent=0, ensure_ascii=False)
            (folder / f"{name}.json").write_text(text + "\n")


main()
