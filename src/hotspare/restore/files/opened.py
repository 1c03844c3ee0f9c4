"""Opening the files of a restore point, straight from the repository."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hotspare.block.device import BlockReader
from hotspare.errors import FileSystemUnreadable, HotspareError, PlatformUnavailable
from hotspare.guest.files.appliance.appliance import Appliance
from hotspare.guest.files.appliance.machine import Accelerator
from hotspare.guest.files.by_path import FilesByPath
from hotspare.guest.files.file_system import FileContent, FileEntry, FileSystem, NeedsAppliance
from hotspare.guest.files.machine import MachineFiles
from hotspare.guest.files.opening import open_file_system
from hotspare.guest.volumes.find import find_volumes
from hotspare.guest.volumes.reader import VolumeReader
from hotspare.guest.volumes.volume import Volume
from hotspare.platforms.libvirt.kvm import kvm_problem
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.restore.files.read_ahead import ReadAhead

ApplianceUse = Literal["auto", "never", "always"]


WITHOUT_FILES = frozenset({"", "swap", "lvm", "luks", "bitlocker", "mdraid"})
"""Contents of volumes that nobody expects files of."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How file systems are read."""

    cache: Path
    """Folder for the micro-VM's own parts."""
    appliance: ApplianceUse = "auto"
    """``auto``: in process where that is proven to be right, else by the kernel of the micro-VM."""

    @staticmethod
    def accelerator() -> Accelerator:
        """Say how the micro-VM runs: by KVM where that works."""
        return "tcg" if kvm_problem() else "kvm"


@contextmanager
def opened_files(repository: Repository, point: RestorePoint, opening: Opening) -> Iterator[FilesByPath]:
    """Give the files of a restore point; nothing of it is read that is not asked for.

    Raises:
        RepositoryDamaged, StorageError: the repository cannot be read.
    """
    with ExitStack() as stack:
        disks: dict[str, BlockReader] = {}
        for disk in point.disks:
            disks[disk.name] = ReadAhead(repository.disk(disk))
            stack.callback(disks[disk.name].close)
        found = find_volumes(disks)
        volumes = _Volumes(disks, opening, stack)
        machine = MachineFiles(found.volumes, volumes.open)
        stack.callback(machine.close)
        yield FilesByPath(machine, tuple(found.unreadable), tuple(found.remarks))


@contextmanager
def mountable_volumes(
    repository: Repository, point: RestorePoint, opening: Opening
) -> Iterator[dict[str, Callable[[], FileSystem]]]:
    """Give what opens each volume that may have files, by its name, for a thread of its own.

    Raises:
        RepositoryDamaged, StorageError: the repository cannot be read.
    """
    with ExitStack() as stack:
        disks: dict[str, BlockReader] = {disk.name: repository.disk(disk) for disk in point.disks}
        volumes = _Volumes(disks, opening, stack)
        found = [one for one in find_volumes(disks).volumes if one.content not in WITHOUT_FILES]
        yield {volume.name: _opener(volumes, volume, disks) for volume in found}


def _opener(
    volumes: "_Volumes", volume: Volume, disks: Mapping[str, BlockReader]
) -> Callable[[], FileSystem]:
    def open_own() -> FileSystem:
        own: dict[str, BlockReader] = {name: ReadAhead(disks[name].clone()) for name in volume.layout.disks}
        with ExitStack() as stack:
            for disk in own.values():
                stack.callback(disk.close)
            return _Owning(volumes.open(volume, own), stack.pop_all())

    return open_own


class _Owning:
    """A file system that is closed together with the disks that it is read from."""

    def __init__(self, files: FileSystem, stack: ExitStack) -> None:
        self.kind = files.kind
        self.remarks = files.remarks
        self._files = files
        self._stack = stack

    def entry(self, path: str) -> FileEntry:
        return self._files.entry(path)

    def entries(self, folder: str) -> Iterator[FileEntry]:
        return self._files.entries(folder)

    def walk(self, folder: str = "/") -> Iterator[FileEntry]:
        return self._files.walk(folder)

    def open(self, path: str, stream: str = "") -> FileContent:
        return self._files.open(path, stream)

    def attributes(self, path: str) -> dict[str, bytes]:
        return self._files.attributes(path)

    def close(self) -> None:
        self._files.close()
        self._stack.close()


class _Volumes:
    """Opens volumes in one of the two ways; the micro-VM is started when it is first needed. Thread-safe."""

    def __init__(self, disks: Mapping[str, BlockReader], opening: Opening, stack: ExitStack) -> None:
        self._lock = threading.Lock()
        self._disks = disks
        self._opening = opening
        self._stack = stack
        self._appliance: Appliance | None = None
        self._failure: HotspareError | None = None

    def open(self, volume: Volume, disks: Mapping[str, BlockReader] | None = None) -> FileSystem:
        if self._opening.appliance == "always":
            return self._in_appliance(volume, "--appliance always says so")
        try:
            return open_file_system(volume, VolumeReader(volume.layout, disks or self._disks))
        except NeedsAppliance as error:
            if self._opening.appliance == "never":
                raise FileSystemUnreadable(
                    f"{volume.name} cannot be read in process, because {error.reason}",
                    meaning="Nothing is wrong with the restore point",
                    hint="Leave out --appliance never: the kernel of an isolated virtual machine can read it",
                ) from error
            return self._in_appliance(volume, error.reason)

    def _in_appliance(self, volume: Volume, reason: str) -> FileSystem:
        try:
            appliance = self._launched()
        except PlatformUnavailable as error:
            raise FileSystemUnreadable(
                f"{volume.name} has to be read by the kernel of the micro-VM, because {reason}, and that"
                f" cannot be started: {error.what}",
                meaning="Nothing is wrong with the restore point",
                hint=error.hint or "See what hotspare doctor says of the micro-VM",
            ) from error
        return appliance.open(volume.name, content=volume.content, size=volume.size)

    def _launched(self) -> Appliance:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._appliance is None:
                try:
                    accelerator = self._opening.accelerator()
                    launched = Appliance.launch(
                        self._disks, cache=self._opening.cache, accelerator=accelerator
                    )
                except HotspareError as error:
                    self._failure = error
                    raise
                self._appliance = self._stack.enter_context(launched)
            return self._appliance
