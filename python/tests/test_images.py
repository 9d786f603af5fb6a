"""Images in every form that Python has them in give the same answers, and what is none is refused in one line."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nat_infer as ni


@pytest.fixture(scope="module")
def model():
    return ni.load("demo-digits")


def test_every_form_of_an_image_is_answered_alike(model, nine):
    expected = model.classify(nine).top
    pixels = np.asarray(Image.open(nine).convert("RGB"))
    padded = np.zeros((pixels.shape[0] + 4, pixels.shape[1] + 6, 3), np.uint8)
    padded[2:-2, 1:-5] = pixels
    readonly = pixels.copy()
    readonly.flags.writeable = False
    forms = [
        str(nine),
        nine,
        nine.read_bytes(),
        bytearray(nine.read_bytes()),
        memoryview(nine.read_bytes()),
        pixels,
        padded[2:-2, 1:-5],
        pixels[:, :, ::-1][:, :, ::-1],
        np.asfortranarray(pixels),
        readonly,
        Image.open(nine),
        Image.open(nine).convert("RGB"),
    ]
    for form in forms:
        assert model.classify(form).top == expected, type(form)
    for several in [forms, tuple(forms), iter(forms), np.stack([pixels, pixels])]:
        answers = model.classify(several)
        assert isinstance(answers, list) and all(answer.top == expected for answer in answers)
    assert len(answers) == 2 and [answer.image for answer in answers] == ["image 0", "image 1"]
    assert model.classify([]) == [] and model.classify(iter(())) == [] and model.embed([]).shape == (0, 0)
    # One in a list is a list of one.
    assert isinstance(model.classify([nine]), list) and model.classify([nine])[0].image == str(nine)


def test_pixels_are_not_copied(model, nine):
    # A copy of these would take 300 MB, which the process has not got.
    code = """
import resource, numpy as np, nat_infer as ni
model = ni.load("demo-digits")
big = np.zeros((10_000, 10_000, 3), np.uint8)
model.classify(big)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model.classify([big, big, big])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    import subprocess
    import sys

    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 100, f"{grown} MB"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "CMYK", "L", "I;16", "F"])
def test_images_of_pil_are_read_as_their_files(model, tmp_path, nine, mode):
    image = Image.open(nine).convert("L").resize((40, 50))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 251)
    elif mode == "F":
        image = Image.fromarray(np.asarray(image, np.float32) / 200)
    else:
        image = image.convert("RGB").convert(mode)
    path = tmp_path / ("image.tif" if mode in ("CMYK", "F") else "image.png")
    image.save(path)
    assert np.array_equal(ni.read_image(Image.open(path)), ni.read_image(path))
    assert model.classify(Image.open(path)).top == model.classify(path).top


def test_images_are_turned_upright_whatever_form_they_have(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    by_path, by_pil = (
        ni.read_image(tmp_path / "turned.png"),
        ni.read_image(Image.open(tmp_path / "turned.png")),
    )
    assert by_path.shape == (30, 20, 3) and np.array_equal(by_path, by_pil)
    assert np.array_equal(by_path, np.rot90(pixels, -1))


@pytest.mark.parametrize(
    ("image", "kind", "words"),
    [
        (np.zeros((4, 5, 3), np.float32), TypeError, r"image 0: an array \[4, 5, 3\] of float32"),
        (
            np.zeros((4, 5), np.uint8),
            TypeError,
            r"image 0: an array \[4, 5\] of uint8; \[H, W, 3\] of uint8 is wanted",
        ),
        (np.zeros((3, 4, 5), np.uint8), TypeError, r"image 0: an array \[3, 4, 5\] of uint8"),
        (np.zeros((0, 5, 3), np.uint8), TypeError, r"image 0: an array \[0, 5, 3\]"),
        (None, TypeError, "image 0: NoneType is no image"),
        (7, TypeError, "image 0: int is no image"),
        (["nine.png", 7], TypeError, "image 1: int is no image"),
        (b"hello", ni.ImageError, "image 0: not an image, it looks like text"),
        (b"", ni.ImageError, "image 0: "),
        ("none.png", ni.ImageError, "none.png: no such file"),
        (Path("/"), ni.ImageError, "/: "),
        ("http://127.0.0.1:9/x.png", ni.ImageError, "http://127.0.0.1:9/x.png: "),
    ],
)
def test_what_is_no_image_is_refused(model, image, kind, words):
    with pytest.raises(kind, match=words) as caught:
        model.classify(image)
    assert "\n" not in str(caught.value)


def test_images_that_fail_do_not_stop_the_others(model, nine):
    with pytest.raises(
        ni.ImageError, match=re.escape("none.png: no such file (2 of 4 images failed;")
    ) as caught:
        model.classify([nine, "none.png", nine, b"hello"])
    first, none, third, text = caught.value.results
    assert first == third == model.classify(nine)
    assert isinstance(none, ni.ImageError) and str(none) == "none.png: no such file"
    assert isinstance(text, ni.ImageError) and str(text).startswith("image 3: not an image")
    with pytest.raises(ni.ImageError, match="^none.png: no such file$") as caught:
        model.classify("none.png")
    assert len(caught.value.results) == 1


def test_an_image_is_read_to_the_bit_as_pillow_reads_it(golden):
    for path in [golden / "images" / "chelsea.png", golden / "images" / "camera.png"]:
        assert np.array_equal(ni.read_image(path), np.asarray(Image.open(path).convert("RGB")))
    buffer = io.BytesIO()
    Image.open(golden / "images" / "chelsea.png").convert("RGB").save(buffer, "JPEG", quality=87)
    assert np.array_equal(ni.read_image(buffer.getvalue()), np.asarray(Image.open(buffer)))
