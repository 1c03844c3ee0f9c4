"""The superblock of a Btrfs file system: features, state, and where its trees begin.

After the Btrfs developer documentation ("On-disk format") and the structures of linux/btrfs_tree.h. All
numbers are little-endian.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

import google_crc32c

from hotspare.guest.unused.unused import KeepAll, Quiet
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.units import GIB, KIB, MIB

SUPERBLOCKS_AT = (64 * KIB, 64 * MIB, 256 * GIB)
"""The one that is mounted, and its mirrors."""
_BYTES = 4096
_MAGIC = b"_BHRfS_M"
_WRITTEN = 1
"""The only flag of a superblock at rest. Others: a seed, an image of metadata alone, a conversion that goes
on."""

_METADATA_UUID = 0x400
_FEATURES = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200 | _METADATA_UUID | 0x800
"""Mixed back references, default subvolume, mixed block groups, LZO, Zstandard, large metadata, extended
inode references, RAID5/6, skinny metadata, no holes, another UUID in metadata, RAID1 of 3 and 4 copies."""
_REFUSED = {0x1000: "zones", 0x2000: "extent tree v2", 0x4000: "a RAID stripe tree"}
_BLOCK_GROUP_TREE = 0x8
_READ_ONLY_FEATURES = 0x1 | 0x2 | 0x4 | _BLOCK_GROUP_TREE
"""Free space tree, and that it is valid, verity, block group tree."""

_CHECKSUMS: dict[int, Callable[[bytes], bytes]] = {
    0: lambda data: int(google_crc32c.value(data)).to_bytes(4, "little"),
    2: lambda data: hashlib.sha256(data).digest(),
    3: lambda data: hashlib.blake2b(data, digest_size=32).digest(),
}
"""By the type in the superblock. 1 is xxHash64, which no library that we need has."""


@dataclass(frozen=True, slots=True)
class TreeRoot:
    """Where a tree begins, and what its topmost block must say."""

    owner: int
    """Object id of the tree."""
    logical: int
    level: int
    generation: int


@dataclass(frozen=True, slots=True)
class Superblock:
    """What the superblock says, checked for sense."""

    generation: int
    root_tree: TreeRoot
    chunk_tree: TreeRoot
    bytes_used: int
    devices: int
    sector_size: int
    node_size: int
    checksum: Callable[[bytes], bytes]
    has_block_group_tree: bool
    metadata_fsid: bytes
    """That tree blocks and devices carry."""
    device_id: int
    device_size: int
    """Bytes of this device that the file system manages."""
    device_uuid: bytes
    system_chunks: bytes
    """The chunks that the chunk tree itself lies in."""


def read_superblock(reader: VolumeBytes, quiet: Quiet) -> Superblock:
    """Read the superblock that a mount would use.

    Raises:
        KeepAll: it is damaged, or has a feature or state with which nothing is proven.
        SourceLost, StorageError, RepositoryDamaged: it cannot be read.
    """
    block = reader.read(SUPERBLOCKS_AT[0], _BYTES)
    if block[64:72] != _MAGIC:
        raise KeepAll("it has no Btrfs superblock")
    checksum = _checksum_of(block)
    if not _is_sound(block, SUPERBLOCKS_AT[0], checksum):
        raise KeepAll("the checksum of its superblock is wrong")
    _check_state(block)
    _check_features(block)
    found = _superblock(block, checksum)
    _check_sense(found, reader.size)
    if found.devices > 1 and quiet is Quiet.OFFLINE:
        # A power cut may have left one of them a commit behind: its map calls free what was used since.
        raise KeepAll(
            f"it spans {found.devices} devices, and nothing proves that all have the same last commit"
        )
    for at in SUPERBLOCKS_AT[1:]:
        if at + _BYTES > found.device_size:
            break
        mirror = reader.read(at, _BYTES)
        newer = struct.unpack_from("<Q", mirror, 72)[0] > found.generation
        if newer and mirror[32:48] == block[32:48] and _is_sound(mirror, at, checksum):
            raise KeepAll("a mirror of its superblock is newer than the superblock")
    return found


def _checksum_of(block: bytes) -> Callable[[bytes], bytes]:
    kind = struct.unpack_from("<H", block, 196)[0]
    if kind not in _CHECKSUMS:
        raise KeepAll(
            "its checksums are xxHash64" if kind == 1 else f"its type of checksums, {kind}, is not known"
        )
    return _CHECKSUMS[kind]


def _is_sound(block: bytes, at: int, checksum: Callable[[bytes], bytes]) -> bool:
    expected = checksum(block[32:])
    place = struct.unpack_from("<Q", block, 48)[0]
    return block[: len(expected)] == expected and block[64:72] == _MAGIC and place == at


def _check_state(block: bytes) -> None:
    if struct.unpack_from("<Q", block, 56)[0] & ~_WRITTEN:
        raise KeepAll("it is a seed, an image of metadata, or being converted")
    if struct.unpack_from("<Q", block, 96)[0]:
        # What the log tree holds is not in the extent tree until it is replayed.
        raise KeepAll("its log tree is not empty: it was not unmounted, and not frozen")


def _check_features(block: bytes) -> None:
    compatible, read_only, incompatible = struct.unpack_from("<QQQ", block, 172)
    for bit, name in _REFUSED.items():
        if incompatible & bit:
            raise KeepAll(f"it has a feature that is not supported: {name}")
    unknown = (compatible, read_only & ~_READ_ONLY_FEATURES, incompatible & ~_FEATURES)
    if any(unknown):
        raise KeepAll(f"it has features that are not known ({', '.join(f'{bits:#x}' for bits in unknown)})")


def _superblock(block: bytes, checksum: Callable[[bytes], bytes]) -> Superblock:
    generation, root, chunk_root = struct.unpack_from("<QQQ", block, 72)
    bytes_used = struct.unpack_from("<Q", block, 120)[0]
    devices, sector_size, node_size = struct.unpack_from("<QII", block, 136)
    system_size, chunk_generation = struct.unpack_from("<IQ", block, 160)
    read_only, incompatible = struct.unpack_from("<QQ", block, 180)
    root_level, chunk_level = block[198], block[199]
    if system_size > 2048:
        raise KeepAll("its superblock makes no sense (system chunks)")
    return Superblock(
        generation=generation,
        root_tree=TreeRoot(1, root, root_level, generation),
        chunk_tree=TreeRoot(3, chunk_root, chunk_level, chunk_generation),
        bytes_used=bytes_used,
        devices=devices,
        sector_size=sector_size,
        node_size=node_size,
        checksum=checksum,
        has_block_group_tree=bool(read_only & _BLOCK_GROUP_TREE),
        metadata_fsid=block[571:587] if incompatible & _METADATA_UUID else block[32:48],
        device_id=struct.unpack_from("<Q", block, 201)[0],
        device_size=struct.unpack_from("<Q", block, 209)[0],
        device_uuid=block[267:283],
        system_chunks=block[811 : 811 + system_size],
    )


def _check_sense(found: Superblock, volume_size: int) -> None:
    sizes = {4096, 8192, 16384, 32768, 65536}
    sensible = (
        found.sector_size in sizes
        and found.node_size in sizes
        and found.sector_size <= found.node_size
        and 1 <= found.devices <= 1024
        and found.device_id > 0
    )
    if not sensible:
        raise KeepAll("its superblock makes no sense (sizes)")
    if not 2 * MIB <= found.device_size <= volume_size:
        raise KeepAll("it is larger than its volume")
