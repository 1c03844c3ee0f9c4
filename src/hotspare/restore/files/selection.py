"""Which files of a restore point are restored, and under which names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hotspare.cancellation import Cancellation
from hotspare.errors import UsageError
from hotspare.guest.files.file_system import FileEntry, FileSystem
from hotspare.guest.files.listing import Damage, is_safe_name, walk_in_order

Parts = tuple[str, ...]
"""A path within the target: the names of its folders, and its own."""


class Chosen(NamedTuple):
    """One thing to be restored."""

    entry: FileEntry
    parts: Parts
    """Its place within the target; empty for the target itself."""


class Amount(NamedTuple):
    """How much is restored."""

    entries: int
    bytes: int
    """Of the content of files: names of one inode count once."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Paths of one restore point.

    Args:
        files: where they are.
        paths: what is wanted. As with rsync, ``/etc/nginx`` is that folder, ``/etc/nginx/`` what is in it.
        full_paths: put everything at its whole path below the target, rather than at its last name.
    """

    files: FileSystem
    paths: Sequence[str]
    full_paths: bool = False
    damage: Damage = field(default_factory=list)
    """What of it could not be read, in sentences; complete when ``walk`` has ended."""

    def roots(self) -> list[Chosen]:
        """Give what was named.

        Raises:
            PathNotFound: one of the paths is not there.
            UsageError: two of them would become one.
            FileSystemUnreadable: the file system that holds one cannot be read.
        """
        chosen: dict[Parts, Chosen] = {}
        insides: list[Chosen] = []
        for path in dict.fromkeys(self.paths):
            entry = self.files.entry(path)
            parts = self._parts(entry, path)
            if not parts:
                insides.append(Chosen(entry, parts))
                continue
            if parts in chosen:
                raise UsageError(
                    f"{chosen[parts].entry.path} and {entry.path} would become one file, {'/'.join(parts)}",
                    meaning="Nothing was restored",
                    hint="Restore them one after the other, or give --full-paths",
                )
            chosen[parts] = Chosen(entry, parts)
        return [*insides, *chosen.values()]

    def walk(self, cancellation: Cancellation) -> Iterator[Chosen]:
        """Yield everything, each folder before what is in it. Raises as ``roots``, and ``Interrupted``."""
        for root in self.roots():
            yield root
            if root.entry.kind != "folder":
                continue
            cut = len(root.entry.path.rstrip("/")) + 1
            for entry in walk_in_order(self.files, root.entry.path, self.damage):
                cancellation.check()
                yield Chosen(entry, (*root.parts, *entry.path[cut:].split("/")))

    def measure(self, cancellation: Cancellation) -> Amount:
        """Count it all, without reading content. Raises as ``walk``."""
        entries = total = 0
        seen: set[tuple[str, int]] = set()
        for chosen in self.walk(cancellation):
            entry = chosen.entry
            entries += 1
            if entry.kind != "file":
                continue
            if entry.links > 1:
                if (entry.volume, entry.inode) in seen:
                    continue
                seen.add((entry.volume, entry.inode))
            total += entry.size
        self.damage.clear()
        return Amount(entries, total)

    def _parts(self, entry: FileEntry, path: str) -> Parts:
        inside = tuple(name for name in entry.path.split("/") if is_safe_name(name))
        if self.full_paths:
            return inside
        if entry.kind == "folder" and (path.endswith("/") or not inside):
            return ()
        return inside[-1:]
