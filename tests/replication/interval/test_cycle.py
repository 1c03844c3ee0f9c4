"""A cycle becomes a point of the standby, or leaves the one before whole.

The source's platform is scripted, the standby has real images in a real storage daemon.
"""

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, Interrupted, SourceLost
from hotspare.platforms.platform import StateFile
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.interval import cycle
from hotspare.replication.interval.cycle import CycleRequest, ship_cycle
from hotspare.storage.wrappers.throttle import TokenBucket
from hotspare.units import KIB, MIB
from tests.backup.scripted_platform import ScriptedDisk, ScriptedPlatform
from tests.replication.interval.points import content_of
from tests.replication.interval.replicas import HereStandby

SIZE = 3 * MIB
ROUNDS = int(os.environ.get("INTERVAL_HISTORY_ROUNDS", "10"))


@pytest.fixture
def platform() -> ScriptedPlatform:
    made = ScriptedPlatform(SIZE, MIB)
    made.disks["vda"].guest_writes(64 * KIB, random.Random(1).randbytes(MIB))
    made.disks["vdb"].guest_writes(0, b"database " * 1000)
    made.state = (StateFile(name="nvram", content=b"variables"),)
    return made


@pytest.fixture
def standby(tmp_path: Path) -> Iterator[HereStandby]:
    with HereStandby(tmp_path / "replica") as opened:
        yield opened


def ship(
    platform: ScriptedPlatform, standby: HereStandby, listener: events.Listener = events.ignore
) -> ReplicaPoint:
    points = standby.points()
    machine = platform.inspect("web01")
    request = CycleRequest(protection="p" * 32, machine=machine, newest=points[-1] if points else None)
    return ship_cycle(platform, standby, request, listener, Cancellation())


def assert_holds(standby: HereStandby, point: ReplicaPoint, content: dict[str, bytes]) -> None:
    assert {disk.name: disk.size for disk in point.disks} == {
        name: len(data) for name, data in content.items()
    }
    for name, data in content.items():
        assert content_of(standby.folder, point, name) == data


def now(platform: ScriptedPlatform) -> dict[str, bytes]:
    return {name: bytes(disk.data) for name, disk in platform.disks.items()}


def test_the_first_is_whole_and_the_next_sends_what_changed(
    platform: ScriptedPlatform, standby: HereStandby
) -> None:
    first = ship(platform, standby)
    before = now(platform)
    platform.disks["vda"].guest_writes(2 * MIB, b"new" * 100)
    platform.disks["vda"].guest_writes(64 * KIB, bytes(256 * KIB))
    second = ship(platform, standby)

    assert_holds(standby, first, before)
    assert_holds(standby, second, now(platform))
    assert [disk.full_because for disk in first.disks] == ["first backup", "first backup"]
    assert [disk.full_because for disk in second.disks] == [None, None]
    assert sum(disk.bytes_sent for disk in second.disks) == 4096
    assert second.state == platform.state
    assert second.machine.name == "web01"
    assert [point.id for point in standby.points()] == [first.id, second.id]
    assert first.id < second.id


def test_many_changes_are_sent_by_several(
    platform: ScriptedPlatform, standby: HereStandby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycle, "_FEW", 3)
    ship(platform, standby)
    for number in range(40):
        platform.disks["vda"].guest_writes(number * 64 * KIB, bytes([number]) * 5000)
    assert_holds(standby, ship(platform, standby), now(platform))


@pytest.mark.parametrize("step", ["changed", "read", "check"])
def test_a_source_that_fails_at_any_step_loses_nothing(
    platform: ScriptedPlatform, standby: HereStandby, step: str
) -> None:
    first = ship(platform, standby)
    before = now(platform)
    platform.disks["vda"].guest_writes(0, b"half" * 5000)
    platform.disks["vdb"].guest_writes(5 * 4096, b"shipped" * 1000)
    platform.fail_at = step
    with pytest.raises(SourceLost):
        ship(platform, standby)
    platform.fail_at = ""

    assert [point.id for point in standby.points()] == [first.id]
    assert_holds(standby, first, before)
    platform.disks["vda"].guest_writes(0, b"over")
    second = ship(platform, standby)
    assert_holds(standby, second, now(platform))
    assert_holds(standby, first, before)
    assert [disk.full_because for disk in second.disks] == [None, None]


def test_a_standby_that_dies_in_the_middle_keeps_its_points(
    platform: ScriptedPlatform, standby: HereStandby
) -> None:
    first = ship(platform, standby)
    before = now(platform)
    platform.disks["vda"].guest_writes(MIB, random.Random(2).randbytes(MIB))
    reads = 0

    def kill_at_the_second_read() -> None:
        nonlocal reads
        reads += 1
        if reads == 2:
            standby.kill()

    platform.before["read"] = kill_at_the_second_read
    with pytest.raises(HotspareError):
        ship(platform, standby)
    platform.before.clear()

    with HereStandby(standby.folder) as again:
        assert_holds(again, again.points()[-1], before)
        assert again.points()[-1].id == first.id
        second = ship(platform, again)
        assert_holds(again, second, now(platform))
        assert [disk.full_because for disk in second.disks] == [None, None]


def test_a_lost_answer_about_a_point_is_asked_for_again(
    platform: ScriptedPlatform, standby: HereStandby, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(platform, standby)
    platform.disks["vda"].guest_writes(0, b"once")
    make_point = standby.make_point

    def make_and_be_cut_off(point: ReplicaPoint) -> ReplicaPoint:
        make_point(point)
        raise SourceLost("the link was cut")

    monkeypatch.setattr(standby, "make_point", make_and_be_cut_off)
    second = ship(platform, standby)
    monkeypatch.undo()
    assert standby.points()[-1].id == second.id
    platform.disks["vda"].guest_writes(MIB, b"twice")
    third = ship(platform, standby)
    assert [disk.full_because for disk in third.disks] == [None, None]
    assert_holds(standby, third, now(platform))


def test_a_lost_record_of_changes_is_made_up_for_by_comparing(
    platform: ScriptedPlatform, standby: HereStandby
) -> None:
    ship(platform, standby)
    platform.disks["vda"].guest_writes(2 * MIB + 100, b"unnoticed")
    platform.disks["vda"].dirty_since.clear()
    started: list[events.DiskStarted] = []
    second = ship(
        platform,
        standby,
        lambda event: started.append(event) if isinstance(event, events.DiskStarted) else None,
    )

    assert_holds(standby, second, now(platform))
    assert second.disks[0].full_because == "bitmap lost"
    assert started[0].mode == "compare"
    assert second.disks[0].bytes_sent == 64 * KIB


def test_a_disk_that_grew_one_that_came_and_one_that_left(
    platform: ScriptedPlatform, standby: HereStandby
) -> None:
    first = ship(platform, standby)
    before = now(platform)
    grown = ScriptedDisk(2 * SIZE)
    grown.data[: len(platform.disks["vda"].data)] = platform.disks["vda"].data
    added = ScriptedDisk(MIB)
    added.guest_writes(0, b"added" * 100)
    platform.disks = {"vda": grown, "vdc": added}
    second = ship(platform, standby)
    platform.disks["vdc"].guest_writes(9000, b"more")
    third = ship(platform, standby)

    assert_holds(standby, third, now(platform))
    assert second.disks[0].full_because
    assert_holds(standby, first, before)


def test_points_in_the_middle_can_go(platform: ScriptedPlatform, standby: HereStandby) -> None:
    kept = {}
    for number in range(6):
        platform.disks["vda"].guest_writes(number * 128 * KIB, bytes([number + 1]) * 200_000)
        kept[ship(platform, standby).id] = now(platform)
    ids = list(kept)
    standby.remove_points([ids[0], ids[2], ids[3]])
    for gone in (ids[0], ids[2], ids[3]):
        del kept[gone]
    assert [point.id for point in standby.points()] == list(kept)
    for point in standby.points():
        assert_holds(standby, point, kept[point.id])
    platform.disks["vdb"].guest_writes(0, b"after")
    assert_holds(standby, ship(platform, standby), now(platform))


def test_any_history_of_writes_failures_and_deaths(platform: ScriptedPlatform, tmp_path: Path) -> None:
    dice = random.Random(20261126)
    standby = HereStandby(tmp_path / "replica")
    content: dict[str, dict[str, bytes]] = {}
    try:
        for _ in range(ROUNDS):
            for _ in range(dice.randrange(4)):
                disk = platform.disks[dice.choice(["vda", "vdb"])]
                offset = dice.randrange(disk.size - 70_000)
                data = dice.randbytes(dice.randrange(1, 70_000)) if dice.random() < 0.7 else bytes(70_000)
                disk.guest_writes(offset, data)
            match dice.randrange(8):
                case 0:
                    platform.fail_at = dice.choice(["changed", "read", "check"])
                case 1:
                    standby.kill()
                    standby = HereStandby(standby.folder)
                case 2 if len(content) > 2:
                    gone = dice.choice(list(content)[:-1])
                    standby.remove_points([gone])
                    del content[gone]
            taken = now(platform)
            try:
                content[ship(platform, standby).id] = taken
            except HotspareError:
                assert platform.fail_at
            platform.fail_at = ""
            points = standby.points()
            assert [point.id for point in points] == list(content)
            for point in dice.sample(list(points), min(2, len(points))):
                assert_holds(standby, point, content[point.id])
    finally:
        standby.stop()


def test_what_is_sent_is_held_to_the_bandwidth(platform: ScriptedPlatform, standby: HereStandby) -> None:
    machine = platform.inspect("web01")
    rate = 400 * KIB  # of which half a second's worth is free
    request = CycleRequest(protection="p" * 32, machine=machine, newest=None, bucket=TokenBucket(rate))
    began = time.monotonic()
    first = ship_cycle(platform, standby, request, events.ignore, Cancellation())
    sent = sum(disk.bytes_sent for disk in first.disks)
    assert sent >= MIB
    assert time.monotonic() - began >= sent / rate - 0.6
    assert_holds(standby, first, now(platform))

    # Whoever waits for that can be interrupted.
    platform.disks["vda"].guest_writes(0, random.Random(2).randbytes(2 * MIB))
    request = CycleRequest(protection="p" * 32, machine=machine, newest=first, bucket=TokenBucket(KIB))
    cancellation = Cancellation()
    threading.Timer(0.5, cancellation.cancel).start()
    with pytest.raises(Interrupted):
        ship_cycle(platform, standby, request, events.ignore, cancellation)
    assert [point.id for point in standby.points()] == [first.id]


def test_a_disk_that_begins_with_a_seed_is_compared(platform: ScriptedPlatform, tmp_path: Path) -> None:
    seed, raw = tmp_path / "seed", tmp_path / "vda.raw"
    seed.mkdir()
    raw.write_bytes(now(platform)["vda"])
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(seed / "vda.qcow2")]
    subprocess.run(words, check=True)
    platform.disks["vda"].guest_writes(2 * MIB, random.Random(3).randbytes(64 * KIB))
    with HereStandby(tmp_path / "replica", seed=seed) as standby:
        first = ship(platform, standby)
        assert_holds(standby, first, now(platform))
    assert {disk.name: disk.bytes_sent for disk in first.disks}["vda"] == 64 * KIB
    assert not list(seed.iterdir())
