"""The few files of an ext2/3/4 file system that its unused-block map looks into.

Layout: "Ext4 Disk Layout" of the kernel's documentation, sections on inodes and directory entries. Folders
are read from their first block to the last: one with a hash tree reads the same way, as its nodes look like
empty entries.
"""

from collections.abc import Iterator

from hotspare.block.device import BlockReader
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.unused.ext.extents import runs_of
from hotspare.guest.unused.ext.groups import Groups, Numbers
from hotspare.guest.unused.ext.inode import Inode, Odd
from hotspare.guest.unused.ext.superblock import Incompat, Superblock
from hotspare.units import MIB

_ROOT = 2
_FOLDER_MAX = 4 * MIB
_PATH_MAX = 32
"""Components of a path."""


class Files:
    """Finds and reads small files. Whatever is not usual raises ``Odd``."""

    def __init__(self, volume: BlockReader, superblock: Superblock, groups: Groups) -> None:
        self._volume = volume
        self._superblock = superblock
        self._groups = groups
        self._cached = CachedReader(volume, bytes_max=8 * MIB)
        self._folders: dict[int, dict[bytes, int]] = {}

    def inode(self, number: int) -> Inode:
        """Read an inode.

        Raises:
            Odd: there is none of that number, or see ``Inode.parse``.
            SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
        """
        if not 1 <= number <= self._superblock.inodes:
            raise Odd("its inode does not exist")
        group, index = divmod(number - 1, self._superblock.inodes_per_group)
        if self._groups.no_inodes[group]:
            raise Odd("its inode was never used")
        table = int(self._groups.inode_tables[group]) * self._superblock.block_size
        raw = self._cached.read(table + index * self._superblock.inode_size, self._superblock.inode_size)
        return Inode.parse(raw, number, self._superblock)

    def find(self, path: str) -> Inode | None:
        """Follow a path from the root, without links; None when there is no such name.

        Raises:
            Odd: a folder of it or the file is not usual.
            SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
        """
        inode = self.inode(_ROOT)
        names = [name for name in path.split("/") if name]
        if len(names) > _PATH_MAX:
            raise Odd("its path is too long")
        for name in names:
            if not inode.is_folder:
                return None
            number = self._entries(inode).get(name.encode("utf-8", "surrogateescape"))
            if number is None:
                return None
            inode = self.inode(number)
        return inode

    def runs(self, inode: Inode) -> Numbers:
        """Find where a file's blocks lie; see ``runs_of``."""
        return runs_of(self._volume, self._superblock, inode)

    def content(self, inode: Inode, length: int) -> bytes:
        """Give the first bytes of a file, fewer than ``length`` where it ends before.

        Raises:
            Odd: they are not all there.
            SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
        """
        wanted = min(length, inode.size)
        size = self._superblock.block_size
        parts: list[bytes] = []
        at = 0
        for first, block, count in self.runs(inode).tolist():
            if at >= wanted:
                break
            if first * size != at:
                raise Odd("it has holes")
            parts.append(self._cached.read(block * size, min(count * size, wanted - at)))
            at += count * size
        found = b"".join(parts)
        if len(found) != wanted:
            raise Odd("it has holes")
        return found

    def _entries(self, folder: Inode) -> dict[bytes, int]:
        """Give the inode of each name in a folder."""
        if folder.number not in self._folders:
            if folder.size > _FOLDER_MAX:
                raise Odd("its folder is too large")
            found = self.content(folder, _FOLDER_MAX)
            size = self._superblock.block_size
            wide = not self._superblock.incompat & Incompat.FILETYPE
            self._folders[folder.number] = {
                name: number
                for start in range(0, len(found), size)
                for number, name in _names(found[start : start + size], wide=wide)
            }
        return self._folders[folder.number]


def _names(block: bytes, *, wide: bool) -> Iterator[tuple[int, bytes]]:
    """Yield the entries of a block of a folder: inode and name. ``wide``: lengths have two bytes."""
    at = 0
    while at + 8 <= len(block):
        number = int.from_bytes(block[at : at + 4], "little")
        length = int.from_bytes(block[at + 4 : at + 6], "little")
        if length in {0, 0xFFFF} and len(block) == 0x10000:
            length = 0x10000
        name_length = int.from_bytes(block[at + 6 : at + 8], "little") if wide else block[at + 6]
        if length < 8 + name_length or length % 4 or at + length > len(block):
            raise Odd("its folder is damaged")
        if number and name_length:
            yield number, block[at + 8 : at + 8 + name_length]
        at += length
