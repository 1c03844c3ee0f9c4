"""Verifying packs in turns: what is due first, within bounds, going on after an interruption."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import Interrupted
from hotspare.repository.repository import Repository
from hotspare.repository.scrub import list_packs
from hotspare.repository.verify_log import VerifyLog
from hotspare.repository.verify_packs import Bounds, PacksReport, verify_packs
from tests.repository.conftest import CHUNK, PASSPHRASE, StorePoint


def verify(
    repository: Repository,
    folder: Path,
    bounds: Bounds | None = None,
    listener: events.Listener = events.ignore,
    cancellation: Cancellation | None = None,
) -> PacksReport:
    opened = Repository.open(repository.backend, PASSPHRASE)
    with VerifyLog(folder, opened.id) as log:
        return verify_packs(
            opened, opened.points(), log, bounds or Bounds(), listener, cancellation or Cancellation()
        )


@pytest.fixture
def six_packs(repository: Repository, store_point: StorePoint) -> Repository:
    for seed in range(3):
        store_point(repository, f"machine{seed}", random.Random(seed).randbytes(10 * CHUNK))
    assert len(list_packs(repository.backend)) == 6
    return repository


def test_all_packs_are_verified(six_packs: Repository, tmp_path: Path) -> None:
    report = verify(six_packs, tmp_path / "state")
    assert (report.packs, report.packs_left, report.problems) == (6, 0, [])
    assert report.bytes == 30 * CHUNK + 3 * 10 * 32
    assert report.bytes_read == sum(item.size for item in list_packs(six_packs.backend))


def test_bounded_runs_go_round_all_packs(six_packs: Repository, tmp_path: Path) -> None:
    seen: list[int] = []
    for left in (4, 4, 4):
        report = verify(six_packs, tmp_path / "state", Bounds(bytes_max=11 * CHUNK))
        seen.append(report.packs)
        assert report.bytes_read <= 11 * CHUNK
        assert report.packs_left >= left - 3
    with VerifyLog(tmp_path / "state", six_packs.id) as log:
        assert all(log.verified_at(item.name) for item in list_packs(six_packs.backend))


def test_one_pack_is_verified_however_tight_the_bounds(six_packs: Repository, tmp_path: Path) -> None:
    for left in range(6):
        assert verify(six_packs, tmp_path / "state", Bounds(seconds_max=0)).packs == 1, left
    with VerifyLog(tmp_path / "state", six_packs.id) as log:
        assert all(log.verified_at(item.name) for item in list_packs(six_packs.backend))


def test_an_interrupted_run_is_gone_on_with(six_packs: Repository, tmp_path: Path) -> None:
    cancellation = Cancellation()

    def stop_after_two(event: events.Event) -> None:
        if isinstance(event, events.Progress):
            with VerifyLog(tmp_path / "state", six_packs.id) as log:
                if sum(log.verified_at(item.name) is not None for item in list_packs(six_packs.backend)) == 2:
                    cancellation.cancel()

    with pytest.raises(Interrupted):
        verify(six_packs, tmp_path / "state", listener=stop_after_two, cancellation=cancellation)
    with VerifyLog(tmp_path / "state", six_packs.id) as log:
        names = [item.name for item in list_packs(six_packs.backend)]
        due = log.by_need(names)
        assert [log.verified_at(name) is None for name in due] == [True] * 4 + [False] * 2


def test_damage_is_named_and_stays_due(six_packs: Repository, tmp_path: Path) -> None:
    hit = list_packs(six_packs.backend)[0]
    data = bytearray(six_packs.backend.get(hit.name))
    data[5000] ^= 1
    six_packs.backend.put(hit.name, [data])
    for _ in range(2):
        report = verify(six_packs, tmp_path / "state", Bounds(seconds_max=0))
        (problem,) = report.problems
        assert problem.object == hit.name
        (affected,) = problem.affected
        assert affected.ranges == ((0, CHUNK),)
        assert affected.point == problem.points[0]


def test_the_rate_is_kept(six_packs: Repository, tmp_path: Path) -> None:
    total = sum(item.size for item in list_packs(six_packs.backend))
    began = datetime.now(UTC)
    verify(six_packs, tmp_path / "state", Bounds(bytes_per_second=2 * total))
    # The last pack is begun when the others' time is over.
    assert (datetime.now(UTC) - began).total_seconds() > 0.3


def test_the_log_forgets_packs_that_are_gone_and_does_not_grow_for_ever(tmp_path: Path) -> None:
    with VerifyLog(tmp_path, "id") as log:
        for turn in range(3000):
            log.note(f"pack{turn % 3}", datetime(2026, 11, 23, tzinfo=UTC) + timedelta(seconds=turn))
        log.keep_only(["pack0", "pack1"])
        log.note("pack1", datetime(2027, 1, 1, tzinfo=UTC))
    assert len((tmp_path / "verified-id").read_text().splitlines()) == 3
    with VerifyLog(tmp_path, "id") as log:
        assert log.by_need(["pack1", "pack2", "pack0"]) == ["pack2", "pack0", "pack1"]


@settings(max_examples=100, deadline=None)
@given(junk=st.binary(max_size=200))
def test_a_log_with_junk_in_it_is_no_obstacle(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("log")
    (folder / "verified-id").write_bytes(junk)
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    with VerifyLog(folder, "id") as log:
        log.note("pack0", moment)
    with VerifyLog(folder, "id") as log:
        assert log.verified_at("pack0") == moment
