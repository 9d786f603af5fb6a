"""The examples for Ray, Spark and Dask: a worker is killed, every image is answered once, as the program answers it.

They run where `NAT_INFER_ENGINES` is 1 and examples/requirements.txt is installed: they take a minute or two, and a Java.
"""

import io
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

if os.environ.get("NAT_INFER_ENGINES") != "1":
    pytest.skip("NAT_INFER_ENGINES is not 1", allow_module_level=True)

Image = pytest.importorskip("PIL.Image")
parquet = pytest.importorskip("pyarrow.parquet")

EXAMPLES = ROOT / "examples"
COUNT = 2000

# Python reads it when a process begins. The process that has answered its second batch, but not given the answers back, dies,
# once in a run, and each says when it loads a model.
KILLS = """
import os
import signal

import nat_infer

answer, answered, load = nat_infer.Model.classify, [], nat_infer.load


def say_and_load(*args, **options):
    with open(os.environ["LOADS"], "a") as loads:
        loads.write(f"{os.getpid()}\\n")
    return load(*args, **options)


def classify(self, *args, **options):
    try:
        return answer(self, *args, **options)
    finally:
        answered.append(1)
        if len(answered) == 2:
            try:
                os.mkdir(os.environ["KILLED"])
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass


nat_infer.Model.classify, nat_infer.load = classify, say_and_load
"""


def varied(image: Image.Image, number: int) -> bytes:
    """An image like no other: turned, of another size, darker, and of either format."""
    image = image.convert("RGB").rotate(number * 7 % 50 - 25).resize((60 + number % 61, 60 + number % 53))
    image = image.point(lambda value: value * (100 - number % 41) // 100)
    content = io.BytesIO()
    image.save(
        content, **{"format": "PNG"} if number % 3 else {"format": "JPEG", "quality": 60 + number % 40}
    )
    return content.getvalue()


@pytest.fixture(scope="module")
def photos(golden, tmp_path_factory):
    """A folder of images, some of which can't be read, or have names that are written otherwise in addresses."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    digits = [Image.open(path) for path in sorted((golden / "digits" / "images").iterdir())]
    for number in range(COUNT):
        content = varied(digits[number % len(digits)], number)
        if number % 400 == 50:
            content = [b"", b"no image", content[: len(content) // 3]][number // 400 % 3]
        name = f"{number}.png" if number % 100 else f"ä {number}%20+#.png"
        (folder / ["", "below"][number % 2] / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def expected(photos, program):
    """What the program says of each: index, label and score, or why it says nothing."""
    asked = ["--model", "demo-digits", "--top-k", 1, "--format", "jsonl", "--quiet"]
    done = program("nat-infer", "classify", photos, "--recursive", *asked)
    assert done.returncode == 1
    answers = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        best = record["top"][0]
        answers[record["image"]] = best["index"], best["label"], np.float32(best["score"]), ""
    for line in done.stderr.splitlines():
        path, reason = line.removeprefix("nat-infer: ").split(": ", 1)
        answers[path] = -1, "", None, reason
    assert len(answers) == COUNT and sum(answer[3] != "" for answer in answers.values()) == 5
    return answers


def started(example: str, photos: Path, out: Path) -> list:
    """The command of an example."""
    if example == "spark.py":
        return [
            "spark-submit",
            "--master",
            "local[2,4]",
            EXAMPLES / example,
            photos,
            out,
            "--model",
            "demo-digits",
        ]
    workers = ["--workers", 2, "--threads", 1]
    return [sys.executable, EXAMPLES / example, photos, out, "--model", "demo-digits", *workers]


@pytest.mark.parametrize("example", ["ray_data.py", "spark.py", "dask_bag.py"])
def test_every_image_is_answered_once_although_a_worker_is_killed(example, photos, expected, tmp_path):
    pytest.importorskip({"ray_data.py": "ray", "spark.py": "pyspark", "dask_bag.py": "dask.bag"}[example])
    (tmp_path / "sitecustomize.py").write_text(KILLS)
    killed, loads, out = tmp_path / "killed", tmp_path / "loads", tmp_path / "out"
    variables = {"PYTHONPATH": tmp_path, "KILLED": killed, "LOADS": loads, "PYSPARK_PYTHON": sys.executable}
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    command = [str(part) for part in started(example, photos, out)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {name: str(value) for name, value in variables.items()} | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    # Two workers and one in the place of the one that died, which have it for all of their tasks.
    processes = loads.read_text().split()
    assert killed.exists() and len(processes) == len(set(processes)) < 8
    rows = [row for file in sorted(out.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]
    assert len(rows) == COUNT
    for row in rows:
        index, label, score, error = expected[row["path"]]
        assert (row["index"], row["label"], row["error"]) == (index, label, error)
        # Where there is none, Parquet has NaN, and pandas writes null.
        assert row["score"] == score or score is None and (row["score"] is None or np.isnan(row["score"]))
    assert {row["path"] for row in rows} == set(expected)
