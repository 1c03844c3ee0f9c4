"""The file systems and swap spaces of Linux, by their superblocks.

Layouts: the headers of Linux (``ext4.h``, ``xfs_format.h``, ``btrfs_tree.h``, ``f2fs_fs.h``, ``swap.h``);
ECMA-119 for ISO 9660, ECMA-167 for UDF.
"""

import uuid as uuid_module

from hotspare.guest.volumes.found import Found
from hotspare.guest.volumes.window import Bytes

PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
"""Bytes of a page, on the machines that Linux runs on: swap has its signature at the end of the first."""
SWAP_MAGICS = (b"SWAPSPACE2", b"SWAP-SPACE")
HIBERNATION_MAGICS = (
    b"S1SUSPEND\0",
    b"S2SUSPEND\0",
    b"ULSUSPEND\0",
    b"LINHIB0001",
    bytes.fromhex("edc302e99856e50c"),
)
"""Of the kernel, uswsusp, LinHib and TuxOnIce: in the place of swap's own while a system sleeps in it."""


def uuid_text(raw: bytes) -> str:
    """Write 16 bytes as a UUID; nothing for zeroes."""
    return str(uuid_module.UUID(bytes=raw)) if len(raw) == 16 and any(raw) else ""


def text(raw: bytes) -> str:
    """Take a label out of its field: up to the first zero, without spaces at the end."""
    return raw.partition(b"\0")[0].rstrip().decode("utf-8", "replace")


def find_ext(volume: Bytes) -> Found | None:
    """Recognise ext2, ext3, ext4, and an external journal of theirs."""
    block = volume.read(1024, 1024)
    if len(block) < 1024 or block[56:58] != b"\x53\xef":
        return None
    inodes, blocks, log_size = (int.from_bytes(block[at : at + 4], "little") for at in (0, 4, 24))
    label, uuid = text(block[120:136]), uuid_text(block[104:120])
    if block[96] & 0x08:
        return Found("ext-journal", 1080, label, uuid, opaque="it is the journal of a file system elsewhere")
    if not (inodes and blocks and log_size <= 6):
        return None
    return Found("ext", 1080, label, uuid)


def find_xfs(volume: Bytes) -> Found | None:
    """Recognise XFS."""
    block = volume.read(0, 512)
    if block[:4] != b"XFSB" or int.from_bytes(block[4:8], "big") not in {512 << shift for shift in range(8)}:
        return None
    return Found("xfs", 0, text(block[108:120]), uuid_text(block[32:48]))


def find_btrfs(volume: Bytes) -> Found | None:
    """Recognise Btrfs; whether it has more devices, its own reader finds out."""
    block = volume.read(65536, 4096)
    if block[64:72] != b"_BHRfS_M" or int.from_bytes(block[48:56], "little") != 65536:
        return None
    return Found("btrfs", 65536 + 64, text(block[299:555]), uuid_text(block[32:48]))


def find_swap(volume: Bytes) -> Found | None:
    """Recognise swap space, with or without a system that sleeps in it."""
    for page in PAGE_SIZES:
        magic = volume.read(page - 10, 10)
        if magic.startswith(HIBERNATION_MAGICS):
            return Found("swap", page - 10, opaque="a hibernated system is stored in it")
        if magic in SWAP_MAGICS:
            header = volume.read(1024, 44) if magic == SWAP_MAGICS[0] else b""
            return Found("swap", page - 10, text(header[28:44]), uuid_text(header[12:28]))
    return None


def find_f2fs(volume: Bytes) -> Found | None:
    """Recognise F2FS."""
    block = volume.read(1024, 1152)
    if block[:4] != b"\x10\x20\xf5\xf2":
        return None
    label = block[124:1148].decode("utf-16-le", "replace").partition("\0")[0]
    return Found("f2fs", 1024, label, uuid_text(block[108:124]))


def find_iso9660(volume: Bytes) -> Found | None:
    """Recognise ISO 9660."""
    block = volume.read(32768, 2048)
    if len(block) < 2048 or block[1:6] != b"CD001":
        return None
    made, changed = block[813:829], block[830:846]
    date = (changed if changed.isdigit() and changed.strip(b"0") else made).decode("ascii", "replace")
    uuid = "-".join([date[:4], *(date[at : at + 2] for at in range(4, 16, 2))]) if date.isdigit() else ""
    return Found("iso9660", 32769, text(block[40:72]), uuid)


def find_udf(volume: Bytes) -> Found | None:
    """Recognise UDF by its volume recognition sequence, whatever it is mixed with."""
    for at in range(32768, 32768 + 64 * 2048, 2048):
        name = volume.read(at + 1, 5)
        if name in {b"NSR02", b"NSR03"}:
            return Found("udf", at + 1)
        if name not in {b"BEA01", b"BOOT2", b"CD001", b"CDW02", b"TEA01"}:
            return None
    return None


def find_nilfs2(volume: Bytes) -> Found | None:
    """Recognise NILFS2."""
    block = volume.read(1024, 1024)
    if (
        len(block) < 1024
        or block[6:8] != b"\x34\x34"
        or block[0:4] != b"\x02\0\0\0"
        or block[22:24] == b"\0\0"
    ):
        return None
    return Found("nilfs2", 1030, text(block[168:248]), uuid_text(block[152:168]))


def find_hfs(volume: Bytes) -> Found | None:
    """Recognise HFS and HFS+ by their volume headers."""
    block = volume.read(1024, 512)
    version, block_size = int.from_bytes(block[2:4], "big"), int.from_bytes(block[40:44], "big")
    if (
        block[:2] in {b"H+", b"HX"}
        and version in {4, 5}
        and block_size in {512 << shift for shift in range(12)}
    ):
        return Found("hfsplus", 1024)
    allocation_size = int.from_bytes(block[20:24], "big")
    if block[:2] == b"BD" and allocation_size and not allocation_size % 512:
        return Found("hfs", 1024)
    return None
