"""Writes resize/ and decode/ beside this file: what Pillow 13.0.0 makes of images.

    pip install pillow==13.0.0 numpy==2.4.6 && python make.py

resize/IMAGE,X0-X1,Y0-Y1,WxH,FILTER.png is that part of ../images/IMAGE.png, resized.
decode/NAME.EXT is a file in some format and mode, decode/NAME.EXT.png its pixels, upright, in RGB.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps
from writers import bmp, gif, png, png_chunk, tiff

assert PIL.__version__ == "13.0.0", PIL.__version__
HERE = Path(__file__).parent
FILTERS = {n: Image.Resampling[n.upper()] for n in ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]}


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
    elif image.mode == "F":  # and this would cut 0 to 1 down to 0 and 1
        scaled = np.clip(np.nan_to_num(np.asarray(image, np.float64), nan=0), 0, 1) * 255
        image = Image.fromarray(np.floor(scaled + 0.5).astype(np.uint8))
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


def save_bytes(name, data):
    path = HERE / "decode" / name
    path.write_bytes(data)
    upright_rgb(path).save(f"{path}.png", optimize=True)


# Of 13 x 7 pixels: odd, and no whole number of bytes for any number of bits.
WIDTH, HEIGHT = 13, 7


def small():
    return part("chelsea", 120, 120 + WIDTH, 60, 60 + HEIGHT)


def counts(samples=1, largest=255):
    """Values that take every step up to the largest, in every sample otherwise."""
    values = np.arange(HEIGHT * WIDTH * samples).reshape(HEIGHT, WIDTH, samples)
    return (values * 37 + values // 5) % (largest + 1)


def save_png():
    rgb = np.asarray(small())
    palette = png_chunk(b"PLTE", bytes(range(100, 112)))
    grey, colour, indexed, grey_alpha, colour_alpha = 0, 2, 3, 4, 6

    for bits in (1, 2, 4, 8, 16):
        save_bytes(f"grey-{bits}.png", png(counts(1, 2**bits - 1), bits, grey))
    for bits in (1, 2, 4):
        save_bytes(f"palette-{bits}.png", png(counts(1, min(2**bits - 1, 3)), bits, indexed, palette))
    for bits in (8, 16):
        for name, samples, number in [("la", 2, grey_alpha), ("rgb", 3, colour), ("rgba", 4, colour_alpha)]:
            save_bytes(f"{name}-{bits}.png", png(counts(samples, 2**bits - 1), bits, number))
    for name, values, bits, number in [
        ("grey-1", counts(1, 1), 1, grey),
        ("palette-2", counts(1, 3), 2, indexed),
        ("rgb-8", rgb, 8, colour),
        ("la-16", counts(2, 65535), 16, grey_alpha),
        ("narrow", rgb[:, :3], 8, colour),  # some passes have no pixels
    ]:
        before = palette if number == indexed else b""
        save_bytes(f"interlaced-{name}.png", png(values, bits, number, before, interlaced=True))
    save_bytes("palette-short.png", png(counts(1, 7), 8, indexed, palette))  # four of eight colours
    save_bytes("palette-none.png", png(counts(1, 7), 8, indexed))
    save_bytes("transparent-grey.png", png(counts(), 8, grey, png_chunk(b"tRNS", b"\0\1")))
    save_bytes("transparent-rgb.png", png(rgb, 8, colour, png_chunk(b"tRNS", bytes(6))))
    save_bytes("no-end.png", png(rgb, 8, colour, end=False))
    save_bytes("after-end.png", png(rgb, 8, colour) + b"what follows")
    save_bytes("checksum-of-pixels.png", png(rgb, 8, colour, checksum=1))
    save_bytes("checksum-after-pixels.png", png(rgb, 8, colour, after=png_chunk(b"abCd", b"x", 1)))
    save_bytes("unknown-chunk.png", png(rgb, 8, colour, png_chunk(b"ABCD", b"x")))
    frames = png_chunk(b"acTL", struct.pack(">II", 2, 0))
    first = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, WIDTH, HEIGHT, 0, 0, 1, 1, 0, 0))
    second = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, 1, 1, 1, 1, 1, 1, 0, 0))
    second += png_chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(4)))
    save_bytes("frames.png", png(rgb, 8, colour, frames + first, second))
    save_bytes("frames-after-default.png", png(rgb, 8, colour, frames, first + second))

    exif = Image.Exif()
    exif[0x0112] = 8
    exif = exif.tobytes()[6:]
    save_bytes("turned-after-pixels.png", png(rgb, 8, colour, after=png_chunk(b"eXIf", exif)))
    text = f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()
    key = b"Raw profile type exif\0"
    save_bytes("turned-profile.png", png(rgb, 8, colour, png_chunk(b"tEXt", key + text)))
    save_bytes("turned-zip.png", png(rgb, 8, colour, png_chunk(b"zTXt", key + b"\0" + zlib.compress(text))))
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="5"/>'
    save_bytes("turned-xmp.png", png(rgb, 8, colour, png_chunk(b"iTXt", xmp)))


def save_gif():
    indices = counts(1, 7)[:4, :5, 0]
    palette, local = bytes(range(30, 54)), bytes(range(200, 224))
    save_bytes("offset.gif", gif(indices, (9, 8), (2, 3), palette, background=2))
    save_bytes("offset-transparent.gif", gif(indices, (9, 8), (2, 3), palette, background=2, transparent=4))
    save_bytes("offset-beyond.gif", gif(indices, (9, 8), (2, 3), palette, transparent=250))
    save_bytes("local.gif", gif(indices, (9, 8), (2, 3), palette, local))
    save_bytes("local-only.gif", gif(indices, (5, 4), local=local))
    save_bytes("no-palette.gif", gif(indices, (9, 8), (2, 3)))
    save_bytes("no-palette-transparent.gif", gif(indices, (9, 8), (2, 3), transparent=90))
    save_bytes("short-palette.gif", gif(indices, (5, 4), palette=palette[:12]))
    save_bytes("zero-screen.gif", gif(indices, (0, 0), palette=palette))
    save_bytes("grown.gif", gif(indices, (4, 9), (1, 2), palette))
    save_bytes("no-end.gif", gif(indices, (5, 4), palette=palette, end=False))


def save_bmp():
    def rows(array):  # the lowest first, padded to four bytes
        return b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in array[::-1])

    rgb = np.asarray(small())
    grey = counts(1, 7)[..., 0].astype(np.uint8)
    bits = {n: np.packbits(((grey[..., None] % 2**n) >> np.arange(n - 1, -1, -1) & 1).reshape(HEIGHT, -1), axis=1) for n in (1, 4)}
    palette = b"".join(bytes([i * 30, 200 - i * 9, i * 7, 0]) for i in range(8))
    no_padding = b"".join(palette[i : i + 3] for i in range(0, 32, 4))
    wide = counts(1, 65535)[..., 0].astype("<u2")
    four = counts(4, 255).astype(np.uint8)
    for n, size in ((1, 2), (4, 8)):
        save_bytes(f"palette-{n}.bmp", bmp(WIDTH, HEIGHT, n, 0, rows(bits[n]), palette[: 4 * size], colours=size))
    save_bytes("palette-short.bmp", bmp(WIDTH, HEIGHT, 8, 0, rows(grey), palette[:16], colours=4))
    save_bytes("top-down.bmp", bmp(WIDTH, -HEIGHT, 8, 0, rows(grey), palette, colours=8))
    save_bytes("os2-24.bmp", bmp(WIDTH, HEIGHT, 24, 0, rows(rgb[..., ::-1].copy()), header=12))
    save_bytes("os2-4.bmp", bmp(WIDTH, HEIGHT, 4, 0, rows(bits[4]), no_padding + bytes(24), header=12))
    save_bytes("os2-2.bmp", bmp(WIDTH, HEIGHT, 8, 0, rows(grey), palette, header=64, colours=8))
    save_bytes("555.bmp", bmp(WIDTH, HEIGHT, 16, 0, rows(wide)))
    masks = {"565": (0xF800, 0x7E0, 0x1F), "555-masks": (0x7C00, 0x3E0, 0x1F)}
    for name, mask in masks.items():
        save_bytes(f"{name}.bmp", bmp(WIDTH, HEIGHT, 16, 3, rows(wide), masks=struct.pack("<III", *mask)))
    save_bytes("32.bmp", bmp(WIDTH, HEIGHT, 32, 0, rows(four)))
    masks = {
        "xbgr": (0xFF000000, 0xFF0000, 0xFF00, 0),
        "abgr": (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
        "rgba": (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        "none": (0, 0, 0, 0),
    }
    for name, mask in masks.items():
        stored = bmp(WIDTH, HEIGHT, 32, 3, rows(four), masks=struct.pack("<IIII", *mask), header=108)
        save_bytes(f"32-{name}.bmp", stored)
    save_bytes("offset-0.bmp", bmp(WIDTH, HEIGHT, 24, 0, rows(rgb), offset=0))
    save_bytes("gap.bmp", bmp(WIDTH, HEIGHT, 24, 0, bytes(10) + rows(rgb), offset=64))
    runs = [b"\5\1\0\0", b"\0\3\1\2\3\0\2\4\0\0", b"\1\6\0\2\1\1\3\3\0\0"]  # a row each, but one that skips
    eight = b"".join([*runs, b"\5\2\0\0\0\1"])
    save_bytes("runs-8.bmp", bmp(5, 5, 8, 1, eight, palette, colours=8))
    four_bits = b"\5\x12\0\0\0\5\x12\x34\x50\0\0\0\3\x31\0\0\5\x77\0\0\0\1"
    save_bytes("runs-4.bmp", bmp(5, 4, 4, 2, four_bits, palette, colours=8))


def save_tiff():
    def bytes_of(array, bits=8, order="<"):
        if bits >= 8:
            return array.astype(array.dtype.newbyteorder(order)).tobytes()
        spread = (array.reshape(array.shape[0], -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
        return np.packbits(spread.reshape(array.shape[0], -1).astype(np.uint8), axis=1).tobytes()

    def tags(array, photometric, bits=8, **more):
        height, width, samples = array.shape
        found = {256: [width], 257: [height], 258: [bits] * samples, 259: [1], 262: [photometric]}
        found |= {277: [samples], 278: [height]} | {int(tag[1:]): values for tag, values in more.items()}
        return found

    white_is_zero, black_is_zero, rgb, indexed, cmyk, ycbcr = 0, 1, 2, 3, 5, 6
    planar, fill, predictor, extra, kind = "t284", "t266", "t317", "t338", "t339"

    def save(name, array, photometric, bits=8, order="<", big=False, **more):
        parts = [bytes_of(array, bits, order)]
        save_bytes(name, tiff(parts, tags(array, photometric, bits, **more), order, big))

    for order, end in (("<", "le"), (">", "be")):
        for bits in (1, 2, 4, 8):
            values = counts(1, 2**bits - 1).astype(np.uint8)
            save(f"grey-{bits}-{end}.tif", values, black_is_zero, bits, order)
            colours = [(i * 97 + channel * 31) % 256 * 256 for channel in range(3) for i in range(2**bits)]
            if bits < 8 or order == "<":
                save(f"palette-{bits}-{end}.tif", values, indexed, bits, order, t320=colours)
        save(f"grey-16-{end}.tif", counts(1, 65535).astype(np.uint16), black_is_zero, 16, order)
        save(f"rgb-16-{end}.tif", counts(3, 65535).astype(np.uint16), rgb, 16, order)
        signed = (counts(1, 700) - 200).astype(np.int16)
        save(f"signed-16-{end}.tif", signed, black_is_zero, 16, order, **{kind: [2]})
        save(f"signed-32-{end}.tif", signed.astype(np.int32), black_is_zero, 32, order, **{kind: [2]})
        floats = (counts(1, 700) / 500 - 0.2).astype(np.float32)
        floats[0, 0], floats[1, 1] = np.nan, np.inf
        save(f"float-32-{end}.tif", floats, black_is_zero, 32, order, **{kind: [3]})
        for bits in (1, 4, 8):
            values = counts(1, 2**bits - 1).astype(np.uint8)
            save(f"white-is-zero-{bits}-{end}.tif", values, white_is_zero, bits, order)
    save("big-le.tif", counts(3).astype(np.uint8), rgb, big=True)
    save("signed-8.tif", counts(1).astype(np.uint8), black_is_zero, **{kind: [2]})
    two = counts(2).astype(np.uint8)
    save("two-bands.tif", two, black_is_zero, **{extra: [0]})
    save("la.tif", two, black_is_zero, **{extra: [2]})
    save("palette-and-more.tif", two, indexed, **{extra: [0]}, t320=[i * 85 for i in range(768)])
    four = counts(4).astype(np.uint8)
    for name, what in (("x", 0), ("a-associated", 1), ("a", 2)):
        save(f"rgb{name}.tif", four, rgb, **{extra: [what]})
        save(f"rgb{name}-16.tif", counts(4, 65535).astype(np.uint16), rgb, 16, **{extra: [what]})
    save("rgb-undeclared.tif", four, rgb)
    save("rgbxx.tif", counts(5).astype(np.uint8), rgb, **{extra: [0, 0]})
    save("cmyk.tif", four, cmyk)
    save("cmyk-16.tif", counts(4, 65535).astype(np.uint16), cmyk, 16)
    save("cmykx.tif", counts(5).astype(np.uint8), cmyk, **{extra: [0]})
    save("ycbcr.tif", counts(3).astype(np.uint8), ycbcr, t530=[1, 1])
    reverse = np.array([int(f"{i:08b}"[::-1], 2) for i in range(256)], np.uint8)
    save("low-bit-first.tif", reverse[counts(3)], rgb, **{fill: [2]})
    bits = np.frombuffer(bytes_of(counts(1, 1), 1), np.uint8)
    save_bytes("low-bit-first-1.tif", tiff([reverse[bits].tobytes()], tags(counts(1, 1), black_is_zero, 1, t266=[2])))

    three = counts(3).astype(np.uint8)
    planes = [three[..., i].tobytes() for i in range(3)]
    save_bytes("planes.tif", tiff(planes, tags(three, rgb, t284=[2])))
    strips = [three[y : y + 3].tobytes() for y in range(0, HEIGHT, 3)]
    save_bytes("strips.tif", tiff(strips, tags(three, rgb, t278=[3])))
    padded = np.zeros((16, 32, 3), np.uint8)
    padded[:HEIGHT, :WIDTH] = three
    where = {"t322": [16], "t323": [16]}
    tile = padded[:, :16]
    save_bytes("tile.tif", tiff([tile.tobytes()], tags(three, rgb, **where)))
    wide = np.tile(three, (3, 2, 1))  # 21 x 26: two by two tiles
    padded = np.zeros((32, 32, 3), np.uint8)
    padded[: wide.shape[0], : wide.shape[1]] = wide
    tiles = [padded[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16)]
    packed = [zlib.compress(tile.tobytes()) for tile in tiles]
    save_bytes("tiles-zip.tif", tiff(packed, tags(wide, rgb, t259=[8], **where)))
    packed = [zlib.compress(tile[..., i].tobytes()) for i in range(3) for tile in tiles]
    save_bytes("tiles-planes.tif", tiff(packed, tags(wide, rgb, t259=[8], t284=[2], **where)))

    def differences(array):
        return np.concatenate([array[:, :1], array[:, 1:] - array[:, :-1]], axis=1)

    for order, end in (("<", "le"), (">", "be")):
        packed = [zlib.compress(bytes_of(differences(counts(3, 65535).astype(np.uint16)), 16, order))]
        more = tags(three, rgb, 16, t259=[8], t317=[2])
        save_bytes(f"predictor-16-{end}.tif", tiff(packed, more, order))
    floats = (counts(1, 700) / 500 - 0.2).astype(">f4")
    shuffled = floats.view(np.uint8).reshape(HEIGHT, WIDTH, 4).transpose(0, 2, 1).reshape(HEIGHT, -1, 1)
    more = tags(floats, black_is_zero, 32, t259=[8], t317=[3], t339=[3])
    save_bytes("predictor-float.tif", tiff([zlib.compress(differences(shuffled).tobytes())], more))
    for orientation in range(1, 9):
        save(f"turned{orientation}.tif", three[:5], rgb, t274=[orientation])
    save("turned-xmp.tif", three, rgb, t700=b'<x tiff:Orientation="7"/>')
    save_bytes("no-lengths.tif", tiff(planes[:1], tags(three[..., :1], black_is_zero), leave_out=[279]))
    without = tags(three[..., :1], white_is_zero)
    for tag in (259, 262, 277, 278):
        del without[tag]
    save_bytes("few-tags.tif", tiff(planes[:1], without))
    swapped = tiff(planes[:1], tags(three[..., :1], black_is_zero), ">", version=42 << 8)
    save_bytes("version-swapped.tif", swapped)

    photo = part("chelsea", 120, 147, 60, 79)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "zstd", "jpeg"):
        path = HERE / f"decode/{compression.removeprefix('tiff_').replace('_', '-')}.tif"
        photo.save(path, compression=compression)
        upright_rgb(path).save(f"{path}.png", optimize=True)
    for name, mode, compression in [
        ("jpeg-grey", "L", "jpeg"),
        ("jpeg-cmyk", "CMYK", "jpeg"),
        ("lzw-cmyk", "CMYK", "tiff_lzw"),
        ("lzw-ycbcr", "YCbCr", "tiff_lzw"),
        ("group3", "1", "group3"),
    ]:
        path = HERE / f"decode/{name}.tif"
        photo.convert(mode).save(path, compression=compression)
        upright_rgb(path).save(f"{path}.png", optimize=True)
    path = HERE / "decode/pages.tif"
    small().save(path, save_all=True, append_images=[small().convert("L")], compression="tiff_lzw")
    upright_rgb(path).save(f"{path}.png", optimize=True)


def save_webp():
    photo = part("chelsea", 120, 147, 60, 79)
    rgba = photo.copy()
    rgba.putalpha(photo.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image, options in [
        ("lossy-alpha", rgba, {"quality": 80}),
        ("lossy-rough", photo, {"quality": 5}),
        ("lossless-rgb", photo, {"lossless": True}),
        ("turned", photo, {"quality": 80, "exif": exif}),
        ("turned-xmp", photo, {"quality": 80, "xmp": b'<x tiff:Orientation="8"/>'}),
        ("animated", photo, {"quality": 80, "save_all": True, "append_images": [photo.rotate(180)]}),
        ("animated-alpha", rgba, {"lossless": True, "save_all": True, "append_images": [rgba.rotate(180)]}),
    ]:
        path = HERE / f"decode/{name}.webp"
        image.save(path, **options)
        upright_rgb(path).save(f"{path}.png", optimize=True)


save_resize()
save_decode()
save_png()
save_gif()
save_bmp()
save_tiff()
save_webp()
