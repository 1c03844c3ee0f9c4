"""Inodes of ext2/3/4, as far as finding the journal and swap files needs them.

Layout: "Ext4 Disk Layout" of the kernel's documentation, section on index nodes.
"""

import stat
from dataclasses import dataclass
from typing import Self

from hotspare.guest.unused.ext.checksum import crc32c_of
from hotspare.guest.unused.ext.superblock import RoCompat, Superblock

EXTENTS = 0x80000
"""Flag: the map is an extent tree, not block pointers."""
_USUAL = (
    0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80  # what chattr sets: secure deletion to no access times
    | 0x1000 | 0x8000 | 0x10000 | 0x20000 | 0x40000  # hashed folder, no tail, dirsync, top folder, huge file
    | EXTENTS | 0x400000 | 0x800000 | 0x2000000  # blocks after the end, no copy on write, DAX
    | 0x20000000 | 0x40000000  # project inheritance, case folding
)  # fmt: skip
"""Flags with which the content lies where the map says, as it is. Not so: compression, encryption, inline
data, verity, journalled data."""


class Odd(Exception):
    """A file is not of the usual kind, or makes no sense; the reason is for people."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Inode:
    """One file of the usual kind."""

    number: int
    mode: int
    size: int
    has_extents: bool
    map: bytes
    """Its 15 block pointers, or the root of its extent tree."""
    seed: int
    """What the checksums of its extent blocks start from."""

    @classmethod
    def parse(cls, raw: bytes, number: int, superblock: Superblock) -> Self:
        """Read the bytes of an inode, as many as the superblock says.

        Raises:
            Odd: it is deleted or damaged, or its content is not simply where its map says.
        """
        mode, links = _u16(raw, 0), _u16(raw, 0x1A)
        flags = _u32(raw, 0x20)
        seed = crc32c_of(number.to_bytes(4, "little") + raw[0x64:0x68], superblock.checksum_seed)
        if superblock.ro_compat & RoCompat.METADATA_CSUM and not _is_sound(raw, seed):
            raise Odd("the checksum of its inode is wrong")
        if not links or not mode:
            raise Odd("it is deleted")
        if flags & ~_USUAL:
            raise Odd(f"it is of an unusual kind (flags {flags & ~_USUAL:#x})")
        size = _u32(raw, 0x4)
        if stat.S_ISREG(mode):
            size |= _u32(raw, 0x6C) << 32
        return cls(number, mode, size, bool(flags & EXTENTS), raw[0x28:0x64], seed)

    @property
    def is_file(self) -> bool:
        """A regular file, not a folder or a device."""
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        """A directory."""
        return stat.S_ISDIR(self.mode)


def _is_sound(raw: bytes, seed: int) -> bool:
    """Compare the checksum, whose upper half is there only in an inode with enough further fields."""
    cleared = bytearray(raw)
    cleared[0x7C:0x7E] = b"\0\0"
    wide = len(raw) > 128 and _u16(raw, 0x80) >= 4
    if wide:
        cleared[0x82:0x84] = b"\0\0"
    found = crc32c_of(bytes(cleared), seed)
    if wide and found >> 16 != _u16(raw, 0x82):
        return False
    return found & 0xFFFF == _u16(raw, 0x7C)


def _u16(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 2], "little")


def _u32(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "little")
