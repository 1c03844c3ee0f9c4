"""The route of reports: how a period went, of what the caller sees."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from hotspare.access.roles import EVERYTHING, Permission, Target
from hotspare.access.tokens import Caller
from hotspare.api.answers import answer
from hotspare.api.estate import Estate
from hotspare.api.guard import CallerHere, ServerHere
from hotspare.documents.form import error_fields
from hotspare.errors import UsageError
from hotspare.fleet.period import PeriodName
from hotspare.fleet.report import Report, make_report
from hotspare.fleet.report_form import report_fields

Name = Annotated[PeriodName, Query(description="The last 24 hours, 7 days or 30 days.")]
Since = Annotated[
    str | None,
    Query(alias="from", description="When it begins instead: 2026-11-01, or a time; UTC unless it says."),
]
Until = Annotated[str | None, Query(alias="to", description="When it ends, instead of now; not in it.")]


def show_report(
    server: ServerHere, caller: CallerHere, period: Name = "week", since: Since = None, until: Until = None
) -> Response:
    """Sum up a period: runs, promises kept, tested restores, what is protected and stored."""
    made = report_for(server.estate, caller, period, since, until)
    problems = [
        {"platform": uri, **error_fields(error)}
        for uri, error in server.estate.inventory().problems
        if caller.may(Permission.READ, Target(platform=uri))
    ]
    return answer("report", **report_fields(made), problems=problems)


def report_for(
    estate: Estate, caller: Caller, name: PeriodName, since: str | None, until: str | None
) -> Report:
    """Make the report that somebody asks for.

    Raises:
        UsageError: a time cannot be read, or the period has no length.
    """
    found = estate.reported(name, _moment(since), _moment(until))
    if caller.may(Permission.READ, EVERYTHING):
        return found.whole

    def visible(platform: str, repository: str, tags: frozenset[str]) -> bool:
        target = Target(repository=repository or None, platform=platform or None, tags=tags)
        return caller.may(Permission.READ, target)

    return make_report(found.period, found.rows, found.promised, visible)


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text[:40]!r} is no time", meaning="Nothing was looked at", hint="Write it like 2026-11-01"
        ) from error
