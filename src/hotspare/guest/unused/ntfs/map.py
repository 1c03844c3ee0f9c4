"""Which bytes of an NTFS are unused.

$Bitmap has a bit for each cluster. When it can be believed:

- A volume that Windows dismounted says so in its log; then nothing more is needed.
- A volume that Windows has mounted has its log in use. When the machine was *frozen*, the shadow copy service
  made NTFS write everything and hold still, with its own lock on the volume taken, so that no change of
  several steps was half done: replaying the log at the next mount repeats what is in place already. When the
  machine was just *off*, it has crashed: then the log would change the bitmap, and the volume is kept. (One
  that crashed earlier, and has lain unmounted in a frozen machine since, looks the same: no mark tells.)
- A Linux program (ntfs-3g) empties the log, and sets no mark while it has a volume mounted. It cannot be
  frozen, so in a frozen machine an emptied log means keep all.

Where no dismount vouches for the bitmap, every file's clusters are compared with it. A volume with shadow
copies, or of a hibernated Windows, is kept: the former read free clusters, the latter knows better than its
disk.
"""

from itertools import islice

import numpy as np

from hotspare.block.device import BlockReader
from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.unused.fat.map import SHORT_RUNS_KEPT
from hotspare.guest.unused.free_runs import FreeRuns
from hotspare.guest.unused.ntfs.boot import read_layout
from hotspare.guest.unused.ntfs.crosscheck import refuse_files_in
from hotspare.guest.unused.ntfs.files import TELLING, find_scratch, refuse_hibernated, refuse_shadows
from hotspare.guest.unused.ntfs.index import names_in
from hotspare.guest.unused.ntfs.log import LogState, read_log, refuse_marked
from hotspare.guest.unused.ntfs.record import DATA, HOLE, decode_runs
from hotspare.guest.unused.ntfs.stream import RUNS_MAX
from hotspare.guest.unused.ntfs.table import BAD_CLUSTERS, BITMAP_FILE, ROOT, SYSTEM_FILES, MasterFileTable
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.units import KIB

_MANY = 32
_BOOT_FILE = 8 * KIB
"""The boot sector and the loader that follows it."""


def ntfs_unused(volume: BlockReader, quiet: Quiet) -> UnusedBlocks:
    """Find the free clusters of an NTFS, and what page files hold.

    Raises:
        KeepAll: see ``FindUnused``.
        SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
    """
    octets = VolumeBytes(volume)
    layout = read_layout(octets)
    table = MasterFileTable(octets, layout)
    refuse_marked(table)
    state = read_log(table)
    _refuse_unquiet(state, quiet)
    root = list(islice((name for name in names_in(table, table.record(ROOT)) if name.name in TELLING), _MANY))
    if len(root) == _MANY:
        raise KeepAll("its root directory has the same names again and again")
    refuse_hibernated(table, root)
    refuse_shadows(table, root)
    scratch, owners = find_scratch(table, root)
    runs = _read_bitmap(table)
    free = runs.ranges()
    own = _own_clusters(table)
    if len(free & own) or len(free & scratch) or len(own & scratch):
        raise KeepAll("its bitmap says that clusters are free which are in use")
    if state is not LogState.CLEAN:
        refuse_files_in(table, free | scratch, owners)
    return UnusedBlocks(
        file_system="ntfs",
        size=layout.clusters * layout.cluster,
        free=free - _bad_clusters(table),
        scratch=scratch,
        remarks=(SHORT_RUNS_KEPT,) if runs.incomplete else (),
    )


def _refuse_unquiet(state: LogState, quiet: Quiet) -> None:
    if quiet is Quiet.OFFLINE and state is LogState.IN_USE:
        raise KeepAll(
            'Windows has not dismounted it: it crashed, sleeps, or was shut down for "Fast Startup"'
        )
    if quiet is Quiet.FROZEN and state is LogState.EMPTIED:
        raise KeepAll("a Linux program may have it mounted, which cannot be frozen")


def _read_bitmap(table: MasterFileTable) -> FreeRuns:
    clusters = table.layout.clusters
    bitmap = table.stream(table.record(BITMAP_FILE), DATA)
    if bitmap is None or not bitmap.is_plain or 8 * bitmap.initialized < clusters:
        raise KeepAll("its bitmap is damaged")
    runs = FreeRuns(table.layout.cluster)
    if bitmap.content is not None:
        runs.add_bitmap(np.frombuffer(bitmap.content, dtype=np.uint8), clusters)
        return runs
    for piece in bitmap.pieces(table.volume, -(-clusters // 8)):
        runs.add_bitmap(piece, min(8 * len(piece), clusters - runs.units))
    return runs


def _own_clusters(table: MasterFileTable) -> Ranges:
    """Give what the file system itself occupies: it must be in use, or the bitmap is none."""
    layout = table.layout
    found = [(0, -(-_BOOT_FILE // layout.cluster))]
    for number in SYSTEM_FILES:
        for part in table.attributes(table.record(number)):
            if part.content is None and number != BAD_CLUSTERS:
                runs = decode_runs(part, layout.clusters)
                found += [(place, place + length) for place, length in runs if place != HOLE]
                if len(found) > RUNS_MAX:
                    raise KeepAll("one of its files is in too many pieces")
    return Ranges.of((start * layout.cluster, end * layout.cluster) for start, end in found)


def _bad_clusters(table: MasterFileTable) -> Ranges:
    """Give the clusters that cannot be written: what is no hole in a file as large as the volume."""
    bad = table.stream(table.record(BAD_CLUSTERS), DATA, "$Bad")
    return NOTHING if bad is None else bad.on_volume
