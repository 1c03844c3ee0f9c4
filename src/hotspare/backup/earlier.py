"""A machine's earlier restore points: what a run comes after, and goes on from."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from hotspare import events
from hotspare.errors import RepositoryDamaged
from hotspare.platforms.platform import Machine, Token
from hotspare.repository.point import RestorePoint, new_point_id
from hotspare.repository.repository import Repository


def place_after_earlier(
    repository: Repository, machine: Machine, now: datetime, listener: events.Listener
) -> tuple[list[RestorePoint], str]:
    """Give the points that can be read, the oldest first, and the id of the one that comes after them.

    When a newer one than those cannot be read, the platform has given up their tokens: it becomes a full.
    """
    unreadable = [""]

    def warn(name: str, error: RepositoryDamaged) -> None:
        unreadable.append(name.rpartition("/")[2])
        listener(events.Warned(machine.name, error.what))

    points = repository.machine_points(machine.id, warn)
    newest = max(*unreadable, "", *(point.id for point in points))
    return points, new_point_id(now, after=newest)


def tokens_of(parent: RestorePoint) -> Mapping[str, Token]:
    """Give what the platform can tell changes since, by disk."""
    return {disk.name: msgspec.convert(disk.token, Token) for disk in parent.disks if disk.token is not None}
