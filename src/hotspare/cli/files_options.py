"""What the commands share that look into restore points: options, and the way to the files."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Group, Parameter

from hotspare.cli.output import local_time, utc_time
from hotspare.cli.session import Session
from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.by_path import FilesByPath
from hotspare.guest.files.file_system import FileEntry
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.restore.files.opened import ApplianceUse, Opening, opened_files

_GROUP = Group.create_ordered("How file systems are read")
INSIDE = (FileSystemUnreadable, PathNotFound)
"""What every command can raise that looks into a restore point."""


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How file systems are read."""

    appliance: Annotated[ApplianceUse, Parameter()] = "auto"
    """auto reads in process what is known to be read right, and the rest by the Linux kernel of an isolated
    virtual machine; never and always say which."""

    def opener(
        self, session: Session, repository: Repository
    ) -> Callable[[RestorePoint], AbstractContextManager[FilesByPath]]:
        """Give what opens the files of a restore point."""
        opening = self.opening(session)
        return lambda point: opened_files(repository, point, opening)

    def opening(self, session: Session) -> Opening:
        """Give the same for engines."""
        return Opening(session.settings.state_folder / "appliance", self.appliance)


AS_KNOWN = Reading()


def moment(nanoseconds: int) -> datetime | None:
    """Turn a file's time into one that can be shown; a guest may have noted down anything."""
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9, UTC).replace(
            microsecond=nanoseconds // 1000 % 10**6
        )
    except (ValueError, OverflowError, OSError):
        return None


def shown_time(nanoseconds: int) -> str:
    """Write a file's time for people."""
    at = moment(nanoseconds)
    try:
        return local_time(at) if at else "?"
    except (ValueError, OverflowError, OSError):
        return "?"


def json_time(nanoseconds: int) -> str | None:
    """Write a file's time for programs; None when there is no such date."""
    at = moment(nanoseconds)
    return utc_time(at) if at else None


def entry_fields(entry: FileEntry) -> dict[str, Any]:
    """Describe a file for a JSON document."""
    return {
        "path": plain(entry.path),
        "kind": entry.kind,
        "size": entry.size,
        "modified": json_time(entry.modified),
        "mode": None if entry.mode is None else f"{entry.mode & 0o7777:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "links": entry.links,
        "target": plain(entry.target) if entry.kind == "link" else None,
        "streams": [plain(stream) for stream in entry.streams],
    }


def plain(name: str) -> str:
    """Replace what is no text in a name: JSON has no way to say it."""
    return name.encode("utf-8", "replace").decode()
