"""In interval mode a machine is taken over as of the newest point, and steps between points then."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hotspare.errors import UsageError
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.failover import service
from hotspare.replication.failover.report import Report
from hotspare.replication.model import Mode, NamedProtection, Phase
from lab.guest import LabGuest
from tests.replication.failover.trio import PATIENT, STATE, Trio, wait_until
from tests.replication.interval.two_agents import Acknowledged, records_in

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]


def _records(guest: LabGuest) -> int:
    """Give how many numbers its journal holds; it runs upon a clean file system, and all are in order."""
    guest.wait_ready()
    numbers = [int(number) for number in guest.exec("cat /data/journal").split()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert guest.exec("dmesg | grep -ci 'ext4.*error' || true") == "0"
    return len(numbers)


def _start_from(trio: Trio, guest: LabGuest, point: str) -> Report:
    asking = service.Failover(protection=guest.name, point=point)
    with trio.asking(trio.hosts.standby) as asked:
        return asked.call(service.FAILOVER, asking, timeout=200)


def _held(trio: Trio, points: Sequence[ReplicaPoint], folder: Path, scratch: Path) -> dict[str, int]:
    """Give how many numbers each point holds."""
    return {point.id: len(records_in(folder, point, scratch)) for point in points}


def test_what_is_lost_is_told_and_points_are_stepped_between(lab_host: None, tmp_path: Path) -> None:
    with Trio("step") as trio:
        hosts = trio.hosts
        guest = LabGuest.create("step", host=hosts.source)
        copy = LabGuest(guest.name, host=hosts.standby)
        guest.start().wait_ready()
        guest.start_workload()
        acknowledged = Acknowledged(guest)
        protection = trio.protect(
            guest, terms=PATIENT, mode=Mode.INTERVAL, interval=5, application_interval=1
        )
        trio.wait_armed(hosts.source, guest.name)
        wait_until(lambda: len(trio.points(hosts.standby, guest.name)) >= 3, "three points")

        trio.wait_armed(hosts.source, guest.name)
        hosts.kill(hosts.source)
        killed_at = time.time()
        wait_until(lambda: trio.lease(hosts.standby, guest.name).runs_here, "it is taken over")
        acknowledged.stop()
        points = trio.points(hosts.standby, guest.name)
        assert "filesystem" in {point.consistency for point in points}
        newest, older = points[-1], points[-3]
        held = _held(trio, points, hosts.standby.outside(f"{STATE}/replicas/{protection.id}"), tmp_path)
        assert held[older.id] < held[newest.id]
        assert _records(copy) == held[newest.id] >= acknowledged.before(newest.taken_at)
        report = trio.lease(hosts.standby, guest.name).report
        assert report is not None
        assert report.point == newest.id
        assert report.loss is not None
        lost = killed_at - newest.taken_at.timestamp()
        print(f"lost {lost:.1f} s, {acknowledged.last - held[newest.id]} records; said {report.loss}")
        assert report.loss.seconds is not None
        assert report.loss.seconds >= lost  # it counts until the start
        assert report.loss.bytes is None
        _steps_back_and_forward(trio, copy, older.id, newest.id, held)
        _comes_home(trio, guest, copy)
        assert _records(guest) == held[newest.id]


def _steps_back_and_forward(
    trio: Trio, copy: LabGuest, older: str, newest: str, held: dict[str, int]
) -> None:
    """What was written there since is gone each time."""
    copy.exec("echo here > /data/here; sync /data/here")
    with pytest.raises(UsageError, match="taken over by this host already"):
        _start_from(trio, copy, "")
    assert _start_from(trio, copy, older).point == older
    assert _records(copy) == held[older]
    assert copy.exec("ls /data/here 2>/dev/null || true") == ""
    assert [point.id for point in trio.points(trio.hosts.standby, copy.name)] == list(held)
    assert _start_from(trio, copy, service.NEWEST).point == newest
    assert _records(copy) == held[newest]


def _comes_home(trio: Trio, guest: LabGuest, copy: LabGuest) -> None:
    """In the same mode, and with an agent that was killed meanwhile."""
    hosts = trio.hosts
    trio.kill_agent(hosts.standby)
    trio.start_agent(hosts.standby)
    hosts.power_on(hosts.source)
    trio.start_agent(hosts.source)
    wait_until(lambda: trio.lease(hosts.source, guest.name).epoch == 2, "the source hears of it")
    with trio.asking(hosts.standby) as asked:
        asked.call(service.REPROTECT, NamedProtection(protection=guest.name), timeout=60)
    wait_until(lambda: trio.phase(hosts.standby, guest.name) is Phase.PROTECTED, "it is protected again")
    copy.exec("echo abroad > /data/abroad; sync /data/abroad")
    with trio.asking(hosts.source) as asked:
        asking = service.Failover(protection=guest.name, planned=True)
        asked.call(service.FAILOVER, asking, timeout=200)
    guest.wait_ready()
    assert guest.exec("cat /data/abroad") == "abroad"
