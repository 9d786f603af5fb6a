#!/usr/bin/env python3
"""Puts the shards of a run together, in the order of the list that the run was given.

    merge.py --files-from photos.txt results/shard-*.jsonl -o all.jsonl

Images without an answer are named in all.missing.txt, which `--files-from` takes, and the exit status is 1. Where a shard is
unfinished, or is of another run, nothing is written and it is 2.
"""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path


class Refused(Exception):
    """Why these shards are not put together."""


def images_of(path: Path, nul: bool) -> dict[str, bytes]:
    """The images of a list by the names that records give them, as the list writes them."""
    images = {}
    content = path.read_bytes() if nul else path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for line in content.split(b"\0" if nul else b"\n"):
        entry = line if nul else line.removesuffix(b"\r")
        name = entry.decode(errors="backslashreplace")
        if name in images:
            raise Refused(f"{path}: {name} is named twice, so its two answers can't be told apart")
        if entry:
            images[name] = entry
    return images


def answers_of(shards: list[Path], images: dict[str, bytes]) -> dict[str, tuple[Path, int]]:
    """Where the answer of each image is: its file and the byte at which it begins. Records stay on the disk."""
    answers, model = {}, None
    for shard in shards:
        start = 0
        with shard.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{shard}:{number}"
                try:
                    record = json.loads(line)
                    image, model = record["image"], model or record["model"]
                except (ValueError, TypeError, KeyError):
                    raise Refused(f"{where}: this is no record of nat-infer") from None
                if image not in images:
                    raise Refused(f"{where}: {image} is not in the list")
                if image in answers:
                    raise Refused(f"{where}: {image} has an answer already, in {answers[image][0]}")
                if record["model"] != model:
                    raise Refused(
                        f"{where}: this is an answer of {record['model']}, those before it of {model}"
                    )
                answers[image] = shard, start
                start += len(line)
    return answers


def merge(shards: list[Path], images: dict[str, bytes], output: Path, end: bytes) -> tuple[int, Path]:
    """Writes the answers, and a list of the images that have none; how many those are."""
    for folder in sorted({shard.parent for shard in shards}):
        for partial in sorted(folder.glob("*.jsonl.partial")):
            raise Refused(f"{partial}: this shard is not finished; run it again, and it goes on there")
    answers = answers_of(shards, images)
    if output.exists():
        # Of another list, such as that of the images that were missing: its answers would be lost.
        answers_of([output], images)
    missing = output.with_suffix(".missing.txt")
    unanswered = [entry + end for image, entry in images.items() if image not in answers]
    with contextlib.suppress(ImportError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    files = {shard: shard.open("rb") for shard in shards}
    # What has the name of the output is whole, whatever happens here.
    begun = output.with_name(output.name + ".merging")
    try:
        with begun.open("wb") as merged:
            for shard, start in (answers[image] for image in images if image in answers):
                files[shard].seek(start)
                merged.write(files[shard].readline())
            merged.flush()
            os.fsync(merged.fileno())
        missing.unlink(missing_ok=True)
        if unanswered:
            missing.write_bytes(b"".join(unanswered))
        begun.replace(output)
    finally:
        begun.unlink(missing_ok=True)
    return len(unanswered), missing


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("shards", nargs="+", type=Path, metavar="SHARD.jsonl")
    options.add_argument("--files-from", required=True, type=Path, metavar="LIST")
    options.add_argument("-0", "--null", action="store_true", help="entries of the list end with a NUL byte")
    options.add_argument("-o", "--output", required=True, type=Path, metavar="ALL.jsonl")
    given = options.parse_args()
    try:
        read = {path.resolve() for path in [*given.shards, given.files_from]}
        for written in [given.output, given.output.with_suffix(".missing.txt")]:
            if written.resolve() in read:
                raise Refused(f"{written}: this is read, and would be replaced; -o needs another name")
        images = images_of(given.files_from, given.null)
        end = b"\0" if given.null else b"\n"
        count, missing = merge(given.shards, images, given.output, end)
    except (Refused, OSError) as error:
        print(f"merge.py: {error}", file=sys.stderr)
        return 2
    print(f"merge.py: {len(images) - count} of {len(images)} images have an answer", file=sys.stderr)
    if count:
        print(f"merge.py: those without one are in {missing}", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
