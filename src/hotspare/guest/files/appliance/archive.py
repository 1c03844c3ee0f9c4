"""Writes the "newc" archives that the kernel unpacks as its first root file system.

Format: "initramfs buffer format" in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from pathlib import PurePosixPath

_CONSOLE = (5, 1)


class Archive:
    """An archive in the making. Everything belongs to root; the folders above a file come by themselves."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}

    def folder(self, path: str) -> None:
        """Add a folder, given as an absolute path like all others."""
        self._add(path, stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, content: bytes, *, executable: bool = False) -> None:
        """Add a file."""
        self._add(path, stat.S_IFREG | (0o755 if executable else 0o644), content)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def console(self) -> None:
        """Add the device that the kernel opens as standard input and output of its first program."""
        self._add("/dev/console", stat.S_IFCHR | 0o600, b"", device=_CONSOLE)

    def to_bytes(self) -> bytes:
        """Give the whole archive."""
        return b"".join(self._entries.values()) + _record("TRAILER!!!", 0, 0, b"", (0, 0))

    def _add(self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        inside = PurePosixPath(path.lstrip("/"))
        for folder in reversed(inside.parents[:-1]):
            if str(folder) not in self._entries:
                self._add(str(folder), stat.S_IFDIR | 0o755, b"")
        self._entries[str(inside)] = _record(str(inside), len(self._entries) + 1, mode, content, device)


def _record(name: str, inode: int, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    path = name.encode() + b"\0"
    # Inode, mode, uid, gid, links, time, size, disk (2), device (2), length of the name, checksum.
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
    head = b"070701" + "".join(f"{number:08X}" for number in numbers).encode() + path
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
