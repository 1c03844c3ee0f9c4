"""Where the content of a file lies: extent trees of ext4, block pointers of ext2 and ext3.

Layout: "Ext4 Disk Layout" of the kernel's documentation, section on the contents of ``i_block``. Both kinds
of trees are read level by level, all nodes of one at once; their depth is bounded, and so is what their nodes
take.
"""

import numpy as np
from numpy.typing import NDArray

from hotspare.block.device import BlockReader
from hotspare.guest.unused.ext.checksum import crc32c
from hotspare.guest.unused.ext.groups import Numbers, read_blocks
from hotspare.guest.unused.ext.inode import Inode, Odd
from hotspare.guest.unused.ext.superblock import RoCompat, Superblock
from hotspare.units import MIB

_NODES_MAX = 64 * MIB
"""Bytes of nodes that one file may have."""
_MAGIC = 0xF30A
_DEPTH_MAX = 5
_ENTRY = 12
_UNWRITTEN_FROM = 0x8000
"""Longer extents are allocated and not written yet; their length is what exceeds this."""
_DIRECT = 12
"""Pointers in an inode that lead to content; three more lead to blocks of pointers."""


def runs_of(volume: BlockReader, superblock: Superblock, inode: Inode) -> Numbers:
    """Find where a file's blocks lie.

    Returns:
        An array of shape (n, 3): number of a run's first block in the file, in the file system, and how many;
        in the order of the file, holes left out, runs that are allocated but not written included.

    Raises:
        Odd: the tree is damaged, too large or makes no sense.
        SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
    """
    find = _by_extents if inode.has_extents else _by_pointers
    runs = find(volume, superblock, inode)
    if len(runs):
        _check_inside(superblock, runs[:, 1], runs[:, 2])
        if (runs[:, 2] <= 0).any() or (runs[1:, 0] < runs[:-1, 0] + runs[:-1, 2]).any():
            raise Odd("its extents contradict each other")
    return runs


def _by_extents(volume: BlockReader, superblock: Superblock, inode: Inode) -> Numbers:
    nodes = np.frombuffer(inode.map, dtype=np.uint8).reshape(1, -1)
    depth = int.from_bytes(inode.map[6:8], "little")
    if depth > _DEPTH_MAX:
        raise Odd("its extent tree is too deep")
    room = _NODES_MAX // superblock.block_size
    while True:
        entries = _entries(nodes, depth)
        if not depth:
            return _leaves(entries)
        children = entries[:, 1].astype(np.int64) | (entries[:, 2] & 0xFFFF).astype(np.int64) << 32
        room -= len(children)
        if room < 0:
            raise Odd("it is in too many pieces")
        _check_inside(superblock, children)
        nodes = read_blocks(volume, children, superblock.block_size)
        if superblock.ro_compat & RoCompat.METADATA_CSUM:
            _check_sums(nodes, inode)
        depth -= 1


def _entries(nodes: NDArray[np.uint8], depth: int) -> NDArray[np.uint32]:
    """Give the entries of all nodes of one level, in order, three numbers each."""
    headers = nodes[:, :8].copy().view("<u2")
    magic, used, room, depths = headers.T
    most = (nodes.shape[1] - _ENTRY) // _ENTRY
    if (magic != _MAGIC).any() or (used > room).any() or (room > most).any() or (depths != depth).any():
        raise Odd("its extent tree is damaged")
    entries = nodes[:, _ENTRY : _ENTRY + most * _ENTRY].copy().view("<u4").reshape(len(nodes), most, 3)
    found: NDArray[np.uint32] = entries[np.arange(most) < used[:, None]]
    return found


def _leaves(entries: NDArray[np.uint32]) -> Numbers:
    numbers = entries.astype(np.int64)
    lengths = numbers[:, 1] & 0xFFFF
    lengths = np.where(lengths > _UNWRITTEN_FROM, lengths - _UNWRITTEN_FROM, lengths)
    return np.column_stack((numbers[:, 0], numbers[:, 2] | numbers[:, 1] >> 16 << 32, lengths))


def _check_sums(nodes: NDArray[np.uint8], inode: Inode) -> None:
    """Compare the checksum after the last entry that a node has room for."""
    rooms = nodes[:, 4].astype(np.int64) | nodes[:, 5].astype(np.int64) << 8
    if not len(rooms):
        return
    at = _ENTRY + _ENTRY * int(rooms[0])
    if (rooms != rooms[0]).any() or at + 4 > nodes.shape[1]:
        raise Odd("its extent tree is damaged")
    stored = nodes[:, at : at + 4].copy().view("<u4").reshape(-1)
    if not np.array_equal(crc32c(nodes[:, :at], inode.seed), stored):
        raise Odd("the checksum of its extent tree is wrong")


def _by_pointers(volume: BlockReader, superblock: Superblock, inode: Inode) -> Numbers:
    """Follow the pointers to as many blocks as the file's size asks for."""
    wanted = -(-inode.size // superblock.block_size)
    each = superblock.block_size // 4
    if wanted > superblock.blocks:
        raise Odd("it is larger than its file system")
    if wanted * 4 > _NODES_MAX:
        raise Odd("it is in too many pieces")
    roots = np.frombuffer(inode.map, dtype="<u4").astype(np.int64)
    parts = [roots[:_DIRECT][:wanted]]
    wanted -= len(parts[0])
    for levels, root in enumerate(roots[_DIRECT:], start=1):
        if not wanted:
            break
        below = min(wanted, each**levels)
        pointers = np.array([root], dtype=np.int64)
        for level in range(levels - 1, -1, -1):
            if not pointers.all():
                raise Odd("it has holes")
            _check_inside(superblock, pointers)
            nodes = read_blocks(volume, pointers, superblock.block_size)
            pointers = nodes.view("<u4").reshape(-1)[: -(-below // each**level)].astype(np.int64)
        parts.append(pointers)
        wanted -= below
    return _joined(np.concatenate(parts))


def _joined(blocks: Numbers) -> Numbers:
    """Make runs of block numbers, one for each block of a file; 0 is a hole."""
    places = np.flatnonzero(blocks)
    blocks = blocks[places]
    starts = (
        np.flatnonzero(np.append(True, (np.diff(blocks) != 1) | (np.diff(places) != 1)))
        if len(blocks)
        else places
    )
    lengths = np.diff(np.append(starts, len(blocks)))
    return np.column_stack((places[starts], blocks[starts], lengths)).astype(np.int64)


def _check_inside(superblock: Superblock, starts: Numbers, lengths: Numbers | int = 1) -> None:
    if (starts <= superblock.first_block).any() or (starts + lengths > superblock.blocks).any():
        raise Odd("it points beyond the end of the file system")
