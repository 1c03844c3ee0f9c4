"""Whether QEMU uses a file, by the locks that it holds on each image it has open.

QEMU marks what it does, and what it does not share with others, by locks on single bytes; see its
block/file-posix.c: the bytes at 100 and at 200 plus the number of the permission, which is 1 for writing.
"""

import fcntl
import os
import struct
from pathlib import Path

_WRITES = 101
_DOES_NOT_SHARE_WRITING = 201
_FLOCK = struct.Struct("hhqqi4x")
"""type, whence, start, length, pid; see fcntl(2)."""


def is_used_by_qemu(path: Path) -> bool:
    """Tell whether a running machine, or a server of QEMU, writes to it or would mind that others do.

    Raises:
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return any(_is_locked(descriptor, byte) for byte in (_WRITES, _DOES_NOT_SHARE_WRITING))
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, byte: int) -> bool:
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
