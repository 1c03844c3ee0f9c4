"""Policies: the list, what each means, and making, changing and removing them."""

from functools import partial
from typing import Any

from fastapi import Request
from starlette.responses import Response

from hotspare.access.roles import EVERYTHING, Permission
from hotspare.api import policies
from hotspare.api.guard import CallerHere, Server, ServerHere
from hotspare.api.jobs import JobRequest, ask_for_job
from hotspare.api.policies import PolicyName
from hotspare.console.document import waits
from hotspare.console.failures import said_in_form
from hotspare.console.figures import FiguresHere, quietly
from hotspare.console.form import FormHere
from hotspare.console.policy_form import NEW, body_in, fields_of, policy_in
from hotspare.console.rendering import page, see_other
from hotspare.errors import Conflict, HotspareError, UsageError
from hotspare.fleet.preview import Preview, look, preview_fields
from hotspare.policy.document import all_fields, policy_fields, read_policy, write_policy
from hotspare.policy.policy import Policy

_DUE_SHOWN = 5
_ZONES: tuple[str, ...] = (
    "UTC",
    "Europe/London",
    "Europe/Berlin",
    "Europe/Helsinki",
    "America/New_York",
    "America/Chicago",
)
_ZONES += ("America/Los_Angeles", "America/Sao_Paulo", "Asia/Kolkata", "Asia/Tokyo", "Australia/Sydney")
"""Proposed; any other can be typed."""


def show_policies(request: Request, server: ServerHere, caller: CallerHere, figures: FiguresHere) -> Response:
    """Show the policies, each with how the machines stand that it selects."""
    standings = figures.standings(caller)
    rows = []
    for name in server.estate.policies().names():
        policy, error = quietly(partial(server.estate.policies().get, name), None)
        own = [one for one in standings if name in (*one.policies, *one.disabled_policies)]
        rows.append(
            {
                "name": name,
                "policy": all_fields(policy) if policy else None,
                "error": error,
                "machines": len(own),
                "troubled": sum(one.name in {"failed", "missed", "stale"} for one in own),
            }
        )
    may = caller.may(Permission.CONFIGURE, EVERYTHING)
    return page(request, "policies.html", title="Policies", rows=rows, may_configure=may)


def show_policy(request: Request, policy: PolicyName, server: ServerHere, caller: CallerHere) -> Response:
    """Show a policy: its definition, and where what it means is to be seen."""
    return page(
        request,
        "policy.html",
        title=f"Policy {policy}",
        policy=all_fields(server.estate.policies().get(policy)),
        yaml=server.estate.policies().text(policy),
        may_configure=caller.may(Permission.CONFIGURE, EVERYTHING),
        may_run=caller.may_somewhere(Permission.BACK_UP),
    )


def show_preview(
    request: Request, policy: PolicyName, server: ServerHere, caller: CallerHere, figures: FiguresHere
) -> Response:
    """Show what a policy selects, when it runs, what it would delete: that takes its time."""
    found, error = quietly(partial(_look, server, server.estate.policies().get(policy)), None)
    return page(
        request,
        "policy-preview.html",
        title=f"What {policy} means now",
        name=policy,
        preview=preview_fields(found) if found else None,
        error=error,
        standings={(one.platform, one.line.id): one for one in figures.standings(caller)},
    )


def show_new(request: Request, server: ServerHere) -> Response:
    """Ask what a new policy is to be."""
    return _form(request, server, None, fields_of(NEW))


def show_edit(request: Request, policy: PolicyName, server: ServerHere) -> Response:
    """Ask what is to change of a policy."""
    return _form(request, server, policy, fields_of(server.estate.policies().get(policy)))


def keep(
    request: Request, server: ServerHere, caller: CallerHere, form: FormHere, figures: FiguresHere
) -> Response:
    """Show what a policy would do; or keep it."""
    known = form.optional("known")
    shown = fields_of(form)
    try:
        body = body_in(form)
        wanted = policy_in(form)
        if form.text("do") != "keep":
            request.state.detail = {"policy": wanted.name, "dry_run": True}
            return _form(request, server, known, shown, preview=_look(server, wanted))
        if known is None and wanted.name in server.estate.policies().names():
            raise Conflict(f"There is a policy '{wanted.name}' already", meaning="Nothing was changed")
        answer = policies.put_policy(wanted.name, body, request, server, caller)
    except HotspareError as error:
        return _form(request, server, known, shown, error=error)
    figures.look_again()
    if waits(answer):
        return see_other("/policies", "waits")
    return see_other(f"/policies/{wanted.name}", "policy-kept")


def show_yaml(request: Request, policy: PolicyName, server: ServerHere) -> Response:
    """Show a policy's file, to be changed."""
    text = server.estate.policies().text(policy)
    return page(
        request, "policy-yaml.html", title=f"Policy {policy} as YAML", name=policy, text=text, error=None
    )


def keep_yaml(
    request: Request,
    policy: PolicyName,
    server: ServerHere,
    caller: CallerHere,
    form: FormHere,
    figures: FiguresHere,
) -> Response:
    """Keep a policy's file, with its comments."""
    text = form.secret("text").replace("\r\n", "\n")
    try:
        wanted = read_policy(text, policy, "the text")
        answer = policies.put_policy(policy, policy_fields(wanted), request, server, caller)
        if not waits(answer):
            server.estate.policies().put_text(policy, text if text.endswith("\n") else text + "\n")
    except HotspareError as error:
        title = f"Policy {policy} as YAML"
        return said_in_form(request, "policy-yaml.html", error, title=title, name=policy, text=text)
    figures.look_again()
    return see_other(f"/policies/{policy}", "waits" if waits(answer) else "policy-kept")


def switch(
    request: Request,
    policy: PolicyName,
    server: ServerHere,
    caller: CallerHere,
    form: FormHere,
    figures: FiguresHere,
) -> Response:
    """Enable a policy, or disable it."""
    body = {**policy_fields(server.estate.policies().get(policy)), "enabled": form.flag("on")}
    answer = policies.put_policy(policy, body, request, server, caller)
    figures.look_again()
    return see_other(f"/policies/{policy}", "waits" if waits(answer) else "policy-kept")


def remove(policy: PolicyName, server: ServerHere, figures: FiguresHere) -> Response:
    """Remove a policy."""
    policies.remove_policy(policy, server)
    figures.look_again()
    return see_other("/policies", "policy-removed")


def run(request: Request, policy: PolicyName, server: ServerHere, caller: CallerHere) -> Response:
    """Have all machines backed up that a policy selects, as soon as limits allow."""
    known = server.estate.policies().get(policy)
    with server.estate.fleet() as fleet:
        chosen = fleet.machines_of(known)
    if not chosen:
        raise UsageError(f"The policy {policy} selects no machine", meaning="Nothing was begun")
    for one in chosen:
        asked = JobRequest(policy=policy, machine=one.machine.id, platform=one.machine.platform)
        ask_for_job(asked, request, server, caller)
    request.state.detail = {"policy": policy, "machines": [one.machine.name for one in chosen][:100]}
    return see_other("/activity", "policy-runs")


def _look(server: Server, policy: Policy) -> Preview:
    with server.estate.fleet() as fleet:
        return look(fleet, policy, _DUE_SHOWN, retention=True, warn=lambda _text: None)


def _form(
    request: Request,
    server: Server,
    known: str | None,
    shown: dict[str, Any],
    *,
    preview: Preview | None = None,
    error: HotspareError | None = None,
) -> Response:
    given: dict[str, Any] = {
        "title": f"Change the policy {known}" if known else "New policy",
        "known": known,
        "shown": shown,
        "preview": preview_fields(preview) if preview else None,
        "platforms": server.estate.platforms(),
        "repositories": sorted(set(server.estate.repositories().values())),
        "zones": _ZONES,
        "standings": {},
        "yaml": write_policy(preview.policy) if preview else "",
    }
    if error is not None:
        return said_in_form(request, "policy-form.html", error, **given)
    return page(request, "policy-form.html", error=None, **given)
