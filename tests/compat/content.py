"""What the golden repositories hold, generated the same way for ever."""

import hashlib

PASSPHRASE = "golden"
CHUNK = 65536


def noise(label: str, size: int) -> bytes:
    """Give bytes that do not compress and never change."""
    return hashlib.shake_256(label.encode()).digest(size)


def first_disk() -> bytes:
    """An odd size, holes, text, noise, a repeated chunk; 2049 chunks and a bit: two leaf pages."""
    size = 2049 * CHUNK + 1536
    data = bytearray(size)
    data[:5000] = b"golden text, line after line\n" * 172 + bytes(12)
    data[3 * CHUNK : 3 * CHUNK + 20000] = noise("three", 20000)
    data[7 * CHUNK : 7 * CHUNK + 20000] = noise("three", 20000)
    data[2048 * CHUNK + 10 : 2048 * CHUNK + 1000] = noise("second page", 990)
    data[-700:] = noise("end", 700)
    return bytes(data)


def second_disk() -> bytes:
    """The first one, changed in two places: one chunk anew, one a little (a delta, as is the map page)."""
    data = bytearray(first_disk())
    data[3 * CHUNK + 5000 : 3 * CHUNK + 5050] = noise("a row", 50)
    data[5 * CHUNK : 5 * CHUNK + 4096] = noise("changed", 4096)
    return bytes(data)
