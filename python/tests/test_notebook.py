"""The notebook runs from top to bottom, and says and draws what is in it."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("torch")
NotebookClient = pytest.importorskip("nbclient").NotebookClient

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def said(cell):
    """What a cell prints and shows; of pictures their number."""
    words, pictures = [], 0
    for output in cell.get("outputs", []):
        if output.get("name") == "stdout":
            words.append(output["text"])
        elif "data" in output:
            pictures += "image/png" in output["data"]
            words.append(re.sub(r"at 0x\w+", "", output["data"].get("text/plain", "")))
    return "".join(words), pictures


def test_the_notebook_says_what_it_says():
    path = EXAMPLES / "nat_infer.ipynb"
    kept, run = nbformat.read(path, as_version=4), nbformat.read(path, as_version=4)
    for cell in run.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(run, timeout=120, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    assert [said(cell) for cell in run.cells] == [said(cell) for cell in kept.cells]
    assert sum(said(cell)[1] for cell in kept.cells) >= 5
