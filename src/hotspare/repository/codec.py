"""How a chunk's bytes are kept: as they are, compressed, or as a delta upon another chunk.

A codec number is stored with each entry; nothing above the codec knows of it.
"""

import threading

import zstandard
from typing_extensions import Buffer

from hotspare.repository import delta

RAW = 0
ZSTD = 1
DELTA = 2

LEVEL = 1
_WORTH_IT = 0.97
"""A chunk that compresses to more than this share of itself is kept raw: reading it back is cheaper."""
_SAMPLES = 4
_SAMPLE_SIZE = 4096


class _PerThread(threading.local):
    """zstd contexts must not be shared between threads, and are costly to make per chunk."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor = zstandard.ZstdDecompressor()
        self.last_was_raw = False

    def compressor(self, level: int) -> zstandard.ZstdCompressor:
        made = self.compressors.get(level)
        if made is None:
            made = self.compressors[level] = zstandard.ZstdCompressor(level=level, write_checksum=False)
        return made


_contexts = _PerThread()


def encode(plaintext: memoryview, level: int = LEVEL) -> tuple[int, bytes]:
    """Give codec number and payload; the payload owns its bytes.

    Data that does not compress comes in stretches (media, archives, guests that encrypt): after a chunk
    that did not, this thread tries a sample of the next one first. Data that compresses costs no trial.
    """
    if not (_contexts.last_was_raw and _sample_is_raw(plaintext)):
        compressed = _contexts.compressor(level).compress(plaintext)
        if len(compressed) < len(plaintext) * _WORTH_IT:
            _contexts.last_was_raw = False
            return ZSTD, compressed
    _contexts.last_was_raw = True
    return RAW, bytes(plaintext)


def decode(codec: int, payload: bytes, size_max: int, base: Buffer | None = None) -> Buffer:
    """Give the plaintext, of at most ``size_max`` bytes; a delta needs its base.

    Raises:
        ValueError: the codec is unknown or the payload is not of it.
    """
    if codec == RAW:
        if len(payload) > size_max:
            raise ValueError(f"{len(payload)} bytes where at most {size_max} may be")
        return payload
    if codec == DELTA and base is not None:
        return delta.decode(payload, base)
    if codec != ZSTD:
        raise ValueError(f"unknown codec {codec}")
    try:
        declared = zstandard.frame_content_size(payload)
        if not 0 <= declared <= size_max:
            raise ValueError(f"{declared} bytes declared where at most {size_max} may be")
        return _contexts.decompressor.decompress(payload)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _sample_is_raw(plaintext: memoryview) -> bool:
    step = len(plaintext) // _SAMPLES
    if step <= _SAMPLE_SIZE:
        return False
    sample = b"".join(plaintext[at : at + _SAMPLE_SIZE] for at in range(0, _SAMPLES * step, step))
    return len(_contexts.compressor(LEVEL).compress(sample)) >= len(sample) * _WORTH_IT
