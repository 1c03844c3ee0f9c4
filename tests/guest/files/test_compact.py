"""Files that Windows compacted, against chunks that libwim compressed."""

import ctypes
import os
import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.errors import FileSystemUnreadable
from hotspare.guest.files.ntfs.compact import unpack
from hotspare.guest.files.ntfs.record import Tag
from tests.guest.files.mounts import mounted_ntfs
from tests.guest.files.test_ntfs import made, opened, reparse

EVEN_CODES = b"\x99" * 256
"""Nine bits for each of 512 symbols: any bits mean something."""


def wof_compressed(content: bytes, chunk: int) -> bytes:
    """Compress as Windows does, by XPRESS: ends of chunks, then the chunks, raw where that is shorter."""
    library = ctypes.CDLL("libwim.so.15")
    library.wimlib_compress.restype = ctypes.c_size_t
    library.wimlib_compress.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p,
    ]  # fmt: skip
    compressor = ctypes.c_void_p()
    created = library.wimlib_create_compressor(1, ctypes.c_size_t(chunk), 0, ctypes.byref(compressor))
    assert created == 0
    parts = []
    for at in range(0, len(content), chunk):
        piece = content[at : at + chunk]
        room = ctypes.create_string_buffer(len(piece))
        length = library.wimlib_compress(piece, len(piece), room, len(piece) - 1, compressor)
        parts.append(room.raw[:length] if length else piece)
    library.wimlib_free_compressor(compressor)
    ends = [sum(len(part) for part in parts[: number + 1]) for number in range(len(parts) - 1)]
    return b"".join(struct.pack("<I", end) for end in ends) + b"".join(parts)


def wof(way: int) -> bytes:
    return reparse(Tag.COMPRESSED_BY_WOF, struct.pack("<IIII", 1, 2, 1, way))


def mixed(chance: random.Random) -> bytes:
    """Give some content of all degrees of order."""
    pieces: list[bytes] = []
    for _ in range(chance.randrange(1, 6)):
        length = chance.choice([10, 300, 5000, 20_000])
        sorts = [
            chance.randbytes(length),
            b"".join(b"line %d\n" % chance.randrange(50) for _ in range(length // 6)),
            bytes(length),
            bytes(chance.randrange(3) for _ in range(length)),
            (chance.randbytes(chance.randrange(1, 40)) * length)[:length],
        ]
        pieces.append(chance.choice(sorts))
    return b"".join(pieces)


@pytest.mark.parametrize(("way", "chunk"), [(0, 4096), (2, 8192), (3, 16384)])
def test_files_that_windows_compacted(way: int, chunk: int, tmp_path: Path) -> None:
    image = made(tmp_path)
    chance = random.Random(chunk)
    contents = {f"file-{number}": mixed(chance) for number in range(20)}
    with mounted_ntfs(image, streams="windows") as point:
        for name, content in contents.items():
            with (point / name).open("wb") as handle:
                handle.truncate(len(content))
            (point / f"{name}:WofCompressedData").write_bytes(wof_compressed(content, chunk))
        (point / "by LZX").write_bytes(b"")
        (point / "by LZX:WofCompressedData").write_bytes(b"any")
    with mounted_ntfs(image) as point:
        for name in contents:
            os.setxattr(point / name, "system.ntfs_reparse_data", wof(way))
        os.setxattr(point / "by LZX", "system.ntfs_reparse_data", wof(1))
    with opened(image) as file_system:
        for name, content in contents.items():
            entry = file_system.entry(f"/{name}")
            assert (entry.kind, entry.size, entry.streams) == ("file", len(content), ())
            file = file_system.open(f"/{name}")
            assert list(file.holes()) == []
            assert file.read(0, 1 << 30) == content, name
            assert file.read(len(content) // 2, 9000) == content[len(content) // 2 :][:9000]
        with pytest.raises(FileSystemUnreadable, match="compacted"):
            file_system.open("/by LZX")


@given(st.binary(max_size=400), st.integers(1, 16384))
def test_any_compacted_chunk_ends_in_bytes_or_the_typed_error(raw: bytes, size: int) -> None:
    for chunk in (raw, EVEN_CODES + raw):
        with suppress(FileSystemUnreadable):
            assert len(unpack(chunk, size)) == size
