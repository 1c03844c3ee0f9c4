"""The boot region of exFAT: where things lie, and how the volume was left.

After Microsoft's "exFAT file system specification", sections 3 and 4.
"""

import struct
from dataclasses import dataclass

import numpy as np

from hotspare.guest.unused.unused import KeepAll
from hotspare.guest.unused.volume_bytes import VolumeBytes

_BOOT = struct.Struct("<3s8s53sQQIIIIIIHHBBBBB")
"""Jump, name, zeroes, partition offset, sectors, table offset, sectors a table, heap offset, clusters, root
cluster, serial, revision, flags, sector shift, cluster shift, tables, drive, percentage in use.

Offsets are in sectors.
"""
_FLAGS_AT, _PERCENT_AT = 106, 112
_CHECKED_SECTORS = 11
"""The twelfth holds their checksum, again and again."""
_CLUSTERS_MAX = 2**32 - 11
_CLUSTER_SHIFT_MAX = 25
_PERCENT_UNKNOWN = 0xFF

_SECOND_TABLE = 0x1
_DIRTY = 0x2
_MEDIA_FAILURE = 0x4
_CLEAR_TO_ZERO = 0x8
"""Of no meaning to who only reads."""


@dataclass(frozen=True, slots=True)
class ExfatLayout:
    """Where the parts of an exFAT file system lie; all offsets and sizes in bytes, all within the volume."""

    size: int
    cluster: int
    clusters: int
    table: int
    """Where the file allocation table begins."""
    heap: int
    """Where cluster 2 begins."""
    root: int
    """First cluster of the root directory."""
    percent_in_use: int | None

    def offset_of(self, cluster: int) -> int:
        """Say where a cluster begins."""
        return self.heap + (cluster - 2) * self.cluster

    def has(self, cluster: int) -> bool:
        """Tell whether there is a cluster of that number."""
        return 2 <= cluster < self.clusters + 2


def read_layout(volume: VolumeBytes) -> ExfatLayout:
    """Read and check the main boot region.

    Raises:
        KeepAll: it is no exFAT, makes no sense, or bears a mark that it is dirty.
    """
    boot = volume.read(0, 512)
    (jump, name, zeroes, _, sectors, table_at, table_length, heap_at, clusters, root, _) = _BOOT.unpack_from(
        boot
    )[:11]
    revision, flags, sector_shift, cluster_shift, tables, _, percent = _BOOT.unpack_from(boot)[11:]
    if (jump, name, boot[510:]) != (b"\xeb\x76\x90", b"EXFAT   ", b"\x55\xaa") or any(zeroes):
        raise KeepAll("it has no exFAT boot sector")
    if not 9 <= sector_shift <= 12 or sector_shift + cluster_shift > _CLUSTER_SHIFT_MAX:
        raise KeepAll("the sizes in its boot sector make no sense")
    if revision >> 8 != 1:
        raise KeepAll(f"it is exFAT of the unknown revision {revision >> 8}.{revision & 0xFF:02d}")
    if tables != 1:
        raise KeepAll("it is TexFAT, with two file allocation tables")
    sector, cluster = 1 << sector_shift, 1 << sector_shift + cluster_shift
    _refuse_checksum(volume, sector)
    _refuse_flags(flags)
    if (
        sectors * sector > volume.size
        or table_at < 2 * (_CHECKED_SECTORS + 1)
        or table_at + table_length > heap_at
        or table_length * sector < (clusters + 2) * 4
        or not 1 <= clusters <= _CLUSTERS_MAX
        or heap_at * sector + clusters * cluster > sectors * sector
        or not 2 <= root < clusters + 2
        or 100 < percent < _PERCENT_UNKNOWN
    ):
        raise KeepAll("its boot sector contradicts itself, or its volume is too short")
    return ExfatLayout(
        size=sectors * sector,
        cluster=cluster,
        clusters=clusters,
        table=table_at * sector,
        heap=heap_at * sector,
        root=root,
        percent_in_use=None if percent == _PERCENT_UNKNOWN else percent,
    )


def boot_checksum(region: bytes) -> int:
    """Compute the checksum of a boot region's first eleven sectors; flags and percentage do not count."""
    total = 0
    for at, octet in enumerate(region):
        if at not in {_FLAGS_AT, _FLAGS_AT + 1, _PERCENT_AT}:
            total = ((total >> 1) | (total & 1) << 31) + octet & 0xFFFFFFFF
    return total


def _refuse_checksum(volume: VolumeBytes, sector: int) -> None:
    region = volume.read(0, _CHECKED_SECTORS * sector)
    said = np.frombuffer(volume.read(_CHECKED_SECTORS * sector, sector), dtype="<u4")
    if np.any(said != boot_checksum(region)):
        raise KeepAll("the checksum of its boot region is wrong")


def _refuse_flags(flags: int) -> None:
    if flags & _DIRTY:
        raise KeepAll("it is in use, or was not unmounted cleanly")
    if flags & _SECOND_TABLE:
        raise KeepAll("its second file allocation table is the active one")
    if flags & _MEDIA_FAILURE:
        raise KeepAll("it is marked to have had disk errors")
    if flags & ~_CLEAR_TO_ZERO:
        raise KeepAll(f"its boot sector has unknown flags ({flags:#x})")
