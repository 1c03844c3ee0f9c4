"""Restore points that were forgotten: ``gc/forgotten/<day>/<session>/<machine folder>/<point id>``.

A store may carry out a PUT once more, long after it was acknowledged: a client that got no answer in time
has sent it again, and the first one was only late. A restore point that came back so would be listed, and
be the parent of the next backup, when its chunks are long deleted. So it is noted, with the session that
wrote it, before it is deleted. A copy of the point that is made later has another session, and counts. The
session alone would not do: whoever may add points can add one that says it is of the session of another.
"""

from collections.abc import Container, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from hotspare.repository.format import FORGOTTEN_SESSIONS, POINTS
from hotspare.storage.backend import Backend

KEPT_FOR = timedelta(days=30)
"""No PUT is on its way for so long. The only thing in this folder for which clocks are compared: should
they be wrong by weeks, a late PUT of a forgotten point is no longer told from a new one."""
_DAY = "%Y%m%d"


class Forgotten(NamedTuple):
    """One note."""

    name: str
    day: str
    session: str
    point: str
    """Object name of the restore point."""


def put_forgotten(backend: Backend, session: str, point_name: str, now: datetime) -> None:
    """Note that a restore point, as this session wrote it, must not come back."""
    point = point_name.removeprefix(POINTS)
    backend.put(f"{FORGOTTEN_SESSIONS}{now:{_DAY}}/{session}/{point}", [b"\n"])


def list_forgotten(backend: Backend) -> Iterator[Forgotten]:
    """Yield all notes."""
    for item in backend.list(FORGOTTEN_SESSIONS):
        day, _, rest = item.name.removeprefix(FORGOTTEN_SESSIONS).partition("/")
        session, _, point = rest.partition("/")
        yield Forgotten(item.name, day, session, POINTS + point)


def take_back(backend: Backend, sessions: Container[str]) -> None:
    """Remove the notes of sessions whose points somebody has brought back on purpose."""
    for note in list(list_forgotten(backend)):
        if note.session in sessions:
            backend.delete(note.name)


def drop_old(backend: Backend, now: datetime) -> None:
    """Remove the notes for which no PUT can be on its way any more."""
    last = f"{now - KEPT_FOR:{_DAY}}"
    for note in list(list_forgotten(backend)):
        if note.day < last:
            backend.delete(note.name)
