"""Reports: how a period went, what is protected and what it takes; to look at, to print, and as CSV."""

from dataclasses import replace
from typing import Any

from fastapi import Request
from starlette.responses import Response

from hotspare.api.guard import CallerHere, ServerHere
from hotspare.api.report import report_for
from hotspare.console.figures import FiguresHere
from hotspare.console.inventory import PAGE, pages_of
from hotspare.console.rendering import page
from hotspare.errors import HotspareError, UsageError
from hotspare.fleet.period import DAYS, PeriodName
from hotspare.fleet.report import MachineLine
from hotspare.fleet.report_form import By, report_csv, report_fields

_TABLES: tuple[By, ...] = ("machine", "policy", "tag")


def show_report(
    request: Request,
    server: ServerHere,
    caller: CallerHere,
    figures: FiguresHere,
    period: str = "week",
    since: str = "",
    until: str = "",
    number: int = 1,
) -> Response:
    """Show a report; its machines a page at a time, or with 0 as the number all of them."""
    asked = {"period": _name(period), "since": since, "until": until}
    error: HotspareError | None = None
    try:
        made = report_for(server.estate, caller, _name(period), since or None, until or None)
    except UsageError as refused:
        error, made = refused, report_for(server.estate, caller, _name(period), None, None)
    machines = sorted(made.machines, key=_gravity)
    last = pages_of(len(machines))
    at = min(max(0, number), last)
    shown = machines[(at - 1) * PAGE : at * PAGE] if at else machines
    fields = report_fields(replace(made, machines=shown))
    return page(
        request,
        "report.html",
        title="Report",
        report=fields,
        count=len(machines),
        chosen={"number": at, "pages": last if at else 1},
        asked=asked,
        periods=DAYS,
        error=error,
        status=422 if error else 200,
        problems=figures.problems(caller),
    )


def download_report(
    server: ServerHere,
    caller: CallerHere,
    by: str = "machine",
    period: str = "week",
    since: str = "",
    until: str = "",
) -> Response:
    """Give one of a report's tables as CSV."""
    table = _table(by)
    made = report_for(server.estate, caller, _name(period), since or None, until or None)
    name = f"hotspare-{table}-{made.period.since:%Y%m%d}-{made.period.until:%Y%m%d}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(report_csv(report_fields(made), table), media_type="text/csv", headers=headers)


def _name(period: str) -> PeriodName:
    return next((one for one in DAYS if one == period), "week")


def _table(by: str) -> By:
    return next((one for one in _TABLES if one == by), "machine")


def _gravity(line: MachineLine) -> tuple[Any, ...]:
    """Put those first whose promises were broken, then those whose runs failed or never began."""
    amounts = line.amounts
    kept = amounts.rpo_kept
    return (1.0 if kept is None else kept, -amounts.runs_failed - amounts.runs_missed, line.name, line.id)
