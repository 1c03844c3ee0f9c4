"""What a volume holds, by its signatures, with label and UUID as ``blkid`` prints them.

All signatures are looked for, not just the first: a second one is stale, and which of the two nobody can tell
for certain. As in libblkid, RAID, LVM and encryption decide alone: what lies beneath them may show through.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hotspare.guest.volumes.containers import (
    find_bcache,
    find_drbd,
    find_firmware_raid,
    find_luks,
    find_lvm,
    find_mdraid,
    find_zfs,
)
from hotspare.guest.volumes.found import Found, printable
from hotspare.guest.volumes.microsoft import find_bitlocker, find_exfat, find_fat, find_ntfs, find_refs
from hotspare.guest.volumes.superblocks import (
    find_btrfs,
    find_ext,
    find_f2fs,
    find_hfs,
    find_iso9660,
    find_nilfs2,
    find_swap,
    find_udf,
    find_xfs,
)
from hotspare.guest.volumes.window import Bytes

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class _Magic:
    """Bytes at a fixed place that say it all."""

    content: str
    offset: int
    bytes: bytes
    opaque: str | None = None

    def __call__(self, volume: Bytes) -> Found | None:
        there = volume.read(self.offset, len(self.bytes))
        return Found(self.content, self.offset, opaque=self.opaque) if there == self.bytes else None


_CONTAINERS: list[Callable[[Bytes], Found | None]] = [
    find_mdraid,
    find_firmware_raid,
    find_bcache,
    _Magic("bluestore", 0, b"bluestore block device", "it belongs to Ceph"),
    find_drbd,
    find_lvm,
    _Magic("snapshot-store", 0, b"SnAp", "it holds the changes of an LVM snapshot"),
    _Magic("verity", 0, b"verity\0\0", "it is protected by dm-verity"),
    _Magic("integrity", 0, b"integrt\0", "it is protected by dm-integrity"),
    find_luks,
    _Magic("vmfs", _MIB, b"\x0d\xd0\x01\xc0", "it is a datastore of VMware"),
    _Magic("ubi", 0, b"UBI#", "it is a flash volume"),
    _Magic("vdo", 0, b"dmvdo001", "it is deduplicated by VDO"),
    _Magic("stratis", 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh", "it belongs to a Stratis pool"),
    _Magic("stratis", 4096 * 2 + 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh", "it belongs to a Stratis pool"),
    find_bitlocker,
    _Magic("oracle-asm", 32, b"ORCLDISK", "it belongs to Oracle ASM"),
    _Magic("storage-spaces", 4096, b"SPACEDB ", "it is part of a storage pool of Windows"),
    _Magic("ldm", 3072, b"PRIVHEAD", "it is part of a dynamic disk of Windows (LDM)"),
]
"""Any of these decides alone; the first that is found counts."""

_FILE_SYSTEMS: list[Callable[[Bytes], Found | None]] = [
    find_fat,
    find_swap,
    find_xfs,
    find_ext,
    _Magic("reiserfs", 65536 + 52, b"ReIsEr"),
    _Magic("reiserfs", 8192 + 52, b"ReIsEr"),
    _Magic("reiser4", 65536, b"ReIsEr4"),
    _Magic("jfs", 32768, b"JFS1"),
    find_udf,
    find_iso9660,
    find_zfs,
    find_hfs,
    *(
        _Magic("ufs", at + 1372, magic)
        for at in (8192, 65536, 262144)
        for magic in (b"\x54\x19\x01\0", b"\x19\x01\x54\x19")
    ),
    find_ntfs,
    find_refs,
    _Magic("cramfs", 0, b"\x45\x3d\xcd\x28"),
    _Magic("romfs", 0, b"-rom1fs-"),
    _Magic("gfs2", 65536, b"\x01\x16\x19\x70"),
    *(_Magic("ocfs2", at, b"OCFSV2") for at in (1024, 2048, 4096, 8192)),
    _Magic("squashfs", 0, b"hsqs"),
    _Magic("squashfs", 0, b"sqsh"),
    find_btrfs,
    _Magic("vmfs", 2 * _MIB, b"\x5e\xf1\xab\x2f"),
    _Magic("befs", 32 + 512, b"1SFB"),
    find_nilfs2,
    find_exfat,
    find_f2fs,
    _Magic("apfs", 32, b"NXSB"),
    _Magic("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    _Magic("bcachefs", 4096 + 24, bytes.fromhex("c68573f66ea24b4e8265f57f48ba6d81")),
]
"""In the order of libblkid, which takes the first where it does not call the volume ambiguous."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a volume is by its signatures."""

    found: tuple[Found, ...]
    """All of them, that which counts first."""
    container: bool = False
    """Whether the first is a RAID member, LVM or encrypted, which decides alone."""

    @property
    def content(self) -> str:
        """See ``Volume.content``."""
        return self.found[0].content if self.found else ""

    @property
    def label(self) -> str:
        """See ``Volume.label``."""
        return printable(self.found[0].label) if self.found else ""

    @property
    def uuid(self) -> str:
        """See ``Volume.uuid``."""
        return printable(self.found[0].uuid) if self.found else ""

    @property
    def also(self) -> tuple[str, ...]:
        """Contents that other signatures speak of."""
        return tuple(dict.fromkeys(one.content for one in self.found if one.content != self.content))

    @property
    def keep_because(self) -> str | None:
        """Why no map of unused blocks can be trusted; None where there is one file system and no doubt."""
        if not self.found:
            return "nothing known is in it"
        if not self.also:
            return self.found[0].opaque
        kinds = " and of ".join([self.content, *self.also])
        verdict = f"blkid takes it for {self.content}" if self.container else "one of them is stale"
        return f"it has signatures of {kinds}: {verdict}"


def identify(volume: Bytes) -> Identity:
    """Look for all signatures in a volume.

    Raises:
        SourceLost, StorageError, RepositoryDamaged: the disk cannot be read.
    """
    containers = [found for find in _CONTAINERS if (found := find(volume))]
    others = [found for find in _FILE_SYSTEMS if (found := find(volume))]
    return Identity((*containers, *others), container=bool(containers))
