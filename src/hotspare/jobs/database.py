"""The job database: SQLite in a file of this host, or PostgreSQL for many hosts.

DBOS has tables of its own in it. Ours are beside them: who lives, who may finish which run, who waits.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.event import listen

from hotspare.errors import ConfigError, JobDatabaseUnavailable

metadata = sa.MetaData()

movers = sa.Table(
    "hotspare_movers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("life", sa.Text, nullable=False),
    sa.Column("schedules", sa.Boolean, nullable=False),
    sa.Column("queues", sa.Text, nullable=False),
    sa.Column("beats", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)
"""``state``: ``alive``; ``given up``: it may not commit anything any more; ``gone``: it is surely dead."""

claims = sa.Table(
    "hotspare_claims",
    metadata,
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("mover", sa.Integer, nullable=False),
    sa.Column("session", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("progress", sa.Text),
    sa.Column("noted", sa.Boolean, nullable=False, default=False),
)
"""``state``: ``working``; ``committing`` from just before a point is published; ``ended`` with a
result, which is ``noted`` once the history has it."""

waiting = sa.Table(
    "hotspare_waiting",
    metadata,
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("request", sa.Text, nullable=False, unique=True),
    sa.Column("order", sa.Text, nullable=False),
    sa.Column("asked", sa.Boolean, nullable=False),
    sa.Column("asked_at", sa.Float, nullable=False),
    sa.Column("priority", sa.Integer),
    sa.Column("because", sa.Text, nullable=False),
    sa.Column("dropped", sa.Boolean, nullable=False),
)
"""``asked``: by somebody, not by the calendar; only that is not found out anew after a restart."""

_BUSY_MILLISECONDS = 30_000
_CONNECT_SECONDS = 5


def checked_url(url: str) -> str:
    """Give the URL of a job database as the libraries want it.

    Raises:
        ConfigError: it is none, or has a password in it.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise ConfigError(
            f"The job database {url!r} is no URL",
            meaning="Nothing was done",
            hint="Write postgresql://USER@HOST/NAME, or leave it out for SQLite in the state folder",
        ) from error
    if parsed.password:
        raise ConfigError(
            "The URL of the job database has a password in it, which lists of processes would show",
            meaning="Nothing was done",
            hint="Put it into a file and name that with PGPASSFILE, or let PostgreSQL know the user (peer)",
        )
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise ConfigError(
            f"{backend} is no kind of job database",
            meaning="Nothing was done",
            hint="Use postgresql://USER@HOST/NAME, or leave it out for SQLite in the state folder",
        )
    driver = "postgresql+psycopg" if backend == "postgresql" else "sqlite"
    return parsed.set(drivername=driver).render_as_string(hide_password=False)


def open_database(url: str, *, make: bool = True) -> sa.Engine:
    """Open our part of the job database.

    Args:
        url: one that ``checked_url`` gave.
        make: make the tables where they are not there, and a file's folder.

    Raises:
        JobDatabaseUnavailable: it does not answer; or it was never used, and nothing is to be made.
    """
    is_sqlite = url.startswith("sqlite")
    arguments: dict[str, Any] = {} if is_sqlite else {"connect_timeout": _CONNECT_SECONDS}
    engine = sa.create_engine(url, pool_pre_ping=True, connect_args=arguments)
    if is_sqlite:
        listen(engine, "connect", _wait_for_locks)
    with database_errors("opened"):
        if make:
            if is_sqlite and engine.url.database:
                Path(engine.url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            metadata.create_all(engine)
        elif not is_used(engine):
            engine.dispose()
            raise JobDatabaseUnavailable(
                "No server has ever used this job database",
                meaning="There are no jobs",
                hint="Start one with 'hotspare server'",
            )
    return engine


def was_used(url: str) -> bool:
    """Tell whether a server has ever used this job database.

    Args:
        url: one that ``checked_url`` gave.

    Raises:
        HotspareError: it does not answer.
    """
    engine = sa.create_engine(url)
    try:
        with database_errors("opened"):
            return is_used(engine)
    finally:
        engine.dispose()


def workflows(engine: sa.Engine) -> sa.TableClause:
    """Give DBOS's table of runs, to count in it."""
    return sa.table("workflow_status", sa.column("status"), schema=_schema(engine))


def is_used(engine: sa.Engine) -> bool:
    """Tell whether a server has ever begun to run jobs here: then the queue's own tables are there."""
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        return False
    return sa.inspect(engine).has_table("workflow_status", schema=_schema(engine))


def _schema(engine: sa.Engine) -> str | None:
    return None if engine.dialect.name == "sqlite" else "dbos"


@contextmanager
def database_errors(verb: str) -> Iterator[None]:
    """Turn what goes wrong in the database while the block runs into an error of ours."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        detail = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise JobDatabaseUnavailable(
            f"The job database cannot be {verb}: {detail}",
            meaning="Restore points are not affected",
            hint="See that it runs and that this user may use it; a server goes on by itself when it is back",
        ) from error


def is_outage(error: sa.exc.SQLAlchemyError) -> bool:
    """Tell whether the database is not there at all, and may be back; else it refused what it was asked."""
    broken = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    return broken or isinstance(error, (sa.exc.OperationalError, sa.exc.TimeoutError))


def _wait_for_locks(connection: sqlite3.Connection, _record: object) -> None:
    # As DBOS does with the same file: a transaction that may write waits at its begin, not in its midst.
    connection.isolation_level = "IMMEDIATE"
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
