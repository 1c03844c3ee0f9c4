"""Jobs as JSON documents, the same for commands and HTTP."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hotspare.documents.form import utc_time
from hotspare.documents.progress import progress_fields
from hotspare.documents.stages import stages_fields
from hotspare.jobs.orders import Job, Result

if TYPE_CHECKING:  # the HTTP interface begins before the libraries of the job database are there
    from hotspare.jobs.movers import MoverRow


def job_fields(job: Job) -> dict[str, Any]:
    """Describe a job."""
    progress, result = job.progress, job.result
    return {
        "id": job.id,
        "policy": job.order.policy,
        "platform": job.order.platform,
        "machine": job.order.machine,
        "machine_id": job.order.machine_id,
        "state": job.state,
        "because": job.order.because,
        "priority": job.priority,
        "asked_at": utc_time(datetime.fromtimestamp(job.asked_at, UTC)),
        "mover": job.mover,
        "attempt": job.attempt,
        **progress_fields(progress),
        **(_of_result(result) if result else {}),
        "point": result.point if result else None,
        "error_code": result.error_code if result else None,
        "error": result.error if result else None,
    }


def _of_result(result: Result) -> dict[str, Any]:
    """Give what the end of a run knows better than its last heartbeat."""
    known = {"bytes_read": result.bytes_read, "bytes_stored": result.bytes_stored}
    return known | ({"stages": stages_fields(result.stages)} if result.stages else {})


def mover_fields(mover: "MoverRow") -> dict[str, Any]:
    """Describe a mover."""
    return {"name": mover.title, "state": mover.state, "hosts": list(mover.queues)}
