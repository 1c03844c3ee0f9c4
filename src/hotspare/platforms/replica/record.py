"""The record of one replica: which points there are, and which images hold them.

It lies as ``replica.json`` beside the images, and is replaced as a whole: who reads it sees all of a new
point or nothing of it.
"""

from datetime import datetime
from pathlib import Path

import msgspec

from hotspare.block.file import failure_of
from hotspare.errors import HotspareError, SourceLost
from hotspare.platforms.platform import Machine, StateFile, Token
from hotspare.whole_file import replace_file

RECORD = "replica.json"
FORMAT = 1


class ReplicaDisk(msgspec.Struct, frozen=True, kw_only=True):
    """One disk in a point."""

    name: str
    """As in the machine: ``vda``."""
    size: int
    """Bytes."""
    image: str = ""
    """File name of the qcow2 image that shows the disk at this point, with the images below it."""
    token: Token | None = None
    """From when the source can tell what changed; None when it cannot."""
    full_because: str | None = None
    """Why more than what changed was looked at or sent; None for an increment."""
    bytes_sent: int = 0


class GroupMark(msgspec.Struct, frozen=True, kw_only=True):
    """Says that a point is of one instant with those of the same id of other machines.

    It counts only where all members have such a point: who reads it has to look.
    """

    name: str
    """Of the group."""
    members: tuple[str, ...]
    """Ids of all protections whose replicas have the point, sorted."""
    paused_seconds: float
    """For how long the machines stood still for it."""


class ReplicaPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A machine at one instant, as the standby has it."""

    id: str
    """Sorts by time, as ``repository.point.new_point_id`` gives it."""
    taken_at: datetime
    """When its cycle began, by the source's clock: whatever the guest had acknowledged before is in it."""
    finished_at: datetime
    consistency: str
    """A ``Consistency``: what was achieved."""
    machine: Machine
    disks: tuple[ReplicaDisk, ...]
    state: tuple[StateFile, ...] = ()
    warnings: tuple[str, ...] = ()
    group: GroupMark | None = None
    """None for a point of this machine alone."""

    @property
    def tokens(self) -> dict[str, Token]:
        """From when the source can tell what changed, per disk that it can tell it of."""
        return {disk.name: disk.token for disk in self.disks if disk.token is not None}


class ReplicaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica's folder says of itself."""

    protection: str
    """Id of the protection that it belongs to."""
    machine_id: str
    machine_name: str
    points: tuple[ReplicaPoint, ...] = ()
    """The oldest first."""
    format: int = FORMAT


def read_record(folder: Path) -> ReplicaRecord:
    """Read the record of the replica in a folder.

    Raises:
        SourceLost: there is none, or it cannot be read.
        HotspareError: a newer version wrote it.
    """
    path = folder / RECORD
    try:
        content = path.read_bytes()
    except OSError as error:
        raise failure_of(path, "read", error) from error
    try:
        record = msgspec.json.decode(content, type=ReplicaRecord)
    except msgspec.DecodeError as error:
        raise SourceLost(
            f"{path} is no record of a replica: {error}",
            meaning="The images beside it were not touched",
            hint="Look into the images with qemu-img; the newest overlay holds the newest state",
        ) from error
    if record.format > FORMAT:
        raise HotspareError(f"{path} was written by a newer version", hint="Update Hotspare on this host")
    return record


def write_record(folder: Path, record: ReplicaRecord) -> None:
    """Put a record in place of the one before, durably.

    Raises:
        NoSpace, PermissionRefused, SourceLost: it cannot be written; the one before stays.
    """
    path = folder / RECORD
    try:
        replace_file(path, msgspec.json.format(msgspec.json.encode(record), indent=1), mode=0o666)
    except OSError as error:
        raise failure_of(path, "write", error) from error
