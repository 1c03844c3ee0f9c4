"""The daemon: one mover in this process, and a scheduler beside it unless it is for others only."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError
from hotspare.jobs.claims import Claims
from hotspare.jobs.database import checked_url, database_errors, is_used, open_database
from hotspare.jobs.movers import Movers, mover_title
from hotspare.jobs.waiting import Waiting

if TYPE_CHECKING:
    from hotspare.jobs.scheduler import Scheduler
    from hotspare.jobs.work import Plans, Work

_TICK_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """What a daemon is to be."""

    database: str
    """URL of the job database."""
    name: str
    """Of its mover."""
    queues: Sequence[str]
    """Names of the hosts whose machines it can back up."""
    slots: int
    """How many runs go on at once here."""


def serve(
    plan: ServerPlan,
    work: "Callable[[], Work]",
    plans: "Callable[[], Plans] | None",
    cancellation: Cancellation,
    on_ready: Callable[[str], None] = lambda _title: None,
    on_look: Callable[[], None] = lambda: None,
) -> None:
    """Run until cancelled; what goes on then is stopped, and finished by others or after a restart.

    Args:
        plan: see there.
        work: gives what a run does.
        plans: gives who is due; None for a mover that leaves this to a server elsewhere.
        cancellation: ends it.
        on_ready: called with what the mover is called, once others know of it and jobs can be asked for.
        on_look: called each time the scheduler has looked at what is due, which shows that it is not stuck.

    Raises:
        ConfigError: the URL of the job database cannot be used.
        HotspareError: the job database does not answer at the start; or other movers gave this one up.
    """
    url = checked_url(plan.database)
    engine = open_database(url)
    given_up = threading.Event()
    try:
        with database_errors("written"):
            number = Movers(engine).join(plan.name, plan.queues, schedules=plans is not None)
        title = mover_title(plan.name, number)
        # The queue's libraries take a second to import. Where its tables are there already, jobs can be
        # seen and asked for meanwhile; they begin in a moment.
        at_once = is_used(engine)
        if at_once:
            on_ready(title)
        from hotspare.jobs.mover import Mover  # noqa: PLC0415

        mover = Mover(engine, url, work(), given_up.set)
        mover.start(number, plan.queues, plan.slots)
        # What libraries hold stays for good: walking it in each full collection stopped pages for 200 ms.
        gc.freeze()
        try:
            if not at_once:
                on_ready(title)
            if plans is None:
                _wait(cancellation, given_up)
            else:
                _schedule(engine, url, number, plans(), cancellation, given_up, on_look)
        finally:
            mover.stop()
    finally:
        engine.dispose()
    if given_up.is_set():
        raise HotspareError(
            "This mover stood still for so long that others took it for dead",
            meaning="They finish what it had begun; nothing was written twice",
            hint="Start it again, as its systemd unit does by itself",
        )


def _wait(cancellation: Cancellation, given_up: threading.Event) -> None:
    while not (cancellation.requested or given_up.is_set()):
        cancellation.pause(_TICK_SECONDS)


def _schedule(
    engine: sa.Engine,
    url: str,
    mover: int,
    plans: "Plans",
    cancellation: Cancellation,
    given_up: threading.Event,
    on_look: Callable[[], None],
) -> None:
    from hotspare.jobs.queue import JobQueue  # noqa: PLC0415 - as above
    from hotspare.jobs.scheduler import Scheduler  # noqa: PLC0415

    queue = JobQueue(url)
    scheduler = Scheduler(mover, plans, Movers(engine), Claims(engine), queue, Waiting(engine))
    try:
        while not (cancellation.requested or given_up.is_set()):
            if _tick(scheduler):
                on_look()
            cancellation.pause(_TICK_SECONDS)
    finally:
        queue.close()


def _tick(scheduler: "Scheduler") -> bool:
    """Have the scheduler take a look; False when it could not."""
    try:
        scheduler.tick(time.time())
    except (sa.exc.SQLAlchemyError, HotspareError) as error:
        _log.warning("Nothing new begins: %s", error)
        scheduler.begin_anew()
    except Exception:  # noqa: BLE001 - a mistake of ours must not end what goes on; it is said each time
        _log.exception("Nothing new begins")
        scheduler.begin_anew()
    else:
        return True
    return False
