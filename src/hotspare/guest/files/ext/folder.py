"""Names in folders of ext2/3/4.

A folder with an index holds its index in entries that look unused, so all are read one after the other.
"""

import struct
from collections.abc import Iterator
from os import fsdecode

_HEAD = struct.Struct("<IHBB")


def parse_names(block: bytes, *, with_type: bool, start: int = 0) -> Iterator[tuple[str, int]]:
    """Yield (name, inode) of a block of directory entries.

    Args:
        block: the block.
        with_type: whether the entries say the type of their inode; if not, that byte belongs to the length.
        start: where the first entry is.

    Raises:
        ValueError: it is no such block; what stands before the fault has been given.
    """
    size, at = len(block), start
    while at < size:
        if at + 8 > size:
            raise ValueError("an entry begins at its end")
        inode, step, length, high = _HEAD.unpack_from(block, at)
        if step in {0, 0xFFFF} and size >= 0x10000:
            step = size
        elif size >= 0x10000:
            step = step & 0xFFFC | (step & 3) << 16
        if step < 12 or step & 3 or at + step > size:
            raise ValueError("an entry of impossible length")
        if inode:
            if not with_type:
                length |= high << 8
            name = block[at + 8 : at + 8 + length]
            if length + 8 > step or not length or b"/" in name or b"\0" in name:
                raise ValueError("an impossible name")
            if name not in {b".", b".."}:
                yield fsdecode(name), inode
        at += step
