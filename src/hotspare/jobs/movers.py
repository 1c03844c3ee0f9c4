"""Who lives: heartbeats in the job database, and the decision that somebody is dead.

No two clocks are compared: whoever watches sees by its own monotonic clock that a counter stands still. A
mover that was given up may live all the same. From that moment on it cannot commit anything (``claims.py``),
and its next heartbeat tells it.
"""

import json
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from hotspare.jobs.database import movers
from hotspare.repository.liveness import is_known_dead, own_life

BEAT_SECONDS = 3.0
SILENT_SECONDS = 15.0
"""A mover whose counter stands still for so long is given up."""


@dataclass(frozen=True, slots=True)
class MoverRow:
    """A process that carries out runs."""

    id: int
    name: str
    host: str
    life: str
    schedules: bool
    queues: tuple[str, ...]
    beats: int
    state: str
    started_at: float

    @property
    def title(self) -> str:
        """What people call it."""
        return mover_title(self.name, self.id)


@dataclass(slots=True)
class Watch:
    """Since when the counter of each mover has stood still."""

    _seen: dict[int, tuple[int, float]] = field(default_factory=dict)

    def silent(self, beats: Mapping[int, int], now: float) -> list[int]:
        """Take a look at the counters; gives those who have stood still for too long.

        Args:
            beats: the counter of each mover that is not given up.
            now: of a monotonic clock.
        """
        self._seen = {
            mover: known if (known := self._seen.get(mover)) and known[0] == count else (count, now)
            for mover, count in beats.items()
        }
        return [mover for mover, (_, since) in self._seen.items() if now - since >= SILENT_SECONDS]

    def forget(self) -> None:
        """Begin anew: nobody can be seen for a while, since the database is not there."""
        self._seen.clear()


class Movers:
    """The movers of a job database, as one of them, or who only looks, sees them."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def join(self, name: str, queues: Iterable[str], *, schedules: bool) -> int:
        """Make this process known; gives its number, which is never given again."""
        with self._engine.begin() as connection:
            made = connection.execute(
                movers.insert().values(
                    name=name,
                    host=socket.gethostname(),
                    life=own_life(),
                    schedules=schedules,
                    queues=json.dumps(list(queues)),
                    beats=0,
                    state="alive",
                    started_at=time.time(),
                )
            )
            key = made.inserted_primary_key
            assert key is not None  # noqa: S101 - an INSERT that did not raise has a row
            return int(key[0])

    def beat(self, mover: int) -> bool:
        """Show that a mover lives; False when it has been given up."""
        with self._engine.begin() as connection:
            changed = connection.execute(
                movers.update()
                .where(movers.c.id == mover, movers.c.state == "alive")
                .values(beats=movers.c.beats + 1)
            )
            return changed.rowcount == 1

    def give_up(self, mover: int) -> None:
        """Keep a mover from committing anything from now on."""
        with self._engine.begin() as connection:
            connection.execute(
                movers.update()
                .where(movers.c.id == mover, movers.c.state == "alive")
                .values(state="given up")
            )

    def gone(self, mover: int) -> None:
        """Note that nothing is left to be taken over of a mover that was given up."""
        with self._engine.begin() as connection:
            connection.execute(
                movers.update().where(movers.c.id == mover, movers.c.state == "given up").values(state="gone")
            )

    def all(self) -> Sequence[MoverRow]:
        """Give all that are not gone, the oldest first."""
        query = movers.select().where(movers.c.state != "gone").order_by(movers.c.id)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [MoverRow(**{**row, "queues": tuple(json.loads(row["queues"]))}) for row in rows]

    def names(self) -> dict[int, str]:
        """Give what people call each mover that ever was."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(movers.c.id, movers.c.name)).all()
        return {int(number): mover_title(name, number) for number, name in rows}


def mover_title(name: str, number: int) -> str:
    """Give what people call a mover: its host, and a number that no other ever had."""
    return f"{name}#{number}"


def known_dead(rows: Iterable[MoverRow]) -> list[int]:
    """Give those of the movers whose process is known to have ended: there is no need to wait for them."""
    return [row.id for row in rows if row.state == "alive" and is_known_dead(row.life)]


def who_schedules(rows: Iterable[MoverRow]) -> int | None:
    """Give the one mover that decides who begins: the oldest of those that can."""
    return min((row.id for row in rows if row.schedules and row.state == "alive"), default=None)
