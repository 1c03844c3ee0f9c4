"""An inode of ext2/3/4."""

import struct
from typing import NamedTuple

from hotspare.guest.files.file_system import KINDS, Kind

_FIXED = struct.Struct("<HHI8xi4xHHII4x60s4xII4xHHHH4x")
"""Its first 128 bytes: mode, uid, size, modification time, gid, links, sectors, flags, the content's map, the
block of attributes, and the high halves of size, sectors, block of attributes, uid and gid."""
_SECOND = 1_000_000_000

ENCRYPTED = 0x800
HUGE_FILE = 0x40000
EXTENTS = 0x80000
VERITY = 0x100000
EA_INODE = 0x200000
INLINE_DATA = 0x10000000


class Inode(NamedTuple):
    """What a reader needs of an inode."""

    number: int
    kind: Kind | None
    """None where its type is none that exists."""
    mode: int
    uid: int
    gid: int
    size: int
    links: int
    modified: int
    flags: int
    sectors: int
    """Units of 512 bytes (or blocks, with the flag ``HUGE_FILE``) that it takes."""
    block: bytes
    """60 bytes: where the content is, or the content itself."""
    attribute_block: int
    extra: bytes
    """What lies between the fixed fields and the end of the inode: extended attributes."""

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor number: of 8 bits each in the first word, or else as Linux encodes larger ones."""
        old, new = struct.unpack_from("<II", self.block)
        if old:
            return old >> 8 & 0xFF, old & 0xFF
        return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00


def parse_inode(number: int, raw: bytes, *, large_folders: bool) -> Inode:
    """Parse an inode's bytes, at least 128."""
    fixed = _FIXED.unpack_from(raw)
    mode, uid, size, modified, gid, links, sectors, flags, block, attribute_block = fixed[:10]
    size_high, sectors_high, attribute_high, uid_high, gid_high = fixed[10:]
    kind = KINDS.get(mode & 0o170000)
    if kind == "file" or large_folders:
        size |= size_high << 32
    nanoseconds = 0
    extra = b""
    if len(raw) > 128:
        (extra_size,) = struct.unpack_from("<H", raw, 128)
        if extra_size >= 12:
            (more,) = struct.unpack_from("<I", raw, 136)
            modified += (more & 3) << 32
            nanoseconds = more >> 2
        extra = raw[128 + extra_size :]
    return Inode(
        number,
        kind,
        mode & 0o7777,
        uid | uid_high << 16,
        gid | gid_high << 16,
        size,
        links,
        modified * _SECOND + nanoseconds,
        flags,
        sectors | sectors_high << 32,
        block,
        attribute_block | attribute_high << 32,
        extra,
    )
