"""Disks that only a kernel reads right, taken while it was writing, and what its own mount shows of them."""

import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hotspare.units import KIB, MIB
from tests.guest.unused.garbage import FileFacts, facts_below, mounted, run

LATE = 5
"""Files that are written last, each with an fsync."""
_EXTENT = 4 * MIB
_FIRST_EXTENT = 1 * MIB
_PV_EXTENTS = 31
_LV_EXTENTS = 50
_LVM = (
    "backup{backup=0 archive=0} global{use_lvmpolld=0 event_activation=0} "
    "activation{udev_sync=0 udev_rules=0 monitoring=0}"
)
# Version 2; then tag, permissions and id of each: owner, user 1234, group, mask, others (posix_acl_xattr.h).
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in (
        (1, 7, 0xFFFFFFFF),
        (2, 5, 1234),
        (4, 5, 0xFFFFFFFF),
        (16, 5, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
)


@dataclass(frozen=True)
class Machine:
    """Disks of one machine by name, and the files of its volumes by the kernel's own mount of a copy."""

    disks: dict[str, Path]
    files: dict[str, dict[str, FileFacts]]
    contents: dict[str, str]


def make_machine(folder: Path) -> Machine:
    """Make a machine with XFS, Btrfs and ext4 that were not frozen, and a logical volume on two disks."""
    disks = {"vda": folder / "xfs.taken", "vdb": folder / "vdb", "vdc": folder / "vdc", "vdd": folder / "vdd"}
    xfs = _taken(folder / "xfs", 320 * MIB, "xfs", ["mkfs.xfs", "-q"], many=True)
    btrfs = _taken(folder / "btrfs", 160 * MIB, "btrfs", ["mkfs.btrfs", "-q"])
    ext4 = _taken(folder / "ext4", 64 * MIB, "ext4", ["mkfs.ext4", "-q", "-O", "inline_data", "-I", "256"])
    logical = _taken(folder / "lv", _LV_EXTENTS * _EXTENT, "ext4", ["mkfs.ext4", "-q"])
    _partitioned(disks["vdb"], [folder / "btrfs.taken", folder / "ext4.taken"])
    _logical_volume(folder / "lv.taken", disks["vdc"], disks["vdd"])
    return Machine(
        disks,
        {"vda": xfs, "vdb1": btrfs, "vdb2": ext4, "vg0/my-root": logical},
        {"vda": "xfs", "vdb1": "btrfs", "vdb2": "ext", "vg0/my-root": "ext"},
    )


def _taken(image: Path, size: int, kind: str, make: list[str], *, many: bool = False) -> dict[str, FileFacts]:
    """Copy a file system while it is mounted; give its files by a mount of another copy."""
    with image.open("wb") as file:
        file.truncate(size)
    run([*make, str(image)])
    taken, replayed = image.with_suffix(".taken"), image.with_suffix(".replayed")
    with mounted(image, kind) as root:
        if kind == "btrfs":
            _subvolumes(root)
        populate(root, many=many)
        run(["sync", "-f", str(root)])
        for number in range(LATE):
            _write(root / f"late-{number}", random.Random(number).randbytes(10 * KIB + number))
        for copy in (taken, replayed):
            run(["cp", "--sparse=always", str(image), str(copy)])
    with mounted(replayed, kind, *(["subvolid=5"] if kind == "btrfs" else [])) as root:
        return facts_below(root)


def populate(root: Path, *, many: bool = False) -> None:
    """Make files of all sorts."""
    chance = random.Random(5)
    _write(root / "big", chance.randbytes(6 * MIB + 123))
    with (root / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(8 * MIB)
        file.write(chance.randbytes(64 * KIB))
        file.truncate(24 * MIB)
    folder = root / "in" / "side"
    folder.mkdir(parents=True)
    for number in range(40):
        _write(folder / f"tiny {number}", chance.randbytes(chance.randrange(160)))
    for name in (b"not\xff\xfeutf8", b"new\nline", "Größe ∞".encode(), b"'quoted' \"$(name)\"", b"n" * 255):
        _write(folder / os.fsdecode(name), name)
    (root / "link").symlink_to("in/side")
    (root / "link-long").symlink_to("x/" * 500 + "x")
    (root / "link-broken").symlink_to(os.fsdecode(b"/no/\xff"))
    os.link(root / "big", root / "in" / "big-again")
    os.mkfifo(root / "fifo")
    os.mknod(root / "device", 0o600 | 0o020000, os.makedev(7, 300))
    odd = root / "odd"
    _write(odd, b"odd")
    os.chown(odd, 1234, 5678)
    odd.chmod(0o4751)
    os.setxattr(odd, "user.some", chance.randbytes(300))
    os.setxattr(odd, "system.posix_acl_access", _ACL)
    os.utime(odd, ns=(1, 981173106_123456789))
    if many:
        (root / "many").mkdir()
        for number in range(2300):
            os.link(odd, root / "many" / f"{number:04}{'m' * 240}")


def _subvolumes(root: Path) -> None:
    run(["btrfs", "subvolume", "create", str(root / "sub")])
    _write(root / "sub" / "file", b"in a subvolume")
    run(["btrfs", "subvolume", "snapshot", "-r", str(root / "sub"), str(root / "snapshot")])
    _write(root / "sub" / "file", b"in a subvolume, later")
    # What a mount shows by itself is not the top of the tree.
    run(["btrfs", "subvolume", "set-default", str(root / "sub")])


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put(source: Path, target: Path, at: int, *, skip: int = 0, length: int | None = None) -> None:
    """Copy a part of an image into another, without its holes."""
    words = [f"skip={skip}B", *([] if length is None else [f"count={length}B"])]
    names = [f"if={source}", f"of={target}", "bs=1M", f"seek={at}B"]
    run(["dd", *names, *words, "conv=notrunc,sparse", "status=none"])


def _partitioned(disk: Path, parts: list[Path]) -> None:
    with disk.open("wb") as file:
        file.truncate(sum(part.stat().st_size for part in parts) + (len(parts) + 2) * MIB)
    sizes = [part.stat().st_size // 512 for part in parts]
    script = disk.with_suffix(".script")
    script.write_text("label: gpt\n" + "".join(f"size={size}\n" for size in sizes))
    run(["sh", "-c", f"sfdisk -q {disk} < {script}"])
    at = MIB
    for part in parts:
        _put(part, disk, at)
        at += part.stat().st_size


def _logical_volume(image: Path, *disks: Path) -> None:
    with _loops(*disks) as devices:
        chosen = ["--config", _LVM, *(word for device in devices for word in ("--devices", device))]
        run(["pvcreate", "-q", *chosen, *devices])
        run(["vgcreate", "-q", *chosen, "vg0", *devices])
        options = ["--driverloaded", "n", "-an", "-Zn", "-Wn", "-l", str(_LV_EXTENTS), "-n", "my-root"]
        run(["lvcreate", "-q", *chosen, *options, "vg0"])
        columns = ["--noheadings", "-o", "seg_pe_ranges"]
        segments = run(["lvs", *chosen, "--driverloaded", "n", "--segments", *columns, "vg0"])
    last = _LV_EXTENTS - _PV_EXTENTS - 1
    assert segments.split() == [f"{devices[0]}:0-{_PV_EXTENTS - 1}", f"{devices[1]}:0-{last}"]
    first = _PV_EXTENTS * _EXTENT
    _put(image, disks[0], _FIRST_EXTENT, length=first)
    _put(image, disks[1], _FIRST_EXTENT, skip=first)


@contextmanager
def _loops(*disks: Path) -> Iterator[list[str]]:
    devices: list[str] = []
    try:
        for disk in disks:
            with disk.open("wb") as file:
                file.truncate((_PV_EXTENTS + 1) * _EXTENT)
            devices.append(run(["losetup", "--find", "--show", str(disk)]).strip())
        yield devices
    finally:
        for device in devices:
            run(["losetup", "--detach", device])
