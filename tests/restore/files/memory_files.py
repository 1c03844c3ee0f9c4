"""A file system in memory, as good or as hostile as a test wants it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileEntry

MODIFIED = 1_700_000_000_123_456_789


@dataclass
class MemoryContent:
    data: bytes
    size: int
    runs: list[tuple[int, int]]
    fails_at: int | None = None

    def read(self, offset: int, length: int) -> bytes:
        if self.fails_at is not None and offset + length > self.fails_at:
            raise FileSystemUnreadable("a block of it cannot be read")
        return self.data[offset : offset + length]

    def holes(self) -> Iterator[tuple[int, int]]:
        return iter(self.runs)

    def close(self) -> None:
        pass


@dataclass
class MemoryFiles:
    """Entries in the order in which they are added; nothing is checked."""

    kind: str = "memory"
    remarks: tuple[str, ...] = ()
    known: list[FileEntry] = field(default_factory=list)
    contents: dict[tuple[str, str], bytes] = field(default_factory=dict)
    holes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    extended: dict[str, dict[str, bytes]] = field(default_factory=dict)
    fails_at: dict[str, int] = field(default_factory=dict)
    broken_folders: set[str] = field(default_factory=set)
    opened: int = 0

    def __post_init__(self) -> None:
        self.add("/", "folder")

    def add(self, path: str, kind: Any = "file", content: bytes = b"", **more: Any) -> FileEntry:
        streams = more.pop("streams", {})
        fields: dict[str, Any] = {"mode": 0o755 if kind == "folder" else 0o644, "uid": 0, "gid": 0}
        fields |= {"modified": MODIFIED, "size": len(content), "inode": len(self.known) + 2} | more
        entry = FileEntry(path=path, kind=kind, streams=tuple(streams), **fields)
        self.known.append(entry)
        self.contents.setdefault((path, ""), content)
        for name, inner in streams.items():
            self.contents[path, name] = inner
        return entry

    def entry(self, path: str) -> FileEntry:
        wanted = path.rstrip("/") or "/"
        for entry in self.known:
            if entry.path == wanted:
                return entry
        raise PathNotFound(f"There is no {path}")

    def entries(self, folder: str) -> Iterator[FileEntry]:
        if self.entry(folder).kind != "folder":
            raise PathNotFound(f"{folder} is no folder")
        prefix = folder.rstrip("/") + "/"
        for entry in self.known:
            if entry.path != "/" and entry.path.startswith(prefix) and "/" not in entry.path[len(prefix) :]:
                yield entry
        if folder in self.broken_folders:
            raise FileSystemUnreadable("a block of the folder cannot be read")

    def walk(self, folder: str = "/") -> Iterator[FileEntry]:
        for entry in self.entries(folder):
            yield entry
            if entry.kind == "folder":
                yield from self.walk(entry.path)

    def open(self, path: str, stream: str = "") -> MemoryContent:
        self.opened += 1
        data = self.contents[path, stream]
        return MemoryContent(data, len(data), self.holes.get(path, []), self.fails_at.get(path))

    def attributes(self, path: str) -> dict[str, bytes]:
        return self.extended.get(path, {})

    def close(self) -> None:
        pass
