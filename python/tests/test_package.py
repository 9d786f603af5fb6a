"""What comes with the package: the programs, the types, the notebook."""

import os
import subprocess
import sys
import typing
import zipfile
from importlib.metadata import distribution, version

import pytest

import nat_infer as ni


def test_the_programs_are_those_of_this_version(program, nine):
    for name in ["nat-infer", "nat-convert"]:
        assert program(name, "--version").stdout.split() == [name, ni.__version__]
    done = program("nat-infer", "classify", nine, "--model", "demo-digits", "--top-k", 1, "--format", "csv")
    assert done.returncode == 0 and ",9,9,0.97" in done.stdout
    assert program("nat-infer", "classify", "none.png", "--model", "demo-digits").returncode == 1
    assert program("nat-infer", "swim").returncode == 2


def test_the_package_says_what_it_is():
    assert version("nat-infer") == ni.__version__
    files = {str(file) for file in distribution("nat-infer").files}
    assert {"nat_infer/py.typed", "nat_infer/_native.pyi", "nat_infer/torch/__init__.py"} <= files
    requires = distribution("nat-infer").requires
    assert [line for line in requires if "extra" not in line] == ["numpy>=1.24"]


def test_what_python_sees_is_documented():
    for name in ni.__all__:
        thing = getattr(ni, name)
        if name != "Image" and callable(thing):
            assert thing.__doc__, name
    for name, method in vars(ni.Model).items():
        if not name.startswith("_"):
            assert (method.__doc__ or "").strip(), name


def test_types_are_right(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "use.py").write_text(
        """
from pathlib import Path

import nat_infer as ni
import numpy as np

model = ni.load("nat-tiny", threads=2)
one: ni.Classification = model.classify("a.png", top_k=3)
many: list[ni.Classification] = model.classify([Path("a.png"), Path("b.png")])
label: str = one.top[0]["label"]
found: ni.Detections = model.detect(np.zeros((4, 5, 3), np.uint8), masks="rle")
x: float = found.detections[0]["bbox"][0]
coco: list[ni.CocoResult] = ni.to_coco(model.detect(["a.png"]))
regions: ni.Segmentation = model.segment(b"...")
fraction: float = regions.segments[0]["fraction"]
maps: list[ni.Saliency] = model.saliency(("a.png",), target="cat")
for answer in model.classify(path for path in Path(".").iterdir()):
    label = answer.top[0]["label"]
wrong: int = one.top[0]["label"]  # E
model.classify("a.png", top=3)  # E
model.classify(3.5)  # E
"""
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", sys.executable]
    # What PyTorch does not say of its own.
    lenient = ["--allow-untyped-decorators", "--no-warn-return-any"]
    checked = subprocess.run([*command, "use.py"], cwd=tmp_path, capture_output=True, text=True)
    lines = (tmp_path / "use.py").read_text().splitlines()
    wanted = {i for i, line in enumerate(lines, 1) if line.endswith("# E")}
    got = {int(line.split(":")[1]) for line in checked.stdout.splitlines() if ": error:" in line}
    assert got == wanted, checked.stdout
    # The package itself.
    checked = subprocess.run(
        [*command, *lenient, "-p", "nat_infer"], cwd=tmp_path, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


def test_the_native_part_has_the_types_that_it_says(tmp_path):
    pytest.importorskip("mypy")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "nat_infer._native", "--ignore-missing-stub"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_wheel_holds_the_programs_and_is_of_every_python():
    path = os.environ.get("NAT_INFER_WHEEL")
    if path is None:
        pytest.skip("NAT_INFER_WHEEL does not say where the wheel is")
    assert f"nat_infer-{ni.__version__}-cp310-abi3-" in path
    with zipfile.ZipFile(path) as wheel:
        files = {file.filename: file for file in wheel.infolist()}
    for name in ["nat-infer", "nat-convert"]:
        program = files[f"nat_infer-{ni.__version__}.data/scripts/{name}"]
        assert program.external_attr >> 16 & 0o111
    assert "nat_infer/_native.abi3.so" in files and any("licenses/LICENSE-MIT" in name for name in files)


def test_types_can_be_looked_up():
    assert typing.get_type_hints(ni.Detection)["segmentation"] is ni.Rle
    assert ni.Detection.__required_keys__ == {"category_id", "index", "label", "score", "bbox"}
    assert ni.CocoResult.__optional_keys__ == {"segmentation"}
