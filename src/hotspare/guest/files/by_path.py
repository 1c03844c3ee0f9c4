"""All files of a machine by the paths that users write, as one file system of the contract."""

from collections.abc import Iterator
from contextlib import suppress

import msgspec

from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileContent, FileEntry
from hotspare.guest.files.machine import MachineFiles
from hotspare.guest.files.tree import Tree
from hotspare.guest.volumes.volume import UnreadableVolume, Volume


class FilesByPath:
    """``/etc/hosts`` as the machine sees it, and ``vda1:/hosts`` in one of its volumes.

    Args:
        machine: finds volumes; closed with this.
        unreadable: volumes that are there, and cannot be read.
        remarks: what people should know of the disks.
    """

    kind = "machine"

    def __init__(
        self,
        machine: MachineFiles,
        unreadable: tuple[UnreadableVolume, ...] = (),
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.unreadable = unreadable
        self.remarks = remarks
        self._machine = machine

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """All volumes of the machine, those without files included."""
        return self._machine.volumes

    @property
    def all_remarks(self) -> tuple[str, ...]:
        """What people should know, also of how the tree was put together; grows as volumes are opened."""
        return (*self.remarks, *self._machine.remarks)

    def places(self) -> dict[str, tuple[str, ...]]:
        """Tell by volume where the machine mounts it; empty when that cannot be told."""
        found: dict[str, tuple[str, ...]] = {}
        with suppress(FileSystemUnreadable, PathNotFound):
            for mount in self._machine.tree().mounts:
                found[mount.volume.name] = (*found.get(mount.volume.name, ()), mount.point)
        return found

    def roots(self) -> list[str]:
        """Give the folders below which everything is: ``/``, and volumes that are nowhere in it."""
        places = self.places()
        others = [f"{volume.name}:/" for volume in self.volumes if volume.name not in places]
        return [*(["/"] if places else []), *others]

    def locate(self, path: str) -> tuple[Tree, str, str]:
        """Give the tree that a path means, the path in it, and what stands before that."""
        tree, inner = self._machine.locate(path)
        if path.startswith("/"):
            return tree, inner, ""
        name = path.partition(":")[0]
        return tree, inner, f"{name}:" if name in {volume.name for volume in self.volumes} else ""

    def entry(self, path: str) -> FileEntry:
        """Describe one path; see the contract."""
        tree, inner, before = self.locate(path)
        return _named(tree.entry(inner), before)

    def entries(self, folder: str) -> Iterator[FileEntry]:
        """Yield what is in a folder; see the contract."""
        tree, inner, before = self.locate(folder)
        return (_named(entry, before) for entry in tree.entries(inner))

    def walk(self, folder: str = "/") -> Iterator[FileEntry]:
        """Yield everything below a folder; see the contract."""
        tree, inner, before = self.locate(folder)
        return (_named(entry, before) for entry in tree.walk(inner))

    def open(self, path: str, stream: str = "") -> FileContent:
        """Open a file's content; see the contract."""
        tree, inner, _ = self.locate(path)
        return tree.open(inner, stream)

    def attributes(self, path: str) -> dict[str, bytes]:
        """Give extended attributes; see the contract."""
        tree, inner, _ = self.locate(path)
        return tree.attributes(inner)

    def close(self) -> None:
        """Close all volumes; a second call does nothing."""
        self._machine.close()


def _named(entry: FileEntry, before: str) -> FileEntry:
    if not before:
        return entry
    return msgspec.structs.replace(entry, path=before + entry.path, volume=before[:-1])
