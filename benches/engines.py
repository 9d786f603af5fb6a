"""How fast the examples for Ray, Spark and Dask go through a folder of photographs, beside the program and plain Python.

    python benches/engines.py [--cores 2] [--images 1280] [--fewer 256] [--rounds 3] [--only bench,ray 1x2]

Runs with the Python in which the wheel and examples/requirements.txt are installed, on a machine with nothing else to do.
NAT-Mini has random weights, photographs are JPEGs of 512x384. A contestant does a few of them and all of them, every time as a
program of its own; its figure is what it does in the difference of the two times: that leaves out starting and loading, and has
in it all that an image costs: reading, decoding, passing it on, the network, writing. `bench` is the network alone. `ray 2x1` is
two workers of one thread each. Contestants are run in turn, in several rounds; the table has the median, and the
range in brackets. Prints every run as a line of JSON on stderr.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SIDES = 512, 384


def weights(path):
    """NAT-Mini with random weights, as a checkpoint of the authors' names."""
    import numpy as np
    from safetensors.numpy import save_file

    random, tensors = np.random.default_rng(0), {}
    kernel, ratio, depths, heads = 7, 3, [3, 4, 6, 5], [2, 4, 8, 16]

    def layer(name, *shape, bias=True):
        scale = 1 if len(shape) == 1 else np.prod(shape[1:]) ** -0.5
        values = np.ones(shape) if len(shape) == 1 else random.normal(0, scale, shape)
        tensors[f"{name}.weight"] = values.astype(np.float32)
        if bias:
            tensors[f"{name}.bias"] = np.zeros(shape[0], np.float32)

    width = 32 * heads[0]
    layer("patch_embed.proj.0", width // 2, 3, 3, 3)
    layer("patch_embed.proj.1", width, width // 2, 3, 3)
    layer("patch_embed.norm", width)
    for level, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        width = 32 * count
        for block in range(depth):
            at = f"levels.{level}.blocks.{block}"
            layer(f"{at}.norm1", width)
            layer(f"{at}.attn.qkv", 3 * width, width)
            bias = random.normal(0, 0.02, (count, 2 * kernel - 1, 2 * kernel - 1))
            tensors[f"{at}.attn.rpb"] = bias.astype(np.float32)
            layer(f"{at}.attn.proj", width, width)
            layer(f"{at}.norm2", width)
            layer(f"{at}.mlp.fc1", ratio * width, width)
            layer(f"{at}.mlp.fc2", width, ratio * width)
        if level + 1 < len(depths):
            layer(f"levels.{level}.downsample.reduction", 2 * width, width, 3, 3, bias=False)
            layer(f"levels.{level}.downsample.norm", 2 * width)
    layer("norm", width)
    layer("head", 1000, width)
    save_file(tensors, path)


def photographs(folder, count):
    """JPEGs that are parts of the tests' photographs, enlarged and turned."""
    from PIL import Image

    folder.mkdir()
    known = sorted((ROOT / "tests" / "golden" / "images").glob("*.png"))
    known = [Image.open(path).convert("RGB") for path in known]
    for number in range(count):
        image = known[number % len(known)]
        left, top = number * 7 % (image.width // 4), number * 5 % (image.height // 4)
        image = image.crop((left, top, left + image.width * 3 // 4, top + image.height * 3 // 4)).resize(
            SIDES
        )
        content = io.BytesIO()
        image.save(content, "JPEG", quality=85)
        (folder / f"{number:05}.jpg").write_bytes(content.getvalue())


def loop(photos, model, threads):
    """The plain loop over a folder, in one process."""
    import nat_infer as ni

    loaded = ni.load(model, threads=int(threads), quiet=True)
    paths = sorted(Path(photos).iterdir())
    for first in range(0, len(paths), 64):
        for answer in loaded.classify([path.read_bytes() for path in paths[first : first + 64]], top_k=1):
            print(answer.top[0]["index"], answer.top[0]["score"])


def contestants(cores, model):
    """Commands that go through a folder of photographs, by their names."""
    program = [
        Path(sysconfig.get_path("scripts")) / "nat-infer",
        "classify",
        "--top-k",
        1,
        "--threads",
        cores,
    ]
    found = {
        "nat-infer classify": lambda photos, out: [
            *program,
            photos,
            "--weights",
            model,
            "-o",
            f"{out}.jsonl",
        ],
        "loop": lambda photos, out: [sys.executable, __file__, "--loop", photos, model, cores],
    }
    shapes = [(1, cores)] if cores == 1 else [(1, cores), (cores, 1)]
    for workers, threads in shapes:
        asked = ["--model", model, "--workers", workers, "--threads", threads]
        shape = f"{workers}x{threads}"
        for name, example in [("ray", "ray_data.py"), ("dask", "dask_bag.py")]:
            command = [sys.executable, EXAMPLES / example]
            found[f"{name} {shape}"] = lambda photos, out, c=command, a=asked: [*c, photos, out, *a]
        spark = ["spark-submit", "--master", f"local[{cores},4]", "--conf", f"spark.task.cpus={threads}"]
        spark = [*spark, EXAMPLES / "spark.py"]
        found[f"spark {shape}"] = lambda photos, out, c=spark: [*c, photos, out, "--model", model]
    return found


def seconds(command, folder):
    scripts = sysconfig.get_path("scripts")
    variables = {"PATH": os.pathsep.join([scripts, os.environ["PATH"]]), "PYSPARK_PYTHON": sys.executable}
    started = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    took = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return took, done.stdout


def main():
    if sys.argv[1:2] == ["--loop"]:
        return loop(*sys.argv[2:])
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--cores", type=int, default=2)
    options.add_argument("--images", type=int, default=1280)
    options.add_argument("--fewer", type=int, default=256)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument(
        "--only", default="", help="names of contestants, or how they begin, with commas between"
    )
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return race(Path(folder), given)


def race(folder, given):
    model, all_of_them, few = folder / "nat-mini.safetensors", folder / "all", folder / "few"
    weights(model)
    photographs(all_of_them, given.images)
    few.mkdir()
    for photo in sorted(all_of_them.iterdir())[: given.fewer]:
        os.link(photo, few / photo.name)
    program = Path(sysconfig.get_path("scripts")) / "nat-infer"
    bench = [program, "bench", "--arch", "nat-mini", "--threads", given.cores, "--format", "json"]
    commands = {"bench": None} | contestants(given.cores, model)
    wanted = tuple(name for name in given.only.split(",") if name)
    commands = {name: one for name, one in commands.items() if not wanted or name.startswith(wanted)}
    figures = {name: [] for name in commands}
    starts = {name: [] for name in commands}
    for number in range(given.rounds):
        # Each time another begins, so that none is always the one after the same.
        names = list(commands)[number % len(commands) :] + list(commands)[: number % len(commands)]
        for name in names:
            load = os.getloadavg()[0]
            if name == "bench":
                rate = json.loads(seconds(bench, folder)[1])[0]["images_per_second"]
                said = {}
            else:
                times = []
                for photos in [few, all_of_them]:
                    out = folder / "out"
                    times.append(seconds(commands[name](photos, out), folder)[0])
                    shutil.rmtree(out, ignore_errors=True)
                    out.with_suffix(".jsonl").unlink(missing_ok=True)
                rate = (given.images - given.fewer) / (times[1] - times[0])
                starts[name].append(max(0.0, times[0] - given.fewer / rate))
                said = {"seconds_few": round(times[0], 2), "seconds_all": round(times[1], 2)}
            figures[name].append(rate)
            line = {"round": number + 1, "name": name, "images_per_second": round(rate, 2), "load": load}
            print(json.dumps(line | said), file=sys.stderr, flush=True)
    peer = statistics.median(figures["bench"]) if "bench" in figures else None
    print("| | images/s | of `bench` | start, s |\n| --- | --- | --- | --- |")
    for name, rates in figures.items():
        middle = statistics.median(rates)
        share = f"{100 * middle / peer:.0f} %" if peer else ""
        start = f"{statistics.median(starts[name]):.1f}" if starts[name] else ""
        print(f"| {name} | {middle:.1f} ({min(rates):.1f} to {max(rates):.1f}) | {share} | {start} |")


if __name__ == "__main__":
    main()
