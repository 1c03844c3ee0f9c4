"""Volume groups made by LVM2 on loop devices. The kernel needs a device mapper only for using them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hotspare.guest.volumes.find import FoundVolumes
from hotspare.units import MIB
from tests.guest.volumes.images import image, read, run

UUID = "{:06d}-aaaa-bbbb-cccc-dddd-eeee-ffffff"
Segments = Sequence[tuple[int, str, str]]
"""For each segment: extents, type, and lines of its own."""


SIZES = {"vda": 64 * MIB, "vdb": 64 * MIB, "vdc": 40 * MIB}
EXTENT = 1 * MIB


class Lvm:
    """Runs LVM2's programs so that they see some devices and nothing else of the host."""

    def __init__(self, devices: dict[str, str]) -> None:
        self.devices = devices
        """By the names of the disks."""
        accepted = "".join(f'"a|^{device}$|",' for device in devices.values())
        self._options = [
            "--driverloaded=n",
            f'--config=devices {{ filter=[{accepted} "r|.*|"] use_devicesfile=0 hints="none" '
            'obtain_device_list_from_udev=0 external_device_info_source="none" } '
            "backup { backup=0 archive=0 } activation { udev_sync=0 udev_rules=0 }",
        ]

    def __call__(self, program: str, *arguments: str | Path) -> str:
        return run("env", "LVM_SUPPRESS_FD_WARNINGS=1", program, *self._options, *arguments)

    def report(self, program: str, columns: str) -> list[dict[str, str]]:
        """Give the rows of ``pvs`` or ``lvs``, numbers in bytes."""
        options = ["--segments", "--units=b", "--nosuffix", "--reportformat=json", f"--options={columns}"]
        report: dict[str, Any] = json.loads(self(program, *options, *(["--all"] if program == "lvs" else [])))
        (rows,) = report["report"][0].values()
        return list(rows)

    def create(self, name: str, *options: str, on: str = "") -> None:
        """Create a logical volume in the group ``hs``, on a disk of choice."""
        plain = ["--activate=n", "--zero=n", "--wipesignatures=n", "--yes", f"--name={name}"]
        self("lvcreate", *plain, *options, "hs", *([self.devices[on]] if on else []))

    def restore(self, folder: Path, *logical_volumes: str) -> None:
        """Give the group ``hs`` other logical volumes, written by hand; LVM2 checks them."""
        saved = folder / "saved"
        self("vgcfgbackup", f"--file={saved}", "hs")
        head, found, _ = saved.read_text().partition("\tlogical_volumes {")
        head = head if found else head.rstrip().removesuffix("}")
        saved.write_text(head + "logical_volumes {\n" + "\n".join(logical_volumes) + "\n}\n}\n")
        self("vgcfgrestore", "--force", "--yes", f"--file={saved}", "hs")


def logical_volume(number: int, name: str, segments: Segments, *, visible: bool = True) -> str:
    """Write the text of a logical volume."""
    status = '"READ", "WRITE"' + (', "VISIBLE"' if visible else "")
    lines = [f'{name} {{\nid = "{UUID.format(number)}"\nstatus = [{status}]\nflags = []']
    lines.append(f"segment_count = {len(segments)}")
    start = 0
    for position, (count, kind, body) in enumerate(segments, start=1):
        lines.append(f'segment{position} {{\nstart_extent = {start}\nextent_count = {count}\ntype = "{kind}"')
        lines.append(body + "\n}")
        start += count
    return "\n".join([*lines, "}"])


def linear(count: int, first: int, volume: str = "pv0") -> tuple[int, str, str]:
    return count, "striped", f'stripe_count = 1\nstripes = [ "{volume}", {first} ]'


Group = tuple[Lvm, dict[str, Path]]
"""LVM2, and the images of the disks."""


@contextmanager
def attached(disks: dict[str, tuple[Path, int, int]]) -> Iterator[dict[str, str]]:
    """Make loop devices of parts of images, given as path, offset and size."""
    with ExitStack() as stack:
        devices = {}
        for name, (path, offset, size) in disks.items():
            part = [f"--offset={offset}", f"--sizelimit={size}"]
            devices[name] = run("losetup", "--find", "--show", *part, path).strip()
            stack.callback(run, "losetup", "--detach", devices[name])
        yield devices


@contextmanager
def volume_group(
    folder: Path, sizes: dict[str, int], *options: str, physical: tuple[str, ...] = ()
) -> Iterator[tuple[Lvm, dict[str, Path]]]:
    """Make the group ``hs`` on whole disks; ``options`` are those of vgcreate, ``physical`` of pvcreate."""
    paths = {name: image(folder / name, size) for name, size in sizes.items()}
    with attached({name: (path, 0, sizes[name]) for name, path in paths.items()}) as devices:
        lvm = Lvm(devices)
        lvm("pvcreate", *physical, *devices.values())
        lvm("vgcreate", *options, "hs", *devices.values())
        yield lvm, paths


def reasons(found: FoundVolumes) -> dict[str, str]:
    return {volume.name: volume.reason for volume in found.unreadable}


def free(found: FoundVolumes) -> dict[str, list[tuple[int, int]]]:
    return {disk: list(ranges) for disk, ranges in found.unused.items()}


def free_by_pvs(lvm: Lvm) -> dict[str, list[tuple[int, int]]]:
    """Give the free extents of each disk, as ``pvs`` prints them."""
    disks = {device: disk for disk, device in lvm.devices.items()}
    columns = "pv_name,lv_name,pvseg_start,pvseg_size,pe_start,vg_extent_size"
    found: dict[str, list[tuple[int, int]]] = {}
    for row in lvm.report("pvs", columns):
        if not row["lv_name"]:
            extent, first = int(row["vg_extent_size"]), int(row["pe_start"])
            start = first + int(row["pvseg_start"]) * extent
            found.setdefault(disks[row["pv_name"]], []).append(
                (start, start + int(row["pvseg_size"]) * extent)
            )
    return {disk: sorted(runs) for disk, runs in found.items()}


def text_of(path: Path) -> tuple[int, int]:
    """Give place and length of the metadata that counts, in the first area."""
    header = read(path, 4096, 512)
    offset, length = int.from_bytes(header[40:48], "little"), int.from_bytes(header[48:56], "little")
    return 4096 + offset, length


def with_checksum(area: bytearray) -> bytes:
    area[:4] = lvm_checksum(bytes(area[4:512])).to_bytes(4, "little")
    return bytes(area)


def lvm_checksum(data: bytes) -> int:
    """Compute LVM2's checksum bit by bit."""
    crc = 0xF597A6CF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc
