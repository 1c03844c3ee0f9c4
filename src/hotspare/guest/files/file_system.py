"""The contract of whatever reads the files of a volume.

Names are ``str`` with bytes that are no UTF-8 as surrogates (``os.fsdecode``). Paths are absolute within the
volume, ``/`` alone is its root, components are separated by ``/`` and never ``.`` or ``..``. What comes from
a guest's disk is not believed: loops, sizes and counts are bounded, and whatever is wrong becomes
``FileSystemUnreadable``.
"""

import stat
from collections.abc import Iterator
from typing import Literal, Protocol

import msgspec

from hotspare.errors import FileSystemUnreadable


class NeedsAppliance(FileSystemUnreadable):
    """A file system that is not read in process: a kernel's driver has to, in a machine of its own.

    Args:
        kind: ``xfs``, ``ext4``…
        reason: for people, to follow "because": "its journal has to be replayed".
    """

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        self.reason = reason
        super().__init__(
            f"This {kind} file system cannot be read in process, because {reason}",
            meaning="Nothing is wrong with the restore point",
            hint="It can be read by the Linux kernel of the appliance, an isolated virtual machine",
        )


Kind = Literal["file", "folder", "link", "block-device", "character-device", "fifo", "socket"]


KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFBLK: "block-device",
    stat.S_IFCHR: "character-device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
"""By the type bits of a mode."""
TYPES: dict[Kind, int] = {kind: bits for bits, kind in KINDS.items()}
"""The same the other way."""


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One name in a folder, with what it leads to."""

    path: str
    kind: Kind
    size: int
    """Bytes of content; of a link: of its target; 0 for folders and devices."""
    modified: int
    """Nanoseconds since 1970, UTC; within 64 bits, so never before 1677."""
    mode: int | None = None
    """Permission bits with set-id and sticky ones; None where the file system has none."""
    uid: int | None = None
    gid: int | None = None
    inode: int
    """Number within the volume: two names of one inode (and one ``volume``) are hard links."""
    links: int = 1
    """Names that the inode has."""
    target: str = ""
    """Of a link."""
    device: tuple[int, int] | None = None
    """Major and minor number of a device."""
    streams: tuple[str, ...] = ()
    """Names of further contents (NTFS: alternate data streams)."""
    volume: str = ""
    """Name of the volume, where several are shown as one tree; empty in the view of a single one."""

    @property
    def name(self) -> str:
        """Its last component; empty for the root."""
        return self.path.rpartition("/")[2]


class FileContent(Protocol):
    """The content of one open file."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from ``offset``: fewer than ``length`` only where the file ends before."""
        ...

    def holes(self) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of runs that are not stored and read as zeroes, as far as known, in order."""
        ...

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        ...


class FileSystem(Protocol):
    """A mounted-like view of one volume, read-only. An instance belongs to one thread at a time."""

    kind: str
    """``ext4``, ``ntfs``…"""
    remarks: tuple[str, ...]
    """What people should know of what they see: that it was not closed cleanly, how its times are meant."""

    def entry(self, path: str) -> FileEntry:
        """Describe one path; a link itself, not where it leads. Raises ``PathNotFound``."""
        ...

    def entries(self, folder: str) -> Iterator[FileEntry]:
        """Yield what is in a folder, without ``.`` and ``..``, in no order. Raises ``PathNotFound``.

        What is damaged is left out, and ``FileSystemUnreadable`` raised after everything else was given.
        """
        ...

    def walk(self, folder: str = "/") -> Iterator[FileEntry]:
        """Yield everything below a folder, without itself: each folder before what is in it.

        What cannot be read raises ``FileSystemUnreadable``; whoever wants the rest asks for ``entries``.
        """
        ...

    def open(self, path: str, stream: str = "") -> FileContent:
        """Open a file's content, or one of its further streams. Raises ``PathNotFound``.

        Folders, links and devices have no content: ``FileSystemUnreadable``.
        """
        ...

    def attributes(self, path: str) -> dict[str, bytes]:
        """Give the extended attributes as ``getxattr`` would: access control lists in the kernel's form."""
        ...

    def close(self) -> None:
        """Let go of the volume; a second call does nothing."""
        ...
