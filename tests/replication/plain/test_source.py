"""A bare file as a source: read at one instant, or it is said that it was not."""

import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import ConsistencyNotReached, SourceLost, TargetExists, UsageError
from hotspare.platforms.platform import Consistency, Snapshot, SnapshotRequest
from hotspare.platforms.replica.platform import ReplicaPlatform
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.interval.cycle import CycleRequest, ship_cycle
from hotspare.replication.plain import source as module
from hotspare.replication.plain.extract import extract_disk
from hotspare.replication.plain.source import PlainSource
from hotspare.units import KIB, MIB
from tests.replication.interval.points import content_of
from tests.replication.interval.replicas import HereStandby

SIZE = 3 * MIB + 512


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "lun 0.img"
    made.write_bytes(random.Random(1).randbytes(MIB).ljust(SIZE, b"\0"))
    return made


@contextmanager
def snapshot_of(source: PlainSource) -> Iterator[Snapshot]:
    request = SnapshotRequest(point_id="x", repository_id="y", since={})
    with source.open_snapshot(source.inspect(), request, Cancellation()) as snapshot:
        yield snapshot


def ship(source: PlainSource, standby: HereStandby) -> ReplicaPoint:
    points = standby.points()
    request = CycleRequest(
        protection="p" * 32, machine=source.inspect(), newest=points[-1] if points else None
    )
    return ship_cycle(source, standby, request, events.ignore, Cancellation())


def change(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_its_uri_says_all_of_it(path: Path) -> None:
    source = PlainSource(path, "lun & 0", freeze="/bin/quiet it 'now'", thaw="/bin/go", accept_torn=True)
    again = PlainSource.of_uri(source.uri)
    assert vars(again) == vars(source)
    assert again.inspect() == source.inspect()


def test_points_are_as_the_file_was_and_only_what_differs_is_sent(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FRESH_SECONDS", 0.0)
    source = PlainSource(path, "lun0")
    with HereStandby(tmp_path / "replica", "lun0", source.inspect().id) as standby:
        first = ship(source, standby)
        before = path.read_bytes()
        unchanged = ship(source, standby)
        change(path, 2 * MIB, b"changed")
        change(path, 0, bytes(64 * KIB))
        second = ship(source, standby)
        assert content_of(standby.folder, first, "disk0") == before
        assert content_of(standby.folder, second, "disk0") == path.read_bytes()
        # Zeroes are sent as zeroes; an unchanged file is not even read.
        assert [one.disks[0].bytes_sent for one in (unchanged, second)] == [0, 64 * KIB]
        assert unchanged.disks[0].full_because is None
        assert second.disks[0].full_because is not None
        assert second.consistency == "crash"

        platform = ReplicaPlatform(tmp_path)
        target = tmp_path / "back.img"
        for point, expected in ((first, before), (second, path.read_bytes())):
            with platform.open_point("lun0", point.id) as snapshot:
                options = {"on_progress": lambda _done, _sent: None, "cancellation": Cancellation()}
                if target.exists():
                    with pytest.raises(TargetExists):
                        extract_disk(snapshot, None, target, overwrite=False, **options)  # type: ignore[arg-type]
                extract_disk(snapshot, None, target, overwrite=True, **options)  # type: ignore[arg-type]
                with pytest.raises(UsageError, match="Which disk"):
                    extract_disk(snapshot, "vdx", target, overwrite=True, **options)  # type: ignore[arg-type]
            assert target.read_bytes() == expected


def test_what_was_written_while_it_was_read_is_no_point(path: Path) -> None:
    with snapshot_of(PlainSource(path, "x")) as snapshot:
        snapshot.check()
        assert snapshot.consistency is Consistency.CRASH
        change(path, MIB, b"meanwhile")
        with pytest.raises(SourceLost, match="written while it was read"):
            snapshot.check()


def test_what_was_written_while_it_was_read_is_said_where_that_is_accepted(
    path: Path, tmp_path: Path
) -> None:
    source = PlainSource(path, "lun0", accept_torn=True)
    with snapshot_of(source) as snapshot:
        change(path, MIB, b"meanwhile")
        snapshot.check()
        assert snapshot.consistency is Consistency.NONE
        assert "different instants" in snapshot.warnings[0]
    assert not Consistency.NONE.meets(Consistency.CRASH)


def test_the_user_of_the_file_is_quieted_and_released(path: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    say = [f"/bin/sh -c 'echo {word} >>{log}'" for word in ("quiet", "go")]
    with snapshot_of(PlainSource(path, "x", freeze=say[0], thaw=say[1])) as snapshot:
        assert log.read_text().split() == ["quiet"]  # nothing can be cloned here: all is read meanwhile
        snapshot.check()
        assert snapshot.consistency is Consistency.FILESYSTEM
    assert log.read_text().split() == ["quiet", "go"]
    assert snapshot.frozen_seconds > 0


def test_a_command_that_fails_makes_no_point_and_releases(path: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    broken = PlainSource(path, "x", freeze="/bin/false", thaw=f"/bin/sh -c 'echo go >>{log}'")
    with pytest.raises(ConsistencyNotReached, match="/bin/false"), snapshot_of(broken):
        pytest.fail("began")
    assert log.read_text().split() == ["go"]


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system whose files can share blocks."""
    image, folder = tmp_path / "xfs.img", tmp_path / "xfs"
    with image.open("wb") as file:
        file.truncate(320 * MIB)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.lab
def test_a_clone_is_the_file_at_one_instant(sharing: Path, path: Path) -> None:
    shared = sharing / "lun0.img"
    shutil.copyfile(path, shared)
    before = shared.read_bytes()
    stop = threading.Event()

    def write_all_the_time() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            change(shared, 2 * MIB, count.to_bytes(8, "big") * 1024)

    with snapshot_of(PlainSource(shared, "x")) as snapshot:
        writer = threading.Thread(target=write_all_the_time)
        writer.start()
        content = memoryview(bytearray(SIZE))
        with closing(snapshot.reader("disk0")) as reader:
            reader.read_into(0, content)
        stop.set()
        writer.join()
        snapshot.check()
        assert content == before
        assert snapshot.consistency is Consistency.CRASH
    assert [one.name for one in sharing.iterdir()] == ["lun0.img"]
    assert shared.read_bytes() != before


@pytest.fixture
def device(tmp_path: Path, path: Path) -> Iterator[Path]:
    said = subprocess.run(["losetup", "--find", "--show", path], check=True, capture_output=True, text=True)
    yield Path(said.stdout.strip())
    subprocess.run(["losetup", "--detach", said.stdout.strip()], check=True)


@pytest.mark.lab
def test_a_device_is_compared_and_writes_to_it_are_noticed(device: Path, tmp_path: Path) -> None:
    source = PlainSource(device, "lun1")
    with HereStandby(tmp_path / "replica", "lun1", source.inspect().id) as standby:
        ship(source, standby)
        change(device, MIB + 100, b"changed")
        second = ship(source, standby)
        assert content_of(standby.folder, second, "disk0") == device.read_bytes()
        assert second.disks[0].bytes_sent == 64 * KIB
    with snapshot_of(source) as snapshot:
        snapshot.check()
        change(device, 0, b"while it is read")
        with pytest.raises(SourceLost, match="written while it was read"):
            snapshot.check()
