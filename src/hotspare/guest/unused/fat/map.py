"""Which bytes of a FAT12, FAT16 or FAT32 file system are unused.

FAT has no journal. What is mounted, or was not unmounted cleanly, is marked (by NT and Linux in the boot
sector, by Windows and macOS in entry 1 of the table); marked ones are kept whole, whether the machine was
frozen or off, since Linux cannot freeze FAT. Beyond the marks, both tables must be alike, no chain may lead
into a free cluster, and FSInfo must agree on how many clusters are free if it says so.
"""

import numpy as np

from hotspare.block.device import BlockReader
from hotspare.guest.unused.fat.boot import FatLayout, read_layout
from hotspare.guest.unused.fat.table import read_entries, refuse_broken_chains, refuse_unsound
from hotspare.guest.unused.free_runs import FreeRuns
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.guest.unused.volume_bytes import Octets, VolumeBytes

SHORT_RUNS_KEPT = "it is so fragmented that short runs of free clusters are kept"


def fat_unused(volume: BlockReader, quiet: Quiet) -> UnusedBlocks:  # noqa: ARG001  # its marks decide
    """Find the free clusters of a FAT12, FAT16 or FAT32 file system.

    Raises:
        KeepAll: see ``FindUnused``.
        SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
    """
    octets = VolumeBytes(volume)
    layout = read_layout(octets)
    refuse_unsound(octets, layout)
    runs = FreeRuns(layout.cluster, layout.data - 2 * layout.cluster)
    free = _find_free(octets, layout, runs)
    refuse_broken_chains(octets, layout, free)
    if layout.root is not None and free[layout.root >> 3] >> (layout.root & 7) & 1:
        raise KeepAll("its root directory is said to be free")
    if layout.free_clusters is not None and layout.free_clusters != runs.free:
        raise KeepAll(f"{runs.free} clusters are free, but it counts {layout.free_clusters}")
    return UnusedBlocks(
        file_system=f"fat{layout.bits}",
        size=layout.size,
        free=runs.ranges(),
        remarks=(SHORT_RUNS_KEPT,) if runs.incomplete else (),
    )


def _find_free(octets: VolumeBytes, layout: FatLayout, runs: FreeRuns) -> Octets:
    """Collect free clusters, and give a bit for each entry of the table."""
    packed = []
    for entries in read_entries(octets, layout):
        free = entries == 0
        runs.add_flags(free)
        packed.append(np.packbits(free, bitorder="little"))
    return np.concatenate(packed)
