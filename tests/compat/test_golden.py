"""Repositories of every format version stay readable, and the specification is what the code does."""

from datetime import timedelta
from pathlib import Path

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.platforms.platform import StateFile
from hotspare.repository.check import check_structure
from hotspare.repository.format import is_locked_kind
from hotspare.repository.repository import Repository
from hotspare.repository.verify import verify_points
from hotspare.storage.local import LocalBackend
from hotspare.storage.wrappers.locking import LockingBackend
from tests.compat.content import CHUNK, PASSPHRASE, first_disk, noise, second_disk
from tests.compat.independent_reader import IndependentReader
from tests.repository.conftest import PASSPHRASE as STORED_WITH
from tests.repository.conftest import store
from tests.repository.growing_machine import Machine
from tests.storage.versioned_memory import Clock, VersionedMemory

GOLDEN = sorted(Path(__file__).parent.glob("golden-v*"))


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_this_program_reads_the_golden_repository(folder: Path) -> None:
    repository = Repository.open(LocalBackend(folder), PASSPHRASE)
    first, second = repository.points()
    contents = []
    for disk in (*first.disks, *second.disks):
        buffer = bytearray(disk.size)
        repository.disk(disk).read_into(0, memoryview(buffer))
        contents.append(bytes(buffer))

    assert contents == [first_disk(), b"\xff" * 512, second_disk()]
    assert check_structure(repository, events.ignore, Cancellation()).problems == []
    assert verify_points(repository, [first, second], events.ignore, Cancellation()).problems == []


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_a_program_written_from_the_specification_reads_the_same(folder: Path) -> None:
    reader = IndependentReader(folder, PASSPHRASE)
    first, second = reader.points()

    assert [reader.disk(disk) for disk in first["disks"]] == [first_disk(), b"\xff" * 512]
    assert [reader.disk(disk) for disk in second["disks"]] == [second_disk()]
    in_tables = {
        (chunk_id[:16], path.name, offset, size, codec, base)
        for chunk_id, (path, offset, size, codec, base) in reader.places.items()
    }
    assert reader.index_rows() == in_tables


def test_a_program_written_from_the_specification_reads_state(tmp_path: Path) -> None:
    repository = Repository.create(LocalBackend(tmp_path), STORED_WITH, chunk_size=CHUNK)
    state = (
        StateFile(name="nvram", content=noise("nvram", 8 * CHUNK + 700)),
        StateFile(name="tpm/tpm2-00.permall", content=b"x"),
    )
    store(repository, "with state", first_disk(), state=state)
    store(repository, "without", first_disk())
    reader = IndependentReader(tmp_path, STORED_WITH)
    with_state, without = sorted(reader.points(), key=lambda point: -len(point["state"]))

    assert {one["name"]: reader.disk(one) for one in with_state["state"]} == {
        one.name: one.content for one in state
    }
    assert without["state"] == []
    assert reader.config["features"]["gc"] == ["state", "extras"]


def test_a_program_written_from_the_specification_reads_locks(tmp_path: Path) -> None:
    clock, period = Clock(), timedelta(days=8)
    memory = VersionedMemory(clock)
    locking = LockingBackend(memory, memory, period, is_locked_kind, now=clock.time)
    Repository.create(locking, STORED_WITH, chunk_size=CHUNK, lock=period)
    store(Repository.open(locking, STORED_WITH), "locked", first_disk())
    local = LocalBackend(tmp_path)
    for item in memory.list(""):
        local.put(item.name, [memory.get(item.name)])
    reader = IndependentReader(tmp_path, STORED_WITH)

    assert reader.config["lock_seconds"] == period.total_seconds()
    assert reader.config["features"]["write"] == ["lock"]
    assert [reader.disk(disk) for disk in reader.points()[0]["disks"]] == [first_disk()]
    locked = {item.name for item in memory.list("") if is_locked_kind(item.name)}
    assert reader.locks() == dict.fromkeys(locked, clock.now + period)


def test_there_is_a_golden_repository() -> None:
    assert GOLDEN


def test_a_program_written_from_the_specification_reads_deltas(tmp_path: Path) -> None:
    Repository.create(LocalBackend(tmp_path), STORED_WITH, chunk_size=CHUNK)
    machine = Machine(LocalBackend(tmp_path), noise("whole", 70 * CHUNK + 1000))
    machine.back_up()
    machine.overwrite(3, 5, seed=1)
    machine.content[20 * CHUNK + 4000 : 20 * CHUNK + 4200] = noise("across blocks", 200)
    machine.content[-1000:-900] = noise("short chunk", 100)
    machine.back_up()
    reader = IndependentReader(tmp_path, STORED_WITH)

    assert reader.disk({"size": len(machine.content), "root": machine.root}) == machine.content
    bases = [place[4] for place in reader.places.values() if place[4]]
    assert len(bases) == 3, "two chunks and a page"
