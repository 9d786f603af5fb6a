"""Classifies a folder of images with Ray Data and writes a row for each as Parquet.

    python examples/ray_data.py photos/ answers/ --model nat-tiny --workers 8

A row has the path of an image, index, label and score of its best class, and error, which says why there is no answer: it is
empty where there is one, and otherwise index is -1.
"""

import argparse
import math
import os

import numpy as np
import ray

import nat_infer as ni


def row(result):
    """Index, label and score of the best class, and the error; an image that can't be read is a row too."""
    if isinstance(result, ni.ImageError):
        # Without the number in the batch, which its words begin with.
        return -1, "", math.nan, str(result).partition(": ")[2]
    best = result.top[0]
    return best["index"], best.get("label", ""), best["score"], ""


class Classify:
    """What an actor is made of: it loads the model once."""

    def __init__(self, model, threads):
        self.model = ni.load(model, threads=threads, quiet=True)

    def __call__(self, batch):
        try:
            # The files as they are: they are decoded here, so that the answers are the program's to the bit.
            results = self.model.classify(batch["bytes"].tolist(), top_k=1)
        except ni.ImageError as failed:
            results = failed.results
        index, label, score, error = zip(*map(row, results), strict=True)
        return {
            "path": batch["path"],
            "index": np.array(index, np.int32),
            "label": np.array(label, object),
            "score": np.array(score, np.float32),
            "error": np.array(error, object),
        }


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("photos")
    options.add_argument("answers")
    options.add_argument("--model", default="nat-tiny")
    options.add_argument("--workers", type=int, default=1)
    options.add_argument(
        "--threads", type=int, default=1, help="of each worker; more workers of one are faster"
    )
    given = options.parse_args()
    # Where there are few cores Ray ends a process that waits for a second, and the next one takes as long to begin. A cluster
    # that runs already has its own setting.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    # An actor is given the cores that it computes on. Reading and writing wait for the disk: without 0 they would wait for a
    # core of the actors', on one machine forever, and without a bound Ray starts a process for each file's turn.
    bound = {"concurrency": given.workers}
    photos = ray.data.read_binary_files(given.photos, include_paths=True, num_cpus=0, **bound)
    answers = photos.map_batches(
        Classify,
        fn_constructor_args=(given.model, given.threads),
        batch_size=64,
        batch_format="numpy",
        num_cpus=given.threads,
        compute=ray.data.ActorPoolStrategy(size=given.workers),
    )
    answers.write_parquet(given.answers, mode="error", ray_remote_args={"num_cpus": 0}, **bound)


if __name__ == "__main__":
    main()
