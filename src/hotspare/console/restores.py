"""Restoring a machine as a new one: which, to which host, what would be made there; and having it made."""

from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import Response

from hotspare.access.roles import Permission
from hotspare.access.tokens import Caller
from hotspare.api import inside, restores
from hotspare.api.guard import CallerHere, Server, ServerHere
from hotspare.api.inside import PlanRequest, restore_targets
from hotspare.api.restores import RestoreRequest
from hotspare.api.see import point_for
from hotspare.console.document import document_of
from hotspare.console.failures import said_in_form
from hotspare.console.figures import FiguresHere, quietly
from hotspare.console.form import Form, FormHere, body_of
from hotspare.console.inventory import chosen_from
from hotspare.console.rendering import page, see_other
from hotspare.documents.point import point_fields
from hotspare.errors import HotspareError
from hotspare.platforms.offers import Offers
from hotspare.platforms.registry import networks_of
from hotspare.repository.point import RestorePoint
from hotspare.restore.machine import machine_of

_TEMPLATE = "restore-where.html"


def choose_machine(
    request: Request, caller: CallerHere, figures: FiguresHere, q: str = "", number: int = 1
) -> Response:
    """Ask what is to be restored: a machine that has restore points."""
    restorable = [one for one in figures.standings(caller) if one.line.last is not None]
    chosen = chosen_from(restorable, q, "", "", number)
    return page(request, "restore.html", title="Restore", chosen=chosen, q=q)


@dataclass(frozen=True, slots=True)
class _Wizard:
    """A restore point, and where the caller may restore it to."""

    server: Server
    repository: str
    point: RestorePoint
    targets: list[str]
    """URIs."""
    networks: tuple[tuple[str, str], ...]
    """What the machine was plugged into: ``network`` or ``bridge``, and its name."""

    def shown(self, wanted: dict[str, Any], plan: dict[str, Any] | None = None) -> dict[str, Any]:
        """Give what the page shows: the form as it was filled in, and what the chosen host has."""
        usual = {
            "pool": "",
            "networks": {},
            "bridges": {},
            "keep_id": False,
            "keep_macs": False,
            "start": False,
        }
        uri, offers, silent = wanted["platform"], Offers(), None
        if uri in self.targets:
            offers, silent = quietly(lambda: self.server.estate.offers(uri), offers)
        return {
            "title": f"Restore {self.point.machine_name} as a new machine",
            "point": point_fields(self.point),
            "platforms": self.targets,
            "networks": self.networks,
            "offers": offers,
            "silent": silent,
            "repository": self.repository,
            "wanted": {**usual, **wanted},
            "plan": plan,
        }


def _wizard(server: Server, caller: Caller, point: str, repository: str) -> _Wizard:
    opened, found = point_for(server.estate, caller, Permission.READ, point, repository)
    targets = restore_targets(server.estate, caller, opened.backend.url, found)
    return _Wizard(server, repository, found, targets, networks_of(machine_of(found)))


def ask_where(
    request: Request, point: str, server: ServerHere, caller: CallerHere, repository: str, platform: str = ""
) -> Response:
    """Ask where a machine is to be restored to."""
    wizard = _wizard(server, caller, point, repository)
    usual = server.estate.settings.platform
    chosen = next((uri for uri in (platform, usual, *wizard.targets) if uri in wizard.targets), usual)
    wanted = {"name": f"{wizard.point.machine_name}-restored", "platform": chosen}
    return page(request, _TEMPLATE, error=None, **wizard.shown(wanted))


def restore(request: Request, point: str, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Say what a restore would make; and once that was seen, begin it."""
    wizard = _wizard(server, caller, point, form.text("repository"))
    wanted = {
        "name": form.text("name"),
        "platform": form.text("platform"),
        "pool": form.text("pool"),
        "networks": _mapped(form, wizard, "network"),
        "bridges": _mapped(form, wizard, "bridge"),
        "keep_id": form.flag("keep_id"),
        "keep_macs": form.flag("keep_macs"),
    }
    start = form.flag("start")
    try:
        if form.text("do") == "restore":
            body = body_of(RestoreRequest, **wanted, start=start)
            answer = restores.begin_restore(point, body, request, server, caller, wizard.repository)
            return see_other(f"/activity/actions/{document_of(answer)['action']['id']}", "begun")
        asked = body_of(PlanRequest, **wanted)
        request.state.detail = {"name": asked.name, "platform": asked.platform, "dry_run": True}
        plan = document_of(inside.plan_restore(point, asked, server, caller, wizard.repository))["plan"]
    except HotspareError as error:
        return said_in_form(request, _TEMPLATE, error, **wizard.shown({**wanted, "start": start}))
    return page(request, _TEMPLATE, error=None, **wizard.shown({**wanted, "start": start}, plan))


def _mapped(form: Form, wizard: _Wizard, wanted: str) -> dict[str, str]:
    """Give the names that were filled in, by those that they replace."""
    fields = {name: form.text(f"{kind}:{name}") for kind, name in wizard.networks if kind == wanted}
    return {name: there for name, there in fields.items() if there}
