"""What a run leaves when it is stopped, dies or is given up, and what the next one makes of it."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from hotspare import events
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation
from hotspare.errors import Interrupted, RunExpelled
from hotspare.events import Event, Progress
from hotspare.repository.abandoned import settle_abandoned
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.writer import SEGMENT_PACKS_MAX, RepositoryWriter
from hotspare.storage.local import LocalBackend
from hotspare.units import KIB
from tests.backup.scripted_platform import ScriptedPlatform

CHUNK = 64 * KIB
CHUNKS = 200


class Killed(BaseException):
    """Stands for a process that is gone: nothing of its way out is done."""


class Stop:
    """A claim at which something happens."""

    def __init__(self, at_commit: BaseException | None = None) -> None:
        self.session = ""
        self._at_commit = at_commit

    def begun(self, session: str) -> None:
        self.session = session

    def before_commit(self) -> None:
        if self._at_commit:
            raise self._at_commit


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository.create(LocalBackend(tmp_path / "repository"), "x", chunk_size=CHUNK)
    repository.surroundings = replace(repository.surroundings, pack_target=2 * CHUNK)
    return repository


@pytest.fixture
def platform() -> ScriptedPlatform:
    platform = ScriptedPlatform(CHUNKS * CHUNK)
    platform.disks["vda"].guest_writes(0, random.Random(1).randbytes(CHUNKS * CHUNK))
    return platform


def run(
    repository: Repository, platform: ScriptedPlatform, claim: Stop, listener: events.Listener = events.ignore
) -> RestorePoint:
    return backup_machine(repository, platform, "web01", BackupOptions(), listener, Cancellation(), claim)


def stored(point: RestorePoint) -> int:
    return sum(disk.bytes_stored for disk in point.disks)


def test_what_a_killed_run_has_stored_is_not_stored_again(
    repository: Repository, platform: ScriptedPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(event: Event) -> None:
        if isinstance(event, Progress) and event.bytes_processed >= CHUNKS * CHUNK * 3 // 4:
            raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(RepositoryWriter, "__exit__", lambda writer, *_: writer._executor.shutdown())
        with pytest.raises(Killed):
            run(repository, platform, Stop(), die)
    again = Repository.open(repository.backend, "x")
    point = run(again, platform, Stop())
    # All but the packs since the last segment, and those that were being filled.
    lost = (SEGMENT_PACKS_MAX + 8) * 2 * CHUNK
    assert stored(point) <= CHUNKS * CHUNK // 4 + lost < CHUNKS * CHUNK * 3 // 4


def test_what_an_interrupted_run_has_stored_is_not_stored_again(
    repository: Repository, platform: ScriptedPlatform
) -> None:
    with pytest.raises(Interrupted):
        run(repository, platform, Stop(Interrupted("the window closed")))
    assert stored(run(repository, platform, Stop())) == 0


def test_who_may_not_commit_leaves_neither_a_point_nor_a_token(
    repository: Repository, platform: ScriptedPlatform
) -> None:
    with pytest.raises(RunExpelled):
        run(repository, platform, Stop(RunExpelled("another mover has it")))
    assert repository.points() == []
    assert "commit" not in platform.log


def test_a_point_that_was_published_is_found(repository: Repository, platform: ScriptedPlatform) -> None:
    claim = Stop()
    point = run(repository, platform, claim)
    found = settle_abandoned(repository, point.machine_id, claim.session)
    assert found is not None
    assert found.id == point.id
    assert [one.id for one in repository.points()] == [point.id]


def test_after_it_was_settled_a_suspended_run_publishes_nothing(
    repository: Repository, platform: ScriptedPlatform
) -> None:
    class Suspended(Stop):
        def before_commit(self) -> None:
            other = Repository.open(repository.backend, "x")
            assert settle_abandoned(other, "uuid of web01", self.session) is None

    claim = Suspended()
    with pytest.raises(RunExpelled):
        run(repository, platform, claim)
    assert repository.points() == []
    assert "commit" not in platform.log
    assert run(repository, platform, Stop()).parent is None


def test_a_point_that_arrives_after_it_was_settled_does_not_count(
    repository: Repository, platform: ScriptedPlatform
) -> None:
    claim = Stop()
    point = run(repository, platform, claim)
    (name,) = repository.point_names()
    sealed = repository.backend.get(name)
    repository.backend.delete(name)
    assert settle_abandoned(repository, point.machine_id, claim.session) is None
    repository.backend.put(name, [sealed])
    assert repository.points() == []
