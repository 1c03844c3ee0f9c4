"""A file system in memory, for tests of what is above file systems."""

from collections.abc import Iterator
from typing import NamedTuple

from hotspare.guest.files.file_system import FileContent, FileEntry
from hotspare.guest.files.nodes import NodeFileSystem, damaged
from hotspare.guest.files.runs import BytesContent
from hotspare.guest.volumes.volume import Volume


class Whole(NamedTuple):
    """A layout that is not asked for anything but its size."""

    size: int


def volume(
    name: str, content: str = "ext", *, uuid: str = "", label: str = "", partition: str = ""
) -> Volume:
    return Volume(name, Whole(1 << 20), content, label, uuid, partition)  # type: ignore[arg-type]


class MemoryFiles(NodeFileSystem[str]):
    """Files by path; nodes are paths. A value of ``->`` and more makes a link, ``!`` something damaged."""

    kind = "memory"

    def __init__(self, files: dict[str, str], *, ignores_case: bool = False) -> None:
        super().__init__(1 << 20)
        self.ignores_case = ignores_case
        self.closed = 0
        self._files = dict(files)
        for path in files:
            parts = path.split("/")[1:-1]
            for count in range(len(parts)):
                self._files.setdefault("/" + "/".join(parts[: count + 1]), "/")
        self._files.setdefault("/", "/")

    def root(self) -> str:
        return "/"

    def children(self, folder: str) -> Iterator[tuple[str, str]]:
        prefix = folder.rstrip("/") + "/"
        for path in self._files:
            if path != "/" and path.startswith(prefix) and "/" not in path[len(prefix) :]:
                yield path[len(prefix) :], path

    def describe(self, path: str, node: str) -> FileEntry:
        value = self._files[node]
        if value == "!":
            raise damaged(self.kind, f"{path} is broken")
        inode = list(self._files).index(node)
        if value.startswith("->"):
            target = value[2:]
            return FileEntry(path=path, kind="link", size=len(target), modified=0, inode=inode, target=target)
        kind = "folder" if value == "/" else "file"
        return FileEntry(path=path, kind=kind, size=len(value), modified=0, inode=inode)  # type: ignore[arg-type]

    def content(self, entry: FileEntry, node: str, stream: str) -> FileContent:
        return BytesContent(self._files[node].encode())

    def attributes_of(self, node: str) -> dict[str, bytes]:
        return {"user.node": node.encode()}

    def close(self) -> None:
        super().close()
        self.closed += 1
