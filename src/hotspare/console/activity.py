"""What goes on, waits and was done: jobs by policies, actions that somebody began here, and the history."""

from typing import Any

from fastapi import Request
from starlette.responses import Response

from hotspare.access.roles import EVERYTHING, Permission
from hotspare.access.tokens import Caller
from hotspare.api import do, jobs, see
from hotspare.api.estate import repository_key
from hotspare.api.events import event_stream
from hotspare.api.guard import CallerHere, Server, ServerHere
from hotspare.api.jobs import RetryRequest
from hotspare.console.browser import who_browses
from hotspare.console.document import document_of
from hotspare.console.figures import Figures, FiguresHere, quietly
from hotspare.console.rendering import page, see_other
from hotspare.documents.run import run_fields
from hotspare.documents.stages import bottleneck_words
from hotspare.errors import HotspareError
from hotspare.units import format_bytes, format_duration

_RUNS_SHOWN = 50
_JOBS_SHOWN = 200
_OVER_SHOWN = 10
OUTCOMES = ("failed", "missed", "interrupted", "cancelled", "ok")
KINDS = ("backup", "restore", "verify", "boot-test", "scan")
_ACTIVE = {"waiting", "queued", "running"}
_TRANSFERRING = {"transfer", "commit"}
"""Phases in which data is on its way."""
_NO_JOBS: dict[str, Any] = {"jobs": [], "movers": []}


def going_on(server: Server, caller: Caller, figures: Figures) -> dict[str, Any]:
    """Give what the part of a page shows that says what goes on."""
    listed, error = quietly(lambda: document_of(jobs.list_jobs(server, caller, limit=_JOBS_SHOWN)), _NO_JOBS)
    actions = document_of(see.list_actions(server, caller, limit=100))["actions"]
    running_jobs = [job for job in listed["jobs"] if job["state"] in _ACTIVE]
    of_jobs = {(job["platform"], key) for job in running_jobs for key in (job["machine"], job["machine_id"])}
    return {
        "jobs": [job for job in running_jobs if job["state"] != "waiting"],
        "waiting_jobs": [job for job in running_jobs if job["state"] == "waiting"],
        "movers": listed["movers"],
        "jobs_error": error,
        "actions": [one for one in actions if one["state"] in _ACTIVE],
        "runs_on": [
            run_fields(run) for run in figures.running(caller) if (run.platform, run.machine) not in of_jobs
        ],
    }


def show_activity(
    request: Request,
    server: ServerHere,
    caller: CallerHere,
    figures: FiguresHere,
    machine: str = "",
    policy: str = "",
    outcome: str = "",
    kind: str = "",
    after: str = "",
) -> Response:
    """Show what goes on, and a page of the history."""
    found = document_of(
        see.list_runs(
            server,
            caller,
            machine=machine.strip() or None,
            policy=policy.strip() or None,
            outcome=outcome if outcome in OUTCOMES else None,  # type: ignore[arg-type]
            kind=kind if kind in KINDS else None,
            limit=_RUNS_SHOWN,
            after=after or None,
        )
    )
    asked = {"machine": machine, "policy": policy, "outcome": outcome, "kind": kind}
    actions = document_of(see.list_actions(server, caller, limit=100))["actions"]
    return page(
        request,
        "activity.html",
        title="Activity",
        runs=found["runs"],
        following=found["next"],
        asked=asked,
        outcomes=OUTCOMES,
        kinds=KINDS,
        actions_over=[one for one in actions if one["state"] not in _ACTIVE][:_OVER_SHOWN],
        **going_on(server, caller, figures),
    )


def show_run(request: Request, run: int, server: ServerHere, caller: CallerHere) -> Response:
    """Show a run of the history."""
    found = document_of(see.show_run(run, server, caller))["run"]
    title = f"{found['kind'].capitalize()} of {found['machine']}"
    return page(request, "run.html", title=title, run=found, bottleneck=bottleneck_words(found["stages"]))


def show_job(request: Request, job: str, server: ServerHere, caller: CallerHere) -> Response:
    """Show a job."""
    found = document_of(jobs.show_job(job, server, caller))
    found |= {
        "bottleneck": bottleneck_of(found, going_on=found["state"] == "running"),
        "repository": _repository_of(server, found["policy"]),
    }
    may = caller.may_somewhere(Permission.BACK_UP)
    return page(request, "job.html", title=f"Backup of {found['machine']}", job=found, may_change=may)


def cancel_job(job: str, server: ServerHere, caller: CallerHere) -> Response:
    """Have a job stopped."""
    jobs.cancel_job(job, server, caller)
    return see_other(f"/activity/jobs/{job}", "stopping")


def retry_job(job: str, server: ServerHere, caller: CallerHere) -> Response:
    """Have the machine of a job that has ended backed up again."""
    again = document_of(jobs.retry_job(job, RetryRequest(), server, caller))
    return see_other(f"/activity/jobs/{again['id']}", "again")


def show_action(request: Request, action: str, server: ServerHere, caller: CallerHere) -> Response:
    """Show an action, how far each machine is, and what came of it."""
    found = document_of(see.show_action(action, server, caller))["action"]
    going_on = found["state"] == "running"
    return page(
        request,
        "action.html",
        title=TITLES[found["kind"]],
        action=found,
        machines=[{**one, "bottleneck": bottleneck_of(one, going_on=going_on)} for one in found["progress"]],
        summary=_summary(found["result"] or {}),
        error=_error(found["error"]),
        may_change=found["asked_by"] == caller.name or caller.may(Permission.ADMINISTER, EVERYTHING),
    )


def watch(request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Tell the page when something goes on differently."""
    return event_stream(server.watching, caller, lambda: who_browses(server, request))


def bottleneck_of(progress: dict[str, Any], *, going_on: bool) -> str | None:
    """Say in words what holds a run up, as far as that is known; None where nothing is to be said."""
    held_back = ""
    if progress["held_back_seconds"]:
        waited = format_duration(progress["held_back_seconds"])
        held_back = f"; reading waited for {waited}, so that the guest's own I/O was not slowed down"
    if going_on and progress["phase"] and progress["phase"] not in _TRANSFERRING:
        return f"the stage '{progress['phase']}'; no data is transferred meanwhile{held_back}"
    words = bottleneck_words(progress["stages"])
    return None if words is None else words + held_back


def cancel_action(action: str, server: ServerHere, caller: CallerHere) -> Response:
    """Have an action stopped."""
    do.cancel_action(action, server, caller)
    return see_other(f"/activity/actions/{action}", "stopping")


TITLES = {
    "backup": "Backup",
    "check": "Check of a repository",
    "prune": "Pruning of a repository",
    "restore": "Restore",
}


def _repository_of(server: Server, policy: str) -> str | None:
    """Give the id of the repository that a policy goes to, for addresses; None when that is not known."""
    found, _ = quietly(lambda: server.estate.policies().get(policy).repository, "")
    url = found or server.estate.settings.repository
    return repository_key(url) if url else None


def _summary(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Give what of a document can be said in a line each."""
    return [
        (name.replace("_", " "), format_bytes(float(value)) if name.startswith("bytes_") else str(value))
        for name, value in result.items()
        if name not in {"type", "v"} and isinstance(value, str | int | float | bool)
    ]


def _error(document: dict[str, Any] | None) -> HotspareError | None:
    if document is None:
        return None
    return HotspareError(
        document.get("what", ""), meaning=document.get("meaning", ""), hint=document.get("hint", "")
    )
