"""Jobs as people and the API see them: what waits, what runs, how it ended; asked for, cancelled, hurried."""

from datetime import datetime
from types import TracebackType
from typing import Self

from hotspare.errors import Conflict, JobNotFound
from hotspare.jobs.claims import ClaimRow, Claims
from hotspare.jobs.database import checked_url, database_errors, open_database
from hotspare.jobs.movers import MoverRow, Movers
from hotspare.jobs.orders import Job, JobState, Order, Place
from hotspare.jobs.queue import JobQueue, QueuedJob
from hotspare.jobs.waiting import Waiting, WaitingRow


class JobBook:
    """A job database that a server has made, for several threads. Leaving the context lets go of it.

    All that asks the database raises ``JobDatabaseUnavailable`` when it does not answer.
    """

    def __init__(self, url: str) -> None:
        """Open it.

        Raises:
            ConfigError: the URL is none.
            JobDatabaseUnavailable: it does not answer, or no server has ever used it.
        """
        checked = checked_url(url)
        self._engine = open_database(checked, make=False)
        try:
            self._queue = JobQueue(checked)
        except BaseException:
            self._engine.dispose()
            raise
        self._movers = Movers(self._engine)
        self._claims = Claims(self._engine)
        self._waiting = Waiting(self._engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._queue.close()
        self._engine.dispose()

    def jobs(self, limit: int) -> list[Job]:
        """Give all that wait, then the newest that do not, the newest first."""
        return self.waiting() + self.begun(limit)

    def waiting(self) -> list[Job]:
        """Give all that wait, who asked first first."""
        with database_errors("read"):
            return sorted(map(_waiting_job, self._waiting.all()), key=lambda job: job.place)

    def begun(self, limit: int, before: Place | None = None) -> list[Job]:
        """Give the newest of those that do not wait any more, the newest first.

        Args:
            limit: how many at most; less than that many are all that there are.
            before: only those behind this place.
        """
        with database_errors("read"):
            return self._described(self._queue.newest(limit, before))

    def ended_since(self, moment: datetime) -> list[Job]:
        """Give those that have ended since then, the newest first; at most the newest thousand."""
        with database_errors("read"):
            return self._described(self._queue.ended_since(moment))

    def active(self) -> list[Job]:
        """Give those that may begin or have begun, and have not ended."""
        with database_errors("read"):
            return self._described(self._queue.active())

    def get(self, job: str) -> Job:
        """Give one job. Raises ``JobNotFound``."""
        with database_errors("read"):
            for row in self._waiting.all():
                if row.job == job:
                    return _waiting_job(row)
            queued = self._queue.get(job)
            if queued is None:
                raise JobNotFound(
                    f"There is no job {job}", meaning="Nothing was done", hint="See 'hotspare job list'"
                )
            return self._described([queued])[0]

    def movers(self) -> list[MoverRow]:
        """Give the movers that live, or were given up and may live."""
        with database_errors("read"):
            return list(self._movers.all())

    def ask(self, order: Order, priority: int | None = None) -> str:
        """Have a machine backed up as soon as limits allow, whether it is due or not; gives the job's id."""
        with database_errors("written"):
            return self._waiting.ask(order, priority=priority)

    def cancel(self, job: str) -> Job:
        """Keep a job from beginning, or have it stopped at its next safe moment.

        Raises:
            JobNotFound: there is none of that id.
            Conflict: it has ended already.
        """
        with database_errors("written"):
            if not self._waiting.change(job, dropped=True):
                self._refuse_ended(self.get(job))
                self._queue.cancel(job)
        return self.get(job)

    def retry(self, job: str, priority: int | None = None) -> str:
        """Have the same machine backed up by the same policy again; gives the new job's id.

        Raises:
            JobNotFound: there is none of that id.
            Conflict: it has not ended yet.
        """
        before = self.get(job)
        if before.state in {"waiting", "queued", "running"}:
            raise Conflict(f"Job {job} is {before.state}", meaning="Nothing was changed")
        order = before.order
        return self.ask(
            Order(
                policy=order.policy,
                platform=order.platform,
                machine_id=order.machine_id,
                machine=order.machine,
            ),
            priority,
        )

    def hurry(self, job: str, priority: int) -> Job:
        """Give a job that waits another priority.

        Raises:
            JobNotFound: there is none of that id.
            Conflict: it does not wait any more.
        """
        with database_errors("written"):
            if not self._waiting.change(job, priority=priority):
                raise Conflict(
                    f"Job {job} is {self.get(job).state}",
                    meaning="Its priority has no effect any more, and was not changed",
                )
        return self.get(job)

    def _refuse_ended(self, job: Job) -> None:
        if job.state not in {"queued", "running"}:
            raise Conflict(f"Job {job.id} has ended: {job.state}", meaning="Nothing was changed")

    def _described(self, queued: list[QueuedJob]) -> list[Job]:
        rows = self._claims.of([one.job for one in queued])
        names = self._movers.names()
        return [_job(one, rows.get(one.job), names) for one in queued]


def _waiting_job(row: WaitingRow) -> Job:
    return Job(
        id=row.job,
        order=Order(
            policy=row.order.policy,
            platform=row.order.platform,
            machine_id=row.order.machine_id,
            machine=row.order.machine,
            because=row.because,
        ),
        state="cancelled" if row.dropped else "waiting",
        priority=row.priority or 0,
        asked_at=row.asked_at,
    )


def _job(queued: QueuedJob, row: ClaimRow | None, names: dict[int, str]) -> Job:
    result = queued.result or (row.result if row else None)
    return Job(
        id=queued.job,
        order=queued.order,
        state=_state(queued),
        mover=names.get(row.mover) if row else None,
        attempt=row.attempt if row else 0,
        asked_at=queued.asked_at,
        progress=row.progress if row else None,
        result=result,
    )


def _state(queued: QueuedJob) -> JobState:
    if queued.status == "CANCELLED":
        return "cancelled"
    if queued.result is not None:
        return queued.result.outcome
    if queued.status == "ENQUEUED":
        return "queued"
    return "running" if queued.active else "failed"
