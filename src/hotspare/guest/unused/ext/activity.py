"""Whether an ext2/3/4 file system stands still, by marks outside of its superblock: journal and mount guard.

Layouts: "Ext4 Disk Layout" of the kernel's documentation, sections on the journal (jbd2, big-endian) and on
multiple mount protection.
"""

from hotspare.block.device import BlockReader
from hotspare.guest.unused.ext.checksum import crc32c_of
from hotspare.guest.unused.ext.files import Files
from hotspare.guest.unused.ext.inode import Odd
from hotspare.guest.unused.ext.superblock import Compat, Incompat, RoCompat, Superblock
from hotspare.guest.unused.unused import KeepAll, Quiet
from hotspare.units import KIB

_JOURNAL_MAGIC = 0xC03B3998
_MOUNT_MAGIC, _MOUNT_CLEAN, _MOUNT_FSCK = 0x004D4D50, 0xFF4D4D50, 0xE24D4D50


def check_journal(files: Files, superblock: Superblock) -> None:
    """Refuse a file system whose journal holds something, though its superblock says that it does not.

    A check (``e2fsck``) would replay such a journal and bring changes that the bitmaps do not show. A journal
    on a device of its own is not looked at.

    Raises:
        KeepAll: the journal is not empty, or cannot be read.
        SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
    """
    if not superblock.compat & Compat.HAS_JOURNAL or not superblock.journal_inode:
        return
    try:
        head = files.content(files.inode(superblock.journal_inode), KIB)
    except Odd as odd:
        raise KeepAll(f"its journal cannot be read: {odd.reason}") from None
    magic, kind, start, error = (int.from_bytes(head[at : at + 4], "big") for at in (0, 4, 0x1C, 0x20))
    if len(head) < KIB or magic != _JOURNAL_MAGIC or kind not in {3, 4}:
        raise KeepAll("its journal makes no sense")
    if start:
        raise KeepAll("its journal is not empty")
    if error:
        raise KeepAll("its journal has noted an error, and it was not checked since")


def check_mount_guard(volume: BlockReader, superblock: Superblock, quiet: Quiet) -> None:
    """Refuse a file system that another machine may have mounted, or is checking (multiple mount protection).

    Frozen, the block says "mounted": by the machine itself, and its frozen state was seen. A machine that is
    off has left it clean, or has crashed.

    Raises:
        KeepAll: somebody is at it.
        SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
    """
    if not superblock.incompat & Incompat.MMP:
        return
    if not superblock.first_block < superblock.mmp_block < superblock.blocks:
        raise KeepAll("its mount guard makes no sense")
    raw = bytearray(KIB)
    volume.read_into(superblock.mmp_block * superblock.block_size, memoryview(raw))
    magic, sequence = (int.from_bytes(raw[at : at + 4], "little") for at in (0, 4))
    summed = superblock.ro_compat & RoCompat.METADATA_CSUM
    if magic != _MOUNT_MAGIC or (
        summed
        and crc32c_of(bytes(raw[:0x3FC]), superblock.checksum_seed) != int.from_bytes(raw[0x3FC:], "little")
    ):
        raise KeepAll("its mount guard makes no sense")
    if sequence == _MOUNT_FSCK:
        raise KeepAll("it is being checked, or a check of it was broken off")
    if sequence != _MOUNT_CLEAN and quiet is Quiet.OFFLINE:
        raise KeepAll("it is marked as mounted, perhaps by another machine")
