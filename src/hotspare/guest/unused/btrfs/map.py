"""Which bytes of a device of a Btrfs file system are free.

Free is what the extent tree of the last committed transaction does not have in use, in all copies of a
chunk that lie on this device, and what no chunk takes. Nothing is free in system chunks, in striped ones
(RAID0, 10, 5, 6), in the first MiB, and in the 64 KiB of each superblock.

A Btrfs file system that was not frozen is read as it would be mounted after a power cut: as of its last
commit, which is consistent in itself, as long as no log tree is to be replayed. What it has written since
is not reachable from there. Blocks that this last commit has freed are free: earlier commits used them,
which the backup roots in the superblock point to. Btrfs gives no promise for these (it overwrites and
discards such blocks from then on, as ``fstrim`` does), and they help only where the current trees are
damaged. A restored disk has the current trees whole.

``partclone.btrfs`` keeps more: it takes the logical addresses of file extents for places on the device, so
that besides the right places it keeps as many bytes where nothing of theirs is; it rounds all to the size
of tree blocks, or to 64 KiB; and it follows subvolumes that are half deleted into what was deleted.
"""

from hotspare.block.device import BlockReader
from hotspare.block.ranges import Ranges
from hotspare.guest.unused.btrfs.chunks import ChunkMap, parse_system_chunks
from hotspare.guest.unused.btrfs.devices import read_allocated, read_chunks, read_roots
from hotspare.guest.unused.btrfs.extents import read_used
from hotspare.guest.unused.btrfs.superblock import SUPERBLOCKS_AT, Superblock, read_superblock
from hotspare.guest.unused.btrfs.tree import TreeReader
from hotspare.guest.unused.unused import Quiet, UnusedBlocks
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.units import KIB, MIB

_RESERVED = 1 * MIB
"""At the start of each device, for boot loaders."""
_SUPERBLOCK_STRIPE = 64 * KIB


def btrfs_unused(volume: BlockReader, quiet: Quiet) -> UnusedBlocks:
    """Find the free bytes of a device of a Btrfs file system; see ``FindUnused``."""
    reader = VolumeBytes(volume)
    superblock = read_superblock(reader, quiet)
    system = parse_system_chunks(superblock.system_chunks)
    system_map = ChunkMap(system, superblock.device_id)
    chunks = read_chunks(TreeReader(reader, superblock, system_map), superblock, system)
    trees = TreeReader(reader, superblock, chunks)
    roots = read_roots(trees, superblock)
    allocated = read_allocated(trees, roots.devices, chunks, superblock)
    used = read_used(trees, superblock, chunks.chunks, roots.extents, roots.block_groups)
    free = _free_on_device(superblock, chunks, allocated, used)
    return UnusedBlocks("btrfs", superblock.device_size, free, remarks=_remarks(superblock, chunks))


def _free_on_device(superblock: Superblock, chunks: ChunkMap, allocated: Ranges, used: Ranges) -> Ranges:
    parts = [allocated.complement(superblock.device_size)]
    for chunk in chunks.chunks:
        if chunk.is_copied and not chunk.is_system:
            free = Ranges.of([(chunk.start, chunk.end)]) - used.within(chunk.start, chunk.end)
            parts += [free.moved(start - chunk.start) for start in chunk.starts_on(chunks.device)]
    kept = [(0, _RESERVED), *((at, at + _SUPERBLOCK_STRIPE) for at in SUPERBLOCKS_AT)]
    return (Ranges.union(parts) - Ranges.of(kept)).aligned_inside(superblock.sector_size)


def _remarks(superblock: Superblock, chunks: ChunkMap) -> tuple[str, ...]:
    remarks = []
    if superblock.devices > 1:
        remarks.append(f"one of {superblock.devices} devices")
    if not all(chunk.is_copied for chunk in chunks.chunks):
        remarks.append("what is striped over devices (RAID0, 10, 5, 6) is kept whole")
    return tuple(remarks)
