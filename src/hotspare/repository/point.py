"""Restore points: the record of one machine at one instant, ``points/<machine folder>/<point id>``."""

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from hotspare.errors import RepositoryDamaged
from hotspare.repository.decode import Moment
from hotspare.repository.format import CHUNK_ID_SIZE, DISK_SIZE_MAX, POINTS, STATE_SIZE_MAX
from hotspare.repository.keys import Keyring
from hotspare.repository.record import POINT, open_record, seal_record

NO_STATE = (
    "the repository was made by a version that knew no state outside of disks: UEFI variables and TPM state"
    " are left out"
)
"""Said instead of storing ``RestorePoint.state`` where a collector might not know of it."""
SELF_BACKUP = "hotspare:self"
"""The ``platform`` of self-backups: their disks are files of Hotspare itself."""
_ID_TIME = "%Y%m%d-%H%M%S"
_ID_TIME_LENGTH = 15
_LAST_TIME = datetime.max.replace(microsecond=0, tzinfo=UTC) - timedelta(seconds=1)
_ID_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


class PointContent(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a restore point holds. Byte counts tell what making it cost, not what it is worth."""

    name: str
    """Unique in the restore point."""
    size: int
    """Bytes, never 0."""
    root: bytes
    """Chunk id of the root page of the map of its chunks."""
    bytes_new: int = 0
    """Of those read, what the repository did not have."""
    bytes_stored: int = 0
    """What that took, compressed and sealed."""


class PointState(PointContent, frozen=True, kw_only=True):
    """State of the machine outside of its disks: the firmware's variables, a TPM's memory."""


class PointExtra(PointContent, frozen=True, kw_only=True):
    """What we have noted down of the machine: ``unused/vda``, what was left out of a disk (``unused.py``)."""


class PointFileSystem(msgspec.Struct, frozen=True, kw_only=True):
    """A file system of the machine, and what of it was left out."""

    volume: str
    """``vda1``, ``vg0/root``."""
    kind: str
    """``ext4``, ``ntfs``…; empty when unknown."""
    size: int
    """Bytes."""
    free: int = 0
    """Bytes that it does not use."""
    scratch: int = 0
    """Bytes of swap, page and hibernation files, worth nothing after a restart."""
    kept_because: str | None = None
    """Why all of it was kept; None when what it does not need was left out."""
    remarks: tuple[str, ...] = ()
    label: str = ""


class PointDisk(PointContent, frozen=True, kw_only=True):
    """One disk in a restore point."""

    mode: str
    """``full`` or ``increment``: how it was read. The point holds the whole disk either way."""
    full_because: str | None = None
    token: dict[str, Any] | None = None
    """The platform's change-tracking token, opaque here."""
    bytes_processed: int = 0
    """Read or known to be zero."""
    bytes_read: int = 0
    tracking_compared: int = 0
    """Chunks that the platform called unchanged, and that were read to see whether that is so."""
    tracking_wrong: int = 0
    """Chunks that the platform called unchanged, and that had changed: then the disk was read in full."""
    bytes_unused: int = 0
    """Left out, as no file system needs them: they read as zeroes, whatever the machine's disk has there."""


class RestorePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A machine at one instant, complete in itself."""

    id: str
    machine_id: str
    machine_name: str
    platform: str
    started_at: Moment
    finished_at: Moment
    consistency: str
    """``crash``, ``filesystem``, ``application`` or ``offline``: what was achieved."""
    disks: tuple[PointDisk, ...]
    machine: dict[str, Any]
    """The platform's description of the machine, opaque here."""
    state: tuple[PointState, ...] = ()
    extras: tuple[PointExtra, ...] = ()
    file_systems: tuple[PointFileSystem, ...] = ()
    """What was found inside; empty when nobody looked."""
    frozen_seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    parent: str | None = None
    """Id of the point that this one was compared with; for people, nothing depends on it."""
    session: str = ""
    """Id of the session that wrote it: if that was expelled, the point counts only if it was adopted."""
    copied_from: str | None = None
    """Id of the repository that this point was copied from."""

    @property
    def contents(self) -> tuple[PointContent, ...]:
        """All that has a map of chunks: whoever marks, checks or copies a point goes by this."""
        return (*self.disks, *self.state, *self.extras)

    @property
    def is_self_backup(self) -> bool:
        """Whether it holds Hotspare's own files, and is of no machine."""
        return self.platform == SELF_BACKUP

    def find_extra(self, name: str) -> PointExtra | None:
        """Find an extra by its name."""
        return next((one for one in self.extras if one.name == name), None)


def new_point_id(now: datetime, after: str = "") -> str:
    """Give an id that sorts by time and tells it: ``20261123-021500-k3fz7``.

    Args:
        now: the time.
        after: id of the machine's newest point. The new id tells a later time, even if the clock was set
            back; or the same, where no id could tell a later one.
    """
    now = now.astimezone(UTC).replace(microsecond=0)
    newest = _time_of_id(after)
    if newest is not None and newest >= now:
        now = min(newest, _LAST_TIME) + timedelta(seconds=1)
    suffix = "".join(secrets.choice(_ID_LETTERS) for _ in range(5))
    return f"{now:{_ID_TIME}}-{suffix}"


def _time_of_id(point_id: str) -> datetime | None:
    try:
        return datetime.strptime(point_id[:_ID_TIME_LENGTH], _ID_TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def order_of_points(point: RestorePoint) -> tuple[str, datetime, str]:
    """Sort points by this into the order in which they were made; clocks are set back, ids are not."""
    return point.id[:_ID_TIME_LENGTH], point.started_at, point.id


def of_machines(points: Iterable[RestorePoint]) -> list[RestorePoint]:
    """Leave out self-backups: what is listed, searched and started are machines."""
    return [point for point in points if not point.is_self_backup]


def point_name(keyring: Keyring, point: RestorePoint) -> str:
    """Give the object name of a point."""
    return f"{POINTS}{keyring.machine_folder(point.machine_id)}/{point.id}"


def seal_point(keyring: Keyring, point: RestorePoint) -> bytes:
    """Give the bytes of a point's object."""
    return seal_record(keyring, point_name(keyring, point), point, POINT)


def open_point(keyring: Keyring, name: str, data: bytes) -> RestorePoint:
    """Read a point's object. Raises ``RepositoryDamaged``."""
    damage = RepositoryDamaged(
        f"The restore point object {name} is not what was written",
        meaning="This restore point cannot be used; others are not affected",
        hint="Restore the object from a copy of the repository",
    )
    point = open_record(keyring, name, data, RestorePoint, POINT, damage)
    good = all(0 < one.size <= DISK_SIZE_MAX and len(one.root) == CHUNK_ID_SIZE for one in point.contents)
    if not good or any(state.size > STATE_SIZE_MAX for state in point.state):
        raise damage
    return point
