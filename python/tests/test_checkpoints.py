"""Checkpoints are converted and inspected as `nat-convert` does it."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import nat_infer as ni

pytestmark = pytest.mark.filterwarnings("ignore::nat_infer.CheckpointWarning")


def test_a_checkpoint_is_converted_as_by_the_program(golden, program, tmp_path, monkeypatch):
    path = golden / "classify" / "nat-k5-layerscale-ema.pth"
    monkeypatch.chdir(tmp_path)
    assert program("nat-convert", path, "-o", tmp_path / "theirs.safetensors").returncode == 0
    written = ni.convert(path)
    assert written == Path("nat-k5-layerscale-ema.safetensors")
    assert written.read_bytes() == Path("theirs.safetensors").read_bytes()
    image = golden / "images" / "chelsea.png"
    assert ni.load(written).classify(image).top == ni.load(path).classify(image).top
    with pytest.raises(ni.ConvertError, match="exists.*; overwrite=True replaces it"):
        ni.convert(path)
    half = ni.convert(path, written, dtype="f16", overwrite=True)
    assert {values.dtype for values in load_file(half).values()} == {np.dtype(np.float16)}
    backbone = ni.convert(path, "backbone.safetensors", part="backbone")
    assert not any(name.startswith("head") for name in load_file(backbone))


def test_a_checkpoint_is_inspected_as_by_the_program(golden, program):
    for path in [golden / "classify" / "dinat-k7-f16.pth", golden / "transformers" / "nat-hf"]:
        printed = program("nat-convert", path, "--inspect", "--format", "json").stdout
        assert ni.inspect(path) == json.loads(printed)
    assert ni.inspect(golden / "classify" / "nat-k7.pth", dilations="2/1/1/1")["dilations"] == "2/1/1/1"


def test_what_is_warned_of_is_a_warning(golden, tmp_path):
    with pytest.warns(ni.CheckpointWarning, match="arch or dilations states them if it is a DiNAT") as caught:
        ni.convert(golden / "classify" / "nat-k7.pth", tmp_path / "out.safetensors")
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"path": "none.pth"}, ni.ConvertError, "none.pth: "),
        ({"path": __file__}, ni.ConvertError, "test_checkpoints.py: "),
        ({"arch": "nat-tyny"}, ni.ConvertError, "no model is named `nat-tyny`"),
        ({"weights_key": "teacher"}, ni.ConvertError, "teacher"),
        ({"dtype": "f64"}, ValueError, 'dtype "f64"'),
        ({"part": "head"}, ValueError, "part 'head'"),
        ({"dilations": "x"}, ValueError, "not a number from 1 to 4096"),
        ({"out": "/none/out.safetensors"}, ni.ConvertError, "no such folder to write to"),
    ],
)
def test_what_can_not_be_converted_is_refused(golden, tmp_path, arguments, kind, words):
    options = {"path": golden / "classify" / "nat-k7.pth", "out": tmp_path / "out.safetensors", **arguments}
    with warnings.catch_warnings(), pytest.raises(kind, match=words) as caught:
        ni.convert(options.pop("path"), options.pop("out"), **options)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
