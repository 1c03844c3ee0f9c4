"""What a client with an append-only key can do: back up, and no harm to what is there.

The attacker of these tests has everything that a client has: the SSH key, and the repository's passphrase.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from typing_extensions import Buffer

from hotspare import events
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, PermissionRefused, SourceLost, StorageError
from hotspare.repository.append_only import APPEND_ONLY
from hotspare.repository.format import SESSIONS
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.session import Session, SessionKind, Surroundings
from hotspare.storage.local import LocalBackend
from hotspare.storage.served.access import Change, NameRule
from hotspare.storage.served.client import ServedBackend
from hotspare.storage.wrappers.forwarding import ForwardingBackend
from tests.backup.scripted_platform import ScriptedPlatform
from tests.repository.conftest import CHUNK, PASSPHRASE, StorePoint, collect_all, content
from tests.repository.test_repository import sample_disk


def reconnected(client: ServedBackend) -> ServedBackend:
    """Give another client of the same server: a new program there, which knows nothing."""
    return ServedBackend(client.url, client._open_transport, client._folder)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What backups need, and that the table has no more.


class Recorder(ForwardingBackend):
    """Takes down what is done to a store."""

    def __init__(self, inner: LocalBackend) -> None:
        super().__init__(inner)
        self.added: set[str] = set()
        self.replaced: set[str] = set()
        self.deleted: set[str] = set()
        self.read: set[str] = set()

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        there = any(item.name == name for item in self.inner.list(name))
        (self.replaced if there else self.added).add(name)
        super().put(name, parts)

    def get(self, name: str) -> bytes:
        self.read.add(name)
        return super().get(name)

    def delete(self, name: str) -> None:
        self.deleted.add(name)
        super().delete(name)


@contextmanager
def quick_heart(beat: Callable[[], None]) -> Iterator[None]:
    beat()
    yield
    beat()


def back_up(repository: Repository, platform: ScriptedPlatform) -> RestorePoint:
    return backup_machine(repository, platform, "web01", BackupOptions(), events.ignore, Cancellation())


def several_backups(repository: Repository) -> tuple[ScriptedPlatform, list[RestorePoint]]:
    platform = ScriptedPlatform(20 * CHUNK)
    platform.disks["vda"].guest_writes(0, bytes(sample_disk(3, 20 * CHUNK)))
    points = []
    for number in range(10):  # enough for segments to be merged
        platform.disks["vda"].guest_writes(number * CHUNK, secrets.token_bytes(CHUNK))
        points.append(back_up(repository, platform))
    return platform, points


def test_the_table_is_what_backups_do(tmp_path: Path) -> None:
    local = LocalBackend(tmp_path / "repository")
    made = Repository.create(local, PASSPHRASE, chunk_size=CHUNK, parity=5)
    recorder = Recorder(local)
    repository = Repository(recorder, made.config, made.keyring, Surroundings(heart=quick_heart))
    several_backups(repository)

    own = {name for name in recorder.added if APPEND_ONLY.change_of(name) is Change.OWN}
    assert recorder.deleted == own, "a writer only takes its sessions back"
    assert recorder.replaced == own, "and only shows again that they are alive"
    assert recorder.read.isdisjoint(own), "and reads no session"
    used = {rule.pattern.pattern for name in recorder.added for rule in _rules_of(name)}
    assert used == {rule.pattern.pattern for rule in APPEND_ONLY.rules}, "no rule is without need"
    assert all(_rules_of(name) for name in recorder.added)
    assert all(name.startswith(APPEND_ONLY.own_prefix) for name in own)


def _rules_of(name: str) -> list[NameRule]:
    return [rule for rule in APPEND_ONLY.rules if rule.pattern.fullmatch(name)]


def test_backups_succeed_and_leave_no_session(client: ServedBackend, backend: LocalBackend) -> None:
    opened = Repository.open(client, PASSPHRASE)
    opened.surroundings = Surroundings(heart=quick_heart)
    platform, points = several_backups(opened)

    assert content(backend, points[-1]) == bytes(platform.disks["vda"].data)
    assert list(backend.list(SESSIONS)) == []
    assert collect_all(backend).points == 10
    assert content(backend, points[-1]) == bytes(platform.disks["vda"].data)


def test_a_run_that_fails_is_cleared_away_by_the_collector(
    client: ServedBackend, backend: LocalBackend, store_point: StorePoint
) -> None:
    disk = sample_disk(1, 6 * CHUNK)
    point = store_point(Repository.open(backend, PASSPHRASE), "other", disk)
    platform = ScriptedPlatform(4 * CHUNK)
    platform.disks["vda"].guest_writes(0, secrets.token_bytes(4 * CHUNK))
    platform.fail_at = "check"
    opened = Repository.open(client, PASSPHRASE)
    opened.surroundings = Surroundings(pack_target=CHUNK)
    with pytest.raises(SourceLost):
        back_up(opened, platform)

    assert len(list(backend.list(SESSIONS))) <= 1
    assert list(backend.list("gc/")) == []
    report = collect_all(backend)
    assert list(backend.list(SESSIONS)) == []
    assert report.points == 1
    assert content(backend, point) == disk


# What is out of reach.

_OUT_OF_REACH = (
    "gc/condemned/c-" + "0" * 32,
    "gc/expelled/w-" + "0" * 32,
    "gc/settled/w-" + "0" * 32 + "/w-" + "0" * 32,
    "keys/" + "0" * 16 + "-" + "0" * 8,
    "kept/20261123-021500-abcde",
    "damaged/" + "0" * 16,
    "probe/x/1",
    "sessions/c-" + "0" * 32,
    "points/x",
    "data/00/" + "0" * 63,
    "data/01/00" + "0" * 62,
    "anything",
)


def test_nothing_that_is_there_can_be_changed_or_removed(
    client: ServedBackend,
    repository: Repository,
    backend: LocalBackend,
    tmp_path: Path,
    store_point: StorePoint,
) -> None:
    store_point(repository, "web", sample_disk(1, 6 * CHUNK))
    before = everything(tmp_path / "repository")

    for item in backend.list(""):
        with pytest.raises(PermissionRefused, match="takes new backups and nothing else"):
            client.delete(item.name)
        with pytest.raises(HotspareError):
            client.put(item.name, [b"other bytes"])
    for name in _OUT_OF_REACH:
        with pytest.raises(PermissionRefused, match="takes new backups and nothing else"):
            client.put(name, [b"x"])
        with pytest.raises(PermissionRefused, match="takes new backups and nothing else"):
            client.delete(name)
    assert everything(tmp_path / "repository") == before


def test_a_put_whose_answer_was_lost_can_be_repeated(client: ServedBackend, backend: LocalBackend) -> None:
    name = f"points/{'a' * 32}/20261123-021500-abcde"
    client.put(name, [b"a point"])
    reconnected_client = reconnected(client)
    reconnected_client.put(name, [b"a point"])
    with pytest.raises(PermissionRefused, match="cannot be replaced"):
        reconnected_client.put(name, [b"another"])
    reconnected_client.close()
    assert backend.get(name) == b"a point"


def test_a_pack_is_named_by_its_bytes(client: ServedBackend, backend: LocalBackend) -> None:
    for name in (f"data/ab/ab{'0' * 62}", f"meta/ab/ab{'0' * 62}", f"index/{'0' * 64}"):
        with pytest.raises(StorageError, match="other bytes than were sent"):
            client.put(name, [b"junk"])
    assert not any(item.name.startswith(("data/", "meta/", "index/")) for item in backend.list(""))


def test_sessions_of_others_cannot_be_read_changed_or_ended(
    client: ServedBackend, repository: Repository, backend: LocalBackend
) -> None:
    victim = Session(client, repository.keyring, SessionKind.WRITER)
    victim.begin()
    before = backend.get(victim.name)

    attacker = reconnected(client)
    for attempt in (
        lambda: attacker.get(victim.name),
        lambda: attacker.get_range(victim.name, 0, 44),
        lambda: attacker.put(victim.name, [b"x"]),
        lambda: attacker.delete(victim.name),
    ):
        with pytest.raises(PermissionRefused):
            attempt()
    attacker.close()
    assert backend.get(victim.name) == before

    client.close()  # the connection is lost, and another program answers the next one
    victim.beat()
    assert backend.get(victim.name) != before
    victim.end()
    assert list(backend.list(SESSIONS)) == []


def test_a_session_is_still_ones_own_after_answers_were_lost(
    client: ServedBackend, repository: Repository, backend: LocalBackend
) -> None:
    session = Session(client, repository.keyring, SessionKind.WRITER)
    session.begin()
    connection = client._connected()

    def lose(*_: object, **__: object) -> None:
        raise StorageError("lost", may_pass=True)

    with patch.object(connection, "ask", lose):
        for _ in range(3):
            session.beat()
    before = backend.get(session.name)
    session.beat()
    assert backend.get(session.name) != before
    session.end()
    assert list(backend.list(SESSIONS)) == []
