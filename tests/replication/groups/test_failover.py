"""What becomes of a group when some of its machines cannot be moved."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from hotspare.errors import HotspareError, PointNotFound, UsageError
from hotspare.replication.failover import machine as machines
from hotspare.replication.failover.report import Loss, new_report
from hotspare.replication.failover.service import FAILOVER, LEASE_STATUS
from hotspare.replication.groups import failover
from hotspare.replication.groups.failover import SHUT_DOWN, START_AGAIN, FailGroupOver, GroupReport
from hotspare.replication.link.server import Caller
from tests.replication.groups.test_order import group


@dataclass
class Hosts:
    """Stands for both hosts: notes what is asked of them, and refuses what it is told to."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    refused: set[tuple[str, str]] = field(default_factory=set)
    here: set[str] = field(default_factory=set)
    behind: set[str] = field(default_factory=set)

    def do(self, what: str, protection: str) -> None:
        machine = protection.removeprefix("id-")
        self.asked.append((what, machine))
        if (what, machine) in self.refused:
            raise HotspareError(f"{machine} refuses")

    def ask(self, verb: Any, asked: Any) -> Any:
        machine = asked.protection.removeprefix("id-")
        if verb is LEASE_STATUS:
            return SimpleNamespace(me="standby", holder="standby" if machine in self.here else "source")
        assert verb is FAILOVER
        self.do("try" if asked.dry_run else "move", asked.protection)
        report = new_report("failover", machine, asked.protection)
        report.loss = Loss(seconds=1.0, bytes=None if machine in self.behind else 0)
        return report

    def call(self, verb: Any, asked: Any, **_how: Any) -> None:
        assert verb in {SHUT_DOWN, START_AGAIN}
        self.do("shut down" if verb is SHUT_DOWN else "start again", asked.protection)

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def done(self, what: str) -> list[str]:
        return [machine for one, machine in self.asked if one == what]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    hosts = Hosts()
    monkeypatch.setattr(machines, "find", lambda _uri, machine_id: machine_id)
    monkeypatch.setattr(machines, "wait_for_agent", lambda _domain, _seconds: True)
    monkeypatch.setattr(failover, "points_here", lambda _agent: {})
    monkeypatch.setattr(failover, "read_active", lambda _folder: None)
    return hosts


@pytest.fixture
def fail_over(hosts: Hosts) -> Callable[..., GroupReport]:
    agent = SimpleNamespace(
        protections=lambda: group("db", "web", "cache"),
        services=hosts,
        client=lambda _host: hosts,
        folder_of=lambda protection: protection,
    )
    service = failover._Service(agent)  # type: ignore[arg-type]

    def asked(**how: Any) -> GroupReport:
        return service.fail_over(Caller("local"), FailGroupOver(group="shop", **how), b"")

    return asked


def outcomes(report: GroupReport) -> list[tuple[str, bool]]:
    return [(one.machine, one.moved) for one in report.machines]


def test_all_are_asked_before_one_is_touched(hosts: Hosts, fail_over: Callable[..., GroupReport]) -> None:
    hosts.refused.add(("try", "cache"))
    for planned in (False, True):
        with pytest.raises(HotspareError, match="cache refuses"):
            fail_over(planned=planned)
    assert {what for what, _ in hosts.asked} == {"try"}


def test_they_start_in_order_and_are_shut_down_the_other_way(
    hosts: Hosts, fail_over: Callable[..., GroupReport]
) -> None:
    report = fail_over(planned=True, order=("cache",))
    assert outcomes(report) == [("cache", True), ("db", True), ("web", True)]
    assert hosts.done("shut down") == ["web", "db", "cache"]
    assert hosts.done("move") == ["cache", "db", "web"]
    assert report.failed == []


def test_of_a_lost_host_the_others_are_taken_over_all_the_same(
    hosts: Hosts, fail_over: Callable[..., GroupReport]
) -> None:
    hosts.refused.add(("move", "db"))
    report = fail_over()
    assert outcomes(report) == [("db", False), ("web", True), ("cache", True)]
    assert [one.machine for one in report.failed] == ["db"]
    # The same again goes on with what is left.
    hosts.refused.clear()
    hosts.asked.clear()
    hosts.here = {"web", "cache"}
    assert outcomes(fail_over()) == [("db", True), ("web", True), ("cache", True)]
    assert hosts.done("move") == ["db"]
    hosts.here.add("db")
    with pytest.raises(UsageError, match="taken over by this host already"):
        fail_over()


def test_a_planned_move_that_fails_leaves_the_rest_running_at_home(
    hosts: Hosts, fail_over: Callable[..., GroupReport]
) -> None:
    hosts.refused |= {("move", "web"), ("start again", "cache")}
    report = fail_over(planned=True)
    assert outcomes(report) == [("db", True), ("web", False), ("cache", False)]
    assert hosts.done("move") == ["db", "web"]
    assert hosts.done("start again") == ["cache"]
    assert any("cache is off" in warning for warning in report.warnings)


def test_what_was_shut_down_starts_again_when_another_does_not_shut_down(
    hosts: Hosts, fail_over: Callable[..., GroupReport]
) -> None:
    hosts.refused.add(("shut down", "db"))
    with pytest.raises(HotspareError, match="db refuses"):
        fail_over(planned=True)
    assert hosts.done("start again") == ["web", "cache"]
    assert hosts.done("move") == []


def test_that_nothing_was_moved_is_an_error(hosts: Hosts, fail_over: Callable[..., GroupReport]) -> None:
    hosts.refused |= {("move", "db"), ("move", "web"), ("move", "cache")}
    with pytest.raises(HotspareError, match="db refuses"):
        fail_over()


def test_who_is_behind_is_told(hosts: Hosts, fail_over: Callable[..., GroupReport]) -> None:
    hosts.behind.add("web")
    report = fail_over(dry_run=True)
    assert any(warning.startswith("web would be of an earlier instant") for warning in report.warnings)
    assert hosts.done("move") == []


def test_a_point_must_be_one_that_counts(hosts: Hosts, fail_over: Callable[..., GroupReport]) -> None:
    with pytest.raises(PointNotFound):
        fail_over(point="2026")
    with pytest.raises(UsageError, match="exclude each other"):
        fail_over(point="2026", planned=True)
    assert hosts.asked == []


def test_states_are_not_mixed(
    hosts: Hosts, fail_over: Callable[..., GroupReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.here.add("db")
    active = SimpleNamespace(newest=False, point="20261126-1")
    monkeypatch.setattr(failover, "read_active", lambda _folder: active)
    with pytest.raises(UsageError, match="runs here already, from another state"):
        fail_over()
    assert hosts.asked == []
