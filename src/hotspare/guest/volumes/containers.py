"""What is not a file system but a part or a wrapper of one: RAID members, LVM, encryption, pools.

Layouts: md(4) and Linux' ``md_p.h``; the LUKS1 and LUKS2 specifications; LVM2's ``layout.h``; SNIA's DDF 2.0;
bcache, DRBD, VDO, Stratis, dm-integrity, dm-verity and ZFS as their own headers have them.
"""

from itertools import pairwise
from typing import Literal

from hotspare.guest.volumes.found import Found
from hotspare.guest.volumes.superblocks import text, uuid_text
from hotspare.guest.volumes.window import Bytes

_BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_MD_MAGIC = 0xA92B4EFC
_ZFS_LABEL = 256 << 10
_ZFS_RING = (128 << 10, 256 << 10)
_UBERBLOCK = 0x00BAB10C
_LUKS2_COPIES = tuple(1 << shift for shift in range(14, 23))
_RAID_PART = "it is part of a RAID"


def find_mdraid(volume: Bytes) -> Found | None:
    """Recognise a member of a Linux software RAID, by a superblock of any version."""
    end = volume.size // 65536 * 65536 - 65536
    block = volume.read(end, 64) if end >= 0 else b""
    for order in _BYTE_ORDERS:
        words = [int.from_bytes(block[at : at + 4], order) for at in range(0, len(block), 4)]
        if words[:2] == [_MD_MAGIC, 0]:
            uuid = b"".join(words[at].to_bytes(4, "big") for at in (5, 13, 14, 15))
            return Found("mdraid", end, "", uuid_text(uuid), opaque=_RAID_PART)
    last = (volume.size // 512 - 16) // 8 * 8 * 512
    for at in (last, 0, 4096):
        block = volume.read(at, 256)
        if (
            len(block) == 256
            and int.from_bytes(block[:4], "little") == _MD_MAGIC
            and int.from_bytes(block[4:8], "little") == 1
            and int.from_bytes(block[144:152], "little") * 512 == at
        ):
            return Found("mdraid", at, text(block[32:64]), uuid_text(block[16:32]), opaque=_RAID_PART)
    return None


def find_firmware_raid(volume: Bytes) -> Found | None:
    """Recognise a member of a RAID by a controller or its driver: DDF, Intel, NVIDIA, LSI, Promise."""
    sectors = volume.size // 512
    magics = [
        (1, b"\xde\x11\xde\x11"),
        (1, b"\x11\xde\x11\xde"),
        (257, b"\xde\x11\xde\x11"),
        (257, b"\x11\xde\x11\xde"),
    ]
    magics += [(2, b"Intel Raid ISM Cfg Sig. "), (2, b"NVIDIA"), (1, b"$XIDE$")]
    magics += [(back, b"Promise Technology, Inc.") for back in (63, 255, 256, 16, 399, 675, 735, 911, 974)]
    for back, magic in magics:
        at = (sectors - back) * 512
        if at >= 0 and volume.read(at, len(magic)) == magic:
            return Found("firmware-raid", at, opaque="it is part of a RAID of a disk controller")
    return None


def find_lvm(volume: Bytes) -> Found | None:
    """Recognise a physical volume by the label in one of its first four sectors."""
    for sector in range(4):
        label = volume.read(sector * 512, 64)
        if label[:8] == b"LABELONE" and label[24:32] in {b"LVM2 001", b"LVM2 000"}:
            raw = label[32:64].decode("ascii", "replace")
            cuts = (0, 6, 10, 14, 18, 22, 26, 32)
            uuid = "-".join(raw[start:end] for start, end in pairwise(cuts))
            return Found("lvm", sector * 512, "", uuid, opaque="it is a physical volume of LVM")
    if volume.read(0, 4) in {b"HM\x01\0", b"HM\x02\0"}:
        return Found("lvm1", 0, opaque="it is a physical volume of LVM 1")
    return None


def find_luks(volume: Bytes) -> Found | None:
    """Recognise LUKS1 and LUKS2, the latter also by one of the copies of its header."""
    opaque = "it is encrypted with LUKS"
    for at in (0, *_LUKS2_COPIES):
        header = volume.read(at, 208)
        version = int.from_bytes(header[6:8], "big")
        if header[:6] == (b"SKUL\xba\xbe" if at else b"LUKS\xba\xbe") and version in {1, 2}:
            label = text(header[24:72]) if version == 2 else ""
            return Found("luks", at, label, text(header[168:208]), opaque=opaque)
    return None


def find_bcache(volume: Bytes) -> Found | None:
    """Recognise a device of bcache, of either role."""
    block = volume.read(4096, 80)
    if block[24:40] != bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"):
        return None
    return Found(
        "bcache", 4096 + 24, text(block[72:104]), uuid_text(block[40:56]), opaque="it is part of a bcache"
    )


def find_drbd(volume: Bytes) -> Found | None:
    """Recognise DRBD with its metadata at the end."""
    at = volume.size // 4096 * 4096 - 4096
    magic = volume.read(at + 60, 4) if at >= 0 else b""
    if magic not in {bytes.fromhex(one) for one in ("8374026b", "8374026c", "8374026d")}:
        return None
    return Found("drbd", at, opaque="it is replicated by DRBD")


def find_zfs(volume: Bytes) -> Found | None:
    """Recognise a device of a ZFS pool by the uberblocks in any of its four labels."""
    end = volume.size // _ZFS_LABEL * _ZFS_LABEL
    for label in (0, _ZFS_LABEL, end - 2 * _ZFS_LABEL, end - _ZFS_LABEL):
        ring = volume.read(label + _ZFS_RING[0], _ZFS_RING[1] - _ZFS_RING[0]) if label >= 0 else b""
        for at in range(0, len(ring), 1024):
            if _UBERBLOCK in (
                int.from_bytes(ring[at : at + 8], "little"),
                int.from_bytes(ring[at : at + 8], "big"),
            ):
                return Found("zfs", label + _ZFS_RING[0] + at, opaque="it is part of a ZFS pool")
    return None
