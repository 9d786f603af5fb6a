"""Writers of files that Pillow reads and does not write."""

import struct
import zlib

import numpy as np


def png_chunk(name, data, checksum=None):
    checksum = zlib.crc32(name + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png(array, bits, colour, before=b"", after=b"", interlaced=False, checksum=None, end=True):
    """array: rows, columns, samples (the last may be missing) of `bits` bits; colour: PNG's number."""
    array = array.reshape(*array.shape[:2], -1)

    def rows(part):
        out = b""
        for row in part:
            if bits == 16:
                packed = row.astype(">u2").tobytes()
            else:
                spread = (row.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1
                packed = np.packbits(spread.astype(np.uint8).reshape(-1)).tobytes()
            out += b"\0" + packed
        return out

    if interlaced:
        steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        parts = [array[y::down, x::right] for x, y, right, down in steps]
        pixels = b"".join(rows(part) for part in parts if part.size)
    else:
        pixels = rows(array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], bits, colour, 0, 0, int(interlaced))
    out = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before
    out += png_chunk(b"IDAT", zlib.compress(pixels), checksum) + after
    return out + (png_chunk(b"IEND", b"") if end else b"")


def gif(indices, screen, at=(0, 0), palette=b"", local=b"", background=0, transparent=None, end=True):
    """indices: rows, columns below 16. Codes are never packed: the table is cleared before it grows."""
    bits = 4
    clear = 1 << bits
    codes = []
    for number, index in enumerate(indices.reshape(-1)):
        if number % (clear - 2) == 0:
            codes.append(clear)
        codes.append(int(index))
    joined = sum(code << (bits + 1) * place for place, code in enumerate([*codes, clear + 1]))
    data = joined.to_bytes((len(codes) + 1) * (bits + 1) // 8 + 1, "little")
    blocks = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))

    def table(colours):
        size = max(1, (len(colours) // 3 - 1).bit_length())
        return (0x80 | size - 1, colours + bytes(3 * (1 << size) - len(colours))) if colours else (0, b"")

    flags, colours = table(palette)
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, flags, background, 0) + colours
    if transparent is not None:
        out += b"!\xf9\4\1\0\0" + bytes([transparent, 0])
    flags, colours = table(local)
    out += b"," + struct.pack("<HHHHB", *at, indices.shape[1], indices.shape[0], flags) + colours
    return out + bytes([bits]) + blocks + b"\0" + (b";" if end else b"")


def bmp(width, height, bits, compression, pixels, palette=b"", header=40, masks=b"", colours=0, offset=None):
    """height is negative where the highest row comes first."""
    if header == 12:
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        fields = (header, width, height, 1, bits, compression, len(pixels), 0, 0, colours, 0)
        head = struct.pack("<IiiHHIIIIII", *fields) + masks
        head += bytes(max(0, header - len(head)))
    start = 14 + len(head) + len(palette) if offset is None else offset
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + head + palette + pixels


BYTE, SHORT, LONG, LONG8 = 1, 3, 4, 16


def tiff(parts, tags, order="<", big=False, leave_out=(), version=None):
    """parts: the bytes of each strip or tile; tags: what the directory says besides, tag to values (shorts, or bytes)."""
    tiled = 322 in tags
    at, count = (324, 325) if tiled else (273, 279)
    word, size = ("Q", 8) if big else ("I", 4)
    version = (43 if big else 42) if version is None else version
    start = 16 if big else 8
    number = len(tags) + 2 - len(leave_out)
    directory = (8 if big else 2) + number * (20 if big else 12) + size
    kind = LONG8 if big else LONG
    entries = {tag: (BYTE if isinstance(values, bytes) else SHORT, list(values)) for tag, values in tags.items()}
    entries[at] = (kind, [0] * len(parts))
    entries[count] = (kind, [len(part) for part in parts])
    for tag in leave_out:
        del entries[tag]
    codes = {BYTE: "B", SHORT: "H", LONG: "I", LONG8: "Q"}
    widths = {BYTE: 1, SHORT: 2, LONG: 4, LONG8: 8}
    outside = sum(len(v) * widths[k] for k, v in entries.values() if len(v) * widths[k] > size)
    offset = start + directory + outside
    entries[at] = (kind, [offset + sum(map(len, parts[:index])) for index in range(len(parts))])
    out = struct.pack(order + "2sH", b"II" if order == "<" else b"MM", version)
    out += struct.pack(order + "HHQ", 8, 0, start) if big else struct.pack(order + "I", start)
    out += struct.pack(order + ("Q" if big else "H"), number)
    beyond, place = b"", start + directory
    for tag, (kind, values) in sorted(entries.items()):
        data = struct.pack(order + f"{len(values)}{codes[kind]}", *values)
        out += struct.pack(order + "HH" + word, tag, kind, len(values))
        if len(data) > size:
            out += struct.pack(order + word, place + len(beyond))
            beyond += data
        else:
            out += data.ljust(size, b"\0")
    return out + bytes(size) + beyond + b"".join(parts)
