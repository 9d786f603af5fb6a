"""Writes small JPEG files of every kind beside this file, and answers.json: what Pillow 13.0.0 makes of them.

    pip install pillow==13.0.0 numpy==2.4.6 && apt-get install libjpeg-turbo-progs && python make.py

answers.json has for each file the width, the height and the SHA-256 of the RGB bytes of
ImageOps.exif_transpose(image).convert("RGB"). Where Pillow wants an end marker though all pixels are there
(noeoi-*, zeros-*), its answer is that for the file with one. found-* come from public bug reports; they are
kept and not made.
"""

import hashlib
import io
import json
import struct
import subprocess
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

assert PIL.__version__ == "13.0.0", PIL.__version__
HERE = Path(__file__).parent
APP0, APP1, APP14, DHT, DQT, SOS = 0xE0, 0xE1, 0xEE, 0xC4, 0xDB, 0xDA
EOI = b"\xff\xd9"
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def photo(width, height, name="chelsea", corner=(120, 60)):
    image = Image.open(HERE.parent.parent / f"images/{name}.png").convert("RGB")
    x, y = corner
    return image.crop((x, y, x + 2 * width, y + 2 * height)).resize((width, height), Image.Resampling.BICUBIC)


def run(program, data, *arguments):
    return subprocess.run([program, *arguments], input=data, capture_output=True, check=True).stdout


def cjpeg(image, *arguments, scans=None):
    ppm = io.BytesIO()
    image.save(ppm, "PPM")
    if scans:
        script = HERE / "scans.txt"
        script.write_text(scans)
        arguments = (*arguments, "-scans", str(script))
    try:
        return run("cjpeg", ppm.getvalue(), "-quality", "80", *arguments)
    finally:
        (HERE / "scans.txt").unlink(missing_ok=True)


def pillow(image, **options):
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def segments(data):
    """(marker, start, end) of each segment up to the first scan's header."""
    at = 2
    while True:
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        yield data[at + 1], at, at + 2 + length
        if data[at + 1] == SOS:
            return
        at += 2 + length


def without(data, marker):
    parts = [data[:2]]
    for found, start, end in segments(data):
        if found != marker:
            parts.append(data[start:end])
    return b"".join(parts) + data[end:]


def with_app1(data, *payloads):
    app1 = [struct.pack(">BBH", 0xFF, APP1, len(p) + 2) + p for p in payloads]
    return data[:2] + b"".join(app1) + data[2:]


def exif(order, kind, value, count=1, tag=0x112):
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 1)
    return EXIF + head + struct.pack(order + "HHI", tag, kind, count) + value + bytes(4)


def junk(data):
    """Bytes of no segment and padding before each segment but the first."""
    parts = [data[:2]]
    for i, (_, start, end) in enumerate(segments(data)):
        parts += [b"\xff\xff" if i % 2 else b"\x01\x02\x03" if i else b"", data[start:end]]
    return b"".join(parts) + data[end:]


def files():
    small = photo(49, 35)
    # Chroma sampled less than luma, in every way, and odd sizes.
    for name, sampling in {
        "444": "1x1", "422": "2x1", "420": "2x2", "440": "1x2", "411": "4x1", "410": "4x2", "441": "1x4",
        "3x1": "3x1", "uneven": "2x2,2x1,1x2", "third": "3x2,1x1,1x2",
        # Luma sampled less than chroma.
        "1x1-2x2-2x2": "1x1,2x2,2x2", "1x1-2x1-2x1": "1x1,2x1,2x1", "1x1-1x2-1x1": "1x1,1x2,1x1",
        "2x1-1x2-1x1": "2x1,1x2,1x1", "1x2-2x1-1x1": "1x2,2x1,1x1",
        # Factors that are multiples of the least.
        "1x2-1x2-1x2": "1x2,1x2,1x2", "2x1-2x1-1x1": "2x1,2x1,1x1",
    }.items():  # fmt: skip
        yield f"sampling-{name}", cjpeg(small, "-sample", sampling)
    for width, height in [(1, 1), (2, 1), (1, 2), (7, 9), (16, 16), (17, 33), (65, 49)]:
        yield f"size-{width}x{height}", cjpeg(photo(width, height, "coffee"), "-sample", "2x2")
    # How coefficients are coded, in what order.
    for name, arguments in {
        "progressive": ["-progressive"],
        "progressive-444": ["-progressive", "-sample", "1x1"],
        "progressive-luma-less": ["-progressive", "-sample", "1x1,2x2,2x2"],
        "progressive-restart": ["-progressive", "-restart", "3B"],
        "optimised": ["-optimize"],
        "restart-rows": ["-restart", "1"],
        "restart-blocks": ["-restart", "1B", "-sample", "2x1"],
        "arithmetic": ["-arithmetic"],
        "arithmetic-progressive": ["-arithmetic", "-progressive"],
        "coarse": ["-quality", "5"],
        "fine": ["-quality", "100", "-sample", "1x1"],
    }.items():
        yield f"coded-{name}", cjpeg(photo(61, 45, "coffee"), *arguments)
    # Each channel in a scan of its own, with its own tables before it.
    yield "scans-apart", cjpeg(small, scans="0;\n1;\n2;\n")
    yield "scans-apart-optimised", cjpeg(small, "-optimize", scans="0;\n1 2;\n")
    # Frames of webcams have no Huffman tables.
    for sampling in ["2x1", "2x2"]:
        yield f"no-tables-{sampling}", without(cjpeg(small, "-sample", sampling), DHT)
    yield "no-tables-apart", without(cjpeg(small, scans="0;\n1;\n2;\n"), DHT)
    # Other colours.
    yield "grey", cjpeg(small, "-grayscale")
    yield "grey-2x2", cjpeg(small, "-grayscale", "-sample", "2x2")
    yield "grey-progressive", cjpeg(small, "-grayscale", "-progressive")
    yield "rgb-ids", cjpeg(small, "-rgb", "-sample", "1x1")
    rgb = cjpeg(small, "-sample", "1x1")
    adobe = struct.pack(">BBH", 0xFF, APP14, 14) + b"Adobe" + bytes([0, 100, 0, 0, 0, 0, 0])
    yield "rgb-adobe", rgb[:2] + adobe + without(rgb, APP0)[2:]
    ink = np.concatenate([np.asarray(small), np.asarray(photo(49, 35, "coffee"))[..., :1]], 2)
    ink = Image.frombytes("CMYK", small.size, ink.tobytes())
    for subsampling in [0, 2]:
        cmyk = pillow(ink, quality=85, subsampling=subsampling)
        transform = cmyk.index(b"Adobe") + 11
        yield f"cmyk-{subsampling}", cmyk
        yield f"ycck-{subsampling}", cmyk[:transform] + b"\x02" + cmyk[transform + 1 :]
    yield "cmyk-progressive", pillow(ink, quality=85, progressive=True)
    yield "cmyk-no-adobe", without(pillow(ink, quality=85), APP14)
    # The camera's orientation.
    tiny = cjpeg(photo(24, 20), "-sample", "2x2")
    short = {order: lambda value, o=order: struct.pack(o + "HH", value, 0) for order in "<>"}
    for value in range(10):
        order = "<>"[value % 2]
        yield f"exif-{value}", with_app1(tiny, exif(order, 3, short[order](value)))
    yield "exif-long", with_app1(tiny, exif(">", 4, struct.pack(">I", 6)))
    yield "exif-byte", with_app1(tiny, exif("<", 1, b"\6\0\0\0"))
    yield "exif-twice", with_app1(tiny, exif("<", 3, short["<"](8)), exif("<", 3, short["<"](6)))
    yield "exif-many", with_app1(tiny, exif("<", 3, b"\x08\0\0\0", count=99), XMP + b' tiff:Orientation="6"')
    yield "exif-elsewhere", with_app1(tiny, exif(">", 3, b"\0\0\0\x1a", count=3) + b"\0\x06" * 3)
    yield "exif-none", with_app1(tiny, EXIF)
    yield "exif-262", with_app1(tiny, exif(">", 3, short[">"](262)))
    attribute = XMP + b'<rdf:Description tiff:Orientation="6"/>'
    yield "xmp-attribute", with_app1(tiny, attribute)
    yield "xmp-element", with_app1(tiny, XMP + b"<tiff:Orientation>5</tiff:Orientation>")
    yield "xmp-and-exif", with_app1(tiny, exif("<", 3, short["<"](8)), attribute)
    yield "xmp-and-exif-0", with_app1(tiny, exif("<", 3, short["<"](0)), attribute)
    # Files whose pixels are all there.
    for name, data in {
        "420": cjpeg(small),
        "progressive": cjpeg(small, "-progressive"),
        "apart": cjpeg(small, scans="0;\n1;\n2;\n"),
    }.items():
        yield f"noeoi-{name}", data.removesuffix(EOI)
        yield f"zeros-{name}", data.removesuffix(EOI) + bytes(64)
    yield "zeros-arithmetic", cjpeg(small, "-arithmetic").removesuffix(EOI) + bytes(64)
    yield "trailing-text", cjpeg(small) + b"and more\xff\xd8\xff" * 9
    yield "junk-between", junk(cjpeg(small))
    # Damage that libjpeg reads over.
    restart = bytearray(cjpeg(small, "-restart", "1B", "-sample", "1x1"))
    del restart[restart.index(b"\xff\xd3") : restart.index(b"\xff\xd4")]
    yield "lost-restart", bytes(restart)
    data = cjpeg(small)
    yield "early-end", data[: len(data) * 3 // 4] + EOI
    data = cjpeg(small, "-progressive")
    yield "early-end-progressive", data[: len(data) * 3 // 4] + EOI


def answer(name, data):
    if name.startswith(("noeoi", "zeros", "found-j_noeoi")):
        data += EOI
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    return [*image.size, hashlib.sha256(image.tobytes()).hexdigest()]


answers = {}
for name, data in files():
    (HERE / f"{name}.jpg").write_bytes(data)
for file in sorted(HERE.glob("*.jpg")):
    answers[file.name] = answer(file.stem, file.read_bytes())
lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in answers.items()]
(HERE / "answers.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
