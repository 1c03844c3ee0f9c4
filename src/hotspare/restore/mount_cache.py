"""Blocks of files that are mounted: kept for a while, and fetched ahead of who reads on and on."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from hotspare.units import KIB, MIB

BLOCK = 512 * KIB
_AHEAD = 4
"""Blocks."""
_THREADS = 4
_BYTES_MAX = 64 * MIB

_Key = tuple[Hashable, int]


class ReadableFile(Protocol):
    """What the cache reads; from several threads."""

    size: int

    @property
    def key(self) -> Hashable:
        """The same for the same content."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from ``offset``: fewer than ``length`` only where the file ends before."""
        ...


class FileCache:
    """Reads files by blocks. Thread-safe.

    Args:
        bytes_max: how much is kept.
    """

    def __init__(self, bytes_max: int = _BYTES_MAX) -> None:
        self._room = max(_AHEAD + 2, bytes_max // BLOCK)
        self._lock = threading.Lock()
        self._blocks: OrderedDict[_Key, Future[bytes]] = OrderedDict()
        self._next: OrderedDict[Hashable, int] = OrderedDict()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="mount-read")

    def read(self, file: ReadableFile, offset: int, length: int) -> bytes:
        """Give bytes of a file; what its ``read`` raises comes through."""
        end = min(offset + length, file.size)
        if offset < 0 or offset >= end:
            return b""
        first, last = offset // BLOCK, (end - 1) // BLOCK
        wanted = range(first, last + 1)
        ahead = range(last + 1, min(last + 1 + _AHEAD, -(-file.size // BLOCK)))
        with self._lock:
            goes_on = self._next.get(file.key) in {first, first + 1} or offset == 0
            self._note(file.key, last)
            pending = [self._fetched(file, number) for number in wanted]
            for number in ahead if goes_on else ():
                self._fetched(file, number)
        content = b"".join(each.result() for each in pending)
        return content[offset - first * BLOCK : end - first * BLOCK]

    def close(self) -> None:
        """Stop fetching."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _note(self, key: Hashable, last: int) -> None:
        self._next[key] = last
        self._next.move_to_end(key)
        if len(self._next) > self._room:
            self._next.popitem(last=False)

    def _fetched(self, file: ReadableFile, number: int) -> Future[bytes]:
        key = (file.key, number)
        found = self._blocks.get(key)
        if found is None or (found.done() and (found.cancelled() or found.exception() is not None)):
            # What failed is tried again: a store may have come back.
            found = self._threads.submit(file.read, number * BLOCK, BLOCK)
            self._blocks[key] = found
        self._blocks.move_to_end(key)
        while len(self._blocks) > self._room:
            self._blocks.popitem(last=False)
        return found
