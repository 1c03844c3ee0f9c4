"""A machine that is backed up again and again, each restore point compared with the disk byte by byte."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hotspare import events
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.block.ranges import blank
from hotspare.cancellation import Cancellation
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import Consistency, Machine, Platform, Snapshot, SnapshotRequest
from hotspare.repository.keys.keychest import new_key_file
from hotspare.repository.left_out import left_out_of
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.units import KIB
from tests.platforms.disk_content import whole_disk

Reasons = dict[str, str | None]
"""Per disk: why it was read in full; None for an increment."""


def new_repository(folder: Path) -> Repository:
    return Repository.create(LocalBackend(folder), new_key_file(), chunk_size=64 * KIB)


class WitnessedPlatform:
    """Reads every disk of each frozen view whole, before the engine reads only what it wants of it."""

    def __init__(self, inner: Platform) -> None:
        self._inner = inner
        self.witness: dict[str, bytes] = {}
        self.during: Callable[[], None] | None = None
        """Called when the view is frozen, before the engine reads."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    @contextmanager
    def open_snapshot(
        self, machine: Machine, request: SnapshotRequest, cancellation: Cancellation
    ) -> Iterator[Snapshot]:
        with self._inner.open_snapshot(machine, request, cancellation) as snapshot:
            self.witness = {disk.name: whole_disk(snapshot, disk.name) for disk in snapshot.disks}
            if self.during is not None:
                self.during()
            yield snapshot


class Protected:
    """A machine and a repository for it."""

    def __init__(self, platform: LibvirtPlatform, name: str, repository: Repository) -> None:
        self.platform = WitnessedPlatform(platform)
        self.name = name
        self.repository = repository
        self.point: RestorePoint | None = None
        """The newest."""

    @property
    def prefix(self) -> str:
        return f"hotspare-{self.repository.id[:8]}-"

    @property
    def mark(self) -> str:
        """The name of the newest point's checkpoint and bitmaps."""
        assert self.point is not None
        return self.prefix + self.point.id

    def back_up(self, *, percent: float = 0, during: Callable[[], None] | None = None) -> Reasons:
        """Make a restore point; check that it holds what the disks held at that instant."""
        self.platform.during = during
        options = BackupOptions(consistency=Consistency.CRASH, check_tracking=percent)
        platform: Platform = self.platform  # type: ignore[assignment] # what it lacks, it passes on
        self.point = backup_machine(
            self.repository, platform, self.name, options, events.ignore, Cancellation()
        )
        assert {disk.name for disk in self.point.disks} == self.platform.witness.keys()
        for disk, frozen in self.platform.witness.items():
            assert self.content(disk) == self.without_unused(disk, frozen), f"{disk} is not what it was"
        return {disk.name: disk.full_because for disk in self.point.disks}

    def content(self, disk: str) -> bytes:
        """Give a disk as the newest point has it."""
        assert self.point is not None
        (wanted,) = [one for one in self.point.disks if one.name == disk]
        buffer = bytearray(wanted.size)
        self.repository.disk(wanted).read_into(0, memoryview(buffer))
        return bytes(buffer)

    def without_unused(self, disk: str, content: bytes) -> bytes:
        """Put zeroes over what the newest point says was left out of a disk, as no file system needs it."""
        assert self.point is not None
        (wanted,) = [one for one in self.point.disks if one.name == disk]
        left_out = left_out_of(self.repository, self.point, wanted)
        assert left_out.total == wanted.bytes_unused
        blanked = bytearray(content)
        blank(left_out, 0, memoryview(blanked))
        return bytes(blanked)

    def assert_same_as(self, image: Path, scratch: Path, disk: str = "vda") -> None:
        """Compare the newest point with an image that nobody uses, which qemu-img reads."""
        raw = scratch / "cold.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
        assert self.content(disk) == self.without_unused(disk, raw.read_bytes())
        raw.unlink()


def bitmaps_of(image: Path) -> list[str]:
    """List the bitmaps in an image that nobody uses."""
    info = subprocess.run(["qemu-img", "info", image], check=True, capture_output=True, text=True).stdout
    return sorted(line.split("name:")[1].strip() for line in info.splitlines() if "name: hotspare" in line)
