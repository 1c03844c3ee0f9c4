"""The superblock of ext2/3/4: its features, its geometry, and whether what it describes stands still.

Layout: "Ext4 Disk Layout" of the kernel's documentation (filesystems/ext4). The primary superblock has 1024
bytes at offset 1024; all numbers are little-endian.
"""

from dataclasses import dataclass
from enum import IntFlag
from typing import Self

from hotspare.guest.unused.ext.checksum import crc32c_of
from hotspare.guest.unused.unused import KeepAll, Quiet
from hotspare.units import KIB

OFFSET = 1024
SIZE = 1024
GROUPS_MAX = 1 << 21
"""256 TiB of groups of the usual size; bounds the memory that a superblock can make us take."""
SEED = 0xFFFFFFFF
"""What every checksum starts from."""


class Compat(IntFlag):
    """Features that a kernel may ignore. Names are those of ``mke2fs -O``; only what was proven is here."""

    HAS_JOURNAL = 0x4
    EXT_ATTR = 0x8
    RESIZE_INODE = 0x10
    DIR_INDEX = 0x20
    SPARSE_SUPER2 = 0x200
    FAST_COMMIT = 0x400
    STABLE_INODES = 0x800
    ORPHAN_FILE = 0x1000


class Incompat(IntFlag):
    """Features that a kernel must know to read."""

    FILETYPE = 0x2
    NEEDS_RECOVERY = 0x4
    JOURNAL_DEV = 0x8
    META_BG = 0x10
    EXTENT = 0x40
    BITS_64 = 0x80
    MMP = 0x100
    FLEX_BG = 0x200
    EA_INODE = 0x400
    METADATA_CSUM_SEED = 0x2000
    LARGE_DIR = 0x4000
    INLINE_DATA = 0x8000
    ENCRYPT = 0x10000
    CASEFOLD = 0x20000


class RoCompat(IntFlag):
    """Features that a kernel must know to write. Not: ``has_snapshot``, ``shared_blocks``."""

    SPARSE_SUPER = 0x1
    LARGE_FILE = 0x2
    HUGE_FILE = 0x8
    UNINIT_BG = 0x10
    DIR_NLINK = 0x20
    EXTRA_ISIZE = 0x40
    QUOTA = 0x100
    BIGALLOC = 0x200
    METADATA_CSUM = 0x400
    READ_ONLY = 0x1000
    PROJECT = 0x2000
    VERITY = 0x8000
    ORPHAN_PRESENT = 0x10000


_ALL_COMPAT, _ALL_INCOMPAT, _ALL_RO_COMPAT = sum(Compat), sum(Incompat), sum(RoCompat)
_EXT4_INCOMPAT = _ALL_INCOMPAT & ~(Incompat.FILETYPE | Incompat.NEEDS_RECOVERY | Incompat.META_BG)
_EXT4_RO_COMPAT = _ALL_RO_COMPAT & ~(RoCompat.SPARSE_SUPER | RoCompat.LARGE_FILE)
_VALID, _ERROR = 0x1, 0x2
"""Of the state: unmounted cleanly, or kept right by a journal; the kernel has met errors."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a map needs to know of a superblock. All numbers are checked against each other and the volume."""

    compat: Compat
    incompat: Incompat
    ro_compat: RoCompat
    block_size: int
    blocks: int
    first_block: int
    """Where group 0 starts: 1 with blocks of 1 KiB, as block 0 then holds the boot sector alone."""
    ratio: int
    """Blocks of a cluster, which is what a bit of a block bitmap stands for; 1 without ``bigalloc``."""
    clusters_per_group: int
    free_blocks: int
    inodes_per_group: int
    inode_size: int
    descriptor_size: int
    reserved_descriptor_blocks: int
    first_meta_group: int
    backup_groups: tuple[int, int]
    journal_inode: int
    mmp_block: int
    uuid: bytes
    checksum_seed: int
    state: int
    errors: int

    @classmethod
    def parse(cls, raw: bytes, volume_size: int) -> Self:
        """Read and check the 1024 bytes of a superblock.

        Raises:
            KeepAll: it is none, is damaged, has features that are not known here, or makes no sense.
        """
        if len(raw) != SIZE or _u16(raw, 0x38) != 0xEF53:
            raise KeepAll("it has no ext superblock")
        compat, incompat, ro_compat = _u32(raw, 0x5C), _u32(raw, 0x60), _u32(raw, 0x64)
        revision = _u32(raw, 0x4C)
        _check_features(revision, compat, incompat, ro_compat)
        if ro_compat & RoCompat.METADATA_CSUM and (
            raw[0x175] != 1 or crc32c_of(raw[:0x3FC], SEED) != _u32(raw, 0x3FC)
        ):
            raise KeepAll("the checksum of its superblock is wrong")
        wide = bool(incompat & Incompat.BITS_64)
        big = bool(ro_compat & RoCompat.BIGALLOC)
        seeded = bool(incompat & Incompat.METADATA_CSUM_SEED)
        if _u32(raw, 0x18) > 6 or (big and not 0 <= _u32(raw, 0x1C) - _u32(raw, 0x18) <= 16):
            raise _senseless("block size")
        found = cls(
            compat=Compat(compat),
            incompat=Incompat(incompat),
            ro_compat=RoCompat(ro_compat),
            block_size=KIB << _u32(raw, 0x18),
            blocks=_u32(raw, 0x4) | (_u32(raw, 0x150) << 32 if wide else 0),
            first_block=_u32(raw, 0x14),
            ratio=1 << (_u32(raw, 0x1C) - _u32(raw, 0x18)) if big else 1,
            clusters_per_group=_u32(raw, 0x24 if big else 0x20),
            free_blocks=_u32(raw, 0xC) | (_u32(raw, 0x158) << 32 if wide else 0),
            inodes_per_group=_u32(raw, 0x28),
            inode_size=_u16(raw, 0x58) if revision else 128,
            descriptor_size=_u16(raw, 0xFE) if wide else 32,
            reserved_descriptor_blocks=_u16(raw, 0xCE),
            first_meta_group=_u32(raw, 0x104) if incompat & Incompat.META_BG else 0,
            backup_groups=(_u32(raw, 0x24C), _u32(raw, 0x250)),
            journal_inode=_u32(raw, 0xE0),
            mmp_block=_u64(raw, 0x168),
            uuid=raw[0x68:0x78],
            checksum_seed=_u32(raw, 0x270) if seeded else crc32c_of(raw[0x68:0x78], SEED),
            state=_u16(raw, 0x3A),
            errors=_u32(raw, 0x194) if revision else 0,
        )
        found._check_geometry(volume_size)
        if _u32(raw, 0x20) != found.blocks_per_group or _u32(raw, 0x0) != found.inodes:
            raise _senseless("number of blocks or inodes in a group")
        return found

    @property
    def kind(self) -> str:
        """``ext2``, ``ext3`` or ``ext4``: the oldest that knows its features."""
        if self.incompat & _EXT4_INCOMPAT or self.ro_compat & _EXT4_RO_COMPAT:
            return "ext4"
        return "ext3" if self.compat & Compat.HAS_JOURNAL else "ext2"

    @property
    def size(self) -> int:
        """Bytes that the file system manages."""
        return self.blocks * self.block_size

    @property
    def blocks_per_group(self) -> int:
        """Blocks of each group but the last."""
        return self.clusters_per_group * self.ratio

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return -(-(self.blocks - self.first_block) // self.blocks_per_group)

    @property
    def clusters(self) -> int:
        """Clusters in all groups together."""
        return -(-(self.blocks - self.first_block) // self.ratio)

    @property
    def inodes(self) -> int:
        """Inodes in all groups together; the first has number 1."""
        return self.inodes_per_group * self.groups

    @property
    def inode_table_blocks(self) -> int:
        """Blocks of the inode table of each group."""
        return -(-self.inodes_per_group * self.inode_size // self.block_size)

    @property
    def descriptors_per_block(self) -> int:
        """Group descriptors in a block."""
        return self.block_size // self.descriptor_size

    @property
    def descriptor_blocks(self) -> int:
        """Blocks of group descriptors."""
        return -(-self.groups // self.descriptors_per_block)

    def check_quiet(self, quiet: Quiet) -> None:
        """Refuse a file system whose bitmaps may be older than its data.

        A mount for writing sets ``needs_recovery`` where there is a journal, and takes the mark of validity
        away where there is none, before it writes anything else. An unmount and a freeze empty the journal
        and take ``needs_recovery`` back. The freeze of a file system without a journal leaves no mark (by the
        ext4 driver), so that is as good as missed.

        Inodes that are deleted but still open (the orphan list) are no reason: all they own is marked as in
        use, and the next mount reads nothing else to give it back.

        Raises:
            KeepAll: it is in use, was in use at a crash, or has errors.
        """
        if self.incompat & Incompat.NEEDS_RECOVERY:
            if quiet is Quiet.FROZEN:
                raise KeepAll("it is mounted, and was missed by the freeze")
            raise KeepAll("its journal was not replayed: it was not unmounted cleanly")
        if self.state & _ERROR or self.errors:
            raise KeepAll("the kernel has found errors in it, and it was not checked since")
        if self.state != _VALID:
            if self.compat & Compat.HAS_JOURNAL or self.state & ~_VALID:
                raise KeepAll("it is marked as not clean, and has to be checked")
            if quiet is Quiet.FROZEN:
                raise KeepAll("it is mounted without a journal, and nothing shows that it was frozen")
            raise KeepAll("it has no journal, and was not unmounted cleanly")

    def _check_geometry(self, volume_size: int) -> None:
        bits = 8 * self.block_size
        with_boot_block = (
            self.block_size == KIB and self.ratio == 1 and not self.ro_compat & RoCompat.BIGALLOC
        )
        if self.first_block != int(with_boot_block):
            raise _senseless("first block")
        if not 256 <= self.clusters_per_group <= bits or self.clusters_per_group % 8:
            raise _senseless("number of blocks in a group")
        if self.size > volume_size:
            raise KeepAll("it is larger than its volume")
        if self.blocks <= self.first_block or self.free_blocks > self.blocks + self.ratio:
            raise _senseless("number of blocks")
        if self.groups > GROUPS_MAX:
            raise KeepAll("it has more groups than can be looked at here")
        if self.descriptor_size != (64 if self.incompat & Incompat.BITS_64 else 32):
            raise _senseless("size of its group descriptors")
        if self.inode_size & (self.inode_size - 1) or not 128 <= self.inode_size <= self.block_size:
            raise _senseless("inode size")
        if not 0 < self.inodes_per_group <= bits:
            raise _senseless("number of inodes in a group")
        reserved = self.incompat & Incompat.META_BG and self.reserved_descriptor_blocks
        if self.first_meta_group > self.descriptor_blocks or reserved:
            raise _senseless("place of its group descriptors")


def _check_features(revision: int, compat: int, incompat: int, ro_compat: int) -> None:
    if incompat & Incompat.JOURNAL_DEV:
        raise KeepAll("it is the journal of another file system")
    unknown = [
        f"{name} {bits:#x}"
        for name, bits in (
            ("compat", compat & ~_ALL_COMPAT),
            ("incompat", incompat & ~_ALL_INCOMPAT),
            ("ro_compat", ro_compat & ~_ALL_RO_COMPAT),
        )
        if bits
    ]
    if unknown:
        raise KeepAll(f"it has features that are not known here ({', '.join(unknown)})")
    if revision > 1 or (revision == 0 and compat | incompat | ro_compat):
        raise KeepAll(f"its revision {revision} is not known here")
    if incompat & Incompat.META_BG and compat & Compat.RESIZE_INODE:
        raise KeepAll("it has two features that exclude each other (meta_bg, resize_inode)")
    if ro_compat & RoCompat.UNINIT_BG and ro_compat & RoCompat.METADATA_CSUM:
        raise KeepAll("it has two features that exclude each other (uninit_bg, metadata_csum)")


def _senseless(what: str) -> KeepAll:
    return KeepAll(f"its superblock makes no sense: {what}")


def _u16(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 2], "little")


def _u32(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "little")


def _u64(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 8], "little")
