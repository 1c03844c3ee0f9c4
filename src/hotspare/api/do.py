"""Routes that have something done: backups, checks, prunes, forgetting; and a second person's consent."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from hotspare.access.roles import EVERYTHING, Permission, Target
from hotspare.access.tokens import Caller
from hotspare.api.answers import answer, waiting
from hotspare.api.estate import tags_of
from hotspare.api.guard import CallerHere, Server, ServerHere
from hotspare.api.inside import Strict
from hotspare.api.policies import put_policy_now
from hotspare.api.see import RepositoryKey, point_for, repository_for
from hotspare.documents.point import point_fields
from hotspare.errors import ActionNotFound, Conflict, MachineNotFound, NotPermitted, NotThere, PartialFailure


class BackupRequest(Strict):
    """Machines to be backed up now."""

    machines: list[str] = Field(min_length=1, max_length=1000, description="Names or ids.")
    platform: str | None = Field(None, description="URI; else the one that is set.")


class PruneRequest(Strict):
    """How space is given back."""

    dry_run: bool = False


class SwitchRequest(Strict):
    """Whether something is on."""

    on: bool


def begin_backup(body: BackupRequest, request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Have machines backed up into the repository that is set, one after the other."""
    estate = server.estate
    uri = body.platform or estate.settings.platform
    request.state.detail = {"machines": body.machines[:100], "platform": uri}
    url = estate.settings.repository
    if url is None:
        raise NotThere("The server has no repository set", meaning="Nothing was backed up")
    known = {
        key: line for at, line in estate.inventory().machines if at == uri for key in (line.name, line.id)
    }
    for name in body.machines:
        line = known.get(name)
        target = Target(repository=url, platform=uri, tags=tags_of(line) if line else None)
        if line is None or line.machine is None or not caller.may(Permission.BACK_UP, target):
            raise MachineNotFound(
                f"{uri} has no machine '{name}', or not for you",
                meaning="Nothing was backed up",
                hint="See /api/v1/machines",
            )
    # By ids: a name that begins with a dash is no option then.
    words = [f"--platform={uri}", "--", *(known[name].id for name in body.machines)]
    target = Target(repository=url, platform=uri)
    action = server.actions.begin("backup", ["backup"], words, caller.name, target)
    return answer("action", http_status=202, action=action.fields())


def begin_check(repository: str, server: ServerHere, caller: CallerHere) -> Response:
    """Have a repository checked: that everything which restore points need is there."""
    return _begin_care(server, caller, repository, Permission.CHECK, "check", [])


def begin_prune(repository: str, body: PruneRequest, server: ServerHere, caller: CallerHere) -> Response:
    """Have the space given back of what no restore point needs."""
    words = ["--dry-run"] if body.dry_run else []
    return _begin_care(server, caller, repository, Permission.FORGET, "prune", words)


def _begin_care(
    server: Server, caller: Caller, key: str, permission: Permission, kind: str, more: list[str]
) -> Response:
    opened = repository_for(server.estate, caller, permission, key)
    words = [f"--repository={opened.backend.url}", *more]
    target = Target(repository=opened.backend.url)
    action = server.actions.begin(kind, ["repo", kind], words, caller.name, target)
    return answer("action", http_status=202, action=action.fields())


def cancel_action(action: str, server: ServerHere, caller: CallerHere) -> Response:
    """Have an action stopped at a safe moment: one's own, or as an admin any."""
    found = server.actions.get(action)
    if found.asked_by != caller.name and not caller.may(Permission.ADMINISTER, EVERYTHING):
        raise ActionNotFound(f"The server knows no action '{action}' of yours", meaning="Nothing was stopped")
    return answer("action", http_status=202, action=server.actions.cancel(action).fields())


def forget_point(
    point: str, request: Request, server: ServerHere, caller: CallerHere, repository: RepositoryKey = None
) -> Response:
    """Remove a restore point, or, where a second person has to agree, ask for it."""
    opened, found = point_for(server.estate, caller, Permission.FORGET, point, repository)
    opened.refuse_kept(found)
    request.state.detail = {"machine": found.machine_name, "finished_at": found.finished_at.isoformat()}
    if server.access.approvals.needed:
        summary = f"Forget the restore point {found.id} of {found.machine_name}"
        arguments = {"point": found.id, "repository": repository}
        return waiting(server.access.approvals.ask(caller.user.name, "forget-point", arguments, summary))
    return answer("points-forgotten", **_forget(server, {"point": found.id, "repository": repository}))


def _forget(server: Server, arguments: Mapping[str, Any]) -> dict[str, Any]:
    opened = server.estate.repository(arguments["repository"])
    found = server.estate.point(opened, arguments["point"])
    opened.forget(found)
    url = opened.backend.url
    server.estate.look_again()
    server.estate.ask(lambda catalog: catalog.remove_point(url, found.id))
    return {"points": [point_fields(found)], "dry_run": False, "locked_until": None}


def switch_second_person(
    body: SwitchRequest, request: Request, server: ServerHere, caller: CallerHere
) -> Response:
    """Ask for a second person's consent from now on; or no longer, which takes that consent itself."""
    approvals = server.access.approvals
    request.state.detail = {"on": body.on}
    if approvals.needed and not body.on:
        summary = "Ask for no second person any more"
        return waiting(approvals.ask(caller.user.name, "second-person-off", {}, summary))
    if body.on and sum(user.is_admin for user in server.access.users.all()) < 2:
        raise Conflict(
            "There is no second admin who could agree",
            meaning="Nothing was changed",
            hint="Make one first",
        )
    approvals.switch(on=body.on)
    return answer("settings", second_person=approvals.needed)


def show_settings(server: ServerHere) -> Response:
    """Say whether a second person has to agree."""
    return answer("settings", second_person=server.access.approvals.needed)


def list_approvals(server: ServerHere) -> Response:
    """List what waits for a second person, or did, the newest first."""
    found = [msgspec.to_builtins(one) for one in server.access.approvals.all()]
    return answer("approvals", approvals=found)


def approve(approval: str, request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Agree to what another admin has asked for, and have it done."""
    found = server.access.approvals.decide(approval, caller.user.name, approve=True)
    request.state.detail = {"summary": found.summary, "asked_by": found.asked_by}
    try:
        _DONE[found.action](server, found.arguments)
    except (NotThere, NotPermitted) as error:
        raise PartialFailure(
            f"It was approved but could not be done: {error.what}", meaning="Nothing was changed"
        ) from error
    return answer("approval", approval=msgspec.to_builtins(found))


def reject(approval: str, request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Do not agree: it is not done."""
    found = server.access.approvals.decide(approval, caller.user.name, approve=False)
    request.state.detail = {"summary": found.summary, "asked_by": found.asked_by}
    return answer("approval", approval=msgspec.to_builtins(found))


_DONE: dict[str, Callable[[Server, Mapping[str, Any]], object]] = {
    "forget-point": _forget,
    "put-policy": put_policy_now,
    "second-person-off": lambda server, _arguments: server.access.approvals.switch(on=False),
}
