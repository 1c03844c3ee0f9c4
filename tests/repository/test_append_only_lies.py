"""Objects that lie, stored over an append-only key by who has the repository's passphrase as well.

Nothing but a collector on the server removes anything, so it is what they are aimed at.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from unittest.mock import patch

import msgspec
import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import RepositoryDamaged
from hotspare.repository import codec
from hotspare.repository.format import DATA, INDEX, META, SESSIONS
from hotspare.repository.gc import collect, mark
from hotspare.repository.index.cache import SegmentSource
from hotspare.repository.index.segment import PackRecord, Segment
from hotspare.repository.pack import PackBuilder
from hotspare.repository.point import RestorePoint, new_point_id, point_name, seal_point
from hotspare.repository.reindex import rebuild_index
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.storage.served.client import ServedBackend
from tests.repository.conftest import CHUNK, PASSPHRASE, StorePoint, collect_all, content
from tests.repository.test_repository import sample_disk


class Attacker:
    """Opens the repository over an append-only key, and stores what is well sealed and not true."""

    def __init__(self, client: ServedBackend, point: RestorePoint) -> None:
        self._client = client
        self._repository = Repository.open(client, PASSPHRASE)
        self._root = point.disks[0].root
        page = self._repository.disk(point.disks[0]).map.leaf(0)
        self._chunks = [page[at : at + 32] for at in range(0, len(page), 32)]

    def lie_about_chunks(self) -> str:
        """Say that a pack of junk has the point's chunks; gives the pack's name."""
        return self._store(DATA, {one: secrets.token_bytes(CHUNK) for one in self._chunks})

    def lie_about_pages(self) -> str:
        """Say that the point's map lists nothing but holes."""
        return self._store(META, {self._root: bytes(len(self._chunks) * 32)})

    def lie_about_what_is_replaced(self) -> str:
        """Say that a segment with junk replaces all others."""
        replaced = tuple(item.name for item in self._client.list(INDEX))
        lies = {one: secrets.token_bytes(CHUNK) for one in self._chunks}
        return self._store(DATA, {**lies, self._root: b"".join(self._chunks)}, replaced)

    def _store(self, kind: str, plaintexts: dict[bytes, bytes], replaces: tuple[str, ...] = ()) -> str:
        keyring = self._repository.keyring
        builder = PackBuilder(keyring, kind)
        for chunk_id, plaintext in plaintexts.items():
            builder.add(chunk_id, *codec.encode(memoryview(plaintext)))
        pack = builder.finish()
        self._client.put(pack.name, [builder.data])
        record = PackRecord(pack.kind, pack.digest, pack.size, pack.epoch, pack.seed)
        segment = replace(Segment.of([record], [(0, entry) for entry in pack.entries]), replaces=replaces)
        # Of several rows the one in the first segment is preferred: its name is a matter of trying.
        first = min(item.name for item in self._client.list(INDEX))
        name, data = segment.seal(keyring)
        while name > first:
            name, data = segment.seal(keyring)
        self._client.put(name, [data])
        return pack.name


LIES = [Attacker.lie_about_chunks, Attacker.lie_about_pages, Attacker.lie_about_what_is_replaced]
Lie = Callable[[Attacker], str]


@pytest.mark.parametrize("lie", LIES)
def test_no_lie_makes_a_collector_delete_what_a_point_needs(
    client: ServedBackend, repository: Repository, backend: LocalBackend, store_point: StorePoint, lie: Lie
) -> None:
    disk = sample_disk(1, 6 * CHUNK)
    point = store_point(repository, "web", disk)
    before = {item.name for item in backend.list("")}
    liar = lie(Attacker(client, point))

    for _ in range(2):
        with pytest.raises(RepositoryDamaged, match=liar):
            collect_all(backend)
    assert before <= {item.name for item in backend.list("")}

    # As docs/storage.md says: the pack that is named goes, and the index is made again.
    backend.delete(liar)
    rebuild_index(Repository.open(backend, PASSPHRASE), events.ignore, Cancellation())
    assert content(backend, point) == disk
    collect_all(backend)
    assert content(backend, point) == disk


@pytest.mark.parametrize("lie", LIES)
def test_these_tests_notice_a_collector_that_believes_everything(
    client: ServedBackend, repository: Repository, backend: LocalBackend, store_point: StorePoint, lie: Lie
) -> None:
    point = store_point(repository, "web", sample_disk(1, 6 * CHUNK))
    packs = {item.name for item in backend.list("data/")}
    lie(Attacker(client, point))
    with (
        patch.object(mark.Marks, "_require", lambda *_: None),
        patch.object(collect, "with_doubtful_in_force", lambda listing, *_: listing),
    ):
        collect_all(backend)
    assert packs.isdisjoint({item.name for item in backend.list("data/")})


def test_a_segment_that_replaces_all_others_with_nothing_is_not_believed(
    client: ServedBackend, repository: Repository, backend: LocalBackend, store_point: StorePoint
) -> None:
    disk = sample_disk(1, 6 * CHUNK)
    point = store_point(repository, "web", disk)
    other = Segment.of([], [])
    name, data = replace(other, replaces=tuple(item.name for item in backend.list(INDEX))).seal(
        repository.keyring
    )
    client.put(name, [data])
    with pytest.raises(RepositoryDamaged):
        content(backend, point)

    collect_all(backend)
    assert content(backend, point) == disk, "the collector has put it right"


def test_a_delta_that_names_another_base_is_told_from_the_true_one(
    client: ServedBackend, repository: Repository, backend: LocalBackend, store_point: StorePoint
) -> None:
    first = secrets.token_bytes(2 * CHUNK)
    parent = store_point(repository, "web", first)
    second = bytearray(first)
    second[5000:5010] = b"0123456789"
    point = store_point(repository, "web", second, parent=parent)
    unchanged = repository.disk(point.disks[0]).map.leaf(0)[32:]
    lies = deltas_upon(backend, repository, unchanged)
    for lie, data in lies.items():
        client.put(lie, [data])
    repository.forget(parent)

    with pytest.raises(RepositoryDamaged):
        collect_all(backend)
    for lie in lies:
        backend.delete(lie)
    collect_all(backend)
    assert content(backend, point) == second


def deltas_upon(backend: LocalBackend, repository: Repository, base: bytes) -> dict[str, bytes]:
    """Give segments that say of a delta that its base is another; many, so that they are merged in memory."""
    listing = SegmentSource(backend, repository.keyring, None).listing()
    (name,) = (name for name, one in listing.in_force.items() if len(one.table.delta_rows))
    segment = Segment.open(repository.keyring, name, backend.get(name))
    bases = segment.bases.copy()
    bases["id"] = base
    lies = dict(replace(segment, bases=bases).seal(repository.keyring) for _ in range(12))
    first = min(listing.in_force)
    while min(lies) > first:
        lies |= [replace(segment, bases=bases).seal(repository.keyring)]
        lies.pop(max(lies))
    return lies


def test_a_forged_point_hides_and_removes_nothing(
    client: ServedBackend, repository: Repository, backend: LocalBackend, store_point: StorePoint
) -> None:
    disk = sample_disk(1, 6 * CHUNK)
    point = store_point(repository, "web", disk)
    bad = replace_struct(
        point, id=new_point_id(datetime(2099, 1, 1, tzinfo=UTC)), root=secrets.token_bytes(32)
    )
    client.put(point_name(repository.keyring, bad), [seal_point(repository.keyring, bad)])

    assert [one.id for one in repository.points()] == [point.id, bad.id]
    with pytest.raises(RepositoryDamaged, match=bad.id):
        collect_all(backend)
    assert content(backend, point) == disk
    repository.forget(bad)
    collect_all(backend)
    assert content(backend, point) == disk


def replace_struct(point: RestorePoint, *, id: str, root: bytes) -> RestorePoint:  # noqa: A002 - the field's name
    disks = tuple(msgspec.structs.replace(disk, root=root) for disk in point.disks)
    return msgspec.structs.replace(point, id=id, disks=disks)


def test_a_forged_session_only_delays(
    client: ServedBackend, repository: Repository, backend: LocalBackend, store_point: StorePoint
) -> None:
    disk = sample_disk(1, 6 * CHUNK)
    point = store_point(repository, "web", disk)
    # The session of a point that is there is called back to life, and stands still.
    client.put(SESSIONS + point.session, [b"x"])
    report = collect_all(backend)

    assert report.points == 1
    assert content(backend, point) == disk
    assert [one.id for one in repository.points()] == [point.id]
    assert list(backend.list(SESSIONS)) == []
