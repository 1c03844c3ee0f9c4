"""Who may finish a run: attempts are numbered, and only the last of them, by a mover not given up, commits.

The queue can hand a run to a second mover while the first, suspended, still believes that it has it. What
decides is one transaction, just before a restore point is published: it reads the mover's row *for update*,
as giving up does, so the one sees the other. After it the attempt is ``committing``, and whoever takes such a
run over asks the repository what became of it.
"""

import logging
import time
from dataclasses import dataclass

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from hotspare.cancellation import Cancellation
from hotspare.documents.progress import Progress
from hotspare.errors import RunExpelled
from hotspare.jobs.database import claims, database_errors, is_outage, movers
from hotspare.jobs.orders import Result

_COMMIT_PATIENCE = 60.0
"""For how many seconds a run that is through, and holds its snapshot, waits for a database that is away."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """How a run stands."""

    job: str
    attempt: int
    mover: int
    session: str | None
    state: str
    result: Result | None
    progress: Progress | None


class Claims:
    """The claims in a job database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def take(
        self, job: str, mover: int, cancellation: Cancellation | None = None
    ) -> tuple["JobClaim", ClaimRow | None]:
        """Begin an attempt; gives it, and the one before it if there was one.

        Args:
            job: the run.
            mover: who begins it.
            cancellation: of the attempt; ends its waiting for the database. None for none.

        Raises:
            RunExpelled: the mover was given up.
        """
        with self._engine.begin() as connection:
            if not _alive(connection, mover):
                raise _expelled()
            query = claims.select().where(claims.c.job == job).with_for_update()
            row = connection.execute(query).mappings().one_or_none()
            before = _row(row) if row else None
            number = before.attempt + 1 if before else 1
            values = {"attempt": number, "mover": mover, "state": "working", "progress": None}
            if before is None:
                connection.execute(claims.insert().values(job=job, session=None, result=None, **values))
            elif before.state == "working":
                connection.execute(claims.update().where(claims.c.job == job).values(session=None, **values))
            else:
                # What it was about to do has to be known to whoever comes after us as well.
                kept = {"attempt": number, "mover": mover}
                connection.execute(claims.update().where(claims.c.job == job).values(**kept))
        return JobClaim(self._engine, job, number, mover, cancellation or Cancellation()), before

    def of(self, jobs: list[str]) -> dict[str, ClaimRow]:
        """Give how runs stand, by job."""
        if not jobs:
            return {}
        with self._engine.connect() as connection:
            rows = connection.execute(claims.select().where(claims.c.job.in_(jobs))).mappings().all()
        return {row["job"]: _row(row) for row in rows}

    def ended_unnoted(self) -> list[ClaimRow]:
        """Give the runs whose end the history does not have yet."""
        query = claims.select().where(claims.c.state == "ended", claims.c.noted.is_(False))
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [_row(row) for row in rows]

    def forget(self, jobs: list[str]) -> None:
        """Remove what is known of runs that the queue has forgotten."""
        with self._engine.begin() as connection:
            connection.execute(claims.delete().where(claims.c.job.in_(jobs)))

    def note(self, job: str) -> None:
        """Note that the history has the end of a run."""
        with self._engine.begin() as connection:
            connection.execute(claims.update().where(claims.c.job == job).values(noted=True))


class JobClaim:
    """One attempt at a run; fulfils ``backup.claim.Claim``."""

    def __init__(
        self, engine: sa.Engine, job: str, attempt: int, mover: int, cancellation: Cancellation
    ) -> None:
        self._engine = engine
        self._cancellation = cancellation
        self.job = job
        self.attempt = attempt
        self._mover = mover

    def begun(self, session: str) -> None:
        """Note the session that the attempt stores under; waits for a database that is away.

        Nothing of the machine is held yet, so there is no haste.

        Raises:
            RunExpelled: the attempt was given up.
            Interrupted: it was stopped meanwhile.
        """
        with database_errors("written"):
            while True:
                try:
                    return self._change({"session": session, "state": "working"})
                except SQLAlchemyError as error:
                    if not is_outage(error):
                        raise
                    _log.warning("A run begins when the job database answers again: %s", error)
                self._cancellation.check()
                self._cancellation.pause(1)

    def before_commit(self) -> None:
        """Return when this attempt may publish its restore point.

        Raises:
            RunExpelled: it was given up.
            HotspareError: the database does not answer.
        """
        deadline = time.monotonic() + _COMMIT_PATIENCE
        with database_errors("asked whether this run may still finish"):
            while True:
                try:
                    return self._change({"state": "committing"})
                except SQLAlchemyError as error:
                    if not is_outage(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(1)

    def settled(self) -> None:
        """Note that what an earlier attempt was about to commit never counts: this one starts afresh."""
        self._change({"state": "working", "session": None})

    def report(self, progress: Progress) -> None:
        """Note how far the attempt is; nothing happens when it was given up."""
        with self._engine.begin() as connection:
            connection.execute(
                claims.update().where(*self._own()).values(progress=msgspec.json.encode(progress).decode())
            )

    def end(self, result: Result) -> None:
        """Note what came of the run. Raises ``RunExpelled`` when it was given up."""
        self._change({"state": "ended", "result": msgspec.json.encode(result).decode()})

    def _own(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (claims.c.job == self.job, claims.c.attempt == self.attempt)

    def _change(self, values: dict[str, object]) -> None:
        with self._engine.begin() as connection:
            if _alive(connection, self._mover):
                changed = connection.execute(claims.update().where(*self._own()).values(**values))
                if changed.rowcount == 1:
                    return
        raise _expelled()


def _alive(connection: sa.Connection, mover: int) -> bool:
    """Tell whether a mover has not been given up; nobody can do so before the transaction ends."""
    row = sa.select(movers.c.id).where(movers.c.id == mover, movers.c.state == "alive").with_for_update()
    return connection.execute(row).one_or_none() is not None


def _expelled() -> RunExpelled:
    return RunExpelled(
        "This run stood still for too long, and another mover has taken it over",
        meaning="It made no restore point here, and no change tracking was advanced",
        hint="Nothing has to be done: the other mover finishes it",
    )


def _row(row: sa.RowMapping) -> ClaimRow:
    result, progress = row["result"], row["progress"]
    return ClaimRow(
        job=row["job"],
        attempt=row["attempt"],
        mover=row["mover"],
        session=row["session"],
        state=row["state"],
        result=msgspec.json.decode(result, type=Result) if result else None,
        progress=msgspec.json.decode(progress, type=Progress) if progress else None,
    )
