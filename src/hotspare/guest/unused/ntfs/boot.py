"""The boot sector of NTFS, and the protection of its records against torn writes.

The layouts of NTFS are those that the documentation of Linux-NTFS and of libfsntfs describe.
"""

from dataclasses import dataclass

from hotspare.guest.unused.unused import KeepAll
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.units import KIB, MIB

STRIDE = 512
"""Each so many bytes of a record end in its update sequence number, whatever the sector size."""
_CLUSTER_MAX = 2 * MIB
_RECORD_MAX = 4 * KIB


class Fields:
    """Little-endian numbers at given places of a structure.

    Raises:
        KeepAll: from each method, when the structure ends before.
    """

    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    def cut(self, at: int, length: int) -> bytes:
        """Give ``length`` bytes from ``at``."""
        if at < 0 or length < 0 or at + length > len(self.octets):
            raise KeepAll("one of its records is damaged")
        return self.octets[at : at + length]

    def u8(self, at: int) -> int:
        """Give one byte."""
        return self.cut(at, 1)[0]

    def u16(self, at: int) -> int:
        """Give a number of two bytes."""
        return int.from_bytes(self.cut(at, 2), "little")

    def u32(self, at: int) -> int:
        """Give a number of four bytes."""
        return int.from_bytes(self.cut(at, 4), "little")

    def u64(self, at: int) -> int:
        """Give a number of eight bytes."""
        return int.from_bytes(self.cut(at, 8), "little")


@dataclass(frozen=True, slots=True)
class NtfsLayout:
    """What the boot sector says; sizes in bytes, places in clusters of the volume."""

    cluster: int
    clusters: int
    mft: int
    mirror: int
    record: int
    """Size of a record of the master file table."""


def read_layout(volume: VolumeBytes) -> NtfsLayout:
    """Read and check the boot sector.

    Raises:
        KeepAll: it is no NTFS, or makes no sense.
    """
    boot = Fields(volume.read(0, 512))
    if boot.cut(3, 8) != b"NTFS    " or boot.cut(510, 2) != b"\x55\xaa":
        raise KeepAll("it has no NTFS boot sector")
    sector = boot.u16(0x0B)
    if sector not in {512, 1024, 2048, 4096} or any(boot.cut(0x0E, 7)) or boot.u16(0x16) or boot.u32(0x20):
        raise KeepAll("its boot sector makes no sense")
    cluster = sector * _sectors_of_cluster(boot.u8(0x0D))
    size = boot.u64(0x28) * sector
    clusters = size // cluster
    if cluster > _CLUSTER_MAX or not clusters or size > volume.size:
        raise KeepAll("its boot sector says that it is larger than its volume, or empty")
    mft, mirror = boot.u64(0x30), boot.u64(0x38)
    if not 0 < mft < clusters or not 0 < mirror < clusters or mft == mirror:
        raise KeepAll("its master file table lies nowhere")
    return NtfsLayout(cluster, clusters, mft, mirror, _record_size(boot.u8(0x40), cluster))


def _sectors_of_cluster(code: int) -> int:
    # Numbers beyond 128 do not fit: such are kept as a negative logarithm.
    sectors = 1 << 256 - code if code >= 256 - 12 else code
    if sectors.bit_count() != 1:
        raise KeepAll("its clusters have a size that makes no sense")
    return sectors


def _record_size(code: int, cluster: int) -> int:
    size = code * cluster if code < 128 else 1 << 256 - code
    if size.bit_count() != 1 or not STRIDE <= size <= _RECORD_MAX:
        raise KeepAll("its records have a size that makes no sense")
    return size


def repaired(octets: bytes, magic: bytes) -> bytes:
    """Undo the protection of a record: the end of each stride was exchanged when it was written.

    Raises:
        KeepAll: it has another magic, or was torn: parts of it are of another write.
    """
    fields = Fields(octets)
    if fields.cut(0, 4) != magic:
        raise KeepAll(f"one of its {magic.decode()} records is none")
    at, count = fields.u16(4), fields.u16(6)
    if count != len(octets) // STRIDE + 1 or at < 0x18 or at + 2 * count > STRIDE - 2 or at % 2:
        raise KeepAll(f"one of its {magic.decode()} records is damaged")
    whole = bytearray(octets)
    for number in range(1, count):
        end = number * STRIDE
        if whole[end - 2 : end] != octets[at : at + 2]:
            raise KeepAll(f"one of its {magic.decode()} records was not written as a whole")
        whole[end - 2 : end] = octets[at + 2 * number : at + 2 * number + 2]
    return bytes(whole)
