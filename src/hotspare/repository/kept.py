"""Restore points that are not to be forgotten: a small record beside each, as points never change."""

from datetime import datetime

import msgspec

from hotspare.errors import ObjectNotFound, PointKept
from hotspare.repository.decode import Moment
from hotspare.repository.format import KEPT
from hotspare.repository.keys import Keyring
from hotspare.repository.record import open_record, seal_record
from hotspare.storage.backend import Backend


class KeptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``kept/<point id>``."""

    since: Moment
    until: Moment | None = None
    """None: until it is released."""


def keep_point(
    backend: Backend, keyring: Keyring, point_id: str, since: datetime, until: datetime | None = None
) -> None:
    """Protect a restore point from being forgotten; an earlier protection is replaced."""
    name = KEPT + point_id
    backend.put(name, [seal_record(keyring, name, KeptRecord(since=since, until=until))])


def release_point(backend: Backend, point_id: str) -> None:
    """Take the protection away; without one nothing happens."""
    backend.delete(KEPT + point_id)


def read_kept(backend: Backend, keyring: Keyring, point_id: str) -> KeptRecord | None:
    """Give a restore point's protection, expired or not. Raises ``RepositoryDamaged``."""
    name = KEPT + point_id
    try:
        return open_record(keyring, name, backend.get(name), KeptRecord)
    except ObjectNotFound:
        return None


def refuse_kept(backend: Backend, keyring: Keyring, point_id: str, now: datetime) -> None:
    """Raise ``PointKept`` when the point is protected at ``now``."""
    kept = read_kept(backend, keyring, point_id)
    if kept is None or (kept.until is not None and kept.until <= now):
        return
    until = f"until {kept.until.isoformat(timespec='seconds')}" if kept.until else "until it is released"
    raise PointKept(
        f"The restore point {point_id} is to be kept {until}",
        meaning="Nothing was removed",
        hint=f"Release it with 'hotspare point release {point_id}', or say --force",
    )
