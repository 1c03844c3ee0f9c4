"""The fault injector: each fault happens, as often as asked, and the same ones for the same seed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hotspare.errors import ConfigError, ObjectNotFound, StorageError
from hotspare.storage.local import LocalBackend
from hotspare.storage.wrappers.faults import FaultRules, FaultyBackend


@pytest.fixture
def local(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "store")


def attempt(call: Callable[[], object]) -> bool:
    try:
        call()
    except StorageError as error:
        return not error.may_pass
    return True


def test_no_rules_no_faults(local: LocalBackend) -> None:
    backend = FaultyBackend(local, FaultRules())
    for number in range(200):
        backend.put(f"data/{number}", [b"x"])

    assert len(list(backend.list(""))) == 200


def test_errors_come_as_often_as_asked_before_and_after_the_effect(local: LocalBackend) -> None:
    backend = FaultyBackend(local, FaultRules(seed=1, error=0.3))
    failed = [n for n in range(300) if not attempt(lambda n=n: backend.put(f"data/{n:03}", [b"x"]))]  # type: ignore[misc]

    assert 60 < len(failed) < 120
    stored = {item.name for item in local.list("")}
    took_effect = [number for number in failed if f"data/{number:03}" in stored]
    assert 0.3 < len(took_effect) / len(failed) < 0.7
    assert len(stored) == 300 - len(failed) + len(took_effect)


def test_the_same_seed_fails_alike(tmp_path: Path) -> None:
    def run(folder: str, seed: int) -> list[bool]:
        backend = FaultyBackend(LocalBackend(tmp_path / folder), FaultRules(seed=seed, error=0.5))
        return [attempt(lambda: backend.put("x", [b"x"])) for _ in range(50)]

    assert run("a", 7) == run("b", 7)
    assert run("c", 7) != run("d", 8)


def test_other_calls_fail_too(local: LocalBackend) -> None:
    local.put("x", [b"abc"])
    backend = FaultyBackend(local, FaultRules(error=1))

    assert not attempt(lambda: backend.get("x"))
    assert not attempt(lambda: backend.get_range("x", 0, 1))
    assert not attempt(lambda: backend.size("x"))
    assert not attempt(lambda: list(backend.list("")))
    assert not attempt(lambda: backend.delete("x"))


def test_reads_are_cut_short(local: LocalBackend) -> None:
    local.put("x", [b"abcdef"])
    backend = FaultyBackend(local, FaultRules(truncate=1))

    got = backend.get("x")
    assert len(got) < 6
    assert b"abcdef".startswith(got)
    assert not attempt(lambda: backend.get_range("x", 0, 3))


def test_a_lost_put_answers_success_and_stores_nothing(local: LocalBackend) -> None:
    backend = FaultyBackend(local, FaultRules(lose_put=1))
    backend.put("x", [b"x"])

    with pytest.raises(ObjectNotFound):
        backend.get("x")


def test_a_late_put_fails_and_arrives_later(local: LocalBackend) -> None:
    backend = FaultyBackend(local, FaultRules(late_put=1))
    assert not attempt(lambda: backend.put("x", [b"x"]))
    assert list(local.list("")) == []

    calls = 0
    while not list(local.list("")):
        list(backend.list("other"))
        calls += 1
    assert 1 <= calls <= 12
    assert local.get("x") == b"x"


def test_a_duplicate_put_comes_back_after_a_delete(local: LocalBackend) -> None:
    backend = FaultyBackend(local, FaultRules(duplicate_put=1))
    backend.put("x", [b"x"])
    local.delete("x")
    backend.settle()

    assert local.get("x") == b"x"
    backend.settle()


def test_a_stale_listing_shows_what_was(local: LocalBackend) -> None:
    backend = FaultyBackend(local, FaultRules(seed=2, stale_list=1))
    local.put("data/old", [b"old"])
    backend.put("data/new", [b"new"])
    backend.delete("data/old")
    assert [item.name for item in backend.list("data/")] == ["data/old"]
    assert backend.get("data/new") == b"new", "only listings are stale"

    for _ in range(4):
        names = [item.name for item in backend.list("data/")]
    assert names == ["data/new"]


def test_a_delay_goes_before_each_call(local: LocalBackend) -> None:
    waits: list[float] = []
    backend = FaultyBackend(local, FaultRules(delay=0.05), sleep=waits.append)
    backend.put("x", [b"x"])
    backend.get("x")

    assert waits == [0.05, 0.05]


def test_a_prefix_spares_the_others(local: LocalBackend) -> None:
    backend = FaultyBackend(local, FaultRules(error=1, prefix="data/"))
    backend.put("config", [b"x"])

    assert backend.get("config") == b"x"
    assert not attempt(lambda: backend.put("data/x", [b"x"]))


def test_rules_are_written_as_text() -> None:
    rules = FaultRules.parse(
        "seed=7,error=0.01, delay=50ms,truncate=1,lose_put=.5,stale_list=0.2,prefix=data/"
    )

    assert rules == FaultRules(
        seed=7, error=0.01, delay=0.05, truncate=1, lose_put=0.5, stale_list=0.2, prefix="data/"
    )
    assert FaultRules.parse("delay=2s").delay == 2
    assert FaultRules.parse("delay=0.5").delay == 0.5
    assert FaultRules.parse("") == FaultRules()


@pytest.mark.parametrize(
    "text", ["errors=1", "error", "error=often", "error=1.5", "error=-1", "seed=x", "delay=5m", "error=nan"]
)
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="is no rule"):
        FaultRules.parse(text)
