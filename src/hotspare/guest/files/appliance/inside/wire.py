"""What both sides of the port agree on.

Both directions carry frames. A request is a length (4 bytes, big-endian) and so many bytes: fields, each with
its own length before it; the first names the question. An answer is a head (``ANSWER``): an error number or
0, a length, and where the so many bytes are: right behind, or at the start of the *window*, a disk that both
sides share, because a serial port is slow. The answer to a question that failed is a text, to ``read`` the
bytes, to ``entry`` and ``list`` records (``RECORD``), to all others MessagePack.
"""

import errno
import os
import struct

PORT = "hotspare"
"""Name of the serial port."""
WINDOW = "window"
"""Serial number of the shared disk."""
WINDOW_SIZE = 8 * 1024 * 1024
READ_MAX = 4 * 1024 * 1024
"""Most bytes of one ``read``."""
INLINE_MAX = 4096
"""Longest answer that comes over the port."""
ANSWER = struct.Struct(">iIB")
"""Error number, length, whether the bytes are in the window."""
LENGTH = struct.Struct(">I")


RECORD = struct.Struct(">IIIIQQqQII")
"""Mode, uid, gid, links, inode, size, nanoseconds since 1970, device number, lengths of the path and of the
target, which follow. Where the mode is 0, something could not be read: the uid is the number of the error,
the target its text."""
MORE = struct.Struct(">Q")
"""Before the records of a listing: by what the rest is to be asked for, or 0."""
_TIME_MAX = (1 << 63) - 1


def pack_record(path: bytes, about: os.stat_result, inode: int, target: bytes) -> bytes:
    """Describe what lies at a path."""
    modified = max(-_TIME_MAX, min(about.st_mtime_ns, _TIME_MAX))
    owner, lengths = (about.st_uid, about.st_gid), (len(path), len(target))
    numbers = (about.st_nlink, inode, about.st_size, modified, about.st_rdev)
    return RECORD.pack(about.st_mode, *owner, *numbers, *lengths) + path + target


def pack_failure(path: bytes, error: OSError) -> bytes:
    """Say that something cannot be read."""
    text = (error.strerror or str(error)).encode()
    return RECORD.pack(0, error.errno or errno.EIO, 0, 0, 0, 0, 0, 0, len(path), len(text)) + path + text


def pack_request(fields: list[bytes]) -> bytes:
    """Make a request of its fields."""
    content = b"".join(LENGTH.pack(len(field)) + field for field in fields)
    return LENGTH.pack(len(content)) + content


def unpack_request(content: bytes) -> list[bytes]:
    """Give the fields of a request, without the length before it."""
    fields, at = [], 0
    while at < len(content):
        (length,) = LENGTH.unpack_from(content, at)
        fields.append(content[at + 4 : at + 4 + length])
        at += 4 + length
    return fields


def pack(value: object) -> bytes:
    """Encode None, integers, bytes, text and lists of them."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        return bytes((value,)) if 0 <= value < 128 else struct.pack(*_wide(value))
    if isinstance(value, bytes):
        return b"\xc6" + LENGTH.pack(len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return b"\xdb" + LENGTH.pack(len(text)) + text
    if isinstance(value, list | tuple):
        return b"\xdd" + LENGTH.pack(len(value)) + b"".join(map(pack, value))
    raise TypeError(type(value).__name__)


def _wide(value: int) -> tuple[str, int, int]:
    return (">BQ", 0xCF, value) if value >= 0 else (">Bq", 0xD3, value)
