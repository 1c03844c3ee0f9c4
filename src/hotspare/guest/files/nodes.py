"""What all readers in process share: from nodes with names to paths, lookups and walks.

A *node* is whatever a file system knows a file by: the number of an inode, a record, the place of an entry.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, NoReturn, TypeVar

from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileContent, FileEntry

N = TypeVar("N", bound=Hashable)

ENTRIES_MAX = 5_000_000
"""Names in one folder: more than that is taken for damage."""
_DEPTH_MAX = 1024
_REMEMBERED_NAMES_MAX = 200_000
"""Names that are kept for lookups, of all folders together: some tens of MiB."""


def damaged(kind: str, what: str) -> FileSystemUnreadable:
    """Make the error for content that makes no sense."""
    return FileSystemUnreadable(
        f"The {kind} file system is damaged: {what}",
        meaning="What can be read of it is shown; the restore point holds the disk as it was",
        hint="Repair it with its own tools after a restore, or take an older restore point",
    )


class NodeFileSystem(ABC, Generic[N]):
    """A file system by paths, made of the four things that each kind does its own way."""

    kind: str
    remarks: tuple[str, ...] = ()
    ignores_case = False
    """Whether a name that is not there is looked for again without regard to case."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._folders: OrderedDict[N, tuple[dict[str, N], FileSystemUnreadable | None]] = OrderedDict()
        self._remembered = 0
        self._folder_bytes: dict[N, int] = {}
        self._folder_bytes_total = 0

    @abstractmethod
    def root(self) -> N:
        """Give the node of ``/``."""

    @abstractmethod
    def children(self, folder: N) -> Iterator[tuple[str, N]]:
        """Yield names and nodes of a folder; what is damaged raises after everything else was given."""

    @abstractmethod
    def describe(self, path: str, node: N) -> FileEntry:
        """Describe a node that was found at a path."""

    @abstractmethod
    def content(self, entry: FileEntry, node: N, stream: str) -> FileContent:
        """Open a file."""

    def attributes_of(self, node: N) -> dict[str, bytes]:  # noqa: ARG002 - some file systems have none
        """Give extended attributes."""
        return {}

    def account(self, folder: N, length: int) -> None:
        """Note how many bytes a folder takes: all together cannot be more than the volume.

        Where they are, folders share their bytes, and a small disk would unfold to names without end.
        """
        self._folder_bytes_total += length - self._folder_bytes.get(folder, 0)
        self._folder_bytes[folder] = length
        if self._folder_bytes_total > self._size:
            raise damaged(self.kind, "its folders take more space than it has")

    def close(self) -> None:
        """Let go of the volume; a second call does nothing."""
        self._folders.clear()

    def entry(self, path: str) -> FileEntry:
        """Describe one path; see the contract."""
        found, node = self._find(path)
        return self.describe(found, node)

    def entries(self, folder: str) -> Iterator[FileEntry]:
        """Yield what is in a folder; see the contract."""
        path, node = self._find(folder)
        if self.describe(path, node).kind != "folder":
            raise PathNotFound(f"{path} is no folder")
        return (entry for entry, _ in self._described(path, node))

    def walk(self, folder: str = "/") -> Iterator[FileEntry]:
        """Yield everything below a folder; see the contract."""
        path, node = self._find(folder)
        if self.describe(path, node).kind != "folder":
            raise PathNotFound(f"{path} is no folder")
        return self._walk(path, node)

    def open(self, path: str, stream: str = "") -> FileContent:
        """Open a file's content; see the contract."""
        found, node = self._find(path)
        entry = self.describe(found, node)
        if stream and stream not in entry.streams:
            raise PathNotFound(f"{found} has no stream {stream!r}")
        if entry.kind != "file" and not stream:
            raise FileSystemUnreadable(f"{found} is no file, but a {entry.kind}: it has no content")
        return self.content(entry, node, stream)

    def attributes(self, path: str) -> dict[str, bytes]:
        """Give extended attributes; see the contract."""
        return self.attributes_of(self._find(path)[1])

    def _described(self, path: str, folder: N) -> Iterator[tuple[FileEntry, N]]:
        prefix = path.rstrip("/") + "/"
        failure: FileSystemUnreadable | None = None
        for name, node in self.children(folder):
            try:
                entry = self.describe(prefix + name, node)
            except FileSystemUnreadable as error:
                failure = failure or error
                continue
            yield entry, node
        if failure is not None:
            raise failure

    def _walk(self, path: str, node: N) -> Iterator[FileEntry]:
        stack = [self._described(path, node)]
        seen = {node}
        failure: FileSystemUnreadable | None = None
        while stack:
            try:
                entry, child = next(stack[-1])
            except StopIteration:
                stack.pop()
                continue
            except FileSystemUnreadable as error:
                failure = failure or error
                stack.pop()
                continue
            if entry.kind == "folder":
                if child in seen:
                    failure = failure or damaged(self.kind, f"the folder {entry.path} is in two places")
                    continue
                if len(stack) >= _DEPTH_MAX:
                    failure = failure or damaged(self.kind, f"folders are nested more than {_DEPTH_MAX} deep")
                    continue
                seen.add(child)
            yield entry
            if entry.kind == "folder":
                stack.append(self._described(entry.path, child))
        if failure is not None:
            raise failure

    def _find(self, path: str) -> tuple[str, N]:
        """Give the path as it is written on the disk, and its node."""
        found, node = "", self.root()
        for name in path.split("/"):
            if not name:
                continue
            if node not in self._folders and found and self.describe(found, node).kind != "folder":
                _not_there(path, f"{found} is no folder")
            actual, node = self._child(node, name, path)
            found = f"{found}/{actual}"
        return found or "/", node

    def _child(self, folder: N, name: str, path: str) -> tuple[str, N]:
        names, failure = self._names(folder)
        if name not in names and self.ignores_case:
            wanted = name.upper()
            name = next((other for other in names if other.upper() == wanted), name)
        if name not in names:
            if failure is not None:
                raise failure
            _not_there(path, f"there is no {name!r}")
        return name, names[name]

    def _names(self, folder: N) -> tuple[dict[str, N], FileSystemUnreadable | None]:
        """Read a folder's names, or remember them; with what was wrong with the rest of it."""
        if folder in self._folders:
            self._folders.move_to_end(folder)
            return self._folders[folder]
        names: dict[str, N] = {}
        failure: FileSystemUnreadable | None = None
        try:
            for name, node in self.children(folder):
                names.setdefault(name, node)
        except FileSystemUnreadable as error:
            failure = error.with_traceback(None)
        self._folders[folder] = names, failure
        self._remembered += len(names) + 1
        while self._remembered > _REMEMBERED_NAMES_MAX and len(self._folders) > 1:
            self._remembered -= len(self._folders.popitem(last=False)[1][0]) + 1
        return names, failure


def _not_there(path: str, why: str) -> NoReturn:
    raise PathNotFound(f"There is no {path}: {why}", hint="Look at what there is with: hotspare files ls")
