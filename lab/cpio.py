"""Writes the "newc" archives that the kernel unpacks as its first root file system.

Format: "initramfs buffer format" in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from pathlib import PurePosixPath


class Archive:
    """An archive in the making; all entries belong to root, parent folders come by themselves."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes]] = {}

    def folder(self, path: str) -> None:
        """Add a folder, given as an absolute path like all others."""
        self._add(path, stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, content: bytes, *, executable: bool = False) -> None:
        """Add a regular file."""
        self._add(path, stat.S_IFREG | (0o755 if executable else 0o644), content)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def to_bytes(self) -> bytes:
        """Give the whole archive."""
        entries = [*self._entries.items(), ("TRAILER!!!", (0, b""))]
        return b"".join(_entry(number, name, *entry) for number, (name, entry) in enumerate(entries, 1))

    def _add(self, path: str, mode: int, content: bytes) -> None:
        name = path.strip("/")
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            self._entries.setdefault(str(parent), (stat.S_IFDIR | 0o755, b""))
        self._entries[name] = (mode, content)


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    owner, links, modified, device, checksum = (0, 0), 1, 0, (0, 0, 0, 0), 0
    numbers = (number, mode, *owner, links, modified, len(content), *device, len(encoded), checksum)
    header = b"070701" + b"".join(b"%08X" % field for field in numbers)
    return _padded(header + encoded) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
