"""A report for programs: as a JSON document, and as CSV for spreadsheets."""

import csv
import io
from typing import Any, Literal

from hotspare.documents.form import utc_time
from hotspare.fleet.report import Amounts, MachineLine, PolicyLine, Report

By = Literal["machine", "policy", "tag"]
_AMOUNTS = (
    "machines",
    "runs_ok",
    "runs_warned",
    "runs_failed",
    "runs_missed",
    "runs_stopped",
    "rpo_kept",
    "bytes_read",
    "bytes_stored",
    "protected_bytes",
    "points",
    "points_bytes",
    "points_unmeasured",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What begins so, spreadsheets carry out; names of machines are chosen by their users."""


def report_fields(report: Report) -> dict[str, Any]:
    """Describe it in a JSON document."""
    return {
        "since": utc_time(report.period.since),
        "until": utc_time(report.period.until),
        "totals": _amounts(report.totals),
        "machines": [_machine(line) for line in report.machines],
        "policies": [_policy(line) for line in report.policies],
        "tags": [{"tag": tag, **_amounts(amounts)} for tag, amounts in report.tags],
    }


def report_csv(fields: dict[str, Any], by: By) -> str:
    """Write one of its tables as CSV (RFC 4180) with a header; ``fields`` are those of the document."""
    lines: list[dict[str, Any]] = fields[{"machine": "machines", "policy": "policies", "tag": "tags"}[by]]
    text = io.StringIO()
    writer = csv.writer(text)
    own = {
        "machine": ("machine", "machine_id", "platform", "tags", "policies", "tested_at", "test_passed"),
        "policy": ("policy", "rpo_seconds"),
        "tag": ("tag",),
    }[by]
    header = ("since", "until", *own, *_AMOUNTS)
    writer.writerow(header)
    period = {"since": fields["since"], "until": fields["until"]}
    for line in lines:
        writer.writerow([_cell((period | line)[name]) for name in header])
    return text.getvalue()


def _machine(line: MachineLine) -> dict[str, Any]:
    return {
        "machine": line.name,
        "machine_id": line.id or None,
        "platform": line.platform,
        "tags": sorted(line.tags),
        "policies": sorted(name for name in line.policies if name is not None),
        "tested_at": utc_time(line.trial.at) if line.trial else None,
        "test_passed": line.trial.passed if line.trial else None,
        **_amounts(line.amounts),
    }


def _policy(line: PolicyLine) -> dict[str, Any]:
    return {"policy": line.name, "rpo_seconds": line.rpo, **_amounts(line.amounts)}


def _amounts(amounts: Amounts) -> dict[str, Any]:
    kept = amounts.rpo_kept
    found = {name: getattr(amounts, name) for name in _AMOUNTS}
    return found | {"rpo_kept": None if kept is None else round(kept, 4)}


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        value = " ".join(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
