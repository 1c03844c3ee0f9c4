"""Pictures of consoles: from PPM, as QEMU draws them, to PNG (see the PNG specification, third edition)."""

import re
import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+(\d{1,5})\s")
_PIXELS_MAX = 64 * 1024 * 1024


def png_of_ppm(picture: bytes) -> bytes | None:
    """Give the same picture as PNG; None when it is no binary PPM of one byte for each colour."""
    head = _HEAD.match(picture)
    if head is None:
        return None
    width, height, brightest = (int(number) for number in head.groups())
    pixels = memoryview(picture)[head.end() :]
    row = width * 3
    if brightest != 255 or not 0 < width * height <= _PIXELS_MAX or len(pixels) < row * height:
        return None
    # Each row begins with the number of its filter; none of them is used.
    rows = b"".join(b"\0" + bytes(pixels[at : at + row]) for at in range(0, row * height, row))
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _SIGNATURE + b"".join(
        _chunk(kind, data)
        for kind, data in ((b"IHDR", size), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
