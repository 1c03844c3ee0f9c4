"""Walking a file system in the order of its names, so that two of them can be walked in step."""

from collections.abc import Iterator

from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileEntry, FileSystem

DEPTH_MAX = 1024
"""Folders within folders: more than that is taken for damage."""

Damage = list[str]
"""What could not be read: sentences that name the folder."""


def listing(files: FileSystem, folder: str, damage: Damage) -> list[FileEntry]:
    """Give what is in a folder, in the order of the names, each name once; none can leave the folder.

    What cannot be read is left out, and noted in ``damage``.
    """
    found: dict[str, FileEntry] = {}
    try:
        for entry in files.entries(folder):
            if is_safe_name(entry.name):
                found.setdefault(entry.name, entry)
            else:
                damage.append(f"{folder}: a name in it that no file can have, {entry.name!r}")
    except (FileSystemUnreadable, PathNotFound) as error:
        damage.append(f"{folder}: {error.what}")
    return [found[name] for name in sorted(found)]


def walk_in_order(files: FileSystem, folder: str, damage: Damage) -> Iterator[FileEntry]:
    """Yield everything below a folder, without itself: each folder just before what is in it.

    Within a folder by the order of the names. What cannot be read is left out, and noted in ``damage``.
    """
    stack = [iter(listing(files, folder, damage))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        yield entry
        if entry.kind != "folder":
            continue
        if len(stack) >= DEPTH_MAX:
            damage.append(f"{entry.path}: folders are nested more than {DEPTH_MAX} deep")
            continue
        stack.append(iter(listing(files, entry.path, damage)))


def is_safe_name(name: str) -> bool:
    """Tell whether a name means a file in its folder, and nothing else."""
    return name not in {"", ".", ".."} and "/" not in name and "\0" not in name
