"""One machine: how it stands, its restore points and runs, how much changes, and having it backed up now."""

from functools import partial
from typing import Any

from fastapi import Request
from starlette.responses import Response

from hotspare.access.roles import Permission, Target
from hotspare.access.tokens import Caller
from hotspare.api import do, see
from hotspare.api.do import BackupRequest
from hotspare.api.estate import target_of_machine
from hotspare.api.guard import CallerHere, Server, ServerHere
from hotspare.api.jobs import JobRequest, ask_for_job
from hotspare.catalog.rows import RunRow
from hotspare.console.document import document_of
from hotspare.console.figures import Figures, FiguresHere, quietly
from hotspare.console.form import FormHere, body_of
from hotspare.console.rendering import page, see_other
from hotspare.documents.machine import machine_fields
from hotspare.documents.run import run_fields
from hotspare.errors import MachineNotFound
from hotspare.fleet.standing import MachineStanding

_POINTS_SHOWN = 50
_RUNS_SHOWN = 15
_NONE: list[dict[str, Any]] = []


def show_machine(
    request: Request,
    server: ServerHere,
    caller: CallerHere,
    figures: FiguresHere,
    id: str,  # noqa: A002 - in the address
    platform: str,
    number: int = 1,
) -> Response:
    """Show a machine."""
    standing = _standing(figures, caller, id, platform)
    line = standing.line
    points, problems = _points(server, caller, line.id)
    last = max(1, -(-len(points) // _POINTS_SHOWN))
    at = min(max(1, number), last)
    may_back_up = caller.may(Permission.BACK_UP, _with_repository(server, target_of_machine(platform, line)))
    return page(
        request,
        "machine.html",
        title=line.name,
        standing=standing,
        machine=machine_fields(line.machine) if line.machine else None,
        points=points[(at - 1) * _POINTS_SHOWN : at * _POINTS_SHOWN],
        count=len(points),
        number=at,
        pages=last,
        problems=problems,
        runs=[run_fields(run) for run in _runs(server, caller, standing)],
        may_back_up=line.machine is not None and may_back_up,
        may_restore=caller.may_somewhere(Permission.RESTORE),
        may_browse=caller.may_somewhere(Permission.BROWSE),
    )


def back_up(request: Request, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Have a machine backed up now: by a policy, as a job; or without one, as a command."""
    platform, number, policy = form.text("platform"), form.text("id"), form.text("policy")
    if policy:
        asked = body_of(JobRequest, policy=policy, machine=number, platform=platform)
        job = document_of(ask_for_job(asked, request, server, caller))
        return see_other(f"/activity/jobs/{job['id']}", "policy-runs")
    wanted = body_of(BackupRequest, machines=[number], platform=platform)
    action = document_of(do.begin_backup(wanted, request, server, caller))["action"]
    return see_other(f"/activity/actions/{action['id']}", "begun")


def _standing(figures: Figures, caller: Caller, number: str, platform: str) -> MachineStanding:
    for one in figures.standings(caller):
        if one.platform == platform and one.line.id == number:
            return one
    raise MachineNotFound(
        f"{platform} has no machine '{number}', and no restore point is of it; or it is not for you",
        meaning="Nothing was done",
        hint="See the list of machines",
    )


def _with_repository(server: Server, target: Target) -> Target:
    url = server.estate.settings.repository
    return Target(repository=url, platform=target.platform, tags=target.tags)


def _points(server: Server, caller: Caller, machine: str) -> tuple[list[dict[str, Any]], list[Any]]:
    """Give the restore points of a machine in all repositories, the newest first, and what cannot be read."""
    found: list[dict[str, Any]] = []
    problems = []
    for key in document_of(see.list_repositories(server, caller))["repositories"]:
        listed, error = quietly(partial(_points_in, server, caller, machine, key["id"]), _NONE)
        found += [{**point, "repository": key["id"], "url": key["url"]} for point in listed]
        if error is not None:
            problems.append((key["url"], error))
    return sorted(found, key=lambda point: (point["finished_at"], point["id"]), reverse=True), problems


def _points_in(server: Server, caller: Caller, machine: str, key: str) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        listed = document_of(see.list_points(server, caller, machine, key, 1000, after))
        points += listed["points"]
        after = listed["next"]
        if after is None:
            return points


def _runs(server: Server, caller: Caller, standing: MachineStanding) -> list[RunRow]:
    """Give the newest runs of this machine."""
    own = [
        run
        for name in dict.fromkeys((standing.line.name, standing.line.id))
        for run in see.runs_seen(server.estate, caller, _RUNS_SHOWN, platform=standing.platform, machine=name)
    ]
    return sorted(own, key=lambda run: run.id, reverse=True)[:_RUNS_SHOWN]
