"""Real Btrfs images for tests: made by mkfs.btrfs, filled by the kernel, told about by inspect-internal."""

import random
import re
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import google_crc32c

from hotspare.block.ranges import Ranges
from hotspare.guest.unused.btrfs.map import btrfs_unused
from hotspare.units import KIB, MIB
from tests.guest.unused.asking import unused_in, why_kept_in
from tests.guest.unused.ext_images import peek, poke, populate
from tests.guest.unused.garbage import run
from tests.guest.unused.live import mounted

find = partial(unused_in, btrfs_unused)
"""Reads the map of an image."""
reason = partial(why_kept_in, btrfs_unused)
"""Tells why all of an image is kept; empty when it is not."""

SIZE = 320 * MIB + 5 * KIB
VARIANTS: Mapping[str, str] = {
    "default": "",
    "mixed": "--mixed",
    "old": "-O ^no-holes,^skinny-metadata,^extref -R ^free-space-tree --nodesize 4096 -m dup",
    "space-cache-v1": "-R ^free-space-tree --csum sha256",
    "blake2-dup": "--csum blake2 -d dup -m dup",
    "large-nodes": "--nodesize 65536 -d single -m single -R quota",
}
"""Options of mkfs.btrfs."""
STRIPED = ("RAID0", "RAID10", "RAID5", "RAID6")


def make(image: Path, options: str = "", *, size: int = SIZE) -> Path:
    """Make an empty file system."""
    with image.open("xb") as file:
        file.truncate(size)
    run(["mkfs.btrfs", "-q", *options.split(), str(image)])
    return image


def make_filled(image: Path, options: str = "", *mount_options: str) -> Path:
    """Make a file system with all sorts of files, snapshots, and much that was deleted."""
    make(image, options)
    with mounted(image, "btrfs", *mount_options) as root:
        fill_up(root)
    return image


def fill_up(root: Path) -> None:
    """Write files of all kinds, compressed and not, and delete many of them."""
    run(["btrfs", "subvolume", "create", str(root / "volume")])
    populate(root / "volume")
    run(["btrfs", "subvolume", "snapshot", "-r", str(root / "volume"), str(root / "snapshot")])
    run(["btrfs", "subvolume", "snapshot", str(root / "volume"), str(root / "gone")])
    (root / "packed").mkdir()
    run(["btrfs", "property", "set", str(root / "packed"), "compression", "zstd"])
    (root / "plain").mkdir()
    run(["chattr", "+C", str(root / "plain")])  # neither checksums nor copy on write
    dice = random.Random(3)
    for number in range(200):
        (root / "packed" / f"{number}").write_bytes(dice.randbytes(3000) * 7)
        (root / "plain" / f"{number}").write_bytes(dice.randbytes(5000))
    run(["sync", "--file-system", str(root)])
    for number in range(0, 200, 3):
        (root / "packed" / f"{number}").unlink()
        (root / "plain" / f"{number}").unlink()
    run(["btrfs", "subvolume", "delete", "--commit-after", str(root / "gone")])


@contextmanager
def devices_of(images: Sequence[Path], options: str) -> Iterator[list[str]]:
    """Make a file system on many images, and give their loop devices."""
    for image in images:
        with image.open("xb") as file:
            file.truncate(SIZE)
    with ExitStack() as stack:
        devices = []
        for image in images:
            devices.append(run(["losetup", "--find", "--show", str(image)]).strip())
            stack.callback(run, ["losetup", "--detach", devices[-1]])
        run(["mkfs.btrfs", "-q", "-f", *options.split(), *devices])
        stack.callback(run, ["btrfs", "device", "scan", "--forget"], statuses=(0, 1))
        yield devices


@contextmanager
def mounted_devices(devices: Sequence[str], *options: str) -> Iterator[Path]:
    """Mount a file system of many devices at a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*options, *(f"device={device}" for device in devices)]
        run(["mount", "-t", "btrfs", "-o", ",".join(words), devices[0], folder])
        try:
            yield Path(folder)
        finally:
            run(["umount", folder])


class Chunks:
    """What ``btrfs inspect-internal`` says of chunks and extents, translated by our tests' own means."""

    def __init__(self, image: Path) -> None:
        told = run(["btrfs", "inspect-internal", "dump-tree", "-t", "chunk", str(image)])
        self.all: list[tuple[int, int, str, list[tuple[int, int]]]] = []
        """Logical start, length, kind, and of each stripe device and place."""
        for part in re.split(r"^\titem ", told, flags=re.MULTILINE):
            key = re.search(r"CHUNK_ITEM (\d+)\)", part)
            if key:
                length, kind = re.findall(r"length (\d+) owner .* type (\S+)", part)[0]
                stripes = [(int(on), int(at)) for on, at in re.findall(r"devid (\d+) offset (\d+)", part)]
                self.all.append((int(key[1]), int(length), kind, stripes))
        extents = run(["btrfs", "inspect-internal", "dump-tree", "-t", "extent", str(image)])
        node = field(image, "nodesize")
        found = re.findall(r"item \d+ key \((\d+) (EXTENT|METADATA)_ITEM (\d+)\)", extents)
        self.extents = [
            (int(at), int(at) + (int(length) if kind == "EXTENT" else node)) for at, kind, length in found
        ]
        self.used = Ranges.of(self.extents)

    def places(self, logical: Ranges, device: int = 1) -> Ranges:
        """Translate to places on a device, where a chunk is not striped."""
        return Ranges.union(
            logical.within(start, start + length).moved(at - start)
            for start, length, kind, stripes in self.all
            for on, at in stripes
            if on == device and not any(word in kind for word in STRIPED)
        )

    def whole(self, word: str, device: int = 1) -> Ranges:
        """Give the places of chunks of a kind."""
        return Ranges.of(
            (at, at + length // _columns(kind, len(stripes)))
            for _, length, kind, stripes in self.all
            for on, at in stripes
            if word in kind.split("|") and on == device
        )


def _columns(kind: str, stripes: int) -> int:
    """Tell how many of the stripes of a chunk hold each byte once."""
    profile = kind.partition("|")[2]
    return {"RAID0": stripes, "RAID10": stripes // 2, "RAID5": stripes - 1, "RAID6": stripes - 2}.get(
        profile, 1
    )


def with_checksum(block: bytes) -> bytes:
    """Put the right CRC-32C of a superblock or tree block into it."""
    return int(google_crc32c.value(block[32:])).to_bytes(4, "little") + bytes(28) + block[32:]


_FIELDS = {
    "generation": (72, 8),
    "root": (80, 8),
    "chunk_root": (88, 8),
    "bytes_used": (120, 8),
    "nodesize": (148, 4),
    "compat_ro_flags": (180, 8),
}


def field(image: Path, name: str) -> int:
    """Give a number of the superblock."""
    at, length = _FIELDS[name]
    return int.from_bytes(peek(image, 64 * KIB + at, length), "little")


def leaf_items(block: bytes) -> list[tuple[int, int, int, int, int]]:
    """Give object, type, offset, and place and size of the data, of each item of a leaf."""
    count = struct.unpack_from("<I", block, 96)[0]
    return [struct.unpack_from("<QBQII", block, 101 + 25 * at) for at in range(count)]


Item = tuple[tuple[int, int, int], bytes]
"""Key, and data."""


class Editor:
    """Changes leaves of an image, with checksums put right: for states that no program here can make.

    Args:
        image: with no tree of more than one block, where it is edited.
        chunks: of it, if already known.
    """

    def __init__(self, image: Path, chunks: Chunks | None = None) -> None:
        self._image = image
        self._chunks = chunks or Chunks(image)
        self.node = field(image, "nodesize")

    def places(self, logical: int) -> list[int]:
        """Give all copies of a tree block."""
        return [start for start, _ in self._chunks.places(Ranges.of([(logical, logical + self.node)]))]

    def root(self, tree: int) -> int:
        """Give the logical address of the topmost block of a tree."""
        if tree in {1, 3}:
            return field(self._image, "root" if tree == 1 else "chunk_root")
        items = self.leaf(self.root(1))
        return int(struct.unpack_from("<Q", dict(items)[tree, 132, 0], 176)[0])

    def leaf(self, logical: int) -> list[Item]:
        """Read a leaf."""
        block = peek(self._image, self.places(logical)[0], self.node)
        assert block[100] == 0, "no leaf"
        return [
            ((owner, kind, offset), block[101 + at : 101 + at + size])
            for owner, kind, offset, at, size in leaf_items(block)
        ]

    def put_leaf(self, logical: int, items: list[Item], *, like: int, owner: int) -> None:
        """Write a leaf, with the header of another one."""
        head = bytearray(peek(self._image, self.places(like)[0], 101))
        struct.pack_into("<Q", head, 48, logical)
        struct.pack_into("<QI", head, 88, owner, len(items))
        body, data = b"", b""
        for (first, kind, offset), content in sorted(items):
            data = content + data
            body += struct.pack("<QBQII", first, kind, offset, self.node - 101 - len(data), len(content))
        block = bytes(head) + body + bytes(self.node - 101 - len(body) - len(data)) + data
        for place in self.places(logical):
            poke(self._image, place, with_checksum(block))

    def change(self, tree: int, items: list[Item]) -> None:
        """Exchange the only leaf of a tree."""
        self.put_leaf(self.root(tree), items, like=self.root(tree), owner=tree)

    def change_superblock(self, at: int, data: bytes, *, copy: int = 0) -> None:
        """Change some bytes of a superblock."""
        place = (64 * KIB, 64 * MIB)[copy]
        block = peek(self._image, place, 4096)
        poke(self._image, place, with_checksum(block[:at] + data + block[at + len(data) :]))


def with_block_group_tree(image: Path) -> Path:
    """Move the block groups of a new file system into a tree of their own, as newer programs do."""
    editor = Editor(image)
    extents = editor.leaf(editor.root(2))
    space = editor.leaf(editor.root(10))
    groups = [item for item in extents if item[0][1] == 192]
    metadata = next(key for key, data in groups if struct.unpack_from("<QQQ", data)[2] & 4)
    free = [key for key, _ in space if key[1] == 199 and metadata[0] <= key[0] < metadata[0] + metadata[2]][
        -1
    ]
    new = free[0]
    space = [item for item in space if item[0] != free]
    space.append(((new + editor.node, 199, free[2] - editor.node), b""))
    used, *rest = struct.unpack("<QQQ", dict(groups)[metadata])
    counted = dict(groups) | {metadata: struct.pack("<QQQ", used + editor.node, *rest)}
    generation = field(image, "generation")
    reference = struct.pack("<QQQBQ", 1, generation, 2, 176, 11)
    roots = editor.leaf(editor.root(1))
    root = bytearray(dict(roots)[2, 132, 0])
    struct.pack_into("<Q", root, 176, new)
    editor.put_leaf(new, list(counted.items()), like=editor.root(2), owner=11)
    editor.change(10, space)
    editor.change(2, [item for item in extents if item[0][1] != 192] + [((new, 169, 0), reference)])
    editor.change(1, [*roots, ((11, 132, 0), bytes(root))])
    bytes_used, flags = field(image, "bytes_used") + editor.node, field(image, "compat_ro_flags") | 8
    for copy in (0, 1):
        editor.change_superblock(120, struct.pack("<Q", bytes_used), copy=copy)
        editor.change_superblock(180, struct.pack("<Q", flags), copy=copy)
    return image
