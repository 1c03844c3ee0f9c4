"""A source that is killed at a random moment loses no more than the interval and the time of a cycle.

``INTERVAL_KILL_ROUNDS`` sets how often (2 in the suite).
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.platforms.replica.record import ReplicaPoint
from lab import DiskSpec, LabGuest
from lab.two_hosts import Hosts
from tests.replication.interval.two_agents import Acknowledged, TwoAgents, records_in

pytestmark = [pytest.mark.lab, pytest.mark.timeout(0 if "INTERVAL_KILL_ROUNDS" in os.environ else 240)]

MIB = 1024 * 1024
ROUNDS = int(os.environ.get("INTERVAL_KILL_ROUNDS", "2"))
INTERVAL = 5.0
SLACK = 2.0
"""Seconds beside the interval and a cycle: how finely we look, and how late threads wake on a busy host."""


@pytest.fixture(scope="module")
def hosts(lab_host: None) -> Iterator[Hosts]:
    with Hosts("interval", ("source", "standby")) as running:
        yield running


def test_a_killed_source_loses_no_more_than_the_interval(hosts: Hosts, tmp_path: Path) -> None:
    dice = random.Random()
    guest = LabGuest.create("shipped", disks=[DiskSpec(size=64 * MIB)], host=hosts.source)
    losses: list[tuple[float, int]] = []
    with guest, TwoAgents(hosts) as agents:
        guest.start().wait_ready()
        agents.protect(guest, interval=INTERVAL)
        agents.wait_for_point()
        for number in range(ROUNDS):
            guest.start_workload()
            acknowledged = Acknowledged(guest)
            acknowledged.watch(dice.uniform(6, 14))
            whole_host = number % 2 == 1
            killed_at = time.time()
            if whole_host:
                hosts.kill(hosts.source)
            else:
                guest.kill()
            under_way = agents.cycle_under_way()
            point = agents.points()[-1]
            acknowledged.look()
            expect_promise(point, killed_at, under_way)
            records = records_in(agents.folder, point, tmp_path)
            assert records == list(range(1, len(records) + 1))
            assert len(records) >= acknowledged.before(point.taken_at)
            losses.append((killed_at - point.taken_at.timestamp(), acknowledged.last - len(records)))
            print(f"round {number}: lost {losses[-1][0]:.1f} s, {losses[-1][1]} records", flush=True)
            if number < ROUNDS - 1:
                bring_back(hosts, agents, guest, point, whole_host=whole_host)
    worst, most = max(one[0] for one in losses), max(one[1] for one in losses)
    print(f"{ROUNDS} rounds: at most {worst:.1f} s and {most} records lost", flush=True)


def expect_promise(point: ReplicaPoint, killed_at: float, under_way: float | None) -> None:
    """No more is lost than the interval (or a cycle that took longer), and the cycle under way."""
    cycle = (point.finished_at - point.taken_at).total_seconds()
    promised = max(INTERVAL, cycle) + SLACK
    unfinished = 0.0 if under_way is None else max(0.0, killed_at - under_way)
    lost = killed_at - point.taken_at.timestamp()
    assert lost <= promised + unfinished, (lost, cycle, unfinished)


def bring_back(
    hosts: Hosts, agents: TwoAgents, guest: LabGuest, point: ReplicaPoint, *, whole_host: bool
) -> None:
    """Let replication go on: QEMU's record of changes died with it, so disks are compared."""
    if whole_host:
        hosts.power_on(hosts.source)
        agents.source.start()
    if not guest.running:  # the agent may have started it
        guest.start()
    guest.wait_ready()
    agents.wait_for_point(point.id)
    newer = [one for one in agents.points() if one.id > point.id]
    reasons = [disk.full_because for one in newer for disk in one.disks if disk.full_because]
    assert any("what changed" in reason for reason in reasons), reasons
    assert sum(disk.bytes_sent for one in newer for disk in one.disks) < 24 * MIB
