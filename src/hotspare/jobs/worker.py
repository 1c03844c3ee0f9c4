"""DBOS, set up to carry runs out: what is recorded once is never done again."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from dbos import DBOS, DBOSPortableJSONSerializer

from hotspare.jobs.orders import Order, Result
from hotspare.jobs.queue import APPLICATION, VERSION, WORKFLOW


class GivenUp(BaseException):
    """The run is not ours any more, or not now: nothing of it may be recorded.

    No ``Exception``, for DBOS takes those for the outcome of a step, and keeps it.
    """


def launch(
    url: str,
    mover: int,
    queues: Sequence[str],
    slots: int,
    back_up: Callable[[str, Order], Result],
) -> None:
    """Begin to take runs out of the queues of some hosts.

    Args:
        url: of the job database.
        mover: number of this one.
        queues: names of the queues.
        slots: how many runs of each go on at once here.
        back_up: called with the id of a run and its order, in a thread of its own.
    """
    # It gives advice on a service of its vendor, and a traceback for each lost connection.
    logging.getLogger("dbos").setLevel(logging.CRITICAL)
    DBOS(
        config={
            "name": APPLICATION,
            "system_database_url": url,
            "application_version": VERSION,
            "executor_id": str(mover),
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "CRITICAL",
            "enable_otlp": False,
        }
    )

    @DBOS.step(name="back-up")
    def step_back_up(job: str, order: dict[str, Any]) -> dict[str, Any]:
        return _plain(back_up(job, msgspec.convert(order, Order)))

    @DBOS.workflow(name=WORKFLOW)
    def run(order: dict[str, Any]) -> dict[str, Any]:
        return step_back_up(str(DBOS.workflow_id), order)

    DBOS.listen_queues(queues)
    DBOS.launch()
    for queue in queues:
        DBOS.register_queue(queue, worker_concurrency=slots, on_conflict="always_update")


def shut_down() -> None:
    """Take nothing more; what was begun is not waited for."""
    DBOS.destroy(destroy_registry=True)


def _plain(result: Result) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(result)
    return plain
