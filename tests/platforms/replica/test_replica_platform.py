"""Replicas as a platform: what the suite asks, as far as nothing has to be made or marked."""

import random
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hotspare import events
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.block.extent import Extent, ExtentKind
from hotspare.cancellation import Cancellation
from hotspare.errors import MachineNotFound, UsageError
from hotspare.platforms.platform import Platform, SnapshotRequest, TargetRequest, Token
from hotspare.platforms.registry import open_platform
from hotspare.platforms.replica.platform import ReplicaPlatform
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.interval.cycle import CycleRequest, ship_cycle
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.units import KIB, MIB
from tests.backup.scripted_platform import ScriptedPlatform
from tests.contracts.platform_suite import PlatformCase, PlatformSuite
from tests.platforms.disk_content import applied, whole_disk
from tests.replication.interval.replicas import HereStandby


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HereStandby, ScriptedPlatform]]:
    """A replica that is served, with one point."""
    source = ScriptedPlatform(6 * MIB, 3 * MIB)
    source.disks["vda"].guest_writes(64 * KIB, random.Random(1).randbytes(2 * MIB))
    source.disks["vdb"].guest_writes(MIB, random.Random(2).randbytes(MIB))
    with HereStandby(tmp_path_factory.mktemp("replicas") / "web01") as standby:
        ship(source, standby)
        yield standby, source


def ship(source: ScriptedPlatform, standby: HereStandby) -> ReplicaPoint:
    points = standby.points()
    request = CycleRequest(
        protection="p" * 32, machine=source.inspect("web01"), newest=points[-1] if points else None
    )
    return ship_cycle(source, standby, request, events.ignore, Cancellation())


def now(source: ScriptedPlatform) -> dict[str, bytes]:
    return {name: bytes(disk.data) for name, disk in source.disks.items()}


class TestSuite(PlatformSuite):
    # Nothing is restored among replicas, see test_makes_nothing.
    test_says_why_a_piece_of_state_cannot_be_kept = None  # type: ignore[assignment]
    test_makes_a_machine_that_reads_as_written = None  # type: ignore[assignment]
    test_makes_a_machine_that_came_from_elsewhere = None  # type: ignore[assignment]
    test_discards_what_was_not_finished = None  # type: ignore[assignment]
    test_leaves_alone_what_is_there = None  # type: ignore[assignment]
    test_begins_restored_disks_with_zeroes = None  # type: ignore[assignment]

    @pytest.fixture
    def case(self, made: tuple[HereStandby, ScriptedPlatform], tmp_path: Path) -> PlatformCase:
        standby, source = made
        return PlatformCase(
            platform=open_platform(f"replica://{standby.folder.parent}"),
            machine="web01",
            content=now(source),
            folder=tmp_path,
            new_name="other",
            keeps_marks=False,
        )


def test_makes_nothing(made: tuple[HereStandby, ScriptedPlatform], tmp_path: Path) -> None:
    platform = ReplicaPlatform(made[0].folder.parent)
    with pytest.raises(UsageError, match="cannot be restored"):
        platform.create_target(platform.inspect("web01"), TargetRequest(name="x", folder=tmp_path))
    with pytest.raises(UsageError, match="not started"):
        platform.start("web01")


def test_a_replica_without_a_point_is_no_machine_yet(tmp_path: Path) -> None:
    with HereStandby(tmp_path / "web01"):
        platform = ReplicaPlatform(tmp_path)
        assert platform.machines() == []
        with pytest.raises(MachineNotFound, match="no point yet"):
            platform.inspect("web01")


def snap(
    platform: Platform, since: Mapping[str, Token], before: dict[str, bytes] | None
) -> tuple[dict[str, bytes], dict[str, str | None], dict[str, Token], int]:
    """Read a snapshot both ways; gives content, reasons, tokens, and the bytes that changed."""
    request = SnapshotRequest(point_id="x", repository_id="r" * 32, since=since)
    with platform.open_snapshot(platform.inspect("web01"), request, Cancellation()) as snapshot:
        content = {disk.name: whole_disk(snapshot, disk.name) for disk in snapshot.disks}
        changed = 0
        for disk in snapshot.disks:
            changed += sum(extent.length for extent in snapshot.changed(disk.name))
            old = bytes(disk.size) if before is None or disk.full_because else before[disk.name]
            assert applied(snapshot, disk.name, old) == content[disk.name]
        snapshot.commit()
    tokens = {disk.name: disk.token for disk in snapshot.disks if disk.token}
    return content, {disk.name: disk.full_because for disk in snapshot.disks}, tokens, changed


def test_increments_come_from_the_images_and_points_stay_for_them(tmp_path: Path) -> None:
    source = ScriptedPlatform(8 * MIB)
    disk = source.disks["vda"]
    disk.guest_writes(0, random.Random(1).randbytes(4 * MIB))
    platform = ReplicaPlatform(tmp_path)
    with HereStandby(tmp_path / "web01") as standby:
        first = ship(source, standby)
        content, reasons, tokens, _ = snap(platform, {}, None)
        assert content == now(source)
        assert reasons["vda"] == "there is no restore point to go on from"

        disk.guest_writes(5 * MIB, b"new" * 1000)
        middle = ship(source, standby)
        disk.guest_writes(0, bytes(128 * KIB))
        last = ship(source, standby)
        # The point that the backup was made of stays, the one between is merged.
        assert standby.remove_points([first.id, middle.id]) == [middle.id]
        disk.guest_writes(6 * MIB, b"not in a point yet")
        request = SnapshotRequest(point_id="x", repository_id="r" * 32, since=tokens)
        with platform.open_snapshot(platform.inspect("web01"), request, Cancellation()) as snapshot:
            extents = list(snapshot.changed("vda"))
            # QEMU merges zeroes as data.
            assert extents == [
                Extent(0, 128 * KIB, ExtentKind.DATA),
                Extent(5 * MIB, 64 * KIB, ExtentKind.DATA),
            ]
            # While it is read, it stays too.
            ship(source, standby)
            assert standby.remove_points([last.id]) == []
        disk.guest_writes(6 * MIB, bytes(100))
        content, reasons, newer, changed = snap(platform, tokens, content)
        assert reasons == {"vda": None}
        assert changed <= 4 * 64 * KIB
        assert newer["vda"].value != tokens["vda"].value
        # Now the backup goes on from a newer point, and the first is free.
        assert set(standby.remove_points([first.id, last.id])) == {first.id, last.id}
        _, reasons, _, _ = snap(platform, tokens, content)
        assert reasons["vda"] == "the last restore point was not made of a point that this replica still has"


def test_a_backup_of_a_replica_is_an_increment_and_as_the_source_was(tmp_path: Path) -> None:
    source = ScriptedPlatform(8 * MIB)
    source.disks["vda"].guest_writes(MIB, random.Random(1).randbytes(3 * MIB))
    repository = Repository.create(LocalBackend(tmp_path / "repository"), "x", chunk_size=64 * KIB)
    platform = ReplicaPlatform(tmp_path)

    def back_up() -> RestorePoint:
        return backup_machine(repository, platform, "web01", BackupOptions(), events.ignore, Cancellation())

    with HereStandby(tmp_path / "web01") as standby:
        ship(source, standby)
        back_up()
        source.disks["vda"].guest_writes(6 * MIB, b"more" * 100)
        ship(source, standby)
        point = back_up()
    (disk,) = point.disks
    assert (disk.mode, disk.full_because) == ("increment", None)
    assert disk.bytes_read <= 64 * KIB
    restored = bytearray(8 * MIB)
    repository.disk(disk).read_into(0, memoryview(restored))
    assert restored == source.disks["vda"].data
    assert point.machine_id == "uuid of web01"
    assert any("the replica's point" in warning for warning in point.warnings)


def test_the_images_are_what_other_programs_see(
    made: tuple[HereStandby, ScriptedPlatform], tmp_path: Path
) -> None:
    standby, source = made
    (tmp_path / "vda.raw").write_bytes(source.disks["vda"].data)
    image = standby.folder / standby.points()[-1].disks[0].image
    command = ["qemu-img", "compare", "-U", "-f", "qcow2", "-F", "raw", str(image), str(tmp_path / "vda.raw")]
    subprocess.run(command, check=True)
