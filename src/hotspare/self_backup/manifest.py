"""What a self-backup says of itself: the definition of the "machine" that Hotspare is, as JSON."""

from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec

from hotspare.errors import RepositoryDamaged, RepositoryTooNew
from hotspare.repository.point import RestorePoint

VERSION = 1


class Place(StrEnum):
    """Where a file belongs; which folder that is, is up to the host."""

    SETTINGS = "settings"
    """The configuration file itself, whatever it is called."""
    CONFIGURATION = "configuration"
    """Other YAML beside it."""
    POLICIES = "policies"
    STATE = "state"
    ENVELOPES = "envelopes"
    """Key slots of repositories, sealed as they lie there: ``<id of the repository>/keys/…``."""


class Places(NamedTuple):
    """The folders of one host."""

    settings: Path
    """The configuration file, whether there is one or not."""
    policies: Path
    state: Path

    def path(self, place: Place, path: str) -> Path:
        """Tell where a file is here, or would be."""
        if place is Place.SETTINGS:
            return self.settings
        folders = {
            Place.CONFIGURATION: self.settings.parent,
            Place.POLICIES: self.policies,
            Place.STATE: self.state,
            Place.ENVELOPES: self.state / "envelopes",
        }
        return folders[place] / path


class KeptFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a self-backup."""

    place: Place
    path: str
    """Relative, with ``/``."""
    size: int
    """Bytes; a file of 0 bytes is only listed."""
    mode: int
    """Permission bits."""
    digest: str
    """BLAKE3 of its content, in hexadecimal."""

    @property
    def disk(self) -> str:
        """Name of the restore point's disk that holds it."""
        return f"{self.place}/{self.path}"


class NotKept(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a control plane needs and that is in no self-backup."""

    what: str
    remedy: str
    """What to do about it after a rebuild."""


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The last entry of the audit record: a later record has to have it at this place."""

    number: int
    hash: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a self-backup holds, and what it does not."""

    version: int = VERSION
    installation: str
    """Id of the control plane; stays the same when it is rebuilt elsewhere."""
    host: str
    program: str
    """Version of Hotspare."""
    files: tuple[KeptFile, ...]
    fingerprint: str
    """Of configuration and users: another one means that something was changed."""
    settings: dict[str, str] = {}
    """Settings in effect that no file says, by variable."""
    audit: Anchor | None = None
    """None where there is no record, or it was broken already."""
    audit_problem: str = ""
    """How the record was broken when this was made."""
    orders: tuple[dict[str, Any], ...] = ()
    """Backups that somebody had asked for and that waited, as orders of the job database."""
    not_kept: tuple[NotKept, ...] = ()
    remarks: tuple[str, ...] = ()


def manifest_of(point: RestorePoint) -> Manifest:
    """Read what a self-backup says of itself.

    Raises:
        RepositoryDamaged: it is none that can be read.
        RepositoryTooNew: a newer version made it.
    """
    try:
        native = str(point.machine.get("native", ""))
        if msgspec.json.decode(native, type=_Versioned).version > VERSION:
            raise RepositoryTooNew(
                f"The self-backup {point.id} was made by a newer version of Hotspare",
                meaning="Nothing was changed",
                hint="Upgrade Hotspare on this host",
            )
        manifest = msgspec.json.decode(native, type=Manifest)
    except msgspec.DecodeError as error:
        raise _unreadable(point, str(error)) from error
    for file in manifest.files:
        parts = PurePosixPath(file.path).parts
        if not parts or ".." in parts or PurePosixPath(file.path).is_absolute():
            raise _unreadable(point, f"{file.path!r} is no path in a folder")
    return manifest


class _Versioned(msgspec.Struct):
    version: int


def _unreadable(point: RestorePoint, why: str) -> RepositoryDamaged:
    return RepositoryDamaged(
        f"The list of the self-backup {point.id} cannot be read: {why}",
        meaning="Nothing was changed",
        hint="Name another self-backup: hotspare self list",
    )
