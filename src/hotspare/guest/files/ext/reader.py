"""ext2, ext3 and ext4 as a file system of the contract."""

from collections.abc import Iterator

from hotspare.errors import FileSystemUnreadable
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.ext.attributes import Attributes
from hotspare.guest.files.ext.folder import parse_names
from hotspare.guest.files.ext.inode import (
    EA_INODE,
    ENCRYPTED,
    EXTENTS,
    INLINE_DATA,
    VERITY,
    Inode,
    parse_inode,
)
from hotspare.guest.files.ext.mapping import map_content
from hotspare.guest.files.ext.superblock import ROOT, Incompatible, InodeTable, read_superblock
from hotspare.guest.files.file_system import FileContent, FileEntry
from hotspare.guest.files.nodes import ENTRIES_MAX, NodeFileSystem, damaged
from hotspare.guest.files.runs import BytesContent, RunContent
from hotspare.units import MIB

_FOLDER_MAX = 512 * MIB
_MAP_BYTES = 60
"""Of an inode: the map of its content, or the begin of the content itself."""
_LINK_MAX = 4096
_BLOCKS_MAX = 1 << 32
"""Of one file, by the width of a block's number in an extent."""


class ExtFileSystem(NodeFileSystem[int]):
    """Reads ext2/3/4. Nodes are numbers of inodes.

    Raises:
        NeedsAppliance: it has features that are not known to be read right, or its journal is not empty.
        FileSystemUnreadable: its superblock makes no sense.
    """

    def __init__(self, reader: CachedReader) -> None:
        self._reader = reader
        self._superblock = read_superblock(reader)
        super().__init__(self._superblock.size)
        self.kind = self._superblock.kind
        if self._superblock.size > reader.size:
            raise damaged(self.kind, "it is larger than its volume")
        self._inodes = InodeTable(reader, self._superblock)
        self._with_type = bool(self._superblock.incompatible & Incompatible.FILETYPE)
        self._large_folders = bool(self._superblock.incompatible & Incompatible.LARGEDIR)

    def root(self) -> int:
        """Give the inode of ``/``."""
        return ROOT

    def children(self, folder: int) -> Iterator[tuple[str, int]]:
        """Yield names and inodes of a folder."""
        inode = self._inode(folder)
        if inode.flags & ENCRYPTED:
            raise _encrypted(f"folder of inode {folder}")
        found = 0
        failure: FileSystemUnreadable | None = None
        for block, start in self._folder_blocks(inode):
            try:
                for name, number in parse_names(block, with_type=self._with_type, start=start):
                    found += 1
                    yield name, number
            except ValueError as error:
                failure = failure or damaged(self.kind, f"the folder of inode {folder} has {error}")
            if found > ENTRIES_MAX:
                raise damaged(self.kind, f"the folder of inode {folder} has too many names")
        if failure is not None:
            raise failure

    def describe(self, path: str, node: int) -> FileEntry:
        """Describe an inode."""
        inode = self._inode(node)
        kind = inode.kind
        if kind is None or not inode.links or inode.flags & EA_INODE:
            raise damaged(self.kind, f"{path} leads to inode {node}, which is not in use")
        if kind == "file" and inode.size > _BLOCKS_MAX * self._superblock.block_size:
            raise damaged(self.kind, f"{path} has an impossible size")
        target = self._target(path, inode) if kind == "link" else ""
        return FileEntry(
            path=path,
            kind=kind,
            size=inode.size if kind in {"file", "link"} else 0,
            modified=inode.modified,
            mode=inode.mode,
            uid=inode.uid,
            gid=inode.gid,
            inode=node,
            links=inode.links,
            target=target,
            device=inode.device if kind in {"block-device", "character-device"} else None,
        )

    def content(self, entry: FileEntry, node: int, stream: str) -> FileContent:  # noqa: ARG002 - it has no streams
        """Open a file."""
        inode = self._inode(node)
        if inode.flags & ENCRYPTED:
            raise _encrypted(entry.path)
        if inode.flags & VERITY:
            raise damaged(
                self.kind, f"{entry.path} is sealed (fs-verity), and the file system cannot do that"
            )
        return self._content(inode)

    def attributes_of(self, node: int) -> dict[str, bytes]:
        """Give extended attributes."""
        return self._attributes(self._inode(node)).all()

    def _inode(self, number: int) -> Inode:
        return parse_inode(number, self._inodes.raw(number), large_folders=self._large_folders)

    def _content(self, inode: Inode) -> FileContent:
        if inode.flags & INLINE_DATA:
            return BytesContent(self._inline_data(inode))
        return RunContent(self._reader, inode.size, map_content(self._reader, self._superblock, inode))

    def _folder_blocks(self, inode: Inode) -> Iterator[tuple[bytes, int]]:
        """Yield the blocks of a folder, with the place of the first entry in each."""
        if inode.flags & INLINE_DATA:
            data = self._inline_data(inode)
            # The parent's number stands for the entries of . and .., and the rest goes on in the attributes.
            yield data[4:_MAP_BYTES], 0
            yield data[_MAP_BYTES:], 0
            return
        size = self._superblock.block_size
        runs = map_content(self._reader, self._superblock, inode)
        length = sum(run.length for run in runs)
        if length > _FOLDER_MAX:
            raise damaged(self.kind, f"the folder of inode {inode.number} is larger than can be")
        self.account(inode.number, length)
        for run in runs:
            for at in range(run.offset, min(run.offset + run.length, inode.size), size):
                block = self._reader.read(run.place + at - run.offset, size)
                if len(block) < size:
                    raise damaged(self.kind, f"the folder of inode {inode.number} goes beyond the volume")
                yield block, 0

    def _inline_data(self, inode: Inode) -> bytes:
        data = inode.block[:_MAP_BYTES]
        if inode.size > _MAP_BYTES:
            data += self._attributes(inode).inline_data()
        if len(data) < inode.size:
            raise damaged(self.kind, f"the content of inode {inode.number} is cut off")
        return data[: inode.size]

    def _target(self, path: str, inode: Inode) -> str:
        if inode.flags & ENCRYPTED:
            raise _encrypted(path)
        if not 0 < inode.size <= _LINK_MAX:
            raise damaged(self.kind, f"the link {path} has an impossible length")
        fast = inode.size < _MAP_BYTES and not inode.flags & (EXTENTS | INLINE_DATA)
        if fast and inode.sectors == self._attribute_sectors(inode):
            target = inode.block[: inode.size]
        else:
            target = self._content(inode).read(0, inode.size)
        return target.partition(b"\0")[0].decode(errors="surrogateescape")

    def _attribute_sectors(self, inode: Inode) -> int:
        return self._superblock.cluster_size // 512 if inode.attribute_block else 0

    def _attributes(self, inode: Inode) -> Attributes:
        block = b""
        if inode.attribute_block:
            size = self._superblock.block_size
            if not self._superblock.first_data_block < inode.attribute_block < self._superblock.blocks:
                raise damaged(self.kind, f"the attributes of inode {inode.number} are outside of it")
            block = self._reader.read(inode.attribute_block * size, size)
            if len(block) < size:
                raise damaged(self.kind, f"the attributes of inode {inode.number} are beyond the volume")
        return Attributes(self.kind, inode.extra, block, self._attribute_value)

    def _attribute_value(self, number: int, size: int) -> bytes:
        inode = self._inode(number)
        if not inode.flags & EA_INODE or inode.size != size:
            raise damaged(self.kind, f"an extended attribute leads to inode {number}, which is none")
        return self._content(inode).read(0, size)


def _encrypted(what: str) -> FileSystemUnreadable:
    return FileSystemUnreadable(
        f"The {what} is encrypted (fscrypt), and its key is not on the disk",
        meaning="It is in the restore point, but can be read only in the running machine",
        hint="Restore the machine or its disk",
    )
