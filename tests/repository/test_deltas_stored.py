"""Deltas in a repository: when they are made, what depends on them, what is read."""

import random
from pathlib import Path

import pytest

from hotspare.errors import RepositoryDamaged
from hotspare.repository.codec import DELTA
from hotspare.repository.index import ChunkIndex
from hotspare.repository.index.cache import SegmentSource
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from tests.repository.conftest import CHUNK, PASSPHRASE
from tests.repository.growing_machine import BLOCK, Machine


@pytest.fixture
def machine(repository: Repository, backend: LocalBackend) -> Machine:
    made = Machine(backend, random.Random(1).randbytes(20 * CHUNK + 1000))
    made.back_up()
    return made


def codec_of(machine: Machine, chunk: int) -> int:
    location = machine.open().index().find(machine.map()[chunk])
    assert location is not None
    return location.entry.codec


def test_a_small_change_is_stored_as_a_delta_and_reads_back(machine: Machine) -> None:
    machine.overwrite(3, 5, seed=2)
    counts = machine.back_up()

    assert codec_of(machine, 3) == DELTA
    assert counts.stored < BLOCK + 300
    assert machine.read() == machine.content


def test_a_full_is_stored_as_deltas_upon_the_earlier_point(machine: Machine) -> None:
    machine.overwrite(3, 5, seed=2)
    machine.content[7 * CHUNK : 8 * CHUNK] = bytes(CHUNK)
    counts = machine.back_up(full=True)

    assert counts.stored < BLOCK + 300
    assert machine.read() == machine.content


def test_a_full_does_without_an_earlier_map_that_is_damaged(machine: Machine, tmp_path: Path) -> None:
    machine.overwrite(3, 5, seed=2)
    for path in (tmp_path / "repository" / "meta").glob("*/*"):
        path.write_bytes(bytes(path.stat().st_size))
    machine.back_up(full=True)

    assert codec_of(machine, 3) != DELTA
    assert machine.read() == machine.content


def test_a_chunk_that_changed_by_half_is_stored_whole(machine: Machine) -> None:
    machine.overwrite(3, 0, seed=2, blocks=7)
    machine.overwrite(4, 0, seed=3, blocks=8)
    machine.back_up()

    assert codec_of(machine, 3) == DELTA
    assert codec_of(machine, 4) != DELTA
    assert machine.read() == machine.content


def test_changes_pile_up_upon_the_same_base_until_half_changed(machine: Machine) -> None:
    base = machine.map()[3]
    for block in range(8):
        machine.overwrite(3, block, seed=10 + block)
        machine.back_up()
        location = machine.open().index().find(machine.map()[3])
        assert location is not None
        assert location.entry.base == (base if block < 7 else b"")
        assert machine.read() == machine.content


def test_a_delta_that_saves_nothing_is_not_made(repository: Repository, backend: LocalBackend) -> None:
    machine = Machine(backend, (b"the same again " * 5000)[:CHUNK])
    machine.back_up()
    machine.content[:] = (b"another text.. " * 5000)[:CHUNK]
    machine.content[BLOCK:] = (b"the same again " * 5000)[BLOCK:CHUNK]
    machine.back_up()

    assert codec_of(machine, 0) != DELTA
    assert machine.read() == machine.content


def test_a_page_with_one_new_id_costs_that_id(repository: Repository, backend: LocalBackend) -> None:
    machine = Machine(backend, random.Random(1).randbytes(200 * CHUNK))
    machine.back_up()
    pages = sum(item.size for item in backend.list("meta/"))
    machine.overwrite(120, 1, seed=3)
    machine.back_up()

    assert sum(item.size for item in backend.list("meta/")) - pages < 500
    assert machine.read() == machine.content


def test_a_repository_without_the_feature_gets_no_delta(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotspare.repository.repository.DELTA_FEATURE", "other")
    monkeypatch.setattr("hotspare.repository.format.KNOWN_READ_FEATURES", {"other"})
    repository = Repository.create(backend, PASSPHRASE, chunk_size=CHUNK)
    assert repository.config.features.read == ("other",)
    monkeypatch.setattr("hotspare.repository.repository.DELTA_FEATURE", "delta")
    machine = Machine(backend, random.Random(1).randbytes(4 * CHUNK))
    machine.back_up()
    machine.overwrite(2, 0, seed=5)
    machine.back_up()

    assert codec_of(machine, 2) != DELTA


def test_neighbours_are_compared_with_bases_that_were_read_together(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chunk in range(5, 15):
        machine.overwrite(chunk, 1, seed=chunk)
    reads: list[str] = []
    real = machine.backend.get_range

    def counted(name: str, offset: int, length: int) -> bytes:
        reads.append(name)
        return real(name, offset, length)

    monkeypatch.setattr(machine.backend, "get_range", counted)
    machine.back_up()

    assert all(codec_of(machine, chunk) == DELTA for chunk in range(5, 15))
    assert sum(name.startswith("data/") for name in reads) == 1
    assert machine.read() == machine.content


def remove_packs_of(machine: Machine, folder: Path, chunk: int) -> None:
    location = machine.open().index().find(machine.map()[chunk])
    assert location is not None
    (folder / location.pack.name).unlink()


def test_without_its_base_a_chunk_is_stored_whole_and_the_run_goes_on(
    machine: Machine, tmp_path: Path
) -> None:
    remove_packs_of(machine, tmp_path / "repository", 3)
    machine.overwrite(3, 5, seed=2)
    repository = machine.open()
    with repository.writer() as writer:
        piece = memoryview(machine.content)[3 * CHUNK : 4 * CHUNK]
        prepared = writer.prepare(piece, machine.map()[3])
        assert prepared.new is not None
        assert prepared.new.codec != DELTA
        writer.append(prepared)
        writer.flush()


def test_a_new_delta_depends_on_the_pack_of_its_base(machine: Machine, tmp_path: Path) -> None:
    parent_id = machine.map()[3]
    machine.overwrite(3, 5, seed=2)
    with machine.open().writer() as writer:
        prepared = writer.prepare(memoryview(machine.content)[3 * CHUNK : 4 * CHUNK], parent_id)
        assert prepared.new is not None
        assert prepared.new.codec == DELTA
        writer.append(prepared)
        remove_packs_of(machine, tmp_path / "repository", 3)
        with pytest.raises(RepositoryDamaged, match="missing"):
            writer.flush()


def test_a_point_is_not_made_upon_a_base_that_went_away(machine: Machine, tmp_path: Path) -> None:
    machine.overwrite(3, 5, seed=2)
    machine.back_up()
    parent_id = machine.map()[3]
    repository = machine.open()
    with repository.writer() as writer:
        prepared = writer.prepare(memoryview(machine.content)[3 * CHUNK : 4 * CHUNK], parent_id)
        assert prepared.new is None, "the repository has this chunk, as a delta"
        index = repository.index()
        location = index.find(parent_id)
        assert location is not None
        base = index.find(location.entry.base)
        assert base is not None
        (tmp_path / "repository" / base.pack.name).unlink()
        with pytest.raises(RepositoryDamaged, match="missing"):
            writer.flush()


def bases_of(index: ChunkIndex, chunk_ids: list[bytes]) -> list[int]:
    return [int(place) for place in index.bases(index.positions(b"".join(chunk_ids)))]


def test_the_index_names_the_base_of_each_delta(machine: Machine) -> None:
    before = [machine.map()[chunk] for chunk in range(20)]
    machine.overwrite(3, 5, seed=2)
    machine.overwrite(9, 0, seed=3)
    machine.back_up()
    after = [machine.map()[chunk] for chunk in range(20)]
    index = machine.open().index()
    places = index.positions(b"".join(before)).tolist()

    assert bases_of(index, after) == [places[at] if at in {3, 9} else -1 for at in range(20)]


def test_a_delta_upon_a_lost_base_is_stored_again(machine: Machine) -> None:
    """What repair drops from the index must not be counted on through a delta either."""
    machine.overwrite(3, 5, seed=2)
    machine.back_up()
    chunk_id = machine.map()[3]
    tables = SegmentSource(machine.backend, machine.opened.keyring, None).tables().values()
    without_base = ChunkIndex()
    without_base.load_tables([table for table in tables if len(table.delta_rows)])

    assert without_base.find(chunk_id) is not None
    assert without_base.claim(chunk_id)
    assert not machine.open().index().claim(chunk_id)


def test_a_damaged_base_is_never_read_as_something_else(machine: Machine, tmp_path: Path) -> None:
    machine.overwrite(3, 5, seed=2)
    base = machine.map()[3]
    machine.back_up()
    location = machine.open().index().find(base)
    assert location is not None
    path = tmp_path / "repository" / location.pack.name
    data = bytearray(path.read_bytes())
    data[location.entry.offset + 100] ^= 1
    path.write_bytes(data)

    with pytest.raises(RepositoryDamaged, match=location.pack.digest.hex()[:8]):
        machine.open().reader().read(machine.map()[3])
