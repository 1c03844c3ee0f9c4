"""What the commands share that look into restore points: options, and the way to the files."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter

from hotspare.cli.output import local_time
from hotspare.cli.session import Session
from hotspare.documents.file import moment
from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.by_path import FilesByPath
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


def shown_time(nanoseconds: int) -> str:
    """Write a file's time for people."""
    at = moment(nanoseconds)
    try:
        return local_time(at) if at else "?"
    except (ValueError, OverflowError, OSError):
        return "?"
