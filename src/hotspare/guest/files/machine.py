"""The files of a machine: its volumes by name, and all of them as the machine itself sees them."""

import re
from collections.abc import Sequence

from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileSystem
from hotspare.guest.files.fstab import SIZE_MAX, FstabLine, parse_fstab, volume_of
from hotspare.guest.files.tree import Mount, OpenVolume, Tree
from hotspare.guest.volumes.volume import Volume

_ROOT_KINDS = ("ext", "btrfs", "xfs")
"""What the root of Linux may be, those first that are opened without an appliance."""
_SUBVOLUMES = ("", "/@", "/root", "/@rootfs")
"""Where distributions put their root within Btrfs."""
_PLAIN_KINDS = (*_ROOT_KINDS, "ntfs", "fat", "exfat")
_DRIVE = re.compile(r"([A-Za-z]):(?:[/\\]|$)")


class MachineFiles:
    """Finds files by what users write: ``vda1:/etc/hosts``, ``vg0/root:/etc``, ``/etc/hosts``, ``C:/Users``.

    Args:
        volumes: of all disks of the machine.
        open_volume: opens one of them, in process or by the appliance; asked once for each.
    """

    def __init__(self, volumes: Sequence[Volume], open_volume: OpenVolume) -> None:
        self.volumes = tuple(volumes)
        self.remarks: list[str] = []
        """What people should know of how the tree was put together."""
        self._open_one = open_volume
        self._opened: dict[str, FileSystem | FileSystemUnreadable] = {}
        self._tree: Tree | None = None
        self._drive = ""

    def locate(self, text: str) -> tuple[Tree, str]:
        """Give the tree that a user's path means, and the absolute path in it.

        Raises:
            PathNotFound: there is no such volume, or not one volume alone that could be meant.
            FileSystemUnreadable: the volume cannot be read.
        """
        name, colon, path = text.partition(":")
        if text in {volume.name for volume in self.volumes}:
            return self.volume(text), "/"
        if colon and name in {volume.name for volume in self.volumes}:
            return self.volume(name), _absolute(path)
        drive = _DRIVE.match(text)
        if drive:
            tree = self.tree()
            if drive[1].upper() != self._drive:
                raise self._unknown(f"There is no drive {drive[1].upper()}:")
            return tree, _absolute(text[2:].replace("\\", "/"))
        if text.startswith("/"):
            return self.tree(), _absolute(text)
        raise self._unknown(f"There is no volume that {text!r} would lie in")

    def volume(self, name: str) -> Tree:
        """Give one volume alone."""
        for volume in self.volumes:
            if volume.name == name:
                return Tree([Mount("/", volume)], self._open)
        raise self._unknown(f"There is no volume {name!r}")

    def tree(self) -> Tree:
        """Give all volumes as the machine sees them; see ``locate`` for errors."""
        if self._tree is None:
            self._tree = self._linux() or self._windows() or self._lone()
        return self._tree

    def close(self) -> None:
        """Close all volumes that were opened."""
        for file_system in self._opened.values():
            if not isinstance(file_system, FileSystemUnreadable):
                file_system.close()
        self._opened.clear()
        self._tree = None

    def _open(self, volume: Volume) -> FileSystem:
        found = self._opened.get(volume.name)
        if found is None:
            try:
                found = self._open_one(volume)
            except FileSystemUnreadable as error:
                found = error
            self._opened[volume.name] = found
        if isinstance(found, FileSystemUnreadable):
            raise found
        return found

    def _linux(self) -> Tree | None:
        """Find the volume with an ``/etc/fstab``, and mount the others where that says."""
        roots = sorted(
            (volume for volume in self.volumes if volume.content in _ROOT_KINDS),
            key=lambda volume: _ROOT_KINDS.index(volume.content),
        )
        for volume in roots:
            for folder in _SUBVOLUMES if volume.content == "btrfs" else ("",):
                root = Mount("/", volume, folder)
                text = self._fstab(root)
                if text is not None:
                    return Tree(list(self._mounted(root, text).values()), self._open)
        return None

    def _fstab(self, root: Mount) -> str | None:
        try:
            content = Tree([root], self._open).open("/etc/fstab")
        except PathNotFound:
            return None
        except FileSystemUnreadable as error:
            self.remarks.append(f"{root.volume.name} was not looked at: {error.what}")
            return None
        try:
            return content.read(0, SIZE_MAX).decode(errors="surrogateescape")
        finally:
            content.close()

    def _mounted(self, root: Mount, fstab: str) -> dict[str, Mount]:
        mounts = {"/": root}
        for line in parse_fstab(fstab):
            if line.point == "/":
                continue
            volume = volume_of(line.source, self.volumes)
            if volume is None:
                self.remarks.append(f"{line.point} is empty here: {line.source} is not among the volumes")
                continue
            mounts[line.point] = Mount(line.point, volume, self._subvolume(line, volume, root))
        return mounts

    def _subvolume(self, line: FstabLine, volume: Volume, root: Mount) -> str:
        if not line.subvolume:
            return ""
        folder = f"/{line.subvolume}"
        if volume is root.volume:
            try:
                if self._open(volume).entry(folder).kind == "folder":
                    return folder
            except (PathNotFound, FileSystemUnreadable):
                pass
        self.remarks.append(f"{line.point} shows all of {volume.name}: its subvolume is not told apart")
        return ""

    def _windows(self) -> Tree | None:
        """Find the volume that Windows starts from: drive C for certain enough."""
        for volume in self.volumes:
            if volume.content != "ntfs":
                continue
            try:
                self._open(volume).entry("/Windows/System32")
            except PathNotFound:
                continue
            except FileSystemUnreadable as error:
                self.remarks.append(f"{volume.name} was not looked at: {error.what}")
                continue
            self._drive = "C"
            return Tree([Mount("/", volume)], self._open)
        return None

    def _lone(self) -> Tree:
        with_files = [volume for volume in self.volumes if volume.content in _PLAIN_KINDS]
        if len(with_files) != 1:
            raise self._unknown("No volume has an /etc/fstab or a Windows to tell what its / is")
        self._drive = "C" if with_files[0].content in {"ntfs", "fat", "exfat"} else ""
        return Tree([Mount("/", with_files[0])], self._open)

    def _unknown(self, what: str) -> PathNotFound:
        names = ", ".join(volume.name for volume in self.volumes if volume.content in _PLAIN_KINDS)
        reasons = f" ({'; '.join(self.remarks)})" if self.remarks else ""
        return PathNotFound(
            what + reasons,
            hint=f"Name the volume before the path, as in vda1:/etc. There are: {names or 'none with files'}",
        )


def _absolute(path: str) -> str:
    return "/" + path.strip("/")
