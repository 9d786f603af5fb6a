"""Classifies a folder of images with Dask and writes a row for each as Parquet.

    python examples/dask_bag.py photos/ answers/ --model nat-tiny --workers 8

A row has the path of an image, index, label and score of its best class, and error, which says why there is no answer: it is
empty where there is one, and otherwise index is -1.
"""

import argparse
import math
from pathlib import Path

import dask
import dask.bag
from dask.distributed import Client, WorkerPlugin, get_worker

import nat_infer as ni

COLUMNS = {"path": str, "index": "int32", "label": str, "score": "float32", "error": str}


class Load(WorkerPlugin):
    """Loads the model once in each worker, also in one that takes the place of another."""

    def __init__(self, model, threads):
        self.source, self.threads = model, threads

    def setup(self, worker):
        worker.model = ni.load(self.source, threads=self.threads, quiet=True)


def row(path, result):
    """The best class of an image, or the error; an image that can't be read is a row too."""
    if isinstance(result, ni.ImageError):
        return path, -1, "", math.nan, str(result).removeprefix(f"{path}: ")
    best = result.top[0]
    return path, best["index"], best.get("label", ""), best["score"], ""


def classify(paths):
    paths = list(paths)
    try:
        results = get_worker().model.classify(paths, top_k=1)
    except ni.ImageError as failed:
        results = failed.results
    return [row(path, result) for path, result in zip(paths, results, strict=True)]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("photos", type=Path)
    options.add_argument("answers")
    options.add_argument("--model", default="nat-tiny")
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    if Path(given.answers).exists():
        options.error(f"{given.answers} is there already, and Dask would write among what is in it")
    # Dask has workers give memory back as soon as it is free, and getting it again takes a network a third of its time.
    dask.config.set({"distributed.nanny.pre-spawn-environ": {}})
    # One task at a time in each worker: the model itself computes on several threads.
    client = Client(n_workers=given.workers, threads_per_worker=1)
    client.register_plugin(Load(given.model, given.threads))
    paths = sorted(str(path.absolute()) for path in given.photos.rglob("*") if path.is_file())
    photos = dask.bag.from_sequence(paths, partition_size=128)
    photos.map_partitions(classify).to_dataframe(meta=COLUMNS).to_parquet(given.answers, write_index=False)


if __name__ == "__main__":
    main()
