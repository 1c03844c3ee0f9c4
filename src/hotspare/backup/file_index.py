"""Making a machine's index of file names during a backup: docs/repository-format.md, "Restore points".

It is good to have and nothing more: whatever goes wrong becomes a remark, and the backup goes on.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing

from hotspare.block.device import BlockReader
from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.by_path import FilesByPath
from hotspare.guest.files.file_system import FileEntry, FileSystem
from hotspare.guest.files.listing import Damage, walk_in_order
from hotspare.guest.files.machine import MachineFiles
from hotspare.guest.files.opening import open_file_system
from hotspare.guest.volumes.find import find_volumes
from hotspare.guest.volumes.reader import VolumeReader
from hotspare.guest.volumes.volume import Volume
from hotspare.platforms.platform import Snapshot
from hotspare.repository.file_index import NAMES_MAX, FileIndexBuilder, IndexedName, IndexedRoot

_REMARKS_MAX = 5
_WITHOUT_FILES = frozenset({"", "swap", "lvm", "luks", "bitlocker", "mdraid"})
"""What nobody expects files of."""


def index_snapshot(
    snapshot: Snapshot, align: int, check: Callable[[], None]
) -> tuple[bytes, tuple[str, ...]]:
    """Index what is on the disks of a snapshot.

    Args:
        snapshot: whose disks are read.
        align: the repository's chunk size.
        check: called between files. What it raises goes on, and nothing else does.

    Returns:
        The content of the extra, and what people should know; no content when there is no file system.
    """
    try:
        with ExitStack() as stack:
            disks = {
                disk.name: stack.enter_context(closing(snapshot.reader(disk.name))) for disk in snapshot.disks
            }
            return index_disks(disks, align, check)
    except Exception as error:  # noqa: BLE001 - a backup is worth more than its index
        check()
        return b"", (f"file index: it could not be made: {error}",)


def index_disks(
    disks: Mapping[str, BlockReader], align: int, check: Callable[[], None]
) -> tuple[bytes, tuple[str, ...]]:
    """Index what is on disks that are open; see ``index_snapshot``."""

    def open_volume(volume: Volume) -> FileSystem:
        return open_file_system(volume, VolumeReader(volume.layout, disks))

    found = find_volumes(disks)
    files = FilesByPath(MachineFiles(found.volumes, open_volume))
    builder = FileIndexBuilder(align)
    remarks: list[str] = []
    try:
        kinds = {f"{volume.name}:/": volume.content for volume in files.volumes}
        roots = [root for root in files.roots() if kinds.get(root, "ext") not in _WITHOUT_FILES]
        for root in roots:
            remark = _index_root(builder, files, root, check)
            builder.end_root(IndexedRoot(root, kinds.get(root, ""), remark))
            if remark:
                remarks.append(f"file index: {root}: {remark}")
    finally:
        files.close()
    return (builder.finish() if roots else b""), tuple(remarks)


def _index_root(
    builder: FileIndexBuilder, files: FilesByPath, root: str, check: Callable[[], None]
) -> str | None:
    """Add all names below a root; say what is not in the index, and why."""
    damage: Damage = []
    try:
        files.entry(root)
        for entry in walk_in_order(files, root, damage):
            check()
            if builder.names >= NAMES_MAX:
                return f"there are more than {NAMES_MAX} names, and the rest is left out"
            builder.add(_row(entry, len(root.rstrip("/"))))
    except (FileSystemUnreadable, PathNotFound) as error:
        builder.drop_root()
        return error.what
    if len(damage) > _REMARKS_MAX:
        damage[_REMARKS_MAX:] = [f"and {len(damage) - _REMARKS_MAX} more"]
    return "; ".join(damage) or None


def _row(entry: FileEntry, cut: int) -> IndexedName:
    folder, _, name = entry.path[cut:].rpartition("/")
    return IndexedName(
        folder=folder or "/",
        name=name,
        kind=entry.kind,
        size=entry.size,
        modified=entry.modified,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        inode=entry.inode,
    )
