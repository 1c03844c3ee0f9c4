"""How machines stand: one word, the gravest that is true, and the reason."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from hotspare.catalog.rows import PointRow, RunRow
from hotspare.documents.machine import ListedMachine
from hotspare.fleet.standing import KnownPolicy, MachineStanding, stand, while_running
from hotspare.platforms.platform import Machine, MachineMarks, PowerState
from hotspare.policy.policy import Policy, Schedule
from hotspare.policy.selection import Selection

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=100)
URI = "qemu:///system"
NIGHTLY = Policy(name="nightly", schedule=Schedule(when=("22:00",), rpo="26h"))


def machine(name: str = "web", **marks: Any) -> Machine:
    return Machine(
        id=f"id-{name}",
        name=name,
        platform=URI,
        state=PowerState.RUNNING,
        disks=(),
        marks=MachineMarks(**marks),
    )


def point(hours: float, *, passed: bool | None = None) -> PointRow:
    return PointRow(
        repository="file:///r",
        id="p",
        machine_id="id-web",
        machine_name="web",
        platform=URI,
        finished_at=NOW - timedelta(hours=hours),
        consistency="crash",
        boot_at=NOW if passed is not None else None,
        boot_passed=passed,
    )


def run(hours: float, outcome: Any = "ok", error: str | None = None) -> RunRow:
    began = NOW - timedelta(hours=hours)
    return RunRow(
        id=1,
        kind="backup",
        machine="web",
        platform=URI,
        repository="file:///r",
        started_at=began,
        finished_at=began,
        outcome=outcome,
        error_code=None,
        error=error,
        point=None,
        bytes_read=0,
        bytes_stored=0,
        held_back_seconds=None,
        latency_factor=None,
    )


def line(**given: Any) -> ListedMachine:
    usual = ListedMachine("web", "id-web", machine(), point(10), run(10))
    return replace(usual, **given)


def standing(one: ListedMachine, *policies: Policy, changed_at: datetime = LONG_AGO) -> MachineStanding:
    known = {policy.name: KnownPolicy(policy, changed_at) for policy in policies}
    (found,) = stand([(URI, one)], known, URI, NOW)
    return found


def test_it_is_ok_when_a_policy_keeps_its_promise() -> None:
    found = standing(line(), NIGHTLY)
    assert (found.name, found.protected, found.rpo_broken) == ("ok", True, False)
    assert found.policies == ("nightly",)
    assert found.rpo_seconds == 26 * 3600


@pytest.mark.parametrize(
    ("one", "policies", "name", "because"),
    [
        (line(machine=None, run=None), [NIGHTLY], "gone", "no more"),
        (line(run=run(1, "failed", "no space")), [NIGHTLY], "failed", "no space"),
        (line(run=run(1, "lost")), [NIGHTLY], "failed", "without a word"),
        (line(run=run(40), last=point(40)), [NIGHTLY], "missed", "nightly was due on 2026-03-09 at 22:00"),
        (line(last=None, run=None), [NIGHTLY], "never-run", "no restore point yet"),
        (line(last=None, run=None), [], "never-run", "no policy selects it"),
        (line(last=point(40)), [NIGHTLY], "stale", "26h00m are promised"),
        (line(test=point(10, passed=False)), [NIGHTLY], "warning", "did not pass"),
        (line(run=run(10, "interrupted")), [NIGHTLY], "warning", "interrupted"),
        (line(), [], "warning", "no policy selects it; it has restore points"),
    ],
)
def test_the_gravest_is_said_with_its_reason(
    one: ListedMachine, policies: list[Policy], name: str, because: str
) -> None:
    found = standing(one, *policies)
    assert found.name == name
    assert because in found.because


def disabled(policy: Policy) -> Policy:
    return msgspec.structs.replace(policy, enabled=False)


def test_a_policy_that_is_disabled_protects_nobody_and_that_is_no_failure() -> None:
    for one in (line(), line(last=None, run=None)):
        found = standing(one, disabled(NIGHTLY))
        assert (found.name, found.protected, found.disabled_policies) == ("disabled", False, ("nightly",))


def test_a_policy_is_not_missed_before_it_was_made_nor_within_the_hour() -> None:
    late = line(run=run(16), last=point(16))
    assert standing(late, NIGHTLY).name == "missed"
    assert standing(late, NIGHTLY, changed_at=NOW - timedelta(hours=2)).name == "ok"
    at_noon = Policy(name="noon", schedule=Schedule(when=("11:30",), rpo="26h"))
    assert standing(late, at_noon).name == "ok"


def test_a_window_that_is_closed_is_waited_for() -> None:
    schedule = Schedule(when=("08:00",), windows=("22:00-06:00",), rpo="48h")
    waits = Policy(name="waits", schedule=schedule)
    # Due at eight, but nothing may begin before ten in the evening.
    assert standing(line(run=run(13), last=point(13)), waits).name == "ok"


def test_only_policies_that_select_it_count() -> None:
    others = Policy(name="others", select=Selection(tags=("prod",)), schedule=NIGHTLY.schedule)
    assert standing(line(), others).policies == ()
    tagged = line(machine=machine(tags=("prod",)))
    assert standing(tagged, others).policies == ("others",)
    elsewhere = Policy(
        name="elsewhere", select=Selection(platforms=("images:///x",)), schedule=NIGHTLY.schedule
    )
    assert standing(line(), elsewhere).policies == ()


def test_the_shortest_promise_counts() -> None:
    hourly = Policy(name="hourly", schedule=Schedule(rpo="4h"))
    found = standing(line(), NIGHTLY, hourly)
    assert (found.name, found.rpo_seconds, found.rpo_broken) == ("stale", 4 * 3600, True)


def test_what_runs_says_so_and_what_was_before() -> None:
    before = standing(line(run=run(1, "failed", "no space")), NIGHTLY)
    (now,) = while_running([before], {(URI, "web")})
    assert now.name == "running"
    assert "no space" in now.because
    assert while_running([before], {("images:///x", "web")}) == [before]
