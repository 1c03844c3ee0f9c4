"""Disk images with content that tests can tell again."""

import random
from pathlib import Path

from hotspare.units import MIB


def make_image(path: Path, size: int = 8 * MIB, *, data: int = 4 * MIB, seed: int = 1) -> bytes:
    """Write a raw image: ``data`` bytes that no compression shrinks, then zeroes. Gives its content."""
    source = random.Random(seed)
    content = b"".join(source.randbytes(MIB) for _ in range(data // MIB)) + bytes(size - data)
    path.write_bytes(content)
    return content


def change_image(path: Path, offset: int = MIB, change: bytes = b"changed") -> bytes:
    """Overwrite a few bytes of an image. Gives its content."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(change)
    return path.read_bytes()
