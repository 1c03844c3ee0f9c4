"""The index made again from the packs."""

import random
from pathlib import Path

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, Interrupted
from hotspare.repository.format import parse_pack_name
from hotspare.repository.gc.state import put_condemned
from hotspare.repository.reindex import ReindexReport, rebuild_index
from hotspare.repository.repository import Repository
from tests.repository.conftest import CHUNK, StorePoint


def reindex(repository: Repository) -> ReindexReport:
    return rebuild_index(again(repository), events.ignore, Cancellation())


def again(repository: Repository) -> Repository:
    return Repository(repository.backend, repository.config, repository.keyring)


def reads_as(repository: Repository, number: int, content: bytes) -> bool:
    point = repository.points()[number]
    buffer = bytearray(len(content))
    again(repository).disk(point.disks[0]).read_into(0, memoryview(buffer))
    return buffer == content


def noise(seed: int, chunks: int) -> bytes:
    return random.Random(seed).randbytes(chunks * CHUNK)


@pytest.fixture
def contents(repository: Repository, store_point: StorePoint) -> list[bytes]:
    made = [noise(seed, 12) for seed in (1, 2)]
    for number, content in enumerate(made):
        store_point(repository, f"web{number}", content)
    return made


def all_read(repository: Repository, contents: list[bytes]) -> bool:
    return all(reads_as(repository, number, content) for number, content in enumerate(contents))


def test_nothing_is_listed_anew_while_packs_are_condemned(
    repository: Repository, contents: list[bytes]
) -> None:
    pack = next(parse_pack_name(item.name) for item in repository.backend.list("meta/"))
    assert pack is not None
    put_condemned(repository.backend, repository.keyring, "p" + "0" * 16, [pack])

    with pytest.raises(HotspareError, match="prune"):
        reindex(repository)
    assert list(repository.backend.list("sessions/")) == []
    assert all_read(repository, contents)


@pytest.mark.parametrize("before", ["whole", "gone", "damaged"])
def test_everything_is_found_again(
    repository: Repository, contents: list[bytes], tmp_path: Path, before: str
) -> None:
    for path in (tmp_path / "repository" / "index").iterdir():
        if before == "gone":
            path.unlink()
        elif before == "damaged":
            path.write_bytes(b"junk")
    report = reindex(repository)

    assert (report.packs, report.chunks, report.problems) == (4, 26, [])
    assert len(again(repository).index()) == 26, "old segments are passed over"
    assert all_read(repository, contents)


def test_what_a_running_backup_publishes_meanwhile_stays(
    repository: Repository, contents: list[bytes], store_point: StorePoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = noise(3, 5)

    def meanwhile(_event: events.Event) -> None:
        store_point(again(repository), "web2", content)

    monkeypatch.setattr("hotspare.repository.reindex._ROWS_MAX", 5)
    report = rebuild_index(again(repository), meanwhile, Cancellation())

    assert report.segments > 3
    assert all_read(repository, [*contents, content])


def test_packs_without_a_table_are_named_and_what_was_known_of_them_is_kept(
    repository: Repository, contents: list[bytes], tmp_path: Path
) -> None:
    paths = sorted((tmp_path / "repository" / "data").glob("*/*"))
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[:-1] + b"x")
    (tmp_path / "repository" / "data" / "notes.txt").write_text("no pack")
    report = reindex(repository)

    assert {problem.object for problem in report.problems} == {
        f"data/{paths[0].parent.name}/{paths[0].name}",
        "data/notes.txt",
    }
    assert all_read(repository, contents), "entries are whole although the table is not"


@pytest.mark.parametrize("keep", [0, 20, 50, 1000])
def test_a_truncated_pack_is_named(
    repository: Repository, contents: list[bytes], tmp_path: Path, keep: int
) -> None:
    path = min((tmp_path / "repository" / "data").glob("*/*"))
    path.write_bytes(path.read_bytes()[:keep])

    (problem,) = reindex(repository).problems
    assert problem.object.endswith(path.name)


def test_an_interrupted_run_leaves_the_old_index(repository: Repository, contents: list[bytes]) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Interrupted):
        rebuild_index(repository, events.ignore, cancellation)
    assert all_read(repository, contents)


def test_a_large_table_takes_another_request(
    repository: Repository, store_point: StorePoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotspare.repository.reindex._TAIL", 100)
    content = noise(1, 10)
    store_point(repository, "web0", content)
    for item in list(repository.backend.list("index/")):
        repository.backend.delete(item.name)

    assert reindex(repository).chunks == 11
    assert reads_as(repository, 0, content)
