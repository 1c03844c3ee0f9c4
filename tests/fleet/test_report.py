"""Reports: what is added up to what, and what a caller does not see."""

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from hotspare.catalog.reporting import Known, PointTotals, ReportRows, RunTotals, Trial
from hotspare.catalog.rows import Outcome
from hotspare.errors import UsageError
from hotspare.fleet.period import Period, period_of
from hotspare.fleet.report import Promised, Report, longest_promise, make_report, promises_of
from hotspare.fleet.report_form import report_csv, report_fields
from hotspare.fleet.standing import KnownPolicy
from hotspare.platforms.platform import Machine, MachineMarks, PowerState
from hotspare.policy.policy import Policy, Schedule
from hotspare.policy.selection import Selection

SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 11, tzinfo=UTC)
DAY = timedelta(days=1)
HERE, REPOSITORY = "p:", "file:///r"


def machine(name: str, *tags: str) -> Machine:
    return Machine(
        id=f"id-{name}",
        name=name,
        platform=HERE,
        state=PowerState.RUNNING,
        disks=(),
        marks=MachineMarks(tags=tags),
    )


def runs(
    name: str, outcome: Outcome, count: int = 1, policy: str | None = "nightly", *, warned: bool = False
) -> RunTotals:
    return RunTotals(
        platform=HERE,
        machine=name,
        repository=REPOSITORY,
        policy=policy,
        outcome=outcome,
        warned=warned,
        count=count,
        bytes_read=100 * count,
        bytes_stored=10 * count,
    )


def points(name: str, size: int | None, *tags: str, number: str = "") -> PointTotals:
    return PointTotals(
        platform=HERE,
        machine_id=number or f"id-{name}",
        machine_name=name,
        repository=REPOSITORY,
        count=3,
        bytes_stored=30,
        unmeasured=0 if size else 3,
        newest_at=UNTIL - DAY,
        newest_size=size,
        tags=tags,
    )


ROWS = ReportRows(
    runs=[
        runs("web", "ok", 7),
        runs("id-web", "ok", 2, None, warned=True),  # asked for by its id, by nobody's policy
        runs("web", "lost"),
        runs("db", "missed"),
        runs("db", "cancelled", 2),
        runs("db", "running"),
        runs("gone", "failed", 4, "old"),
    ],
    successes={
        # Of ten days, the third and the fourth without a point that is new enough.
        (HERE, name, REPOSITORY): [(SINCE + days * DAY).timestamp() for days in ends]
        for name, ends in {"web": (-1, 0, 1, 4, 6, 8, 9), "id-web": (5, 7)}.items()
    },
    known=[Known(HERE, "web", "nightly", (SINCE - 30 * DAY).timestamp())],
    points=[points("web", 1000, "stale"), points("older", 500, "gold")],
    trials=[Trial(HERE, "id-web", SINCE, True)],
)
PROMISED = [
    Promised(machine("web", "gold", "prod"), "nightly", DAY.total_seconds(), REPOSITORY, SINCE - 90 * DAY),
    Promised(machine("db"), "nightly", DAY.total_seconds(), REPOSITORY, SINCE + 5 * DAY),
    Promised(machine("new"), "by-hand", None, REPOSITORY, SINCE),
]


@pytest.fixture
def report() -> Report:
    return make_report(Period(SINCE, UNTIL), ROWS, PROMISED)


def test_machines_have_all_that_is_theirs(report: Report) -> None:
    lines = {line.name: line for line in report.machines}
    assert sorted(lines) == ["db", "gone", "new", "older", "web"]
    web = lines["web"].amounts
    assert (web.runs_ok, web.runs_warned, web.runs_failed) == (7, 2, 1)
    assert (web.bytes_read, web.bytes_stored) == (1000, 100)
    assert (web.protected_bytes, web.points, web.points_bytes) == (1000, 3, 30)
    assert web.rpo_kept == pytest.approx(0.8)
    assert (lines["web"].tags, lines["web"].policies) == (frozenset({"gold", "prod"}), {"nightly", None})
    assert lines["web"].trial is not None
    db = lines["db"].amounts
    assert (db.runs_missed, db.runs_stopped, db.runs_ok, db.points) == (1, 2, 0, 0)
    # Promised since the sixth day, it may have none for one day; for the other four it should have had one.
    assert db.rpo_kept == pytest.approx(0.2)
    assert lines["new"].amounts.rpo_kept is None
    assert (lines["gone"].id, lines["gone"].policies, lines["gone"].amounts.runs_failed) == ("", {"old"}, 4)


def test_policies_tags_and_all_are_sums(report: Report) -> None:
    policies = {line.name: line for line in report.policies}
    assert [line.name for line in report.policies] == ["by-hand", "nightly", "old", None]
    nightly = policies["nightly"].amounts
    assert (nightly.machines, nightly.runs_ok, nightly.runs_warned, nightly.runs_missed) == (2, 7, 0, 1)
    assert (nightly.protected_bytes, policies["nightly"].rpo) == (1000, DAY.total_seconds())
    assert nightly.rpo_kept == pytest.approx(0.5)
    assert (policies[None].amounts.runs_warned, policies[None].amounts.machines) == (2, 1)
    tags = dict(report.tags)
    assert list(tags) == ["gold", "prod", None]
    assert (tags["gold"].machines, tags["gold"].protected_bytes) == (2, 1500)
    assert tags[None].machines == 3
    assert (report.totals.machines, report.totals.points, report.totals.runs_failed) == (5, 6, 5)
    assert report.totals.rpo_kept == pytest.approx(0.5)


def test_what_is_not_for_the_caller_is_in_no_sum() -> None:
    def gold_only(_platform: str, repository: str, tags: frozenset[str]) -> bool:
        return "gold" in tags and repository == REPOSITORY

    seen = make_report(Period(SINCE, UNTIL), ROWS, PROMISED, gold_only)
    assert [line.name for line in seen.machines] == ["older", "web"]
    assert [line.name for line in seen.policies] == ["nightly", None]
    assert (seen.totals.runs_ok, seen.totals.runs_missed, seen.totals.machines) == (7, 0, 2)
    assert seen.totals.rpo_kept == pytest.approx(0.8)
    assert make_report(Period(SINCE, UNTIL), ROWS, PROMISED, lambda *_: False).totals.machines == 0


def test_a_name_belongs_to_who_has_it_now() -> None:
    rows = ReportRows([runs("web", "ok")], {}, [], [points("web", 70, number="gone")], [])
    seen = make_report(Period(SINCE, UNTIL), rows, PROMISED[:1])
    assert {(line.id, line.amounts.runs_ok, line.amounts.points) for line in seen.machines} == {
        ("id-web", 1, 0),
        ("gone", 0, 3),
    }


def test_promises_are_those_of_policies_that_are_enabled() -> None:
    policies = {
        "a": KnownPolicy(
            Policy(name="a", select=Selection(names=("w*",)), schedule=Schedule(rpo="2d")), SINCE
        ),
        "b": KnownPolicy(Policy(name="b", repository="/other"), SINCE),
        "c": KnownPolicy(Policy(name="c", enabled=False), SINCE),
        "d": KnownPolicy(Policy(name="d", select=Selection(platforms=("elsewhere:",))), SINCE),
    }
    found = promises_of(policies, [machine("web"), machine("db")], HERE, "/r")
    assert {(one.policy, one.machine.name, one.rpo, one.repository) for one in found} == {
        ("a", "web", 2 * DAY.total_seconds(), "file:///r"),
        ("b", "web", None, "file:///other"),
        ("b", "db", None, "file:///other"),
    }
    assert longest_promise(found) == 2 * DAY
    assert longest_promise([]) == timedelta()


def test_the_tables_are_csv_that_spreadsheets_do_not_carry_out(report: Report) -> None:
    report.machines[0].name = "=1+1"
    fields = report_fields(report)
    rows = list(csv.DictReader(io.StringIO(report_csv(fields, "machine"))))
    assert len(rows) == len(report.machines)
    assert rows[0]["machine"] == "'=1+1"
    web = rows[-1]
    assert (web["tags"], web["rpo_kept"], web["test_passed"], web["protected_bytes"]) == (
        "gold prod",
        "0.8",
        "yes",
        "1000",
    )
    assert [row["policy"] for row in csv.DictReader(io.StringIO(report_csv(fields, "policy")))] == [
        "by-hand",
        "nightly",
        "old",
        "",
    ]
    assert len(list(csv.DictReader(io.StringIO(report_csv(fields, "tag"))))) == 3


def test_periods() -> None:
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    assert period_of("week", None, None, now) == Period(now - 7 * DAY, now)
    assert period_of("day", SINCE, UNTIL, now) == Period(SINCE, UNTIL)
    assert period_of("day", None, now + DAY, now) == Period(now - DAY, now)  # not beyond now
    with pytest.raises(UsageError):
        period_of("day", UNTIL, SINCE, now)
    with pytest.raises(UsageError):
        period_of("day", now + DAY, None, now)
