"""A source that is killed at a random moment loses no more than the interval and the time of a cycle.

``INTERVAL_KILL_ROUNDS`` sets how often (2 in the suite).
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import DiskSpec, LabGuest
from lab.two_hosts import Hosts
from tests.replication.interval.two_agents import Acknowledged, TwoAgents, records_in

pytestmark = [pytest.mark.lab, pytest.mark.timeout(0 if "INTERVAL_KILL_ROUNDS" in os.environ else 240)]

MIB = 1024 * 1024
ROUNDS = int(os.environ.get("INTERVAL_KILL_ROUNDS", "2"))
INTERVAL = 5.0
SLACK = 1.0
"""Seconds beside the interval and a cycle: how finely we look, and how late threads wake on a busy host."""


@pytest.fixture(scope="module")
def hosts(lab_host: None) -> Iterator[Hosts]:
    with Hosts("interval", ("source", "standby")) as running:
        yield running


def test_a_killed_source_loses_no_more_than_the_interval(hosts: Hosts, tmp_path: Path) -> None:
    dice = random.Random()
    guest = LabGuest.create("shipped", disks=[DiskSpec(size=64 * MIB)], host=hosts.source)
    losses: list[tuple[float, int, float]] = []
    with guest, TwoAgents(hosts) as agents:
        guest.start().wait_ready()
        agents.protect(guest, "--every", f"{INTERVAL:g}s", "--keep", "last 40")
        point = agents.wait_for_point()
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
            acknowledged.look()

            point = agents.points()[-1]
            if not whole_host:
                # A cycle that began just before may still have become a point, or may be broken off.
                time.sleep(0.5)
                point = agents.points()[-1]
            records = records_in(agents.folder, point, tmp_path)
            assert records == list(range(1, len(records) + 1))
            assert len(records) >= acknowledged.before(point.taken_at)
            cycle = (point.finished_at - point.taken_at).total_seconds()
            lost = killed_at - point.taken_at.timestamp()
            losses.append((lost, acknowledged.last - len(records), cycle))
            print(f"round {number}: lost {lost:.1f} s, {losses[-1][1]} records; a cycle took {cycle:.1f} s")
            assert lost <= INTERVAL + 2 * cycle + SLACK

            if number == ROUNDS - 1:
                break
            if whole_host:
                hosts.power_on(hosts.source)
                agents.programs.pop("source").wait()
                agents.start(hosts.source)
            if not guest.running:  # the agent may have started it
                guest.start()
            guest.wait_ready()
            newer = agents.wait_for_point(point.id)
            # QEMU's record of changes died with it: the disks are compared, and little of them is sent.
            reasons = [
                disk.full_because for one in agents.points() if one.id > point.id for disk in one.disks
            ]
            assert any(reason and "as after a crash" in reason for reason in reasons), reasons
            assert sum(disk.bytes_sent for disk in newer.disks) < 16 * MIB
    worst = max(lost for lost, _, _ in losses)
    print(
        f"{ROUNDS} rounds: at most {worst:.1f} s and {max(records for _, records, _ in losses)} records lost"
    )
