"""How many jobs wait and run, and how many movers live: counted, without reading any of them."""

from dataclasses import dataclass

import sqlalchemy as sa

from hotspare.jobs.database import (
    checked_url,
    database_errors,
    movers,
    open_database,
    waiting,
    was_used,
    workflows,
)

_STATES = {"ENQUEUED": "queued", "PENDING": "running"}
"""DBOS's words for ours."""


@dataclass(frozen=True, slots=True)
class Census:
    """What a job database has."""

    jobs: dict[str, int]
    """By state: ``waiting``, ``queued``, ``running``."""
    movers: int
    """Those that were not given up."""


def take_census(url: str) -> Census | None:
    """Count; None where no server has ever used that job database.

    Raises:
        ConfigError: the URL is none.
        HotspareError: it does not answer.
    """
    checked = checked_url(url)
    if not was_used(checked):
        return None
    engine = open_database(checked, make=False)
    try:
        with database_errors("read"), engine.connect() as connection:
            status = workflows(engine)
            rows = connection.execute(
                sa.select(status.c.status, sa.func.count())
                .where(status.c.status.in_(_STATES))
                .group_by(status.c.status)
            ).all()
            jobs = dict.fromkeys(("waiting", *_STATES.values()), 0)
            jobs |= {_STATES[name]: int(count) for name, count in rows}
            jobs["waiting"] = _count(connection, sa.select(waiting).where(sa.not_(waiting.c.dropped)))
            alive = _count(connection, sa.select(movers).where(movers.c.state == "alive"))
            return Census(jobs, alive)
    finally:
        engine.dispose()


def _count(connection: sa.Connection, chosen: sa.Select[tuple[object, ...]]) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(chosen.subquery())).scalar_one())
