"""The overview: is everything protected, what runs now, will there be space, did restores work."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import Request
from starlette.responses import Response

from hotspare.access.roles import Permission, Target
from hotspare.api import see
from hotspare.api.guard import CallerHere, Server, ServerHere
from hotspare.catalog.rows import PointRow
from hotspare.console.activity import going_on
from hotspare.console.document import document_of
from hotspare.console.figures import Capacity, Figures, FiguresHere, quietly
from hotspare.console.inventory import PAGE, Chosen, chosen_from, troubled_first
from hotspare.console.matrix import days_until, matrix_of
from hotspare.console.rendering import page
from hotspare.errors import HotspareError
from hotspare.fleet.standing import MachineStanding

_SHOWN = 25
"""Machines in the overview's matrix; the matrix of its own has all."""


@dataclass(frozen=True, slots=True)
class _Forecast:
    """A repository, and how full it is."""

    key: str
    url: str
    capacity: Capacity | None
    error: HotspareError | None


def show_overview(request: Request, server: ServerHere, caller: CallerHere, figures: FiguresHere) -> Response:
    """Show the overview."""
    standings = figures.standings(caller)
    today = datetime.now(UTC).date()
    worst = troubled_first(standings)[:_SHOWN]
    return page(
        request,
        "overview.html",
        title="Overview",
        counts=_counts(standings),
        rows=matrix_of(server.estate, worst, today),
        days=days_until(today),
        more=len(standings) > _SHOWN,
        forecasts=_forecasts(server, caller, figures),
        trial=_last_trial(server, caller),
        problems=figures.problems(caller),
        **going_on(server, caller, figures),
    )


def show_going_on(request: Request, server: ServerHere, caller: CallerHere, figures: FiguresHere) -> Response:
    """Show the part that says what runs now."""
    return page(request, "going-on.html", title="", **going_on(server, caller, figures))


def show_matrix(
    request: Request,
    server: ServerHere,
    caller: CallerHere,
    figures: FiguresHere,
    q: str = "",
    number: int = 1,
) -> Response:
    """Show the matrix of all machines, a page of them at a time."""
    chosen: Chosen = chosen_from(figures.standings(caller), q, "", "", number)
    today = datetime.now(UTC).date()
    return page(
        request,
        "matrix-page.html",
        title="Machines by day",
        rows=matrix_of(server.estate, chosen.page, today),
        days=days_until(today),
        q=q,
        chosen=chosen,
        page_size=PAGE,
    )


def _counts(standings: list[MachineStanding]) -> dict[str, int]:
    there = [one for one in standings if one.name != "gone"]
    return {
        "machines": len(there),
        "protected": sum(one.protected for one in there),
        "unprotected": sum(not one.protected for one in there),
        "rpo_broken": sum(one.rpo_broken for one in there),
        "failed": sum(one.name == "failed" for one in there),
        "missed": sum(one.name == "missed" for one in there),
    }


def _forecasts(server: Server, caller: CallerHere, figures: Figures) -> list[_Forecast]:
    listed: list[dict[str, Any]] = document_of(see.list_repositories(server, caller))["repositories"]
    forecasts = []
    for one in listed:
        key = one["id"]
        capacity, error = quietly(partial(figures.capacity_of, key), None)
        forecasts.append(_Forecast(key, one["url"], capacity, error))
    return forecasts


def _last_trial(server: Server, caller: CallerHere) -> PointRow | None:
    trial = server.estate.ask(lambda it: it.last_trial())
    if trial is None:
        return None
    tags = server.estate.inventory().tags.get((trial.platform, trial.machine_id))
    target = Target(repository=trial.repository, platform=trial.platform, tags=tags)
    return trial if caller.may(Permission.READ, target) else None
