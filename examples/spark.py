"""Classifies a folder of images with Spark and writes a row for each as Parquet.

    spark-submit --master 'local[8,4]' examples/spark.py photos/ answers/ --model nat-tiny

A row has the path of an image, index, label and score of its best class, and error, which says why there is no answer: it is
empty where there is one, and otherwise index is -1.
"""

import argparse
import functools
import math
from urllib.parse import unquote

import pandas as pd
from pyspark.sql import SparkSession

import nat_infer as ni

COLUMNS = "path string, index int, label string, score float, error string"


def row(result):
    """Index, label and score of the best class, and the error; an image that can't be read is a row too."""
    if isinstance(result, ni.ImageError):
        # Without the number in the batch, which its words begin with.
        return -1, "", math.nan, str(result).partition(": ")[2]
    best = result.top[0]
    return best["index"], best.get("label", ""), best["score"], ""


@functools.cache
def model(name, threads):
    """Loaded once in a Python worker, which does many tasks."""
    return ni.load(name, threads=threads, quiet=True)


def classify(batches, name, threads):
    for batch in batches:
        try:
            # The files as they are: they are decoded here, so that the answers are the program's to the bit.
            results = model(name, threads).classify(batch["content"].tolist(), top_k=1)
        except ni.ImageError as failed:
            results = failed.results
        answers = pd.DataFrame(map(row, results), columns=["index", "label", "score", "error"])
        answers.insert(0, "path", batch["path"].str.removeprefix("file:").values)
        yield answers


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("photos")
    options.add_argument("answers")
    options.add_argument("--model", default="nat-tiny")
    given = options.parse_args()
    # Files are bytes in Arrow's batches: of few images, so that their memory is bounded.
    spark = SparkSession.builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", 64).getOrCreate()
    # A worker computes on the cores that Spark keeps for its task.
    threads = int(spark.conf.get("spark.task.cpus", "1"))
    # Workers import this file, and find the model of their last task in it: a function of `__main__` is sent with every
    # task, and would load it every time.
    spark.sparkContext.addPyFile(__file__)
    import spark as job

    photos = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(given.photos)
    photos = photos.select("path", "content")
    # Of files without a byte Spark makes no row, though it has them listed.
    listed = {unquote(name).replace("file:///", "file:/") for name in photos.inputFiles()}
    empty = listed.difference(row.path for row in photos.select("path").collect())
    photos = photos.union(spark.createDataFrame([(path, b"") for path in empty], photos.schema))
    answers = photos.mapInPandas(functools.partial(job.classify, name=given.model, threads=threads), COLUMNS)
    answers.write.parquet(given.answers)


if __name__ == "__main__":
    main()
