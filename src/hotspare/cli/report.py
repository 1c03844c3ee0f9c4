"""``hotspare report``: how backups of a period went, whether promises were kept, and what is protected."""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter

from hotspare.cli import output
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.quantities import parse_moment
from hotspare.cli.session import Session
from hotspare.errors import ConfigError, HotspareError, PermissionRefused, UsageError
from hotspare.fleet.fleet import Fleet
from hotspare.fleet.period import Period, PeriodName, period_of
from hotspare.fleet.report import Report, longest_promise, make_report, promises_of
from hotspare.fleet.report_form import By, report_csv, report_fields
from hotspare.fleet.standing import KnownPolicy
from hotspare.platforms.platform import Machine
from hotspare.units import format_bytes

app = noun("report", "Sum up a period: runs, promises kept, tested restores, what is protected and stored.")

_HEADER = ("MACHINES", "OK", "WARNED", "FAILED", "MISSED", "STOPPED", "RPO KEPT", "READ", "STORED")
_NAMELESS = {"machine": "?", "policy": "(by hand)", "tag": "(none)"}
_USAGE = ("PROTECTED", "POINTS", "THEY TOOK")


@app.default
def report(
    *,
    period: PeriodName = "week",
    since: Annotated[str | None, Parameter(name="--from")] = None,
    until: Annotated[str | None, Parameter(name="--to")] = None,
    by: By | None = None,
    csv: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Sum up a period from this host's history: of each machine, policy and tag, and of all.

    Runs that made a restore point and warned of something count as warned; a process that went away without
    a word, as failed; interrupted and cancelled ones, as stopped. RPO kept is the share of the time in which
    the newest restore point was not older than policies, as they are now, promise. Protected are the disks
    in each machine's newest restore point; what its points took was counted when each was made.

    Args:
        period: The last 24 hours, 7 days or 30 days.
        since: When it begins instead: 2026-11-01, or 2026-11-01T06:00; in this host's time zone.
        until: When it ends, instead of now; not in it.
        by: Only the table by machine, policy or tag.
        csv: Print that table (by machine unless --by says another) as CSV.
        options: See below.
    """
    wanted = period_of(
        period,
        parse_moment(since) if since else None,
        parse_moment(until) if until else None,
        datetime.now(UTC),
    )
    if csv and options.output == "json":
        raise UsageError("The result is either CSV or JSON", meaning="Nothing was looked at")
    with Session(options) as session:
        fleet = Fleet(session)
        made, problems = _made(fleet, wanted)
        fields = report_fields(made)
        if session.as_json:
            output.print_document(output.document("report", **fields, problems=problems))
        else:
            print_fields(fields, by, as_csv=csv)


app.help_epilogue = closing(
    [
        "hotspare report",
        "hotspare report --period month --by tag",
        "hotspare report --from 2026-11-01 --to 2026-12-01 --csv > november.csv",
        "hotspare report --period day -o json",
    ],
    PermissionRefused,
    ConfigError,
)


def _made(fleet: Fleet, period: Period) -> tuple[Report, list[dict[str, Any]]]:
    """Make the report; gives the platforms that did not answer too, which are told as warnings."""
    files = fleet.session.policies()
    policies = {name: KnownPolicy(one, files.changed_at(name)) for name, one in files.all().items()}
    uris = {uri for one in policies.values() if one.policy.enabled for uri in fleet.platforms_of(one.policy)}
    machines: list[Machine] = []
    problems = []
    for uri in sorted(uris):
        try:
            machines += fleet.host(uri).machines()
        except HotspareError as error:
            output.warn(f"{error} The report lacks machines of {uri} that no run was of, and their promises")
            problems.append({"platform": uri, **output.error_fields(error)})
    settings = fleet.session.settings
    promised = promises_of(policies, machines, settings.platform, settings.repository)
    rows = fleet.catalog.report_rows(period.since, period.until, longest_promise(promised))
    return make_report(period, rows, promised), problems


def print_fields(fields: dict[str, Any], by: By | None, *, as_csv: bool) -> None:
    """Print a report's document for people, or one of its tables as CSV; with ``by``, only that table."""
    if as_csv:
        sys.stdout.write(report_csv(fields, by or "machine"))
        return
    since, until = (output.local_time(datetime.fromisoformat(fields[name])) for name in ("since", "until"))
    output.print_text(f"{since} to {until}")
    for kind, lines in (("machine", "machines"), ("policy", "policies"), ("tag", "tags")):
        if by in {None, kind} and fields[lines]:
            output.print_text("")
            _print_table(kind, fields[lines], fields["totals"] if by is None and kind == "machine" else None)
    if fields["totals"]["points_unmeasured"]:
        output.note(
            f"What {fields['totals']['points_unmeasured']} restore points took is not known, as an older"
            ' version noted them down; "hotspare point list" has it looked up'
        )


def _print_table(kind: str, lines: list[dict[str, Any]], totals: dict[str, Any] | None) -> None:
    tested = kind == "machine"
    header = (kind.upper(), *(_HEADER[1:] if tested else _HEADER), *_USAGE, *(("TESTED",) if tested else ()))
    rows = [(one[kind] or _NAMELESS[kind], *_cells(one, tested=tested)) for one in lines]
    if totals is not None and len(lines) > 1:
        rows.append(("ALL", *_cells(totals, tested=tested)))
    output.print_table(header, rows, right=header[1:-1] if tested else header[1:])


def _cells(one: dict[str, Any], *, tested: bool) -> list[str]:
    cells = [] if tested else [str(one["machines"])]
    cells += [str(one[f"runs_{kind}"]) for kind in ("ok", "warned", "failed", "missed", "stopped")]
    cells.append("-" if one["rpo_kept"] is None else f"{one['rpo_kept']:.1%}")
    cells += [format_bytes(one[name]) for name in ("bytes_read", "bytes_stored", "protected_bytes")]
    cells += [str(one["points"]), format_bytes(one["points_bytes"])]
    if tested:
        cells.append(_tested(one))
    return cells


def _tested(one: dict[str, Any]) -> str:
    if not one.get("tested_at"):
        return "never" if "tested_at" in one else ""
    when = output.local_time(datetime.fromisoformat(one["tested_at"]))[:10]
    return f"{'passed' if one['test_passed'] else 'FAILED'} {when}"
