"""The limit of a backup: compressing, hashing and sealing the bytes on all cores, and nothing else.

    python -m benchmarks.limit backup IMAGE PAYLOADS     zstd level 1, BLAKE3, AES-256-GCM, chunk by chunk
    python -m benchmarks.limit restore PAYLOADS TARGET   AES-256-GCM, unzstd, write

No deduplication, no index, nothing made durable on the way in. ``PAYLOADS`` is a folder in which the first
leaves what the second reads; that is not a part of what is measured, and neither is the start of Python:
each prints the seconds of its work.
"""

import mmap
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blake3
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hotspare.block.file import RawFile
from hotspare.units import KIB, MIB

_CHUNK = 256 * KIB
_STRIPE = 4 * MIB
_ZEROES = bytes(_CHUNK)
_KEY = bytes(range(32))
_WORKERS = os.cpu_count() or 1
_OF_THREAD = threading.local()


def back_up(image: Path, payloads: Path) -> float:
    """Do the work of a backup without keeping its results but in memory; give its seconds."""
    size = image.stat().st_size
    started = time.monotonic()
    with image.open("rb", buffering=0) as file, ThreadPoolExecutor(_WORKERS) as executor:
        stripes = list(
            executor.map(lambda offset: _seal_stripe(file.fileno(), offset), range(0, size, _STRIPE))
        )
    seconds = time.monotonic() - started
    payloads.write_bytes(pickle.dumps((size, stripes)))
    return seconds


def restore(payloads: Path, target: Path) -> float:
    """Open, decompress and write all payloads to a file, durably; give the seconds."""
    size, stripes = pickle.loads(payloads.read_bytes())
    started = time.monotonic()
    with target.open("wb") as file:
        file.truncate(size)
    with RawFile.open(target, read_only=False) as device, ThreadPoolExecutor(_WORKERS) as executor:

        def write(at: int) -> None:
            device.write(at * _STRIPE, _open_stripe(stripes[at], min(_STRIPE, size - at * _STRIPE)))

        for _ in executor.map(write, range(len(stripes))):
            pass
        device.flush()
    return time.monotonic() - started


def _seal_stripe(descriptor: int, offset: int) -> list[tuple[bytes, bytes]]:
    buffer = memoryview(_buffer())[: os.preadv(descriptor, [_buffer()], offset)]
    aead, compressor = AESGCM(_KEY), zstandard.ZstdCompressor(level=1)
    sealed = []
    for start in range(0, len(buffer), _CHUNK):
        chunk = buffer[start : start + _CHUNK]
        if chunk == _ZEROES[: len(chunk)]:
            sealed.append((b"", b""))
            continue
        identity = blake3.blake3(chunk, key=_KEY).digest()
        sealed.append((identity, aead.encrypt(identity[:12], compressor.compress(chunk), None)))
    return sealed


def _open_stripe(sealed: Iterable[tuple[bytes, bytes]], length: int) -> memoryview:
    aead, decompressor = AESGCM(_KEY), zstandard.ZstdDecompressor()
    buffer = memoryview(_buffer())[:length]
    for start, (identity, payload) in zip(range(0, length, _CHUNK), sealed, strict=True):
        chunk = buffer[start : start + _CHUNK]
        opened = decompressor.decompress(aead.decrypt(identity[:12], payload, None)) if payload else _ZEROES
        chunk[:] = opened[: len(chunk)]
    return buffer


def _buffer() -> mmap.mmap:
    """Give this thread's buffer, which lies at a page's start as writing past the page cache demands."""
    if not hasattr(_OF_THREAD, "buffer"):
        _OF_THREAD.buffer = mmap.mmap(-1, _STRIPE)
    buffer: mmap.mmap = _OF_THREAD.buffer
    return buffer


if __name__ == "__main__":
    work = {"backup": back_up, "restore": restore}[sys.argv[1]]
    print(work(Path(sys.argv[2]), Path(sys.argv[3])))
