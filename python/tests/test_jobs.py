"""The examples that run the program in shards: what they run is run here, one process is killed, and nothing is lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time

import pytest
from conftest import ROOT

yaml = pytest.importorskip("yaml")

EXAMPLES = ROOT / "examples"
JOB = yaml.safe_load((EXAMPLES / "kubernetes" / "job.yaml").read_text())
MERGE = yaml.safe_load((EXAMPLES / "kubernetes" / "merge.yaml").read_text())
SHARDS = JOB["spec"]["completions"]


def container(job: dict) -> dict:
    (only,) = job["spec"]["template"]["spec"]["containers"]
    return only


def environment(**variables: object) -> dict:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    return {"PATH": path, **{name: str(value) for name, value in variables.items()}}


class Kubernetes:
    """Runs what a container of the manifest runs, with the folders of a test in the places of its volumes."""

    def __init__(self, folder):
        self.folder = folder

    def moved(self, text: str) -> str:
        mounted = "|".join(volume["mountPath"] for volume in container(JOB)["volumeMounts"])
        return re.sub(rf"(?<!\w)({mounted})\b", lambda found: f"{self.folder}{found[1]}", text)

    def command(self, shard: int, path: str = "") -> dict:
        of = container(JOB)
        given = {one["name"]: self.moved(one.get("value", "1")) for one in of["env"]}
        variables = environment(**given | {"MODEL": "demo-digits", "JOB_COMPLETION_INDEX": shard - 1})
        variables["PATH"] = path + variables["PATH"]
        command = [*of["command"], *map(self.moved, of["args"])]
        return {"args": command, "cwd": self.moved(of["workingDir"]), "env": variables}

    def output(self, shard: int):
        return self.folder / "results" / f"shard-{shard}.jsonl"


class Slurm:
    """Runs the script of the array as Slurm does, numbered from 5 on."""

    def __init__(self, folder):
        self.folder = folder

    def command(self, shard: int, path: str = "", **others: object) -> dict:
        array = {"ID": shard + 4, "MIN": 5, "MAX": SHARDS + 4, "COUNT": SHARDS} | others
        variables = environment(
            **{f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()},
            SLURM_CPUS_PER_TASK=1,
            MODEL="demo-digits",
        )
        variables["PATH"] = path + variables["PATH"]
        script = EXAMPLES / "slurm" / "classify.sbatch"
        results = self.folder / "results"
        command = ["bash", str(script), str(results / "photos.txt"), str(results)]
        return {"args": command, "cwd": self.folder / "photos", "env": variables}

    def output(self, shard: int):
        return self.folder / "results" / f"shard-{shard}-of-{SHARDS}.jsonl"


@pytest.fixture(params=[Kubernetes, Slurm])
def cluster(request, golden, tmp_path):
    """Somewhere to run, with photos in folders, one of them broken, a list, and a place for results."""
    for folder in ["photos/a", "photos/b", "results", "models"]:
        (tmp_path / folder).mkdir(parents=True)
    images = sorted((golden / "digits" / "images").iterdir())
    for number, image in enumerate(images):
        shutil.copy(image, tmp_path / "photos" / "ab"[number % 2] / image.name)
    (tmp_path / "photos" / "a" / "broken.png").write_text("no image")
    photos = sorted(p.relative_to(tmp_path / "photos") for p in tmp_path.glob("photos/*/*"))
    (tmp_path / "results" / "photos.txt").write_text("".join(f"./{photo}\n" for photo in photos))
    return request.param(tmp_path)


def run(command: dict) -> subprocess.CompletedProcess:
    return subprocess.run(**command, capture_output=True, text=True, timeout=120)


def merge(*arguments: object, cwd=None) -> subprocess.CompletedProcess:
    command = [sys.executable, EXAMPLES / "merge.py", *arguments]
    return run({"args": list(map(str, command)), "cwd": cwd})


def kill_in_the_middle(command: dict, output, photo):
    """Starts a shard, and kills all of its processes while it waits for the bytes of a photo."""
    content = photo.read_bytes()
    photo.unlink()
    os.mkfifo(photo)
    partial = output.with_name(output.name + ".partial")
    started = subprocess.Popen(**command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size):
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    photo.unlink()
    photo.write_bytes(content)
    assert partial.exists() and not output.exists()
    return partial


def test_shards_give_what_one_run_gives_although_one_is_killed(cluster, program):
    folder = cluster.folder
    photos, results = folder / "photos", folder / "results"
    whole = folder / "whole.jsonl"
    listed = (results / "photos.txt").read_text().split()
    asked = ["--files-from", results / "photos.txt", "--model", "demo-digits", "--output", whole]
    assert program("nat-infer", "classify", *asked, cwd=photos).returncode == 1
    all_jsonl = ["--files-from", "photos.txt", "-o", "all.jsonl"]

    killed = 3
    waits = photos / listed[killed - 1 + 4 * SHARDS]
    partial = kill_in_the_middle(cluster.command(killed), cluster.output(killed), waits)
    assert 1 <= len(partial.read_text().splitlines()) <= 4
    for shard in range(1, SHARDS + 1):
        if shard != killed:
            assert run(cluster.command(shard)).returncode == 0
    done = merge(*all_jsonl, *results.glob("*.jsonl"), cwd=results)
    assert done.returncode == 2 and f"{partial.name}: this shard is not finished" in done.stderr

    # What is finished is found to be so, by who starts it again as well.
    for shard in [killed, killed, 1]:
        assert run(cluster.command(shard)).returncode == 0
    done = merge(*all_jsonl, *(cluster.output(shard) for shard in range(1, SHARDS + 1)), cwd=results)
    assert done.returncode == 1, done.stderr
    assert f"{len(listed) - 1} of {len(listed)} images have an answer" in done.stderr
    assert (results / "all.jsonl").read_bytes() == whole.read_bytes()
    answered = [json.loads(line)["image"] for line in (results / "all.jsonl").read_text().splitlines()]
    assert answered == [photo for photo in listed if "broken" not in photo] and len(answered) == 60
    assert (results / "all.missing.txt").read_text() == "./a/broken.png\n"


@pytest.mark.parametrize(
    ("status", "leaves", "ends"),
    [
        (0, [""], 0),
        (1, [""], 0),
        (1, [], 1),
        (1, [".partial"], 1),
        (1, ["", ".partial"], 1),
        (2, [""], 2),
        (130, [".partial"], 130),
        (137, [".partial"], 137),
    ],
)
def test_statuses_say_whether_a_shard_is_done(cluster, status, leaves, ends):
    programs = cluster.folder / "programs"
    programs.mkdir()
    made = "".join(f"echo > {cluster.output(1)}{ending}\n" for ending in leaves)
    (programs / "nat-infer").write_text(f"#!/bin/sh\n{made}exit {status}\n")
    (programs / "nat-infer").chmod(0o755)
    assert run(cluster.command(1, path=f"{programs}{os.pathsep}")).returncode == ends


def test_what_can_not_be_done_is_not_taken_for_done(cluster):
    photos, listed = cluster.folder / "photos", cluster.folder / "results" / "photos.txt"
    names = listed.read_text()
    listed.unlink()
    done = run(cluster.command(1))
    assert done.returncode == 2 and "photos.txt" in done.stderr
    # Where the photos are not, all of them fail.
    listed.write_text(names)
    (photos / "a").rename(photos / "c")
    (photos / "b").rename(photos / "d")
    assert run(cluster.command(2)).returncode == 1 and not cluster.output(2).exists()
    # More shards than photos: those without one are done.
    listed.write_text(names.splitlines()[0].replace("/a/", "/c/"))
    assert run(cluster.command(1)).returncode == 1
    assert run(cluster.command(2)).returncode == 0 and cluster.output(2).read_text() == ""
    done = merge("--files-from", listed, cluster.output(2), "-o", "all.jsonl", cwd=cluster.folder)
    assert done.returncode == 1 and (cluster.folder / "all.missing.txt").read_text() == "./c/broken.png\n"


def test_an_array_with_gaps_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    done = run(Slurm(tmp_path).command(1, MAX=SHARDS + 6))
    assert done.returncode == 2 and "the array has gaps" in done.stderr


@pytest.mark.parametrize("job", [JOB, MERGE], ids=["job", "merge"])
def test_the_manifests_are_kubernetes(job):
    validate = pytest.importorskip("kubernetes_validate").validate
    for version in ["1.33", "1.37"]:
        validate(job, version, strict=True)
    job = json.loads(json.dumps(job))
    job["spec"]["template"]["spec"]["restart"] = "Never"
    with pytest.raises(Exception, match="restart"):
        validate(job, "1.33", strict=True)


def test_the_manifest_says_what_the_shards_need():
    spec, of = JOB["spec"], container(JOB)
    values = {one["name"]: one.get("value") for one in of["env"]}
    assert spec["completionMode"] == "Indexed" and int(values["SHARDS"]) == SHARDS
    rules = {rule["action"]: rule for rule in spec["podFailurePolicy"]["rules"]}
    assert rules["FailIndex"]["onExitCodes"] == {"operator": "In", "values": [2]}
    assert rules["Ignore"]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    # What these take.
    assert spec["template"]["spec"]["restartPolicy"] == "Never" and spec["backoffLimitPerIndex"] > 0
    mounts = {one["name"]: one for one in of["volumeMounts"]}
    volumes = {one["name"] for one in spec["template"]["spec"]["volumes"]}
    assert mounts["photos"]["readOnly"] and mounts["models"]["mountPath"] == values["HF_HOME"]
    assert set(mounts) == volumes and of["securityContext"]["readOnlyRootFilesystem"]


def test_the_container_that_merges_takes_missing_images_for_an_answer(tmp_path):
    (tmp_path / "merge.py").write_bytes((EXAMPLES / "merge.py").read_bytes())
    (tmp_path / "merge.py").chmod(0o755)
    variables = environment()
    variables["PATH"] = f"{tmp_path}{os.pathsep}{variables['PATH']}"
    of = container(MERGE)
    command = {"args": [*of["command"], *of["args"]], "cwd": tmp_path, "env": variables}
    (tmp_path / "photos.txt").write_text("a.png\nb.png\n")
    (tmp_path / "shard-1.jsonl").write_text(record("b.png"))
    assert run(command).returncode == 0 and (tmp_path / "all.missing.txt").read_text() == "a.png\n"
    (tmp_path / "shard-2.jsonl").write_text(record("b.png"))
    assert run(command).returncode != 0


def record(image: str, model: str = "m") -> str:
    return json.dumps({"image": image, "model": model, "top": []}) + "\n"


LIST = "a.png\r\nb.png\n\nc.png"


@pytest.mark.parametrize(
    ("listed", "shards", "words"),
    [
        (
            LIST,
            [record("a.png"), record("c.png") + record("a.png")],
            "2.jsonl:2: a.png has an answer already, in 1.jsonl",
        ),
        (LIST, [record("a.png") + record("x.png")], "1.jsonl:2: x.png is not in the list"),
        (
            LIST,
            [record("a.png"), record("b.png", "n")],
            "2.jsonl:1: this is an answer of n, those before it of m",
        ),
        (LIST, [record("a.png")[:-9]], "1.jsonl:1: this is no record of nat-infer"),
        (LIST, ["[1]\n"], "1.jsonl:1: this is no record of nat-infer"),
        (LIST + "\na.png", [record("a.png")], "photos.txt: a.png is named twice"),
        (None, [record("a.png")], "No such file or directory: 'photos.txt'"),
        (LIST, [None], "No such file or directory: '1.jsonl'"),
    ],
)
def test_what_is_not_one_run_is_not_put_together(tmp_path, listed, shards, words):
    for name, text in zip(["photos.txt", "1.jsonl", "2.jsonl"], [listed, *shards], strict=False):
        if text is not None:
            (tmp_path / name).write_text(text)
    (tmp_path / "all.jsonl").write_text("earlier")
    before = sorted(tmp_path.iterdir())
    names = [f"{number}.jsonl" for number in range(1, len(shards) + 1)]
    done = merge("--files-from", "photos.txt", *names, "-o", "all.jsonl", cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "all.jsonl").read_text() == "earlier"


def test_records_come_in_the_order_of_the_list_and_the_rest_is_named(tmp_path):
    (tmp_path / "1.jsonl").write_text(record("c.png") + record("a.png"))
    arguments = ["--files-from", "photos.txt", "-o", "all.jsonl"]
    for nul in [False, True]:
        (tmp_path / "photos.txt").write_text("a.png\0b\n.png\0c.png\0" if nul else LIST)
        done = merge(*arguments, *["-0"][:nul], "1.jsonl", cwd=tmp_path)
        assert done.returncode == 1 and "2 of 3 images have an answer" in done.stderr
        assert (tmp_path / "all.jsonl").read_text() == record("a.png") + record("c.png")
        assert (tmp_path / "all.missing.txt").read_text() == ("b\n.png\0" if nul else "b.png\n")
    # What is missing is not once everything is there.
    (tmp_path / "photos.txt").write_text(LIST)
    (tmp_path / "2.jsonl").write_text(record("b.png"))
    assert merge(*arguments, "1.jsonl", "2.jsonl", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "all.missing.txt").exists() and not list(tmp_path.glob("*.merging"))


def test_names_that_are_no_text_are_found(tmp_path, nine, program):
    name = os.fsdecode(b"x\xff.png")
    try:
        shutil.copy(nine, tmp_path / name)
    except OSError:
        pytest.skip("this file system has no such names")
    (tmp_path / "photos.txt").write_bytes(b"none.png\nx\xff.png\nnone\xfe.png\n")
    asked = ["--files-from", "photos.txt", "--model", "demo-digits", "-o", "1.jsonl"]
    assert program("nat-infer", "classify", *asked, cwd=tmp_path).returncode == 1
    assert merge("--files-from", "photos.txt", "1.jsonl", "-o", "all.jsonl", cwd=tmp_path).returncode == 1
    assert (tmp_path / "all.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()
    assert (tmp_path / "all.missing.txt").read_bytes() == b"none.png\nnone\xfe.png\n"


def test_nothing_that_is_read_or_of_another_list_is_replaced(tmp_path):
    (tmp_path / "photos.txt").write_text("a.png\nb.png\n")
    (tmp_path / "1.jsonl").write_text(record("a.png"))
    arguments = ["--files-from", "photos.txt", "1.jsonl"]
    assert merge(*arguments, "-o", "all.jsonl", cwd=tmp_path).returncode == 1
    for listed, output, words in [
        ("photos.txt", "1.jsonl", "1.jsonl: this is read"),
        ("photos.txt", "photos.txt", "photos.txt: this is read"),
        ("all.missing.txt", "all.jsonl", "all.missing.txt: this is read"),
    ]:
        before = {path: path.read_text() for path in tmp_path.iterdir()}
        done = merge("--files-from", listed, "1.jsonl", "-o", output, cwd=tmp_path)
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert {path: path.read_text() for path in tmp_path.iterdir()} == before
    # The answers of the images that were missing are not put in the place of all others.
    (tmp_path / "left.txt").write_text("b.png\n")
    (tmp_path / "2.jsonl").write_text(record("b.png"))
    done = merge("--files-from", "left.txt", "2.jsonl", "-o", "all.jsonl", cwd=tmp_path)
    assert done.returncode == 2 and "all.jsonl:1: a.png is not in the list" in done.stderr
    assert merge(*arguments, "2.jsonl", "-o", "all.jsonl", cwd=tmp_path).returncode == 0
    assert (tmp_path / "all.jsonl").read_text() == record("a.png") + record("b.png")
