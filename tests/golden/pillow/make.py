"""Writes resize/ and decode/ beside this file: what Pillow 13.0.0 makes of images.

    pip install pillow==13.0.0 numpy==2.4.6 && python make.py

resize/IMAGE,X0-X1,Y0-Y1,WxH,FILTER.png is that part of ../images/IMAGE.png, resized.
decode/NAME.EXT is a file in some format and mode, decode/NAME.EXT.png its pixels, upright, in RGB.
"""

from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

assert PIL.__version__ == "13.0.0", PIL.__version__
HERE = Path(__file__).parent
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def part(name, x0, x1, y0, y1):
    image = Image.open(HERE.parent / f"images/{name}.png").convert("RGB").crop((x0, y0, x1, y1))
    image.info = {}
    return image


def save_resize():
    for name, (x0, x1, y0, y1), (w, h) in [
        ("chelsea", (0, 451, 0, 300), (97, 64)),  # odd sides
        ("coffee", (0, 520, 0, 347), (520, 31)),  # one side only, vertical first
        ("coffee", (0, 520, 0, 347), (31, 347)),
        ("astronaut", (200, 240, 90, 123), (101, 83)),  # enlarged
        ("astronaut", (200, 240, 90, 123), (101, 20)),  # one side enlarged, one shrunk
        ("astronaut", (200, 240, 90, 123), (20, 101)),
        ("rocket", (150, 190, 0, 280), (32, 224)),  # tall, horizontal first
        ("rocket", (150, 190, 0, 280), (32, 64)),  # tall, vertical first
        ("china", (0, 420, 100, 131), (60, 31)),  # wide
        ("china", (0, 420, 100, 131), (420, 31)),  # unchanged
        ("flower", (100, 101, 0, 280), (3, 90)),  # one column
        ("flower", (100, 120, 40, 60), (1, 1)),
    ]:
        for filter, code in FILTERS.items():
            out = part(name, x0, x1, y0, y1).resize((w, h), code)
            out.save(HERE / f"resize/{name},{x0}-{x1},{y0}-{y1},{w}x{h},{filter}.png", optimize=True)


def upright_rgb(path):
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16"):  # convert("RGB") would saturate at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def save_decode():
    photo = part("chelsea", 120, 147, 60, 79)  # 27 x 19
    alpha = Image.fromarray(np.linspace(0, 255, 27 * 19).astype(np.uint8).reshape(19, 27))
    rgba = photo.copy()
    rgba.putalpha(alpha)
    la = Image.merge("LA", (photo.convert("L"), alpha))
    palette = photo.quantize(37)
    wide = np.asarray(photo).astype(np.uint16) * 251 + np.arange(27, dtype=np.uint16)[:, None]
    grey16 = Image.fromarray(wide[..., 1])
    turned = Image.Exif()
    turned[0x0112] = 6

    def save(name, image, **options):
        path = HERE / "decode" / name
        image.save(path, **options)
        upright_rgb(path).save(f"{path}.png", optimize=True)

    save("rgb.png", photo)
    save("rgba.png", rgba)
    save("la.png", la)
    save("grey.png", photo.convert("L"))
    save("bits.png", photo.convert("1"))
    save("palette.png", palette)
    save("palette-transparent.png", palette, transparency=5)
    save("grey16.png", grey16)
    save("turned.png", photo, exif=turned)
    save("rgb.bmp", photo)
    save("palette.bmp", palette)
    save("rgb.tiff", photo, compression="tiff_lzw")
    save("grey16.tiff", grey16)
    save("bits.tiff", photo.convert("1"), compression="group4")
    save("turned.tiff", photo, exif=turned)
    save("rgb.gif", palette)
    save("transparent.gif", palette, transparency=5)
    save("animated.gif", palette, save_all=True, append_images=[palette.transpose(Image.Transpose.ROTATE_180)])
    save("lossless.webp", rgba, lossless=True, exact=True)
    save("lossy.webp", photo, quality=90)
    save("444.jpg", photo, quality=90, subsampling=0)
    save("420.jpg", photo, quality=90, subsampling=2)
    save("progressive.jpg", photo, quality=90, subsampling=0, progressive=True)
    save("grey.jpg", photo.convert("L"), quality=90)
    save("cmyk.jpg", photo.convert("CMYK"), quality=90)
    for orientation in range(2, 9):
        turned[0x0112] = orientation
        save(f"turned{orientation}.jpg", photo, quality=90, subsampling=0, exif=turned)


save_resize()
save_decode()
