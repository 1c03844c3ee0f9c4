"""``hotspare job``: what the server does now, will do and did."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number

from hotspare.cli import output
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.errors import JobNotFound, MachineNotFound, PlatformUnavailable, PolicyNotFound
from hotspare.fleet.fleet import Fleet
from hotspare.units import format_bytes

if TYPE_CHECKING:
    from hotspare.jobs.book import JobBook
    from hotspare.jobs.movers import MoverRow
    from hotspare.jobs.orders import Job

app = noun("job", "See what the server does, cancel it, have it done again or sooner.")

Priority = Annotated[int, Parameter(validator=Number(gte=-100, lte=100))]


@app.command(name="list", help_epilogue=closing(["hotspare job list", "hotspare job list --limit 5 -o json"]))
def list_jobs(
    *, limit: Annotated[PositiveInt, Parameter(name=("--limit", "-n"))] = 20, options: Options = DEFAULTS
) -> None:
    """List what waits and why, what runs and how far it is, and the newest that have ended.

    Args:
        limit: How many of those that do not wait.
        options: See below.
    """
    with Session(options) as session, _book(session) as book:
        jobs, movers = book.jobs(limit), book.movers()
        if session.as_json:
            output.print_document(_list_document(jobs, movers))
            return
        header = ("JOB", "MACHINE", "POLICY", "STATE", "SINCE", "DONE", "DETAIL")
        rows = [
            (
                job.id,
                job.order.machine,
                job.order.policy,
                job.state,
                output.local_time(_moment(job.asked_at)),
                _done(job),
                _detail(job),
            )
            for job in jobs
        ]
        output.print_table(header, rows, right=("DONE",))
        if not any(one.state == "alive" for one in movers):
            output.note("No server runs: nothing of this goes on. Start it with 'hotspare server'.")


@app.command(help_epilogue=closing(["hotspare job show job-3fa9c2d1b0 -o json"], JobNotFound))
def show(job: str, /, *, options: Options = DEFAULTS) -> None:
    """Show one job: where it runs, how far it is, how it ended.

    Args:
        job: Its id.
        options: See below.
    """
    with Session(options) as session, _book(session) as book:
        _tell(session, book.get(job))


@app.command(help_epilogue=closing(["hotspare job cancel job-3fa9c2d1b0"], JobNotFound))
def cancel(job: str, /, *, options: Options = DEFAULTS) -> None:
    """Keep a job from beginning, or stop it at its next safe moment, within some seconds.

    The machine is due again at the policy's next time. What was stored is used by its next run.

    Args:
        job: Its id.
        options: See below.
    """
    with Session(options) as session, _book(session) as book:
        _tell(session, book.cancel(job))


@app.command(help_epilogue=closing(["hotspare job retry job-3fa9c2d1b0 --priority 50"], JobNotFound))
def retry(job: str, /, *, priority: Priority | None = None, options: Options = DEFAULTS) -> None:
    """Back up the machine of a job that has ended again, as soon as limits allow; windows do not count.

    Args:
        job: Its id.
        priority: Before others of a lower one; else the policy's.
        options: See below.
    """
    with Session(options) as session, _book(session) as book:
        _tell(session, book.get(book.retry(job, priority)))


@app.command(help_epilogue=closing(["hotspare job priority job-3fa9c2d1b0 100"], JobNotFound))
def priority(job: str, value: Priority, /, *, options: Options = DEFAULTS) -> None:
    """Have a job that waits begin before those of a lower priority, except what is urgent.

    Args:
        job: Its id.
        value: From -100 to 100.
        options: See below.
    """
    with Session(options) as session, _book(session) as book:
        _tell(session, book.hurry(job, value))


@app.command(
    help_epilogue=closing(
        ["hotspare job add nightly web", "hotspare job add nightly web --priority 50"],
        MachineNotFound,
        PlatformUnavailable,
        PolicyNotFound,
    )
)
def add(
    policy: str,
    machine: str,
    /,
    *,
    platform: str | None = None,
    priority: Priority | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Have a machine backed up by a policy as soon as limits allow, whether it is due or not.

    Args:
        policy: Name of a policy that selects the machine.
        machine: Its name or id.
        platform: URI of its platform, where the policy has several.
        priority: Before others of a lower one; else the policy's.
        options: See below.
    """
    from hotspare.jobs.orders import Order  # noqa: PLC0415 - see _book

    with Session(options) as session, _book(session) as book:
        fleet = Fleet(session)
        found = fleet.selected(session.policies().get(policy), machine, platform)
        order = Order(policy=policy, platform=found.platform, machine_id=found.id, machine=found.name)
        _tell(session, book.get(book.ask(order, priority)))


def _book(session: Session) -> "JobBook":
    from hotspare.jobs.book import JobBook  # noqa: PLC0415 - its libraries take long to import

    return JobBook(session.settings.job_database)


def _list_document(jobs: "Sequence[Job]", movers: "Sequence[MoverRow]") -> dict[str, Any]:
    from hotspare.jobs.document import job_fields, mover_fields  # noqa: PLC0415 - likewise

    return output.document("jobs", jobs=[*map(job_fields, jobs)], movers=[*map(mover_fields, movers)])


def _tell(session: Session, job: "Job") -> None:
    from hotspare.jobs.document import job_fields  # noqa: PLC0415 - likewise

    fields = job_fields(job)
    if session.as_json:
        output.print_document(output.document("job", **fields))
        return
    for key, value in fields.items():
        if value not in (None, "", 0):
            shown = format_bytes(value) if key.startswith("bytes") else output.printable(str(value))
            output.print_text(f"{key.replace('_', ' ')}: {shown}")


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _done(job: "Job") -> str:
    if job.state != "running" or job.progress is None or not job.progress.bytes_total:
        return ""
    return f"{job.progress.bytes_processed / job.progress.bytes_total:.0%}"


def _detail(job: "Job") -> str:
    if job.result is not None:
        return job.result.error or job.result.point or ""
    if job.state == "running":
        again = f", attempt {job.attempt}" if job.attempt > 1 else ""
        return f"{job.progress.phase if job.progress else 'begins'} on {job.mover}{again}"
    return job.order.because
