"""Delta payloads: a chunk kept as the blocks in which it differs from another chunk, its base.

    form (1) | bitmap of changed blocks | zstd frame of the changed blocks

The base has the same size. A block of a disk's chunk that changed mostly still resembles what it was (a
row of a table was updated, a line added), so where the base is at hand its old blocks are the
dictionary of the frame: what is stored then follows what changed within the blocks.
docs/repository-format.md specifies the bytes.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import zstandard
from typing_extensions import Buffer

CHUNK_SHIFT = 12
"""Disks are written in blocks of 4 KiB."""
PAGE_SHIFT = 5
"""A map page changes by whole chunk ids."""
SHIFT_MAX = 16
_WITH_DICTIONARY = 0x80
_SHIFT_MASK = 0x1F
_LEVEL = 1

Blocks = npt.NDArray[np.bool_]
"""One flag for each block of a chunk, the last of which may be short: whether it differs."""


def changed_blocks(base: memoryview, plaintext: memoryview, shift: int) -> Blocks:
    """Compare two chunks of the same size, block by block of ``1 << shift`` bytes."""
    size = len(plaintext)
    whole = size >> shift
    end = whole << shift
    words = (whole, (1 << shift) // 8)
    old = np.frombuffer(base[:end], dtype=np.uint64).reshape(words)
    new = np.frombuffer(plaintext[:end], dtype=np.uint64).reshape(words)
    changed: Blocks = (old != new).any(axis=1)
    if end == size:
        return changed
    return np.append(changed, base[end:] != plaintext[end:])


def encode(plaintext: memoryview, changed: Blocks, shift: int, base: memoryview | None) -> bytes:
    """Give the payload; without the base's plaintext no dictionary is used."""
    blocks = _pick(plaintext, changed, shift)
    form = shift if base is None else shift | _WITH_DICTIONARY
    dictionary = None if base is None else _dictionary(_pick(base, changed, shift))
    compressor = zstandard.ZstdCompressor(
        level=_LEVEL, dict_data=dictionary, write_checksum=False, write_dict_id=False
    )
    return bytes((form,)) + np.packbits(changed).tobytes() + compressor.compress(blocks)


def parse(payload: bytes, size: int) -> tuple[Blocks, int, bool, memoryview]:
    """Give changed blocks, shift, whether a dictionary is used, and the frame of a payload.

    Args:
        payload: as stored.
        size: bytes of the base, which are those of the chunk.

    Raises:
        ValueError: it is no delta payload for a chunk of that size.
    """
    if not payload:
        raise ValueError("an empty delta")
    form = payload[0]
    shift = form & _SHIFT_MASK
    if form & ~(_SHIFT_MASK | _WITH_DICTIONARY) or not PAGE_SHIFT <= shift <= SHIFT_MAX:
        raise ValueError(f"unknown form {form} of a delta")
    blocks = -(-size >> shift) if size else 0
    end = 1 + -(-blocks // 8)
    bits = np.unpackbits(np.frombuffer(payload[1:end], dtype=np.uint8))
    if len(bits) < blocks or bits[blocks:].any():
        raise ValueError("the bitmap of a delta does not fit its base")
    return bits[:blocks].astype(np.bool_), shift, bool(form & _WITH_DICTIONARY), memoryview(payload)[end:]


def decode(payload: bytes, base: Buffer) -> bytearray:
    """Give the plaintext: the base with the changed blocks put in.

    Raises:
        ValueError: the payload is not of a chunk of the base's size.
    """
    old = memoryview(base)
    changed, shift, with_dictionary, frame = parse(payload, len(old))
    ranges = list(_ranges(changed, shift, len(old)))
    expected = sum(stop - start for start, stop in ranges)
    try:
        if zstandard.frame_content_size(frame) != expected:
            raise ValueError("a delta declares another size than its changed blocks have")
        dictionary = _dictionary(_pick(old, changed, shift)) if with_dictionary else None
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)
        blocks = memoryview(decompressor.decompress(frame, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    plaintext = bytearray(old)
    at = 0
    for start, stop in ranges:
        plaintext[start:stop] = blocks[at : at + stop - start]
        at += stop - start
    return plaintext


def _pick(data: memoryview, changed: Blocks, shift: int) -> bytes:
    return b"".join(data[start:stop] for start, stop in _ranges(changed, shift, len(data)))


def _ranges(changed: Blocks, shift: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) in bytes of each run of changed blocks."""
    edges = np.flatnonzero(np.diff(changed.astype(np.int8), prepend=0, append=0)) << shift
    for start, stop in edges.reshape(-1, 2).tolist():
        yield start, min(stop, size)


def _dictionary(data: bytes) -> zstandard.ZstdCompressionDict | None:
    """Give bytes as what a frame may refer back to. zstd takes none shorter than 8 bytes."""
    if len(data) < 8:
        return None
    return zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
