"""The queue of runs that may begin, as those see it who do not carry them out: submit, look, cancel."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from dbos import DBOSClient, DBOSPortableJSONSerializer, WorkflowStatus

from hotspare.jobs.database import database_errors
from hotspare.jobs.orders import Order, Place, Result

APPLICATION = "hotspare"
VERSION = "1"
"""Of what runs are made of: one that began with another version waits for a mover of that version."""
WORKFLOW = "back-up"
_ACTIVE = ["ENQUEUED", "PENDING"]
_ENDED = ["SUCCESS", "ERROR", "CANCELLED"]
_FORGOTTEN_AT_ONCE = 500
_TOLD_AT_ONCE = 1000
_AT_ONE_TIME = 20
"""More runs than can be submitted within one millisecond."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """One run in the queue, or that was there."""

    job: str
    order: Order
    queue: str | None
    status: str
    """As DBOS calls it: ``ENQUEUED``, ``PENDING``, ``SUCCESS``, ``ERROR``, ``CANCELLED``."""
    mover: int | None
    asked_at: float
    result: Result | None
    error: str | None

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.status in _ACTIVE


class JobQueue:
    """The queue in a job database whose tables are there already."""

    def __init__(self, url: str) -> None:
        """``url`` is one that ``checked_url`` gave. Raises ``JobDatabaseUnavailable``."""
        with database_errors("opened"):
            self._client = DBOSClient(
                system_database_url=url,
                application_name=APPLICATION,
                serializer=DBOSPortableJSONSerializer(),
                retry_connection_errors=False,
            )

    def close(self) -> None:
        """Let go of the database."""
        self._client.destroy()

    def submit(self, job: str, queue: str, order: Order) -> None:
        """Have a run begin as soon as a mover of that queue is free; a second time does nothing."""
        with database_errors("written"):
            self._client.enqueue(
                {
                    "workflow_name": WORKFLOW,
                    "queue_name": queue,
                    "workflow_id": job,
                    "app_version": VERSION,
                    "application_name": APPLICATION,
                },
                msgspec.to_builtins(order),
            )

    def active(self) -> list[QueuedJob]:
        """Give the runs that have not ended."""
        return self._list(status=_ACTIVE)

    def newest(self, limit: int, before: Place | None = None) -> list[QueuedJob]:
        """Give the newest runs, the newest first; less than ``limit`` are all that there are.

        ``before`` leaves out those of that place and all that are newer.
        """
        # A few more, since those of one millisecond are in no order of their own.
        asked = limit + _AT_ONE_TIME
        end = {} if before is None else {"end_time": _moment(before[0] + 1)}
        found = sorted(self._list(limit=asked, sort_desc=True, **end), key=_place, reverse=True)
        if len(found) == asked:
            last = _place(found[-1])[0]
            found = [one for one in found if _place(one)[0] > last] or found
        return [one for one in found if before is None or _place(one) < before][:limit]

    def ended_since(self, moment: datetime) -> list[QueuedJob]:
        """Give the runs that have ended since then, the newest first; at most the newest thousand."""
        return self._list(completed_after=moment.isoformat(), sort_desc=True, limit=_TOLD_AT_ONCE)

    def get(self, job: str) -> QueuedJob | None:
        """Give one run; None when there is none of that id."""
        return next(iter(self._list(workflow_ids=[job])), None)

    def states(self, jobs: Sequence[str]) -> dict[str, str]:
        """Give the status of each run."""
        return {one.job: one.status for one in self._list(workflow_ids=list(jobs))} if jobs else {}

    def cancel(self, job: str) -> None:
        """Keep a run from beginning, or have its mover stop it at the next safe moment."""
        with database_errors("written"):
            self._client.cancel_workflow(job)

    def take_over(self, movers: Sequence[int]) -> list[str]:
        """Put what movers were carrying out back into its queue; gives these runs."""
        if not movers:
            return []
        with database_errors("written"):
            pending = self._list(status="PENDING", executor_id=[str(mover) for mover in movers])
            for one in pending:
                self._client.resume_workflow(one.job, queue_name=one.queue)
        return [one.job for one in pending]

    def forget_ended(self, before: datetime) -> list[str]:
        """Remove runs that ended before a time, some at once; gives their ids. The history has them."""
        ended = self._list(status=_ENDED, completed_before=before.isoformat(), limit=_FORGOTTEN_AT_ONCE)
        if ended:
            with database_errors("written"):
                self._client.delete_workflows([one.job for one in ended])
        return [one.job for one in ended]

    def _list(self, **wanted: Any) -> list[QueuedJob]:  # noqa: ANN401 - as DBOS takes it
        with database_errors("read"):
            return [_job(status) for status in self._client.list_workflows(name=WORKFLOW, **wanted)]


def _place(job: QueuedJob) -> Place:
    return round(job.asked_at * 1000), job.job


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def _job(status: WorkflowStatus) -> QueuedJob:
    given: Any = status.input["args"][0] if status.input else {}
    mover = status.executor_id
    return QueuedJob(
        job=status.workflow_id,
        order=msgspec.convert(given, Order),
        queue=status.queue_name,
        status=status.status,
        mover=int(mover) if mover and mover.isdigit() else None,
        asked_at=(status.created_at or 0) / 1000,
        result=msgspec.convert(status.output, Result) if status.output else None,
        error=str(status.error) if status.error else None,
    )
