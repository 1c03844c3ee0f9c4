"""Two machines as one group, on two hosts: points of one instant whatever dies, and failovers of both.

``GROUP_ROUNDS`` says how often agents are killed meanwhile; with any, a rehearsal and a planned move follow,
too. ``make soak`` asks for many; test_maker.py has what dies in the middle of a point.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hotspare.replication.groups.whole import half_points, whole_points
from lab.guest import LabGuest
from lab.two_hosts import Host
from tests.replication.groups.two_machines import GROUP, TwoMachines, Writer, two_machines

ROUNDS = int(os.environ.get("GROUP_ROUNDS", "0"))
pytestmark = [pytest.mark.lab, pytest.mark.timeout(0 if ROUNDS else 300)]


def test_a_group_has_points_of_one_instant_and_fails_over_as_one(
    lab_host: None, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with two_machines("group") as both:
        began = time.monotonic()

        def step(name: str) -> None:
            print(f"{time.monotonic() - began:6.1f} s: {name}", flush=True)

        writer = Writer(both.db, both.web)
        writer.start()
        both.wait_points(8, both.source)
        _agents_are_killed(both, writer)
        writer.stop()
        group = both.group(both.source)
        step(f"{writer.acked} acknowledged, longest pause {group.longest_pause:.3f} s")
        found = _all_points_are_whole(both, both.hosts.standby, tmp_path)
        assert len(set(found)) >= 4, found
        record_property("points of a group checked", len(found))
        step(f"points hold {found}")

        if ROUNDS:
            _is_rehearsed(both, found)
            step("rehearsed")

        _newest_is_taken_over(both, writer.acked)
        step("taken over")

        _comes_home_to_a_point(both, writer, tmp_path)
        step("home, at a point")

        if ROUNDS:
            _moves_as_planned(both, writer)
            step("moved as planned")


def _agents_are_killed(both: TwoMachines, writer: Writer) -> None:
    chance = random.Random(os.environ.get("GROUP_SEED"))
    for _ in range(ROUNDS):
        for agent in (both.standby, both.source):
            time.sleep(chance.uniform(0, 1.2))
            before = writer.number
            agent.kill()
            agent.start()
            for name in both.names:
                both.source.wait_phase(name, "protected", 90)
            both.wait_points(2, both.source)
            assert writer.number > before


def _all_points_are_whole(both: TwoMachines, host: Host, folder: Path) -> list[tuple[int, int]]:
    """Check all points that count, and that none is shown that does not."""
    points, _ = both.points(host)
    found = both.check_points(host, folder)
    whole = {point.id for point in whole_points(GROUP, points)}
    assert whole.isdisjoint(half_points(GROUP, points))
    assert not any(guest.exec("dmesg | grep -ci 'i/o error' || true") != "0" for guest in (both.db, both.web))
    return found


def _is_rehearsed(both: TwoMachines, found: list[tuple[int, int]]) -> None:
    """Both copies of a point are up at once, and have what it holds."""
    points = both.ask(both.standby, "points", GROUP)["points"]
    chosen = len(found) // 2
    checks = []
    for name, number in zip(both.names, found[chosen], strict=True):
        checks += ["--check", f"{name}=test $(sort -u /data/journal | wc -l) = {number}"]
    done = both.ask(both.standby, "rehearse", GROUP, "--point", points[chosen]["id"], *checks)
    assert [report["machine"] for report in done["reports"]] == list(both.names)
    assert [report["problem"] for report in done["reports"]] == ["", ""]
    left = [domain.name() for domain in both.hosts.standby.connection().listAllDomains()]
    assert not [name for name in left if "rehearsal" in name]


def _newest_is_taken_over(both: TwoMachines, acked: list[int]) -> None:
    """The host is lost: both start on the standby in order, with all that was acknowledged."""
    both.hosts.kill(both.hosts.source)
    done = both.ask(both.standby, "failover", GROUP, "--force", "--yes")
    _moved_in_order(both, done["machines"])
    for guest, number in zip(both.on(both.hosts.standby), acked, strict=True):
        guest.wait_ready()
        assert _numbers(guest) >= number
    assert both.ask(both.standby, "points", GROUP)["points"]


def _moved_in_order(both: TwoMachines, machines: list[dict[str, object]]) -> None:
    assert [(one["machine"], one["moved"], one["error"]) for one in machines] == [
        (name, True, "") for name in both.names
    ]
    assert machines[0]["answered"] is True
    reports = [one["report"] for one in machines]
    assert isinstance(reports[0], dict)
    assert isinstance(reports[1], dict)
    # The second waits for the agent of the first, and then a second.
    assert reports[1]["began"] >= reports[0]["began"] + reports[0]["seconds"] + 1


def _numbers(guest: LabGuest) -> int:
    numbers = sorted({int(number) for number in guest.exec("cat /data/journal").split()})
    assert numbers == list(range(1, len(numbers) + 1))
    return len(numbers)


def _comes_home_to_a_point(both: TwoMachines, writer: Writer, folder: Path) -> None:
    """Protected in the other direction they have points there too, and go back to one of these."""
    hosts = both.hosts
    hosts.power_on(hosts.source)
    both.source.start()
    both.turn(both.standby)
    writer.first, writer.second = both.on(hosts.standby)
    writer.start()
    for name in both.names:
        both.standby.wait_phase(name, "protected", 90)
    both.wait_points(2, both.standby)
    both.wait_points(2, both.standby)
    hosts.kill(hosts.standby)
    writer.stop()
    found = both.check_points(hosts.source, folder)
    points = both.ask(both.source, "points", GROUP)["points"]
    assert len(points) == len(found) >= 2
    done = both.ask(both.source, "failover", GROUP, "--point", points[-2]["id"], "--force", "--yes")
    _moved_in_order(both, done["machines"])
    for guest, number in zip(both.on(hosts.source), found[-2], strict=True):
        guest.wait_ready()
        assert _numbers(guest) == number


def _moves_as_planned(both: TwoMachines, writer: Writer) -> None:
    """All are shut down at home, and go on at the standby with all that they had written."""
    hosts = both.hosts
    hosts.power_on(hosts.standby)
    both.standby.start()
    both.turn(both.source)
    for name in both.names:
        both.source.wait_phase(name, "protected", 90)
    writer.first, writer.second = at_home = both.on(hosts.source)
    writer.number = _numbers(writer.second)  # the first may have one more
    writer.start()
    both.wait_points(1, both.source)
    writer.stop()
    done = both.ask(both.standby, "failover", GROUP, "--planned", "--yes")
    _moved_in_order(both, done["machines"])
    assert not any(guest.running for guest in at_home)
    for guest in both.on(hosts.standby):
        guest.wait_ready()
        assert _numbers(guest) == writer.number
