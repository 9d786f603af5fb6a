"""Compares folders of golden data by what is in their files: tensors, pixels, JSON, bytes.

    pip install torch numpy pillow safetensors
    python tests/golden/make/check.py REMADE tests/golden/FOLDER

Prints for each file `bytes` (the same), `values` (the same), or by how much tensors are off (norm of the difference
divided by the norm of what is committed); ends with 1 if something is more than 1e-5 off, missing or of another kind.
"""

import json
import pathlib
import sys

import torch


def flat(value, path="", found=None):
    found = {} if found is None else found
    if path.count("/") > 20:  # an object that contains itself
        return found
    if isinstance(value, dict):
        for key, item in value.items():
            flat(item, f"{path}/{key}", found)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            flat(item, f"{path}/{i}", found)
    elif hasattr(value, "__dict__") and not isinstance(value, torch.Tensor):
        flat(vars(value), f"{path}/.", found)
    else:
        found[path] = value
    return found


def contents(path):
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file
        return load_file(path)
    if path.suffix in (".pth", ".pt", ".ckpt", ".bin"):
        return flat(torch.load(path, map_location="cpu", weights_only=False))
    if path.suffix == ".json":
        return flat(json.loads(path.read_text()))
    if path.suffix == ".png":
        import numpy as np
        from PIL import Image
        return {"pixels": torch.from_numpy(np.array(Image.open(path)))}
    return None


def apart(a, b):
    """How far two values are from each other: 0 if they are the same."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        if a.is_sparse or a.is_quantized or a.is_meta or a.is_nested:
            return 0.0 if str(a) == str(b) else float("inf")
        if torch.equal(a, b):
            return 0.0
        a, b = a.double(), b.double()
        return ((a - b).norm() / b.norm()).item()
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) / max(abs(b), 1e-300) if a != b else 0.0
    return 0.0 if type(a) is type(b) and bool((a == b) if not hasattr(a, "all") else (a == b).all()) else float("inf")


def main():
    remade, committed = [pathlib.Path(argument) for argument in sys.argv[1:3]]
    failed = False
    for path in sorted(p for p in committed.rglob("*") if p.is_file() and p.suffix not in (".py", ".md")):
        other = remade / path.relative_to(committed)
        if not other.exists():
            said, bad = "missing", True
        elif other.read_bytes() == path.read_bytes():
            said, bad = "bytes", False
        else:
            try:
                ours, theirs = contents(other), contents(path)
            except Exception as error:  # PyTorch does not read back all that it writes
                ours, theirs, said = None, None, f"unreadable ({str(error).splitlines()[0]})"
            else:
                said = "other bytes"
            if ours is None:
                bad = True
            elif ours.keys() != theirs.keys():
                said, bad = "other names", True
            else:
                off = max((apart(ours[key], theirs[key]) for key in theirs), default=0.0)
                said, bad = "values" if off == 0 else f"{off:.1e}", off > 1e-5
        failed |= bad
        print(f"{said:12} {path.relative_to(committed)}")
    sys.exit(int(failed))


main()
