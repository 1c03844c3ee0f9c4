"""Who waits for admission: a table, so that people see it, ask for runs, drop them and change their order.

What the calendar says is found out anew after a restart; only what somebody asked for, and changed, is kept
here and nowhere else.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import sqlalchemy as sa

from hotspare.jobs.database import waiting
from hotspare.jobs.orders import Order


def new_job_id() -> str:
    """Give an id that no run has."""
    return f"job-{secrets.token_hex(5)}"


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """An order that has not been let in yet."""

    job: str
    order: Order
    asked: bool
    """By somebody, whether it is due or not."""
    asked_at: float
    priority: int | None
    """In place of the policy's."""
    because: str
    """Why it waits."""
    dropped: bool
    """Somebody does not want it any more."""


class Waiting:
    """The table of a job database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def all(self) -> list[WaitingRow]:
        """Give all, the oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(waiting.select().order_by(waiting.c.asked_at)).mappings().all()
        return [
            WaitingRow(
                job=row["job"],
                order=msgspec.json.decode(row["order"], type=Order),
                asked=row["asked"],
                asked_at=row["asked_at"],
                priority=row["priority"],
                because=row["because"],
                dropped=row["dropped"],
            )
            for row in rows
        ]

    def ask(self, order: Order, *, priority: int | None = None, asked: bool = True) -> str:
        """Put an order in line; gives its id, or that of the same order which is there already."""
        job = new_job_id()
        with self._engine.begin() as connection:
            there = sa.select(waiting.c.job).where(waiting.c.request == order.request).with_for_update()
            known = connection.execute(there).scalar_one_or_none()
            if known is not None:
                if asked:
                    changed: dict[str, object] = {"asked": True, "dropped": False}
                    changed |= {} if priority is None else {"priority": priority}
                    connection.execute(waiting.update().where(waiting.c.job == known).values(**changed))
                return str(known)
            connection.execute(
                waiting.insert().values(
                    job=job,
                    request=order.request,
                    order=msgspec.json.encode(order).decode(),
                    asked=asked,
                    asked_at=time.time(),
                    priority=priority,
                    because="",
                    dropped=False,
                )
            )
        return job

    def change(self, job: str, *, priority: int | None = None, dropped: bool = False) -> bool:
        """Change what waits; False when it does not (any more)."""
        values: dict[str, object] = {"dropped": True} if dropped else {"priority": priority}
        with self._engine.begin() as connection:
            changed = connection.execute(waiting.update().where(waiting.c.job == job).values(**values))
            return changed.rowcount == 1

    def explain(self, reasons: Mapping[str, str]) -> None:
        """Note why each waits, by id."""
        with self._engine.begin() as connection:
            for job, because in reasons.items():
                connection.execute(waiting.update().where(waiting.c.job == job).values(because=because))

    def remove(self, job: str) -> None:
        """Take one out of the line."""
        with self._engine.begin() as connection:
            connection.execute(waiting.delete().where(waiting.c.job == job))
